"""From Polars to SQLite: how every column is declared, cast and staged, or why it does not fit.

SQLite keeps what it is given, whatever a column is called: only the *affinity* that it derives from the
declared type makes it convert a value. So a fit is between a dtype and an affinity, and the words of the
declared type say in which form dates and truths are there. A decimal is a text in a column whose
affinity is TEXT, because any other would make a binary float of it.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import polars as pl

from flows._writing import DoesNotFit
from flows.targets._fitting import Fit, both, comes_back, to

_EXACT_DIGITS = 15  # of a decimal, that every binary float tells apart
_INTEGER_DIGITS = 18
_NANOSECONDS = 1_000
_DAYS = (date(1, 1, 1), date(9999, 12, 31))  # that have four digits of a year
_DATE, _TIME = "%Y-%m-%d", "%H:%M:%S%.6f"
MOMENT_LENGTH = 26
_MOMENT = f"{_DATE} {_TIME}"
_DECIMAL = re.compile(r"DECIMAL_?TEXT\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)", re.IGNORECASE)
_CREATED: dict[Any, str] = {
    pl.Boolean: "BOOLEAN", pl.Float32: "REAL", pl.Float64: "REAL", pl.String: "TEXT", pl.Categorical: "TEXT",
    pl.Enum: "TEXT", pl.Binary: "BLOB", pl.Date: "DATE", pl.Time: "TIME", pl.Null: "TEXT",
}  # fmt: skip


def created(dtype: pl.DataType) -> str:
    """The declared type that tells our own source, and people, what the column holds."""
    if dtype.is_integer():
        return "INTEGER"
    if isinstance(dtype, pl.Decimal):
        return f"DECIMAL_TEXT({dtype.precision},{dtype.scale})"
    if isinstance(dtype, pl.Datetime):
        return "TIMESTAMPTZ" if dtype.time_zone else "TIMESTAMP"
    if (name := _CREATED.get(dtype.base_type())) is None:
        raise DoesNotFit(f"SQLite has no type for {dtype}. Drop the column or cast it with a 'map' step.")
    return name


def fit(dtype: pl.DataType, declared: str) -> Fit:
    """Between the dtype and the affinity, in the form that the declared type asks for."""
    form, affinity = form_of(declared), _affinity(declared)
    found = None
    if dtype == pl.Null():
        found = Fit("TEXT", pl.String(), to(pl.String()), to(dtype))
    elif dtype.is_temporal():
        found = _moment_fit(dtype, form, affinity)
    elif form is None or (form == "boolean" and dtype == pl.Boolean()):
        found = _number_fit(dtype, affinity) or _text_fit(dtype, declared, affinity)
    if found is None:
        raise DoesNotFit(
            f"{dtype} does not fit {declared or 'a column without a type'} without loss. "
            f"{_ADVICE.get(dtype.base_type(), 'Cast it with a')} 'map' step, or change the column."
        )
    return found


_TEXTS = ("TEXT", "BLOB")
_INTEGERS = ("INTEGER", "NUMERIC", "BLOB")


def keeps_texts(declared: str) -> bool:
    """Whether the column leaves texts as they are."""
    return _affinity(declared) in _TEXTS


def keeps_integers(declared: str) -> bool:
    """Whether the column leaves whole numbers as they are."""
    return _affinity(declared) in _INTEGERS


def _affinity(declared: str) -> str:
    """SQLite's own rules, in their order (https://sqlite.org/datatype3.html#determination_of_column_affinity)."""
    text = declared.upper()
    if "INT" in text:
        return "INTEGER"
    if any(word in text for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in text or not text:
        return "BLOB"
    return "REAL" if any(word in text for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def form_of(declared: str) -> str | None:
    """What the words of a declared type say about values that SQLite has no type for."""
    text = declared.upper()
    if "TIMESTAMP" in text or "DATETIME" in text:
        return "timestamptz" if "TZ" in text or "WITH TIME ZONE" in text else "timestamp"
    return next((form for form in ("date", "time", "boolean") if form.upper()[:4] in text), None)


def _number_fit(dtype: pl.DataType, affinity: str) -> Fit | None:
    integer, real = pl.Int64(), pl.Float64()
    if isinstance(dtype, pl.Decimal):
        if not dtype.scale and dtype.precision <= _INTEGER_DIGITS and affinity in {"INTEGER", "NUMERIC"}:
            return Fit("INTEGER", integer, to(integer), to(dtype))
        fits = dtype.precision <= _EXACT_DIGITS and affinity in {"NUMERIC", "REAL"}
        return Fit("REAL", real, to(real), to(dtype)) if fits else None
    if affinity in _INTEGERS and (dtype == pl.Boolean() or dtype.is_integer()):
        return Fit("INTEGER", integer, to(integer), to(dtype), survives=comes_back(dtype, integer))
    if affinity == "REAL" and dtype.is_integer() and comes_back(dtype, real) is None:
        return Fit("REAL", real, to(real), to(dtype))
    if affinity in {"REAL", "NUMERIC", "BLOB"} and dtype.is_float():
        return Fit("REAL", real, to(real), to(dtype), survives=lambda column: column.is_not_nan())
    return None


def _text_fit(dtype: pl.DataType, declared: str, affinity: str) -> Fit | None:
    if dtype == pl.Binary() and affinity == "BLOB":
        return Fit("BLOB", dtype, to(dtype), to(dtype))
    if affinity not in _TEXTS:
        return None
    text = pl.String()
    if dtype == text or isinstance(dtype, pl.Categorical | pl.Enum):
        return Fit("TEXT", text, to(text), to(dtype))
    if isinstance(dtype, pl.Decimal):
        wanted = _DECIMAL.search(declared)
        exact = pl.Decimal(int(wanted[1]), int(wanted[2])) if wanted else dtype
        if dtype.scale > exact.scale:
            return None
        return Fit("TEXT", text, lambda c: c.cast(exact).cast(text), to(dtype), survives=comes_back(dtype, exact))
    return None


def _moment_fit(dtype: pl.DataType, form: str | None, affinity: str) -> Fit | None:
    if affinity not in {"TEXT", "BLOB", "NUMERIC"} or (form is None and affinity == "NUMERIC"):
        return None
    text = pl.String()
    if dtype == pl.Time() and form in {"time", None}:
        return Fit("TEXT", text, lambda c: c.dt.to_string(_TIME), lambda c: c.str.to_time(_TIME),
                   survives=lambda c: c.dt.nanosecond() % _NANOSECONDS == 0)  # fmt: skip
    if dtype == pl.Date() and form in {"date", None}:
        return Fit("TEXT", text, lambda c: c.dt.to_string(_DATE), lambda c: c.str.to_date(_DATE), survives=_has_year)
    is_zoned = isinstance(dtype, pl.Datetime) and dtype.time_zone is not None
    if (form or "timestamp") not in ({"timestamptz"} if is_zoned and form else {"timestamp"}):
        return None
    if not isinstance(dtype, pl.Datetime | pl.Date):
        return None
    return _stamp_fit(dtype, is_zoned=is_zoned)


def _stamp_fit(dtype: pl.DataType, *, is_zoned: bool) -> Fit:
    micro = pl.Datetime("us", "UTC" if is_zoned else None)
    zone = "+00:00" if is_zoned else ""

    def cast(column: pl.Expr) -> pl.Expr:
        text = column.cast(micro).dt.to_string(_MOMENT)
        return text + zone if zone else text

    def back(column: pl.Expr) -> pl.Expr:
        naive = column.str.head(MOMENT_LENGTH).str.to_datetime(_MOMENT, time_unit="us")
        return (naive.dt.replace_time_zone("UTC") if is_zoned else naive).cast(dtype)

    return Fit("TEXT", pl.String(), cast, back, survives=both(_has_year, comes_back(dtype, micro)))


def _has_year(column: pl.Expr) -> pl.Expr:
    return column.dt.date().is_between(*_DAYS)


_ADVICE: dict[Any, str] = {
    pl.String: "Parse it with a",
    pl.Decimal: "Declare the column DECIMAL_TEXT(precision, scale), cast the values with a",
}
