"""Summarises the rows of each group in one row."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator

from transforms._errors import FormulaError, ParameterError, Path, UnknownColumnError
from transforms._expressions import condition
from transforms._transform import transform
from transforms._types import shown
from transforms._words import did_you_mean


def _sum(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    # SQL: the sum of no values is null. Polars wraps around silently: whole numbers are added in 128 bits.
    whole = dtype.is_integer()
    total = column.cast(pl.Int128).sum().cast(pl.Int64, strict=True) if whole else column.sum()
    return pl.when(column.count() > 0).then(total)


_NUMERIC: dict[str, Callable[[pl.Expr, pl.DataType], pl.Expr]] = {
    "sum": _sum,
    **dict.fromkeys(("avg", "mean"), lambda column, _: column.mean()),
    "median": lambda column, _: column.median(),
    **dict.fromkeys(("std", "stddev"), lambda column, _: column.std()),
    **dict.fromkeys(("var", "variance"), lambda column, _: column.var()),
}
_ANY_TYPE: dict[str, Callable[[pl.Expr, pl.DataType], pl.Expr]] = {
    "count": lambda column, _: column.count().cast(pl.Int64),
    "count_distinct": lambda column, _: column.drop_nulls().n_unique().cast(pl.Int64),
    "min": lambda column, _: column.min(),
    "max": lambda column, _: column.max(),
    "first": lambda column, _: column.first(),
    "last": lambda column, _: column.last(),
}
_FUNCTIONS = _NUMERIC | _ANY_TYPE


class Aggregation(BaseModel):
    """One output column.

    Attributes:
        field: the column to summarise; "*" counts rows.
        function: avg (or mean), sum, count, count_distinct, min, max, first, last, median, std (or stddev),
            var (or variance).
        alias: the output's name; ``<field>_<function>`` unless given (``count`` for "*").
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str
    function: str
    alias: str | None = Field(default=None, min_length=1)

    @field_validator("function")
    @classmethod
    def _known(cls, function: str) -> str:
        if function not in _FUNCTIONS:
            raise ValueError(f"{function!r} is not an aggregate function.{did_you_mean(function, _FUNCTIONS)}")
        return function

    @property
    def output(self) -> str:
        """The name of the output column."""
        return self.alias or ("count" if self.field == "*" else f"{self.field}_{self.function}")


@transform(removes="aggregated", row_local=False)
def aggregate(
    frame: pl.LazyFrame,
    *,
    aggregations: list[Aggregation],
    group_by: list[str] | None = None,
    having: str | None = None,
) -> pl.LazyFrame:
    """Summarise the rows of each group in one row.

    In: the columns of `group_by` and of the aggregations. Row order matters for first and last.
    Out: the columns of `group_by`, then one for each aggregation; one row for each group, in the order in which
        groups first appear. count and count_distinct are Int64, sums of whole numbers Int64, sums of Decimals
        Decimal, avg, median, std and var Float64; min, max, first and last keep the dtype.

    Args:
        aggregations: fields, functions and names of the outputs.
        group_by: columns whose equal values make a group; none make one group of all rows, even of no rows.
        having: an SQL condition over the outputs; groups for which it is not true are left out.

    Nulls: ignored by all functions but first and last, and counted by count of "*"; the sum of no values is null.
        Rows whose group is null make a group. std and var are those of a sample (n - 1): null for one value.

    Raises:
        UnknownColumnError: a column is not there.
        ParameterError: a function does not fit its column, or two outputs have one name.
        FormulaError: `having` is not understood.
        polars.exceptions.PolarsError: at run, when a sum of whole numbers does not fit 64 bits.

    >>> frame = pl.LazyFrame({"city": ["Rome", "Rome", "Oslo"], "amount": [1, 2, None]})
    >>> total = Aggregation(field="amount", function="sum")
    >>> aggregate(frame, group_by=["city"], aggregations=[total]).collect().rows()
    [('Rome', 3), ('Oslo', None)]
    """
    schema = frame.collect_schema()
    keys = group_by or []
    for position, key in enumerate(keys):
        if key not in schema:
            raise UnknownColumnError(key, schema, path=("group_by", position))
    if not aggregations:
        raise ParameterError(
            "there is nothing to aggregate. For distinct rows there is deduplicate.", path=("aggregations",)
        )
    outputs = [_output(each, schema, ("aggregations", position)) for position, each in enumerate(aggregations)]
    _refuse_twins(keys, aggregations)
    summary = frame.group_by(keys, maintain_order=True).agg(outputs) if keys else frame.select(outputs)
    return summary if having is None else _having(summary, having)


def _output(aggregation: Aggregation, schema: pl.Schema, path: Path) -> pl.Expr:
    field, function = aggregation.field, aggregation.function
    if field == "*":
        if function != "count":
            raise ParameterError(f"'*' can only be counted, not {function!r}.", path=(*path, "function"))
        return pl.len().cast(pl.Int64).alias(aggregation.output)
    if field not in schema:
        raise UnknownColumnError(field, schema, path=(*path, "field"))
    dtype = schema[field]
    if function in _NUMERIC and not dtype.is_numeric():
        raise ParameterError(f"{function!r} needs numbers, and {field!r} is {shown(dtype)}.", path=(*path, "function"))
    return _FUNCTIONS[function](pl.col(field), dtype).alias(aggregation.output)


def _refuse_twins(keys: list[str], aggregations: list[Aggregation]) -> None:
    taken = set(keys)
    for position, each in enumerate(aggregations):
        if each.output in taken:
            raise ParameterError(
                f"two outputs are called {each.output!r}. Give one an alias.", path=("aggregations", position)
            )
        taken.add(each.output)


def _having(summary: pl.LazyFrame, having: str) -> pl.LazyFrame:
    try:
        return summary.filter(condition(having, summary.collect_schema()))
    except (FormulaError, UnknownColumnError) as error:
        raise error.under("having") from error.__cause__
