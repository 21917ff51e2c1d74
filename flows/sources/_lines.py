"""Rows of a file that has a JSON object in each line: which columns they have, over all of them, and the rows."""

from __future__ import annotations

import glob
import io
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from flows._sides import Side
from flows.sources import _files, _texts
from flows.sources._records import Order

_SHAPES: dict[type, str] = {
    dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number", str: "a text",
}  # fmt: skip

_LINES_AT_ONCE = 50_000


def as_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Records as JSON, each on a line."""
    return "".join(f"{json.dumps(record)}\n" for record in records).encode()


def schema_of(records: Iterable[Mapping[str, Any]], texts: Collection[str]) -> pl.Schema:
    """The types that records agree on; those of `texts`, which need not agree, are null."""
    agreeing = ({name: None if name in texts else value for name, value in record.items()} for record in records)
    return pl.read_ndjson(io.BytesIO(as_lines(agreeing)), infer_schema_length=None).schema


class Lines:
    """The rows of such a file.

    Args:
        dtypes: declared types; a declared column is there even if no row has it.
        order: the keys of all rows in the order in which they were met, and below each those of its objects; Polars
            has them in another order, which depends on how it shared out the work.
        place: says in words what stands in a line, from 1.
        side: the end that errors belong to.
    """

    def __init__(
        self, file: Path, dtypes: Mapping[str, pl.DataType], order: Order, place: Callable[[int], str], side: Side
    ) -> None:
        self._file = file
        self._order = order
        self._dtypes = dtypes
        self._place = place
        self._side = side

    def schema(self) -> pl.Schema:
        """The keys that any row has, in the order they are met, with the type that all agree on; then declared ones.

        Raises:
            ExtractError: rows do not agree on a type.
        """
        found: Mapping[str, pl.DataType] = {}
        if self._file.stat().st_size:
            with self._mapped():
                found = self._inferred()
        names = dict.fromkeys([*self._order, *self._dtypes])
        return pl.Schema({name: self._dtypes.get(name) or _settled(found[name], self._order[name]) for name in names})

    def rows(self, schema: pl.Schema, columns: tuple[str, ...], limit: int | None) -> Iterator[pl.DataFrame]:
        """Stream the rows; declared columns are read as texts, and typed batch by batch.

        Raises:
            ExtractError: a value does not fit its declared type.
        """
        if limit == 0 or not self._file.stat().st_size:
            return
        as_read = pl.Schema({name: pl.String() if name in self._dtypes else kind for name, kind in schema.items()})
        frame = self._frame(as_read).select(list(columns))
        rows = 0
        with self._mapped():
            for batch in _files.streamed(frame if limit is None else frame.head(limit)):
                fitting, unfit = _texts.typed(batch, schema)
                if unfit:
                    place = self._place(rows + unfit[0].row + 1)
                    raise self._side.error("type", f"{place}: {unfit[0]}. Declare another type in 'dtypes'.")
                yield fitting
                rows += batch.height

    def _inferred(self) -> pl.Schema:
        """The types that all rows agree on; what is declared as text need not agree."""
        try:
            return self._frame(None).collect_schema()
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            texts = frozenset(name for name, dtype in self._dtypes.items() if dtype == pl.String())
            if not texts:
                raise
        known = pl.DataFrame()
        with self._file.open("rb") as stream:
            while lines := list(islice(stream, _LINES_AT_ONCE)):
                found = pl.DataFrame(schema=schema_of(map(json.loads, lines), texts))
                known = pl.concat([known, found], how="diagonal_relaxed") if known.width else found
        return known.schema

    def _frame(self, schema: pl.Schema | None) -> pl.LazyFrame:
        # Polars takes every name for a glob.
        return pl.scan_ndjson(glob.escape(str(self._file)), schema=schema, infer_schema_length=None)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            said = self._disagreement() or f"the records cannot be read: {_files.first_line(error)}"
            raise self._side.error("type", f"{said}. Declare its type in 'dtypes': text fits all.") from error

    def _disagreement(self) -> str | None:
        """Where a key has a value of another shape than before, found slowly."""
        seen: dict[str, tuple[str, int]] = {}
        with self._file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                for name, value in json.loads(line).items():
                    shape = _SHAPES.get(type(value))
                    if shape is None:
                        continue
                    before, first = seen.setdefault(name, (shape, number))
                    if before != shape and name not in self._dtypes and {before, shape} != {"a number", "a text"}:
                        places = self._place(number), self._place(first)
                        return f"column {name!r} is {shape} in {places[0]}, and {before} in {places[1]}"
        return None


def _settled(dtype: pl.DataType, order: Order) -> pl.DataType:
    """The type with its fields in order; text where no row has a value, or no object a field."""
    if isinstance(dtype, pl.Struct) and dtype.fields:
        fields = {inner.name: _made(inner.dtype) for inner in dtype.fields}
        return pl.Struct([pl.Field(name, _settled(fields[name], order[name])) for name in order if name in fields])
    if isinstance(dtype, pl.List):
        return pl.List(_settled(_made(dtype.inner), order))
    return _files.settled(dtype)


def _made(dtype: object) -> pl.DataType:
    assert isinstance(dtype, pl.DataType)  # noqa: S101 - those of a schema are
    return dtype
