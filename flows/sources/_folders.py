"""Columns that a file has as a whole: the folders ``key=value`` it lies in, its name, and when it was modified.

A filter on such a column is answered once for each file, before it is opened.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import polars as pl

from flows._errors import SourceMissingError, SourceTypeError
from flows.sources import _texts
from flows.sources._base import Pushdown
from flows.sources._found import Found

_NULL = "__HIVE_DEFAULT_PARTITION__"
Node = Any  # Polars' own JSON of an expression


@dataclass(frozen=True)
class Constants:
    """Columns with one value for each file.

    Attributes:
        schema: of them.
        values: by the file's name, a row each.
        named: the columns that have a name of the configuration's, by the key that says it.
    """

    schema: pl.Schema = field(default_factory=pl.Schema)
    values: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)

    def added(self, file: Found, rows: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
        """The rows of a file with those of its constants that are among `names`, in that order."""
        if not self.schema:
            return rows
        row = self.values[file.name].row(0, named=True)
        wanted = [pl.lit(row[name], dtype=dtype).alias(name) for name, dtype in self.schema.items() if name in names]
        return rows.with_columns(wanted).select(names)

    def may_want(self, file: Found, predicate: pl.Expr | None) -> bool:
        """Whether a file can have rows for which the predicate is true."""
        if predicate is None or not self.schema:
            return True
        try:
            return not self.values[file.name].filter(predicate).is_empty()
        except pl.exceptions.PolarsError:  # the plan will say it better
            return True


def constants(
    files: Sequence[Found],
    dtypes: Mapping[str, pl.DataType],
    known: pl.Schema | None,
    *,
    hive: bool,
    named: Mapping[str, str],
) -> Constants:
    """The columns that the places of `files` give.

    Args:
        files: each with its path.
        dtypes: declared types; others are inferred from the texts, as in a CSV file.
        known: types in files that were read before.
        hive: whether folders ``key=value`` are columns.
        named: the names of ``source_file_column`` and ``modified_at_column``, where they are wanted.

    Raises:
        SourceMissingError: a file lacks a folder that another one has, or its place does not say when it was modified.
        SourceTypeError: a folder's value is not of its declared type.
    """
    keys = {file.name: folders_of(file.path) if hive else {} for file in files}
    _require_same_keys(keys)
    names = list(next(iter(keys.values()), {}))
    texts = pl.DataFrame(
        {key: [values[key] for values in keys.values()] for key in names}, schema=dict.fromkeys(names, pl.String)
    )
    fits = _texts.narrowed(dict.fromkeys(names, _texts.Fits()), texts)
    before = pl.Schema() if known is None else known
    schema = pl.Schema({key: dtypes.get(key) or _texts.inferred([fits], key, before.get(key)) for key in names})
    rows, unfit = _texts.typed(texts, schema)
    if unfit:
        raise SourceTypeError(f"{files[unfit[0].row].name!r}: {unfit[0]}. Declare another type in 'dtypes'.")
    for key, name in named.items():
        whole = _NAMED[key](files).alias(name)
        rows = rows.with_columns(whole) if schema else whole.to_frame()
        schema = pl.Schema({**schema, name: whole.dtype})
    return Constants(schema, {file.name: rows[index] for index, file in enumerate(files)} if schema else {}, named)


def _names(files: Sequence[Found]) -> pl.Series:
    return pl.Series([file.name for file in files], dtype=pl.String)


def _moments(files: Sequence[Found]) -> pl.Series:
    silent = next((file.name for file in files if file.modified is None), None)
    if silent is not None:
        raise SourceMissingError(f"nobody says when {silent!r} was modified. Remove 'modified_at_column'.")
    return pl.Series([file.modified for file in files], dtype=pl.Datetime("us", "UTC"))


_NAMED = {"source_file_column": _names, "modified_at_column": _moments}


def folders_of(path: str) -> dict[str, str | None]:
    """The folders ``key=value`` of a path, as texts; the default one is null."""
    pairs = (folder.partition("=") for folder in path.replace("\\", "/").split("/")[:-1])
    found = {unquote(key): unquote(value) for key, equals, value in pairs if key and equals}
    return {key: None if value == _NULL else value for key, value in found.items()}


def parted(ask: Pushdown, constant: Sequence[str]) -> tuple[pl.Expr | None, pl.Expr | None]:
    """The parts of a predicate that only look at columns of `constant`, and those that look at none of them.

    Neither where there is a limit, which counts before a predicate.
    """
    if ask.predicate is None or ask.limit is not None:
        return None, None
    if not constant:
        return None, ask.predicate
    of_files, of_rows = [], []
    for part in _conjuncts(ask.predicate):
        roots = set(part.meta.root_names())
        if roots and roots <= set(constant):
            of_files.append(part)
        elif not roots & set(constant):
            of_rows.append(part)
    return _all(of_files), _all(of_rows)


def _conjuncts(predicate: pl.Expr) -> list[pl.Expr]:
    try:
        tree = json.loads(predicate.meta.serialize(format="json"))
        return [pl.Expr.deserialize(io.StringIO(json.dumps(node)), format="json") for node in _nodes(tree)]
    except (pl.exceptions.PolarsError, ValueError):  # an expression that has no JSON is one part
        return [predicate]


def _nodes(node: Node) -> list[Node]:
    binary = node.get("BinaryExpr") if isinstance(node, dict) else None
    if binary and binary["op"] == "And":
        return _nodes(binary["left"]) + _nodes(binary["right"])
    return [node]


def _all(parts: Sequence[pl.Expr]) -> pl.Expr | None:
    return pl.all_horizontal(parts) if len(parts) > 1 else parts[0] if parts else None


def _require_same_keys(keys: Mapping[str, Mapping[str, object]]) -> None:
    first: str | None = None
    for file, found in keys.items():
        first = file if first is None else first
        if missing := [key for key in keys[first] if key not in found] or [
            key for key in found if key not in keys[first]
        ]:
            lacking = file if missing[0] not in found else first
            raise SourceMissingError(
                f"{lacking!r} lies in no folder '{missing[0]}=...', as others do. Give all files the same folders."
            )
