"""A big table in ranges: every row once, in one order, from one view, of every database that has such."""

import datetime as dt
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from flows._errors import ExtractError, SourceMissingError, SourceTypeError
from flows.sources import _snapshots, _splits
from flows.sources._base import Extract, Pushdown
from flows.sources._splits import Key
from flows.sources.database import Database

pytestmark = pytest.mark.postgres

ROWS = 1_000


class Place(ABC):
    """A database with a table `t`, of which every seventh key is null."""

    hidden: str

    @abstractmethod
    def run(self, *statements: str) -> None:
        """Run statements, in one transaction."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The connection string."""

    def fill(self) -> None:
        values = []
        for i in range(ROWS):
            day = dt.date(2024, 1, 1) + dt.timedelta(days=i % 400)
            at = dt.datetime(2024, 1, 1) + dt.timedelta(minutes=i * 7)
            keys = "NULL, NULL, NULL, NULL" if i % 7 == 0 else f"{i * 3}, {i**5}, '{day}', '{at}'"
            values.append(f"({keys}, 'row {i}')")
        self.run('CREATE TABLE t (id INTEGER, skewed BIGINT, day DATE, "at" TIMESTAMP, name TEXT)')
        self.run(f"INSERT INTO t VALUES {', '.join(values)}")

    def scan(self, query: str | None = None, **keys: Any) -> Extract:
        origin = {"query": query} if query else {"schema": {"table": "t"}}
        return Database.model_validate({"connection_string": self.url} | origin | keys).scan("big")


class Postgres(Place):
    hidden = "ctid"

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @property
    def url(self) -> str:
        return self.uri

    def run(self, *statements: str) -> None:
        with psycopg.connect(self.uri) as connection:
            for statement in statements:
                connection.execute(statement)


class Sqlite(Place):
    hidden = "rowid"

    def __init__(self, folder: Path) -> None:
        self.file = folder / "t.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.file}"

    def run(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.file)) as connection, connection:
            for statement in statements:
                connection.execute(statement)


class Duckdb(Place):
    hidden = "rowid"

    def __init__(self, folder: Path) -> None:
        self.file = folder / "t.duckdb"

    @property
    def url(self) -> str:
        return f"duckdb:///{self.file}"

    def run(self, *statements: str) -> None:
        with closing(duckdb.connect(self.file)) as connection:
            for statement in statements:
                connection.execute(statement)


#: What others can write while it is read; for the third, see test_duckdb.
WRITABLE = ["postgres", "sqlite"]


@pytest.fixture(params=[*WRITABLE, "duckdb"])
def place(request, tmp_path) -> Place:
    if request.param == "postgres":
        return Postgres(request.getfixturevalue("database"))
    return Sqlite(tmp_path) if request.param == "sqlite" else Duckdb(tmp_path)


def read(extract: Extract, ask: Pushdown = Pushdown()) -> pl.DataFrame:  # noqa: B008 - frozen
    names = ask.columns if ask.columns is not None else tuple(extract.schema)
    empty = pl.DataFrame(schema={name: extract.schema[name] for name in names})
    return pl.concat([empty, *extract.read(ask)])


