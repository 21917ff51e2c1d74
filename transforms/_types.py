"""Names and literals of types, as users write them: Polars' names and SQL's, and the values that fit them.

`kind` sorts dtypes into the families that PostgreSQL's rules speak of. `dtype_named` reads a
name, `constant` reads one literal. Both refuse what they do not know; neither guesses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

import polars as pl

from transforms._words import did_you_mean

Kind = Literal[
    "boolean", "integer", "numeric", "real", "text", "date", "timestamp", "timestamptz", "time", "interval",
    "unknown", "other",
]  # fmt: skip

TIMESTAMP = pl.Datetime("us")
TIMESTAMPTZ = pl.Datetime("us", "UTC")
#: The most digits Polars keeps in a decimal number.
DIGITS = 38

_NAMES: dict[str, pl.DataType] = {
    **dict.fromkeys(("bool", "boolean"), pl.Boolean()),
    **dict.fromkeys(("smallint", "int2", "int16"), pl.Int16()),
    **dict.fromkeys(("int", "integer", "int4", "int32"), pl.Int32()),
    **dict.fromkeys(("bigint", "int64"), pl.Int64()),
    **dict.fromkeys(("real", "float4", "float32"), pl.Float32()),
    **dict.fromkeys(("double", "double precision", "float", "float8", "float64"), pl.Float64()),
    **dict.fromkeys(("text", "varchar", "character varying", "string", "str", "utf8"), pl.String()),
    **dict.fromkeys(("bytea", "binary"), pl.Binary()),
    "date": pl.Date(),
    "time": pl.Time(),
    "interval": pl.Duration("us"),
    **dict.fromkeys(("timestamp", "timestamp without time zone", "datetime"), TIMESTAMP),
    **dict.fromkeys(("timestamptz", "timestamp with time zone"), TIMESTAMPTZ),
    "uint8": pl.UInt8(),
    "uint16": pl.UInt16(),
    "uint32": pl.UInt32(),
    "uint64": pl.UInt64(),
    "categorical": pl.Categorical(),
}
_DECIMAL = re.compile(r"(?:decimal|numeric|dec)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?")
_INT8 = "'int8' is 8 bits in Polars and 8 bytes in PostgreSQL. Write 'Int8' or 'bigint'."

_TRUE = ("t", "tr", "tru", "true", "y", "ye", "yes", "on", "1")
_FALSE = ("f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0")
#: PostgreSQL's words for booleans: every unambiguous beginning of true, false, yes, no, on and off.
BOOLEAN_WORDS = {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}


def kind(dtype: pl.DataType) -> Kind:
    """Say to which of PostgreSQL's families a dtype belongs."""
    if dtype.is_integer():
        return "integer"
    if dtype.is_float():
        return "real"
    if isinstance(dtype, pl.Datetime):
        return "timestamptz" if dtype.time_zone else "timestamp"
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return "text"
    names: dict[type[pl.DataType], Kind] = {
        pl.Boolean: "boolean", pl.Decimal: "numeric", pl.Date: "date", pl.Time: "time", pl.Duration: "interval",
        pl.Null: "unknown",
    }  # fmt: skip
    return names.get(type(dtype), "other")


def shown(dtype: pl.DataType) -> str:
    """A dtype as people write it: Datetime[UTC], Decimal(10, 2)."""
    if isinstance(dtype, pl.Datetime):
        return f"Datetime[{dtype.time_zone}]" if dtype.time_zone else "Datetime"
    if isinstance(dtype, pl.Decimal):
        return f"Decimal({dtype.precision}, {dtype.scale})"
    return str(dtype.base_type()) if isinstance(dtype, pl.Duration | pl.Enum | pl.Categorical) else str(dtype)


def dtype_named(name: str) -> pl.DataType:
    """Return the dtype that a Polars or an SQL name means; SQL names in any case.

    Raises:
        ValueError: there is no such type; the message says which there are.
    """
    if name == "Int8":
        return pl.Int8()
    plain = " ".join(name.lower().split())
    if plain == "int8":
        raise ValueError(_INT8)
    if decimal := _DECIMAL.fullmatch(plain):
        precision, scale = decimal.groups()
        if precision is None:
            raise ValueError(f"{name!r} has no precision and scale. Write them: 'numeric(18, 2)'.")
        if not 1 <= int(precision) <= DIGITS or int(scale or 0) > int(precision):
            raise ValueError(f"{name!r} does not fit: at most {DIGITS} digits, and no more decimals than digits.")
        return pl.Decimal(int(precision), int(scale or 0))
    if plain not in _NAMES:
        raise ValueError(f"{name!r} is not a type.{did_you_mean(name, [*_NAMES, 'numeric(p, s)'])}")
    return _NAMES[plain]


