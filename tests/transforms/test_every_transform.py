"""What every transform keeps to, whoever wrote it: walks the live registry."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.io.plugins import register_io_source
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from transforms._plan import Step
from transforms._transform import transforms

Apply = Callable[..., pl.LazyFrame]
Example = dict[str, Any]

SCHEMA = pl.Schema(
    {
        "id": pl.Int64,
        "n": pl.Int64,
        "f": pl.Float64,
        "s": pl.String,
        "d": pl.Date,
        "t": pl.Datetime("us"),
        "z": pl.Datetime("us", "UTC"),
        "p": pl.Boolean,
        "st": pl.Struct({"x": pl.Int64, "y": pl.String}),
    }
)
ROWS: list[tuple[Any, ...]] = [
    (
        number,
        None if number % 5 == 0 else number % 3,
        None if number % 7 == 0 else number / 4,
        [" Ab ", "b", "", None][number % 4],
        date(2024, 1, 1 + number % 28),
        datetime(2024, 1, 1 + number % 28, number % 24, tzinfo=UTC).replace(tzinfo=None),
        datetime(2024, 1, 1 + number % 28, tzinfo=UTC),
        [True, False, None][number % 3],
        {"x": number, "y": "v"} if number % 2 else None,
    )
    for number in range(40)
]
FRAME = pl.LazyFrame(ROWS, schema=SCHEMA, orient="row")
OTHER = pl.LazyFrame({"id": [1, 2, 3, 99, None], "label": ["a", "b", "c", "d", "e"]})

NOT_TRUE: Example = {"not": {"field": "p", "operator": "eq", "value": True}}
EXAMPLES: dict[str, list[Example]] = {
    "aggregate": [
        {"group_by": ["s"], "aggregations": [{"field": "n", "function": "sum"}, {"field": "*", "function": "count"}]},
        {"aggregations": [{"field": "f", "function": "avg"}, {"field": "n", "function": "count_distinct"}]},
        {"group_by": ["n"], "aggregations": [{"field": "f", "function": "max"}], "having": "f_max > 3"},
    ],
    "calculate": [
        {"expressions": [{"field": "x", "formula": "n * 2 + coalesce(f, 0)"}, {"field": "y", "formula": "x > 3"}]},
        {"expressions": [{"field": "x", "formula": "case when n <> 0 then id / n end"}]},
        {"expressions": [{"field": "x", "formula": "d - date '2024-01-01'"}, {"field": "s", "formula": "trim(s)"}]},
        {"expressions": [{"field": "x", "formula": "sum(n) over (partition by s)"}]},
    ],
    "deduplicate": [{"key": ["n"]}, {"key": ["n"], "order_by": [{"field": "t", "descending": True}]}],
    "filter": [
        {"condition": {"field": "n", "operator": "gt", "value": 0}},
        {"condition": {"any": [{"field": "s", "operator": "contains", "value": "b"}, NOT_TRUE]}},
        {"where": "d > '2024-01-10' and f < 8 or s is null"},
        {"where": "row_number() over (partition by n order by t desc, id) = 1"},
    ],
    "join": [
        {"source": "other", "on": "id", "how": "left", "validate": "m:1"},
        {"source": "other", "left_on": ["n"], "right_on": ["id"], "how": "inner"},
        {"source": "other", "on": "id", "how": "anti"},
    ],
    "map": [
        {"select": ["id", "s", "n"], "rename": {"s": "text"}, "cast": {"n": "Int16", "id": "text"}},
        {"values": {"s": {"b": "B"}}, "constants": {"origin": "test"}, "drop": ["st"]},
    ],
    "normalize": [
        {"flatten": True, "names": "snake_case", "text": [{"trim": True, "case": "lower"}]},
        {"timestamps": [{"field": "t", "time_zone": "Asia/Tokyo"}, {"field": "z"}]},
        {"numbers": [{"field": "f", "method": "z_score"}, {"field": "n", "method": "robust"}]},
    ],
    "sort": [{"by": ["n", {"field": "t", "descending": True}]}],
}  # fmt: skip
CASES = [pytest.param(name, example, id=f"{name}-{n}") for name in EXAMPLES for n, example in enumerate(EXAMPLES[name])]


def step(name: str, example: Example) -> Step:
    transform = transforms.get(name)
    return Step(0, name, transform, transform.parameters.model_validate(example))


def plan(name: str, example: Example, frame: pl.LazyFrame = FRAME) -> pl.LazyFrame:
    return step(name, example).apply(frame, {"other": OTHER})


ROW_LOCAL = [case for case in CASES if step(*case.values).row_local]
KEEPING = [case for case in CASES if transforms.get(case.values[0]).removes == "nothing"]


def test_every_transform_has_examples_here() -> None:
    assert sorted(EXAMPLES) == transforms.names()


@pytest.mark.parametrize(("name", "example"), CASES)
def test_lazy_in_lazy_out_and_nothing_read_while_planning(name: str, example: Example) -> None:
    reads = 0

    def read(*_pushed: Any) -> Iterator[pl.DataFrame]:
        nonlocal reads
        reads += 1
        yield FRAME.collect()

    planned = plan(name, example, register_io_source(read, schema=SCHEMA))
    assert isinstance(planned, pl.LazyFrame)
    planned.collect_schema()
    assert reads == 0


@pytest.mark.parametrize(("name", "example"), CASES)
def test_the_input_stays_as_it_was(name: str, example: Example) -> None:
    frame = pl.LazyFrame(ROWS, schema=SCHEMA, orient="row")
    before = frame.explain()
    plan(name, example, frame).collect()
    assert frame.explain() == before
    assert_frame_equal(frame.collect(), FRAME.collect())


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
@pytest.mark.parametrize(("name", "example"), CASES)
def test_the_planned_schema_is_the_schema(name: str, example: Example, engine: Any) -> None:
    planned = plan(name, example)
    assert planned.collect(engine=engine).schema == planned.collect_schema()


@pytest.mark.parametrize(("name", "example"), CASES)
def test_both_engines_agree(name: str, example: Example) -> None:
    planned = plan(name, example)
    memory, streamed = planned.collect(engine="in-memory"), planned.collect(engine="streaming")
    assert_frame_equal(memory, streamed, check_row_order=step(name, example).row_local)


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(FRAME.head(0), id="empty"),
        pytest.param(pl.LazyFrame([(None,) * len(SCHEMA)] * 3, schema=SCHEMA, orient="row"), id="nulls"),
        pytest.param(FRAME.head(1), id="one"),
    ],
)
@pytest.mark.parametrize(("name", "example"), CASES)
def test_no_rows_and_no_values_survive(name: str, example: Example, frame: pl.LazyFrame, engine: Any) -> None:
    planned = plan(name, example, frame)
    assert planned.collect(engine=engine).schema == plan(name, example).collect_schema()


@pytest.mark.parametrize(("name", "example"), CASES)
def test_unknown_parameters_are_refused(name: str, example: Example) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        step(name, example | {"no_such_parameter": 1})


@pytest.mark.parametrize(("name", "example"), ROW_LOCAL)
@settings(deadline=None, max_examples=20)
@given(cuts=st.sets(st.integers(1, 39), max_size=6))
def test_row_local_steps_give_the_same_batch_by_batch(name: str, example: Example, cuts: set[int]) -> None:
    edges = [0, *sorted(cuts), 40]
    parts = [plan(name, example, FRAME.slice(start, stop - start)).collect() for start, stop in pairwise(edges)]
    assert_frame_equal(pl.concat(parts), plan(name, example).collect())


@pytest.mark.parametrize("name", transforms.names())
def test_some_example_of_each_is_row_local_or_none_can_be(name: str) -> None:
    whole_set = {"aggregate", "deduplicate", "join", "sort"}
    assert any(step(name, example).row_local for example in EXAMPLES[name]) == (name not in whole_set)


@pytest.mark.parametrize(("name", "example"), KEEPING)
def test_only_steps_that_say_so_take_rows_away(name: str, example: Example) -> None:
    assert plan(name, example).collect().height == len(ROWS)


@pytest.mark.parametrize("name", transforms.names())
def test_the_docstring_says_what_it_must(name: str) -> None:
    function = transforms.get(name).function
    text = inspect.getdoc(function) or ""
    assert text.split("\n")[0].endswith(".")
    for section in ("In: ", "Out: ", "Args:", "Nulls: ", "Raises:", ">>> "):
        assert f"\n{section}" in text, section
    for argument in transforms.get(name).parameters.model_fields:
        assert f"    {argument}: " in text, argument


@pytest.mark.parametrize("name", [*transforms.names(), "_expressions", "_words"])
def test_the_documented_example_runs(name: str) -> None:
    module = importlib.import_module(f"transforms.{name}")
    assert doctest.testmod(module).failed == 0
    if not name.startswith("_"):
        assert doctest.testmod(module).attempted > 0


@pytest.mark.parametrize("name", transforms.names())
def test_no_transform_imports_another(name: str) -> None:
    tree = ast.parse(inspect.getsource(importlib.import_module(f"transforms.{name}")))
    imported = {each.module for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)}
    assert not {f"transforms.{other}" for other in transforms.names()} & imported


@pytest.mark.parametrize("name", transforms.names())
def test_the_parameters_have_a_json_schema(name: str) -> None:
    schema = transforms.get(name).parameters.model_json_schema()
    assert set(schema["properties"]) == set(transforms.get(name).parameters.model_fields)
    assert schema["additionalProperties"] is False
