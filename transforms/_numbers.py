"""Functions of numbers as PostgreSQL has them: rounding, roots, powers and logarithms.

Exact numbers round half away from zero, doubles to the even neighbour. A function of doubles
that would make NaN or infinity of proper numbers stops the run.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
from sqlglot import exp

from transforms._arithmetic import scale_of, whole
from transforms._errors import FormulaError
from transforms._scope import Node, Scope, is_number, node, text
from transforms._types import DIGITS
from transforms._values import DECIMALS, HALF_AWAY, Value, checked, convert


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
        value = convert(value, pl.Decimal(DIGITS, max(places, scale_of(value))))
        return Value(exact(value.expr, places).cast(pl.Decimal(DIGITS, places)), pl.Decimal(DIGITS, places))
    if decimals:
        operand = text(part.this) if isinstance(part.this, exp.Column) else f"({text(part.this)})"
        raise FormulaError(
            f"{text(part)!r}: PostgreSQL rounds to decimals only what is numeric. "
            f"Write {part.key}({operand}::numeric, {text(decimals)})."
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
