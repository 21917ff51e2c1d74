"""Casts that a person writes, ``x::int``, as PostgreSQL does them.

They round, trim and refuse as there; a value that does not fit stops the run, and none becomes null.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import polars as pl

from transforms._errors import FormulaError
from transforms._types import BOOLEAN_WORDS, DIGITS, TIMESTAMP, Kind, constant, kind
from transforms._values import DECIMALS, HALF_AWAY, Value, checked, literal


def cast(value: Value, dtype: pl.DataType) -> Value:
    """Cast as a person writes it, ``x::type``: rounds, trims and refuses as PostgreSQL does.

    Raises:
        FormulaError: PostgreSQL has no such cast, or a literal does not fit.
    """
    target = kind(dtype)
    if value.kind == "unknown" and isinstance(value.constant, str) and target not in {"text", "numeric"}:
        try:
            return literal(constant(value.constant, dtype), dtype)
        except ValueError as error:
            raise FormulaError(f"{error}.") from None
    if value.kind == "unknown":
        value = replace(value, dtype=pl.String()) if value.constant is not None else literal(None, dtype)
    make = _CASTS.get((value.kind, target))
    if make is None and value.kind != target:
        raise FormulaError(f"{value.sql!r} is {value.called} and cannot be cast to {target}.")
    return Value(make(value.expr, value.dtype, dtype) if make else value.expr.cast(dtype), dtype)


def _columns(expr: pl.Expr) -> str:
    return " and ".join(sorted({repr(name) for name in expr.meta.root_names()})) or "the formula"


Cast = Callable[[pl.Expr, pl.DataType, pl.DataType], pl.Expr]


def _plain(expr: pl.Expr, _source: pl.DataType, target: pl.DataType) -> pl.Expr:
    return expr.cast(target)


def _to_numeric(expr: pl.Expr, source: pl.DataType, target: pl.DataType) -> pl.Expr:
    # Polars cuts decimals off where PostgreSQL rounds.
    assert isinstance(target, pl.Decimal)  # noqa: S101 - for the type checker; `_CASTS` leads nothing else here
    has = source.scale if isinstance(source, pl.Decimal) else 0 if source.is_integer() else DECIMALS
    wide = pl.Decimal(DIGITS, max(has, target.scale))
    rounded = expr.cast(wide).round(target.scale, mode=HALF_AWAY).cast(pl.Decimal(DIGITS, target.scale))
    if target.precision == DIGITS:
        return rounded
    limit = pl.lit(Decimal(10) ** (target.precision - target.scale), dtype=pl.Decimal(DIGITS, 0))
    message = f"a number in {_columns(expr)} does not fit numeric({target.precision}, {target.scale})"
    return checked(rounded.cast(target), rounded.abs() >= limit, message)


def _real_to_numeric(expr: pl.Expr, source: pl.DataType, target: pl.DataType) -> pl.Expr:
    # PostgreSQL keeps the digits that a float surely has: 15, or 6 of a real.
    digits = 6 if isinstance(source, pl.Float32) else 15
    return _to_numeric(expr.round_sig_figs(digits).cast(pl.String), source, target)


def _round_half_even(expr: pl.Expr, _source: pl.DataType, target: pl.DataType) -> pl.Expr:
    return expr.round(0).cast(target)


def _round_half_away(expr: pl.Expr, _source: pl.DataType, target: pl.DataType) -> pl.Expr:
    return expr.round(0, mode=HALF_AWAY).cast(target)


def _strip(expr: pl.Expr, _source: pl.DataType, target: pl.DataType) -> pl.Expr:
    return expr.str.strip_chars(" \t\n\r\f\v").cast(target)


def _text_to_boolean(expr: pl.Expr, _source: pl.DataType, _target: pl.DataType) -> pl.Expr:
    words = expr.str.strip_chars(" \t\n\r\f\v").str.to_lowercase()
    found = words.replace_strict(BOOLEAN_WORDS, default=None, return_dtype=pl.Boolean)
    message = f"a text in {_columns(expr)} is not true or false"
    return checked(found, found.is_null() & expr.is_not_null(), message)


def _text_to_date(expr: pl.Expr, _source: pl.DataType, _target: pl.DataType) -> pl.Expr:
    return expr.str.strip_chars(" ").str.to_date("%Y-%m-%d", strict=True)


def _text_to_time(expr: pl.Expr, _source: pl.DataType, _target: pl.DataType) -> pl.Expr:
    return expr.str.strip_chars(" ").str.to_time("%H:%M:%S%.f", strict=True)


def _text_to_timestamp(expr: pl.Expr, _source: pl.DataType, target: pl.DataType) -> pl.Expr:
    plain = expr.str.strip_chars(" ").str.replace("T", " ", literal=True)
    formats = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d"]
    found = [plain.str.to_datetime(form, time_unit="us", strict=False) for form in formats]
    if kind(target) == "timestamptz":
        zoned = plain.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", time_unit="us", strict=False)
        found = [zoned, *(naive.dt.replace_time_zone("UTC") for naive in found)]
    moment = pl.coalesce(found)
    message = f"a text in {_columns(expr)} is not a timestamp (YYYY-MM-DD HH:MM:SS)"
    return checked(moment, moment.is_null() & expr.is_not_null(), message)


def _date_to_timestamp(expr: pl.Expr, _source: pl.DataType, target: pl.DataType) -> pl.Expr:
    naive = expr.cast(TIMESTAMP)
    return naive.dt.replace_time_zone("UTC") if kind(target) == "timestamptz" else naive


def _date_to_text(expr: pl.Expr, _source: pl.DataType, _target: pl.DataType) -> pl.Expr:
    return expr.dt.to_string("%Y-%m-%d")


def _timestamp_to_text(expr: pl.Expr, source: pl.DataType, _target: pl.DataType) -> pl.Expr:
    written = _without_zeros(expr.dt.to_string("%Y-%m-%d %H:%M:%S%.6f"))
    return written + "+00" if kind(source) == "timestamptz" else written


def _time_to_text(expr: pl.Expr, _source: pl.DataType, _target: pl.DataType) -> pl.Expr:
    return _without_zeros(expr.dt.to_string("%H:%M:%S%.6f"))


def _without_zeros(written: pl.Expr) -> pl.Expr:
    return written.str.replace(r"\.(\d*?)0+$", ".${1}").str.replace(r"\.$", "")


_LARGEST_WRITTEN = 1e16
#: Polars writes 1.0, 1000000000000000.0, 0.00001, 1e-6, inf; PostgreSQL 1, 1e+15, 1e-05, 1e-06, Infinity.
_FLOAT_TEXT = [
    (r"^(-?)(\d)(\d{15})\.(\d+)$", "${1}${2}.${3}${4}e+15"),
    (r"^(-?)0\.0000(\d)(\d*)$", "${1}${2}.${3}e-05"),
    (r"(\.\d*?)0+(e|$)", "${1}${2}"),
    (r"\.(e|$)", "${1}"),
    (r"e-(\d)$", "e-0${1}"),
    (r"inf$", "Infinity"),
]


def _real_to_text(expr: pl.Expr, source: pl.DataType, _target: pl.DataType) -> pl.Expr:
    if isinstance(source, pl.Float32):
        raise FormulaError("a real (Float32) is not written the same everywhere. Cast it to numeric(p, s) first.")
    # Above, two decimal texts can be the shortest for a double, and the two choose differently.
    huge = expr.is_finite() & (expr.abs() >= _LARGEST_WRITTEN)
    written = checked(expr, huge, f"a double in {_columns(expr)} is too large to be written as text").cast(pl.String)
    for pattern, replacement in _FLOAT_TEXT:
        written = written.str.replace(pattern, replacement)
    return written


def _to_date(expr: pl.Expr, _source: pl.DataType, _target: pl.DataType) -> pl.Expr:
    return expr.dt.date()


def _to_time(expr: pl.Expr, _source: pl.DataType, _target: pl.DataType) -> pl.Expr:
    return expr.dt.time()


def _set_zone(expr: pl.Expr, _source: pl.DataType, target: pl.DataType) -> pl.Expr:
    return expr.dt.replace_time_zone("UTC" if kind(target) == "timestamptz" else None)


def _nonzero(expr: pl.Expr, _source: pl.DataType, _target: pl.DataType) -> pl.Expr:
    return expr != 0


#: One entry for each cast that PostgreSQL has and Polars does another way, or not by itself.
_CASTS: dict[tuple[Kind, Kind], Cast] = {
    ("boolean", "integer"): _plain, ("boolean", "text"): _plain,
    ("integer", "boolean"): _nonzero, ("integer", "real"): _plain, ("integer", "numeric"): _to_numeric,
    ("integer", "text"): _plain,
    ("numeric", "integer"): _round_half_away, ("numeric", "real"): _plain, ("numeric", "numeric"): _to_numeric,
    ("numeric", "text"): _plain,
    ("real", "integer"): _round_half_even, ("real", "numeric"): _real_to_numeric, ("real", "text"): _real_to_text,
    ("text", "boolean"): _text_to_boolean, ("text", "integer"): _strip, ("text", "real"): _strip,
    ("text", "numeric"): lambda expr, _, target: _to_numeric(expr.str.strip_chars(" \t\n\r\f\v"), _, target),
    ("text", "date"): _text_to_date, ("text", "time"): _text_to_time,
    ("text", "timestamp"): _text_to_timestamp, ("text", "timestamptz"): _text_to_timestamp,
    ("date", "text"): _date_to_text, ("date", "timestamp"): _date_to_timestamp,
    ("date", "timestamptz"): _date_to_timestamp,
    ("timestamp", "date"): _to_date, ("timestamp", "time"): _to_time, ("timestamp", "text"): _timestamp_to_text,
    ("timestamp", "timestamptz"): _set_zone,
    ("timestamptz", "date"): _to_date, ("timestamptz", "time"): _to_time, ("timestamptz", "text"): _timestamp_to_text,
    ("timestamptz", "timestamp"): _set_zone,
    ("time", "text"): _time_to_text,
}  # fmt: skip
