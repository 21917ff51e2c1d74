from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest

from flows import pipeline
from flows._config import load as load_config
from flows._errors import TargetBusyError, TargetMissingError, TargetTypeError
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.targets import _publish
from flows.targets._base import Published
from flows.targets.database import Database

pytestmark = pytest.mark.postgres
Make = Callable[..., Database]
Load = Callable[..., Published]
Connect = Callable[[], psycopg.Connection]

TABLE = "CREATE TABLE t (id int PRIMARY KEY, name varchar(5)); INSERT INTO t VALUES (9, 'old')"
WIDE = pl.DataFrame({"id": [1, 3_000_000_000], "name": ["a", "longer than five"], "new": [1.5, None]})
EVOLVED = 'ALTER TABLE "public"."t" ADD COLUMN "new" float8, ALTER COLUMN "id" TYPE int8, ALTER COLUMN "name" TYPE text'
TYPES = """SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
           WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""
WIDE_TYPES = [("id", "bigint", True), ("name", "text", False), ("new", "double precision", False)]
MODES = ["append", "overwrite", "upsert", "delete_insert"]


def rows(connection: psycopg.Connection, query: str = "SELECT * FROM t ORDER BY 1") -> list[tuple]:
    return connection.execute(query).fetchall()


# --- columns ---


def test_a_new_column_is_refused_unless_somebody_says_so(target: Make, load: Load, connect: Connect) -> None:
    connect().execute(TABLE)

    with pytest.raises(TargetMissingError) as refused:
        load(target(), WIDE)

    assert str(refused.value) == (
        "target t: the table has no column 'new'. Did you mean 'name'? Present: id, name. Add the column, drop or "
        "rename it with a 'map' step, or set target.schema_contract: {columns: evolve} (or discard)."
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_table_that_evolves_takes_everything(mode: str, target: Make, load: Load, connect: Connect) -> None:
    connection = connect()
    connection.execute(TABLE)
    evolving = target(write_mode=mode, primary_key="id", schema_contract="evolve")

    assert evolving.plan(WIDE.schema)[0] == EVOLVED
    published = load(evolving, WIDE)

    kept = [] if mode == "overwrite" else [(9, "old", None)]
    assert rows(connection) == sorted([(1, "a", 1.5), (3_000_000_000, "longer than five", None), *kept])
    assert rows(connection, TYPES) == WIDE_TYPES
    assert published.inserted == 2
    assert evolving.plan(WIDE.schema)[0] != EVOLVED
    load(evolving, WIDE.head(0) if mode == "append" else WIDE)


def test_an_overwrite_that_evolves_still_swaps(target: Make, load: Load, connect: Connect) -> None:
    connect().execute(TABLE)
    connect().execute("CREATE INDEX by_name ON t (lower(name)); COMMENT ON TABLE t IS 'people'")

    assert load(target(write_mode="overwrite", schema_contract="evolve"), WIDE).how == "swapped in"
    assert rows(connect(), "SELECT indexname FROM pg_indexes WHERE tablename = 't' ORDER BY 1") == [
        ("by_name",),
        ("t_pkey",),
    ]
    assert rows(connect(), "SELECT obj_description('t'::regclass)") == [("people",)]


def test_a_busy_overwrite_that_evolves_is_done_in_place(
    target: Make, load: Load, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_publish, "_SWAP_ATTEMPTS", 1)
    connect().execute(TABLE)
    reader = connect()
    reader.execute("BEGIN; SELECT * FROM t")
    release = threading.Timer(1.2, lambda: reader.execute("COMMIT"))
    release.start()
    try:
        published = load(target(write_mode="overwrite", schema_contract="evolve"), WIDE)
    finally:
        release.join()

    assert published == Published(2, deleted=1, how="rewritten in place")
    assert rows(connect(), TYPES) == WIDE_TYPES


def test_readers_do_not_queue_behind_a_table_that_cannot_evolve_yet(target: Make, load: Load, connect: Connect) -> None:
    connect().execute(TABLE)
    holder, reader = connect(), connect()
    holder.execute("BEGIN; SELECT * FROM t")
    waits: list[float] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            began = time.monotonic()
            reader.execute("SELECT * FROM t")
            waits.append(time.monotonic() - began)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        with pytest.raises(TargetBusyError):
            load(target(schema_contract="evolve", lock_timeout_seconds=2), WIDE)
    finally:
        done.set()
        thread.join()

    assert max(waits) < 1.5
    holder.execute("COMMIT")
    assert len(rows(holder, TYPES)) == 2


def test_views_stay_and_what_they_use_does_not_grow(target: Make, load: Load, connect: Connect) -> None:
    connection = connect()
    connection.execute(TABLE)
    connection.execute("CREATE VIEW v AS SELECT id FROM t")
    evolving = target(schema_contract="evolve")
    warning = (
        "column 'id' stays int4 though schema_contract.data_type is evolve: a view, a trigger, a policy or another "
        "column uses it. Values that do not fit fail the run."
    )

    assert evolving.plan(WIDE.schema) == [
        warning,
        'ALTER TABLE "public"."t" ADD COLUMN "new" float8, ALTER COLUMN "name" TYPE text',
        'append to "public"."t"',
    ]
    with pytest.raises(TargetTypeError, match="column 'id' does not fit int4"):
        load(evolving, WIDE)
    load(evolving, WIDE.head(1))
    assert rows(connection, "SELECT * FROM v ORDER BY 1") == [(1,), (9,)]
    assert [kind for _name, kind, _null in rows(connection, TYPES)] == ["integer", "text", "double precision"]


PINS = {
    "generated": "ALTER TABLE t ADD twice bigint GENERATED ALWAYS AS (id * 2) STORED",
    "trigger": "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
    "CREATE TRIGGER g AFTER UPDATE OF id ON t FOR EACH ROW EXECUTE FUNCTION f()",
    "policy": "CREATE POLICY p ON t USING (id > 0)",
    "row type": "CREATE TABLE other (r t)",
    "function": "CREATE FUNCTION h() RETURNS bigint BEGIN ATOMIC SELECT max(id) FROM t; END",
    "publication": "CREATE PUBLICATION p FOR TABLE t WHERE (id > 0)",
}


@pytest.mark.parametrize("ddl", PINS.values(), ids=PINS)
def test_what_the_server_would_not_change_is_left_alone(ddl: str, target: Make, load: Load, connect: Connect) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
    connection.execute(ddl)

    load(target(schema_contract="evolve"), pl.DataFrame({"id": [1]}))

    assert rows(connection, TYPES)[0] == ("id", "integer", True)


def test_a_referenced_key_grows(target: Make, load: Load, connect: Connect) -> None:
    connection = connect()
    connection.execute(TABLE)
    connection.execute("CREATE TABLE child (id bigint REFERENCES t)")

    load(target(write_mode="upsert", schema_contract="evolve"), WIDE)

    assert rows(connection, TYPES) == WIDE_TYPES


def test_a_table_that_was_changed_under_way_is_not_evolved(target: Make, connect: Connect, tmp_path: Path) -> None:
    connect().execute(TABLE)
    record = RunRecord.start("test", "t", "1")
    with target(schema_contract="evolve").open(record, WIDE.schema) as chamber:
        chamber.stage(WIDE)
        record.rows.read, record.staged = 2, chamber.seal()
        connect().execute("ALTER TABLE t ADD COLUMN new int")
        with pytest.raises(TargetBusyError, match="the table was changed while the run was under way"):
            chamber.publish(record, Quarantine(tmp_path))


def test_a_load_that_fails_leaves_the_table_as_it_was(target: Make, load: Load, connect: Connect) -> None:
    connect().execute(TABLE)
    connect().execute("ALTER TABLE t ADD CHECK (id < 100)")

    with pytest.raises(Exception, match="t_id_check"):
        load(target(schema_contract="evolve"), WIDE)

    assert rows(connect(), TYPES) == [("id", "integer", True), ("name", "character varying(5)", False)]


def test_history_takes_a_new_column(target: Make, load: Load, connect: Connect) -> None:
    keeping = target(write_mode="scd2", primary_key="id", schema_contract={"columns": "evolve"})
    load(keeping, pl.DataFrame({"id": [1, 2]}))

    assert load(keeping, pl.DataFrame({"id": [1, 2], "city": ["Rome", None]})).inserted == 1
    assert rows(connect(), "SELECT id, city, is_current FROM t ORDER BY id, valid_from") == [
        (1, None, False),
        (1, "Rome", True),
        (2, None, True),
    ]


# --- from YAML ---

CONFIG = """
pipelines:
  contracts:
    type: batch
    source: {{type: database, connection_string: "{uri}", schema: {{table: source}}}}
    target: {{type: database, connection_string: "{uri}", table_name: t, schema_contract: {contract}}}
    quality_rules: [{rule}]
    error_handling: {{max_failed_ratio: 0.9}}
