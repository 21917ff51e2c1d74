"""Reading a quarantined row back gives the row that was read."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from polars.testing import assert_frame_equal
from polars.testing.parametric import dataframes

from flows._quarantine import as_json_texts
from flows._read_back import read_back

VALUES: list[pl.Series] = [
    pl.Series([1.5, float("nan"), float("-inf"), -0.0, 1e300, 5e-324, None]),
    pl.Series([0.1, 1e-45, 3.4e38, None], dtype=pl.Float32),
    pl.Series([2**64 - 1, None], dtype=pl.UInt64),
    pl.Series([2**126, -(2**126), None], dtype=pl.Int128),
    pl.Series([Decimal("12345678901234567890123456789012345.67"), Decimal("-0.01"), None], dtype=pl.Decimal(38, 2)),
    pl.Series([0, -800_000, 20_000_000, -719_163], dtype=pl.Int32).cast(pl.Date),
    pl.Series([1, -1, 1_700_000_000_000_000, -62_135_596_800_000_001]).cast(pl.Datetime("us")),
    pl.Series([1, -900_000_000_000_000, 2**52]).cast(pl.Datetime("ms")),
    pl.Series([1, -1, 2**63 - 1, -(2**62)]).cast(pl.Datetime("ns")),
    pl.Series([0, 1_700_000_000_000_000, 1_729_990_800_000_000, 1_729_994_400_000_000]).cast(
        pl.Datetime("us", "Europe/Berlin")  # the last two are the hour that summer time repeats
    ),
    pl.Series([-3_000_000_000_000_000]).cast(pl.Datetime("us", "Europe/Amsterdam")),  # 19 min 32 s ahead, then
    pl.Series([0, 1, 86_399_999_999_999]).cast(pl.Time),
    pl.Series([0, 1, -86_399_999_999_999, 10**15 + 5]).cast(pl.Duration("us")),
    pl.Series([-1, 10**15 + 5]).cast(pl.Duration("ns")),
    pl.Series([b"\x00\xff", b"", None]),
    pl.Series(['größe ☃ 😀 "hi" it\'s\\', "a\0b", "\u2028", "", None]),
    pl.Series(["a", "b", None], dtype=pl.Enum(["b", "a"])),
    pl.Series([True, False, None]),
    pl.Series([None, None]),
    pl.Series([[date(2024, 2, 29), None], [], None]),
    pl.Series([[1.0, float("nan")], None], dtype=pl.Array(pl.Float64, 2)),
    pl.Series([{"a": b"\xff", "b": [{"c": datetime(2024, 1, 1)}]}, {"a": None, "b": None}, None]),
]


@pytest.mark.parametrize("series", VALUES, ids=lambda series: str(series.dtype))
def test_a_value_comes_back(series: pl.Series) -> None:
    rows = pl.DataFrame({"x": series, "n": range(series.len())})

    back = read_back(as_json_texts(rows), rows.schema)

    assert back.left == []
    assert back.places == list(range(rows.height))
    assert_frame_equal(back.rows, rows, check_exact=True)


@given(
    rows=dataframes(
        max_cols=4,
        max_size=6,
        allow_null=True,
        excluded_dtypes=[pl.Object, pl.Categorical, pl.Extension],
    )
)
def test_every_frame_comes_back(rows: pl.DataFrame) -> None:
    back = read_back(as_json_texts(rows), rows.schema)

    assert back.left == []
    assert_frame_equal(back.rows, rows, check_exact=True)


LEFT: list[tuple[dict[str, Any], pl.DataType, str]] = [
    ({}, pl.Int64(), "column 'x' was not read then"),
    ({"x": "7"}, pl.Int64(), "column 'x': \"7\" is no Int64"),
    ({"x": True}, pl.Int64(), "column 'x': true is no Int64"),
    ({"x": 300}, pl.Int8(), "column 'x': 300 is no Int8"),
    ({"x": 7}, pl.String(), "column 'x': 7 is no String"),
    ({"x": "1.555"}, pl.Decimal(9, 2), "column 'x': \"1.555\" is no Decimal(precision=9, scale=2)"),
    ({"x": "12345678.00"}, pl.Decimal(9, 2), "column 'x': \"12345678.00\" is no Decimal(precision=9, scale=2)"),
    (
        {"x": "2024-01-01"},
        pl.Datetime("us"),
        "column 'x': \"2024-01-01\" is no Datetime(time_unit='us', time_zone=None)",
    ),
    ({"x": "zz"}, pl.Binary(), "column 'x': \"zz\" is no Binary"),
    ({"x": [1, "a"]}, pl.List(pl.Int64()), "column 'x': \"a\" is no Int64"),
    ({"x": {"b": 1}}, pl.Struct({"a": pl.Int64()}), "column 'x': {\"b\": 1} is no Struct({'a': Int64})"),
    ({"x": "c"}, pl.Enum(["a"]), "column 'x': \"c\" is no Enum(categories=['a'])"),
    ({"x": "y" * 99}, pl.Boolean(), f"column 'x': \"{'y' * 59}... is no Boolean"),
]


@pytest.mark.parametrize(("row", "dtype", "reason"), LEFT)
def test_a_value_that_cannot_be_read_is_told(row: dict[str, Any], dtype: pl.DataType, reason: str) -> None:
    texts = ['{"x": null}', json.dumps(row), '{"x": null, "other": 5}']

    back = read_back(texts, pl.Schema({"x": dtype}))

    assert back.left == [(1, reason)]
    assert back.places == [0, 2]
    assert back.rows.rows() == [(None,), (None,)]
