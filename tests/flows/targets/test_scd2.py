from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flows import pipeline
from flows._config import load as load_config
from flows._errors import LoadError, RefusedError, TargetMissingError, TargetTypeError
from flows._ledger import RunRecord
from flows.targets._base import Published
from flows.targets.database import Database

pytestmark = pytest.mark.postgres
Make = Callable[..., Database]
Load = Callable[..., Published]
Connect = Callable[[], psycopg.Connection]

START = datetime(2024, 1, 1, tzinfo=UTC)


def people(rows: dict[int | None, str | None] | list[tuple[int | None, str | None]]) -> pl.DataFrame:
    listed = list(rows.items()) if isinstance(rows, dict) else rows
    return pl.DataFrame(listed, schema={"id": pl.Int64, "city": pl.String}, orient="row")


def at(hour: int) -> RunRecord:
    """The record of a run that started in that hour."""
    record = RunRecord.start("test", "t", "1")
    record.started_at = START + timedelta(hours=hour)
    return record


def rows(connection: psycopg.Connection, query: str = "SELECT * FROM t ORDER BY id, valid_from") -> list[tuple]:
    return connection.execute(query).fetchall()


@pytest.fixture
def versions(target: Make) -> Make:
    return lambda **keys: target(write_mode="scd2", **({"primary_key": "id"} | keys))


def test_a_change_closes_a_version_and_begins_the_next(versions: Make, load: Load, connect: Connect) -> None:
    first = load(versions(), people({1: "Rome", 2: "Oslo"}), record=at(1))
    second = load(versions(), people({1: "Bonn", 2: "Oslo", 3: None}), record=at(2))

    assert first == Published(2, how="created")
    assert second == Published(2, unchanged=1, closed=1, how="new versions")
    one, two = START + timedelta(hours=1), START + timedelta(hours=2)
    assert rows(connect()) == [
        (1, "Rome", one, two, False),
        (1, "Bonn", two, None, True),
        (2, "Oslo", one, None, True),
        (3, None, two, None, True),
    ]


def test_the_same_load_again_changes_nothing(versions: Make, load: Load, connect: Connect) -> None:
    frame = people({1: "Rome", 2: None})
    load(versions(), frame, record=at(1))
    before = rows(connect(), "SELECT t.*, xmin, ctid FROM t ORDER BY id")

    record = at(2)
    published = load(versions(scd2={"hard_deletes": "close"}), frame, record=record)

    assert published == Published(0, unchanged=2, how="new versions")
    assert record.status == "unchanged"
    assert rows(connect(), "SELECT t.*, xmin, ctid FROM t ORDER BY id") == before


def test_the_table_is_made_with_its_columns_and_one_current_version_a_key(
    versions: Make, load: Load, connect: Connect
) -> None:
    names = {"valid_from": "since", "valid_to": "until", "is_current": "now"}
    load(versions(scd2=names), people({1: "Rome"}))

    columns = """SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
                 WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum"""
    assert rows(connect(), columns) == [
        ("id", "bigint", True),
        ("city", "text", False),
        ("since", "timestamp with time zone", True),
        ("until", "timestamp with time zone", False),
        ("now", "boolean", True),
    ]
    with pytest.raises(psycopg.errors.UniqueViolation):
        connect().execute("INSERT INTO t VALUES (1, 'x', now(), NULL, true)")
    connect().execute("INSERT INTO t VALUES (1, 'x', now(), now(), false)")


def test_rows_that_are_missing_are_closed_only_where_that_is_asked(
    versions: Make, load: Load, connect: Connect
) -> None:
    load(versions(), people({1: "Rome", 2: "Oslo"}), record=at(1))

    assert not load(versions(), people({1: "Rome"}), record=at(2)).changed
    closing = versions(scd2={"hard_deletes": "close"})
    closed = load(closing, people({1: "Rome"}), record=at(3))
    assert closed == Published(0, unchanged=1, closed=1, how="new versions", removed=1, before=2)
    assert load(closing, people({1: "Rome", 2: "Oslo"}), record=at(4)).inserted == 1
    assert [row[2:] for row in rows(connect()) if row[0] == 2] == [
        (START + timedelta(hours=1), START + timedelta(hours=3), False),
        (START + timedelta(hours=4), None, True),
    ]


