"""Texts must match a regular expression."""

from __future__ import annotations

import polars as pl

from validations._errors import RuleError
from validations._rule import rule


@rule(accepts=("text",))
def matches(column: pl.Expr, *, pattern: str) -> pl.Expr:
    """The text must match a regular expression somewhere; anchor it with ``^`` and ``$``.

    In: one column of text (String).

    Args:
        pattern: a regular expression; looking around and back-references are not part of the dialect.
    Nulls: have no opinion.

    Raises:
        RuleError: at plan, when the pattern cannot be understood.
    Source: the dialect of https://docs.rs/regex, which Polars uses; a match anywhere, as PostgreSQL's ``~``.

    >>> frame = pl.DataFrame({"sku": ["AB-12", "12", None]})
    >>> frame.select(matches(pl.col("sku"), pattern="^[A-Z]{2}-"))["sku"].to_list()
    [True, False, None]
    """
    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError as error:
        problem = str(error).split("\n\n", maxsplit=1)[0].splitlines()[-1]
        reason = problem.removeprefix("regex error: ").removeprefix("error: ").rstrip(".")
        raise RuleError(
            f"{pattern!r} is not a regular expression: {reason}.", path=("parameters", "pattern")
        ) from error
    return column.str.contains(pattern)
