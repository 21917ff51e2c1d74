"""Comparisons, conditions and choices as PostgreSQL has them, with its three truth values.

Comparisons with a literal stay ``column operator literal``, so that sources can push them down.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from decimal import Decimal
from functools import reduce

import polars as pl
from sqlglot import exp

from transforms._casts import cast
from transforms._errors import FormulaError
from transforms._scope import Node, Scope, is_harmless, node, text
from transforms._types import DIGITS, dtype_named, kind
from transforms._values import Value, convert, literal, number, unify

_COMPARE: dict[type[Node], Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    exp.EQ: operator.eq, exp.NEQ: operator.ne, exp.GT: operator.gt, exp.GTE: operator.ge, exp.LT: operator.lt,
    exp.LTE: operator.le, exp.NullSafeEQ: pl.Expr.eq_missing, exp.NullSafeNEQ: pl.Expr.ne_missing,
}  # fmt: skip
_BOOLEAN = pl.Boolean()


@node(*_COMPARE)
def _comparison(scope: Scope, part: Node) -> Value:
    if isinstance(part.this, tuple(_COMPARE)) or isinstance(part.expression, tuple(_COMPARE)):
        raise FormulaError(f"{text(part)!r} compares a comparison. Put parentheses around the inner one.")
    return compare(_COMPARE[type(part)], scope(part.this), scope(part.expression))


def compare(operation: Callable[[pl.Expr, pl.Expr], pl.Expr], left: Value, right: Value) -> Value:
    """Compare two values of types that PostgreSQL compares."""
    if "other" in {left.kind, right.kind}:
        strange = left if left.kind == "other" else right
        raise FormulaError(f"{strange.sql!r} is {strange.called} and cannot be compared.")
    if left.months or right.months:
        raise FormulaError(f"{(left if left.months else right).sql!r} has months, which have no fixed length.")
    _, dtype = unify([left, right], "compared")
    return Value(operation(_beside(left, dtype), _beside(right, dtype)), _BOOLEAN)


def _beside(value: Value, dtype: pl.DataType) -> pl.Expr:
    """Like `convert`, but columns stay as they are where Polars compares the two types as PostgreSQL does."""
    same = value.kind == kind(dtype) and not value.is_constant
    return value.expr if same and kind(dtype) in {"integer", "numeric", "text"} else convert(value, dtype).expr


@node(exp.And)
def _and(scope: Scope, part: Node) -> Value:
    left, right = _both_sides(scope, part, undecided=lambda value: value.ne_missing(other=False))
    return Value(left & right, _BOOLEAN)


@node(exp.Or)
def _or(scope: Scope, part: Node) -> Value:
    left, right = _both_sides(scope, part, undecided=lambda value: value.ne_missing(other=True))
    return Value(left | right, _BOOLEAN)


def _both_sides(scope: Scope, part: Node, undecided: Callable[[pl.Expr], pl.Expr]) -> tuple[pl.Expr, pl.Expr]:
    """Both sides; the right one is computed where the left one has not decided yet, as PostgreSQL goes about it."""
    left = scope.of(part.this, "boolean")
    deciding = _harmless_first(list(part.this.flatten()) if isinstance(part.this, type(part)) else [part.this])
    rows = [undecided(scope.of(each, "boolean").expr) for each in deciding]
    right = _as_boolean(scope.only(pl.all_horizontal(rows) if rows else None, part.expression), part)
    return left.expr, right.expr


def _harmless_first(parts: list[Node]) -> list[Node]:
    """The parts to guard others by: all that cannot fail, or a single one.

    A guard is repeated in everything it guards; guards within guards would grow without bounds.
    """
    return parts if len(parts) == 1 else [part for part in parts if is_harmless(part)]


def _as_boolean(value: Value, part: Node) -> Value:
    if value.kind not in {"boolean", "unknown"}:
        raise FormulaError(f"{value.sql!r} is {value.called}, and true or false is needed in {text(part)!r}.")
    return convert(value, _BOOLEAN)


@node(exp.Not, parts="this")
def _not(scope: Scope, part: Node) -> Value:
    return Value(~scope.of(part.this, "boolean").expr, _BOOLEAN)


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


@node(exp.Paren, parts="this")
def _paren(scope: Scope, part: Node) -> Value:
    return scope(part.this)


@node(exp.Column, parts="this")
def _column(scope: Scope, part: Node) -> Value:
    return scope.column(part.name, quoted=part.this.quoted)


@node(exp.Is, parts="this expression negate")
def _is(scope: Scope, part: Node) -> Value:
    if isinstance(part.expression, exp.Null):
        expr = scope(part.this).expr
        return Value(expr.is_not_null() if part.args.get("negate") else expr.is_null(), _BOOLEAN)
    if not isinstance(part.expression, exp.Boolean):
        raise FormulaError(f"{text(part)!r} is not understood. After IS stands NULL, TRUE, FALSE or DISTINCT FROM.")
    found = scope.of(part.this, "boolean").expr.eq_missing(pl.lit(bool(part.expression.this)))
    return Value(~found if part.args.get("negate") else found, _BOOLEAN)


@node(exp.Between, parts="this low high")
def _between(scope: Scope, part: Node) -> Value:
    value = scope(part.this)
    above = compare(operator.ge, value, scope(part.args["low"]))
    return Value(above.expr & compare(operator.le, value, scope(part.args["high"])).expr, _BOOLEAN)


@node(exp.In, parts="this expressions")
def _in(scope: Scope, part: Node) -> Value:
    value, members = scope(part.this), [scope(each) for each in part.expressions]
    if not members:
        raise FormulaError(f"{text(part)!r} has nothing to choose from. Write: x IN (1, 2, 3).")
    proper = [member for member in members if not member.is_constant or member.constant is not None]
    nulls = len(proper) < len(members)
    literals = all(member.is_constant for member in proper)
    if proper and literals and not value.is_constant and value.kind in {"integer", "text", "date"}:
        _, dtype = unify([value, *proper], "compared")
        if kind(dtype) == value.kind:
            known = [convert(member, value.dtype).constant for member in proper]
            found = value.expr.is_in(pl.Series(known, dtype=value.dtype).implode())
            return Value(found | pl.lit(None, dtype=_BOOLEAN) if nulls else found, _BOOLEAN)
    return Value(reduce(operator.or_, (compare(operator.eq, value, each).expr for each in members)), _BOOLEAN)


@node(exp.Coalesce, parts="this expressions", called="coalesce")
def _coalesce(scope: Scope, part: Node) -> Value:
    parts = [part.this, *part.expressions]
    values = [scope(parts[0])]
    for position, each in enumerate(parts[1:], 1):
        missing = [scope(earlier).expr.is_null() for earlier in _harmless_first(parts[:position])]
        values.append(scope.only(pl.all_horizontal(missing) if missing else None, each))
    values, dtype = unify(values, "alternatives of one another")
    return Value(pl.coalesce(value.expr for value in values), dtype)


@node(exp.Nullif, called="nullif")
def _nullif(scope: Scope, part: Node) -> Value:
    value, other = scope(part.this), scope(part.expression)
    equal = compare(operator.eq, value, other)
    value = convert(value, pl.String()) if value.kind == "unknown" else value
    return Value(pl.when(equal.expr).then(None).otherwise(value.expr), value.dtype)


@node(exp.Greatest, parts="this expressions", called="greatest")
def _greatest(scope: Scope, part: Node) -> Value:
    return _extreme(scope, part, largest=True)


@node(exp.Least, parts="this expressions", called="least")
def _least(scope: Scope, part: Node) -> Value:
    return _extreme(scope, part, largest=False)


def _extreme(scope: Scope, part: Node, *, largest: bool) -> Value:
    values, dtype = unify([scope(each) for each in (part.this, *part.expressions)], "compared")
    exprs = [value.expr for value in values]
    best = pl.max_horizontal(exprs) if largest else pl.min_horizontal(exprs)
    if largest and kind(dtype) == "real":
        # PostgreSQL's NaN is greater than every number; Polars leaves it out.
        best = pl.when(pl.any_horizontal(expr.is_nan() for expr in exprs)).then(float("nan")).otherwise(best)
    return Value(best, dtype)


@node(exp.Case, parts="this ifs default")
def _case(scope: Scope, part: Node) -> Value:
    subject = scope(part.this) if part.this is not None else None
    conditions: list[pl.Expr] = []
    passed: list[pl.Expr] = []
    results: list[Value] = []
    for branch in part.args["ifs"]:
        still = ~pl.any_horizontal(passed) if passed else None
        condition = _condition(scope, part, branch, subject, still).fill_null(value=False)
        conditions.append(condition)
        results.append(scope.only(condition if still is None else condition & still, branch.args["true"]))
        if is_harmless(branch.this) or len(part.args["ifs"]) == 1:
            passed.append(condition)
    results.append(scope.only(~pl.any_horizontal(passed) if passed else None, part.args.get("default") or exp.Null()))
    values, dtype = unify(results, "results of one CASE")
    chosen = values[-1].expr
    for condition, value in zip(reversed(conditions), reversed(values[:-1]), strict=True):
        chosen = pl.when(condition).then(value.expr).otherwise(chosen)
    return Value(chosen, dtype)


def _condition(scope: Scope, part: Node, branch: Node, subject: Value | None, still: pl.Expr | None) -> pl.Expr:
    value = scope.only(still, branch.this)
    if subject is not None:
        return compare(operator.eq, subject, value).expr
    return _as_boolean(value, part).expr


@node(exp.Cast, parts="this to")
def _cast(scope: Scope, part: Node) -> Value:
    value, name = scope(part.this), part.args["to"].sql(dialect="postgres")
    if name == "DECIMAL":
        return _cast_to_any_numeric(value)
    length = re.fullmatch(r"(?:VARCHAR|CHAR)\((\d+)\)", name)
    if name.startswith("CHAR"):
        raise FormulaError(
            f"{text(part)!r}: char(n) pads with blanks that comparisons forget. Cast to varchar(n) or text."
        )
    try:
        dtype = pl.String() if length else dtype_named(name)
    except ValueError as error:
        raise FormulaError(str(error)) from None
    found = cast(value, dtype)
    return Value(found.expr.str.slice(0, int(length[1])), found.dtype) if length else found


def _cast_to_any_numeric(value: Value) -> Value:
    if value.kind == "numeric":
        return value
    if value.is_constant and isinstance(value.constant, str):
        return _as_written(value)
    return cast(value, pl.Decimal(DIGITS, 0 if value.kind == "integer" else 18))


def _as_written(value: Value) -> Value:
    """A string literal cast to numeric keeps the decimals it is written with."""
    decimals = len(value.constant.strip().partition(".")[2])
    return convert(value, pl.Decimal(DIGITS, min(decimals, 18)))