"""


@pytest.fixture
def configured(database: str, tmp_path: Path) -> Callable[..., Path]:
    """Writes the configuration of a pipeline from `source` to `t` under a schema contract."""

    def write(contract: str, rule: str = "") -> Path:
        config = tmp_path / "contracts.yaml"
        config.write_text(CONFIG.format(uri=database, contract=contract, rule=rule))
        return config

    return write


@pytest.fixture
def run(configured: Callable[..., Path]) -> Callable[..., Any]:
    """Runs that pipeline; returns its record."""
    return lambda *keys: pipeline.run(load_config(configured(*keys)).pipeline("contracts"))


def test_columns_that_are_discarded_are_in_the_record(run: Callable[..., Any], connect: Connect) -> None:
    connection = connect()
    connection.execute(TABLE)
    connection.execute("CREATE TABLE source AS SELECT 1 AS id, 'a' AS name, 5 AS more, 6 AS again")

    record = run("{columns: discard}")

    assert rows(connection) == [(1, "a"), (9, "old")]
    assert record.warnings == [
        "column 'more' is not in the target and was discarded (schema_contract.columns: discard).",
        "column 'again' is not in the target and was discarded (schema_contract.columns: discard).",
    ]


def test_a_rule_of_the_set_about_a_discarded_column_is_refused(run: Callable[..., Any], connect: Connect) -> None:
    connect().execute(TABLE)
    connect().execute("CREATE TABLE source AS SELECT 1 AS id, 5 AS more")

    with pytest.raises(TargetMissingError, match="rule 'more unique' is about column 'more', which is not loaded"):
        run("{columns: discard}", "{type: unique, field: more}")


def test_rows_whose_values_do_not_fit_go_to_quarantine(run: Callable[..., Any], connect: Connect) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t (n int, price numeric(6,2), code varchar(3), day date)")
    connection.execute("CREATE TABLE source (n text, price float8, code text, day timestamp)")
    connection.execute(
        "INSERT INTO source VALUES ('1', 1.25, 'abc', '2024-01-02'), ('x', 1.25, 'abc', '2024-01-02'), "
        "('3', 1.255, 'abcd', '2024-01-02'), (NULL, NULL, NULL, NULL), ('5', 1, 'ab  ', '2024-01-02 03:00'), "
        "('99999999999', 123456, '', NULL)"
    )

    record = run("{data_type: quarantine}")

    assert (record.status, record.rows.written, record.rows.quarantined) == ("published", 2, 4)
    assert rows(connection, "SELECT n, price::text, code, day::text FROM t ORDER BY 1") == [
        (1, "1.25", "abc", "2024-01-02"),
        (None, None, None, None),
    ]
    kept = rows(connection, "SELECT row, stage, \"values\" ->> 'n', reasons FROM lockgate.quarantine ORDER BY row")
    assert kept == [
        (1, "read", "x", ["data_type: n does not fit int4"]),
        (
            2,
            "read",
            "3",
            ["data_type: price does not fit numeric(6,2)", "data_type: code does not fit varchar(3)"],
        ),
        (4, "read", "5", ["data_type: code does not fit varchar(3)", "data_type: day does not fit date"]),
        (5, "read", "99999999999", ["data_type: n does not fit int4", "data_type: price does not fit numeric(6,2)"]),
    ]


def test_the_command_line_shows_the_statements_and_runs_none(configured: Callable[..., Path], connect: Connect) -> None:
    connection = connect()
    connection.execute(TABLE)
    connection.execute("CREATE TABLE source AS SELECT 1::bigint AS id, 'a' AS name, 5 AS more")

    command = (sys.executable, "-m", "flows", "plan", "contracts", "--json", "--config", configured("evolve"))
    shown = subprocess.run(command, capture_output=True, text=True, check=True)

    assert json.loads(shown.stdout)["publishes"] == [
        ('ALTER TABLE "public"."t" ADD COLUMN "more" int4, ALTER COLUMN "id" TYPE int8, ALTER COLUMN "name" TYPE text'),
        'append to "public"."t"',
    ]
    assert len(rows(connection, TYPES)) == 2


def test_the_plan_says_what_goes_to_quarantine(target: Make, connect: Connect) -> None:
    connect().execute("CREATE TABLE t (id int, name text)")

    assert target(schema_contract={"data_type": "quarantine"}).plan(
        pl.Schema({"id": pl.Int64(), "name": pl.String()})
    ) == [
        'append to "public"."t"',
        "rows whose 'id' does not fit int4 go to quarantine",
    ]


def test_a_type_that_nothing_fits_is_refused_all_the_same(target: Make, connect: Connect) -> None:
    connect().execute("CREATE TABLE t (id date)")

    with pytest.raises(TargetTypeError, match="column 'id': Int64 does not fit date without loss"):
        target(schema_contract={"data_type": "quarantine"}).plan(pl.Schema({"id": pl.Int64()}))


def test_a_chamber_that_is_given_such_a_row_takes_none(target: Make, load: Load, connect: Connect) -> None:
    connect().execute("CREATE TABLE t (id int)")

    with pytest.raises(TargetTypeError, match=r"column 'id': '1\.5' would be another value in int4"):
        load(target(schema_contract={"data_type": "quarantine"}), pl.DataFrame({"id": [1.0, 1.5]}))
