from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from transforms._errors import LockgateError
from transforms._expressions import clock
from transforms._transform import transforms

Apply = Callable[..., pl.LazyFrame]

FRAME = pl.LazyFrame({"a": [1, 2], "b": [10, None], "d": [date(2024, 1, 1), date(2024, 2, 1)]})


def expressions(**formulas: str) -> dict[str, Any]:
    return {"expressions": [{"field": field, "formula": formula} for field, formula in formulas.items()]}


def test_later_formulas_see_earlier_columns(apply: Apply) -> None:
    planned = apply(FRAME, "calculate", expressions(c="a + 1", e="c * 2", a="a * 100", g="a + 0"))
    assert planned.select("a", "c", "e", "g").collect().rows() == [(100, 2, 4, 100), (200, 3, 6, 200)]


def test_new_columns_come_last_and_replaced_ones_stay_in_place(apply: Apply) -> None:
    assert apply(FRAME, "calculate", expressions(z="1", a="b")).collect_schema().names() == ["a", "b", "d", "z"]


def test_the_example_of_the_guide(apply: Apply) -> None:
    frame = FRAME.rename({"d": "created_at"})
    with clock(datetime(2024, 3, 1, 5, tzinfo=UTC)):
        planned = apply(frame, "calculate", expressions(customer_lifetime_days="current_date - created_at"))
    assert planned.collect()["customer_lifetime_days"].to_list() == [60, 29]
    assert planned.collect_schema()["customer_lifetime_days"] == pl.Int32


@pytest.mark.parametrize(
    ("formulas", "path"),
    [
        ({"x": "nope + 1"}, "expressions[0].formula"),
        ({"x": "a", "y": "foo(a)"}, "expressions[1].formula"),
        ({"y": "x", "x": "a"}, "expressions[0].formula"),
    ],
)
def test_what_does_not_fit_is_refused_when_planned(apply: Apply, formulas: dict[str, str], path: str) -> None:
    with pytest.raises(LockgateError) as caught:
        apply(FRAME, "calculate", expressions(**formulas))
    assert str(caught.value).startswith(f"transformations[0].parameters.{path}: ")


@pytest.mark.parametrize(("formula", "wanted"), [("a + 1", True), ("a - lag(a) over (order by d)", False)])
def test_only_windows_need_the_whole_set(formula: str, wanted: bool) -> None:
    step = transforms.get("calculate")
    assert step.row_local(step.parameters.model_validate(expressions(x="a", y=formula))) is wanted
