"""The window of an incremental load: fixed before a row is read, exact, and remembered with the load.

    beginning   the greatest value that was loaded, moved back by ``lookback``; else ``initial_value``
    end         ``end_value``, and what the source says can still change (`Bound`)

A source may leave out what lies outside, and usually does; here everything else is left out too, so that rows
outside of the window are never read, whatever the source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from flows import _cursor
from flows._errors import ConfigError
from flows._incremental import Incremental
from flows.sources._base import Bound, Cursor, Extract
from transforms._types import kind, shown
from transforms._words import did_you_mean

STATE = "cursor_field"


def cursor_of(keys: Incremental, state: Any) -> Cursor:
    """What a source is told of a window before its columns are known."""
    before = remembered(keys, state)
    parameters = {}
    is_first = before is None or before["cursor"] is None
    low = keys.initial_value if before is None or is_first else before["cursor"]
    if keys.start_parameter and low is not None:
        moved = _cursor.text_before(low, None if is_first else keys.lookback)
        parameters[keys.start_parameter] = moved
    if keys.end_parameter and keys.end_value is not None:
        parameters[keys.end_parameter] = _cursor.text_before(keys.end_value, None)
    return Cursor(keys.cursor_field, keys.lookback is not None, parameters)


def remembered(keys: Incremental, state: Any) -> dict[str, Any] | None:
    """What is remembered of this cursor; None where nothing is."""
    if state is None:
        return None
    if state.get(STATE) != keys.cursor_field:
        raise ConfigError(
            f"what is remembered is of {state.get(STATE)!r}, not of {keys.cursor_field!r}. Run with --full-refresh, "
            "or say where to begin: state set.",
            path=("incremental", "cursor_field"),
        )
    found: dict[str, Any] = state
    return found


@dataclass(frozen=True)
class Window:
    """From where to where, and whether both ends belong to it; None is no end.

    Attributes:
        known: the greatest value that was loaded before.
        step_back: from a value to the beginning of the window that follows it.
        is_settled: whether no row of it can appear later.
        is_empty: whether no value at all can be trusted yet.
    """

    keys: Incremental
    dtype: pl.DataType
    known: Any
    step_back: Callable[[Any], Any]
    low: Any
    low_closed: bool
    high: Any
    high_closed: bool
    is_settled: bool = False
    is_empty: bool = False

    @property
    def field(self) -> str:
        """The cursor."""
        return self.keys.cursor_field

    def at_least(self, value: Any, *, closed: bool) -> pl.Expr:
        """Whether the cursor is at or above a value."""
        column = pl.col(self.field)
        return column >= self._literal(value) if closed else column > self._literal(value)

    def at_most(self, value: Any, *, closed: bool) -> pl.Expr:
        """Whether the cursor is at or below a value."""
        column = pl.col(self.field)
        return column <= self._literal(value) if closed else column < self._literal(value)

    def _literal(self, value: Any) -> pl.Expr:
        return pl.lit(value, dtype=self.dtype)

    @property
    def is_missing(self) -> pl.Expr:
        """Whether a row has no cursor: it is null, or no number."""
        column = pl.col(self.field)
        return column.is_null() | column.is_nan() if self.dtype.is_float() else column.is_null()

    def predicate(self) -> pl.Expr:
        """The rows that lie in it, and those that have no cursor."""
        parts = []
        if self.low is not None:
            parts.append(self.at_least(self.low, closed=self.low_closed))
        if self.high is not None:
            parts.append(self.at_most(self.high, closed=self.high_closed))
        if self.is_empty:
            parts.append(pl.lit(value=False))
        inside = pl.all_horizontal(parts) if len(parts) > 2 else _both(parts)  # noqa: PLR2004 - what SQL can be made of
        return pl.lit(value=True) if inside is None else inside | self.is_missing

    def words(self) -> str:
        """The window as SQL would say it."""
        low = f"{self.field} {'>=' if self.low_closed else '>'} {_cursor.said(self.low)}"
        high = f"{self.field} {'<=' if self.high_closed else '<'} {_cursor.said(self.high)}"
        said = [text for text, value in ((low, self.low), (high, self.high)) if value is not None]
        if self.is_empty:
            said.append(f"nothing of {self.field} yet")
        return " AND ".join(said)


def _both(parts: list[pl.Expr]) -> pl.Expr | None:
    if not parts:
        return None
    first, *others = parts
    return first & others[0] if others else first


def fixed(extract: Extract, keys: Incremental, state: Any) -> Window:
    dtype = dtype_of(extract, keys)
    before = remembered(keys, state)
    first = None if keys.initial_value is None else _cursor.fitted(keys.initial_value, dtype, "initial_value")
    last = None if keys.end_value is None else _cursor.fitted(keys.end_value, dtype, "end_value")
    step_back = _cursor.step_back(keys.lookback, dtype)
    known, low, closed = None, first, keys.range_start == "closed"
    if before is not None and before["cursor"] is not None:
        known = _cursor.fitted(before["cursor"], dtype, "cursor_field")
        low = greater(first, step_back(known))
        closed = closed and not before.get("after", False)
    bound = extract.bound
    high, high_closed = _lesser(last, keys.range_end == "closed", bound)
    return Window(
        keys=keys,
        dtype=dtype,
        known=known,
        step_back=lambda value: greater(first, step_back(value)),
        low=low,
        low_closed=closed,
        high=high,
        high_closed=high_closed,
        is_settled=bound is not None and bound.is_settled,
        is_empty=bound is not None and bound.value is None,
    )


def state_at(keys: Incremental, value: Any) -> dict[str, Any]:
    """What is remembered of a window that ended at `value`, without the rows that lie there."""
    return {STATE: keys.cursor_field, "cursor": _cursor.written(value), "after": False, "columns": [], "rows": []}


def dtype_of(extract: Extract, keys: Incremental) -> pl.DataType:
    """The type of the cursor.

    Raises:
        ConfigError: there is no such column, or it does not grow.
    """
    if keys.cursor_field not in extract.schema:
        hint = did_you_mean(keys.cursor_field, extract.schema, word="Present")
        raise ConfigError(
            f"source {extract.name!r} has no column {keys.cursor_field!r}.{hint}", path=("incremental", "cursor_field")
        )
    dtype = extract.schema[keys.cursor_field]
    if kind(dtype) not in _cursor.ORDERED or (kind(dtype) == "text" and dtype != pl.String()):
        raise ConfigError(
            f"{keys.cursor_field!r} is {shown(dtype)}, which does not grow. Name a column of timestamps, dates, "
            "numbers or texts.",
            path=("incremental", "cursor_field"),
        )
    return dtype


def greater(one: Any, other: Any) -> Any:
    return other if one is None or (other is not None and other > one) else one


def _lesser(last: Any, closed: bool, bound: Bound | None) -> tuple[Any, bool]:
    if bound is None or bound.value is None:
        return last, closed
    if last is None or bound.value < last:
        return bound.value, bound.is_closed
    return last, closed and (bound.is_closed or bound.value > last)
