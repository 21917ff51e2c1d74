"""JSON files: one object a line, or one array of objects.

Lines are streamed. An array is read whole, because Polars can read it in no other way.
"""

from __future__ import annotations

import glob
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import polars as pl

from flows._errors import ExtractError, SourceMissingError, SourceTypeError
from flows.sources import _files, _texts
from flows.sources._base import Pushdown
from flows.sources._blocks import Block, blocks, in_order
from flows.sources._broken import STOPPED, Read, told_by_number
from flows.sources._brought import Piece
from flows.sources._found import readable
from flows.sources._lines import as_lines, schema_of
from flows.sources._sieve import Record, judged, sifted

_LARGEST_INT = 2**127
_LONGEST_INT = 40
_SHOWN_CHARACTERS = 20
_EXACT_DIGITS = 15  # of a JSON number, which is a double
_SHAPES: dict[type, str] = {dict: "an object", list: "an array"}


@dataclass(frozen=True)
class Json(_files.Format):
    """How the files are written.

    Attributes:
        dtypes: declared types; a declared column is there even if no row has it.
        lines: whether every line is an object; None to see for each file.
    """

    dtypes: Mapping[str, pl.DataType] = field(default_factory=dict)
    lines: bool | None = None

    def look(self, piece: Piece) -> pl.Schema | None:
        """The fields that any row of the file has, in the order they are met; their types over every row."""
        if _files.is_empty(piece):
            return None
        try:
            schema = self._frame(piece, None).collect_schema()
        except STOPPED:
            if not self._has_lines(piece):
                raise
            schema = self._schema_of_good_lines(piece)
        self._require_exact(piece, schema)
        return schema

    def _schema_of_good_lines(self, piece: Piece) -> pl.Schema:
        """What Polars would find, were the broken lines not there."""
        known = pl.DataFrame()
        for block in self._blocks(piece):
            good = [_parsed(one.raw) for one in _records(block) if one.is_row]
            if good:
                found = pl.DataFrame(schema=schema_of(good, self._texts))
                known = pl.concat([known, found], how="diagonal_relaxed") if known.width else found
        return known.schema

    @property
    def _texts(self) -> frozenset[str]:
        """Columns that are declared as text."""
        return frozenset(name for name, dtype in self.dtypes.items() if dtype == pl.String())

    def agreed(self, looks: Mapping[str, pl.Schema | None], known: pl.Schema | None) -> pl.Schema:
        """The fields that any file has, and those that files had before; types that hold all their values."""
        told = {name: schema for name, schema in looks.items() if schema is not None}
        if known is not None:
            told = {"the files read before": known, **told}
        names = dict.fromkeys(name for schema in [*told.values(), self.dtypes] for name in schema)
        if not names:
            raise SourceMissingError(
                f"{next(iter(looks))!r} has no rows, so no column is known. Declare them in 'dtypes'."
            )
        return pl.Schema({name: self.dtypes.get(name) or _common(name, told) for name in names})

    def rows(self, piece: Piece, schema: pl.Schema, ask: Pushdown) -> Iterator[Read]:
        """Stream the rows; declared columns are read as texts, and typed block by block."""
        if _files.is_empty(piece):
            return
        as_read = pl.Schema({name: pl.String() if name in self.dtypes else dtype for name, dtype in schema.items()})
        names = list(ask.columns if ask.columns is not None else schema)
        if not self._has_lines(piece):
            texts = self._frame(piece, as_read).select(names).collect(engine="in-memory")
            rows, unfit = _texts.typed(texts, schema)
            yield Read(rows, told_by_number(texts, unfit))
            return

        def read(data: bytes) -> pl.DataFrame:
            return (
                pl.read_ndjson(io.BytesIO(data), schema=as_read).select(names) if data else pl.DataFrame(schema=as_read)
            )

        def work(block: Block) -> Read:
            found = sifted(block, read, _records)
            rows, unfit = _texts.typed(found.frame.select(names), schema)
            return judged(found, rows, unfit, partial(_records, block))

        yield from in_order(work, self._blocks(piece))

    def _blocks(self, piece: Piece) -> Iterator[Block]:
        with readable(piece.name), _files.opened(piece.file) as stream:
            yield from blocks(stream)

    def _has_lines(self, piece: Piece) -> bool:
        """Whether every line is an object."""
        if self.lines is not None:
            return self.lines
        with readable(piece.name), _files.opened(piece.file) as stream:
            first = next((line for line in stream if line.strip()), b"")
        return first.lstrip().startswith(b"{") and first.rstrip().endswith(b"}")

    def require_whole(self, piece: Piece) -> None:
        """Read every record, slowly, for the one that is wrong."""
        shapes: dict[str, str] = {}
        for place, record in self._objects(piece):
            for name, value in record.items():
                shape = _SHAPES.get(type(value), "a plain value")
                if value is not None and shapes.setdefault(name, shape) != shape:
                    raise SourceTypeError(f"{place}: {name!r} is {shape} here and {shapes[name]} before.")

    def _frame(self, piece: Piece, schema: pl.Schema | None) -> pl.LazyFrame:
        if self._has_lines(piece):
            # Polars takes every name for a glob.
            return pl.scan_ndjson(glob.escape(piece.path), schema=schema, infer_schema_length=None)
        with _files.opened(piece.file) as stream:
            whole = stream.read()
        try:
            return pl.read_json(whole, schema=schema, infer_schema_length=None).lazy()
        except STOPPED:
            records = [record for _place, record in self._objects(piece)]
            if schema is not None:  # of an array Polars takes no object for a text, as it does of lines
                return pl.read_ndjson(io.BytesIO(as_lines(records)), schema=schema).lazy()
            if not self._texts:
                raise
            return pl.DataFrame(schema=schema_of(records, self._texts)).lazy()

    def _require_exact(self, piece: Piece, schema: pl.Schema) -> None:
        """Refuse numbers as decimals where a double does not keep all their digits."""
        decimals = [name for name, dtype in self.dtypes.items() if isinstance(dtype, pl.Decimal)]
        doubles = [name for name in decimals if schema.get(name) == pl.Float64()]
        if not doubles:
            return
        beyond = pl.col(doubles).round_sig_figs(_EXACT_DIGITS) != pl.col(doubles)
        found = self._frame(piece, schema).select(beyond.any()).collect(engine="streaming").row(0, named=True)
        for name in doubles:
            if found[name]:
                raise SourceTypeError(
                    f"{piece.name!r}: column {name!r} has numbers with more than {_EXACT_DIGITS} digits, which JSON "
                    "readers do not keep. Write them as texts, or declare float."
                )

    def _objects(self, piece: Piece) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every record, with its place in words."""
        if self._has_lines(piece):
            for block in self._blocks(piece):
                for record in _records(block):
                    if record.is_row:
                        yield f"{piece.name!r} line {record.line}", _parsed(record.raw)
            return
        with readable(piece.name), _files.opened(piece.file) as stream:
            whole = stream.read()
        values = _document(whole, piece.name)
        for number, value in enumerate(values if isinstance(values, list) else [values], start=1):
            place = f"{piece.name!r} record {number}"
            if not isinstance(value, dict):
                shown = json.dumps(value)[:60]
                raise ExtractError(f"{place}: every record must be an object, and {shown} is not one.")
            yield place, value


def _common(name: str, schemas: Mapping[str, pl.Schema]) -> pl.DataType:
    """The type of a field in all files; nested ones are merged, a number and a text are not."""
    first, common = next((file, schema[name]) for file, schema in schemas.items() if name in schema)
    for file, schema in schemas.items():
        dtype = schema.get(name, common)
        if pl.Null() in (dtype, common) or (dtype.is_numeric() and common.is_numeric()) or _alike(dtype, common):
            frames = [pl.DataFrame(schema={name: each}) for each in (common, dtype)]
            common = pl.concat(frames, how="vertical_relaxed").schema[name]
        elif dtype != common:
            raise SourceTypeError(
                f"{name!r} is {common} in {first!r} and {dtype} in {file!r}. Declare its type in 'dtypes'."
            )
    return _files.settled(common)


def _alike(dtype: pl.DataType, other: pl.DataType) -> bool:
    return dtype.is_nested() and dtype.base_type() == other.base_type()


def _records(block: Block) -> Iterator[Record]:
    """Every line that is not blank."""
    for number, line in enumerate(io.BytesIO(block.data), start=block.line):
        if line.strip():
            yield Record(number, line, _problem(line))


def _problem(line: bytes) -> str | None:
    """Why a line is no object; None where it is one."""
    try:
        return None if isinstance(_parsed(line.strip()), dict) else "this is no JSON object"
    except UnicodeDecodeError:
        return "the text is not UTF-8"
    except json.JSONDecodeError as error:
        return f"this is not JSON: {error.msg} at character {error.colno}"
    except ValueError as error:
        return str(error)
    except RecursionError:
        return "this is nested too deep"


def _document(text: bytes, name: str) -> Any:
    try:
        return _parsed(text)
    except UnicodeDecodeError as error:
        raise ExtractError(f"{name!r}: the text is not UTF-8. Write it as UTF-8.") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}: this is not JSON: {error.msg} at character {error.colno}"
        raise ExtractError(f"{name!r} {where}.") from error
    except (ValueError, RecursionError) as error:
        raise ExtractError(f"{name!r}: this cannot be read: {error}.") from error


def _parsed(text: bytes) -> Any:
    return json.loads(text.decode(), parse_constant=_no_constant, parse_int=_int, parse_float=_float)


def _int(text: str) -> int:
    if len(text) > _LONGEST_INT or not -_LARGEST_INT <= int(text) < _LARGEST_INT:
        raise ValueError(f"the number '{text[:_SHOWN_CHARACTERS]}...' is too large")
    return int(text)


def _float(text: str) -> float:
    if math.isinf(float(text)):
        raise ValueError(f"the number {text!r} is too large")
    return float(text)


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word!r} is not a number")
