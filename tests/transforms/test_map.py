from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from transforms._errors import LockgateError, TransformError
from transforms._plan import reason

Apply = Callable[..., pl.LazyFrame]

FRAME = pl.LazyFrame({"id": ["1", " 2 ", None], "state": ["a", "x", None], "n": [1, 2, None], "f": [0.5, 1.5, None]})


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [
        ({}, FRAME.collect()),
        ({"select": ["n", "id"]}, FRAME.select("n", "id").collect()),
        ({"drop": ["n", "f"]}, FRAME.select("id", "state").collect()),
        ({"rename": {"n": "f", "f": "n"}, "select": ["n", "f"]}, {"f": [1, 2, None], "n": [0.5, 1.5, None]}),
        ({"values": {"state": {"a": "active"}}, "select": ["state"]}, {"state": ["active", "x", None]}),
        (
            {"values": {"state": {"a": "active"}}, "defaults": {"state": "other"}, "select": ["state"]},
            {"state": ["active", "other", None]},
        ),
        ({"values": {"state": {"a": "A", None: "none"}}, "select": ["state"]}, {"state": ["A", "x", "none"]}),
        ({"values": {"state": {"a": None}}, "select": ["state"]}, {"state": [None, "x", None]}),
        ({"values": {"n": {1: 10}}, "select": ["n"]}, {"n": [10, 2, None]}),
        ({"values": {"n": {"1": 10}}, "select": ["n"]}, {"n": [10, 2, None]}),
        ({"values": {"f": {0.5: 1}}, "select": ["f"]}, {"f": [1.0, 1.5, None]}),
        (
            {"values": {"n": {1: "one"}}, "defaults": {"n": "many"}, "select": ["n"]},
            {"n": ["one", "many", None]},
        ),
        ({"values": {"state": {"a": True}}, "defaults": {"state": False}, "select": ["state"]},
         {"state": [True, False, None]}),
        ({"cast": {"id": "bigint"}, "select": ["id"]}, {"id": [1, 2, None]}),
        ({"cast": {"f": "Int64"}, "select": ["f"]}, {"f": [0, 2, None]}),
        ({"cast": {"n": "TEXT"}, "select": ["n"]}, {"n": ["1", "2", None]}),
        (
            {"select": ["id"], "constants": {"source": "crm", "version": 3, "since": date(2024, 1, 1), "none": None}},
            pl.DataFrame(
                {"id": ["1", " 2 ", None], "source": "crm", "version": 3, "since": date(2024, 1, 1), "none": None},
                schema_overrides={"version": pl.Int64, "none": pl.String},
            ),
        ),
        (
            {"select": ["state"], "values": {"state": {"x": "7", "a": "8"}}, "cast": {"state": "Int16"},
             "constants": {"one": 1}, "rename": {"state": "code", "one": "uno"}},
            pl.DataFrame({"code": [8, 7, None], "uno": [1, 1, 1]}, schema={"code": pl.Int16, "uno": pl.Int64}),
        ),
    ],
)  # fmt: skip
def test_map(apply: Apply, parameters: dict[str, Any], wanted: Any) -> None:
    planned = apply(FRAME, "map", parameters)
    assert_frame_equal(planned.collect(), wanted if isinstance(wanted, pl.DataFrame) else pl.DataFrame(wanted))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("Int8", pl.Int8()), ("bigint", pl.Int64()), ("Int64", pl.Int64()), ("INTEGER", pl.Int32()),
        ("double precision", pl.Float64()), ("Float32", pl.Float32()), ("uint8", pl.UInt8()),
        ("numeric(10, 2)", pl.Decimal(10, 2)), ("Decimal(5)", pl.Decimal(5, 0)), ("varchar", pl.String()),
    ],
)  # fmt: skip
def test_types_by_their_names(apply: Apply, name: str, dtype: pl.DataType) -> None:
    assert apply(FRAME, "map", {"cast": {"n": name}}).collect().schema["n"] == dtype


@pytest.mark.parametrize(
    ("values", "name", "wanted"),
    [
        (["1.005", "2"], "numeric(6, 2)", [Decimal("1.01"), Decimal("2.00")]),
        (["2024-01-31"], "date", [date(2024, 1, 31)]),
        (["yes", "0", "F"], "boolean", [True, False, False]),
        ([1.5, 2.5], "bigint", [2, 2]),
        ([True], "text", ["true"]),
        (["low"], "categorical", ["low"]),
    ],
)
def test_casts_round_as_postgresql_does(apply: Apply, values: list[Any], name: str, wanted: list[Any]) -> None:
    assert apply(pl.LazyFrame({"x": values}), "map", {"cast": {"x": name}}).collect()["x"].to_list() == wanted


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (["abc"], "bigint"), (["1.5"], "int"), ([300], "Int8"), ([-1], "uint8"), (["2024-13-01"], "date"),
        (["maybe"], "boolean"), (["x"], "timestamp"), ([1000.0], "numeric(3, 0)"), ([float("nan")], "bigint"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_cast_stops_the_run_and_names_its_column(
    apply: Apply, values: list[Any], name: str
) -> None:
    planned = apply(pl.LazyFrame({"dirty": values}), "map", {"cast": {"dirty": name}})
    with pytest.raises(pl.exceptions.PolarsError) as caught:
        planned.collect()
    assert "'dirty'" in reason(caught.value)


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({"select": ["n", "x"]}, "select[1]"),
        ({"select": ["n", "n"]}, "select[1]"),
        ({"drop": ["x"]}, "drop[0]"),
        ({"select": ["n"], "drop": ["id"]}, "drop"),
        ({"rename": {"x": "y"}}, "rename.x"),
        ({"rename": {"n": "id"}}, "rename.n"),
        ({"rename": {"n": "y", "f": "y"}}, "rename.n"),
        ({"cast": {"x": "int"}}, "cast.x"),
        ({"cast": {"n": "number"}}, "cast.n"),
        ({"cast": {"n": "int8"}}, "cast.n"),
        ({"cast": {"n": "numeric"}}, "cast.n"),
        ({"cast": {"n": "numeric(50, 2)"}}, "cast.n"),
        ({"cast": {"n": "date"}}, "cast.n"),
        ({"values": {"x": {1: 2}}}, "values.x"),
        ({"values": {"n": {"one": 2}}}, "values.n"),
        ({"values": {"n": {1: "one"}}}, "values.n"),
        ({"values": {"n": {1: "one", 2: 3}}}, "values.n"),
        ({"defaults": {"n": 1}}, "defaults.n"),
        ({"constants": {"n": 1}}, "constants.n"),
        ({"constants": {"x": [1]}}, "constants.x"),
    ],
)
def test_what_does_not_fit_is_refused_when_planned(apply: Apply, parameters: dict[str, Any], path: str) -> None:
    with pytest.raises(LockgateError) as caught:
        apply(FRAME, "map", parameters)
    assert isinstance(caught.value, TransformError)
    assert str(caught.value).startswith(f"transformations[0].parameters.{path}: ")
