"""Values must be among those listed."""

from __future__ import annotations

from typing import Annotated

import polars as pl
from annotated_types import MinLen

from validations._errors import RuleError
from validations._rule import rule
from validations._values import Value, fitting


@rule(accepts=("text", "number", "date", "time of day", "boolean", "category"))
def in_set(column: pl.Expr, dtype: pl.DataType, *, values: Annotated[tuple[Value, ...], MinLen(1)]) -> pl.Expr:
    """The value must be one of those listed.

    In: one column of texts, numbers, dates, times, booleans or categories.

    Args:
        values: what is good; capitals and spaces count. Dates and times may be ISO 8601 texts.
    Nulls: have no opinion.

    Raises:
        RuleError: at plan, when a value listed could never be in the column.

    >>> frame = pl.DataFrame({"status": ["active", "gone", None]})
    >>> frame.select(in_set(pl.col("status"), frame.schema["status"], values=["active", "closed"]))["status"].to_list()
    [True, False, None]
    """
    if dtype in (pl.Categorical, pl.Enum):
        column, dtype = column.cast(pl.String), pl.String()
    listed = []
    for position, value in enumerate(values):
        path = ("parameters", "values", position)
        fit = fitting(value, dtype, path=path)
        if dtype.is_integer() and fit % 1:
            raise RuleError(f"{value!r} is never in a column of {dtype}.", path=path)
        listed.append(int(fit) if dtype.is_integer() else fit)
    try:
        members = pl.Series(listed, dtype=dtype)
    except (TypeError, OverflowError, pl.exceptions.PolarsError) as error:
        raise RuleError(f"not all of these can be in a column of {dtype}.", path=("parameters", "values")) from error
    return column.is_in(members.implode())
