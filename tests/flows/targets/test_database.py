from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import psycopg
import pytest

from flows._errors import (
    LedgerError,
    LoadError,
    RefusedError,
    TargetBusyError,
    TargetMissingError,
    TargetPermissionError,
    TargetTypeError,
    TargetUnreachableError,
)
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.targets import _publish
from flows.targets._base import Published
from flows.targets.database import Database
from validations._contract import BoundRule, Contract
from validations._rule import rules

pytestmark = pytest.mark.postgres
Make = Callable[..., Database]
Load = Callable[..., Published]
Connect = Callable[[], psycopg.Connection]


def people(*ids: int, name: str = "n") -> pl.DataFrame:
    return pl.DataFrame({"id": ids, "name": [f"{name}{i}" for i in ids]}, schema={"id": pl.Int64, "name": pl.String})


def rows(connection: psycopg.Connection, query: str = "SELECT * FROM t ORDER BY 1") -> list[tuple]:
    return connection.execute(query).fetchall()


# --- creating ---


def test_a_missing_table_is_made_with_its_key(target: Make, load: Load, connect: Connect) -> None:
    published = load(target(primary_key=["id"]), people(1, 2))

    assert published == Published(2, how="created")
    assert rows(connect()) == [(1, "n1"), (2, "n2")]
    assert rows(connect(), "SELECT indexname FROM pg_indexes WHERE tablename = 't'") == [("t_pkey",)]


def test_a_table_of_another_schema_and_an_awkward_name(target: Make, load: Load, connect: Connect) -> None:
    connection = connect()
    connection.execute('CREATE SCHEMA "My Schema"')
    frame = pl.DataFrame({'sel"ect': [1], "größe ö": ["x"], "a.b": [date(2024, 1, 1)], "%s{}": [True]})

    load(target(table_name='"My Schema"."T.x"', primary_key=['sel"ect']), frame)

    assert rows(connection, 'SELECT * FROM "My Schema"."T.x"') == [(1, "x", date(2024, 1, 1), True)]


@pytest.mark.parametrize("mode", ["append", "overwrite", "upsert"])
def test_every_mode_makes_a_missing_table(mode: str, target: Make, load: Load, connect: Connect) -> None:
    load(target(write_mode=mode, primary_key="id"), people(1))

    assert rows(connect()) == [(1, "n1")]


# --- append ---


def test_append_adds(target: Make, load: Load, connect: Connect) -> None:
    load(target(), people(1))

    assert load(target(), people(2), people(3)) == Published(2, how="appended")
    assert len(rows(connect())) == 3


def test_publishing_the_same_run_again_adds_nothing(target: Make, connect: Connect, tmp_path: Path) -> None:
    record = RunRecord.start("test", "t", "1")
    for _attempt in range(2):
        with target().open(record, people(1).schema) as chamber:
            chamber.stage(people(1))
            record.rows.read, record.staged = 1, chamber.seal()
            chamber.publish(record, Quarantine(tmp_path))

    assert rows(connect()) == [(1, "n1")]
    assert record.rows.written == 1
    assert rows(connect(), "SELECT count(*) FROM lockgate.loads") == [(1,)]


# --- overwrite ---

DRESSED = """
CREATE ROLE reader_{0}; CREATE TABLE t (id bigint PRIMARY KEY, name text NOT NULL DEFAULT 'x' CHECK (name <> ''),
  extra int DEFAULT 7);
CREATE INDEX by_name ON t (lower(name)); CREATE UNIQUE INDEX two ON t (id, name) WHERE id > 0;
COMMENT ON TABLE t IS 'people'; COMMENT ON COLUMN t.id IS 'who'; GRANT SELECT ON t TO reader_{0} WITH GRANT OPTION;
GRANT INSERT ON t TO PUBLIC; INSERT INTO t VALUES (9, 'old', 1);
"""
DESCRIBED = """
SELECT relacl::text, obj_description(oid, 'pg_class'), col_description(oid, 1),
       ARRAY(SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = c.oid ORDER BY 1),
       ARRAY(SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = c.oid ORDER BY 1),
       ARRAY(SELECT attname || attnotnull || coalesce(pg_get_expr(adbin, adrelid), '') FROM pg_attribute
             LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attrelid = c.oid AND attnum > 0
             ORDER BY attnum)
FROM pg_class c WHERE oid = 't'::regclass
"""


