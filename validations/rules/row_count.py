"""The set must have enough rows, and not too many."""

from __future__ import annotations

import polars as pl

from validations._errors import RuleError
from validations._rule import Claim, set_rule


@set_rule()
def row_count(*, min: int = 0, max: int | None = None) -> Claim:
    """The whole set must have from `min` to `max` rows, both included.

    In: the set of a run, after rows that broke other rules were taken out.

    Args:
        min: rows at least; 0 unless given.
        max: rows at most; no limit unless given.
    Nulls: rows of nothing but nulls count.

    Raises:
        RuleError: at plan, when no set could be both, or there is no limit at all.

    >>> frame = pl.DataFrame({"id": [1, 2, 3]})
    >>> frame.select(row_count(min=5).good, row_count(min=5).observed).row(0)
    (False, '3 rows')
    """
    if min < 0 or (max is not None and max < min):
        raise RuleError(f"no set has from {min} to {max} rows.", path=("parameters",))
    if max is None and min == 0:
        raise RuleError("row_count needs 'min' or 'max'.", path=("parameters",))
    most = 2**63 - 1 if max is None else max
    return Claim(
        good=pl.len().is_between(min, most).alias("good"),
        observed=pl.when(pl.len() == 1)
        .then(pl.lit("1 row"))
        .otherwise(pl.format("{} rows", pl.len()))
        .alias("observed"),
        good_sql=f"count(*) BETWEEN {min} AND {most}",
        observed_sql="CASE count(*) WHEN 1 THEN '1 row' ELSE CAST(count(*) AS text) || ' rows' END",
    )
