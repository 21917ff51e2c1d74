from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from transforms._errors import LockgateError
from transforms._transform import transforms
from transforms.filter import Condition

Apply = Callable[..., pl.LazyFrame]
keep = transforms.get("filter").function

FRAME = pl.LazyFrame(
    {
        "n": [1, 2, 3, None],
        "f": [0.5, 1.0, float("nan"), None],
        "m": [Decimal("1.50"), Decimal("2.00"), Decimal("3.25"), None],
        "s": ["active", "inactive", "a%b", None],
        "d": [date(2024, 1, 1), date(2024, 2, 1), date(2024, 3, 1), None],
        "t": [datetime(2024, 1, 1), datetime(2024, 1, 1, 12), datetime(2024, 1, 2), None],
        "z": [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3)] + [None],
        "c": ["low", "high", "low", None],
        "p": [True, False, True, None],
        "o": [time(8), time(9), time(10), None],
    },
    schema_overrides={"m": pl.Decimal(6, 2), "c": pl.Enum(["low", "high"])},
)


def kept(parameters: dict[str, Any], apply: Apply) -> list[Any]:
    return apply(FRAME, "filter", parameters).select("n").collect()["n"].to_list()


@pytest.mark.parametrize(
    ("field", "operator", "value", "wanted"),
    [
        ("n", "eq", 2, [2]),
        ("n", "eq", "2", [2]),
        ("n", "eq", 2.0, [2]),
        ("n", "ne", 2, [1, 3]),
        ("n", "gt", 1, [2, 3]),
        ("n", "gte", 2, [2, 3]),
        ("n", "lt", 2, [1]),
        ("n", "lte", 2, [1, 2]),
        ("n", "in", [1, 3], [1, 3]),
        ("n", "not_in", [1, 3], [2]),
        ("n", "between", [2, 3], [2, 3]),
        ("n", "is_null", None, [None]),
        ("n", "not_null", None, [1, 2, 3]),
        ("f", "lt", 1, [1]),
        ("f", "gte", "1.0", [2, 3]),
        ("m", "eq", "1.5", [1]),
        ("m", "eq", 1.5, [1]),
        ("m", "gt", 1.505, [2, 3]),
        ("m", "in", [1.5, "3.25"], [1, 3]),
        ("s", "eq", "active", [1]),
        ("s", "contains", "active", [1, 2]),
        ("s", "contains", "%", [3]),
        ("s", "starts_with", "a", [1, 3]),
        ("s", "ends_with", "e", [1, 2]),
        ("s", "matches", "^a.*[eb]$", [1, 3]),
        ("s", "matches", r"\mactive", [1]),
        ("d", "gte", "2024-02-01", [2, 3]),
        ("d", "eq", date(2024, 1, 1), [1]),
        ("d", "between", ["2024-01-15", "2024-02-15"], [2]),
        ("t", "gt", "2024-01-01", [2, 3]),
        ("t", "gt", "2024-01-01 12:00:00", [3]),
        ("z", "gt", "2024-01-01T12:00:00", [2, 3]),
        ("z", "eq", "2024-01-02T02:00:00+02:00", [2]),
        ("c", "eq", "low", [1, 3]),
        ("c", "in", ["high"], [2]),
        ("c", "starts_with", "l", [1, 3]),
        ("p", "eq", True, [1, 3]),
        ("p", "eq", "false", [2]),
        ("o", "lt", "09:00", [1]),
    ],
)
def test_operators(apply: Apply, field: str, operator: str, value: Any, wanted: list[int]) -> None:
    condition = {"field": field, "operator": operator} | ({} if value is None else {"value": value})
    assert kept({"condition": condition}, apply) == wanted


@pytest.mark.parametrize("operator", ["eq", "ne", "gt", "gte", "lt", "lte", "in", "not_in", "between"])
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_moments_of_other_zones_and_units_compare_as_instants(apply: Apply, operator: str, unit: Any) -> None:
    value: Any = "2024-01-02T00:00:00Z"
    value = [value] if operator.endswith("in") else [value, value] if operator == "between" else value
    condition = {"condition": {"field": "z", "operator": operator, "value": value}}
    there = FRAME.with_columns(pl.col("z").dt.convert_time_zone("Asia/Tokyo").dt.cast_time_unit(unit))
    assert apply(there, "filter", condition).collect()["n"].to_list() == kept(condition, apply)


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ({"all": [{"field": "n", "operator": "gt", "value": 1}, {"field": "p", "operator": "eq", "value": True}]}, [3]),
        ({"any": [{"field": "n", "operator": "eq", "value": 1}, {"field": "s", "operator": "is_null"}]}, [1, None]),
        ({"not": {"field": "n", "operator": "eq", "value": 1}}, [2, 3]),
        ({"not": {"any": [{"field": "n", "operator": "in", "value": [1, 2]}]}}, [3]),
    ],
)
def test_conditions_nest(apply: Apply, condition: dict[str, Any], wanted: list[int]) -> None:
    assert kept({"condition": condition}, apply) == wanted


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("n > 1 and p", [3]),
        ("not (n = 1)", [2, 3]),
        ("s like 'a%'", [1, 3]),
        ("null", []),
        ("n = max(n) over ()", [3]),
    ],
)
def test_where(apply: Apply, where: str, wanted: list[int]) -> None:
    assert kept({"where": where}, apply) == wanted


