"""Counts rows where they pass: a counter between two steps, and one that is told of matches inside of a join."""

from __future__ import annotations

import threading
from collections.abc import Callable

import polars as pl

from flows._ledger import StepCount
from transforms._plan import Step


class Counter:
    """Counts the rows that pass a point of a plan; filters stay behind it, so that it sees every row."""

    def __init__(self) -> None:
        self.rows = 0
        self._lock = threading.Lock()

    def watching(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """The same frame, counted."""
        return _passing(frame, self._count)

    def _count(self, batch: pl.DataFrame) -> pl.DataFrame:
        with self._lock:
            self.rows += batch.height
        return batch


class Matches:
    """Counts what a join does with rows, as `transforms._transform.Watch` has it.

    Attributes:
        counts: whether the join is one that says so.
        may_multiply: whether the configuration says that a row may have several matches.
    """

    def __init__(self) -> None:
        self.counts = False
        self.may_multiply = True
        self._dropped = self._added = 0
        self._kept: list[pl.Series] = []
        self._by_place = False
        self._lock = threading.Lock()

    def joins(self, *, may_multiply: bool) -> None:
        """Hear that the step is a join."""
        self.counts, self.may_multiply = True, may_multiply

    def unmatched(self, frame: pl.LazyFrame, there: str) -> pl.LazyFrame:
        """Rows without a match are those where the column `there` is null; they are about to go."""

        def count(batch: pl.DataFrame) -> pl.DataFrame:
            with self._lock:
                self._dropped += batch.get_column(there).null_count()
            return batch

        return _passing(frame, count)

    def added(self, frame: pl.LazyFrame, place: str) -> pl.LazyFrame:
        """Rows of the other source alone are those where the column `place` is null; it tells the others apart."""
        self._by_place = True

        def count(batch: pl.DataFrame) -> pl.DataFrame:
            places = batch.get_column(place)
            with self._lock:
                self._added += places.null_count()
                self._kept.append(places.drop_nulls().unique())
            return batch

        return _passing(frame, count)

    def booked(self, step: Step, rows_in: int, rows_out: int) -> StepCount:
        """The count of the step, once the plan has run."""
        count = StepCount(step.name, step.transform.removes, rows_in, rows_out)
        if self.counts:
            count.dropped = self._dropped
            if self._by_place:
                count.dropped = rows_in - (pl.concat(self._kept).n_unique() if self._kept else 0)
            count.added, count.may_multiply = self._added, self.may_multiply
        return count


def _passing(frame: pl.LazyFrame, look: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.LazyFrame:
    return frame.map_batches(
        look,
        predicate_pushdown=False,
        projection_pushdown=True,
        slice_pushdown=False,
        streamable=True,
    )
