"""Turns the part of a Polars predicate that PostgreSQL would answer alike into SQL.

A pushed predicate may only save work: it must keep every row for which the Polars predicate is
true, whatever the collation, the padding or the float. What is not on the list here is not
pushed; the plan applies the whole predicate again to the rows that arrive.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from flows._postgres import literal, quote
from flows._types import PgType

Node = Any  # Polars' own JSON of an expression

_COMPARISONS = {"Eq": "=", "NotEq": "<>", "Lt": "<", "LtEq": "<=", "Gt": ">", "GtEq": ">="}
_EQUALITIES = {"Eq", "NotEq"}
_NUMBERS = {"int2", "int4", "int8", "float8", "numeric", "date", "timestamp", "timestamptz"}
_TEXTS = {"text", "varchar"}  # not char(n): its comparison ignores padding


def to_sql(predicate: pl.Expr, columns: Mapping[str, PgType], *, exact_text: bool) -> str | None:
    """SQL for the conjuncts of `predicate` that mean the same on the server; None if there are none.

    Args:
        predicate: as Polars hands it to a scan, after its type coercion.
        columns: PostgreSQL types of the columns it may name.
        exact_text: whether equality of texts is equality of bytes on this server.
    """
    tree = json.loads(predicate.meta.serialize(format="json"))
    pushed = [text for part in _conjuncts(tree) if (text := _Compiler(columns, exact_text).sql(part))]
    return " AND ".join(sorted(pushed)) or None


def _conjuncts(node: Node) -> list[Node]:
    binary = node.get("BinaryExpr") if isinstance(node, dict) else None
    if binary and binary["op"] == "And":
        return _conjuncts(binary["left"]) + _conjuncts(binary["right"])
    return [node]


class _Compiler:
    """Compiles one conjunct; every method gives None for what it does not know for certain."""

    def __init__(self, columns: Mapping[str, PgType], exact_text: bool) -> None:
        self.columns = columns
        self.exact_text = exact_text

    def sql(self, node: Node) -> str | None:
        if not isinstance(node, dict) or len(node) != 1:
            return None
        ((kind, body),) = node.items()
        if kind == "Column":
            return quote(body) if self._kind_of(node) == "bool" else None
        if kind == "BinaryExpr":
            return self._logical(body) if body["op"] in {"And", "Or"} else self._comparison(body)
        if kind == "Function" and isinstance(body.get("function"), dict):
            return self._boolean(body["input"], body["function"].get("Boolean"))
        return None

    def _logical(self, body: Node) -> str | None:
        left, right = self.sql(body["left"]), self.sql(body["right"])
        return f"({left} {body['op'].upper()} {right})" if left and right else None

    def _comparison(self, body: Node) -> str | None:
        operator = body["op"]
        column, value = body["left"], _value(body["right"])
        if (
            operator not in _COMPARISONS
            or value is None
            or not self._comparable(column, ordered=operator not in _EQUALITIES)
        ):
            return None
        return f"{quote(column['Column'])} {_COMPARISONS[operator]} {_literal(value)}"

    def _boolean(self, inputs: list[Node], function: Node) -> str | None:
        column = inputs[0]
        if function == "Not":
            inner = self.sql(column)
            return f"NOT ({inner})" if inner else None
        if not self._kind_of(column):
            return None
        name = quote(column["Column"])
        if function in ("IsNull", "IsNotNull"):
            return f"{name} IS {'NOT ' if function == 'IsNotNull' else ''}NULL"
        if isinstance(function, dict) and "IsIn" in function:
            return self._is_in(name, inputs, nulls_equal=function["IsIn"]["nulls_equal"])
        if function == {"IsBetween": {"closed": "Both"}} and self._comparable(column, ordered=True):
            low, high = _value(inputs[1]), _value(inputs[2])
            return None if low is None or high is None else f"{name} BETWEEN {_literal(low)} AND {_literal(high)}"
        return None

    def _is_in(self, name: str, inputs: list[Node], *, nulls_equal: bool) -> str | None:
        if nulls_equal or not self._comparable(inputs[0], ordered=False):
            return None
        values = _value(inputs[1])
        # A null in the list makes SQL's NOT IN unknown where Polars says true: leave nulls out.
        known = [_literal(value) for value in values if value is not None] if values is not None else []
        return f"{name} IN ({', '.join(known)})" if known else None

    def _kind_of(self, node: Node) -> str | None:
        name = node.get("Column") if isinstance(node, dict) else None
        pg = self.columns.get(name) if isinstance(name, str) else None
        return None if pg is None or pg.is_array else pg.name

    def _comparable(self, node: Node, *, ordered: bool) -> bool:
        kind = self._kind_of(node)
        if kind in _TEXTS:
            return self.exact_text and not ordered  # collations order texts in their own ways
        return kind in _NUMBERS or (kind == "bool" and not ordered)


def _value(node: Node) -> Any:
    """The Python value of a node without columns; None when it has any, is null, or has no SQL literal."""
    if not isinstance(node, dict) or "Literal" not in node:
        return None
    try:
        value = pl.select(pl.Expr.deserialize(io.StringIO(json.dumps(node)), format="json")).to_series()
    except pl.exceptions.PolarsError:  # NaN and infinity have no JSON
        return None
    if value.dtype == pl.List:
        value = value.explode(empty_as_null=False)
    elif value.len() == 1 and "Series" not in node["Literal"]:
        return None if _has_zero_byte(value.item()) else value.item()
    return None if any(map(_has_zero_byte, value)) else value.to_list()


def _has_zero_byte(value: object) -> bool:
    return isinstance(value, str) and "\0" in value


def _literal(value: object) -> str:
    return literal(value).strip()