def test_a_swap_keeps_everything_that_hung_on_the_table(
    target: Make, load: Load, connect: Connect, database: str
) -> None:
    connection = connect()
    role = database.rpartition("test_")[2][:8]
    connection.execute(DRESSED.format(role))
    before = connection.execute(DESCRIBED).fetchone()

    published = load(target(write_mode="overwrite"), people(1, 2))

    assert published == Published(2, deleted=1, how="swapped in")
    assert connection.execute(DESCRIBED).fetchone() == before
    assert rows(connection) == [(1, "n1", 7), (2, "n2", 7)]
    connection.execute(f"DROP TABLE t; DROP ROLE reader_{role}")


HANGS_ON = {
    "view": "CREATE VIEW v AS SELECT * FROM t",
    "materialized view": "CREATE MATERIALIZED VIEW m AS SELECT * FROM t",
    "trigger": "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
    "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
    "foreign key": "CREATE TABLE child (id bigint REFERENCES t); INSERT INTO child VALUES (1)",
    "foreign key outwards": "CREATE TABLE parent (id bigint PRIMARY KEY); INSERT INTO parent VALUES (1), (2), (3);"
    "ALTER TABLE t ADD FOREIGN KEY (id) REFERENCES parent",
    "serial": "ALTER TABLE t ADD n serial",
    "identity": "ALTER TABLE t ADD n int GENERATED ALWAYS AS IDENTITY",
    "row security": "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
    "rule": "CREATE RULE r AS ON UPDATE TO t DO INSTEAD NOTHING",
    "publication": "CREATE PUBLICATION p FOR TABLE t",
    "statistics": "CREATE STATISTICS s ON id, name FROM t",
    "function": "CREATE FUNCTION h() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM t; END",
    "row type": "CREATE TABLE other (r t)",
    "inheritance": "CREATE TABLE heir () INHERITS (t)",
    "exclusion": "ALTER TABLE t ADD EXCLUDE (id WITH =)",
    "column grant": "GRANT SELECT (id) ON t TO PUBLIC",
    "index comment": "COMMENT ON INDEX t_pkey IS 'key'",
    "settings": "ALTER TABLE t SET (fillfactor = 80)",
}


@pytest.mark.parametrize("old", ["", "CREATE TABLE t (id bigint, name text); INSERT INTO t VALUES (1, 'old')"])
def test_rows_that_went_from_the_chamber_are_missed_before_it_becomes_the_table(
    old: str, target: Make, connect: Connect, tmp_path: Path
) -> None:
    connection = connect()
    connection.execute(old or "SELECT")
    overwriting = target(write_mode="overwrite")
    record = RunRecord.start("test", overwriting.label, "1")
    frame = people(1, 2, 3)
    record.rows.read = 3

    with overwriting.open(record, frame.schema) as chamber:
        chamber.stage(frame)
        record.staged = chamber.seal()
        connection.execute(f"DELETE FROM {chamber.staged.quoted} WHERE id = 2")
        with pytest.raises(LedgerError, match="3 rows were staged, the target accounts for 2"):
            chamber.publish(record, Quarantine(tmp_path))

    found = rows(connection, "SELECT to_regclass('t') IS NOT NULL")
    assert found == [(bool(old),)]
    assert not old or rows(connection, "SELECT * FROM t") == [(1, "old")]


@pytest.mark.parametrize("ddl", HANGS_ON.values(), ids=HANGS_ON)
def test_a_table_that_others_hang_on_is_rewritten_in_place(
    ddl: str, target: Make, load: Load, connect: Connect
) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, name text); INSERT INTO t VALUES (1, 'old'), (3, 'old')")
    connection.execute(ddl)
    (oid,) = connection.execute("SELECT 't'::regclass::oid").fetchone() or ()

    published = load(target(write_mode="overwrite"), people(1, 2))

    assert published.how in {"rewritten in place", "merged in place"}
    assert rows(connection, "SELECT id, name FROM t ORDER BY 1") == [(1, "n1"), (2, "n2")]
    assert connection.execute("SELECT 't'::regclass::oid").fetchone() == (oid,)


def test_overwriting_a_referenced_table_counts_what_it_did(target: Make, load: Load, connect: Connect) -> None:
    connection = connect()
    connection.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, name text); INSERT INTO t VALUES (1, 'n1'), (2, 'x'), (3, 'x')"
    )
    connection.execute("CREATE TABLE child (id bigint REFERENCES t); INSERT INTO child VALUES (1), (2)")

    assert load(target(write_mode="overwrite"), people(1, 2, 4)) == Published(1, 1, 1, 1, "merged in place")


def test_a_reader_in_a_transaction_delays_nobody(target: Make, load: Load, connect: Connect) -> None:
    load(target(write_mode="overwrite"), people(1))
    reader = connect()
    with reader.transaction():
        reader.execute("SELECT * FROM t")

        published = load(target(write_mode="overwrite"), people(2))

        assert published.how == "rewritten in place"
    assert rows(reader) == [(2, "n2")]