def test_closing_everything_is_refused(versions: Make, load: Load) -> None:
    closing = {"scd2": {"hard_deletes": "close"}}
    load(versions(**closing), people({1: "Rome"}), record=at(1))

    with pytest.raises(RefusedError, match=r"the load is empty.*allow_empty: true"):
        load(versions(**closing), people({}), record=at(2))
    assert load(versions(**closing, allow_empty=True), people({}), record=at(2)).closed == 1


def test_only_tracked_columns_make_a_version(versions: Make, load: Load) -> None:
    def frame(city: str, seen: int) -> pl.DataFrame:
        return people({1: city}).with_columns(seen=pl.lit(seen))

    tracked = versions(scd2={"tracked_columns": "city"})
    load(tracked, frame("Rome", 1), record=at(1))

    assert load(tracked, frame("Rome", 2), record=at(2)).unchanged == 1
    assert load(tracked, frame("Bonn", 2), record=at(3)).inserted == 1


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
def test_a_delivered_column_can_say_since_when(kind: str, versions: Make, load: Load, connect: Connect) -> None:
    connection = connect()
    connection.execute("SET timezone = 'Asia/Tokyo'")

    def frame(city: str, day: int) -> pl.DataFrame:
        moment = pl.lit(datetime(2024, 5, day)).cast(pl.Date if kind == "date" else pl.Datetime("us"))
        return people({1: city}).with_columns(
            since=moment.dt.replace_time_zone("UTC") if kind == "timestamptz" else moment
        )

    timed = versions(scd2={"effective_at": "since"})
    load(timed, frame("Rome", 1))
    load(timed, frame("Bonn", 3))

    found = rows(connection, "SELECT valid_from, valid_to FROM t ORDER BY 1")
    assert found == [(datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 3, tzinfo=UTC)), (found[0][1], None)]
    with pytest.raises(RefusedError, match=r"1 row would change the past: 'since' is not after the last change"):
        load(timed, frame("Oslo", 2))
    with pytest.raises(LoadError, match=r"'since' is null"):
        load(timed, frame("Oslo", 4).with_columns(since=pl.lit(None).cast(frame("x", 1).schema["since"])))


def test_a_load_that_comes_too_late_is_refused(versions: Make, load: Load, connect: Connect) -> None:
    load(versions(), people({1: "Rome", 2: "Oslo"}), record=at(2))
    before = rows(connect())

    with pytest.raises(RefusedError) as refused:
        load(versions(), people({1: "Bonn", 2: "Oslo"}), record=at(1))

    assert str(refused.value) == (
        "target t: 1 row would change the past: the start of the run is not after the last change that the table has "
        "there. Load changes in the order in which they happened, oldest first."
    )
    assert rows(connect()) == before
    with pytest.raises(RefusedError, match="1 row would change the past"):
        load(versions(scd2={"hard_deletes": "close"}), people({1: "Rome"}), record=at(1))


def test_a_row_that_comes_back_begins_after_it_went(versions: Make, load: Load) -> None:
    closing = versions(scd2={"hard_deletes": "close"})
    load(closing, people({1: "Rome", 2: "Oslo"}), record=at(1))
    load(closing, people({1: "Rome"}), record=at(5))

    with pytest.raises(RefusedError, match="1 row would change the past"):
        load(versions(), people({2: "Oslo"}), record=at(3))
    assert load(versions(), people({2: "Oslo"}), record=at(6)).inserted == 1


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (people([(1, "a"), (1, "b")]), "several rows share a key"),
        (people([(None, "a")]), r"a row has no key \('id' is null\)"),
        (people({1: "a"}).with_columns(valid_to=pl.lit(1)), "column 'valid_to' is kept by scd2"),
    ],
    ids=["twice", "no key", "own column"],
)
def test_what_cannot_be_a_version_is_refused(frame: pl.DataFrame, said: str, versions: Make, load: Load) -> None:
    with pytest.raises(LoadError, match=said):
        load(versions(), frame)


