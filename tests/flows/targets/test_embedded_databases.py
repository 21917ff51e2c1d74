from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import adbc_driver_sqlite.dbapi
import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows._errors import (
    LoadError,
    RefusedError,
    TargetBusyError,
    TargetMissingError,
    TargetPermissionError,
    TargetTypeError,
)
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.targets import _sqlite
from flows.targets._base import Published
from flows.targets.database import Database
from validations._contract import BoundRule, Contract
from validations._rule import rules

Make = Callable[..., Database]
Load = Callable[..., Published]
Rows = Callable[..., list[tuple[Any, ...]]]
START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "duckdb"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def file(kind: str, tmp_path: Path) -> Path:
    return tmp_path / f"target.{kind}"


@pytest.fixture
def target(kind: str, file: Path) -> Make:
    """Makes targets in this test's file; keyword arguments are YAML keys."""

    def make(**keys: Any) -> Database:
        given_keys = {"connection_string": f"{kind}:///{file}", "table_name": "t", "lock_timeout_seconds": 2} | keys
        return Database.model_validate(given_keys)

    return make


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Stages frames in a chamber of a target, and publishes them."""

    def publish(target: Database, *frames: pl.DataFrame, record: RunRecord | None = None) -> Published:
        record = record or RunRecord.start("test", target.label, "1")
        record.rows.read = sum(frame.height for frame in frames)
        with target.open(record, frames[0].schema) as chamber:
            for frame in frames:
                chamber.stage(frame)
            record.staged = chamber.seal()
            return chamber.publish(record, Quarantine(tmp_path / record.run_id))

    return publish


@pytest.fixture
def rows(kind: str, file: Path) -> Rows:
    """Runs a statement in the file, by a client of its own."""

    def run(*statements: str) -> list[tuple[Any, ...]]:
        connect: Any = sqlite3.connect if kind == "sqlite" else duckdb.connect
        with closing(connect(str(file))) as connection:
            for statement in statements:
                found = connection.execute(statement).fetchall()
            if kind == "sqlite":
                connection.commit()
        return [tuple(row) for row in found]

    return run


def people(*ids: int | None, name: str = "n") -> pl.DataFrame:
    return pl.DataFrame({"id": ids, "name": [f"{name}{i}" for i in ids]}, schema={"id": pl.Int64, "name": pl.String})


ALL = "SELECT * FROM t ORDER BY 1, 2"


# --- write modes ---


@pytest.mark.parametrize("mode", ["append", "overwrite", "upsert", "delete_insert"])
def test_every_mode_makes_a_missing_table_with_its_key(mode: str, target: Make, load: Load, rows: Rows) -> None:
    assert load(target(write_mode=mode, primary_key="id"), people(1, 2)) == Published(2, how="created")
    assert rows(ALL) == [(1, "n1"), (2, "n2")]
    with pytest.raises((sqlite3.IntegrityError, duckdb.ConstraintException)):
        rows("INSERT INTO t VALUES (1, 'x')")


def test_append_adds(target: Make, load: Load, rows: Rows) -> None:
    load(target(), people(1))

    assert load(target(), people(1), people(3)) == Published(2, how="appended")
    assert rows(ALL) == [(1, "n1"), (1, "n1"), (3, "n3")]


KEPT = """
CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR NOT NULL DEFAULT 'x' CHECK (name <> ''), extra INTEGER DEFAULT 7);
CREATE INDEX by_name ON t (name); CREATE UNIQUE INDEX two ON t (name, extra); CREATE VIEW v AS SELECT * FROM t;
INSERT INTO t VALUES (1, 'old', 1), (9, 'old', 2)
"""


def test_overwrite_keeps_what_hangs_on_the_table(target: Make, load: Load, rows: Rows, kind: str) -> None:
    rows(*KEPT.split(";"))
    catalogue = "SELECT sql FROM sqlite_master WHERE name IN ('t', 'by_name', 'two', 'v') ORDER BY name"
    before = rows(catalogue)

    published = load(target(write_mode="replace"), people(1, 2))

    assert published == Published(2, deleted=2, how="rewritten in place")
    assert rows("SELECT * FROM v ORDER BY 1") == [(1, "n1", 7), (2, "n2", 7)]
    assert rows(catalogue) == before
    assert len(before) == 4


def test_overwriting_with_nothing_is_refused(target: Make, load: Load, rows: Rows) -> None:
    load(target(write_mode="overwrite"), people(1))

    with pytest.raises(RefusedError, match=r"target t: the load is empty.*Set target.allow_empty: true"):
        load(target(write_mode="overwrite"), people())

    assert rows(ALL) == [(1, "n1")]
    assert load(target(write_mode="overwrite", allow_empty=True), people()).deleted == 1


@pytest.mark.parametrize("key", [" PRIMARY KEY", ""], ids=["with a unique key", "without"])
def test_upsert_counts_inserted_updated_and_unchanged(key: str, target: Make, load: Load, rows: Rows) -> None:
    rows(f"CREATE TABLE t (id BIGINT{key}, name VARCHAR)", "INSERT INTO t VALUES (1, 'n1'), (2, NULL), (9, 'n9')")
    merging = target(write_mode="merge", primary_key="id")

    assert load(merging, people(1, 2, 3)) == Published(1, 1, 1, how="merged")
    assert rows(ALL) == [(1, "n1"), (2, "n2"), (3, "n3"), (9, "n9")]
    assert not load(merging, people(1, 2, 3)).changed
    assert load(merging, people(1).with_columns(name=pl.lit(None, pl.String))).updated == 1


def test_upsert_of_nothing_but_a_key(target: Make, load: Load, rows: Rows) -> None:
    merging = target(write_mode="upsert", primary_key=["id"])
    load(merging, people(1).select("id"))

    assert load(merging, people(1, 2).select("id")) == Published(1, unchanged=1, how="merged")


def test_upsert_by_several_columns_tells_zeros_and_nan_apart(target: Make, load: Load, kind: str) -> None:
    def frame(*values: float | None) -> pl.DataFrame:
        return pl.DataFrame({"a": range(len(values)), "b": ["x"] * len(values), "f": values}, strict=False)

    merging = target(write_mode="upsert", primary_key=["a", "b"])
    load(merging, frame(0.0, None, 1.5, float("inf")))

    assert load(merging, frame(-0.0, 2.0, 1.5, float("inf"))).updated == (2 if kind == "duckdb" else 1)
    if kind == "duckdb":
        load(merging, frame(float("nan")))
        assert load(merging, frame(float("nan"))).unchanged == 1


def test_an_upper_case_letter_is_a_change_whatever_the_collation(target: Make, load: Load, rows: Rows) -> None:
    rows("CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR COLLATE NOCASE)", "INSERT INTO t VALUES (1, 'N1')")

    assert load(target(write_mode="upsert"), people(1)).updated == 1
    assert rows(ALL) == [(1, "n1")]


LINES = "CREATE TABLE t (customer VARCHAR, line BIGINT)"
FOUR = "INSERT INTO t VALUES ('a', 1), ('a', 2), ('b', 1), (NULL, 1)"


def lines(*given_rows: tuple[str | None, int]) -> pl.DataFrame:
    return pl.DataFrame(given_rows, schema={"customer": pl.String, "line": pl.Int64}, orient="row")


@pytest.mark.parametrize("key", [["customer"], ["customer", "line"]])
def test_delete_insert_replaces_rows_that_share_a_key(key: list[str], target: Make, load: Load, rows: Rows) -> None:
    rows(LINES, FOUR)
    by_key = target(write_mode="delete_insert", delete_key=key)

    for _again in range(2):
        published = load(by_key, lines(("a", 2), ("d", 1)))

    assert published == Published(2, deleted=2, how="deleted and inserted")
    left = [("a", 2), ("b", 1), ("d", 1)] if len(key) == 1 else [("a", 1), ("a", 2), ("b", 1), ("d", 1)]
    assert sorted(row for row in rows(ALL) if row[0]) == left
    assert load(by_key, lines()).deleted == 0
    with pytest.raises(LoadError, match=r"a row has no key .*'customer'.* is null\)\. Add a 'not_null' rule"):
        load(by_key, lines((None, 1)))


DAYS = {
    "date": (pl.Date(), "2024-01-03", "2024-01-06"),
    "naive": (pl.Datetime("us"), "2024-01-03", "2024-01-06T00:00"),
    "zoned": (pl.Datetime("us", "UTC"), "2024-01-03T01:00+01:00", datetime(2024, 1, 6, tzinfo=UTC)),
}


@pytest.mark.parametrize(("dtype", "first", "end"), DAYS.values(), ids=DAYS)
def test_delete_insert_replaces_a_range(
    dtype: pl.DataType, first: str, end: str | datetime, target: Make, load: Load, rows: Rows
) -> None:
    def days(*of_month: int | None, n: int = 0) -> pl.DataFrame:
        moments = pl.Series([None if day is None else START + timedelta(days=day - 1) for day in of_month])
        moments = moments.cast(pl.Datetime("us", "UTC"))
        zoned = isinstance(dtype, pl.Datetime) and dtype.time_zone
        return pl.DataFrame({"day": moments if zoned else moments.dt.replace_time_zone(None).cast(dtype)}).with_columns(
            n=n
        )

    load(target(), days(*range(1, 10)))
    given_range = target(write_mode="delete_insert", delete_range={"column": "day", "from": first, "to": end})
    spanned = target(write_mode="delete_insert", delete_range={"column": "day"})

    replaced = load(given_range, days(4, n=1))
    assert replaced == Published(1, deleted=3, how="deleted and inserted", removed=2, before=9)
    assert load(spanned, days(7, 9, n=2)).deleted == 3
    assert rows("SELECT count(*), sum(n) FROM t") == [(6, 5)]
    with pytest.raises(RefusedError, match=r"and 1 row of the load is outside of it"):
        load(given_range, days(3, 6))
    with pytest.raises(RefusedError, match=r"1 row of the load has no value there"):
        load(spanned, days(3, None))
    with pytest.raises(RefusedError, match="the load is empty"):
        load(given_range, days())
    assert load(spanned, days()).deleted == 0


def test_rows_that_others_point_at_stay(target: Make, load: Load, rows: Rows, kind: str) -> None:
    rows(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR)",
        "INSERT INTO t VALUES (1, 'n1'), (2, 'x'), (3, 'x')",
        f"CREATE TABLE child (id BIGINT REFERENCES t (id){' ON DELETE CASCADE' if kind == 'sqlite' else ''})",
        "INSERT INTO child VALUES (1), (2)",
    )

    published = load(target(write_mode="overwrite"), people(1, 2, 4))

    assert published == Published(1, 1, 1, 1, how="merged in place")
    assert rows("SELECT count(*) FROM child") == [(2,)]
    with pytest.raises(LoadError, match=r"(?i)foreign key"):
        load(target(table_name="child"), people(7).select("id"))


# --- versions ---


def at(hour: int) -> RunRecord:
    record = RunRecord.start("test", "t", "1")
    record.started_at = START + timedelta(hours=hour)
    return record


def cities(of: dict[int, str | None]) -> pl.DataFrame:
    return pl.DataFrame(list(of.items()), schema={"id": pl.Int64, "city": pl.String}, orient="row")


#: Loads in order: of some ids, a city each, or none for null.
LOADS = st.lists(
    st.dictionaries(st.integers(1, 4), st.sampled_from(["Rome", "rome", "Rome ", "", None]), min_size=1, max_size=4),
    min_size=1,
    max_size=4,
)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(loads=LOADS, closes=st.booleans())
def test_every_moment_has_the_state_of_its_load(
    loads: list[dict[int, str | None]], closes: bool, target: Make, load: Load, rows: Rows, kind: str
) -> None:
    rows("DROP TABLE IF EXISTS t")
    keeping = target(write_mode="scd2", primary_key="id", scd2={"hard_deletes": "close" if closes else "ignore"})
    states: list[dict[int, str | None]] = []
    for hour, delivered in enumerate(loads):
        record = at(hour)
        load(keeping, cities(delivered), record=record)
        states.append(delivered if closes else {**(states[-1] if states else {}), **delivered})
        assert record.rows.written + record.rows.unchanged == record.staged == len(delivered)

    for hour, state in enumerate(states):
        for minutes in (0, 59):  # half-open: a version is true at its first instant, and not at its last
            moment = START + timedelta(hours=hour, minutes=minutes)
            then = f"'{moment:%Y-%m-%d %H:%M:%S.%f}+00:00'"
            true_then = f"SELECT id, city FROM t WHERE valid_from <= {then} AND (valid_to IS NULL OR valid_to > {then})"
            assert sorted(rows(true_then), key=str) == sorted(state.items(), key=str)
    assert rows("SELECT count(*) FROM t WHERE is_current <> (valid_to IS NULL)") == [(0,)]
    assert sorted(rows("SELECT id, city FROM t WHERE is_current"), key=str) == sorted(states[-1].items(), key=str)


def test_versions_count_what_became_of_rows(target: Make, load: Load) -> None:
    keeping = target(write_mode="snapshot", primary_key="id", scd2={"hard_deletes": "close"})

    assert load(keeping, cities({1: "Rome", 2: "Oslo", 3: "Bonn"}), record=at(1)) == Published(3, how="created")
    second = load(keeping, cities({1: "Bari", 2: "Oslo", 4: None}), record=at(2))
    assert second == Published(2, unchanged=1, closed=2, how="new versions", removed=1, before=3)
    with pytest.raises(RefusedError, match=r"1 row would change the past: the start of the run is not after"):
        load(keeping, cities({1: "Kiel", 2: "Oslo", 4: None}), record=at(2))
    with pytest.raises(RefusedError, match="the load is empty"):
        load(keeping, cities({}), record=at(3))
    with pytest.raises(LoadError, match=r"several rows share a key \('id'\)"):
        load(keeping, pl.concat([cities({1: "a"}), cities({1: "b"})]), record=at(3))


@pytest.mark.parametrize("form", ["zoned", "naive", "date"])
def test_a_delivered_column_can_say_since_when(form: str, target: Make, load: Load, rows: Rows) -> None:
    def frame(city: str, day: int) -> pl.DataFrame:
        moment = pl.lit(datetime(2024, 5, day)).cast(pl.Date if form == "date" else pl.Datetime("ms"))
        return cities({1: city}).with_columns(since=moment.dt.replace_time_zone("UTC") if form == "zoned" else moment)

    timed = target(write_mode="scd2", primary_key="id", scd2={"effective_at": "since", "tracked_columns": "city"})
    load(timed, frame("Rome", 1))
    load(timed, frame("Bonn", 3))

    days = "SELECT CAST(valid_from AS VARCHAR), CAST(valid_to AS VARCHAR) FROM t ORDER BY 1"
    assert [(start[:10], end and end[:10]) for start, end in rows(days)] == [
        ("2024-05-01", "2024-05-03"),
        ("2024-05-03", None),
    ]
    assert load(timed, frame("Bonn", 4)).unchanged == 1
    with pytest.raises(RefusedError, match="'since' is not after the last change"):
        load(timed, frame("Oslo", 2))


def test_a_table_that_keeps_no_versions_is_told_what_to_add(target: Make, load: Load, rows: Rows) -> None:
    rows("CREATE TABLE t (id BIGINT, city VARCHAR)")
    keeping = target(write_mode="scd2", primary_key="id")
    with pytest.raises(TargetMissingError, match=r"in column 'valid_from', and the table has none. Add \"valid_from\""):
        load(keeping, cities({1: "a"}))
    for column in ("valid_from DATE", "valid_to DATE", "is_current BOOLEAN"):
        rows(f"ALTER TABLE t ADD COLUMN {column}")
    with pytest.raises(TargetTypeError, match=r"column 'valid_from' is DATE; scd2 needs TIMESTAMP"):
        load(keeping, cities({1: "a"}))


# --- what is refused ---


@pytest.mark.parametrize("mode", ["append", "overwrite", "upsert"])
@pytest.mark.parametrize("exists", [True, False])
def test_rows_that_share_a_key_are_refused(mode: str, exists: bool, target: Make, load: Load, rows: Rows) -> None:
    if exists:
        rows("CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR)", "INSERT INTO t VALUES (5, 'x')")

    with pytest.raises(LoadError, match=r"target t: .*(?i:share a key|duplicate key|unique)"):
        load(target(write_mode=mode, primary_key="id"), people(1, 1, 2))

    assert not exists or rows(ALL) == [(5, "x")]


def test_the_database_makes_up_no_key(target: Make, load: Load, rows: Rows) -> None:
    load(target(primary_key="id"), people(1))

    with pytest.raises(LoadError, match=r"(?i)'id' is null|not null constraint"):
        load(target(), people(2, None))
    assert rows(ALL) == [(1, "n1")]


@pytest.mark.parametrize(
    ("ddl", "frame", "said"),
    [
        ("id INTEGER", people(1), "the table has no column 'name'. Present: id. Add the column"),
        ("id INTEGER, nome VARCHAR", people(1), "no column 'name'. Did you mean 'nome'?"),
        ("id INTEGER, Name VARCHAR", people(1), "no column 'name'. Did you mean 'Name'?"),
        ("id REAL, name VARCHAR", people(1), "column 'id': Int64 does not fit"),
        ("id VARCHAR, name VARCHAR", people(1), "column 'id': Int64 does not fit VARCHAR without loss"),
        ("id INTEGER, name INTEGER", people(1), "column 'name': String does not fit INTEGER without loss"),
        ("id INTEGER, name VARCHAR, must INTEGER NOT NULL", people(1), "column 'must' is NOT NULL and the pipeline"),
        ("id INTEGER, name VARCHAR GENERATED ALWAYS AS (id)", people(1), "column 'name' is generated"),
        ("id INTEGER, name VARCHAR CHECK (name = 'z')", people(1), "Nothing was published. Fix the rows"),
        ("id INTEGER, name VARCHAR NOT NULL", people(1).with_columns(name=pl.lit(None, pl.String)), "NOT NULL"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    ddl: str, frame: pl.DataFrame, said: str, target: Make, load: Load, rows: Rows
) -> None:
    rows(f"CREATE TABLE t ({ddl})")

    with pytest.raises(LoadError) as caught:
        load(target(), frame)

    assert said in str(caught.value)
    assert str(caught.value).startswith("target t: ")
    assert "\n" not in str(caught.value)
    assert rows("SELECT count(*) FROM t") == [(0,)]


def test_two_columns_that_are_one_to_the_database(target: Make, load: Load) -> None:
    with pytest.raises(TargetTypeError, match=r"takes columns 'id' and 'ID' for one. Rename one with a 'map' step"):
        load(target(), pl.DataFrame({"id": [1], "ID": [2]}))


def test_a_view_is_refused(target: Make, load: Load, rows: Rows) -> None:
    rows("CREATE TABLE u (id BIGINT, name VARCHAR)", "CREATE VIEW t AS SELECT * FROM u")

    with pytest.raises(TargetMissingError, match="it is a view"):
        load(target(), people(1))


# --- schema contracts ---


def test_a_contract_adds_discards_and_sets_aside(target: Make, load: Load, rows: Rows, kind: str) -> None:
    load(target(), people(1))
    more = people(2).with_columns(age=pl.lit(30, pl.Int16))

    evolving = target(schema_contract="evolve")
    assert evolving.plan(more.schema)[0].startswith("ALTER TABLE ")
    assert load(evolving, more).inserted == 1
    assert rows(ALL) == [(1, "n1", None), (2, "n2", 30)]
    record = RunRecord.start("test", "t", "1")
    discarding = target(schema_contract={"columns": "discard"})
    with discarding.open(record, more.with_columns(x=1).schema) as chamber:
        assert chamber.warnings == (
            "column 'x' is not in the target and was discarded (schema_contract.columns: discard).",
        )
    setting_aside = target(schema_contract={"data_type": "quarantine"})
    huge = pl.DataFrame({"id": [1, 2**63]}, schema={"id": pl.UInt64})
    with setting_aside.open(RunRecord.start("test", "t", "1"), huge.schema) as chamber:
        (check,) = chamber.row_checks
        assert isinstance(check.good, pl.Expr)
        assert huge.select(check.good).to_series().to_list() == [True, False]
    with pytest.raises(TargetTypeError, match=r"column 'id': '9223372036854775808' would be another value in"):
        load(target(), huge)


def test_a_contract_lets_a_type_grow(target: Make, load: Load, rows: Rows) -> None:
    rows("CREATE TABLE t (id SMALLINT, name VARCHAR)", "INSERT INTO t VALUES (1, 'a')")

    load(target(schema_contract="evolve"), people(2**40))

    assert rows(ALL) == [(1, "a"), (2**40, f"n{2**40}")]


# --- whole-set rules ---


def contract(schema: pl.Schema, *kinds: tuple[str, tuple[str, ...], dict[str, object]]) -> Contract:
    bound = [
        BoundRule(place, (rule := rules.get(name)), fields, rule.parameters(**parameters))
        for place, (name, fields, parameters) in enumerate(kinds)
    ]
    return Contract.plan(bound, schema)


KEYS: dict[str, pl.Series] = {
    "integers": pl.Series([1, 2, 2, None, None]),
    "texts": pl.Series(["a", "b", "b", None, None]),
    "dates": pl.Series([date(2024, 1, 1), date(2024, 1, 2), date(2024, 1, 2), None, None]),
    "moments": pl.Series([START, START + timedelta(microseconds=1), START + timedelta(microseconds=1), None, None]),
    "decimals": pl.Series(["1.10", "2.20", "2.20", None, None]).cast(pl.Decimal(10, 3)),
    "booleans": pl.Series([True, False, False, None, None]),
    "bytes": pl.Series([b"a", b"\0", b"\0", None, None]),
    "categories": pl.Series(["a", "b", "b", None, None], dtype=pl.Enum(["a", "b"])),
    "unsigned": pl.Series([1, 2, 2, None, None], dtype=pl.UInt64),
}


def test_rows_that_share_a_value_are_found_and_taken(target: Make) -> None:
    frame = pl.DataFrame({"n": range(5), **KEYS})
    alone = [("unique", (name,), {}) for name in KEYS]
    *unique, count = contract(
        frame.schema, *alone, ("unique", tuple(KEYS), {}), ("row_count", (), {"min": 4})
    ).set_rules
    with target().open(RunRecord.start("test", "t", "1"), frame.schema) as chamber:
        chamber.stage(frame)
        chamber.seal()

        violations = chamber.audit([*unique, count])
        assert [(violation.rows, violation.observed) for violation in violations] == [(2, "2 rows")] * len(unique)
        found = chamber.take(violations[-1])

        assert found.keys.equals(frame[1:3].select(*KEYS))
        assert found.keys.schema == frame.select(*KEYS).schema
        assert found.values.str.json_path_match("$.n").to_list() == ["1", "2"]
        assert [violation.observed for violation in chamber.audit([*unique, count])] == ["3 rows"]


# --- the ledger ---


def test_publishing_the_same_run_again_adds_nothing(target: Make, rows: Rows, tmp_path: Path) -> None:
    record = RunRecord.start("test", "t", "1")
    for _attempt in range(2):
        with target().open(record, people(1).schema) as chamber:
            chamber.stage(people(1))
            record.rows.read, record.staged = 1, chamber.seal()
            for _retry in range(2):
                chamber.publish(record, Quarantine(tmp_path))

    assert rows(ALL) == [(1, "n1")]
    assert (record.status, record.rows.written) == ("published", 1)
    assert len(target().history("test", 9)) == 1


def test_a_failed_publish_leaves_the_chamber_for_a_retry(target: Make, rows: Rows, tmp_path: Path) -> None:
    rows("CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR)", "INSERT INTO t VALUES (1, 'x')")
    record = RunRecord.start("test", "t", "1")
    with target().open(record, people(1).schema) as chamber:
        chamber.stage(people(1, 2))
        record.rows.read, record.staged = 2, chamber.seal()
        with pytest.raises(LoadError):
            chamber.publish(record, Quarantine(tmp_path))
        assert (rows(ALL), target().history("test", 9)) == ([(1, "x")], [])
        rows("DELETE FROM t")

        assert chamber.publish(record, Quarantine(tmp_path)).inserted == 2


def test_quarantine_state_and_history_are_kept_with_the_load(target: Make, tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q")
    reasons = pl.Series([["id unique", "späť"]], dtype=pl.List(pl.String))
    quarantine.add(people(7), pl.Series([3]), reasons)
    quarantine.add(people(8), None, reasons)
    record = RunRecord.start("test", "t", "1")
    record.state = {"source": {"cursor": [1, "x"]}, "other": 5}
    with target().open(record, people(1).schema) as chamber:
        chamber.stage(people(1))
        record.staged = chamber.seal()
        record.rows.read, record.rows.quarantined, record.rejected_as_read = 3, 2, 2
        chamber.publish(record, quarantine)

    assert target().state("test") == {"source": {"cursor": [1, "x"]}, "other": 5}
    kept = target().quarantined("test", None, 9)
    names = ("run_id", "number", "row", "stage", "values", "reasons", "status", "config_version")
    assert [{name: row[name] for name in names} for row in kept] == [
        {
            "run_id": record.run_id,
            "number": kept_as,
            "row": row,
            "stage": stage,
            "values": {"id": number, "name": f"n{number}"},
            "reasons": ["id unique", "späť"],
            "status": "waiting",
            "config_version": "1",
        }
        for kept_as, (row, stage, number) in enumerate(((3, "read", 7), (None, "transformed", 8)))
    ]
    failed = RunRecord.start("test", "t", "1")
    failed.finish("failed")
    target().record(failed, quarantine)
    assert [run["status"] for run in target().history("test", 9)] in (["failed", "published"], ["published", "failed"])
    assert len(target().quarantined("test", failed.run_id, 1)) == 1


def test_who_only_looks_makes_no_file(target: Make, file: Path) -> None:
    target().check()

    assert target().plan(people(1).schema)[0].startswith("CREATE TABLE ")
    assert (target().state("test"), target().history("test", 1), target().quarantined("test", None, 1)) == ({}, [], [])
    assert not file.exists()


def test_the_ledger_can_be_read_in_sql(target: Make, load: Load, rows: Rows, kind: str) -> None:
    load(target(), people(1, 2))

    loads = "lockgate_loads" if kind == "sqlite" else "lockgate.loads"
    assert rows(f"SELECT pipeline, target, status, rows_read, rows_written FROM {loads}") == [
        ("test", "t", "published", 2, 2)
    ]


# --- names ---


@pytest.mark.parametrize("name", ["select", 'q"uo.te', "größe 表 %s{}?:a'--", "x" * 300])
def test_awkward_names(name: str, target: Make, load: Load, rows: Rows) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    frame = pl.DataFrame({name: [1, 2], "other": ["a", "b"]})
    keyed = target(table_name=quoted, primary_key=[name], write_mode="upsert")

    load(keyed, frame)
    load(target(table_name=quoted, write_mode="delete_insert", delete_key=[name]), frame)
    versions = target(table_name='"' + name.replace('"', '""') + '_v"', primary_key=[name], write_mode="scd2")
    load(versions, frame)

    assert load(keyed, frame).unchanged == 2
    assert rows(f"SELECT {quoted} FROM {quoted} ORDER BY 1") == [(1,), (2,)]


def test_duckdb_has_schemas_and_sqlite_has_none(target: Make, load: Load, rows: Rows, kind: str) -> None:
    elsewhere = target(table_name="sales.t")
    if kind == "sqlite":
        with pytest.raises(TargetMissingError, match=r"SQLite has no schemas. Write 'table_name: t'"):
            load(elsewhere, people(1))
        load(target(table_name="main.t"), people(1))
        return
    with pytest.raises(TargetMissingError, match=r"there is no schema 'sales'. Create it"):
        load(elsewhere, people(1))
    rows("CREATE SCHEMA sales")
    load(elsewhere, people(1))
    assert rows("SELECT * FROM sales.t") == [(1, "n1")]


# --- edges ---


def test_an_empty_load_and_a_column_of_nulls(target: Make, load: Load, rows: Rows) -> None:
    frame = people(1).with_columns(nothing=pl.lit(None))
    assert load(target(), frame.clear()) == Published(0, how="created")
    assert load(target(), frame).inserted == 1
    assert rows(ALL) == [(1, "n1", None)]


def test_a_missing_folder_is_not_made(target: Make, load: Load, kind: str, tmp_path: Path) -> None:
    missing = target(connection_string=f"{kind}:///{tmp_path}/no/such/x.db")

    for act in (missing.check, lambda: load(missing, people(1)), lambda: missing.history("test", 1)):
        with pytest.raises(TargetMissingError) as caught:
            act()
        assert str(caught.value) == (
            f"target t: there is no folder '{tmp_path}/no/such'. Make it, or name another file."
        )
    assert not (tmp_path / "no").exists()


def test_a_file_that_is_no_database(target: Make, load: Load, file: Path) -> None:
    file.write_bytes(b"id,name\n" * 4096)

    for act in (target().check, lambda: load(target(), people(1))):
        with pytest.raises(LoadError, match=r"(?i)not a .*database.*\. Name a database that .* made"):
            act()
    assert file.read_bytes() == b"id,name\n" * 4096


def test_a_url_that_names_no_file(target: Make, load: Load, kind: str) -> None:
    with pytest.raises(TargetMissingError, match="is a database in memory, which ends with the run"):
        target(connection_string=f"{kind}:///:memory:").check()
    with pytest.raises(TargetMissingError, match="'localhost' stands where a host would"):
        target(connection_string=f"{kind}://localhost/x.db").check()
    with pytest.raises(LoadError, match=r"'writer' is for PostgreSQL, and this is .*\. Remove it"):
        target(writer="adbc").check()


@pytest.mark.parametrize("url", ["snowflake://u:hunter2@host/db", "no scheme hunter2"])
def test_other_databases_are_refused_without_their_secrets(url: str, target: Make) -> None:
    with pytest.raises(LoadError, match=r"sqlite:///") as caught:
        target(connection_string=url).check()
    assert "hunter2" not in str(caught.value)


CHILD = """
import os, sys
from flows.targets.database import Database
target = Database.model_validate({"connection_string": sys.argv[1], "table_name": "t"})
target.check()  # while root can still read what that imports
os.setgid(65534); os.setuid(65534)
try:
    target.check()
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
def test_a_file_that_may_not_be_written(target: Make, load: Load, kind: str, file: Path, tmp_path: Path) -> None:
    load(target(), people(1))
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    file.chmod(0o444)
    child = subprocess.run(
        (sys.executable, "-c", CHILD, f"{kind}:///{file}"), capture_output=True, text=True, check=False
    )

    assert child.stdout.startswith("TargetPermissionError target t: "), child.stderr
    assert "Let the user of this process write" in child.stdout