def test_an_older_snapshot_sees_a_whole_table(target: Make, load: Load, connect: Connect) -> None:
    load(target(write_mode="overwrite"), people(1, 2))
    reader = connect()
    with reader.transaction():
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")

        assert load(target(write_mode="overwrite"), people(3, 4)).how == "swapped in"

        assert len(rows(reader)) == 2


@pytest.mark.parametrize("hang", ["SELECT 1", "CREATE VIEW v AS SELECT * FROM t"], ids=["swap", "in place"])
def test_readers_never_see_an_empty_or_partial_table(hang: str, target: Make, load: Load, connect: Connect) -> None:
    load(target(write_mode="overwrite", primary_key="id"), people(*range(1000)))
    connection, reader = connect(), connect()
    connection.execute(hang)
    seen: set[tuple[int, int]] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.update(reader.execute("SELECT count(*), count(DISTINCT left(name, 1)) FROM t").fetchall())

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for round_ in range(8):
            load(target(write_mode="overwrite", primary_key="id"), people(*range(1000), name="ab"[round_ % 2]))
    finally:
        done.set()
        thread.join()

    assert seen == {(1000, 1)}


def test_overwriting_with_nothing_is_refused(target: Make, load: Load, connect: Connect) -> None:
    load(target(write_mode="overwrite"), people(1))

    with pytest.raises(RefusedError, match=r"target t: the load is empty.*Set target.allow_empty: true"):
        load(target(write_mode="overwrite"), people())

    assert rows(connect()) == [(1, "n1")]
    assert load(target(write_mode="overwrite", allow_empty=True), people()).deleted == 1


# --- upsert ---

KEYED = "CREATE TABLE t (id bigint PRIMARY KEY, name text); INSERT INTO t VALUES (1, 'n1'), (2, 'old'), (9, 'n9')"
BARE = KEYED.replace(" PRIMARY KEY", "")


@pytest.mark.parametrize("ddl", [KEYED, BARE], ids=["with a unique index", "without"])
def test_upsert_counts_inserted_updated_and_unchanged(ddl: str, target: Make, load: Load, connect: Connect) -> None:
    connection = connect()
    connection.execute(ddl)

    published = load(target(write_mode="merge", primary_key="id"), people(1, 2, 3))

    assert published == Published(1, 1, 1, how="merged")
    assert rows(connection) == [(1, "n1"), (2, "n2"), (3, "n3"), (9, "n9")]
    assert not load(target(write_mode="merge", primary_key="id"), people(1, 2, 3)).changed


