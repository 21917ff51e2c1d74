from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from transforms._errors import LockgateError
from transforms._transform import transforms

Apply = Callable[..., pl.LazyFrame]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("CustomerID", "customer_id"),
        ("customerId", "customer_id"),
        ("HTTPServer", "http_server"),
        ("Order Date ", "order_date"),
        ("order-date", "order_date"),
        ("order__date", "order_date"),
        ("a.b", "a_b"),
        ("2nd Value", "2nd_value"),
        ("Straße", "straße"),
        ("ÉtatCivil", "état_civil"),
        ("already_snake", "already_snake"),
        ("Amount ($)", "amount"),
        ("address2Line", "address2_line"),
    ],
)
def test_names_in_snake_case(apply: Apply, name: str, wanted: str) -> None:
    assert apply(pl.LazyFrame({name: [1]}), "normalize", {"names": "snake_case"}).collect_schema().names() == [wanted]


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({"trim": True}, ["a  B", "", None, "cafe\u0301"]),
        ({"case": "upper"}, ["  A  B\t", " ", None, "CAFE\u0301"]),
        ({"case": "lower", "trim": True}, ["a  b", "", None, "cafe\u0301"]),
        ({"case": "title", "collapse_whitespace": True}, [" A B ", " ", None, "Cafe\u0301"]),
        ({"unicode": "NFC"}, ["  a  B\t", " ", None, "caf\u00e9"]),
        ({"collapse_whitespace": True, "trim": True}, ["a B", "", None, "cafe\u0301"]),
        ({"trim": True, "empty_as_null": True}, ["a  B", None, None, "cafe\u0301"]),
        ({"fields": ["s"], "trim": True}, ["a  B", "", None, "cafe\u0301"]),
        ({"fields": ["other"], "trim": True}, ["  a  B\t", " ", None, "cafe\u0301"]),
    ],
)
def test_text(apply: Apply, rule: dict[str, Any], wanted: list[Any]) -> None:
    frame = pl.LazyFrame({"s": ["  a  B\t", " ", None, "cafe\u0301"], "n": [1, 2, 3, 4], "other": ["x"] * 4})
    assert apply(frame, "normalize", {"text": [rule]}).collect()["s"].to_list() == wanted


@pytest.mark.parametrize(
    ("method", "values", "wanted"),
    [
        ("min_max", [10, 20, None, 30], [0.0, 0.5, None, 1.0]),
        ("min_max", [5, 5], [0.0, 0.0]),
        ("z_score", [1, 3, None], [-1.0, 1.0, None]),
        ("z_score", [7.0], [0.0]),
        ("robust", [1, 2, 3, 4, 5, None], [-1.0, -0.5, 0.0, 0.5, 1.0, None]),
        ("robust", [1, 1, 1, 1, 9], [0.0, 0.0, 0.0, 0.0, 8.0]),
        ("min_max", [None, None], [None, None]),
        ("min_max", [], []),
    ],
)
@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_scales(apply: Apply, engine: Any, method: str, values: list[Any], wanted: list[Any]) -> None:
    frame = pl.LazyFrame({"x": values}, schema={"x": pl.Float64})
    planned = apply(frame, "normalize", {"numbers": [{"field": "x", "method": method}]})
    assert planned.collect(engine=engine)["x"].to_list() == wanted


NAIVE = pl.LazyFrame({"t": [datetime(2024, 1, 1, 12), datetime(2024, 7, 1, 12), None]})


def test_timestamps_become_utc(apply: Apply) -> None:
    rule = {"timestamps": [{"field": "t", "time_zone": "Europe/Berlin"}]}
    wanted = [datetime(2024, 1, 1, 11, tzinfo=UTC), datetime(2024, 7, 1, 10, tzinfo=UTC), None]
    assert apply(NAIVE, "normalize", rule).collect()["t"].to_list() == wanted