def test_a_locked_folder_is_a_matter_of_permission(target: Make, load: Load, tmp_path: Path) -> None:
    (tmp_path / "_lockgate").write_text("in the way of the folder of locks")

    with pytest.raises(TargetPermissionError, match="cannot be written"):
        load(target(), people(1))


def test_a_full_database_publishes_nothing(target: Make, load: Load, rows: Rows, kind: str, monkeypatch: Any) -> None:
    if kind == "duckdb":
        pytest.skip("DuckDB has no limit that stands for a full disk")
    load(target(), people(1))
    session = _sqlite.SqliteSession

    class Full(session):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.rows("PRAGMA max_page_count = 20")

    monkeypatch.setattr(_sqlite, "SqliteSession", Full)
    with pytest.raises(LoadError, match=r"database or disk is full\. Free some space, then run again\."):
        load(target(), people(*range(5000), name="x" * 50))
    monkeypatch.undo()
    assert rows(ALL) == [(1, "n1")]
    assert rows("PRAGMA integrity_check") == [("ok",)]


# --- others at the same time ---


def test_a_second_run_is_told_to_wait(target: Make, load: Load) -> None:
    with (
        target().open(RunRecord.start("test", "t", "1"), people(1).schema),
        pytest.raises(
            TargetBusyError,
            match=r"target t: another run is loading it \('test \w+'\)\. Run again when that one is done",
        ),
    ):
        load(target(), people(2))
    with target(table_name="other").open(RunRecord.start("test", "other", "1"), people(1).schema):
        load(target(), people(2))