@pytest.mark.parametrize("key", ["id", "skewed", "day", "at", "hidden"])
def test_every_row_comes_once_in_the_order_of_the_key_and_nulls_last(place, key):
    place.fill()
    whole = read(place.scan())
    key = place.hidden if key == "hidden" else key
    splitted = place.scan(split_on=key, splits=7)

    rows = read(splitted)

    assert_frame_equal(rows, whole, check_row_order=False)
    assert_frame_equal(read(splitted), rows)
    assert_frame_equal(read(place.scan(split_on=key, splits=7)), rows)
    assert_frame_equal(splitted.frame.collect(), rows)
    if key == place.hidden:
        assert_frame_equal(rows, whole)
    else:
        keys = rows[key]
        assert keys.tail(keys.null_count()).null_count() == keys.null_count() == -(-ROWS // 7)


def test_a_plan_asks_of_every_range_what_it_asks_of_a_table(place):
    place.fill()
    whole, splitted = read(place.scan()), place.scan(split_on="id", splits=5)
    wanted = (pl.col("id") > 900) & (pl.col("name") != "row 500")

    found = splitted.frame.filter(wanted).select("name", "id").collect()

    assert_frame_equal(found, whole.filter(wanted).select("name", "id"), check_row_order=False)
    rows = read(splitted)
    for limit in (0, 1, 250, 5_000):
        assert_frame_equal(read(splitted, Pushdown(limit=limit)), rows.head(limit))
        assert_frame_equal(splitted.frame.head(limit).filter(wanted).collect(), rows.head(limit).filter(wanted))


def test_a_query_is_split_too(place):
    place.fill()
    query = "SELECT id, count(*) AS n FROM t GROUP BY id"

    rows = read(place.scan(query, split_on="id", splits=4))

    assert rows.height == len(set(read(place.scan())["id"]))
    assert rows["n"].sum() == ROWS


@pytest.mark.parametrize(
    "values", ["", "(NULL)", "(5)", "(5), (5), (NULL)", "(9223372036854775807), (-9223372036854775808)"]
)
def test_few_keys_or_none_or_the_farthest(place, values):
    place.run("CREATE TABLE t (id BIGINT)")
    if values:
        place.run(f"INSERT INTO t VALUES {values}")

    rows = read(place.scan(split_on="id", splits=16))

    assert_frame_equal(rows, read(place.scan()), check_row_order=False)


@pytest.mark.parametrize("place", WRITABLE, indirect=True)
def test_every_range_sees_the_same_rows_while_others_write(place):
    place.fill()
    if isinstance(place, Sqlite):
        place.run("PRAGMA journal_mode = WAL")
    with _snapshots.shared():
        extract = place.scan(split_on="id", splits=12, batch_bytes=64_000)
        before = read(extract)
        batches = extract.read(Pushdown())
        first = next(batches)

        place.run("UPDATE t SET id = 3000 - id", "DELETE FROM t WHERE id < 100", "INSERT INTO t (id) VALUES (1)")

        assert_frame_equal(pl.concat([first, *batches]), before)
        assert_frame_equal(read(extract), before)
    assert read(place.scan(split_on="id")).height != before.height


@pytest.mark.parametrize("place", WRITABLE, indirect=True)
def test_outside_of_a_run_a_read_has_one_view_of_its_own(place):
    place.fill()
    if isinstance(place, Sqlite):
        place.run("PRAGMA journal_mode = WAL")
    extract = place.scan(split_on="id", splits=12)
    batches = extract.read(Pushdown(("id",)))
    first = next(batches)

    place.run("DELETE FROM t")

    assert pl.concat([first, *batches]).height == ROWS
    assert read(extract).height == 0


def test_what_cannot_be_split_is_refused_before_a_row_is_read(place):
    place.fill()

    with pytest.raises(SourceTypeError, match=r"split_on 'name' is String, which has no even parts\. Name"):
        place.scan(split_on="name")
    with pytest.raises(SourceMissingError, match=r"no column 'idd'\. Did you mean 'id'"):
        place.scan(split_on="idd")
    with pytest.raises(SourceMissingError, match=f"no column '{place.hidden}'"):
        place.scan("SELECT id FROM t", split_on=place.hidden)
    with pytest.raises(ValidationError, match="'splits' needs 'split_on'"):
        place.scan(splits=4)


def test_an_error_in_a_range_is_the_error_of_the_read(place):
    place.fill()
    if isinstance(place, Sqlite):
        place.run("UPDATE t SET id = 'five' WHERE id = 1500")
        extract = place.scan(split_on="id", splits=9)
    else:
        query = "SELECT id, CAST(CASE WHEN id = 1500 THEN 'five' ELSE '1' END AS INTEGER) AS v FROM t"
        extract = place.scan(query, split_on="id", splits=9)
    threads = threading.active_count()

    with pytest.raises(ExtractError, match="five"):
        read(extract)

    deadline = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= threads


def test_ranges_of_postgres_are_read_at_the_same_time_and_a_reader_that_stops_leaves_nothing(database):
    place = Postgres(database)
    place.run("CREATE TABLE t AS SELECT i AS id, repeat('x', 500) AS s FROM generate_series(1, 20000) AS i")
    with psycopg.connect(database, autocommit=True) as watcher:

        def sessions() -> int:
            row = watcher.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone()
            return row[0] if row else 0

        batches = place.scan(split_on="ctid", splits=8, batch_bytes=64_000).read(Pushdown())
        next(batches)
        assert sessions() >= 4
        batches.close()

        deadline = time.monotonic() + 10
        while sessions() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert sessions() == 0


def test_infinite_days_are_in_a_range_too(database):
    place = Postgres(database)
    place.run(
        "CREATE TABLE t (id int, day date, at timestamptz)",
        "INSERT INTO t SELECT i, DATE '2024-01-01' + i, TIMESTAMPTZ '2024-01-01' + i * interval '1 hour' "
        "FROM generate_series(1, 50) AS i",
        "INSERT INTO t VALUES (51, 'infinity', '-infinity'), (52, '-infinity', 'infinity')",
        "INSERT INTO t VALUES (53, '5874897-12-31', NULL)",
    )

    for key in ("day", "at"):
        rows = read(place.scan(split_on=key, splits=6), Pushdown(("id",)))
        assert sorted(rows["id"]) == list(range(1, 54))


@settings(max_examples=40, deadline=None)
@given(st.integers(-(2**63), 2**63), st.integers(0, 2**63), st.integers(2, 40), st.booleans())
def test_the_conditions_part_all_keys(low, width, ranges, has_nulls):
    conditions = _splits.conditions(Key("k", "", has_nulls=has_nulls), (low, low + width), ranges)

    keys = {low, low + width, low - 1, low + width + 1, low + width // 2, low + width // 3, None if has_nulls else low}
    said = " + ".join(f"coalesce({condition}, false)::INT" for condition in conditions)
    literals = ", ".join("(NULL::HUGEINT)" if key is None else f"({key}::HUGEINT)" for key in keys)
    with closing(duckdb.connect()) as connection:
        met = connection.execute(f"SELECT {said} FROM (VALUES {literals}) AS t (k)").fetchall()
    assert met == [(1,)] * len(keys)
    assert len(conditions) <= ranges + 1


def test_items_come_reader_by_reader_and_only_so_many_work():
    working, most = 0, 0
    lock = threading.Lock()

    def reader(number: int) -> Iterator[tuple[int, int]]:
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
        for item in range(20):
            yield number, item
        with lock:
            working -= 1

    items = list(_splits.in_order([lambda n=n: reader(n) for n in range(12)], 3))

    assert items == [(number, item) for number in range(12) for item in range(20)]
    assert 2 <= most <= 3
