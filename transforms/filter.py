"""Keeps the rows that meet a condition: written as fields and operators, or as SQL text.

Structured conditions become plain ``column operator literal`` expressions, which sources can
push down into SQL, Parquet and partitions.
"""

from __future__ import annotations

import operator as operators
from collections.abc import Callable
from functools import reduce
from typing import Any, Self
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from transforms._errors import FormulaError, ParameterError, Path, UnknownColumnError
from transforms._expressions import condition as sql_condition
from transforms._expressions import is_row_local, regex
from transforms._transform import Parameters, transform
from transforms._types import constant, kind, shown
from transforms._words import did_you_mean

_COMPARISONS: dict[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "eq": operators.eq, "ne": operators.ne, "gt": operators.gt, "gte": operators.ge, "lt": operators.lt,
    "lte": operators.le,
}  # fmt: skip
_ON_TEXT: dict[str, Callable[[pl.Expr, str], pl.Expr]] = {
    "contains": lambda column, text: column.str.contains(text, literal=True),
    "starts_with": lambda column, text: column.str.starts_with(text),
    "ends_with": lambda column, text: column.str.ends_with(text),
    "matches": lambda column, text: column.str.contains(f"(?s){regex(text)}"),
}
_LISTS = ("in", "not_in", "between")
_ON_NULL = ("is_null", "not_null")
_OPERATORS = (*_COMPARISONS, *_LISTS, *_ON_NULL, *_ON_TEXT)
_SYMBOLS = {"=": "eq", "==": "eq", "!=": "ne", "<>": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


class Condition(BaseModel):
    """A condition: either `field`, `operator` and `value`, or one of `all`, `any` and `not` over others.

    Attributes:
        field: the column.
        operator: eq, ne, gt, gte, lt, lte; in, not_in (a list); between (two values, both included);
            is_null, not_null (no value); contains, starts_with, ends_with (a text); matches (a regular
            expression, found anywhere in the text).
        value: read as a value of the column's type: "2024-01-01" beside a date is a date.
        all: conditions that must all hold.
        any: conditions of which one must hold.
        not_: written ``not``; a condition that must be false (not null).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    field: str | None = None
    operator: str | None = None
    value: Any = None
    all: list[Condition] | None = Field(default=None, min_length=1)
    any: list[Condition] | None = Field(default=None, min_length=1)
    not_: Condition | None = Field(default=None, alias="not")

    @field_validator("operator")
    @classmethod
    def _known(cls, operator: str | None) -> str | None:
        if operator is None or operator in _OPERATORS:
            return operator
        if operator in _SYMBOLS:
            raise ValueError(f"{operator!r} is not an operator. Did you mean {_SYMBOLS[operator]!r}?")
        raise ValueError(f"{operator!r} is not an operator.{did_you_mean(operator, _OPERATORS)}")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = [name for name in ("field", "all", "any", "not_") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("a condition has either 'field' and 'operator', or one of 'all', 'any' and 'not'.")
        if given != ["field"]:
            if self.operator is not None or self.value is not None:
                raise ValueError("'operator' and 'value' need a 'field'.")
        elif self.operator is None:
            raise ValueError(f"'operator' is missing. Known: {', '.join(sorted(_OPERATORS))}.")
        else:
            self._check_value(self.operator)
        return self

    def _check_value(self, operator: str) -> None:
        if operator in _ON_NULL:
            if self.value is not None:
                raise ValueError(f"{operator!r} takes no value.")
        elif self.value is None:
            raise ValueError(f"{operator!r} needs a value; for missing values there are 'is_null' and 'not_null'.")
        elif (operator in _LISTS) != isinstance(self.value, list):
            raise ValueError(
                f"{operator!r} needs {'a list of values' if operator in _LISTS else 'one value, not a list'}."
            )
        elif operator == "between" and len(self.value) != 2:  # noqa: PLR2004 - two ends
            raise ValueError("'between' needs two values, the lowest and the highest.")
        elif operator in _LISTS and (not self.value or None in self.value):
            raise ValueError(f"{operator!r} needs at least one value, and none of them null.")


def _is_row_local(parameters: Parameters) -> bool:
    where: str | None = getattr(parameters, "where", None)
    return where is None or is_row_local(where)


@transform(removes="filtered", row_local=_is_row_local)
def filter(frame: pl.LazyFrame, *, condition: Condition | None = None, where: str | None = None) -> pl.LazyFrame:
    """Keep the rows that meet a condition.

    In: the columns that the condition names. Row order does not matter.
    Out: the same columns, fewer rows, in the same order.

    Args:
        condition: fields, operators and values; see `Condition`.
        where: the same as SQL in PostgreSQL's sense: ``status = 'active' AND amount > 10``.

    Nulls: a row for which the condition is null is filtered out, as in SQL; ``not`` of null is null.

    Raises:
        UnknownColumnError: a field is not there.
        ParameterError: a value does not fit its column, or both forms or none are given.
        FormulaError: `where` is not understood, or is not a condition.

    >>> frame = pl.LazyFrame({"id": [1, 2, 3], "status": ["active", "gone", None]})
    >>> wanted = Condition(field="status", operator="eq", value="active")
    >>> filter(frame, condition=wanted).collect()["id"].to_list()
    [1]
    >>> filter(frame, where="status <> 'active'").collect()["id"].to_list()
    [2]
    """
    schema = frame.collect_schema()
    if condition is not None and where is None:
        return frame.filter(_predicate(condition, schema, ("condition",)))
    if where is not None and condition is None:
        try:
            return frame.filter(sql_condition(where, schema))
        except (FormulaError, UnknownColumnError) as error:
            raise error.under("where") from error.__cause__
    raise ParameterError("a filter needs either 'condition' or 'where'. Give one of them.")


def _predicate(condition: Condition, schema: pl.Schema, path: Path) -> pl.Expr:
    if condition.all is not None:
        return reduce(operators.and_, _each(condition.all, schema, (*path, "all")))
    if condition.any is not None:
        return reduce(operators.or_, _each(condition.any, schema, (*path, "any")))
    if condition.not_ is not None:
        return ~_predicate(condition.not_, schema, (*path, "not"))
    return _comparison(condition, schema, path)


def _each(conditions: list[Condition], schema: pl.Schema, path: Path) -> list[pl.Expr]:
    return [_predicate(each, schema, (*path, position)) for position, each in enumerate(conditions)]


def _comparison(condition: Condition, schema: pl.Schema, path: Path) -> pl.Expr:
    name, operator, value = str(condition.field), str(condition.operator), condition.value
    if name not in schema:
        raise UnknownColumnError(name, schema, path=(*path, "field"))
    column, dtype = pl.col(name), schema[name]
    if operator in _ON_NULL:
        return column.is_null() if operator == "is_null" else column.is_not_null()
    if operator in _ON_TEXT:
        return _on_text(name, dtype, operator, value, path)
    try:
        if operator in _COMPARISONS:
            return _COMPARISONS[operator](column, _literal(value, dtype))
        if operator == "between":
            return column.is_between(_literal(value[0], dtype), _literal(value[1], dtype))
        members = [_known(each, dtype) for each in value]
    except ValueError as error:
        raise ParameterError(f"{error}; column {name!r} is {shown(dtype)}.", path=(*path, "value")) from None
    return column.is_in(members) if operator == "in" else ~column.is_in(members)


def _on_text(name: str, dtype: pl.DataType, operator: str, value: Any, path: Path) -> pl.Expr:
    if kind(dtype) != "text":
        raise ParameterError(
            f"{operator!r} needs a text column, and {name!r} is {shown(dtype)}.", path=(*path, "operator")
        )
    if not isinstance(value, str):
        raise ParameterError(f"{value!r} is not text. Quote it: '{value}'.", path=(*path, "value"))
    column = pl.col(name) if dtype == pl.String else pl.col(name).cast(pl.String)
    try:
        return _ON_TEXT[operator](column, value)
    except FormulaError as error:
        raise error.under(*path, "value") from error.__cause__


def _known(value: Any, dtype: pl.DataType) -> Any:
    known = constant(value, dtype)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        return known.astimezone(ZoneInfo(dtype.time_zone))
    return known


def _literal(value: Any, dtype: pl.DataType) -> pl.Expr:
    known = _known(value, dtype)
    return pl.lit(known) if kind(dtype) in {"numeric", "text"} else pl.lit(known, dtype=dtype)