@pytest.mark.parametrize(
    ("field", "operator", "value", "wanted"),
    [
        ("n", "eq", 2, pl.col("n") == pl.lit(2, dtype=pl.Int64)),
        ("s", "eq", "x", pl.col("s") == pl.lit("x")),
        ("d", "gt", "2024-01-01", pl.col("d") > pl.lit(date(2024, 1, 1))),
        ("s", "in", ["x"], pl.col("s").is_in(["x"])),
        ("n", "is_null", None, pl.col("n").is_null()),
    ],
)
def test_conditions_are_simple_enough_to_push_down(field: str, operator: str, value: Any, wanted: pl.Expr) -> None:
    planned = keep(FRAME, condition=Condition(field=field, operator=operator, value=value))
    assert planned.explain(optimized=False) == FRAME.filter(wanted).explain(optimized=False)


@pytest.mark.parametrize(
    "condition",
    [
        {},
        {"field": "n"},
        {"operator": "eq", "value": 1},
        {"field": "n", "operator": "eq"},
        {"field": "n", "operator": "eq", "value": [1]},
        {"field": "n", "operator": "in", "value": 1},
        {"field": "n", "operator": "in", "value": []},
        {"field": "n", "operator": "in", "value": [1, None]},
        {"field": "n", "operator": "between", "value": [1]},
        {"field": "n", "operator": "is_null", "value": 1},
        {"field": "n", "operator": "eq", "value": 1, "not": {"field": "n", "operator": "is_null"}},
        {"all": [], "any": []},
        {"all": []},
        {"all": [{"field": "n", "operator": "is_null"}], "operator": "eq"},
        {"field": "n", "operator": "eq", "valeu": 1},
    ],
)
def test_malformed_conditions_are_refused_when_parsed(condition: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        transforms.get("filter").parameters.model_validate({"condition": condition})


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({"condition": {"field": "x", "operator": "is_null"}}, "condition.field"),
        ({"condition": {"all": [{"field": "x", "operator": "is_null"}]}}, "condition.all[0].field"),
        ({"condition": {"not": {"field": "n", "operator": "eq", "value": "x"}}}, "condition.not.value"),
        ({"condition": {"field": "n", "operator": "contains", "value": "x"}}, "condition.operator"),
        ({"condition": {"field": "s", "operator": "contains", "value": 5}}, "condition.value"),
        ({"condition": {"field": "s", "operator": "matches", "value": "("}}, "condition.value"),
        ({"condition": {"field": "s", "operator": "eq", "value": 5}}, "condition.value"),
        ({"condition": {"field": "n", "operator": "eq", "value": 2**63}}, "condition.value"),
        ({"condition": {"field": "n", "operator": "eq", "value": 1.5}}, "condition.value"),
        ({"condition": {"field": "c", "operator": "eq", "value": "lo"}}, "condition.value"),
        ({"condition": {"field": "t", "operator": "eq", "value": "2024-01-01T00:00Z"}}, "condition.value"),
        ({"where": "x > 1"}, "where"),
        ({"where": "n + 1"}, "where"),
        ({}, ""),
        ({"where": "true", "condition": {"field": "n", "operator": "is_null"}}, ""),
    ],
)
def test_what_does_not_fit_is_refused_when_planned(apply: Apply, parameters: dict[str, Any], path: str) -> None:
    with pytest.raises(LockgateError) as caught:
        apply(FRAME, "filter", parameters)
    assert str(caught.value).startswith(f"transformations[0].parameters{'.' * bool(path)}{path}: ")


def test_only_windows_need_the_whole_set() -> None:
    step = transforms.get("filter")
    assert step.row_local(step.parameters.model_validate({"where": "n > 1"}))
    assert not step.row_local(step.parameters.model_validate({"where": "n > avg(n) over ()"}))


numbers = st.lists(st.none() | st.integers(-3, 3), max_size=20)
operators = st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"])


@settings(deadline=None, max_examples=50)
@given(values=numbers, operator=operators, value=st.integers(-3, 3))
def test_a_filter_its_opposite_and_nulls_are_all_rows(values: list[int | None], operator: str, value: int) -> None:
    frame = pl.LazyFrame({"n": values}, schema={"n": pl.Int64})
    condition = Condition(field="n", operator=operator, value=value)
    yes = keep(frame, condition=condition).collect()["n"].to_list()
    no = keep(frame, condition=Condition(not_=condition)).collect()["n"].to_list()
    assert sorted(yes + no) == sorted(each for each in values if each is not None)


@settings(deadline=None, max_examples=50)
@given(values=numbers, operator=operators, value=st.integers(-3, 3))
def test_conditions_and_sql_agree(values: list[int | None], operator: str, value: int) -> None:
    frame = pl.LazyFrame({"n": values}, schema={"n": pl.Int64})
    sign = {"eq": "=", "ne": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}[operator]
    structured = keep(frame, condition=Condition(field="n", operator=operator, value=value))
    assert structured.collect().equals(keep(frame, where=f"n {sign} {value}").collect())
