"""Rows that the next run will meet again, as digests: what is read twice is not loaded twice.

A digest is of a row's own text, so that it is the same on every machine and for every version of Polars.
Rows that are equal in every column are counted: two of them are two rows, not one row read twice.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from flows._survival import sayable

#: More than these nobody remembers from run to run.
MOST = 1_000_000
_DIGEST_BYTES = 12


def digests(rows: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """One for each row, of the named columns; the same whatever their order."""
    schema = rows.schema
    texts = rows.select(
        pl.struct(sayable(pl.col(name), schema[name], numbers=False).alias(name) for name in sorted(columns))
        .struct.json_encode()
        .alias("text")
    )
    return [_digest(text) for text in texts.get_column("text")]


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()).decode()


@dataclass
class Met:
    """Takes out what was loaded before, once for each time."""

    waiting: Counter[str]
    columns: Sequence[str]

    def new(self, rows: pl.DataFrame) -> pl.Series:
        """Whether each row is one that was not loaded before."""
        found = []
        for digest in digests(rows, self.columns):
            is_known = self.waiting[digest] > 0
            if is_known:
                self.waiting[digest] -= 1
            found.append(not is_known)
        return pl.Series(found, dtype=pl.Boolean)


@dataclass
class Kept:
    """Digests of rows near the end of what was read, for the next run.

    Attributes:
        crowded: the least value for which there were too many rows to remember; None where there were not.
    """

    columns: Sequence[str]
    frames: list[pl.DataFrame] = field(default_factory=list)
    nulls: list[str] = field(default_factory=list)
    crowded: Any = None

    def add(self, rows: pl.DataFrame, cursor: str, floor: pl.Expr, floor_value: Any) -> None:
        """Keep rows at or above the floor, and drop those that have come to lie below it.

        `floor` tells whether a value of column `cursor` is at or above it, which is `floor_value`.
        """
        if self.crowded is not None and floor_value > self.crowded:
            self.crowded = None
        near = rows.filter(floor)
        self.frames = [left for frame in self.frames if (left := frame.filter(floor)).height]
        if self.crowded is None and near.height:
            kept = near.select(cursor).with_columns(pl.Series("digest", digests(near, self.columns)))
            self.frames.append(kept)
        if sum(frame.height for frame in self.frames) > MOST:
            self.crowded, self.frames = floor_value, []

    def add_nulls(self, rows: pl.DataFrame) -> None:
        """Keep rows that every window has, because their cursor is null."""
        if len(self.nulls) <= MOST and rows.height:
            self.nulls += digests(rows, self.columns)

    def all(self) -> list[str]:
        """The digests."""
        near = [digest for frame in self.frames for digest in frame.get_column("digest")]
        return sorted([*near, *self.nulls])
