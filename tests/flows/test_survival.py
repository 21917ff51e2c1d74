"""How messages quote the one value that would not be the same in a target."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from flows._survival import shown

SHOWN: list[tuple[pl.DataType, Any, str]] = [
    (pl.String(), "abc ", "'abc '"),
    (pl.String(), "x" * 61, f"'{'x' * 60}...'"),
    (pl.Int64(), -1, "'-1'"),
    (pl.List(pl.Int64()), [1, None, 3], "'[1, null, 3]'"),
    (pl.List(pl.Int64()), [], "'[]'"),
    (pl.List(pl.Int64()), range(100), f"'{str(list(range(100)))[:60]}...'"),
    (pl.List(pl.String()), ["a", None, "it's"], """'[\\'a\\', null, "it\\'s"]'"""),
    (pl.List(pl.List(pl.Float64())), [[1.5], None, []], "'[[1.5], null, []]'"),
    (pl.Array(pl.Int64(), 2), [1, 2], "'[1, 2]'"),
    (pl.List(pl.Datetime("ns")), [1], "'[1970-01-01 00:00:00.000000001]'"),
    (pl.List(pl.Datetime("us")), [2**63 - 1], "'[9223372036854775807 us from 1970]'"),
    (pl.Struct({"a": pl.Int64(), "b": pl.List(pl.Time())}), {"a": 1, "b": [2]}, "'{a: 1, b: [00:00:00.000000002]}'"),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "value", "said"), SHOWN)
def test_a_value_is_shown_as_itself(dtype: pl.DataType, value: Any, said: str) -> None:
    assert shown(pl.Series("x", [value], dtype)) == said
