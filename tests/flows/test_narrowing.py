from __future__ import annotations

from datetime import date, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows._narrowing import narrowing, unshortened
from flows._types import PgType
from flows._writing import DoesNotFit

INT4, INT8, TEXT, DATE = PgType("int4", "int4"), PgType("int8", "int8"), PgType("text", "text"), PgType("date", "date")
NUMERIC = PgType("numeric", "numeric(6,2)", precision=6, scale=2)
VARCHAR, CHAR = PgType("varchar", "varchar(3)"), PgType("bpchar", "bpchar(3)")
NAIVE, ZONED, BOOL = PgType("timestamp", "timestamp"), PgType("timestamptz", "timestamptz"), PgType("bool", "bool")

FITS: list[tuple[pl.DataType, PgType, list[Any]]] = [
    (pl.Int64(), INT4, [0, 2**31 - 1, -(2**31), None]),
    (pl.Float64(), INT4, [1.0, -0.0, None]),
    (pl.Float64(), NUMERIC, [0.1, 9999.99, -9999.99, None]),
    (pl.Int64(), NUMERIC, [9999, -9999]),
    (pl.String(), INT4, ["12", "-3", None]),
    (pl.String(), NUMERIC, ["9999.99", "1", "1.2500", "-0.01"]),
    (pl.String(), DATE, ["2024-02-29", None]),
    (pl.String(), NAIVE, ["2024-02-29T01:02:03", "2024-02-29 01:02:03.000004"]),
    (pl.String(), ZONED, ["2024-02-29T01:02:03Z", "2024-02-29 01:02:03+02:00"]),
    (pl.String(), BOOL, ["true", "F", "no", "1"]),
    (pl.String(), VARCHAR, ["", "äöü", None]),
    (pl.String(), CHAR, ["abc   ", "a"]),
    (pl.Datetime("us"), DATE, [datetime(2024, 1, 2), None]),
    (pl.String(), PgType("uuid", "uuid"), ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC999C0B4EF8BB6D6BB9BD380A11"]),
]
MISFITS: list[tuple[pl.DataType, PgType, list[Any]]] = [
    (pl.Int64(), INT4, [2**31, -(2**31) - 1]),
    (pl.UInt64(), INT8, [2**63]),
    (pl.Float64(), INT4, [1.5, 1e10, float("nan"), float("inf")]),
    (pl.Float64(), NUMERIC, [0.125, 9999.995, 10000.0, 123456.0, 1e300, float("nan")]),
    (pl.Int64(), NUMERIC, [10_000, -10_000, 2**62]),
    (pl.String(), INT4, ["1.5", "x", "", "99999999999", "1e3"]),
    (pl.String(), NUMERIC, ["1.255", "10000", "x", ""]),
    (pl.String(), DATE, ["2024-02-30", "yesterday", ""]),
    (pl.String(), NAIVE, ["2024-02-29", "25:00", "2024-02-29 01:02:03Z"]),
    (pl.String(), ZONED, ["2024-02-29 01:02:03", "x"]),
    (pl.String(), BOOL, ["maybe", ""]),
    (pl.String(), VARCHAR, ["abcd", "abc "]),
    (pl.String(), CHAR, ["abcd"]),
    (pl.Datetime("us"), DATE, [datetime(2024, 1, 2, 3)]),
    (pl.String(), PgType("uuid", "uuid"), ["a0eebc99-9c0b-4ef8-bb6d", "x"]),
]


def judged(dtype: pl.DataType, pg: PgType, values: list[Any]) -> tuple[list[bool | None], Any]:
    written, frame = narrowing(dtype, pg), pl.DataFrame({"x": values}, schema={"x": dtype})
    assert written.survives is not None
    return frame.select(written.survives(pl.col("x"))).to_series().to_list(), written


@pytest.mark.parametrize(("dtype", "pg", "values"), FITS)
def test_a_value_that_fits_survives_and_is_cast(dtype: pl.DataType, pg: PgType, values: list[Any]) -> None:
    survive, written = judged(dtype, pg, values)

    assert set(survive) == {True}
    cast = pl.DataFrame({"x": values}, schema={"x": dtype}).select(written.cast(pl.col("x"))).to_series()
    assert cast.is_null().to_list() == [value is None for value in values]


@pytest.mark.parametrize(("dtype", "pg", "value"), [(d, p, value) for d, p, values in MISFITS for value in values])
def test_a_value_that_does_not_fit_does_not_survive(dtype: pl.DataType, pg: PgType, value: object) -> None:
    assert judged(dtype, pg, [value])[0] == [False]


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-(2**33), 2**33)), max_size=20))
def test_exactly_the_numbers_that_come_back_the_same_survive(values: list[int | None]) -> None:
    survive, _written = judged(pl.Int64(), INT4, values)

    assert survive == [value is None or -(2**31) <= value < 2**31 for value in values]


@pytest.mark.parametrize(
    ("dtype", "pg"),
    [(pl.Int64(), DATE), (pl.Int64(), TEXT), (pl.Date(), INT4), (pl.String(), PgType("numeric", "numeric"))],
)
def test_what_no_value_fits_is_refused(dtype: pl.DataType, pg: PgType) -> None:
    with pytest.raises(DoesNotFit):
        narrowing(dtype, pg)


def test_a_text_with_room_needs_no_look() -> None:
    assert narrowing(pl.String(), TEXT).survives is None
    assert unshortened(pl.String(), TEXT).survives is None


def test_only_blanks_that_the_server_would_cut_are_looked_for() -> None:
    survives = unshortened(pl.String(), VARCHAR).survives
    assert survives is not None
    frame = pl.DataFrame({"x": ["abc", "ab ", "abc ", "abcd", "    ", None]})

    assert frame.select(survives(pl.col("x"))).to_series().to_list() == [True, True, False, True, False, None]


def test_the_date_of_a_midnight_is_that_day() -> None:
    frame = pl.DataFrame({"x": [datetime(2024, 1, 2)]})

    assert frame.select(narrowing(pl.Datetime("us"), DATE).cast(pl.col("x"))).item() == date(2024, 1, 2)
