"""Puts rows in order."""

from __future__ import annotations

import polars as pl
from pydantic import BaseModel, ConfigDict

from transforms._errors import ParameterError, UnknownColumnError
from transforms._transform import transform


class Order(BaseModel):
    """A column to order by.

    Attributes:
        field: the column.
        descending: the largest first.
        nulls_last: nulls after all values; else before them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str
    descending: bool = False
    nulls_last: bool = True


@transform(row_local=False)
def sort(frame: pl.LazyFrame, *, by: list[str | Order]) -> pl.LazyFrame:
    """Put rows in order.

    In: the columns to order by.
    Out: the same columns and rows; rows that tie keep their order.

    Args:
        by: columns, the most important first; a name alone means ascending.

    Nulls: last, unless `nulls_last` is false.

    Raises:
        UnknownColumnError: a column is not there.
        ParameterError: there is nothing to order by.

    >>> frame = pl.LazyFrame({"name": ["b", "a", None], "age": [1, 1, 2]})
    >>> sort(frame, by=[Order(field="age", descending=True), "name"]).collect()["name"].to_list()
    [None, 'a', 'b']
    """
    if not by:
        raise ParameterError("there is nothing to sort by. Name a column.", path=("by",))
    schema = frame.collect_schema()
    orders = [Order(field=each) if isinstance(each, str) else each for each in by]
    for position, order in enumerate(orders):
        if order.field not in schema:
            path = ("by", position) if isinstance(by[position], str) else ("by", position, "field")
            raise UnknownColumnError(order.field, schema, path=path)
    return frame.sort(
        [order.field for order in orders],
        descending=[order.descending for order in orders],
        nulls_last=[order.nulls_last for order in orders],
        maintain_order=True,
    )
