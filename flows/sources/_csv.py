"""CSV files: texts by Polars' reader, types and shape by us.

Polars fills a row that is too short with nulls. Only such a row lacks the last column, so a null
there is what makes us look at the lines; blocks without one pay nothing for the check.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import IO, cast

import polars as pl

from flows._errors import ExtractError, SourceMissingError
from flows.sources import _files, _texts
from flows.sources._base import Pushdown
from flows.sources._blocks import Block, Recoded, blocks, in_order
from flows.sources._broken import Read
from flows.sources._brought import Piece
from flows.sources._csv_records import Dialect, RaggedRows, lines_of, records
from flows.sources._found import readable
from flows.sources._sieve import Record, Sifted, judged, sifted
from transforms._words import counted

_NOWHERE = "\x01"  # a separator that no line has: a line is one field
# Polars shares a block out in pieces of this many bytes; its own are larger than a block.
os.environ.setdefault("POLARS_CSV_CHUNK_SIZE", "1000000")
_READ_AS_THEY_ARE = {"utf8", "utf8-lossy"}
#: Which troubles of a record a word for ragged rows forgives: too many fields, too few.
_FORGIVES = {"malformed": (False, False), "truncate": (True, False), "pad": (False, True), "fit": (True, True)}


@dataclass(frozen=True)
class Header:
    """What stands before the records.

    Attributes:
        names: of the columns.
        lines: how many lines it takes, preamble included.
    """

    names: tuple[str, ...]
    lines: int


@dataclass(frozen=True)
class Look:
    """What a file tells about its columns."""

    header: tuple[str, ...]
    fits: Mapping[str, _texts.Fits]


@dataclass(frozen=True)
class Csv(_files.Format):
    """How the files are written, in the words of the configuration."""

    dtypes: Mapping[str, pl.DataType] = field(default_factory=dict)
    delimiter: str = ","
    quote_char: str | None = '"'
    escape_char: str | None = None
    eol_char: str = "\n"
    has_header: bool = True
    column_names: tuple[str, ...] | None = None
    skip_rows: int = 0
    skip_rows_after_header: int = 0
    comment_prefix: str | None = None
    null_values: tuple[str, ...] = ()
    decimal_comma: bool = False
    ragged_rows: RaggedRows = "malformed"
    encoding: str = "utf8"

    @property
    def dialect(self) -> Dialect:
        """The same in bytes."""
        return Dialect(
            delimiter=self.delimiter.encode(),
            quote=(self.quote_char or "").encode(),
            escape=(self.escape_char or "").encode(),
            eol=self.eol_char.encode(),
            comment=(self.comment_prefix or "").encode(),
            nulls=tuple(text.encode() for text in self.null_values),
            ragged=self.ragged_rows,
            utf8=self.encoding != "utf8-lossy",
            encoding="UTF-8" if self.encoding in _READ_AS_THEY_ARE else self.encoding,
        )

    def look(self, piece: Piece) -> Look | None:
        """The header, and what the texts of columns without a declared type can be."""
        header = self._header(piece)
        if header is None:
            return None
        found = {name: _texts.Fits() for name in header.names if name not in self.dtypes}
        names = (*found, header.names[-1])
        frames = in_order(lambda block: self._sifted(block, header, names).frame, self._blocks(piece, header))
        for frame in frames if found else ():
            found = _texts.narrowed(found, frame, decimal_comma=self.decimal_comma)
        return Look(header.names, found)

    def agreed(self, looks: Mapping[str, Look | None], known: pl.Schema | None) -> pl.Schema:
        """The columns of the first file; types as declared, or as every row of every file has them."""
        told = {name: look for name, look in looks.items() if look is not None}
        if not told:
            if self.dtypes:
                return pl.Schema(self.dtypes)
            first = next(iter(looks))
            raise SourceMissingError(f"{first!r} is empty, so no column is known. Declare them in 'dtypes'.")
        _files.require_same_columns({name: look.header for name, look in told.items()})
        names = next(iter(told.values())).header
        _files.require_declared(self.dtypes, names)
        fits = [look.fits for look in told.values()]
        before = pl.Schema() if known is None else known
        return pl.Schema({n: self.dtypes.get(n) or _texts.inferred(fits, n, before.get(n)) for n in names})

    def rows(self, piece: Piece, schema: pl.Schema, ask: Pushdown) -> Iterator[Read]:
        """Texts, typed block by block."""
        header = self._header(piece)
        if header is None:
            return
        names = ask.columns if ask.columns is not None else tuple(schema)

        def work(block: Block) -> Read:
            found = self._sifted(block, header, (*names, header.names[-1]))
            rows, unfit = _texts.typed(found.frame.select(names), schema, decimal_comma=self.decimal_comma)
            return judged(found, rows, unfit, partial(self._records, block, header))

        yield from in_order(work, self._blocks(piece, header))

    def records(self, piece: Piece) -> Iterator[Record]:
        """Every record behind the header."""
        header = self._header(piece)
        if header is not None:
            for block in self._blocks(piece, header):
                yield from self._records(block, header)

    @contextmanager
    def _opened(self, piece: Piece) -> Iterator[IO[bytes]]:
        with readable(piece.name), _files.opened(piece.file) as stream:
            if self.encoding in _READ_AS_THEY_ARE:
                yield stream
            else:
                yield cast(IO[bytes], io.BufferedReader(Recoded(stream, self.encoding)))

    def _blocks(self, piece: Piece, header: Header) -> Iterator[Block]:
        dialect = self.dialect
        with self._opened(piece) as stream:
            yield from blocks(
                stream, eol=dialect.eol, quote=dialect.quote, escape=dialect.escape, skip_lines=header.lines
            )

    def _records(self, block: Block, header: Header) -> Iterator[Record]:
        lines = lines_of(io.BytesIO(block.data), self.eol_char.encode())
        return records(lines, self.dialect, len(header.names), block.line)

    def _sifted(self, block: Block, header: Header, names: tuple[str, ...]) -> Sifted:
        columns = list(dict.fromkeys(names))

        def read(data: bytes) -> pl.DataFrame:
            return self._scan(data, header.names).select(columns).collect(engine="in-memory")

        def is_whole(frame: pl.DataFrame, data: bytes) -> bool:
            return not frame.get_column(header.names[-1]).null_count() or self._is_square(data, len(header.names))

        if self.escape_char is not None:  # Polars knows no such dialect: every record is written anew
            apart = list(self._records(block, header))
            return Sifted(read(b"".join(one.plain or one.raw for one in apart if one.is_row)), apart)
        return sifted(block, read, lambda broken: self._records(broken, header), is_whole)

    def _scan(self, data: bytes, names: tuple[str, ...]) -> pl.LazyFrame:
        too_many, too_few = _FORGIVES[self.ragged_rows]
        return pl.scan_csv(
            io.BytesIO(data),
            has_header=False,
            schema=dict.fromkeys(names, pl.String()),
            separator=self.delimiter,
            quote_char=self.quote_char,
            eol_char=self.eol_char,
            comment_prefix=self.comment_prefix,
            null_values=list(self.null_values) or None,
            encoding="utf8-lossy" if self.encoding == "utf8-lossy" else "utf8",
            extra_columns="ignore" if too_many else "raise",
            missing_columns="insert" if too_few else "raise",
            raise_if_empty=False,
        )

    def _is_square(self, data: bytes, width: int) -> bool:
        """Whether no record is too short, no line blank, and no text longer than its line."""
        if width == 1 or _FORGIVES[self.ragged_rows][1]:
            return True
        lines = pl.scan_csv(
            io.BytesIO(data),
            has_header=False,
            separator=_NOWHERE,
            quote_char=None,
            eol_char=self.eol_char,
            comment_prefix=self.comment_prefix,
            encoding="utf8-lossy",
            schema={"line": pl.String()},
            empty_string_is_null=False,
        )
        bare = pl.col("line")
        if self.quote_char:
            quote = re.escape(self.quote_char)
            bare = bare.str.replace_all(f"{quote}[^{quote}]*{quote}", "")
        regular = bare.str.count_matches(self.delimiter, literal=True) >= width - 1
        if self.quote_char:
            regular &= ~bare.str.contains(self.quote_char, literal=True)
        return bool(lines.select(regular.all()).collect(engine="in-memory").item())

    def _header(self, piece: Piece) -> Header | None:
        """What stands before the records; None where there is nothing at all."""
        if _files.is_empty(piece):
            return None
        eol = self.eol_char.encode()
        with self._opened(piece) as stream:
            lines = islice(lines_of(stream, eol), self.skip_rows, None)
            found = (one for one in records(lines, self.dialect, None, self.skip_rows + 1) if not one.blank)
            first = next(found, None)
            if first is None:
                return None
            skipped = list(islice(found, self.skip_rows_after_header)) if self.has_header else []
        if first.problem is not None:
            raise ExtractError(f"{piece.name!r} line {first.line}: {first.problem}, and this line names the columns.")
        if self.has_header and self.eol_char == "\n" and self._holds_lines(first):
            advice = r"""Set 'eol_char': "\r"."""
            raise ExtractError(f"{piece.name!r} line {first.line}: the lines of this file end with '\\r'. {advice}")
        last = skipped[-1] if skipped else first
        end = last.line - 1 + last.raw.count(eol)
        return Header(self._names(piece, first), end if self.has_header else first.line - 1)

    def _holds_lines(self, header: Record) -> bool:
        """Whether a name holds what ends the lines of old systems, and no quotes around it."""
        fields = self.dialect.fields(self.dialect.body(header.raw)) if b"\r" in header.raw else []
        return any(
            b"\r" in field and not (self.quote_char and field.startswith(self.dialect.quote)) for field in fields
        )

    def _names(self, piece: Piece, first: Record) -> tuple[str, ...]:
        texts = self.dialect.texts(first.raw)
        if self.column_names is not None:
            if len(self.column_names) != len(texts):
                known = f"'column_names' has {counted(len(self.column_names), 'name')}"
                raise ExtractError(f"{piece.name!r} line {first.line}: {counted(len(texts), 'field')}, and {known}.")
            return self.column_names
        if not self.has_header:
            return tuple(f"column_{index}" for index in range(len(texts)))
        twice = next((name for name in texts if texts.count(name) > 1), None)
        if twice is not None:
            raise ExtractError(f"{piece.name!r} has two columns {twice!r}. Give one of them another name.")
        return tuple(texts)
