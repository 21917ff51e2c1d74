"""Turns the part of a Polars predicate that a database would answer alike into SQL.

A pushed predicate may only save work: it must keep every row for which the Polars predicate is
true, whatever the collation, the padding or the float. Each database says, a column at a time, which
comparisons mean the same there; what it does not say is not pushed. The plan applies the whole
predicate again to the rows that arrive.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

Node = Any  # Polars' own JSON of an expression

_COMPARISONS = {"Eq": "=", "NotEq": "<>", "Lt": "<", "LtEq": "<=", "Gt": ">", "GtEq": ">="}
_EQUALITIES = {"Eq", "NotEq"}


@dataclass(frozen=True)
class Compared:
    """What of a column a database answers as Polars does.

    Attributes:
        sql: the column as it stands in a comparison: its quoted name, with the collation where it needs one.
        as_: "ordered" is every comparison; "equal" is equality; "condition" is equality, and a condition by
            itself; "null" is only whether it is null.
        literal: writes a value to compare it with; None where that value cannot be compared.
    """

    sql: str
    as_: Literal["ordered", "equal", "condition", "null"] = "null"
    literal: Callable[[Any], str | None] = lambda _value: None


def to_sql(predicate: pl.Expr, columns: Mapping[str, Compared]) -> str | None:
    """SQL for the conjuncts of `predicate` that mean the same in the database; None if there are none.

    Args:
        predicate: as Polars hands it to a scan, after its type coercion.
        columns: what may be compared, by the names of columns.
    """
    tree = json.loads(predicate.meta.serialize(format="json"))
    pushed = [text for part in _conjuncts(tree) if (text := _Compiler(columns).sql(part))]
    return " AND ".join(sorted(pushed)) or None


def _conjuncts(node: Node) -> list[Node]:
    binary = node.get("BinaryExpr") if isinstance(node, dict) else None
    if binary and binary["op"] == "And":
        return _conjuncts(binary["left"]) + _conjuncts(binary["right"])
    return [node]


class _Compiler:
    """Compiles one conjunct; every method gives None for what it does not know for certain."""

    def __init__(self, columns: Mapping[str, Compared]) -> None:
        self.columns = columns

    def sql(self, node: Node) -> str | None:
        if not isinstance(node, dict) or len(node) != 1:
            return None
        ((kind, body),) = node.items()
        if kind == "Column":
            column = self._column(node)
            return column.sql if column and column.as_ == "condition" else None
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
        column = self._column(body["left"])
        if operator not in _COMPARISONS or column is None:
            return None
        if not _comparable(column, ordered=operator not in _EQUALITIES):
            return None
        value = _literal(column, _value(body["right"]))
        return f"{column.sql} {_COMPARISONS[operator]} {value}" if value else None

    def _boolean(self, inputs: list[Node], function: Node) -> str | None:
        if function == "Not":
            inner = self.sql(inputs[0])
            return f"NOT ({inner})" if inner else None
        column = self._column(inputs[0])
        if column is None:
            return None
        if function in ("IsNull", "IsNotNull"):
            return f"{column.sql} IS {'NOT ' if function == 'IsNotNull' else ''}NULL"
        if isinstance(function, dict) and "IsIn" in function:
            return self._is_in(column, inputs[1], nulls_equal=function["IsIn"]["nulls_equal"])
        if function == {"IsBetween": {"closed": "Both"}} and _comparable(column, ordered=True):
            low, high = (_literal(column, _value(node)) for node in inputs[1:3])
            return f"{column.sql} BETWEEN {low} AND {high}" if low and high else None
        return None

    def _is_in(self, column: Compared, among: Node, *, nulls_equal: bool) -> str | None:
        if nulls_equal or not _comparable(column, ordered=False):
            return None
        values = _value(among)
        # A null in the list makes SQL's NOT IN unknown where Polars says true: leave nulls out.
        known = [_literal(column, value) for value in values or () if value is not None]
        texts = [text for text in known if text]
        return f"{column.sql} IN ({', '.join(texts)})" if texts and len(texts) == len(known) else None

    def _column(self, node: Node) -> Compared | None:
        name = node.get("Column") if isinstance(node, dict) else None
        return self.columns.get(name) if isinstance(name, str) else None


def _comparable(column: Compared, *, ordered: bool) -> bool:
    return column.as_ == "ordered" or (not ordered and column.as_ != "null")


def _literal(column: Compared, value: object) -> str | None:
    return None if value is None else column.literal(value)


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