def test_upsert_gives_the_same_on_older_servers(
    target: Make, load: Load, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect().execute(KEYED)
    monkeypatch.setattr(_publish, "_COUNTS_MERGES", 10**9)

    assert load(target(write_mode="upsert"), people(1, 2, 3)) == Published(1, 1, 1, how="merged")
    assert rows(connect()) == [(1, "n1"), (2, "n2"), (3, "n3"), (9, "n9")]


def test_upsert_refuses_a_row_without_a_key(target: Make, load: Load, connect: Connect) -> None:
    connect().execute(BARE)
    frame = people(1, 2).with_columns(id=pl.Series([None, 2], dtype=pl.Int64))

    with pytest.raises(LoadError, match=r"a row has no key .'id' is null.\. Add a 'not_null' rule"):
        load(target(write_mode="upsert", primary_key="id"), frame)


def test_upsert_tells_null_from_a_value_and_compares_json(target: Make, load: Load, connect: Connect) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, j json, u uuid, x int)")
    frame = pl.DataFrame(
        {"id": [1, 2], "j": ['{"a": 1}', None], "u": ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"] * 2, "x": [None, 1]},
        schema_overrides={"x": pl.Int32},
    )
    load(target(write_mode="upsert"), frame)

    assert load(target(write_mode="upsert"), frame).unchanged == 2
    changed = frame.with_columns(x=pl.Series([5, None], dtype=pl.Int32))
    assert load(target(write_mode="upsert"), changed).updated == 2


def test_upsert_without_a_key_is_refused(target: Make, load: Load, connect: Connect) -> None:
    connect().execute("CREATE TABLE t (id bigint, name text)")

    with pytest.raises(TargetMissingError, match=r"upsert needs a key\. Set target.primary_key"):
        load(target(write_mode="upsert"), people(1))


@pytest.mark.parametrize("mode", ["append", "overwrite", "upsert"])
@pytest.mark.parametrize("exists", [True, False])
def test_rows_that_share_a_key_are_refused(mode: str, exists: bool, target: Make, load: Load, connect: Connect) -> None:
    if exists:
        connect().execute("CREATE TABLE t (id bigint PRIMARY KEY, name text); INSERT INTO t VALUES (5, 'x')")

    with pytest.raises(LoadError, match=r"target t: .*(share a key|duplicate key|share)"):
        load(target(write_mode=mode, primary_key="id"), people(1, 1, 2))

    assert rows(
        connect(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'lockgate' AND tablename ~ 'staging'"
    ) == [(0,)]
    if exists:
        assert rows(connect()) == [(5, "x")]


# --- whole-set rules in the chamber ---


def contract(schema: pl.Schema, *kinds: tuple[str, tuple[str, ...], dict[str, object]]) -> Contract:
    bound = [
        BoundRule(place, (rule := rules.get(name)), fields, rule.parameters(**parameters))
        for place, (name, fields, parameters) in enumerate(kinds)
    ]
    return Contract.plan(bound, schema)


@pytest.mark.parametrize("keys", [{}, {"primary_key": "id"}], ids=["asked in SQL", "proved by the index"])
def test_the_chamber_finds_and_gives_up_duplicates(
    keys: dict[str, str], target: Make, connect: Connect, tmp_path: Path
) -> None:
    frame = people(1, 2, 2, 3, 3, 3)
    set_rules = contract(frame.schema, ("unique", ("id",), {}), ("row_count", (), {"min": 2})).set_rules
    record = RunRecord.start("test", "t", "1")
    with target(write_mode="overwrite", **keys).open(record, frame.schema) as chamber:
        chamber.stage(frame)
        assert chamber.seal() == 6

        by_rows, by_count = chamber.audit(set_rules[:1]), chamber.audit(set_rules[1:])
        taken = chamber.take(by_rows[0])

        assert [violation.rows for violation in by_rows] == [5]
        assert by_count == []
        assert sorted(taken.keys["id"]) == [2, 2, 3, 3, 3]
        (violation,) = chamber.audit(set_rules)
        assert (violation.rule.label, violation.observed) == ("row_count(min=2)", "1 row")
        record.rows.read, record.rows.quarantined, record.staged = 6, 5, 1
        chamber.publish(record, Quarantine(tmp_path))
    assert rows(connect()) == [(1, "n1")]


@pytest.mark.parametrize("busy", [False, True], ids=["nobody looks", "somebody has an old view"])
def test_a_chamber_that_gave_rows_up_is_swapped_in_when_nobody_could_see_them(
    busy: bool, target: Make, load: Load, connect: Connect, tmp_path: Path
) -> None:
    load(target(write_mode="overwrite"), people(7))
    frame, reader = people(1, 2, 2), connect()
    set_rules = contract(frame.schema, ("unique", ("id",), {})).set_rules
    record = RunRecord.start("test", "t", "1")
    with target(write_mode="overwrite").open(record, frame.schema) as chamber:
        chamber.stage(frame)
        chamber.seal()
        if busy:
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            reader.execute("SELECT 1")
        chamber.take(chamber.audit(set_rules)[0])
        record.rows.read, record.rows.quarantined, record.staged = 3, 2, 1

        published = chamber.publish(record, Quarantine(tmp_path))

    assert published.how == ("rewritten in place" if busy else "swapped in")
    assert rows(reader) == ([(7, "n7")] if busy else [(1, "n1")])
    assert rows(connect()) == [(1, "n1")]


# --- one writer at a time, nothing left behind ---


def test_a_second_run_is_told_who_holds_the_target(target: Make, load: Load) -> None:
    record = RunRecord.start("first", "t", "1")
    with (
        target().open(record, people().schema),
        pytest.raises(TargetBusyError, match=f"another run is loading it .'lockgate first {record.run_id}'"),
    ):
        load(target(), people(1))

    assert load(target(), people(1)).inserted == 1


def test_a_lock_that_is_about_to_go_is_waited_for(target: Make, load: Load) -> None:
    chamber = target().open(RunRecord.start("killed", "t", "1"), people().schema)
    chamber.stage(people(1))
    chamber.seal()
    end = threading.Timer(0.3, chamber.discard)  # as the server ends the session of a process that was killed
    end.start()

    published = load(target(), people(2))

    end.join()
    assert published.inserted == 1


def test_what_a_dead_run_left_is_dropped_by_the_next(target: Make, load: Load, connect: Connect) -> None:
    chamber = target().open(RunRecord.start("dead", "t", "1"), people().schema)
    chamber.stage(people(1))
    chamber.seal()
    connection = connect()
    connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ 'dead'")
    time.sleep(0.1)
    staging = "SELECT tablename FROM pg_tables WHERE schemaname = 'lockgate' AND tablename LIKE 'staging%'"
    assert len(rows(connection, staging)) == 1

    load(target(), people(2))

    assert rows(connection, staging) == []
    assert rows(connection) == [(2, "n2")]
    chamber.discard()


def test_publish_goes_on_after_a_lost_connection(target: Make, connect: Connect, tmp_path: Path) -> None:
    record = RunRecord.start("cut", "t", "1")
    with target().open(record, people().schema) as chamber:
        chamber.stage(people(1))
        record.rows.read, record.staged = 1, chamber.seal()
        connect().execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ 'cut'")
        with pytest.raises(LoadError) as lost:
            chamber.publish(record, Quarantine(tmp_path))
        assert lost.value.retryable

        chamber.publish(record, Quarantine(tmp_path))

    assert rows(connect()) == [(1, "n1")]


def test_a_table_changed_meanwhile_is_not_overwritten(target: Make, connect: Connect, tmp_path: Path) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t (id bigint, name text)")
    record = RunRecord.start("test", "t", "1")
    with target(write_mode="overwrite").open(record, people().schema) as chamber:
        chamber.stage(people(1))
        record.rows.read, record.staged = 1, chamber.seal()
        connection.execute("ALTER TABLE t ADD x int NOT NULL")

        with pytest.raises(TargetBusyError, match="the table was changed while the run was under way"):
            chamber.publish(record, Quarantine(tmp_path))


def test_the_other_writer_gives_the_same(target: Make, load: Load, connect: Connect) -> None:
    frame = pl.DataFrame({"id": [1], "d": [date(2024, 1, 1)], "s": ["ü"], "x": [1.5], "b": [True]})
    load(target(writer="adbc"), frame)
    load(target(table_name="u"), frame)

    assert rows(connect()) == rows(connect(), "SELECT * FROM u")


# --- what does not go ---


def test_unreachable_password_database_and_permission_each_have_a_word(
    target: Make, load: Load, connect: Connect
) -> None:
    cases = {
        "postgresql://u:hunter2@127.0.0.1:1/db": (TargetUnreachableError, "Check the host"),
        "postgresql://u:hunter2@no-such-host.invalid/db": (TargetUnreachableError, "Check the host"),
    }
    for address, (kind, word) in cases.items():
        with pytest.raises(kind, match=word) as caught:
            load(target(connection_string=address), people(1))
        assert "hunter2" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_role_that_may_not_write_is_told_so(target: Make, load: Load, connect: Connect, database: str) -> None:
    connection = connect()
    role = f"weak_{database.rpartition('test_')[2][:8]}"
    connection.execute(f"CREATE ROLE {role} LOGIN; CREATE TABLE t (id bigint, name text)")
    weak = database.replace("postgres@", f"{role}@", 1) if "postgres@" in database else f"{database}&user={role}"

    with pytest.raises(TargetPermissionError, match="permission denied"):
        load(target(connection_string=weak), people(1))

    connection.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize(
    ("ddl", "frame", "word"),
    [
        ("id int", people(1), "the table has no column 'name'. Present: id. Add the column"),
        ("id int, nome text", people(1), "no column 'name'. Did you mean 'nome'?"),
        ("id float8, name text", people(1), "column 'id': Int64 does not fit float8 without loss."),
        ("id bigint, name text, must int NOT NULL", people(1), "column 'must' is NOT NULL and the pipeline does not"),
        ("id bigint GENERATED ALWAYS AS (1) STORED, name text", people(1), "column 'id' is generated"),
        ("id smallint, name text", people(70_000), "70000"),
        ("id bigint, name varchar(1)", people(1), "value too long for type character varying(1)"),
        ("id bigint, name uuid", people(1), "name"),
        ("id bigint, name text CHECK (name = 'z')", people(1), "violates check constraint"),
        ("id bigint, name jsonb", people(1), "invalid input syntax for type json"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    ddl: str, frame: pl.DataFrame, word: str, target: Make, load: Load, connect: Connect
) -> None:
    connection = connect()
    connection.execute(f"CREATE TABLE t ({ddl})")

    with pytest.raises(LoadError) as caught:
        load(target(), frame)

    assert word in str(caught.value)
    assert str(caught.value).startswith("target t: ")
    assert "\n" not in str(caught.value)
    assert rows(connection) == []


def test_types_that_postgresql_does_not_have(target: Make, load: Load) -> None:
    with pytest.raises(TargetTypeError, match="column 'x': PostgreSQL has no type for"):
        load(target(), pl.DataFrame({"x": [{"bytes in a struct": b"1"}]}))