HOLDER = {
    "sqlite": "import sqlite3; c = sqlite3.connect({!r}); c.execute('BEGIN IMMEDIATE')",
    "duckdb": "import duckdb; c = duckdb.connect({!r})",
}


@pytest.fixture
def holder(kind: str, file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the file, until it is told to stop."""
    code = HOLDER[kind].format(str(file)) + "\nprint('held', flush=True); input()"
    with subprocess.Popen(
        (sys.executable, "-c", code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


def test_somebody_else_who_holds_the_file(target: Make, load: Load, request: pytest.FixtureRequest, rows: Rows) -> None:
    load(target(), people(1))
    record = RunRecord.start("test", "t", "1")
    with target(lock_timeout_seconds=1).open(record, people(2).schema) as chamber:
        chamber.stage(people(2))
        record.rows.read, record.staged = 1, chamber.seal()
        child = request.getfixturevalue("holder")

        with pytest.raises(TargetBusyError, match=r"Run again when they are done\.$") as caught:
            chamber.publish(record, Quarantine(Path()))
        assert caught.value.retryable
        child.communicate("\n")
        chamber.publish(record, Quarantine(Path()))
    assert len(rows(ALL)) == 2


def test_a_run_can_read_the_file_that_it_writes(target: Make, load: Load, rows: Rows, kind: str, file: Path) -> None:
    load(target(), people(1))
    record = RunRecord.start("test", "t", "1")
    view: Any = duckdb.connect(str(file), read_only=True) if kind == "duckdb" else None
    if kind == "sqlite":
        view = adbc_driver_sqlite.dbapi.connect(str(file))  # in a transaction
    with closing(view), closing(view.cursor()) as cursor:
        cursor.execute("SELECT * FROM t")
        assert target().state("test") == {}
        with target().open(record, people(2).schema) as chamber:
            chamber.stage(people(2))
            record.rows.read, record.staged = 1, chamber.seal()
            assert cursor.fetchall() == [(1, "n1")]
            cursor.close()
            view.close()  # as a run lets go of its views before it loads
            chamber.publish(record, Quarantine(Path()))
    assert len(rows(ALL)) == 2


@pytest.mark.parametrize("wal", [False, True])
def test_readers_see_whole_loads(wal: bool, target: Make, load: Load, rows: Rows, kind: str, file: Path) -> None:
    if wal and kind == "duckdb":
        pytest.skip("it has one way to keep a journal")
    load(target(write_mode="overwrite", primary_key="id"), people(*range(500)))
    if wal:
        rows("PRAGMA journal_mode = WAL")
    # Python's own module would not see the locks of the driver in the same process.
    connect: Any = adbc_driver_sqlite.dbapi.connect if kind == "sqlite" else duckdb.connect
    seen: set[tuple[Any, ...]] = set()
    ready, done = threading.Event(), threading.Event()

    def read() -> None:
        with closing(connect(str(file))) as connection, closing(connection.cursor()) as cursor:
            if kind == "sqlite":
                cursor.execute("PRAGMA busy_timeout = 5000")
            ready.set()
            while not done.is_set():
                cursor.execute("SELECT count(*), count(DISTINCT substr(name, 1, 1)) FROM t")
                seen.update(cursor.fetchall())
                connection.commit()
                time.sleep(0.001)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        assert ready.wait(30)  # DuckDB lets nobody in who wants to write while somebody only looks
        for turn in range(6):
            load(target(write_mode="overwrite", primary_key="id"), people(*range(500), name="ab"[turn % 2]))
    finally:
        done.set()
        thread.join()

    assert seen == {(500, 1)}


def test_a_table_that_changes_meanwhile(target: Make, load: Load, rows: Rows, tmp_path: Path) -> None:
    load(target(), people(1))
    record = RunRecord.start("test", "t", "1")
    with target().open(record, people(2).schema) as chamber:
        chamber.stage(people(2))
        record.rows.read, record.staged = 1, chamber.seal()
        rows("DROP TABLE t")
        rows("CREATE TABLE t (id BIGINT)")

        with pytest.raises(LoadError, match="no column 'name'"):
            chamber.publish(record, Quarantine(tmp_path))
    assert rows("SELECT * FROM t") == []


def test_a_trigger_that_keeps_a_row_out_stops_the_load(target: Make, load: Load, rows: Rows, kind: str) -> None:
    if kind == "duckdb":
        pytest.skip("its triggers keep nothing out")
    load(target(), people(1))
    rows("CREATE TRIGGER g BEFORE INSERT ON t WHEN new.id = 2 BEGIN SELECT RAISE(IGNORE); END")

    with pytest.raises(Exception, match="the ledger does not balance"):
        load(target(), people(2, 3))
    assert rows(ALL) == [(1, "n1")]


def test_a_constraint_cannot_drop_rows_on_its_own(target: Make, load: Load, rows: Rows, kind: str) -> None:
    if kind == "duckdb":
        pytest.skip("it has no conflict clauses in constraints")
    rows("CREATE TABLE t (id INT PRIMARY KEY ON CONFLICT REPLACE, name TEXT)", "INSERT INTO t VALUES (1, 'x')")

    with pytest.raises(LoadError, match="UNIQUE constraint failed"):
        load(target(), people(1))
    assert rows(ALL) == [(1, "x")]


def test_nothing_is_left_of_a_run(target: Make, load: Load, file: Path, tmp_path: Path) -> None:
    with target().open(RunRecord.start("test", "t", "1"), people(1).schema, tmp_path / "work") as chamber:
        chamber.stage(people(1))
    load(target(), people(1))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["_lockgate", file.name, "work"]
    assert list((tmp_path / "work").iterdir()) == []