def test_timestamps_of_a_zone_are_converted(apply: Apply) -> None:
    there = NAIVE.with_columns(pl.col("t").dt.replace_time_zone("Asia/Tokyo"))
    planned = apply(there, "normalize", {"timestamps": [{"field": "t"}]})
    assert planned.collect_schema()["t"] == pl.Datetime("us", "UTC")
    assert planned.collect()["t"][0] == datetime(2024, 1, 1, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "policy", "wanted"),
    [
        (datetime(2024, 10, 27, 2, 30), {"ambiguous": "earliest"}, datetime(2024, 10, 27, 0, 30, tzinfo=UTC)),
        (datetime(2024, 10, 27, 2, 30), {"ambiguous": "latest"}, datetime(2024, 10, 27, 1, 30, tzinfo=UTC)),
        (datetime(2024, 10, 27, 2, 30), {"ambiguous": "null"}, None),
        (datetime(2024, 3, 31, 2, 30), {"non_existent": "null"}, None),
    ],
)
def test_hours_that_come_twice_or_never(apply: Apply, moment: datetime, policy: dict[str, str], wanted: Any) -> None:
    rule: dict[str, Any] = {"field": "t", "time_zone": "Europe/Berlin"}
    frame = pl.LazyFrame({"t": [moment]})
    with pytest.raises(pl.exceptions.ComputeError):
        apply(frame, "normalize", {"timestamps": [rule]}).collect()
    assert apply(frame, "normalize", {"timestamps": [rule | policy]}).collect().item() == wanted


def test_structs_are_flattened_at_every_depth(apply: Apply) -> None:
    frame = pl.LazyFrame({"id": [1, 2], "a": [{"b": 1, "c": {"d": "x"}}, None], "l": [[1], [2]]})
    planned = apply(frame, "normalize", {"flatten": True})
    assert planned.collect().rows(named=True) == [
        {"id": 1, "a_b": 1, "a_c_d": "x", "l": [1]},
        {"id": 2, "a_b": None, "a_c_d": None, "l": [2]},
    ]


def test_fields_are_named_as_after_the_renaming(apply: Apply) -> None:
    frame = pl.LazyFrame({"Who": [{"First Name": " Ada "}]})
    rules = {"flatten": True, "names": "snake_case", "text": [{"fields": ["who_first_name"], "trim": True}]}
    assert apply(frame, "normalize", rules).collect().rows(named=True) == [{"who_first_name": "Ada"}]


MIXED = pl.LazyFrame({"s": ["x"], "n": [1], "t": [datetime(2024, 1, 1)], "a b": [1], "A_B": [2]})


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({"names": "snake_case"}, "names"),
        ({"text": [{"fields": ["x"], "trim": True}]}, "text[0].fields[0]"),
        ({"text": [{"fields": ["s", "n"], "trim": True}]}, "text[0].fields[1]"),
        ({"numbers": [{"field": "x", "method": "min_max"}]}, "numbers[0].field"),
        ({"numbers": [{"field": "s", "method": "min_max"}]}, "numbers[0].field"),
        ({"timestamps": [{"field": "x"}]}, "timestamps[0].field"),
        ({"timestamps": [{"field": "s"}]}, "timestamps[0].field"),
        ({"timestamps": [{"field": "t"}]}, "timestamps[0].time_zone"),
    ],
)
def test_what_does_not_fit_is_refused_when_planned(apply: Apply, parameters: dict[str, Any], path: str) -> None:
    with pytest.raises(LockgateError) as caught:
        apply(MIXED, "normalize", parameters)
    assert str(caught.value).startswith(f"transformations[0].parameters.{path}: ")


def test_flattening_refuses_names_that_are_taken(apply: Apply) -> None:
    with pytest.raises(LockgateError, match=r"'a\.b' would both be called 'a_b'"):
        apply(pl.LazyFrame({"a_b": [1], "a": [{"b": 2}]}), "normalize", {"flatten": True})


def test_names_without_letters_are_refused(apply: Apply) -> None:
    with pytest.raises(LockgateError, match="has no letter"):
        apply(pl.LazyFrame({"$$": [1]}), "normalize", {"names": "snake_case"})


def test_a_zone_beside_a_zone_is_refused(apply: Apply) -> None:
    frame = MIXED.with_columns(pl.col("t").dt.replace_time_zone("UTC"))
    with pytest.raises(LockgateError, match="has a time zone"):
        apply(frame, "normalize", {"timestamps": [{"field": "t", "time_zone": "UTC"}]})


def test_unknown_zones_are_refused_when_parsed() -> None:
    with pytest.raises(ValidationError, match="'Berlin' is not a time zone"):
        transforms.get("normalize").parameters.model_validate({"timestamps": [{"field": "t", "time_zone": "Berlin"}]})


def test_only_scales_need_the_whole_set() -> None:
    step = transforms.get("normalize")
    assert step.row_local(step.parameters.model_validate({"names": "snake_case", "text": [{"trim": True}]}))
    assert not step.row_local(step.parameters.model_validate({"numbers": [{"field": "x", "method": "robust"}]}))
