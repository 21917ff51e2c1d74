from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms._errors import LockgateError
from transforms.deduplicate import Order, deduplicate

Apply = Callable[..., pl.LazyFrame]

FRAME = pl.LazyFrame(
    {
        "id": [1, 1, 2, None, None, 2],
        "at": [1, 3, 2, 1, 2, None],
        "name": ["old", "new", "only", "x", "y", "unknown"],
    }
)


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [
        ({"key": ["id"]}, ["old", "only", "x"]),
        ({"key": ["id"], "keep": "last"}, ["new", "unknown", "y"]),
        ({"key": ["id"], "order_by": [{"field": "at"}]}, ["old", "only", "x"]),
        ({"key": ["id"], "order_by": [{"field": "at", "descending": True}]}, ["new", "only", "y"]),
        ({"key": ["id"], "order_by": [{"field": "at"}], "keep": "last"}, ["new", "only", "y"]),
        ({"key": ["id"], "order_by": [{"field": "name"}]}, ["new", "only", "x"]),
        ({}, ["new", "old", "only", "unknown", "x", "y"]),
        ({"key": ["at"]}, ["new", "old", "only", "unknown"]),
    ],
)
@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_winners(apply: Apply, engine: Any, parameters: dict[str, Any], wanted: list[str]) -> None:
    found = apply(FRAME, "deduplicate", parameters).collect(engine=engine)
    assert sorted(found["name"].to_list()) == sorted(wanted)
    assert found.columns == ["id", "at", "name"]


def test_whole_rows_without_a_key(apply: Apply) -> None:
    assert apply(pl.concat([FRAME, FRAME]), "deduplicate", {}).collect().equals(FRAME.collect())


def test_columns_that_have_no_order_do_not_decide(apply: Apply) -> None:
    frame = pl.LazyFrame({"id": [1, 1], "tags": [["a"], ["b"]], "more": [{"x": 1}, {"x": 2}], "none": [None, None]})
    parameters = {"key": ["id"], "order_by": [{"field": "id"}]}
    assert apply(frame, "deduplicate", parameters).collect()["tags"].to_list() == [["a"]]


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({"key": ["x"]}, "key[0]"),
        ({"key": ["id"], "order_by": [{"field": "at"}, {"field": "x"}]}, "order_by[1].field"),
    ],
)
def test_what_does_not_fit_is_refused_when_planned(apply: Apply, parameters: dict[str, Any], path: str) -> None:
    with pytest.raises(LockgateError) as caught:
        apply(FRAME, "deduplicate", parameters)
    assert str(caught.value).startswith(f"transformations[0].parameters.{path}: ")


rows = st.lists(st.tuples(st.none() | st.integers(0, 3), st.none() | st.integers(0, 2), st.integers(0, 2)), max_size=12)
schema = {"id": pl.Int64, "at": pl.Int64, "v": pl.Int64}
keeps = st.sampled_from(["first", "last"])


@settings(deadline=None, max_examples=50)
@given(rows=rows, keep=keeps)
def test_twice_is_once(rows: list[Any], keep: Literal["first", "last"]) -> None:
    frame = pl.LazyFrame(rows, schema=schema, orient="row")
    once = deduplicate(frame, key=["id"], order_by=[Order(field="at")], keep=keep)
    twice = deduplicate(once, key=["id"], order_by=[Order(field="at")], keep=keep)
    assert twice.collect().equals(once.collect())


@settings(deadline=None, max_examples=50)
@given(rows=rows, keep=keeps, data=st.data())
def test_the_winner_does_not_depend_on_the_order_of_rows(
    rows: list[Any], keep: Literal["first", "last"], data: st.DataObject
) -> None:
    def winners(rows: list[Any]) -> set[Any]:
        frame = pl.LazyFrame(rows, schema=schema, orient="row")
        return set(deduplicate(frame, key=["id"], order_by=[Order(field="at")], keep=keep).collect().rows())

    assert winners(data.draw(st.permutations(rows))) == winners(rows)
