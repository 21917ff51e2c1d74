"""Records that are no rows: what people find of them in quarantine, and where they stand among the rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from flows._errors import ExtractError, SourceTypeError
from flows.sources._base import Batch, Malformed
from flows.sources._texts import Unfit

#: What Polars raises; the second one is no Exception.
STOPPED = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
_PLACED_EXACTLY = 1_000
_LONGEST_TEXT = 100_000
_PREFIX = "malformed: "


@dataclass(frozen=True)
class Broken:
    """A record that is no row.

    Attributes:
        place: how many rows of its batch stand before it.
        where: its line, or its number where there are no lines.
        text: what stands there.
        reason: why it is none.
    """

    place: int
    where: dict[str, int]
    text: str
    reason: str


@dataclass(frozen=True)
class Read:
    """Some rows of a file, and the records among them that are none, in the order of their places."""

    rows: pl.DataFrame
    broken: Sequence[Broken] = ()


def told_by_number(texts: pl.DataFrame, unfit: Sequence[Unfit]) -> list[Broken]:
    """Rows that do not fit, of a file without lines, by their number from 1; `texts` is all of its rows."""
    return [
        Broken(one.row - before, {"record": one.row + 1}, texts[one.row].write_ndjson().rstrip("\n"), str(one))
        for before, one in enumerate(unfit)
    ]


@dataclass
class Placed:
    """The rows of one file in the order they stand there, with what is no row between them.

    Where there are many broken records, those of a batch come behind it.

    Attributes:
        file: its name.
        quarantines: whether broken records go to quarantine; they stop the reading otherwise.
    """

    file: str
    quarantines: bool
    _told: int = 0

    def batches(self, read: Read) -> Iterator[Batch]:
        """What was read, and what could not be.

        Raises:
            ExtractError: a record is broken, and may not go to quarantine.
        """
        if read.broken and not self.quarantines:
            raise self._refused(read.broken[0])
        self._told += len(read.broken)
        if not read.broken or self._told > _PLACED_EXACTLY:
            yield read.rows
            if read.broken:
                yield self._malformed(read.broken)
            return
        start = 0
        for one in read.broken:
            if one.place > start:
                yield read.rows[start : one.place]
                start = one.place
            yield self._malformed([one])
        yield read.rows[start:]

    def _malformed(self, broken: Sequence[Broken]) -> Malformed:
        values = [self._value(one) for one in broken]
        return Malformed(
            pl.Series(values, dtype=pl.String), pl.Series([_PREFIX + one.reason for one in broken], dtype=pl.String)
        )

    def _value(self, one: Broken) -> str:
        text = one.text.replace("\0", "\ufffd")
        if len(text) > _LONGEST_TEXT:
            text = f"{text[:_LONGEST_TEXT]}... ({len(text):,} characters)"
        value: dict[str, Any] = {"file": self.file, **one.where, "text": text}
        return json.dumps(value, ensure_ascii=False)

    def _refused(self, one: Broken) -> ExtractError:
        ((what, number),) = one.where.items()
        kind = SourceTypeError if one.reason.startswith("column ") else ExtractError
        advice = "Mend the record, or let it go to quarantine with on_malformed: quarantine."
        return kind(f"{self.file!r} {what} {number}: {one.reason}. {advice}")
