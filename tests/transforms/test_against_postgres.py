"""Every expression here is computed by PostgreSQL and by Polars, over the same rows; values and types must agree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from transforms._errors import LockgateError
from transforms._expressions import expression

pytestmark = pytest.mark.postgres

COLUMNS: list[tuple[str, str, Any]] = [
    ("i", "int", pl.Int32),
    ("b", "bigint", pl.Int64),
    ("k", "smallint", pl.Int16),
    ("f", "float8", pl.Float64),
    ("r", "real", pl.Float32),
    ("m", "numeric(12,3)", pl.Decimal(12, 3)),
    ("s", "text", pl.String),
    ("u", "text", pl.String),
    ("d", "date", pl.Date),
    ("e", "date", pl.Date),
    ("t", "timestamp", pl.Datetime("us")),
    ("z", "timestamptz", pl.Datetime("us", "UTC")),
    ("p", "bool", pl.Boolean),
    ("q", "bool", pl.Boolean),
    ("w", "text", pl.String),
    ("x", "text", pl.String),
    ("y", "text", pl.String),
]
# fmt: off
ROWS: list[tuple[Any, ...]] = [
    (-7, 2, 1, 2.5, 1.5, "1.255", "Abc", "b", date(2024, 1, 31), date(2023, 12, 1),
     datetime(2024, 1, 31, 12, 30, 15, 500000), datetime(2024, 3, 31, 1, 30, 0, 1, tzinfo=UTC),
     True, True, " 12 ", "2024-02-29", "1.5"),
    (7, -2, -2, -2.5, 0.25, "-2.500", "x_y%z", "%", date(2024, 2, 29), date(2024, 3, 1),
     datetime(1969, 12, 31, 23, 59, 59, 999999), datetime(2024, 10, 27, 1, 0, tzinfo=UTC),
     True, False, "-3", "1999-12-31", "-2.25"),
    (0, 5, 3, 0.5, -1.0, "0.005", "", "", date(1970, 1, 1), date(1970, 1, 1),
     datetime(2024, 12, 30), datetime(2020, 2, 29, tzinfo=UTC), False, True, "0", "2000-01-01", "0.005"),
    (3, -3, 4, 1.005, 1e10, "1000.500", "héé wörld x", "é", date(2021, 1, 3), date(1999, 12, 31),
     datetime(2021, 1, 3, 0, 0, 0, 10), datetime(1999, 12, 31, 23, 0, tzinfo=UTC),
     False, False, "7", "2024-1-5", "1e3"),
    (2147483, 9007199254740993, 5, 1e-5, 3.0, "999999999.999", " pad\t", "a", date(2000, 2, 29), date(2024, 1, 1),
     datetime(2000, 2, 29, 1, 1, 1), datetime(2024, 1, 1, tzinfo=UTC), None, True, "99", "2024-12-31", "12345.678"),
    (None,) * 17,
    (1, 1, None, 1e15, None, "-0.005", "a-b-c", "-", None, date(2020, 6, 15),
     None, datetime(2020, 6, 15, tzinfo=UTC), None, None, "+4", "2020-02-02", ".5"),
    (10, 4, 7, 0.1, 0.1, "3.145", "line1\nline2", "n", date(2024, 7, 4), None,
     datetime(2024, 7, 4, 4, 4, 4, 123000), None, True, None, "5", "0001-01-01", "100"),
]
# fmt: on
ROWS = [tuple(Decimal(v) if n == 5 and v else v for n, v in enumerate(row)) for row in ROWS]
FRAME = pl.LazyFrame(ROWS, schema={name: dtype for name, _, dtype in COLUMNS}, orient="row")
SCHEMA = FRAME.collect_schema()

#: One expression a line: the first file agrees in values and types; both sides refuse those of the second.
HERE = Path(__file__).parent
AGREE = [line for line in (HERE / "agree.sql").read_text().splitlines() if line and not line.startswith("--")]
REFUSE = [line for line in (HERE / "refuse.sql").read_text().splitlines() if line and not line.startswith("--")]


@pytest.fixture(scope="module")
def connection(postgres: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres) as connection:
        connection.execute("SET timezone TO 'UTC'")
        connection.execute("SET extra_float_digits TO 1")
        columns = ", ".join(f"{name} {kind}" for name, kind, _ in COLUMNS)
        connection.execute(f"CREATE TEMPORARY TABLE v (id int, {columns})")
        for position, row in enumerate(ROWS):
            connection.execute(f"INSERT INTO v VALUES ({', '.join(['%s'] * 18)})", (position, *row))
        connection.commit()
        yield connection


def in_postgres(connection: psycopg.Connection, text: str) -> tuple[list[Any], str]:
    try:
        found = connection.execute(f"SELECT {text}, pg_typeof({text})::text FROM v ORDER BY id").fetchall()
    finally:
        connection.rollback()
    return [value for value, _ in found], found[0][1]


def in_polars(text: str) -> tuple[list[Any], pl.DataType]:
    found = FRAME.select(expression(text, SCHEMA).alias("x")).collect()["x"]
    return found.to_list() * (len(ROWS) if len(found) == 1 else 1), found.dtype


def type_name(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Datetime):
        return f"timestamp {'with' if dtype.time_zone else 'without'} time zone"
    names: dict[type[pl.DataType], str] = {
        pl.Int16: "smallint", pl.Int32: "integer", pl.Int64: "bigint", pl.Float32: "real",
        pl.Float64: "double precision", pl.Decimal: "numeric", pl.String: "text", pl.Boolean: "boolean",
        pl.Date: "date", pl.Time: "time without time zone", pl.Duration: "interval",
    }  # fmt: skip
    return names[type(dtype)]


def alike(theirs: Any, ours: Any, *, single: bool = False) -> bool:
    if isinstance(theirs, float | Decimal) and ours is not None:
        size = max(abs(float(theirs)), 1e-3) * (1e-6 if single else 1e-12)
        return abs(float(theirs) - float(ours)) <= size or (math.isnan(theirs) and math.isnan(ours))
    return type(theirs) is type(ours) and bool(theirs == ours)


@pytest.mark.parametrize("text", AGREE)
def test_same_values_and_types(connection: psycopg.Connection, text: str) -> None:
    theirs, kind = in_postgres(connection, text)
    ours, dtype = in_polars(text)
    assert type_name(dtype) == kind
    assert [(a, b) for a, b in zip(theirs, ours, strict=True) if not alike(a, b, single=kind == "real")] == []


@pytest.mark.parametrize("text", REFUSE)
def test_refused_by_both(connection: psycopg.Connection, text: str) -> None:
    with pytest.raises(psycopg.Error):
        in_postgres(connection, text)
    with pytest.raises((LockgateError, pl.exceptions.PolarsError)):
        in_polars(text)


#: Where we knowingly give another type, or a type of the same meaning; the values are the same.
@pytest.mark.parametrize(
    ("text", "theirs", "ours"),
    [
        ("s::varchar(3)", "character varying", "text"),
        ("cast(i as varchar)", "character varying", "text"),
        ("date_part('year', d)", "double precision", "numeric"),
        ("sqrt(m + 10)", "numeric", "double precision"),
        ("log(2, abs(m) + 1)", "numeric", "double precision"),
    ],
)
def test_same_values_of_another_type(connection: psycopg.Connection, text: str, theirs: str, ours: str) -> None:
    values, kind = in_postgres(connection, text)
    found, dtype = in_polars(text)
    assert (kind, type_name(dtype)) == (theirs, ours)
    assert all(alike(a, b) for a, b in zip(values, found, strict=True))


def computed(connection: psycopg.Connection, text: str, columns: dict[str, tuple[str, list[Any]]]) -> list[Any]:
    arrays = ", ".join(f"%s::{kind}[]" for kind, _ in columns.values())
    rows = f"unnest({arrays}) WITH ORDINALITY AS v({', '.join(columns)}, n)"
    query = f"SELECT {text.replace('%', '%%')} FROM {rows} ORDER BY n"
    found = connection.execute(query, [values for _, values in columns.values()]).fetchall()
    connection.rollback()
    return [value for (value,) in found]


def ours(text: str, frame: pl.DataFrame) -> list[Any]:
    return frame.lazy().select(expression(text, frame.schema).alias("x")).collect()["x"].to_list()


many = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
doubles = (
    st.floats(-9e15, 9e15)
    | st.sampled_from([float("nan"), float("inf"), float("-inf"), -0.0, 1e15, 1e15 + 0.5, 5e-324])
    | st.integers(-(10**9), 10**9).map(float)
)


@many
@given(values=st.lists(doubles, min_size=1, max_size=50))
@example(values=[1e15 + 0.5, -1.25e15 - 0.25, 9e15])
def test_doubles_are_written_alike(connection: psycopg.Connection, values: list[float]) -> None:
    theirs = computed(connection, "a::text", {"a": ("float8", values)})
    assert ours("a::text", pl.DataFrame({"a": values})) == theirs


@many
@given(pairs=st.lists(st.tuples(st.integers(-1000, 1000), st.integers(-50, 50)), min_size=1, max_size=50))
@pytest.mark.parametrize("text", ["a / nullif(b, 0)", "a % nullif(b, 0)", "a * b - a", "a::numeric / nullif(b, 0)"])
def test_whole_numbers_calculate_alike(connection: psycopg.Connection, text: str, pairs: list[tuple[int, int]]) -> None:
    a, b = [left for left, _ in pairs], [right for _, right in pairs]
    theirs = computed(connection, text, {"a": ("int8", a), "b": ("int8", b)})
    assert all(alike(x, y) for x, y in zip(theirs, ours(text, pl.DataFrame({"a": a, "b": b})), strict=True))


cents = st.decimals(-(10**6), 10**6, places=4, allow_nan=False)


@many
@given(values=st.lists(cents, min_size=1, max_size=50))
@pytest.mark.parametrize("text", ["round(a, 2)", "a::int", "trunc(a, 1)", "a::numeric(12, 1)", "a * a", "a::text"])
def test_exact_numbers_round_alike(connection: psycopg.Connection, text: str, values: list[Decimal]) -> None:
    theirs = computed(connection, text, {"a": ("numeric(14,4)", values)})
    assert ours(text, pl.DataFrame({"a": values}, schema={"a": pl.Decimal(14, 4)})) == theirs


@many
@given(values=st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50))
def test_doubles_round_to_decimals_alike(connection: psycopg.Connection, values: list[float]) -> None:
    theirs = computed(connection, "round(a::numeric, 2)", {"a": ("float8", values)})
    assert ours("round(a::numeric, 2)", pl.DataFrame({"a": values})) == theirs


letters = st.text(st.sampled_from("aAbé _%-\\.x\n"), max_size=8)


@many
@given(values=st.lists(letters, min_size=1, max_size=30), pattern=letters.filter(lambda text: not text.endswith("\\")))
def test_like_matches_alike(connection: psycopg.Connection, values: list[str], pattern: str) -> None:
    quoted = pattern.replace("'", "''")
    for operator in ("like", "ilike"):
        theirs = computed(connection, f"a {operator} '{quoted}'", {"a": ("text", values)})
        assert ours(f"a {operator} '{quoted}'", pl.DataFrame({"a": values})) == theirs


@many
@given(values=st.lists(letters, min_size=1, max_size=30), start=st.integers(-4, 9), length=st.integers(0, 9))
def test_texts_are_cut_alike(connection: psycopg.Connection, values: list[str], start: int, length: int) -> None:
    for text in (f"substring(a, {start}, {length})", f"left(a, {start})", f"right(a, {start})", "position('x' in a)"):
        theirs = computed(connection, text, {"a": ("text", values)})
        assert ours(text, pl.DataFrame({"a": values})) == theirs


moments = st.datetimes(datetime(1800, 1, 1), datetime(2200, 1, 1))


@many
@given(values=st.lists(moments, min_size=1, max_size=30), months=st.integers(-30, 30))
def test_moments_shift_alike(connection: psycopg.Connection, values: list[datetime], months: int) -> None:
    texts = [f"a + interval '{months} months 1 day'", "date_trunc('week', a)", "extract(week from a)", "a::text",
             "extract(epoch from a)", "a::date - date '2000-01-01'"]  # fmt: skip
    for text in texts:
        theirs = computed(connection, text, {"a": ("timestamp", values)})
        assert ours(text, pl.DataFrame({"a": values}, schema={"a": pl.Datetime("us")})) == theirs
