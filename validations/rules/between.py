"""Values must lie in a range."""

from __future__ import annotations

import polars as pl

from validations._errors import RuleError
from validations._rule import rule
from validations._values import Value, fitting


@rule(accepts=("number", "date", "time of day", "text"))
def between(
    column: pl.Expr,
    dtype: pl.DataType,
    *,
    min: Value | None = None,
    max: Value | None = None,
    inclusive: bool = True,
) -> pl.Expr:
    """The value must lie between two bounds; one of them is enough.

    In: one column of numbers, dates, times or texts (which compare byte by byte).

    Args:
        min: the lower bound. Dates and times may be ISO 8601 texts; one without a time zone is meant in
            the column's.
        max: the upper bound.
        inclusive: whether the bounds themselves are good.
    Nulls: have no opinion. NaN lies between nothing.

    Raises:
        RuleError: at plan, when there is no bound, when nothing could lie between them, or when a bound
            cannot be compared with the column.

    >>> frame = pl.DataFrame({"age": [17, 18, None]})
    >>> frame.select(between(pl.col("age"), frame.schema["age"], min=18))["age"].to_list()
    [False, True, None]
    """
    if min is None and max is None:
        raise RuleError("between needs 'min' or 'max'.", path=("parameters",))
    tests = []
    if min is not None:
        low = fitting(min, dtype, path=("parameters", "min"))
        tests.append(column >= low if inclusive else column > low)
    if max is not None:
        high = fitting(max, dtype, path=("parameters", "max"))
        tests.append(column <= high if inclusive else column < high)
    if min is not None and max is not None and not (low <= high if inclusive else low < high):
        raise RuleError(f"nothing lies between {min!r} and {max!r}.", path=("parameters",))
    if dtype.is_float():
        tests.append(column.is_not_nan())
    return pl.all_horizontal(tests)
