from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from transforms._errors import LockgateError, TransformError
from transforms._plan import Step, fold, reason, split
from transforms._transform import transforms

FRAME = pl.LazyFrame({"n": [3, 1, None, 2], "s": ["a", "b", "c", "d"]})

FILTER = ("filter", {"where": "n > 1"})
WINDOW = ("filter", {"where": "n = max(n) over ()"})
CALCULATE = ("calculate", {"expressions": [{"field": "m", "formula": "n * 10"}]})
RENAME = ("map", {"rename": {"n": "number"}})
SORT = ("sort", {"by": ["n"]})


def steps(*named: tuple[str, Mapping[str, Any]]) -> list[Step]:
    found = []
    for position, (name, parameters) in enumerate(named):
        transform = transforms.get(name)
        found.append(Step(position, name, transform, transform.parameters.model_validate(parameters)))
    return found


def test_steps_are_applied_in_order() -> None:
    planned = fold(FRAME, steps(FILTER, CALCULATE, SORT))
    assert planned.collect().rows() == [(2, "d", 20), (3, "a", 30)]


def test_no_steps_are_the_frame_itself() -> None:
    assert fold(FRAME, []) is FRAME


@pytest.mark.parametrize(
    ("named", "head"),
    [
        ([], 0),
        ([FILTER, CALCULATE], 2),
        ([FILTER, SORT, CALCULATE], 1),
        ([SORT, FILTER], 0),
        ([FILTER, WINDOW, CALCULATE], 1),
    ],
)
def test_the_front_that_runs_batch_by_batch_is_split_off(named: list[Any], head: int) -> None:
    local, rest = split(steps(*named))
    assert (len(local), len(rest)) == (head, len(named) - head)
    assert [each.position for each in (*local, *rest)] == list(range(len(named)))


def test_errors_name_the_step_and_the_parameter() -> None:
    with pytest.raises(LockgateError) as caught:
        fold(FRAME, steps(FILTER, RENAME, CALCULATE))
    assert caught.value.path == ("transformations", 2, "parameters", "expressions", 0, "formula")
    assert str(caught.value) == (
        "transformations[2].parameters.expressions[0].formula: no column 'n' at this step. Present: number, s."
    )


def test_sources_that_are_not_there_are_named() -> None:
    with pytest.raises(LockgateError) as caught:
        fold(FRAME, steps(("join", {"source": "regoins", "on": "n"})))
    assert caught.value.path == ("transformations", 0, "parameters", "source")


def test_what_polars_refuses_is_an_error_of_the_step() -> None:
    def broken(frame: pl.LazyFrame, **_parameters: Any) -> pl.LazyFrame:
        return frame.select(pl.col("n") + pl.col("nope"))

    transform = transforms.get("sort")
    step = Step(3, "mine", type(transform)("mine", broken, transform.parameters, frozenset(), "nothing", bool),
                transform.parameters.model_validate({"by": ["n"]}))  # fmt: skip
    with pytest.raises(TransformError, match="step 'mine' does not fit its input") as caught:
        step.apply(FRAME)
    assert caught.value.path == ("transformations", 3)
    assert isinstance(caught.value.__cause__, pl.exceptions.PolarsError)


@pytest.mark.parametrize(
    ("formula", "wanted"),
    [
        ("1 / (n - 3)", "division by zero in 1 / (n - 3); write nullif((n - 3), 0) to get null instead"),
        ("s::date", "conversion from `str` to `date` failed in column 's' for"),
        ("n::numeric(1, 0) * 1 + (n * 100)::numeric(2, 0)", "a number in 'n' does not fit numeric(2, 0)"),
    ],
)
def test_the_reason_of_a_stop_is_one_line_in_our_words(formula: str, wanted: str) -> None:
    planned = fold(FRAME, steps(("calculate", {"expressions": [{"field": "x", "formula": formula}]})))
    for engine in ("in-memory", "streaming"):
        with pytest.raises(pl.exceptions.PolarsError) as caught:
            planned.collect(engine=engine)  # type: ignore[call-overload]
        assert reason(caught.value).startswith(wanted)
        assert "\n" not in reason(caught.value)


any_step = st.sampled_from([
    FILTER, SORT, CALCULATE, ("filter", {"condition": {"field": "s", "operator": "ne", "value": "b"}}),
    ("deduplicate", {"key": ["n"], "order_by": [{"field": "s"}]}),
    ("map", {"constants": {}, "values": {"s": {"a": "A"}}}),
    ("normalize", {"text": [{"case": "upper"}]}),
])  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(named=st.lists(any_step, max_size=5), rows=st.lists(st.tuples(st.none() | st.integers(-5, 5), st.text("abAB"))))
def test_one_plan_gives_what_step_by_step_gives(named: list[Any], rows: list[Any]) -> None:
    frame = pl.LazyFrame(rows, schema={"n": pl.Int64, "s": pl.String}, orient="row")
    one_by_one = frame.collect()
    for each in steps(*named):
        one_by_one = each.apply(one_by_one.lazy()).collect()
    assert_frame_equal(fold(frame, steps(*named)).collect(), one_by_one)
