"""Dates and times as PostgreSQL has them, in a session whose time zone is UTC.

`clock` fixes what "now" is for a run, so that all its batches and its rerun agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo, available_timezones

import polars as pl
from sqlglot import exp

from transforms._errors import FormulaError
from transforms._scope import Node, Scope, node, text
from transforms._types import DIGITS, TIMESTAMP, TIMESTAMPTZ
from transforms._values import Value, checked, convert, literal
from transforms._words import did_you_mean

_NOW: ContextVar[datetime | None] = ContextVar("now", default=None)
_WHOLE = pl.Decimal(DIGITS, 0)
_MICROS = pl.Decimal(DIGITS, 6)


@contextmanager
def clock(now: datetime) -> Iterator[None]:
    """Fix current_date, current_timestamp and now() for what is planned inside, in UTC.

    Args:
        now: a moment with a time zone.

    Raises:
        ValueError: it has no time zone.
    """
    if now.tzinfo is None:
        raise ValueError("the clock needs a moment with a time zone")
    token = _NOW.set(now.astimezone(UTC))
    try:
        yield
    finally:
        _NOW.reset(token)


def _now() -> datetime:
    return _NOW.get() or datetime.now(UTC)


@node(exp.CurrentDate, parts="", called="current_date")
def _current_date(_scope: Scope, _part: Node) -> Value:
    return literal(_now().date(), pl.Date())


@node(exp.CurrentTimestamp, parts="", called="current_timestamp now")
def _current_timestamp(_scope: Scope, _part: Node) -> Value:
    return literal(_now(), TIMESTAMPTZ)


@node(exp.Localtimestamp, parts="", called="localtimestamp")
def _local_timestamp(_scope: Scope, _part: Node) -> Value:
    return literal(_now().replace(tzinfo=None), TIMESTAMP)


def _seconds(moment: pl.Expr) -> pl.Expr:
    micros = moment.dt.second().cast(pl.Int64) * 1_000_000 + moment.dt.microsecond()
    return _millionth(micros)


def _millionth(micros: pl.Expr) -> pl.Expr:
    return micros.cast(_MICROS) * pl.lit(Decimal("0.000001"), dtype=_MICROS)


_DATE_FIELDS: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "year": lambda x: x.dt.year(), "quarter": lambda x: x.dt.quarter(), "month": lambda x: x.dt.month(),
    "week": lambda x: x.dt.week(), "day": lambda x: x.dt.day(), "isoyear": lambda x: x.dt.iso_year(),
    "dow": lambda x: x.dt.weekday() % 7, "isodow": lambda x: x.dt.weekday(), "doy": lambda x: x.dt.ordinal_day(),
}  # fmt: skip
_TIME_FIELDS: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "hour": lambda x: x.dt.hour(), "minute": lambda x: x.dt.minute(),
}  # fmt: skip
_TRUNCATIONS = {
    "second": "1s", "minute": "1m", "hour": "1h", "day": "1d", "week": "1w", "month": "1mo", "quarter": "1q",
    "year": "1y",
}  # fmt: skip


@node(exp.Extract, called="extract date_part")
def _extract(scope: Scope, part: Node) -> Value:
    field, value = part.this.name.lower(), scope(part.expression)
    if value.kind == "interval":
        return _extract_interval(scope, part, field, value)
    value = scope.of(part.expression, "timestamp", "timestamptz", "date", "time")
    if field == "epoch" and value.kind != "time":
        return Value(
            _millionth(
                convert(value, TIMESTAMP).expr.dt.epoch("us") if value.kind == "date" else value.expr.dt.epoch("us")
            ),
            _MICROS,
        )
    if field == "second" and value.kind != "date":
        return Value(_seconds(value.expr), _MICROS)
    fields = {} if value.kind == "time" else dict(_DATE_FIELDS)
    fields |= {} if value.kind == "date" else _TIME_FIELDS
    if field not in fields:
        known = [*fields, *({"date": ["epoch"], "time": ["second"]}.get(value.kind, ["epoch", "second"]))]
        raise FormulaError(f"{field!r} cannot be extracted from {value.called}.{did_you_mean(field, known)}")
    return Value(fields[field](value.expr).cast(_WHOLE), _WHOLE)


def _extract_interval(scope: Scope, part: Node, field: str, value: Value) -> Value:
    if field == "epoch" and not value.months:
        return Value(_millionth(value.expr.dt.total_microseconds()), _MICROS)
    # PostgreSQL counts whole days only in what it subtracted itself; other intervals remember how they were written.
    difference = part.expression.unnest()
    subtracted = isinstance(difference, exp.Sub) and scope(difference.this).kind != "interval"
    if field == "day" and subtracted and scope(difference.expression).kind != "interval":
        return Value(value.expr.dt.total_days().cast(_WHOLE), _WHOLE)
    raise FormulaError(f"{text(part)!r}: of an interval, only epoch (seconds) is extracted, and day of a difference.")


@node(exp.TimestampTrunc, parts="this unit", called="date_trunc")
def _date_trunc(scope: Scope, part: Node) -> Value:
    unit = part.args["unit"].name.lower()
    if unit not in _TRUNCATIONS:
        raise FormulaError(f"{unit!r} is not a unit of date_trunc.{did_you_mean(unit, _TRUNCATIONS)}")
    value = scope.of(part.this, "timestamp", "timestamptz", "date")
    value = convert(value, TIMESTAMPTZ) if value.kind == "date" else value
    return Value(value.expr.dt.truncate(_TRUNCATIONS[unit]), value.dtype)


@node(exp.AtTimeZone, parts="this zone")
def _at_time_zone(scope: Scope, part: Node) -> Value:
    zone = scope.written(part.args["zone"])
    if zone not in available_timezones():
        raise FormulaError(f"{zone!r} is not a time zone. Write a name such as 'Europe/Berlin' or 'UTC'.")
    value = scope.of(part.this, "timestamptz", "timestamp", "date")
    if value.kind == "timestamp":
        # PostgreSQL takes standard time where clocks were set back; what clocks jumped over stops the run.
        placed = value.expr.dt.replace_time_zone(ZoneInfo(zone).key, ambiguous="latest")
        return scope.typed(placed.dt.convert_time_zone("UTC"))
    value = convert(value, TIMESTAMPTZ)
    return scope.typed(value.expr.dt.convert_time_zone(zone).dt.replace_time_zone(None))


_FORMAT = re.compile(r"(?:%[YmdHMS]|[^%A-Za-z])*")


def _format(scope: Scope, part: Node) -> str:
    written = scope.written(part.args["format"])
    if not _FORMAT.fullmatch(written):
        raise FormulaError(
            f"{text(part)!r}: a format is made of YYYY, MM, DD, HH24, MI, SS and the signs between them."
        )
    return written


@node(exp.TimeToStr, parts="this format", called="to_char")
def _to_char(scope: Scope, part: Node) -> Value:
    value = scope.of(part.this, "timestamp", "timestamptz", "date")
    moment = convert(value, TIMESTAMP).expr if value.kind == "date" else value.expr
    return Value(moment.dt.to_string(_format(scope, part)), pl.String())


@node(exp.StrToDate, parts="this format", called="to_date")
def _to_date(scope: Scope, part: Node) -> Value:
    subject = scope.of(part.this, "text").expr
    found = subject.str.to_date(_format(scope, part), strict=False)
    return Value(_parsed(subject, found, part), pl.Date())


@node(exp.StrToTime, parts="this format", called="to_timestamp")
def _to_timestamp(scope: Scope, part: Node) -> Value:
    subject = scope.of(part.this, "text").expr
    found = subject.str.to_datetime(_format(scope, part), time_unit="us", strict=False).dt.replace_time_zone("UTC")
    return Value(_parsed(subject, found, part), TIMESTAMPTZ)


def _parsed(subject: pl.Expr, found: pl.Expr, part: Node) -> pl.Expr:
    return checked(found, found.is_null() & subject.is_not_null(), f"a text does not have the format of {text(part)}")
