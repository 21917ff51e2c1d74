"""What is kept of a quarantined row: every value, in JSON."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from polars.testing.parametric import dataframes

from flows._quarantine import as_json_texts

KEPT: list[tuple[pl.Series, list[Any]]] = [
    (pl.Series([1.5, None]), [1.5, None]),
    (pl.Series([1.5, float("nan"), float("-inf"), None]), ["1.5", "NaN", "-inf", None]),
    (pl.Series([[1.5, None], None]), [[1.5, None], None]),
    (pl.Series([[1.0, float("nan")], [], None]), [["1.0", "NaN"], [], None]),
    (pl.Series([{"a": float("inf")}, None]), [{"a": "inf"}, None]),
    (pl.Series([[{"a": [float("nan")]}]]), [[{"a": ["NaN"]}]]),
    (pl.Series([[float("nan"), 1.0]], dtype=pl.Array(pl.Float32, 2)), [["NaN", "1.0"]]),
    (pl.Series([b"\x00\xff", None]), ["00ff", None]),
    (pl.Series([{"a": b"\xff", "b": [b"\x01", None]}]), [{"a": "ff", "b": ["01", None]}]),
    (pl.Series(["a\0b", '"']), ["a\0b", '"']),
    (pl.Series([Decimal("1.50")]), ["1.50"]),
    (pl.Series([date(2024, 2, 29)]), ["2024-02-29"]),
    (pl.Series([2**64 - 1], dtype=pl.UInt64), [2**64 - 1]),
    (pl.Series([None, None]), [None, None]),
]


@pytest.mark.parametrize(("series", "values"), KEPT, ids=[str(series.dtype) for series, _values in KEPT])
def test_a_value_is_kept(series: pl.Series, values: list[Any]) -> None:
    texts = as_json_texts(pl.DataFrame({"x": series, "n": range(len(values))}))

    assert [json.loads(text) for text in texts] == [{"x": value, "n": n} for n, value in enumerate(values)]


def test_rows_without_columns_are_empty_objects() -> None:
    assert as_json_texts(pl.DataFrame(height=2)).to_list() == ["{}", "{}"]


@given(
    rows=dataframes(
        max_cols=3,
        max_size=6,
        allow_null=True,
        allowed_dtypes=[pl.Int64, pl.Float64, pl.Float32, pl.String, pl.Boolean, pl.List(pl.Float64), pl.Binary],
    ),
)
def test_nothing_becomes_null_that_was_not(rows: pl.DataFrame) -> None:
    kept = [json.loads(text) for text in as_json_texts(rows)]

    assert [{name: value is None for name, value in row.items()} for row in kept] == [
        {name: value is None for name, value in row.items()} for row in rows.iter_rows(named=True)
    ]
    for row, values in zip(kept, rows.iter_rows(named=True), strict=True):
        for name, value in values.items():
            if isinstance(value, list):
                assert [item is None for item in row[name]] == [item is None for item in value]
