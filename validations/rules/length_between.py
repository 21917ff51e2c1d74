"""Texts must be neither too short nor too long."""

from __future__ import annotations

import polars as pl

from validations._errors import RuleError
from validations._rule import rule


@rule(accepts=("text",))
def length_between(column: pl.Expr, *, min: int = 0, max: int | None = None) -> pl.Expr:
    """The text must have from `min` to `max` characters, both included.

    In: one column of text (String).

    Args:
        min: characters at least; 0 unless given.
        max: characters at most; no limit unless given.
    Nulls: have no opinion.

    Raises:
        RuleError: at plan, when no length could be both.

    >>> frame = pl.DataFrame({"name": ["Zoë", "", None]})
    >>> frame.select(length_between(pl.col("name"), min=1, max=3))["name"].to_list()
    [True, False, None]
    """
    if min < 0 or (max is not None and max < min):
        raise RuleError(f"no text has from {min} to {max} characters.", path=("parameters",))
    if max is None and min == 0:
        raise RuleError("length_between needs 'min' or 'max'.", path=("parameters",))
    length = column.str.len_chars()
    return length >= min if max is None else length.is_between(min, max)