def test_a_table_without_the_columns_is_told_what_to_add(versions: Make, load: Load, connect: Connect) -> None:
    connect().execute("CREATE TABLE t (id bigint, city text)")
    with pytest.raises(
        TargetMissingError, match=r"in column 'valid_from', and the table has none. Add \"valid_from\" timestamptz"
    ):
        load(versions(), people({1: "a"}))
    connect().execute("ALTER TABLE t ADD valid_from date, ADD valid_to date, ADD is_current bool")
    with pytest.raises(TargetTypeError, match="column 'valid_from' is date; scd2 needs timestamptz or timestamp there"):
        load(versions(), people({1: "a"}))


def test_a_table_of_naive_timestamps_keeps_them_in_utc(versions: Make, load: Load, connect: Connect) -> None:
    connection = connect()
    connection.execute(
        "CREATE TABLE t (id bigint, city text, valid_from timestamp, valid_to timestamp, is_current bool)"
    )
    connection.execute(f"ALTER DATABASE {connection.info.dbname} SET timezone = 'Asia/Tokyo'")
    load(versions(), people({1: "Rome"}), record=at(1))
    load(versions(), people({1: "Bonn"}), record=at(2))

    one, two = datetime(2024, 1, 1, 1), datetime(2024, 1, 1, 2)
    assert rows(connection) == [(1, "Rome", one, two, False), (1, "Bonn", two, None, True)]


def test_a_partitioned_table_keeps_history(versions: Make, load: Load, connect: Connect) -> None:
    connect().execute(
        "CREATE TABLE t (id bigint, city text, valid_from timestamptz, valid_to timestamptz, is_current bool) "
        "PARTITION BY HASH (id); CREATE TABLE t0 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        "CREATE TABLE t1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1)"
    )
    load(versions(), people(dict.fromkeys(range(40), "Rome")), record=at(1))
    changed = {n: "Bonn" if n % 10 == 0 else "Rome" for n in range(40)}

    assert load(versions(), people({**changed}), record=at(2)) == Published(
        4, unchanged=36, closed=4, how="new versions"
    )
    assert dict(rows(connect(), "SELECT id, city FROM t WHERE is_current")) == changed
    assert rows(connect(), "SELECT DISTINCT id % 10 FROM t WHERE NOT is_current") == [(0,)]


def test_a_trigger_that_keeps_a_version_out_stops_the_load(versions: Make, load: Load, connect: Connect) -> None:
    load(versions(), people({1: "Rome"}), record=at(1))
    connect().execute(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()"
    )

    with pytest.raises(Exception, match="the ledger does not balance"):
        load(versions(), people({1: "Bonn"}), record=at(2))
    assert len(rows(connect())) == 1


def test_a_key_is_needed(target: Make) -> None:
    with pytest.raises(ValidationError, match="scd2 needs a key"):
        target(write_mode="snapshot")


def test_readers_see_one_version_of_every_row(versions: Make, load: Load, connect: Connect) -> None:
    load(versions(), people(dict.fromkeys(range(500), "a")), record=at(0))
    reader = connect()
    seen: set[tuple[int, int]] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.update(reader.execute("SELECT count(*), count(DISTINCT city) FROM t WHERE is_current").fetchall())

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for hour in range(1, 7):
            load(versions(), people(dict.fromkeys(range(500), "ab"[hour % 2])), record=at(hour))
    finally:
        done.set()
        thread.join()

    assert seen == {(500, 1)}


