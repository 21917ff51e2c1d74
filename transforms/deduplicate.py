"""Keeps one row for each key."""

from __future__ import annotations

from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from transforms._errors import Path, UnknownColumnError
from transforms._transform import transform


class Order(BaseModel):
    """A column that decides which row wins.

    Attributes:
        field: the column.
        descending: the largest value comes first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str
    descending: bool = False


@transform(removes="deduplicated", row_local=False)
def deduplicate(
    frame: pl.LazyFrame,
    *,
    key: list[str] | None = None,
    order_by: list[Order] | None = None,
    keep: Literal["first", "last"] = "first",
) -> pl.LazyFrame:
    """Keep one row for each key, as SQL's ``DISTINCT ON`` does.

    In: the columns of `key` and `order_by`. Row order matters only where there is no `order_by`.
    Out: the same columns. Without `order_by`, rows in the order they came; with it, in that order.

    Args:
        key: columns that tell rows apart; all columns when left out.
        order_by: which row of a key wins: the first in this order. Rows that tie are put in the order of
            their other columns, so the winner depends on the rows alone and not on the order they came in.
        keep: "last" lets the last row win instead.

    Nulls: nulls in a key are equal to each other, as in ``DISTINCT``; in `order_by` they never win against a value.

    Raises:
        UnknownColumnError: a column is not there.

    >>> frame = pl.LazyFrame({"id": [1, 1, 2], "version": [1, 2, 1], "name": ["old", "new", "only"]})
    >>> latest = Order(field="version", descending=True)
    >>> deduplicate(frame, key=["id"], order_by=[latest]).sort("id").collect()["name"].to_list()
    ['new', 'only']
    """
    schema = frame.collect_schema()
    for position, column in enumerate(key or ()):
        _present(column, schema, ("key", position))
    for position, order in enumerate(order_by or ()):
        _present(order.field, schema, ("order_by", position, "field"))
    if not order_by:
        return frame.unique(key or None, keep=keep, maintain_order=True)
    columns = {order.field: order.descending != (keep == "last") for order in order_by}
    ties = {name: keep == "last" for name, dtype in schema.items() if name not in columns and _has_order(dtype)}
    columns |= ties
    ordered = frame.sort(list(columns), descending=list(columns.values()), nulls_last=True, maintain_order=True)
    return ordered.unique(key or None, keep="first", maintain_order=True)


def _present(column: str, schema: pl.Schema, path: Path) -> None:
    if column not in schema:
        raise UnknownColumnError(column, schema, path=path)


def _has_order(dtype: pl.DataType) -> bool:
    return not dtype.is_nested() and not isinstance(dtype, pl.Object | pl.Null)
