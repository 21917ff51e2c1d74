"""Values that a rule's parameters hold against a column: as written in YAML, made fit for its dtype."""

from __future__ import annotations

import math
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from transforms._errors import Path
from validations._errors import RuleError

#: A value as YAML, or Python, writes it. Dates and times may be ISO 8601 texts.
Value = bool | int | float | Decimal | datetime | date | time | str


def fitting(value: Value, dtype: pl.DataType, *, path: Path) -> Any:
    """The Python value that means `value` in a column of `dtype`.

    Nulls: none; a null has no value to compare with.

    Raises:
        RuleError: it has no meaning there: a text for a number, a time zone for a column without one.
    """
    try:
        return _fitting(value, dtype)
    except ValueError as error:
        hint = f" ({error})" if str(error) else ""
        raise RuleError(f"{value!r} cannot be compared with a column of {dtype}{hint}.", path=path) from error


def _fitting(value: Value, dtype: pl.DataType) -> Value:
    if dtype.is_numeric():
        return _number(value, dtype)
    if dtype == pl.Date:
        return _date(value)
    if isinstance(dtype, pl.Datetime):
        return _datetime(value, dtype)
    if dtype == pl.Time:
        return value if isinstance(value, time) else time.fromisoformat(_text(value))
    if dtype == pl.Boolean:
        if not isinstance(value, bool):
            raise ValueError
        return value
    return _text(value)


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - a wrong value of the configuration, not a wrong call
    return value


def _number(value: Value, dtype: pl.DataType) -> int | float | Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise ValueError  # noqa: TRY004 - as above
    if math.isnan(value):
        raise ValueError("nothing equals NaN")
    # 0.1 in YAML means one tenth, which a float only comes near to.
    return Decimal(str(value)) if dtype.is_decimal() else value


def _date(value: Value) -> date:
    if isinstance(value, datetime):
        raise ValueError("a date has no time of day")  # noqa: TRY004 - as above
    return value if isinstance(value, date) else date.fromisoformat(_text(value))


def _datetime(value: Value, dtype: pl.Datetime) -> datetime:
    if isinstance(value, date) and not isinstance(value, datetime):
        value = value.isoformat()
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(_text(value))
    if dtype.time_zone is None:
        if moment.tzinfo is not None:
            raise ValueError("the column has no time zone")
        return moment
    zone = ZoneInfo(dtype.time_zone)
    return moment.replace(tzinfo=zone) if moment.tzinfo is None else moment.astimezone(zone)