def constant(value: Any, dtype: pl.DataType) -> Any:
    """Read one literal as a value of `dtype`: text as PostgreSQL reads it, other values if they are of that kind.

    Raises:
        ValueError: it is not one, in words: ``'abc' is not a whole number``.
    """
    readers: dict[Kind, Callable[[Any, pl.DataType], Any]] = {
        "boolean": _boolean, "integer": _integer, "numeric": _numeric, "real": _real, "text": _text, "date": _date,
        "timestamp": _timestamp, "timestamptz": _timestamptz, "time": _time, "interval": _interval,
    }  # fmt: skip
    reader = readers.get(kind(dtype))
    if reader is None:
        raise ValueError(f"{value!r} cannot be compared with anything")
    return reader(value, dtype)


def _boolean(value: Any, _dtype: pl.DataType) -> bool:
    found = BOOLEAN_WORDS.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ValueError(f"{value!r} is not true or false")  # noqa: TRY004 - one kind of error for a literal
    return found


def _integer(value: Any, dtype: pl.DataType) -> int:
    whole = _numeric(value, dtype, "a whole number")
    if whole != whole.to_integral_value() or (isinstance(value, str) and not re.fullmatch(r"\s*[+-]?\d+\s*", value)):
        raise ValueError(f"{value!r} is not a whole number")
    low, high = (int(pl.select(bound).item()) for bound in (dtype.min(), dtype.max()))  # type: ignore[attr-defined]  # integers have bounds
    if not low <= whole <= high:
        raise ValueError(f"{value!r} does not fit {shown(dtype)} ({low} to {high})")
    return int(whole)


def _numeric(value: Any, _dtype: pl.DataType, wanted: str = "a number") -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(f"{value!r} is not {wanted}")  # noqa: TRY004 - one kind of error for a literal
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        raise ValueError(f"{value!r} is not {wanted}") from None
    if not number.is_finite() or "_" in str(value):
        raise ValueError(f"{value!r} is not {wanted}")
    return number


def _real(value: Any, dtype: pl.DataType) -> float:
    if isinstance(value, str) and value.strip().lower().lstrip("+-") in {"nan", "inf", "infinity"}:
        return float(value)
    return value if isinstance(value, float) else float(_numeric(value, dtype))


def _text(value: Any, dtype: pl.DataType) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text. Quote it: '{value}'")  # noqa: TRY004 - one kind of error for a literal
    if isinstance(dtype, pl.Enum) and value not in dtype.categories:
        raise ValueError(f"{value!r} is not a category.{did_you_mean(value, dtype.categories)}".rstrip("."))
    return value


def _iso(value: Any, parse: Callable[[str], Any], wanted: str) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not {wanted}")  # noqa: TRY004 - one kind of error for a literal
    try:
        return parse(value.strip())
    except ValueError:
        raise ValueError(f"{value!r} is not {wanted}") from None


def _date(value: Any, _dtype: pl.DataType) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    found: date = _iso(value, date.fromisoformat, "a date (YYYY-MM-DD)")
    return found


def _timestamp(value: Any, _dtype: pl.DataType) -> datetime:
    found = _moment(value)
    if found.tzinfo is not None:
        raise ValueError(f"{str(value)!r} has a time zone, and the column has none")
    return found


def _timestamptz(value: Any, _dtype: pl.DataType) -> datetime:
    found = _moment(value)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    found: datetime = _iso(value, datetime.fromisoformat, "a timestamp (YYYY-MM-DD HH:MM:SS)")
    return found


def _time(value: Any, _dtype: pl.DataType) -> time:
    found: time = value if isinstance(value, time) else _iso(value, time.fromisoformat, "a time of day (HH:MM:SS)")
    return found


def _interval(value: Any, _dtype: pl.DataType) -> timedelta:
    if not isinstance(value, timedelta):
        raise ValueError(f"{value!r} is not a duration")  # noqa: TRY004 - one kind of error for a literal
    return value
