"""Sheets of Excel workbooks: read whole, cell by cell, by calamine."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import polars as pl

from flows._errors import ExtractError, SourceMissingError
from flows.sources import _files, _texts
from flows.sources._base import Pushdown
from flows.sources._broken import Read, told_by_number
from flows.sources._brought import Piece
from flows.sources._found import readable
from transforms._words import did_you_mean


@dataclass(frozen=True)
class Excel(_files.Format):
    """A sheet with a header in its first row.

    Attributes:
        dtypes: declared types; their cells are read as texts.
        sheet: by name, or by number from 1.
    """

    dtypes: Mapping[str, pl.DataType] = field(default_factory=dict)
    sheet: str | int = 1
    has_header: bool = True

    def look(self, piece: Piece) -> pl.Schema | None:
        """Columns, and the types that all their cells have; a column with cells of several types is text."""
        sheet = self._read(piece, {})
        if not sheet.width:
            return None
        empty = {name for name in sheet.columns if sheet[name].null_count() == sheet.height}
        return pl.Schema({name: pl.Null() if name in empty else dtype for name, dtype in sheet.schema.items()})

    def agreed(self, looks: Mapping[str, pl.Schema | None], known: pl.Schema | None) -> pl.Schema:
        """The columns of the first workbook; an empty one has the type that it has elsewhere, numbers are alike."""
        sheets = {name: schema for name, schema in looks.items() if schema is not None}
        if not sheets:
            if self.dtypes:
                return pl.Schema(self.dtypes)
            raise SourceMissingError(
                f"the sheet of {next(iter(looks))!r} is empty, so no column is known. Declare them in 'dtypes'."
            )
        _files.require_same_columns(sheets)
        names = list(next(iter(sheets.values())))
        _files.require_declared(self.dtypes, names)
        told = [*([known] if known is not None else []), *sheets.values()]
        settled = {
            name: self.dtypes.get(name) or _common([schema.get(name, pl.Null()) for schema in told]) for name in names
        }
        for file, schema in sheets.items():
            fitted = {
                name: settled[name] if self._fits(name, dtype, settled[name]) else dtype
                for name, dtype in schema.items()
            }
            _files.require_same_types({next(iter(sheets)): pl.Schema(settled), file: pl.Schema(fitted)})
        return pl.Schema(settled)

    def _fits(self, name: str, dtype: pl.DataType, common: pl.DataType) -> bool:
        return name in self.dtypes or dtype == pl.Null() or (dtype.is_numeric() and common.is_numeric())

    def rows(self, piece: Piece, schema: pl.Schema, ask: Pushdown) -> Iterator[Read]:
        """The rows of the sheet, at once."""
        texts: dict[str, pl.DataType] = {name: pl.String() for name in self.dtypes}
        try:
            sheet = self._read(piece, texts)
        except KeyError:  # Polars misses a declared column, which only a sheet without any can lack by now
            return
        if not sheet.width:
            return
        sheet = sheet.select(list(ask.columns if ask.columns is not None else schema))
        alike = [
            pl.col(name).cast(schema[name])
            for name, dtype in sheet.schema.items()
            if dtype.is_numeric() or dtype == pl.Null()
        ]
        sheet = sheet.with_columns(alike)
        rows, unfit = _texts.typed(sheet, schema)
        yield Read(rows, told_by_number(sheet, unfit))

    def _read(self, piece: Piece, overrides: Mapping[str, pl.DataType]) -> pl.DataFrame:
        import fastexcel  # noqa: PLC0415 - only workbooks need it

        with readable(piece.name):
            data = piece.file.read_bytes()
        with _mapped(piece):
            book = fastexcel.read_excel(data)
            if isinstance(self.sheet, str) and self.sheet not in book.sheet_names:
                hint = did_you_mean(self.sheet, book.sheet_names, word="Present")
                raise SourceMissingError(f"{piece.name!r} has no sheet {self.sheet!r}.{hint}")
            if isinstance(self.sheet, int) and self.sheet > len(book.sheet_names):
                raise SourceMissingError(f"{piece.name!r} has {len(book.sheet_names)} sheets, and none {self.sheet}.")
            name = self.sheet if isinstance(self.sheet, str) else book.sheet_names[self.sheet - 1]
            return pl.read_excel(
                io.BytesIO(data),
                sheet_name=name,
                has_header=self.has_header,
                schema_overrides=dict(overrides) or None,
                infer_schema_length=None,
                drop_empty_rows=True,
                drop_empty_cols=False,
                raise_if_empty=False,
            )


def _common(dtypes: list[pl.DataType]) -> pl.DataType:
    filled = [dtype for dtype in dtypes if dtype != pl.Null()]
    return next((dtype for dtype in filled if dtype.is_float()), filled[0] if filled else pl.String())


@contextmanager
def _mapped(piece: Piece) -> Iterator[None]:
    import fastexcel  # noqa: PLC0415 - as above

    try:
        yield
    except fastexcel.FastExcelError as error:
        raise ExtractError(f"{piece.name!r} is not an Excel workbook, or not a whole one.") from error
