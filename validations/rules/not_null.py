"""Values must be there."""

from __future__ import annotations

import polars as pl

from validations._rule import rule


@rule()
def not_null(column: pl.Expr) -> pl.Expr:
    """The value must not be null.

    In: one column of any dtype.
    Nulls: are what it finds. NaN and the empty text are values.

    >>> frame = pl.DataFrame({"id": [1, None]})
    >>> frame.select(not_null(pl.col("id")))["id"].to_list()
    [True, False]
    """
    return column.is_not_null()
