"""Conversions between types as PostgreSQL does them, in Polars expressions.

`Value` is an expression with the type that PostgreSQL would give it. `convert` is what happens
by itself (an integer beside a double), `cast` is what a person writes (``x::int``), `unify` is
how several values come to one type. A value that does not fit stops the run; none becomes null.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

import polars as pl

from transforms._errors import FormulaError
from transforms._types import BOOLEAN_WORDS, DIGITS, TIMESTAMP, TIMESTAMPTZ, Kind, constant, kind

#: Decimals kept where PostgreSQL's numeric has no limit, and in quotients.
DECIMALS = 18
QUOTIENT_DECIMALS = 16
HALF_AWAY: Literal["half_away_from_zero"] = "half_away_from_zero"

_NOT_CONSTANT: Any = object()


@dataclass(frozen=True)
class Value:
    """An expression, its type, and the text it came from.

    Attributes:
        constant: the Python value of a literal. A string literal has no type of its own yet: `dtype` is Null.
        months: of an interval literal; the rest of it is in `expr`.
    """

    expr: pl.Expr
    dtype: pl.DataType
    sql: str = ""
    constant: Any = _NOT_CONSTANT
    months: int = 0

    @property
    def kind(self) -> Kind:
        """The family of the type."""
        return kind(self.dtype)

    @property
    def is_constant(self) -> bool:
        """Whether the value is a literal."""
        return self.constant is not _NOT_CONSTANT

    @property
    def called(self) -> str:
        """The value's type in PostgreSQL's words."""
        return {"real": "double precision", "unknown": "null" if self.constant is None else "text"}.get(
            self.kind, str(self.dtype) if self.kind == "other" else self.kind
        )


def literal(value: Any, dtype: pl.DataType) -> Value:
    """A literal of a known type."""
    exact = isinstance(dtype, pl.Decimal) and value is not None
    expr = pl.lit(_at_scale(value, dtype.scale), dtype=dtype) if exact else pl.lit(value, dtype=dtype)  # type: ignore[attr-defined]
    return Value(expr, dtype, constant=value)


def _at_scale(value: Any, scale: int) -> Decimal:
    return Decimal(value).quantize(Decimal(1).scaleb(-scale)) if abs(Decimal(value)) < Decimal(10) ** 20 else value


def number(value: int | Decimal) -> Value:
    """A number as PostgreSQL types a literal: integer, bigint or numeric."""
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return literal(value, pl.Int32() if -(2**31) <= value < 2**31 else pl.Int64())
    exact = Decimal(value)
    exponent = exact.as_tuple().exponent
    scale = max(0, -exponent) if isinstance(exponent, int) else 0
    if scale > DECIMALS or exact.adjusted() >= DIGITS - scale:
        raise FormulaError(f"'{value}' has too many digits. At most {DIGITS}, {DECIMALS} of them decimals.")
    return replace(literal(exact, pl.Decimal(DIGITS, scale)), constant=value)


def fail(bad: pl.Expr, message: str) -> pl.Expr:
    """Null, unless `bad` is true for any row: then the run stops with `message`.

    A strict cast carries the message, because Polars knows that it can fail and keeps it behind earlier filters.
    """
    return pl.when(bad).then(pl.lit(message)).otherwise(None).cast(pl.Int64, strict=True)


def checked(value: pl.Expr, bad: pl.Expr, message: str) -> pl.Expr:
    """`value`, unless `bad` is true for any row: then the run stops with `message`."""
    return pl.when(fail(bad, message).is_null()).then(value)


def convert(value: Value, dtype: pl.DataType) -> Value:
    """Bring a value to the type that its neighbours have, as PostgreSQL does by itself."""
    if value.dtype == dtype:
        return value
    if value.is_constant:
        try:
            known = None if value.constant is None else constant(value.constant, dtype)
        except ValueError as error:
            raise FormulaError(f"{error}, which its neighbours in the formula are") from None
        return replace(literal(known, dtype), sql=value.sql)
    source, target = value.kind, kind(dtype)
    expr = value.expr.cast(dtype) if source != target or target != "text" else value.expr
    if target == "timestamptz" and source in {"date", "timestamp"}:
        expr = value.expr.cast(TIMESTAMP).dt.replace_time_zone("UTC")
    return replace(value, expr=expr, dtype=dtype)


def unify(values: Sequence[Value], purpose: str) -> tuple[list[Value], pl.DataType]:
    """Bring values to the one type that PostgreSQL would choose for them.

    Raises:
        FormulaError: there is none.
    """
    dtype = _common(values, purpose)
    return [convert(value, dtype) for value in values], dtype


def _common(values: Sequence[Value], purpose: str) -> pl.DataType:
    typed = [value for value in values if value.kind != "unknown"]
    kinds = {value.kind for value in typed}
    if not typed:
        return pl.String()
    if all(value.dtype == typed[0].dtype for value in typed):
        return typed[0].dtype
    for family, widest in _FAMILIES:
        if kinds <= family:
            return widest([value.dtype for value in typed])
    if len(kinds) == 1:
        return typed[0].dtype
    first, other = typed[0], next(value for value in typed if value.kind != typed[0].kind)
    are = f"{first.sql!r} is {first.called} and {other.sql!r} is {other.called}"
    raise FormulaError(f"{are}: they cannot be {purpose}. Cast one of them.")


def _widest_integer(dtypes: list[pl.DataType]) -> pl.DataType:
    return next(dtype for dtype in (pl.Int64(), pl.Int32(), pl.Int16()) if dtype in dtypes)


def _widest_numeric(dtypes: list[pl.DataType]) -> pl.DataType:
    return pl.Decimal(DIGITS, max(dtype.scale for dtype in dtypes if isinstance(dtype, pl.Decimal)))


#: The kinds that PostgreSQL brings together, narrowest family first, and to which type.
_FAMILIES: list[tuple[set[Kind], Callable[[list[pl.DataType]], pl.DataType]]] = [
    ({"integer"}, _widest_integer),
    ({"integer", "numeric"}, _widest_numeric),
    ({"integer", "numeric", "real"}, lambda _: pl.Float64()),
    ({"date", "timestamp"}, lambda _: TIMESTAMP),
    ({"date", "timestamp", "timestamptz"}, lambda _: TIMESTAMPTZ),
]


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
    (r"^(-?)(\d)(\d{15})\.0$", "${1}${2}.${3}e+15"),
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
