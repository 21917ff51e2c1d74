"""Where the records of a CSV file begin and end, and which of them are none.

Values are Polars' business. This is its twin that knows lines: it splits as Polars' reader does (a law
that tests hold), and tells the records that Polars would stop at.

A field that begins with a quote ends with one; a doubled quote in it is a quote, and a single one is dropped,
as PostgreSQL's COPY does. In a field that begins otherwise a quote is a character like any other.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Literal

from flows.sources._sieve import Record
from transforms._words import counted

RaggedRows = Literal["malformed", "truncate", "pad", "fit"]
_LONGEST_RECORD = 16_000_000
_CHUNK = 1_000_000
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Dialect:
    """How a file is written.

    Attributes:
        delimiter, quote, escape, eol: one byte each; no quote or escape where it is empty.
        comment: what a line begins with that is none.
        nulls: texts that stand for null.
        ragged: what becomes of records that are too short or too long.
        utf8: whether a text that is not UTF-8 is an error.
        encoding: what the file was written in, for messages.
    """

    delimiter: bytes = b","
    quote: bytes = b'"'
    escape: bytes = b""
    eol: bytes = b"\n"
    comment: bytes = b""
    nulls: tuple[bytes, ...] = ()
    ragged: RaggedRows = "malformed"
    utf8: bool = True
    encoding: str = "UTF-8"

    @cached_property
    def _field(self) -> bytes:
        d, q, n = (re.escape(char) for char in (self.delimiter, self.quote, self.eol))
        if not self.quote:
            return rb"[^%b%b]*+" % (d, n)
        if self.escape:
            e = re.escape(self.escape)
            inner = rb"(?:[^%b%b]|%b[\s\S]|%b%b)*+" % (q, e, e, q, q)
            return rb"(?:%b%b%b|(?!%b)(?:[^%b%b%b]|%b[\s\S])*+)" % (q, inner, q, q, d, n, e, e)
        return rb"(?:%b[^%b]*+%b(?:[^%b%b%b]*+%b[^%b]*+%b)*+(?=[%b]|\Z)|(?!%b)[^%b%b]*+)" % (
            q, q, q, q, d, n, q, q, q, d, q, d, n,
        )  # fmt: skip

    @cached_property
    def field(self) -> re.Pattern[bytes]:
        """One field, as it stands in the file."""
        return re.compile(self._field)

    @cached_property
    def whole(self) -> re.Pattern[bytes]:
        """A record that is complete and well quoted."""
        return re.compile(rb"%b(?:%b%b)*+" % (self._field, re.escape(self.delimiter), self._field))

    @cached_property
    def unclosed(self) -> re.Pattern[bytes]:
        """A record that may go on in the next line."""
        d, q, n = (re.escape(char) for char in (self.delimiter, self.quote, self.eol))
        inner = rb"[^%b]*+(?:%b[^%b%b%b]*+%b[^%b]*+)*+" % (q, q, q, d, n, q, q)
        if self.escape:
            e = re.escape(self.escape)
            inner = rb"(?:[^%b%b]|%b[\s\S]|%b%b)*+" % (q, e, e, q, q)
        return re.compile(rb"(?:%b%b)*+%b%b" % (self._field, d, q, inner))

    def body(self, raw: bytes) -> bytes:
        """A record without its line end."""
        body = raw.removesuffix(self.eol)
        return body.removesuffix(b"\r") if self.eol == b"\n" else body

    def texts(self, raw: bytes) -> list[str]:
        """What the fields of a good record say."""
        return [self.value(field).decode(errors="replace") for field in self.fields(self.body(raw))]

    def fields(self, body: bytes) -> list[bytes]:
        """The fields of a record as they stand in the file."""
        if not self.quote and not self.escape:
            return body.split(self.delimiter)
        found, place = [], 0
        while place <= len(body):
            field = self.field.match(body, place)
            assert field is not None  # noqa: S101 - the pattern matches nothing, too
            found.append(field[0])
            place = field.end() + 1
        return found

    def value(self, field: bytes) -> bytes:
        """What a field says."""
        if self.quote and field.startswith(self.quote):
            field = field[1:-1]
        if self.escape:
            return re.sub(rb"%b([\s\S])" % re.escape(self.escape), rb"\1", field)
        return field.replace(self.quote * 2, self.quote) if self.quote else field

    def plain(self, field: bytes) -> bytes:
        """A field as Polars reads it: quoted where it needs to be, never with an escape."""
        if not self.quote or field in self.nulls:
            return field
        if not field or (field.startswith(self.quote) and not self.escape):
            return field
        return self.quote + self.value(field).replace(self.quote, self.quote * 2) + self.quote


def records(lines: Iterator[bytes], dialect: Dialect, width: int | None, first: int) -> Iterator[Record]:
    """Every record of `lines`; blank lines are none, but where there is one column, or short rows are padded.

    Args:
        lines: as `lines_of` gives them.
        dialect: how they are written.
        width: how many fields a record has; None where the first one, which is no blank line, is to tell.
        first: the number of the first line.
    """
    return _Records(lines, dialect, width, first).found()


class _Records:
    def __init__(self, lines: Iterator[bytes], dialect: Dialect, width: int | None, first: int) -> None:
        self.dialect = dialect
        self.width = width
        self._lines = lines
        self._again: deque[bytes] = deque()
        self._line = first

    def found(self) -> Iterator[Record]:
        begun = self.width is not None
        while (raw := self._next()) is not None:
            at = self._line
            self._line += 1
            if self.dialect.comment and raw.startswith(self.dialect.comment):
                continue
            body = self.dialect.body(raw)
            if not body and (not begun or self._skips_blanks):
                if begun:
                    yield Record(at, raw, blank=True)
                continue
            begun = True
            if any(sign and sign in raw for sign in (self.dialect.quote, self.dialect.escape)):
                yield self._quoted(raw, at)
            else:
                yield Record(at, raw, self._problem(body, body.count(self.dialect.delimiter) + 1))

    @property
    def _skips_blanks(self) -> bool:
        return self.width != 1 and self.dialect.ragged in {"malformed", "truncate"}

    def _next(self) -> bytes | None:
        return self._again.popleft() if self._again else next(self._lines, None)

    def _quoted(self, first: bytes, at: int) -> Record:
        """A record with quotes, which may go on over lines; a quote that is never closed costs its line only."""
        dialect, raw, taken = self.dialect, first, list[bytes]()
        while True:
            body = dialect.body(raw)
            if dialect.whole.fullmatch(body):
                fields = dialect.fields(body)
                self._line += len(taken)
                odd = dialect.escape or any(
                    dialect.quote in field for field in fields if not field.startswith(dialect.quote)
                )
                plain = dialect.delimiter.join(map(dialect.plain, fields)) + dialect.eol if odd else None
                return Record(at, raw, self._problem(body, len(fields)), plain)
            if not dialect.quote or not dialect.unclosed.fullmatch(raw):
                problem = "the quotes are broken"
                break
            more = self._until_quote() if len(raw) < _LONGEST_RECORD else []
            if not more:
                problem = "a quote is not closed"
                break
            taken += more
            raw = b"".join((raw, *more))
        self._again.extendleft(reversed(taken))
        return Record(at, first, problem)

    def _until_quote(self) -> list[bytes]:
        """The next lines, up to one with a quote in it."""
        lines, held = [], 0
        while held < _LONGEST_RECORD and (line := self._next()) is not None:
            lines.append(line)
            held += len(line)
            if self.dialect.quote in line:
                return lines
        self._again.extendleft(reversed(lines))
        return []

    def _problem(self, body: bytes, fields: int) -> str | None:
        if self.dialect.utf8 and not _is_utf8(body):
            return f"the text is not {self.dialect.encoding}"
        if self.width is None or fields == self.width:
            return None
        forgiven = self.dialect.ragged in {"fit", "pad" if fields < self.width else "truncate"}
        return None if forgiven else f"{counted(fields, 'field')}, {self.width} wanted"


def _is_utf8(body: bytes) -> bool:
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def lines_of(stream: IO[bytes], eol: bytes) -> Iterator[bytes]:
    """The lines of a stream, with their ends; without the mark that some writers put before the first."""
    if eol == b"\n":
        first = stream.readline()
        if first:
            yield first.removeprefix(_BOM)
        yield from stream
        return
    rest = stream.read(_CHUNK).removeprefix(_BOM)
    while rest:
        *lines, rest = rest.split(eol)
        yield from (line + eol for line in lines)
        more = stream.read(_CHUNK)
        if not more:
            break
        rest += more
    if rest:
        yield rest
