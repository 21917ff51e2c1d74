from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from transforms._errors import LockgateError

Apply = Callable[..., pl.LazyFrame]

FRAME = pl.LazyFrame({"a": [2, 1, None, 2], "b": ["x", "y", "z", "w"]})


@pytest.mark.parametrize(
    ("by", "wanted"),
    [
        (["a"], "yxwz"),
        ([{"field": "a", "nulls_last": False}], "zyxw"),
        ([{"field": "a", "descending": True}], "xwyz"),
        ([{"field": "a", "descending": True, "nulls_last": False}], "zxwy"),
        (["a", "b"], "ywxz"),
        ([{"field": "a", "descending": True}, "b"], "wxyz"),
    ],
)
@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_orders(apply: Apply, engine: Any, by: list[Any], wanted: str) -> None:
    assert "".join(apply(FRAME, "sort", {"by": by}).collect(engine=engine)["b"]) == wanted


@pytest.mark.parametrize(("by", "path"), [(["a", "x"], "by[1]"), ([{"field": "x"}], "by[0].field"), ([], "by")])
def test_what_does_not_fit_is_refused_when_planned(apply: Apply, by: list[Any], path: str) -> None:
    with pytest.raises(LockgateError) as caught:
        apply(FRAME, "sort", {"by": by})
    assert str(caught.value).startswith(f"transformations[0].parameters.{path}: ")
