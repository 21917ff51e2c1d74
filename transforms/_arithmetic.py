"""Arithmetic as PostgreSQL does it: on whole numbers, exact numbers, doubles, dates and intervals.

Whole numbers never wrap around, quotients of whole numbers are cut towards zero, nothing is
divided by zero, and a date minus a date is a number of days. What PostgreSQL answers with an
error stops the run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import polars as pl
from sqlglot import exp

from transforms._casts import DECIMALS, HALF_AWAY, QUOTIENT_DECIMALS, Value, checked, convert, literal, number, unify
from transforms._errors import FormulaError
from transforms._scope import Node, Scope, is_number, node, text
from transforms._types import DIGITS, TIMESTAMP, kind

_WIDER: dict[type[pl.DataType], pl.DataType] = {pl.Int16: pl.Int32(), pl.Int32: pl.Int64(), pl.Int64: pl.Int128()}
_INTERVAL = pl.Duration("us")
_UNITS = {
    "microsecond": timedelta(microseconds=1), "millisecond": timedelta(milliseconds=1), "second": timedelta(seconds=1),
    "sec": timedelta(seconds=1), "minute": timedelta(minutes=1), "min": timedelta(minutes=1),
    "hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1),
}  # fmt: skip
_MONTHS = {"month": 1, "mon": 1, "year": 12}


def whole(operation: Callable[..., pl.Expr], dtype: pl.DataType, *operands: pl.Expr) -> pl.Expr:
    """Calculate with whole numbers in the next wider type, so that what does not fit stops the run."""
    return operation(*(operand.cast(_WIDER[type(dtype)]) for operand in operands)).cast(dtype, strict=True)


def _numbers(scope: Scope, part: Node) -> tuple[Value, Value, pl.DataType]:
    left, right = scope(part.this), scope(part.expression)
    for value in (left, right):
        if not is_number(value) and value.kind != "unknown":
            raise FormulaError(f"{value.sql!r} is {value.called}, and numbers are needed in {text(part)!r}.")
    (left, right), dtype = unify([left, right], "calculated with each other")
    if kind(dtype) == "text":
        raise FormulaError(f"{text(part)!r} has no number to calculate with.")
    return left, right, dtype


@node(exp.Add)
def _add(scope: Scope, part: Node) -> Value:
    return _moments(scope, part, 1) or _plus(scope, part, lambda left, right: left + right)


@node(exp.Sub)
def _subtract(scope: Scope, part: Node) -> Value:
    return _moments(scope, part, -1) or _plus(scope, part, lambda left, right: left - right)


def _plus(scope: Scope, part: Node, operation: Callable[[pl.Expr, pl.Expr], pl.Expr]) -> Value:
    left, right, dtype = _numbers(scope, part)
    if kind(dtype) == "integer":
        return Value(whole(operation, dtype, left.expr, right.expr), dtype)
    return Value(operation(left.expr, right.expr), dtype)


def _moments(scope: Scope, part: Node, sign: int) -> Value | None:
    """Sums and differences with dates, timestamps and intervals; None when there are none."""
    left, right = scope(part.this), scope(part.expression)
    dated = {"date", "timestamp", "timestamptz", "interval", "time"}
    if not {left.kind, right.kind} & dated:
        return None
    if sign > 0 and right.kind in {"date", "timestamp", "timestamptz"}:
        left, right = right, left
    if sign < 0 and "unknown" in {left.kind, right.kind}:
        left, right = unify([left, right], "subtracted")[0]
    if left.kind == "date" and right.kind == "integer":
        days = pl.lit(timedelta(days=right.constant)) if right.is_constant else pl.duration(days=right.expr)
        return Value(left.expr + days if sign > 0 else left.expr - days, pl.Date())
    if left.kind == "date" == right.kind and sign < 0:
        return Value((left.expr - right.expr).dt.total_days().cast(pl.Int32), pl.Int32())
    if right.kind == "interval" and left.kind in {"date", "timestamp", "timestamptz", "interval"}:
        return _shift(left, right, sign)
    if sign < 0 and {left.kind, right.kind} <= {"date", "timestamp", "timestamptz"}:
        (left, right), _ = unify([left, right], "subtracted")
        return scope.typed(left.expr - right.expr)
    verb = "added" if sign > 0 else "subtracted"
    raise FormulaError(f"{left.sql!r} is {left.called} and {right.sql!r} is {right.called}: they cannot be {verb}.")


def _shift(moment: Value, interval: Value, sign: int) -> Value:
    if moment.kind == "interval":
        if moment.months or interval.months:
            raise FormulaError(f"months have no fixed length: {interval.sql!r}. Add it to a date or a timestamp.")
        return Value(moment.expr + interval.expr * sign, moment.dtype)
    moment = convert(moment, TIMESTAMP) if moment.kind == "date" else moment
    shifted = moment.expr.dt.offset_by(f"{sign * interval.months}mo") if interval.months else moment.expr
    return Value(shifted + interval.expr if sign > 0 else shifted - interval.expr, moment.dtype)


@node(exp.Interval, parts="this unit")
def _interval(_scope: Scope, part: Node) -> Value:
    months, rest = 0, timedelta()
    written = f"{part.this.name} {part.args['unit'].name if part.args.get('unit') else ''}".lower()
    found = re.findall(r"([+-]?\d+(?:\.\d+)?)\s*([a-z]+)", written)
    if not found or "".join(f"{count}{unit}" for count, unit in found) != "".join(written.split()):
        raise FormulaError(f"{text(part)!r} is not understood. Write it as: interval '1 day 2 hours'.")
    for count, unit in found:
        singular = unit.removesuffix("s")
        if singular in _MONTHS and "." not in count:
            months += int(count) * _MONTHS[singular]
        elif singular in _UNITS:
            rest += float(count) * _UNITS[singular]
        else:
            raise FormulaError(f"{f'{count} {unit}'!r} is not understood in {text(part)!r}.")
    return Value(pl.lit(rest, dtype=_INTERVAL), _INTERVAL, months=months)


@node(exp.Mul)
def _multiply(scope: Scope, part: Node) -> Value:
    left, right = scope(part.this), scope(part.expression)
    if "interval" in {left.kind, right.kind}:
        interval, times = (left, right) if left.kind == "interval" else (right, left)
        if times.kind != "integer" or interval.months:
            raise FormulaError(f"{text(part)!r}: only an interval without months, times an integer, is understood.")
        return Value(interval.expr * times.expr.cast(pl.Int64), interval.dtype)
    left, right, dtype = _numbers(scope, part)
    if isinstance(dtype, pl.Decimal):
        return _product(scope(part.this), scope(part.expression))
    if kind(dtype) == "integer":
        return Value(whole(lambda a, b: a * b, dtype, left.expr, right.expr), dtype)
    return Value(left.expr * right.expr, dtype)


def _product(left: Value, right: Value) -> Value:
    # Polars keeps the larger of the two scales, PostgreSQL their sum.
    scale = min(_scale(left) + _scale(right), max(DECIMALS, _scale(left), _scale(right)))
    return Value(_exact(left, scale) * _exact(right, _scale(right)), pl.Decimal(DIGITS, scale))


def _scale(value: Value) -> int:
    return value.dtype.scale if isinstance(value.dtype, pl.Decimal) else 0


def _exact(value: Value, scale: int) -> pl.Expr:
    return convert(value, pl.Decimal(DIGITS, scale)).expr


@node(exp.Div, parts="this expression")
def _divide(scope: Scope, part: Node) -> Value:
    left, right, dtype = _numbers(scope, part)
    divisor = _not_zero(right, part)
    if kind(dtype) == "integer":
        return Value(whole(_quotient, dtype, left.expr, divisor), dtype)
    if isinstance(dtype, pl.Decimal):
        scale = max(QUOTIENT_DECIMALS, dtype.scale)
        quotient = left.expr.cast(pl.Decimal(DIGITS, max(scale, DECIMALS))) / divisor
        rounded = quotient.round(scale, mode=HALF_AWAY).cast(pl.Decimal(DIGITS, scale))
        return Value(rounded, pl.Decimal(DIGITS, scale))
    return Value(left.expr / divisor, dtype)


@node(exp.Mod)
def _modulo(scope: Scope, part: Node) -> Value:
    left, right, dtype = _numbers(scope, part)
    if kind(dtype) == "real":
        raise FormulaError(
            f"{text(part)!r}: PostgreSQL has no % for double precision. Cast both sides to numeric(p, s)."
        )
    divisor = _not_zero(right, part)
    if kind(dtype) == "integer":
        return Value(whole(_remainder, dtype, left.expr, divisor), dtype)
    return Value(_remainder(left.expr, divisor), dtype)


def _not_zero(divisor: Value, part: Node) -> pl.Expr:
    message = f"division by zero in {text(part)}; write nullif({text(part.expression)}, 0) to get null instead"
    if divisor.is_constant and divisor.constant is not None:
        if divisor.constant == 0:
            raise FormulaError(f"{message}.")
        return divisor.expr
    return checked(divisor.expr, divisor.expr == 0, message)


def _quotient(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    # Polars rounds down; PostgreSQL cuts towards zero.
    size = left.abs() // right.abs()
    return pl.when((left < 0) != (right < 0)).then(0 - size).otherwise(size)


def _remainder(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    # Polars gives the sign of the divisor; PostgreSQL that of the dividend.
    size = left.abs() % right.abs()
    return pl.when(left < 0).then(0 - size).otherwise(size)


@node(exp.Neg, parts="this")
def _negate(scope: Scope, part: Node) -> Value:
    value = scope(part.this)
    if is_number(value) and value.is_constant and value.constant is not None:
        return number(-value.constant)
    if value.kind == "interval":
        return replace(value, expr=-value.expr, months=-value.months)
    if not is_number(value):
        raise FormulaError(f"{value.sql!r} is {value.called}, and a number is needed in {text(part)!r}.")
    if value.kind == "integer":
        return Value(whole(lambda x: -x, value.dtype, value.expr), value.dtype)
    return Value(-value.expr, value.dtype)


@node(exp.Abs, parts="this", called="abs")
def _absolute(scope: Scope, part: Node) -> Value:
    value = scope(part.this)
    value = value if is_number(value) else scope.of(part.this, "real")
    if value.kind == "integer":
        return Value(whole(lambda x: x.abs(), value.dtype, value.expr), value.dtype)
    return Value(value.expr.abs(), value.dtype)


@node(exp.Sign, parts="this", called="sign")
def _sign(scope: Scope, part: Node) -> Value:
    value = _exact_or_real(scope, part.this)
    return Value(value.expr.sign(), value.dtype)


@node(exp.Ceil, parts="this", called="ceil")
def _ceil(scope: Scope, part: Node) -> Value:
    return _to_whole(scope, part, lambda x: x.ceil())


@node(exp.Floor, parts="this", called="floor")
def _floor(scope: Scope, part: Node) -> Value:
    return _to_whole(scope, part, lambda x: x.floor())


def _exact_or_real(scope: Scope, part: Node) -> Value:
    value = scope(part)
    return value if value.kind == "numeric" else scope.of(part, "real")


def _to_whole(scope: Scope, part: Node, operation: Callable[[pl.Expr], pl.Expr]) -> Value:
    value = _exact_or_real(scope, part.this)
    dtype = pl.Decimal(DIGITS, 0) if value.kind == "numeric" else value.dtype
    return Value(operation(value.expr).cast(dtype), dtype)


@node(exp.Round, parts="this decimals", called="round")
def _round(scope: Scope, part: Node) -> Value:
    return _to_places(scope, part, lambda x, places: x.round(places, mode=HALF_AWAY), lambda x: x.round(0))


@node(exp.Trunc, parts="this decimals", called="trunc")
def _truncate(scope: Scope, part: Node) -> Value:
    return _to_places(scope, part, lambda x, places: x.truncate(places), lambda x: x.truncate(0))


def _to_places(
    scope: Scope,
    part: Node,
    exact: Callable[[pl.Expr, int], pl.Expr],
    double: Callable[[pl.Expr], pl.Expr],
) -> Value:
    value, decimals = scope(part.this), part.args.get("decimals")
    if value.kind == "numeric" or (value.kind == "integer" and decimals):
        places = scope.whole(decimals) if decimals else 0
        if not 0 <= places <= DECIMALS:
            raise FormulaError(f"{text(part)!r} cannot keep {places} decimals: 0 to {DECIMALS}.")
        value = convert(value, pl.Decimal(DIGITS, max(places, _scale(value))))
        return Value(exact(value.expr, places).cast(pl.Decimal(DIGITS, places)), pl.Decimal(DIGITS, places))
    if decimals:
        raise FormulaError(
            f"{text(part)!r}: PostgreSQL rounds to decimals only what is numeric. "
            f"Write {part.key}({text(part.this)}::numeric, {text(decimals)})."
        )
    value = scope.of(part.this, "real")
    return Value(double(value.expr), value.dtype)


def _double(scope: Scope, part: Node, operation: Callable[..., pl.Expr], *operands: Node) -> Value:
    """A function of doubles that must not make NaN or infinity of proper numbers."""
    values = [scope.of(operand, "real").expr.cast(pl.Float64) for operand in operands]
    result = operation(*values)
    proper = pl.all_horizontal(value.is_finite() for value in values)
    message = f"{text(part)} is not defined for a value, or too large"
    return Value(checked(result, proper & ~result.is_finite(), message), pl.Float64())


@node(exp.Pow, called="power")
def _power(scope: Scope, part: Node) -> Value:
    return _double(scope, part, lambda base, power: base.pow(power), part.this, part.expression)


@node(exp.Sqrt, parts="this", called="sqrt")
def _sqrt(scope: Scope, part: Node) -> Value:
    return _double(scope, part, lambda x: x.sqrt(), part.this)


@node(exp.Exp, parts="this", called="exp")
def _exp(scope: Scope, part: Node) -> Value:
    return _double(scope, part, lambda x: x.exp(), part.this)


@node(exp.Ln, parts="this", called="ln")
def _ln(scope: Scope, part: Node) -> Value:
    return _double(scope, part, lambda x: x.log(), part.this)


@node(exp.Log, called="log")
def _log(scope: Scope, part: Node) -> Value:
    if part.args.get("expression") is None:
        return _double(scope, part, lambda x: x.log10(), part.this)
    return _double(scope, part, lambda base, x: x.log() / base.log(), part.this, part.expression)


@node(exp.Literal, parts="this is_string")
def _literal(_scope: Scope, part: Node) -> Value:
    if part.is_string:
        return Value(pl.lit(part.name), pl.Null(), constant=part.name)
    return number(int(part.name) if part.name.isdigit() else Decimal(part.name))


@node(exp.Boolean, parts="this")
def _boolean(_scope: Scope, part: Node) -> Value:
    return literal(bool(part.this), pl.Boolean())


@node(exp.Null, parts="")
def _null(_scope: Scope, _part: Node) -> Value:
    return Value(pl.lit(None), pl.Null(), constant=None)
