from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from transforms._errors import LockgateError
from transforms._plan import reason

Apply = Callable[..., pl.LazyFrame]

LEFT = pl.LazyFrame({"id": [1, 2, 3, None], "v": ["a", "b", "c", "d"]})
RIGHT = pl.LazyFrame({"id": [1, 1, 4, None], "v": ["p", "q", "r", "s"], "w": [10, 20, 30, 40]})
ONCE = RIGHT.filter(pl.col("v") != "q")


def rows(planned: pl.LazyFrame) -> list[Any]:
    return sorted(planned.collect(engine="streaming").rows(), key=str)


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("inner", [(1, "a", "p", 10), (1, "a", "q", 20)]),
        (
            "left",
            [(1, "a", "p", 10), (1, "a", "q", 20), (2, "b", None, None), (3, "c", None, None), (None, "d", None, None)],
        ),
        ("semi", [(1, "a")]),
        ("anti", [(2, "b"), (3, "c"), (None, "d")]),
    ],
)
def test_kinds_of_join(apply: Apply, how: str, wanted: list[Any]) -> None:
    planned = apply(LEFT, "join", {"source": "other", "on": "id", "how": how}, other=RIGHT)
    assert rows(planned) == sorted(wanted, key=str)


def test_right_and_full_keep_the_keys_of_both(apply: Apply) -> None:
    right = apply(LEFT, "join", {"source": "other", "on": "id", "how": "right"}, other=ONCE)
    assert sorted(right.collect().select("id", "v", "v_right").rows(), key=str) == [
        (1, "a", "p"), (4, None, "r"), (None, None, "s"),
    ]  # fmt: skip
    full = apply(LEFT, "join", {"source": "other", "on": "id", "how": "full"}, other=ONCE)
    assert full.collect_schema().names() == ["id", "v", "v_right", "w"]
    assert full.collect().height == 6


def test_cross_is_all_pairs(apply: Apply) -> None:
    assert apply(LEFT, "join", {"source": "other", "how": "cross"}, other=RIGHT).collect().height == 16


def test_columns_and_suffix(apply: Apply) -> None:
    parameters = {"source": "other", "on": ["id"], "columns": ["v"], "suffix": "_other", "how": "left"}
    assert apply(LEFT, "join", parameters, other=RIGHT).collect_schema().names() == ["id", "v", "v_other"]


def test_keys_of_other_names(apply: Apply) -> None:
    parameters = {"source": "other", "left_on": "id", "right_on": "key", "columns": ["w"]}
    planned = apply(LEFT, "join", parameters, other=RIGHT.rename({"id": "key"}))
    assert rows(planned) == [(1, "a", 10), (1, "a", 20)]


@pytest.mark.parametrize(
    ("left", "right", "validate", "good"),
    [
        (LEFT, RIGHT, "m:1", False),
        (LEFT, RIGHT, "1:1", False),
        (LEFT, RIGHT, "1:m", True),
        (LEFT, ONCE, "m:1", True),
        (LEFT, ONCE, "1:1", True),
        (pl.concat([LEFT, LEFT]), ONCE, "1:m", False),
        (pl.concat([LEFT, LEFT]), ONCE, "m:1", True),
        (LEFT, pl.concat([RIGHT.filter(pl.col("id").is_null())] * 3), "m:1", True),
    ],
)
@pytest.mark.parametrize("how", ["inner", "left", "full", "semi"])
def test_validate(apply: Apply, how: str, left: pl.LazyFrame, right: pl.LazyFrame, validate: str, good: bool) -> None:
    planned = apply(left, "join", {"source": "other", "on": "id", "how": how, "validate": validate}, other=right)
    if good:
        planned.collect(engine="streaming")
        return
    with pytest.raises(pl.exceptions.PolarsError) as caught:
        planned.collect(engine="streaming")
    assert reason(caught.value).endswith("a key more than once: id")


@pytest.mark.parametrize(("most", "good"), [(1, False), (2, True)])
def test_fan_out_is_limited(apply: Apply, most: int, good: bool) -> None:
    planned = apply(LEFT, "join", {"source": "other", "on": "id", "max_fan_out": most}, other=RIGHT)
    if good:
        assert planned.collect().height == 2
    else:
        with pytest.raises(pl.exceptions.PolarsError):
            planned.collect()


def test_checks_stay_in_the_streaming_engine(apply: Apply) -> None:
    parameters = {"source": "other", "on": "id", "how": "left", "validate": "1:1"}
    planned = apply(LEFT, "join", parameters, other=RIGHT)
    physical = planned.show_graph(plan_stage="physical", engine="streaming", raw_output=True, show=False)
    assert "equi-join" in str(physical)
    assert "in-memory-join" not in str(physical)


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({"source": "othre", "on": "id"}, "source"),
        ({"source": "other", "on": "x"}, "on[0]"),
        ({"source": "other", "left_on": "id", "right_on": "x"}, "right_on[0]"),
        ({"source": "other", "left_on": ["id", "x"], "right_on": ["id", "w"]}, "left_on[1]"),
        ({"source": "other", "left_on": "v", "right_on": "w"}, "left_on[0]"),
        ({"source": "other", "left_on": ["id"], "right_on": ["id", "w"]}, ""),
        ({"source": "other", "left_on": "id"}, ""),
        ({"source": "other"}, ""),
        ({"source": "other", "on": []}, ""),
        ({"source": "other", "on": "id", "left_on": "id", "right_on": "id"}, ""),
        ({"source": "other", "on": "id", "how": "cross"}, ""),
        ({"source": "other", "how": "cross", "validate": "m:1"}, ""),
        ({"source": "other", "on": "id", "columns": ["w", "x"]}, "columns[1]"),
        ({"source": "other", "on": "id", "how": "semi", "columns": ["w"]}, "columns"),
    ],
)
def test_what_does_not_fit_is_refused_when_planned(apply: Apply, parameters: dict[str, Any], path: str) -> None:
    with pytest.raises(LockgateError) as caught:
        apply(LEFT, "join", parameters, other=RIGHT)
    assert str(caught.value).startswith(f"transformations[0].parameters{'.' * bool(path)}{path}: ")


def test_names_that_collide_all_the_same_are_refused_when_planned(apply: Apply) -> None:
    with pytest.raises(LockgateError, match="does not fit its input"):
        apply(LEFT.with_columns(v_right=1), "join", {"source": "other", "on": "id"}, other=RIGHT)
