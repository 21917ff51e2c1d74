"""CSV files: texts by Polars' reader, types and shape by us.

Polars fills a row that is too short with nulls. Only such a row lacks the last column, so a null
there is what makes us look at the file's shape; files without one pay nothing for the check.
"""

from __future__ import annotations

import codecs
import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import polars as pl

from flows._errors import ExtractError, SourceMissingError
from flows.sources import _files, _texts
from flows.sources._base import Pushdown
from flows.sources._brought import Piece
from flows.sources._csv_records import Dialect, RaggedRows, lines_of, records
from flows.sources._files import Read, Record
from flows.sources._found import readable
from transforms._words import counted

_NOWHERE = "\x01"  # a separator that no line has: a line is one field
# Polars reads far ahead of a slow consumer, in pieces of this many bytes: 80 MB in all, and 350 with its own size.
os.environ.setdefault("POLARS_CSV_CHUNK_SIZE", "1000000")
_READ_AS_THEY_ARE = {"utf8", "utf8-lossy"}
_UNREADABLE = "lockgate-unreadable"
_TAIL_BYTES = 1_000_000


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
        names = [name for name in header.names if name not in self.dtypes]
        if not names:
            return Look(header.names, {})
        return Look(header.names, _texts.fits(self._scan(piece, header), names, decimal_comma=self.decimal_comma))

    def agreed(self, looks: Mapping[str, Look | None], known: pl.Schema | None) -> pl.Schema:
        """The columns of the first file; types as declared, or as every row of every file has them."""
        told = {name: look for name, look in looks.items() if look is not None}
        if not told:
            if self.dtypes:
                return pl.Schema(self.dtypes)
            raise SourceMissingError(
                f"{next(iter(looks))!r} is empty, so no column is known. Declare them in 'dtypes'."
            )
        _files.require_same_columns({name: look.header for name, look in told.items()})
        names = next(iter(told.values())).header
        _files.require_declared(self.dtypes, names)
        fits = [look.fits for look in told.values()]
        before = pl.Schema() if known is None else known
        return pl.Schema({n: self.dtypes.get(n) or _texts.inferred(fits, n, before.get(n)) for n in names})

    def rows(self, piece: Piece, schema: pl.Schema, ask: Pushdown, skip: int = 0) -> Iterator[Read]:
        """Texts, typed batch by batch.

        Raises:
            PolarsError: there is a record that is no row.
        """
        header = self._header(piece)
        if header is None:
            return
        names = ask.columns if ask.columns is not None else tuple(schema)
        last = header.names[-1]
        frame = self._scan(piece, header).slice(skip).select(list(dict.fromkeys([*names, last])))
        square = len(header.names) == 1 or self.ragged_rows in {"pad", "fit"} or piece.columns is not None
        for batch in _files.streamed(frame):
            if not square and batch.get_column(last).null_count():
                self._require_square(piece, header)
                square = True
            rows, unfit = _texts.typed(batch.select(names), schema, decimal_comma=self.decimal_comma)
            yield Read(rows, unfit)

    def has_records(self, piece: Piece) -> bool:
        """Always."""
        del piece
        return True

    def records(self, piece: Piece) -> Iterator[Record]:
        """Every record behind the header."""
        header = self._header(piece)
        if header is None:
            return
        with readable(piece.name), _files.opened(piece.file) as stream:
            lines = islice(lines_of(stream, self.eol_char.encode()), header.lines, None)
            yield from records(lines, self.dialect, len(header.names), header.lines + 1)

    def sifted(self, piece: Piece, path: Path) -> Piece:
        """The good records stand alone, without the header."""
        header = self._header(piece)
        return Piece(str(path), piece.name, columns=header.names if header is not None else ())

    def is_broken(self, piece: Piece) -> bool:
        """Whether Polars knows no such dialect, or would forgive the last line what it forgives no other."""
        if self.escape_char is not None:
            return True
        with readable(piece.name), piece.file.open("rb") as stream:
            if _files.is_compressed(stream.read(4)):
                return False
            size = stream.seek(0, io.SEEK_END)
            stream.seek(max(0, size - _TAIL_BYTES))
            last = stream.read().rpartition(self.eol_char.encode())[2]
        header = self._header(piece) if last else None
        return header is not None and not self.dialect.is_row(last, len(header.names))

    @property
    def rewrites(self) -> bool:
        """Polars reads UTF-8 only."""
        return self.encoding not in _READ_AS_THEY_ARE

    def rewrite(self, piece: Piece, to: Path) -> None:
        """Write the file as UTF-8; what its encoding does not know stays no UTF-8, so that its line is found."""
        with readable(piece.name), _files.opened(piece.file) as stream, to.open("wb") as out:
            decoder = codecs.getincrementaldecoder(self.encoding)(errors=_UNREADABLE)
            while chunk := stream.read(1_000_000):
                out.write(decoder.decode(chunk).encode("utf-8", "surrogateescape"))
            out.write(decoder.decode(b"", final=True).encode("utf-8", "surrogateescape"))

    def _scan(self, piece: Piece, header: Header) -> pl.LazyFrame:
        forgives = {"malformed": (), "truncate": ("extra",), "pad": ("missing",), "fit": ("extra", "missing")}
        forgiven = forgives[self.ragged_rows]
        return pl.scan_csv(
            piece.file,
            has_header=False,
            skip_lines=header.lines,
            schema=dict.fromkeys(header.names, pl.String()),
            separator=self.delimiter,
            quote_char=self.quote_char,
            eol_char=self.eol_char,
            comment_prefix=self.comment_prefix,
            null_values=list(self.null_values) or None,
            encoding="utf8-lossy" if self.encoding == "utf8-lossy" else "utf8",
            extra_columns="ignore" if "extra" in forgiven else "raise",
            missing_columns="insert" if "missing" in forgiven else "raise",
            glob=False,
        )

    def _header(self, piece: Piece) -> Header | None:
        """What stands before the records; None where there is nothing at all."""
        if piece.columns is not None:
            return Header(piece.columns, 0)
        if _files.is_empty(piece):
            return None
        with readable(piece.name), _files.opened(piece.file) as stream:
            lines = islice(lines_of(stream, self.eol_char.encode()), self.skip_rows, None)
            found = records(lines, self.dialect, None, self.skip_rows + 1)
            first = next(found, None)
            if first is None:
                return None
            skipped = (
                list(islice((one for one in found if not one.blank), self.skip_rows_after_header))
                if self.has_header
                else []
            )
        if first.problem is not None:
            raise ExtractError(f"{piece.name!r} line {first.line}: {first.problem}, and this line names the columns.")
        last = skipped[-1] if skipped else first
        end = last.line - 1 + last.raw.count(self.eol_char.encode())
        return Header(self._names(piece, first), end if self.has_header else first.line - 1)

    def _names(self, piece: Piece, first: Record) -> tuple[str, ...]:
        texts = self.dialect.texts(first.raw)
        if self.column_names is not None:
            if len(self.column_names) != len(texts):
                known = f"'column_names' has {counted(len(self.column_names), 'name')}"
                raise ExtractError(f"{piece.name!r} line {first.line}: {counted(len(texts), 'field')}, and {known}.")
            return self.column_names
        if not self.has_header:
            return tuple(f"column_{index}" for index in range(len(texts)))
        if twice := next((name for name in texts if texts.count(name) > 1), None):
            raise ExtractError(f"{piece.name!r} has two columns {twice!r}. Give one of them another name.")
        return tuple(texts)

    def _require_square(self, piece: Piece, header: Header) -> None:
        """Confirm that no record is too short, and no line blank; quick where no field holds a line end.

        Raises:
            ShapeError: one is; where, `records` knows.
        """
        lines = pl.scan_csv(
            piece.file,
            has_header=False,
            skip_lines=header.lines,
            separator=_NOWHERE,
            quote_char=None,
            eol_char=self.eol_char,
            comment_prefix=self.comment_prefix,
            encoding="utf8-lossy",
            schema={"line": pl.String()},
            empty_string_is_null=False,
            glob=False,
        )
        bare = pl.col("line")
        if self.quote_char:
            quote = re.escape(self.quote_char)
            bare = bare.str.replace_all(f"{quote}[^{quote}]*{quote}", "")
        regular = bare.str.count_matches(self.delimiter, literal=True) >= len(header.names) - 1
        if self.quote_char:
            regular &= ~bare.str.contains(self.quote_char, literal=True)
        try:
            if lines.select(regular.all()).collect(engine="streaming").item():
                return
        except pl.exceptions.PolarsError:
            pass
        if not all(record.is_row for record in self.records(piece)):
            raise pl.exceptions.ShapeError("a record is too short")


def _marked(error: UnicodeError) -> tuple[str, int]:
    """What cannot be decoded becomes a byte that no UTF-8 has."""
    assert isinstance(error, UnicodeDecodeError)  # noqa: S101 - the handler is used for decoding only
    return "\udcff", error.end


codecs.register_error(_UNREADABLE, _marked)
