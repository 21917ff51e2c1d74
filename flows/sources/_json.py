"""JSON files: one object a line, or one array of objects.

Lines are streamed. An array is read whole, because Polars can read it in no other way.
"""

from __future__ import annotations

import glob
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import polars as pl

from flows._errors import ExtractError, SourceMissingError, SourceTypeError
from flows.sources import _files, _texts
from flows.sources._base import Pushdown

_LONGEST_INT = 20
_EXACT_DIGITS = 15  # of a JSON number, which is a double
_SHAPES: dict[type, str] = {dict: "an object", list: "an array"}
Record = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Json(_files.Format):
    """How the files are written.

    Attributes:
        dtypes: declared types; a declared column is there even if no row has it.
        lines: whether every line is an object; None to see for each file.
    """

    dtypes: Mapping[str, pl.DataType] = field(default_factory=dict)
    lines: bool | None = None

    def schema(self, files: Sequence[Path]) -> pl.Schema:
        """The fields that any row of any file has, in the order they are met; their types over every row."""
        found = {file: self._frame(file, None).collect_schema() for file in files if not _files.is_empty(file)}
        names = dict.fromkeys(name for schema in [*found.values(), self.dtypes] for name in schema)
        if not names:
            raise SourceMissingError(f"{str(files[0])!r} has no rows, so no column is known. Declare them in 'dtypes'.")
        self._require_exact(found)
        return pl.Schema({name: self.dtypes.get(name) or _common(name, found) for name in names})

    def rows(self, file: Path, schema: pl.Schema, ask: Pushdown) -> Iterator[pl.DataFrame]:
        """Stream the rows; declared columns are read as texts, and typed batch by batch."""
        if _files.is_empty(file):
            return
        as_read = pl.Schema({name: pl.String() if name in self.dtypes else dtype for name, dtype in schema.items()})
        frame = self._frame(file, as_read).select(list(ask.columns or schema))
        rows = 0
        for batch in _files.streamed(frame if ask.limit is None else frame.head(ask.limit)):
            try:
                yield _texts.typed(batch, schema)
            except _texts.Unfit as unfit:
                raise self._unfit(file, unfit, rows) from unfit
            rows += batch.height

    def require_whole(self, file: Path) -> None:
        """Read every record, slowly, for the one that is wrong."""
        shapes: dict[str, str] = {}
        for place, record in self._records(file):
            for name, value in record.items():
                shape = _SHAPES.get(type(value), "a plain value")
                if value is not None and shapes.setdefault(name, shape) != shape:
                    raise SourceTypeError(f"{place}: {name!r} is {shape} here and {shapes[name]} before.")

    def _frame(self, file: Path, schema: pl.Schema | None) -> pl.LazyFrame:
        if self._has_lines(file):
            # Polars takes every name for a glob.
            return pl.scan_ndjson(glob.escape(str(file)), schema=schema, infer_schema_length=None)
        with _files.opened(file) as stream:
            return pl.read_json(stream.read(), schema=schema, infer_schema_length=None).lazy()

    def _has_lines(self, file: Path) -> bool:
        if self.lines is not None:
            return self.lines
        with _files.readable(file), _files.opened(file) as stream:
            first = next((line for line in stream if line.strip()), b"")
        return first.lstrip().startswith(b"{") and first.rstrip().endswith(b"}")

    def _require_exact(self, found: Mapping[Path, pl.Schema]) -> None:
        """Refuse numbers as decimals where a double does not keep all their digits."""
        for file, schema in found.items():
            for name in self.dtypes:
                if not isinstance(self.dtypes[name], pl.Decimal) or schema.get(name) != pl.Float64():
                    continue
                number = pl.col(name)
                beyond = (number.round_sig_figs(_EXACT_DIGITS) != number).any()
                if self._frame(file, schema).select(beyond).collect(engine="streaming").item():
                    raise SourceTypeError(
                        f"{str(file)!r}: column {name!r} has numbers with more than {_EXACT_DIGITS} digits, which JSON "
                        "readers do not keep. Write them as texts, or declare float."
                    )

    def _records(self, file: Path) -> Iterator[Record]:
        """Every record, with its place in words."""
        with _files.readable(file), _files.opened(file) as stream:
            if self._has_lines(file):
                for number, line in enumerate(stream, start=1):
                    if line.strip():
                        place = f"{str(file)!r} line {number}"
                        yield place, _object(_parsed(line.strip(), str(file), number), place)
                return
            whole = _parsed(stream.read(), str(file), 1)
            for number, value in enumerate(whole if isinstance(whole, list) else [whole], start=1):
                place = f"{str(file)!r} record {number}"
                yield place, _object(value, place)

    def _unfit(self, file: Path, unfit: _texts.Unfit, rows_before: int) -> ExtractError:
        place, _record = next(islice(self._records(file), rows_before + unfit.row, None), (repr(str(file)), {}))
        return SourceTypeError(f"{place}: column {unfit.column!r}: {unfit}. Declare another type in 'dtypes'.")


def _common(name: str, schemas: Mapping[Path, pl.Schema]) -> pl.DataType:
    """The type of a field in all files; nested ones are merged, a number and a text are not."""
    first, common = next((file, schema[name]) for file, schema in schemas.items() if name in schema)
    for file, schema in schemas.items():
        dtype = schema.get(name, common)
        if pl.Null() in (dtype, common) or (dtype.is_numeric() and common.is_numeric()) or _alike(dtype, common):
            frames = [pl.DataFrame(schema={name: each}) for each in (common, dtype)]
            common = pl.concat(frames, how="vertical_relaxed").schema[name]
        elif dtype != common:
            raise SourceTypeError(
                f"{name!r} is {common} in {str(first)!r} and {dtype} in {str(file)!r}. Declare its type in 'dtypes'."
            )
    return _without_null(common)


def _alike(dtype: pl.DataType, other: pl.DataType) -> bool:
    return dtype.is_nested() and dtype.base_type() == other.base_type()


def _without_null(dtype: pl.DataType) -> pl.DataType:
    """Text where no row has a value."""
    if isinstance(dtype, pl.Struct):
        return pl.Struct({inner.name: _without_null(inner.dtype) for inner in dtype.fields})  # type: ignore[arg-type]
    if isinstance(dtype, pl.List):
        return pl.List(_without_null(dtype.inner))  # type: ignore[arg-type]
    return pl.String() if dtype == pl.Null() else dtype


def _parsed(text: bytes, file: str, line: int) -> Any:
    try:
        return json.loads(text.decode(), parse_constant=_no_constant, parse_int=_int, parse_float=_float)
    except UnicodeDecodeError as error:
        raise ExtractError(f"{file!r} line {line}: the text is not UTF-8. Write it as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise ExtractError(
            f"{file!r} line {line + error.lineno - 1}: this is not JSON: {error.msg} at character {error.colno}."
        ) from error
    except ValueError as error:
        raise ExtractError(f"{file!r} line {line}: this cannot be read: {error}.") from error


def _int(text: str) -> int:
    if len(text) > _LONGEST_INT:
        raise ValueError(f"the number '{text[:_LONGEST_INT]}...' is too large")
    return int(text)


def _float(text: str) -> float:
    if math.isinf(float(text)):
        raise ValueError(f"the number {text!r} is too large")
    return float(text)


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word!r} is not a number")


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ExtractError(f"{place}: every record must be an object, and {json.dumps(value)[:60]} is not one.")
    return value