#: Loads in order: of some ids, a city each, or none for null.
LOADS = st.lists(
    st.dictionaries(st.integers(1, 4), st.sampled_from(["Rome", "Oslo", "Rome ", "", None]), min_size=1, max_size=4),
    min_size=1,
    max_size=6,
)


@pytest.fixture
def connection(connect: Connect) -> Iterator[psycopg.Connection]:
    return connect()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(loads=LOADS, closes=st.booleans())
def test_every_moment_has_the_state_of_its_load(
    loads: list[dict[int, str | None]], closes: bool, versions: Make, load: Load, connection: psycopg.Connection
) -> None:
    connection.execute("DROP TABLE IF EXISTS t")
    keeping = versions(scd2={"hard_deletes": "close" if closes else "ignore"})
    states: list[dict[int, str | None]] = []
    for hour, rows_ in enumerate(loads):
        record = at(hour)
        load(keeping, people({**rows_}), record=record)
        states.append(rows_ if closes else {**(states[-1] if states else {}), **rows_})
        assert record.rows.written + record.rows.unchanged == record.staged == len(rows_)

    for hour, state in enumerate(states):
        for minutes in (0, 59):  # half-open: a version is true at its first instant, and not at its last
            moment = START + timedelta(hours=hour, minutes=minutes)
            true_then = "SELECT id, city FROM t WHERE valid_from <= %s AND (valid_to IS NULL OR valid_to > %s)"
            assert sorted(connection.execute(true_then, (moment, moment)), key=str) == sorted(state.items(), key=str)
    overlaps = """SELECT count(*) FROM t a JOIN t b ON a.id = b.id AND a.ctid <> b.ctid
                  AND tstzrange(a.valid_from, a.valid_to) && tstzrange(b.valid_from, b.valid_to)"""
    assert rows(connection, overlaps) == [(0,)]
    assert rows(connection, "SELECT count(*) FROM t WHERE is_current <> (valid_to IS NULL)") == [(0,)]
    current = rows(connection, "SELECT id, city FROM t WHERE is_current")
    assert sorted(current, key=str) == sorted(states[-1].items(), key=str)


CONFIG = """
pipelines:
  people:
    type: batch
    source: {{type: database, connection_string: "{uri}", schema: {{table: source}}}}
    target:
      type: database
      connection_string: "{uri}"
      table_name: t
      write_mode: snapshot
      primary_key: id
      scd2: {{valid_to: until, hard_deletes: close}}
"""


def test_from_yaml(database: str, connect: Connect, tmp_path: Path) -> None:
    connection = connect()
    connection.execute("CREATE TABLE source AS SELECT g AS id, 'Rome' AS city FROM generate_series(1, 3) g")
    config = tmp_path / "people.yaml"
    config.write_text(CONFIG.format(uri=database))
    configured = load_config(config).pipeline("people")
    schema = pl.Schema({"id": pl.Int32(), "city": pl.String()})

    assert configured.target.plan(schema) == [
        (
            'CREATE TABLE "public"."t" ("id" int4 NOT NULL, "city" text, "valid_from" timestamptz NOT NULL, '
            '"until" timestamptz, "is_current" bool NOT NULL)'
        ),
        'CREATE UNIQUE INDEX ON "public"."t" ("id") WHERE "is_current"',
    ]
    first: Any = pipeline.run(configured)
    connection.execute("UPDATE source SET city = 'Bonn' WHERE id = 1; DELETE FROM source WHERE id = 2")
    assert configured.target.plan(schema) == [
        (
            'add versions to "public"."t" by (id), equal rows are left alone, '
            "and those that the load does not have any more are closed"
        )
    ]
    second: Any = pipeline.run(configured)

    assert (first.rows.written, second.rows.written, second.rows.unchanged) == (3, 1, 1)
    assert second.as_json()["stages"][-1]["closed"] == 2
    assert rows(connection, "SELECT id, city FROM t WHERE is_current ORDER BY 1") == [(1, "Bonn"), (3, "Rome")]
