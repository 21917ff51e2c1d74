"""Files with broken records: the good ones are read as ever, the broken ones are kept with their line and reason.

Polars stops at a broken record. Then the file is gone through once, record by record, and its good records
are written to a file beside, which Polars reads. Files without a broken record pay nothing for this.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import polars as pl

from flows._errors import ExtractError, SourceTypeError
from flows.sources._base import Batch, Malformed
from flows.sources._brought import Brought, Piece
from flows.sources._files import Format, Read, Record

_PLACED_EXACTLY = 1_000
_LONGEST_TEXT = 100_000
_PREFIX = "malformed: "


@dataclass(frozen=True)
class Broken:
    """A record that is no row.

    Attributes:
        place: how many records of the file, good or unfit, stand before it.
        value: the record, as a JSON object.
        reason: why.
    """

    place: int
    value: str
    reason: str


@dataclass(frozen=True)
class Sifted:
    """A file without its broken records, and those."""

    piece: Piece
    broken: Path

    def __iter__(self) -> Iterator[Broken]:
        with self.broken.open() as lines:
            for line in lines:
                yield Broken(*json.loads(line))

    def require_from(self, place: int) -> None:
        """Confirm that no record before `place` is broken: those were read as rows already.

        Raises:
            ExtractError: one is, so that nobody knows which rows they are.
        """
        first = next(iter(self), None)
        if first is not None and first.place < place:
            raise ExtractError(
                f"{self.piece.name!r}: its quotes can be read in two ways. Set 'quote_char', or write the file anew."
            )


@contextmanager
def sifted(format_: Format, piece: Piece, brought: Brought) -> Iterator[Sifted]:
    """Take the broken records out of a file; what is left stands beside until the block ends."""

    def write(clean: Path) -> None:
        good = 0
        with clean.open("wb") as rows, clean.with_suffix(".broken").open("w") as others:
            for record in format_.records(piece):
                if record.is_row:
                    good += 1
                    rows.write(record.raw if record.plain is None else record.plain)
                elif record.problem is not None:
                    others.write(json.dumps([good, as_value(piece, record), _PREFIX + record.problem]) + "\n")

    with brought.made(f"{piece.path} sifted", write) as clean:
        yield Sifted(format_.sifted(piece, clean), clean.with_suffix(".broken"))


def as_value(piece: Piece, record: Record) -> str:
    """A record as people find it in quarantine: which file, which line, and what stood there."""
    text = record.raw.decode(errors="replace").rstrip("\r\n").replace("\0", "\ufffd")
    if len(text) > _LONGEST_TEXT:
        text = f"{text[:_LONGEST_TEXT]}... ({len(record.raw):,} bytes)"
    return json.dumps({"file": piece.name, "line": record.line, "text": text}, ensure_ascii=False)


@dataclass
class Placed:
    """The rows of one file in the order they stand there, with what is no row between them.

    A record that is broken stands where it stood, as long as there are few; those of a batch come behind it
    where there are many.

    Attributes:
        piece: the file as it is, with every record.
        done: how many rows, good or unfit, were read.
    """

    format: Format
    piece: Piece
    done: int = 0
    _told: int = 0
    _records: Iterator[tuple[int, Record]] | None = field(default=None, repr=False)

    def merged(self, reads: Iterator[Read], broken: Iterator[Broken]) -> Iterator[Batch]:
        """What was read, and what could not be."""
        waiting = next(broken, None)
        for read in reads:
            first = self.done
            self.done += read.height
            others = [(one.row, self._unfit(read, index)) for index, one in enumerate(read.unfit)]
            while waiting is not None and waiting.place < self.done:
                others.append((max(0, waiting.place - first), waiting))
                waiting = next(broken, None)
                if len(others) > _PLACED_EXACTLY:
                    yield _as_malformed([one for _row, one in others])
                    self._told += len(others)
                    others = []
            yield from self._between(read, others)
        rest = chain(() if waiting is None else [waiting], broken)
        while some := list(islice(rest, _PLACED_EXACTLY)):
            yield _as_malformed(some)

    def _between(self, read: Read, others: list[tuple[int, Broken]]) -> Iterator[Batch]:
        self._told += len(others)
        if not others or self._told > _PLACED_EXACTLY:
            yield read.rows
            if others:
                yield _as_malformed([one for _row, one in others])
            return
        unfit = {one.row for one in read.unfit}
        start = 0
        for row, one in sorted(others, key=lambda other: other[0]):
            end = row - sum(place < row for place in unfit)
            if end > start:
                yield read.rows[start:end]
                start = end
            yield _as_malformed([one])
        yield read.rows[start:]

    def _unfit(self, read: Read, index: int) -> Broken:
        one = read.unfit[index]
        place = self.done - read.height + one.row
        reason = f"{_PREFIX}{one}"
        if self.format.has_records(self.piece):
            return Broken(place, as_value(self.piece, self._record(place)), reason)
        text = read.texts[index]
        value = {"file": self.piece.name, "record": place + 1, "text": text}
        return Broken(place, json.dumps(value, ensure_ascii=False), reason)

    def _record(self, wanted: int) -> Record:
        """The good record with that number, from 0; asked for in order."""
        if self._records is None:
            self._records = enumerate(one for one in self.format.records(self.piece) if one.is_row)
        return next(record for number, record in self._records if number == wanted)


def refused(malformed: Malformed, advice: str) -> ExtractError:
    """The error that a record is no row, where none may go to quarantine."""
    value = json.loads(malformed.values[0])
    place = f"line {value['line']}" if "line" in value else f"record {value['record']}"
    reason = malformed.reasons[0].removeprefix(_PREFIX)
    kind = SourceTypeError if reason.startswith("column ") else ExtractError
    return kind(f"{value['file']!r} {place}: {reason}. {advice}")


def malformed(piece: Piece, record: Record) -> Malformed:
    """A broken record by itself."""
    return _as_malformed([Broken(0, as_value(piece, record), f"{_PREFIX}{record.problem}")])


def _as_malformed(broken: list[Broken]) -> Malformed:
    return Malformed(
        pl.Series([one.value for one in broken], dtype=pl.String),
        pl.Series([one.reason for one in broken], dtype=pl.String),
    )
