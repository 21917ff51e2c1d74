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

import polars as pl
from sqlglot import exp

from transforms._errors import FormulaError
from transforms._scope import Node, Scope, is_number, node, text
from transforms._types import DIGITS, TIMESTAMP, kind
from transforms._values import DECIMALS, HALF_AWAY, QUOTIENT_DECIMALS, Value, checked, convert, number, unify

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
    scale = min(scale_of(left) + scale_of(right), max(DECIMALS, scale_of(left), scale_of(right)))
    return Value(_exact(left, scale) * _exact(right, scale_of(right)), pl.Decimal(DIGITS, scale))


def scale_of(value: Value) -> int:
    """The decimals of a numeric value; whole numbers have none."""
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
    if divisor.is_constant and divisor.constant is not None:
        if divisor.constant == 0:
            raise FormulaError(f"{text(part)!r} divides by zero.")
        return divisor.expr
    message = f"division by zero in {text(part)}; write nullif({text(part.expression)}, 0) to get null instead"
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
