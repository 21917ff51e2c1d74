"""Quarantined rows as they were read, from the JSON texts that are kept of them: the inverse of `as_json_texts`.

Texts say less than dtypes do, so a value is read as what today's schema wants it to be, exactly; a row with a value
that cannot be read so is told apart, with the reason, and never guessed at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import polars as pl

_DIGITS = {"ms": 3, "us": 6, "ns": 9}  # of a second
_DAY = 86_400
_DATE = re.compile(r"([+-]?\d{4,})-(\d\d)-(\d\d)")
_TIME = r"(\d\d):(\d\d):(\d\d)(?:\.(\d+))?"
_MOMENT = re.compile(rf"{_DATE.pattern}[T ]{_TIME}(?:([+-])(\d\d):?(\d\d)(?::?(\d\d))?)?")
_DURATION = re.compile(r"(-?)P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.(\d+))?S)?)?")
_CLOCK = re.compile(_TIME)
_MINUTE = 60
_WHOLE_MINUTES = 94_694_400  # 1973, in seconds: from then on every zone is whole minutes ahead of UTC
_LONGEST = 60  # characters of a value in a message
Read = Callable[[Any], Any]


class UnreadableError(ValueError):
    """A value that is none of the dtype that is wanted; says which, in words."""


@dataclass(frozen=True)
class ReadBack:
    """Rows, and those that are none any more.

    Attributes:
        rows: in the schema that was wanted.
        places: where each of them stood among the texts.
        left: the places of the others, each with the reason.
    """

    rows: pl.DataFrame
    places: list[int]
    left: list[tuple[int, str]]


def read_back(texts: Iterable[str], schema: pl.Schema) -> ReadBack:
    """Rows with the columns of `schema` from JSON object texts; other values of theirs are left out."""
    readers = {name: reader(dtype) for name, dtype in schema.items()}
    columns: dict[str, list[Any]] = {name: [] for name in schema}
    places: list[int] = []
    left: list[tuple[int, str]] = []
    for place, text in enumerate(texts):
        try:
            values = _values(json.loads(text), readers)
        except UnreadableError as error:
            left.append((place, str(error)))
            continue
        places.append(place)
        for name, value in values.items():
            columns[name].append(value)
    rows = pl.DataFrame([_series(name, columns[name], dtype) for name, dtype in schema.items()], height=len(places))
    return ReadBack(rows, places, left)


def _series(name: str, values: Sequence[Any], dtype: pl.DataType) -> pl.Series:
    return pl.Series(name, values, dtype=_physical(dtype), strict=True).cast(dtype)


def _values(said: Any, readers: dict[str, Read]) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise UnreadableError(f"{_short(said)} is no row")
    read = {}
    for name, one in readers.items():
        if name not in said:
            raise UnreadableError(f"column {name!r} was not read then")
        try:
            read[name] = one(said[name])
        except UnreadableError as error:
            raise UnreadableError(f"column {name!r}: {error}") from None
    return read


def _physical(dtype: pl.DataType) -> pl.DataType:
    """The dtype that is filled from Python's values: moments as the numbers that they are."""
    if isinstance(dtype, pl.List):
        return pl.List(_physical(_known(dtype.inner)))
    if isinstance(dtype, pl.Array):
        return pl.Array(_physical(_known(dtype.inner)), dtype.shape[0])
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _physical(_known(field.dtype)) for field in dtype.fields})
    if dtype == pl.Date():
        return pl.Int32()
    if isinstance(dtype, pl.Datetime | pl.Duration | pl.Time):
        return pl.Int64()
    return pl.String() if isinstance(dtype, pl.Categorical | pl.Enum) else dtype


def reader(dtype: pl.DataType) -> Read:
    """What reads a value of `dtype` from a value of JSON.

    The function that is returned raises UnreadableError.
    """
    known = _of(dtype)

    def read(value: Any) -> Any:
        if value is None:
            return None
        try:
            return known(value)
        except UnreadableError:
            raise
        except (ValueError, TypeError, KeyError, OverflowError, InvalidOperation):
            raise UnreadableError(f"{_short(value)} is no {dtype}") from None

    return read


def _of(dtype: pl.DataType) -> Read:
    found: Read = _SIMPLE.get(dtype, _nothing)
    if isinstance(dtype, pl.List | pl.Array):
        found = _list(reader(_known(dtype.inner)), dtype.shape[0] if isinstance(dtype, pl.Array) else None)
    elif isinstance(dtype, pl.Struct):
        found = _struct({field.name: reader(_known(field.dtype)) for field in dtype.fields})
    elif dtype.is_integer():
        found = _integer(dtype)
    elif dtype.is_float():
        found = _float
    elif isinstance(dtype, pl.Decimal):
        found = _decimal(dtype)
    elif isinstance(dtype, pl.Datetime):
        found = _moment(_DIGITS[dtype.time_unit], dtype.time_zone)
    elif isinstance(dtype, pl.Duration):
        found = _duration(_DIGITS[dtype.time_unit])
    elif isinstance(dtype, pl.Enum):
        found = _one_of(set(dtype.categories))
    elif isinstance(dtype, pl.Categorical):
        found = _text
    return found


