"""Window functions: what a row can know of the other rows of its partition.

Understood: sum, avg, min, max and count over a whole partition; row_number, rank, dense_rank, lag
and lead in an order. Running totals and frames are refused, not approximated.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
from sqlglot import exp

from transforms._errors import FormulaError
from transforms._scope import Node, Scope, is_number, node, text
from transforms._types import DIGITS
from transforms._values import HALF_AWAY, QUOTIENT_DECIMALS, Value, convert

_BIG = pl.Int64()
_AFTER_ALL = 2**32


@node(exp.Window, parts="this partition_by order over")
def _window(scope: Scope, part: Node) -> Value:
    if part.args.get("over") != "OVER":
        raise FormulaError(f"{text(part)!r} is not understood. Write the window out: OVER (PARTITION BY ...).")
    # The partition is whole also where the result is wanted for some rows only.
    everyone = Scope(scope.schema)
    groups = [everyone(each).expr for each in part.args.get("partition_by") or ()]
    order = part.args.get("order")
    function: Node = part.this
    kind: type[Node] = type(function)
    if kind in _WHOLE:
        if order is not None:
            raise FormulaError(f"{text(part)!r} would be a running total, which is not understood. Leave ORDER BY out.")
        found = _WHOLE[kind](everyone, function)
        return Value(found.expr.over(groups or pl.lit(1)), found.dtype)
    if kind not in _ORDERED:
        raise FormulaError(f"{text(function)!r} is not understood over a window.")
    if order is None:
        raise FormulaError(f"{text(part)!r} needs an order: OVER (... ORDER BY ...).")
    keys = [_key(everyone, each) for each in order.expressions]
    found = _ORDERED[kind](everyone, function, keys)
    return Value(found.expr.over(groups or pl.lit(1), order_by=keys), found.dtype)


def _key(scope: Scope, part: Node) -> pl.Expr:
    """An order as an ascending whole number, so that directions can be mixed; nulls last unless descending."""
    value = scope(part.this)
    expr = value.expr.cast(pl.Int8) if value.kind == "boolean" else value.expr
    first = bool(part.args.get("nulls_first"))
    ranked = expr.rank("dense", descending=bool(part.args.get("desc"))).cast(_BIG)
    return ranked.fill_null(0 if first else _AFTER_ALL)


def _sum(scope: Scope, part: Node) -> Value:
    value = _summand(scope, part)
    small = value.dtype in (pl.Int16(), pl.Int32())
    wide = convert(value, _BIG if small else pl.Decimal(DIGITS, 0) if value.kind == "integer" else value.dtype)
    return Value(pl.when(wide.expr.count() > 0).then(wide.expr.sum()), wide.dtype)


def _avg(scope: Scope, part: Node) -> Value:
    value = _summand(scope, part)
    if value.kind == "real":
        return Value(value.expr.mean(), pl.Float64())
    exact = convert(value, pl.Decimal(DIGITS, 18)).expr
    count = pl.when(exact.count() > 0).then(exact.count()).cast(pl.Decimal(DIGITS, 0))
    dtype = pl.Decimal(DIGITS, QUOTIENT_DECIMALS)
    return Value((exact.sum() / count).round(QUOTIENT_DECIMALS, mode=HALF_AWAY).cast(dtype), dtype)


def _summand(scope: Scope, part: Node) -> Value:
    value = scope(part.this)
    if not is_number(value):
        raise FormulaError(f"{value.sql!r} is {value.called}, and a number is needed in {text(part)!r}.")
    return value


def _count(scope: Scope, part: Node) -> Value:
    expr = pl.len() if isinstance(part.this, exp.Star) else scope(part.this).expr.count()
    return Value(expr.cast(_BIG), _BIG)


def _min(scope: Scope, part: Node) -> Value:
    value = scope(part.this)
    return Value(value.expr.min(), value.dtype)


def _max(scope: Scope, part: Node) -> Value:
    value = scope(part.this)
    return Value(value.expr.max(), value.dtype)


def _row_number(_scope: Scope, _part: Node, _keys: list[pl.Expr]) -> Value:
    return Value(pl.int_range(1, pl.len() + 1, dtype=_BIG), _BIG)


def _rank(_scope: Scope, _part: Node, keys: list[pl.Expr]) -> Value:
    return Value(pl.struct(*keys).rank("min").cast(_BIG), _BIG)


def _dense_rank(_scope: Scope, _part: Node, keys: list[pl.Expr]) -> Value:
    return Value(pl.struct(*keys).rank("dense").cast(_BIG), _BIG)


def _lag(scope: Scope, part: Node, _keys: list[pl.Expr]) -> Value:
    return _neighbour(scope, part, 1)


def _lead(scope: Scope, part: Node, _keys: list[pl.Expr]) -> Value:
    return _neighbour(scope, part, -1)


def _neighbour(scope: Scope, part: Node, direction: int) -> Value:
    if part.args.get("default") is not None:
        raise FormulaError(
            f"{text(part)!r}: a default is not understood. Write coalesce({part.key}(...) OVER (...), ...)."
        )
    value, offset = scope(part.this), part.args.get("offset")
    distance = scope.whole(offset) if offset is not None else 1
    return Value(value.expr.shift(direction * distance), value.dtype)


_WHOLE: dict[type[Node], Callable[[Scope, Node], Value]] = {
    exp.Sum: _sum, exp.Avg: _avg, exp.Min: _min, exp.Max: _max, exp.Count: _count,
}  # fmt: skip
_ORDERED: dict[type[Node], Callable[[Scope, Node, list[pl.Expr]], Value]] = {
    exp.RowNumber: _row_number, exp.Rank: _rank, exp.DenseRank: _dense_rank, exp.Lag: _lag, exp.Lead: _lead,
}  # fmt: skip
