"""The law of a table that is there already: what its columns can hold is in it afterwards, and nothing else."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.targets._base import Published
from flows.targets.database import Database

pytestmark = pytest.mark.postgres

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
MOMENTS = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30))
#: A type of PostgreSQL, a dtype that a load may have for it, and values that both know.
COLUMNS: list[tuple[str, pl.DataType, st.SearchStrategy[Any]]] = [
    ("smallint", pl.Int64(), st.integers(-(2**15), 2**15 - 1)),
    ("integer", pl.Int64(), st.integers(-(2**31), 2**31 - 1)),
    ("bigint", pl.Int32(), st.integers(-(2**31), 2**31 - 1)),
    ("bigint", pl.UInt64(), st.integers(0, 2**63 - 1)),
    ("numeric(6,2)", pl.Decimal(20, 2), st.decimals(-9999, 9999, places=2)),
    ("numeric", pl.Int64(), st.integers(-(2**63), 2**63 - 1)),
    ("real", pl.Float32(), st.floats(width=32, allow_nan=False)),
    ("double precision", pl.Float64(), st.floats(allow_nan=False)),
    ("boolean", pl.Boolean(), st.booleans()),
    ("text", pl.String(), TEXTS),
    ("varchar(20)", pl.String(), TEXTS),
    ("bytea", pl.Binary(), st.binary(max_size=20)),
    ("date", pl.Date(), st.dates()),
    ("time", pl.Time(), st.times()),
    ("timestamp", pl.Datetime("us"), MOMENTS),
    ("timestamptz", pl.Datetime("us", "UTC"), MOMENTS.map(lambda moment: moment.replace(tzinfo=dt.UTC))),
    ("uuid", pl.String(), st.uuids()),
    ("text[]", pl.List(pl.String()), st.lists(st.none() | TEXTS, max_size=3)),
]
_SENT: dict[type, Callable[[Any], Any]] = {uuid.UUID: str}


@st.composite
def tables(draw: st.DrawFn) -> list[tuple[str, pl.DataType, list[Any]]]:
    height = draw(st.integers(0, 5))
    chosen = draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=6))
    return [(pg, dtype, draw(st.lists(st.none() | st_, min_size=height, max_size=height))) for pg, dtype, st_ in chosen]


@pytest.mark.parametrize("mode", ["append", "overwrite", "upsert"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(columns=tables())
def test_any_frame_that_fits_is_there_as_it_was(
    mode: str,
    columns: list[tuple[str, pl.DataType, list[Any]]],
    target: Callable[..., Database],
    load: Callable[..., Published],
    connect: Callable[[], psycopg.Connection],
) -> None:
    height = len(columns[0][2])
    ddl = "".join(f', "c {n}" {pg}' for n, (pg, _dtype, _values) in enumerate(columns))
    connection = connect()
    connection.execute("SET timezone TO 'UTC'")
    connection.execute(f"DROP TABLE IF EXISTS t; CREATE TABLE t (id bigint PRIMARY KEY{ddl})")
    frame = pl.DataFrame({"id": pl.Series(range(height), dtype=pl.Int64)}).with_columns(
        pl.Series(f"c {n}", [_SENT.get(type(value), lambda same: same)(value) for value in values], dtype)
        for n, (_pg, dtype, values) in enumerate(columns)
    )

    load(target(write_mode=mode, allow_empty=True, **({"primary_key": "id"} if mode == "upsert" else {})), frame)

    found = connection.execute("SELECT * FROM t ORDER BY id", binary=True).fetchall()  # texts of real are shorter
    assert found == list(zip(range(height), *(values for _pg, _dtype, values in columns), strict=True))
