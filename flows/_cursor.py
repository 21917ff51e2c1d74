"""Values of a cursor: read as a column's type, written into the state, and moved back."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from flows._errors import ConfigError
from flows._schedule import seconds
from transforms._types import constant, kind, shown

#: The families of types that a cursor can be of.
ORDERED = ("integer", "numeric", "real", "date", "timestamp", "timestamptz", "text")
_SECONDS_A_DAY = 86_400


def fitted(value: Any, dtype: pl.DataType, key: str) -> Any:
    """`value` as a value of `dtype`; `key` of ``incremental`` has it.

    Raises:
        ConfigError: it is not one.
    """
    try:
        return constant(value, dtype)
    except ValueError as error:
        raise ConfigError(
            f"{error}. The cursor is {shown(dtype)}; write it like {_example(dtype)}.", path=("incremental", key)
        ) from error


def written(value: Any) -> Any:
    """A value as JSON keeps it; `fitted` reads it again."""
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


def said(value: Any) -> str:
    """A value in a message, as one would write it in YAML."""
    return repr(written(value)) if isinstance(value, str | date) else str(value)


def step_back(lookback: float | str | None, dtype: pl.DataType) -> Callable[[Any], Any]:
    """What moves a value of `dtype` back by `lookback`.

    Raises:
        ConfigError: it is no distance between values of that type.
    """
    if lookback is None:
        return lambda value: value
    if kind(dtype) in {"date", "timestamp", "timestamptz"}:
        span = _span(lookback)
        days = timedelta(days=math.ceil(span.total_seconds() / _SECONDS_A_DAY))
        return _never_before_the_calendar(days if kind(dtype) == "date" else span)
    if kind(dtype) == "text":
        raise _no_distance("of texts there is no distance. Remove it, or give the column another type")
    try:
        number = constant(lookback, dtype)
    except ValueError as error:
        raise _no_distance(f"{error}. The cursor is {shown(dtype)}") from error
    if number < 0:
        raise _no_distance(f"{lookback!r} is below zero. Write how far back a window begins")
    return lambda value: value - number


def text_before(value: Any, lookback: float | str | None) -> str:
    """A value as an API is asked for it, moved back; before anybody knows the type of the column."""
    written_value = written(value)
    if lookback is None:
        return str(written_value)
    if isinstance(written_value, int | float):
        return str(step_back(lookback, pl.Float64() if isinstance(written_value, float) else pl.Int64())(written_value))
    for parse, dtype in ((date.fromisoformat, pl.Date()), (datetime.fromisoformat, pl.Datetime())):
        try:
            moment = parse(written_value)
        except ValueError:
            continue
        return str(step_back(lookback, dtype)(moment).isoformat())
    raise _no_distance(f"there is no distance to {written_value!r}. Remove it")


def _span(lookback: float | str) -> timedelta:
    try:
        span = timedelta(seconds=float(seconds(lookback)))
    except (ValueError, OverflowError) as error:
        raise _no_distance(str(error).rstrip(".")) from error
    if span < timedelta():
        raise _no_distance(f"{lookback!r} is below zero. Write how far back a window begins")
    return span


def _never_before_the_calendar(span: timedelta) -> Callable[[Any], Any]:
    def moved(value: Any) -> Any:
        try:
            return value - span
        except OverflowError:
            return datetime.min.replace(tzinfo=value.tzinfo) if isinstance(value, datetime) else date.min

    return moved


def _no_distance(why: str) -> ConfigError:
    return ConfigError(f"{why}.", path=("incremental", "lookback"))


def _example(dtype: pl.DataType) -> str:
    return {
        "integer": "100", "numeric": "10.5", "real": "10.5", "date": "2026-01-31", "timestamp": "2026-01-31T12:30:00",
        "timestamptz": "2026-01-31T12:30:00Z",
    }.get(kind(dtype), "'a text'")  # fmt: skip
