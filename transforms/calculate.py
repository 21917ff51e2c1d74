"""Adds columns calculated from the others by SQL expressions."""

from __future__ import annotations

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from transforms._errors import FormulaError, UnknownColumnError
from transforms._expressions import expression, is_row_local
from transforms._transform import Parameters, transform


class Expression(BaseModel):
    """A column and the formula it is calculated by.

    Attributes:
        field: the column to add, or to replace where it stands.
        formula: an SQL expression in PostgreSQL's sense, ``amount * exchange_rate``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str = Field(min_length=1)
    formula: str


def _is_row_local(parameters: Parameters) -> bool:
    expressions: list[Expression] = parameters.expressions  # type: ignore[attr-defined]  # the model of `calculate`
    return all(is_row_local(each.formula) for each in expressions)


@transform(row_local=_is_row_local)
def calculate(frame: pl.LazyFrame, *, expressions: list[Expression]) -> pl.LazyFrame:
    """Calculate columns with SQL expressions.

    In: the columns that the formulas name.
    Out: one column more for each new field; the same rows in the same order. Dtypes are those that
        PostgreSQL would give: a date minus a date is a whole number of days, the quotient of whole
        numbers is whole, ``amount * 1.5`` of a whole number is a Decimal.

    Args:
        expressions: fields and formulas, in order; each sees the columns of those before it.

    Nulls: as in SQL, null plus one is null.

    Raises:
        FormulaError: a formula is not understood, or its types do not fit; at plan time.
        UnknownColumnError: a formula names a column that is not there; at plan time.
        polars.exceptions.PolarsError: at run, where PostgreSQL would stop too: division by zero, overflow.

    >>> frame = pl.LazyFrame({"amount": [20.0, 10.0], "exchange_rate": [1.5, 2.0]})
    >>> formula = Expression(field="amount_usd", formula="amount * exchange_rate")
    >>> calculate(frame, expressions=[formula]).collect()["amount_usd"].to_list()
    [30.0, 20.0]
    """
    for position, each in enumerate(expressions):
        try:
            formula = expression(each.formula, frame.collect_schema())
        except (FormulaError, UnknownColumnError) as error:
            raise error.under("expressions", position, "formula") from error.__cause__
        frame = frame.with_columns(formula.alias(each.field))
    return frame
