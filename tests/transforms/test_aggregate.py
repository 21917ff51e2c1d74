from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from transforms._errors import LockgateError
from transforms._transform import transforms
from transforms.aggregate import Aggregation, aggregate

Apply = Callable[..., pl.LazyFrame]

FRAME = pl.LazyFrame(
    {
        "g": ["a", "b", "a", None, "b", None],
        "n": [1, None, 3, 5, None, 5],
        "f": [0.5, None, 1.5, 2.0, None, 4.0],
        "m": [Decimal("1.10"), None, Decimal("2.20"), None, None, Decimal("0.05")],
        "d": [date(2024, 1, 1), None, date(2024, 1, 3), None, date(2024, 1, 2), None],
        "s": ["x", "y", "z", "x", "y", "x"],
    },
    schema_overrides={"m": pl.Decimal(8, 2)},
)


@pytest.mark.parametrize(
    ("field", "function", "wanted", "dtype"),
    [
        ("n", "count", [2, 0, 2], pl.Int64),
        ("*", "count", [2, 2, 2], pl.Int64),
        ("n", "count_distinct", [2, 0, 1], pl.Int64),
        ("n", "sum", [4, None, 10], pl.Int64),
        ("f", "sum", [2.0, None, 6.0], pl.Float64),
        ("m", "sum", [Decimal("3.30"), None, Decimal("0.05")], pl.Decimal),
        ("n", "avg", [2.0, None, 5.0], pl.Float64),
        ("n", "mean", [2.0, None, 5.0], pl.Float64),
        ("f", "median", [1.0, None, 3.0], pl.Float64),
        ("n", "min", [1, None, 5], pl.Int64),
        ("d", "max", [date(2024, 1, 3), date(2024, 1, 2), None], pl.Date),
        ("s", "min", ["x", "y", "x"], pl.String),
        ("n", "first", [1, None, 5], pl.Int64),
        ("s", "last", ["z", "y", "x"], pl.String),
        ("n", "std", [2**0.5, None, 0.0], pl.Float64),
        ("n", "var", [2.0, None, 0.0], pl.Float64),
    ],
)
@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_functions(apply: Apply, engine: Any, field: str, function: str, wanted: list[Any], dtype: pl.DataType) -> None:
    parameters = {"group_by": ["g"], "aggregations": [{"field": field, "function": function}]}
    found = apply(FRAME, "aggregate", parameters).collect(engine=engine)
    assert found.columns == ["g", "count" if field == "*" else f"{field}_{function}"]
    assert found["g"].to_list() == ["a", "b", None]
    assert found.to_series(1).dtype == dtype
    assert found.to_series(1).to_list() == [pytest.approx(w) if isinstance(w, float) else w for w in wanted]


def test_no_group_is_one_row_even_of_no_rows(apply: Apply) -> None:
    parameters = {"aggregations": [{"field": "*", "function": "count"}, {"field": "n", "function": "sum"}]}
    assert apply(FRAME, "aggregate", parameters).collect().rows() == [(6, 14)]
    assert apply(FRAME.head(0), "aggregate", parameters).collect().rows() == [(0, None)]


def test_groups_of_no_rows_are_no_rows(apply: Apply) -> None:
    parameters = {"group_by": ["g"], "aggregations": [{"field": "n", "function": "sum"}]}
    assert apply(FRAME.head(0), "aggregate", parameters).collect().height == 0


def test_having_sees_the_outputs(apply: Apply) -> None:
    parameters = {
        "group_by": ["g"],
        "aggregations": [{"field": "n", "function": "sum", "alias": "total"}],
        "having": "total > 5",
    }
    assert apply(FRAME, "aggregate", parameters).collect().rows() == [(None, 10)]


@pytest.mark.parametrize("dtype", [pl.Int8, pl.Int32, pl.UInt8, pl.Int64])
def test_sums_of_whole_numbers_do_not_wrap_around(apply: Apply, dtype: Any) -> None:
    frame = pl.LazyFrame({"n": [100] * 100}, schema={"n": dtype})
    parameters = {"aggregations": [{"field": "n", "function": "sum"}]}
    assert apply(frame, "aggregate", parameters).collect().item() == 10_000
    too_big = pl.LazyFrame({"n": [2**62, 2**62]})
    with pytest.raises(pl.exceptions.InvalidOperationError):
        apply(too_big, "aggregate", parameters).collect()


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({"group_by": ["x"], "aggregations": [{"field": "n", "function": "sum"}]}, "group_by[0]"),
        ({"aggregations": [{"field": "x", "function": "sum"}]}, "aggregations[0].field"),
        ({"aggregations": [{"field": "s", "function": "sum"}]}, "aggregations[0].function"),
        ({"aggregations": [{"field": "*", "function": "sum"}]}, "aggregations[0].function"),
        ({"aggregations": []}, "aggregations"),
        ({"aggregations": [{"field": "n", "function": "sum"}] * 2}, "aggregations[1]"),
        ({"group_by": ["g"], "aggregations": [{"field": "n", "function": "sum", "alias": "g"}]}, "aggregations[0]"),
        ({"aggregations": [{"field": "n", "function": "sum"}], "having": "n > 1"}, "having"),
        ({"aggregations": [{"field": "n", "function": "sum"}], "having": "n_sum"}, "having"),
    ],
)
def test_what_does_not_fit_is_refused_when_planned(apply: Apply, parameters: dict[str, Any], path: str) -> None:
    with pytest.raises(LockgateError) as caught:
        apply(FRAME, "aggregate", parameters)
    assert str(caught.value).startswith(f"transformations[0].parameters.{path}: ")


def test_unknown_functions_are_refused_when_parsed() -> None:
    with pytest.raises(ValidationError, match=r"'summe' is not an aggregate function\. Did you mean 'sum'"):
        transforms.get("aggregate").parameters.model_validate({"aggregations": [{"field": "n", "function": "summe"}]})


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(-100, 100)), max_size=30))
def test_sums_of_sums_are_the_sum(rows: list[tuple[int, int | None]]) -> None:
    frame = pl.LazyFrame(rows, schema={"g": pl.Int64, "n": pl.Int64}, orient="row")
    whole = aggregate(frame, aggregations=[Aggregation(field="n", function="sum")])
    parts = aggregate(frame, group_by=["g"], aggregations=[Aggregation(field="n", function="sum", alias="n")])
    assert aggregate(parts, aggregations=[Aggregation(field="n", function="sum")]).collect().equals(whole.collect())
