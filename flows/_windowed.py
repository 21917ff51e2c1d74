"""The rows of a window: what lies outside is left out, and what was loaded before; the rest is remembered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from flows import _plan
from flows._errors import ExtractError, RefusedError
from flows._incremental import Incremental
from flows._remembered import MOST, Kept, Met
from flows._window import Window, fixed, greater, remembered, state_at
from flows.sources._base import Batch, Extract, Malformed, Pushdown
from transforms._words import counted


def windowed(extract: Extract, keys: Incremental, state: Any, *, remembers_rows: bool) -> Extract:
    """The rows of `extract` that lie in the window that follows `state`, which such an extract handed over.

    `remembers_rows` says that a row that is read twice would be in the target twice.

    Raises:
        ConfigError: there is no such column, or a value is not one of that column.
    """
    window = fixed(extract, keys, state)
    return _Windowed(extract, window, remembered(keys, state), remembers_rows).extract()


@dataclass
class _Reading:
    """What one reading of the window has met so far."""

    met: Met | None
    kept: Kept | None
    greatest: Any = None
    nulls: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, kind_of_loss: str, rows: int) -> None:
        if rows:
            self.left_out[kind_of_loss] = self.left_out.get(kind_of_loss, 0) + rows


class _Windowed:
    """An extract, seen through a window."""

    def __init__(self, inner: Extract, window: Window, known: dict[str, Any] | None, remembers_rows: bool) -> None:
        self.inner = inner
        self.window = window
        self.known = known or {}
        self.remembers_rows = remembers_rows
        self.latest = _Reading(None, None)
        self._predicate = _plan.asked(inner.schema, lambda frame: frame.filter(window.predicate())).predicate

    def extract(self) -> Extract:
        return replace(
            self.inner,
            read=self.read,
            describe=lambda ask: self.inner.describe(self.inside(ask)),
            pushed=self.pushed,
            state=self.state,
            left_out=lambda: self.latest.left_out,
            told=self.told,
            failures=[],
        )

    def pushed(self, ask: Pushdown) -> str | None:
        """The window, and what the source applies of the rest."""
        parts = [self.window.words(), self.inner.pushed(ask) if ask.limit is None else None]
        return " AND ".join(part for part in parts if part) or None

    def inside(self, ask: Pushdown) -> Pushdown:
        """What the source is asked for: the window counts before a limit does."""
        columns = ask.columns
        if columns is not None:
            wanted = {*columns, self.window.field, *self._columns_of_old()}
            columns = tuple(name for name in self.inner.schema if name in wanted)
        predicate = ask.predicate if ask.limit is None else None
        if self._predicate is not None:
            predicate = self._predicate if predicate is None else self._predicate & predicate
        return Pushdown(columns, predicate, None)

    def _columns_of_old(self) -> tuple[str, ...]:
        """The columns that remembered rows are told by."""
        if not self.known.get("rows"):
            return ()
        columns = tuple(self.known["columns"])
        for name in columns:
            if name not in self.inner.schema:
                raise ExtractError(
                    f"source {self.inner.name!r} has no column {name!r} any more, by which rows that were loaded are "
                    "known. Load all of them anew: run with --full-refresh.",
                    source=self.inner.name,
                    path=("incremental",),
                )
        return columns

    def read(self, ask: Pushdown) -> Iterator[Batch]:
        """Stream the rows of the window that were not loaded before."""
        inside = self.inside(ask)
        names = tuple(self.inner.schema) if inside.columns is None else inside.columns
        asked = tuple(self.inner.schema) if ask.columns is None else ask.columns
        told_by = tuple(name for name in names if name in {*asked, self.window.field})
        old = Met(Counter(self.known["rows"]), self._columns_of_old()) if self.known.get("rows") else None
        reading = self.latest = _Reading(old, Kept(told_by) if self.remembers_rows else None)
        left = ask.limit
        for batch in self.inner.read(inside):
            if isinstance(batch, Malformed):
                yield batch
                continue
            rows = self._sifted(batch, reading)
            rows = rows if left is None else rows.head(left)
            yield rows.select(asked)
            if left is not None and (left := left - rows.height) <= 0:
                return
        self._hold_complete(reading)

    def _sifted(self, batch: pl.DataFrame, reading: _Reading) -> pl.DataFrame:
        """The rows of a batch that are to be loaded; what is to be remembered of them is."""
        field_, window = self.window.field, self.window
        rows = batch.filter(window.predicate())
        is_missing = rows.select(window.is_missing).to_series()
        nulls = int(is_missing.sum())
        reading.nulls += nulls
        if nulls and window.keys.on_cursor_value_missing != "include":
            if window.keys.on_cursor_value_missing == "exclude":
                reading.leave_out("filtered", nulls)
            rows, is_missing = rows.filter(~is_missing), is_missing.filter(~is_missing)
        if rows.is_empty():
            return rows
        reading.greatest = greater(reading.greatest, rows.get_column(field_).filter(~is_missing).max())
        if reading.kept is not None:
            self._remember(rows, reading, reading.kept)
        return rows if reading.met is None else self._without_old(rows, reading, reading.met)

    def _remember(self, rows: pl.DataFrame, reading: _Reading, kept: Kept) -> None:
        kept.add_nulls(rows.filter(self.window.is_missing))
        rows = rows.filter(~self.window.is_missing)
        end = greater(self.window.known, reading.greatest)
        if end is not None and self._rereads:
            floor = self.window.step_back(end)
            closed = self.window.keys.range_start == "closed"
            kept.add(rows, self.window.field, self.window.at_least(floor, closed=closed), floor)

    @property
    def _rereads(self) -> bool:
        """Whether the next window begins with rows of this one."""
        return self.window.keys.range_start == "closed" or self.window.keys.lookback is not None

    def _without_old(self, rows: pl.DataFrame, reading: _Reading, met: Met) -> pl.DataFrame:
        may_be_old = self.window.is_missing
        if self.window.known is not None:
            may_be_old |= self.window.at_most(self.window.known, closed=True)
        places = rows.select(may_be_old.arg_true()).to_series()
        if places.is_empty():
            return rows
        is_new = met.new(rows[places])
        old = places.filter(~is_new)
        reading.leave_out("deduplicated", old.len())
        return rows.filter(~pl.int_range(pl.len()).is_in(old.implode())) if old.len() else rows

    def _hold_complete(self, reading: _Reading) -> None:
        if reading.nulls and self.window.keys.on_cursor_value_missing == "raise":
            raise RefusedError(
                f"{self.window.field!r} is null in {counted(reading.nulls, 'row')}, so that no window has them. "
                "Nothing was published. Fill it in the source, or set 'on_cursor_value_missing': 'include' loads "
                "such rows, 'exclude' leaves them out.",
                guard="on_cursor_value_missing",
                observed=reading.nulls,
                allowed=0,
                path=("incremental", "on_cursor_value_missing"),
            )

    def told(self) -> tuple[str, ...]:
        """How many rows had no cursor, and what became of them."""
        if not self.latest.nulls:
            return ()
        done = "loaded" if self.window.keys.on_cursor_value_missing == "include" else "left out"
        return (f"{self.window.field!r} is null in {counted(self.latest.nulls, 'row')}, {done} as configured.",)

    def state(self) -> dict[str, Any]:
        """Where the next window begins, and which rows it will meet again."""
        reading, window = self.latest, self.window
        end = greater(window.known, reading.greatest)
        kept = reading.kept
        crowded = kept is not None and kept.crowded is not None
        if kept is not None and (len(kept.nulls) > MOST or (crowded and not self._may_go_on_after)):
            raise self._too_many()
        was_after = self.known.get("after", False) and end == window.known
        state = state_at(window.keys, end)
        state["after"] = crowded or was_after or not self._rereads
        if kept is not None:
            state["columns"] = list(kept.columns)
            state["rows"] = sorted([*kept.all(), *self._not_looked_at(reading)])
        return state

    @property
    def _may_go_on_after(self) -> bool:
        """Whether no row can come that has the last value, so that the next window may begin behind it."""
        return self.window.is_settled and self.window.keys.lookback is None

    def _not_looked_at(self, reading: _Reading) -> list[str]:
        """Remembered rows of which a part lies beyond the end of this window."""
        window, met = self.window, reading.met
        is_beyond = window.is_empty or (
            window.high is not None and window.known is not None and window.high <= window.known
        )
        return list(met.waiting.elements()) if met is not None and is_beyond else []

    def _too_many(self) -> ExtractError:
        return ExtractError(
            f"source {self.inner.name!r}: more than {MOST:,} rows would be read again by the next run, and have to be "
            "remembered so that they are not appended twice. Use write_mode: upsert, a shorter 'lookback', a cursor "
            "with fewer equal values, or range_start: open.",
            source=self.inner.name,
            path=("incremental",),
        )
