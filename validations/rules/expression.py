"""Rows must satisfy an SQL expression."""

from __future__ import annotations

import polars as pl

from transforms import _expressions
from transforms._errors import TransformError
from validations._errors import RuleError
from validations._rule import rule


@rule()
def expression(schema: pl.Schema, *, formula: str) -> pl.Expr:
    """An SQL expression over the row must be true.

    In: the columns that the formula names.

    Args:
        formula: an SQL expression in PostgreSQL's sense that is true, false or null, about this row alone.
    Nulls: a formula that comes out null has no opinion, as in an SQL CHECK constraint.

    Raises:
        RuleError: at plan, when the formula needs other rows.
        FormulaError: at plan, when the formula cannot be understood, or is neither true nor false.
        UnknownColumnError: at plan, when it names a column that is not there.

    >>> frame = pl.DataFrame({"opened": [1, 5, None], "closed": [2, 3, 4]})
    >>> frame.select(good=expression(frame.schema, formula="opened <= closed"))["good"].to_list()
    [True, False, None]
    """
    try:
        if _expressions.is_row_local(formula):
            return _expressions.condition(formula, schema)
    except TransformError as error:
        raise error.under("parameters", "formula") from error.__cause__
    raise RuleError(f"{formula!r} looks at more than one row.", path=("parameters", "formula"))