# --- values ---


def _list(item: Read, width: int | None) -> Read:
    def read(value: Any) -> list[Any]:
        if not isinstance(value, list) or (width is not None and len(value) != width):
            raise ValueError
        return [item(each) for each in value]

    return read


def _struct(fields: dict[str, Read]) -> Read:
    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or value.keys() != fields.keys():
            raise ValueError
        return {name: field(value[name]) for name, field in fields.items()}

    return read


def _integer(dtype: pl.DataType) -> Read:
    low, high = (pl.select(getattr(dtype, end)()).item() for end in ("min", "max"))

    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError
        return value

    return read


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError  # noqa: TRY004 - of a value, not of a call
    return float(value)


def _decimal(dtype: pl.Decimal) -> Read:
    def read(value: Any) -> Decimal:
        number = Decimal(_text(value))
        _sign, digits, exponent = number.as_tuple()
        if not number.is_finite() or not isinstance(exponent, int):
            raise ValueError
        places = -exponent
        if places > dtype.scale or len(digits) - places > (dtype.precision or 38) - dtype.scale:
            raise ValueError
        return number

    return read


def _one_of(known: set[str]) -> Read:
    def read(value: Any) -> str:
        if value not in known:
            raise ValueError
        return str(value)

    return read


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError  # noqa: TRY004 - of a value, not of a call
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - of a value, not of a call
    return value


def _nothing(_value: Any) -> Any:
    raise ValueError


# --- moments, as numbers: Python's own begin in year 1 and end in year 9999 ---


def _matched(pattern: re.Pattern[str], text: str) -> tuple[Any, ...]:
    found = pattern.fullmatch(text)
    if found is None:
        raise ValueError
    return found.groups()


def _days(date: Sequence[str]) -> int:
    """Days from 1970-01-01 in the calendar that Polars has for all times (H. Hinnant, `days_from_civil`)."""
    year, month, day = map(int, date)
    year -= month <= 2  # noqa: PLR2004 - years begin in March here, so that the leap day is their last
    era, of_era = divmod(year, 400)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def _clock(time: Sequence[str | None], digits: int) -> int:
    hours, minutes, seconds, fraction = time
    whole = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return whole * int(10**digits) + _fraction(fraction, digits)


def _fraction(text: str | None, digits: int) -> int:
    text = (text or "").rstrip("0")
    if len(text) > digits:
        raise ValueError
    return int(text.ljust(digits, "0") or 0)


def _moment(digits: int, zone: str | None) -> Read:
    def read(value: Any) -> int:
        found = _matched(_MOMENT, _text(value))
        local = _days(found[:3]) * _DAY * 10**digits + _clock(found[3:7], digits)
        sign, *offset = found[7:]
        ahead = (-1 if sign == "-" else 1) * _clock((*offset, None), 0)
        if zone is not None and local < _WHOLE_MINUTES * 10**digits:
            ahead = _ahead(local // 10**digits - ahead, zone, ahead)
        return _bounded(local - ahead * 10**digits, 64)

    return read


def _ahead(second: int, zone: str, said: int) -> int:
    """How many seconds a zone was ahead of UTC, of which the text says minutes only; as Polars knows zones."""
    moment = pl.Series([_bounded(second * 1000, 64)]).cast(pl.Datetime("ms", zone))
    known = (moment.dt.base_utc_offset() + moment.dt.dst_offset()).dt.total_seconds().item()
    return int(known) if abs(known - said) < _MINUTE else said


def _duration(digits: int) -> Read:
    def read(value: Any) -> int:
        sign, days, *clock = _matched(_DURATION, _text(value))
        size = int(days or 0) * _DAY * 10**digits + _clock(clock, digits)
        return _bounded(-size if sign else size, 64)

    return read


def _bounded(number: int, bits: int) -> int:
    if not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
        raise ValueError
    return number


def _known(dtype: object) -> pl.DataType:
    assert isinstance(dtype, pl.DataType)  # noqa: S101 - the schema of a frame has no classes in it
    return dtype


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


_SIMPLE: dict[pl.DataType, Read] = {
    pl.Boolean(): _truth,
    pl.Date(): lambda value: _bounded(_days(_matched(_DATE, _text(value))), 32),
    pl.Time(): lambda value: _clock(_matched(_CLOCK, _text(value)), 9),
    pl.Binary(): lambda value: bytes.fromhex(_text(value)),
    pl.String(): _text,
}
