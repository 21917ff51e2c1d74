"""CSV files: texts by Polars' reader, types and shape by us.

Polars fills a row that is too short with nulls. Only such a row lacks the last column, so a null
there is what makes us look at the file's shape; files without one pay nothing for the check.
"""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

import polars as pl

from flows._errors import ExtractError, SourceMissingError, SourceTypeError
from flows.sources import _files, _texts
from flows.sources._base import Pushdown
from transforms._words import counted

Encoding = Literal["utf8", "utf8-lossy"]
_NOWHERE = "\x01"  # a separator that no line has: a line is one field
# Polars reads far ahead of a slow consumer, in pieces of this many bytes: 80 MB in all, and 350 with its own size.
os.environ.setdefault("POLARS_CSV_CHUNK_SIZE", "1000000")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Csv(_files.Format):
    """How the files are written, in the words of the configuration."""

    dtypes: Mapping[str, pl.DataType] = field(default_factory=dict)
    delimiter: str = ","
    quote_char: str | None = '"'
    has_header: bool = True
    null_values: tuple[str, ...] = ()
    encoding: Encoding = "utf8"

    def schema(self, files: Sequence[Path]) -> pl.Schema:
        """The columns of the first file; types as declared, or as every row of every file has them."""
        headers = {file: header for file in files if (header := self._header(file)) is not None}
        if not headers:
            if self.dtypes:
                return pl.Schema(self.dtypes)
            raise SourceMissingError(f"{str(files[0])!r} is empty, so no column is known. Declare them in 'dtypes'.")
        _files.require_same_columns(headers)
        names = next(iter(headers.values()))
        _files.require_declared(self.dtypes, names)
        open_ones = [name for name in names if name not in self.dtypes]
        found = _texts.inferred([self._scan(file, header) for file, header in headers.items()], open_ones)
        return pl.Schema({name: self.dtypes.get(name) or found[name] for name in names})

    def rows(self, file: Path, schema: pl.Schema, ask: Pushdown) -> Iterator[pl.DataFrame]:
        """Texts, typed batch by batch."""
        header = self._header(file)
        if header is None:
            return
        names = ask.columns or tuple(schema)
        frame = self._scan(file, header).select(list(dict.fromkeys([*names, header[-1]])))
        rows = 0
        square = len(header) == 1
        for batch in _files.streamed(frame if ask.limit is None else frame.head(ask.limit)):
            if not square and batch.get_column(header[-1]).null_count():
                self._require_square(file, len(header))
                square = True
            try:
                yield _texts.typed(batch.select(names), schema)
            except _texts.Unfit as unfit:
                raise self._unfit(file, unfit, rows) from unfit
            rows += batch.height

    def require_whole(self, file: Path) -> None:
        """Read every record, slowly, for the line that is wrong."""
        self._require_records(file, len(self._header(file) or ()))

    def _scan(self, file: Path, header: list[str]) -> pl.LazyFrame:
        return pl.scan_csv(
            file,
            has_header=self.has_header,
            separator=self.delimiter,
            quote_char=self.quote_char,
            null_values=list(self.null_values) or None,
            encoding=self.encoding,
            infer_schema=False,
            new_columns=header,  # Polars leaves doubled quotes in the names that it finds
            glob=False,
        )

    def _header(self, file: Path) -> list[str] | None:
        """The names of a file's columns; None of an empty file."""
        if _files.is_empty(file):
            return None
        _line, first = next(self._records(file))
        if not self.has_header:
            return [f"column_{index}" for index in range(len(first))]  # as Polars names them
        if twice := next((name for name in first if first.count(name) > 1), None):
            raise ExtractError(f"{str(file)!r} has two columns {twice!r}. Give one of them another name.")
        return first

    def _records(self, file: Path) -> Iterator[tuple[int, list[str]]]:
        """Every record with the line it begins on, from 1; blank lines before the first are no records."""
        csv.field_size_limit(sys.maxsize)
        quoting = {"quotechar": self.quote_char} if self.quote_char else {"quoting": csv.QUOTE_NONE}
        with _files.readable(file):
            reader = csv.reader(self._lines(file), delimiter=self.delimiter, strict=True, **quoting)
            begins, started = 1, False
            try:
                for record in reader:
                    started = started or bool(record)
                    if started:
                        yield begins, record
                    begins = reader.line_num + 1
            except csv.Error as error:
                raise self._at(file, begins, f"the quotes or line ends are broken ({error})") from error

    def _lines(self, file: Path) -> Iterator[str]:
        with _files.opened(file) as stream:
            for number, line in enumerate(stream, start=1):
                plain = line.removeprefix(_BOM) if number == 1 else line
                try:
                    yield plain.decode(errors="replace" if self.encoding == "utf8-lossy" else "strict")
                except UnicodeDecodeError as error:
                    advice = "Write it as UTF-8, or set encoding: utf8-lossy."
                    raise self._at(file, number, f"the text is not UTF-8. {advice}") from error

    def _require_square(self, file: Path, width: int) -> None:
        """Confirm that every record has `width` fields; quick where no field holds a line end."""
        lines = pl.scan_csv(
            file,
            has_header=False,
            separator=_NOWHERE,
            quote_char=None,
            encoding=self.encoding,
            infer_schema=False,
            empty_string_is_null=False,
            glob=False,
        )
        bare = pl.nth(0)
        if self.quote_char:
            quote = re.escape(self.quote_char)
            bare = bare.str.replace_all(f"{quote}[^{quote}]*{quote}", "")
        regular = bare.str.count_matches(self.delimiter, literal=True) == width - 1
        if self.quote_char:
            regular &= ~bare.str.contains(self.quote_char, literal=True)
        try:
            if lines.select(regular.all()).collect(engine="streaming").item():
                return
        except pl.exceptions.PolarsError:
            pass
        self._require_records(file, width)

    def _require_records(self, file: Path, width: int) -> None:
        for line, record in self._records(file):
            if len(record) != width:
                found = counted(len(record), "field") if record else "an empty line"
                advice = f"Fix the line, or quote the texts in it that hold {self.delimiter!r}."
                raise self._at(file, line, f"{found} where the first line has {width}. {advice}")

    def _unfit(self, file: Path, unfit: _texts.Unfit, rows_before: int) -> ExtractError:
        nth = rows_before + unfit.row + int(self.has_header)
        line, _record = next(islice(self._records(file), nth, None), (None, None))
        advice = "Declare another type in 'dtypes', or list it in 'null_values'."
        return SourceTypeError(f"{str(file)!r} line {line}: column {unfit.column!r}: {unfit}. {advice}")

    def _at(self, file: Path, line: int, message: str) -> ExtractError:
        return ExtractError(f"{str(file)!r} line {line}: {message.rstrip('.')}.")
