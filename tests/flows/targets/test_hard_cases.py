"""What a review tried to break: each was wrong once."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import psycopg
import pytest

from flows._embedded import Server
from flows._errors import LedgerError, LoadError, RefusedError, TargetMissingError, TargetTypeError
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.targets._base import Published
from flows.targets.database import Database

pytestmark = pytest.mark.postgres
Make = Callable[..., Database]
Load = Callable[..., Published]
Connect = Callable[[], psycopg.Connection]


def people(*ids: int, name: str = "n") -> pl.DataFrame:
    return pl.DataFrame({"id": ids, "name": [f"{name}{i}" for i in ids]}, schema={"id": pl.Int64, "name": pl.String})


def rows(connection: psycopg.Connection, query: str = "SELECT * FROM t ORDER BY 1") -> list[tuple]:
    return connection.execute(query).fetchall()


@pytest.mark.parametrize("mode", ["append", "upsert", "overwrite"])
def test_a_server_that_crashed_has_forgotten_the_staged_rows(mode: str, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    for parent in (folder, *folder.parents[:4]):
        parent.chmod(0o755)
    server = Server(folder, {"shared_buffers": "32MB"})
    server.start()
    try:
        uri = server.uri()
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, name text); INSERT INTO t VALUES (9, 'old')")
            connection.execute("CREATE VIEW v AS SELECT * FROM t")
        options = {"connection_string": uri, "table_name": "t", "write_mode": mode, "primary_key": "id"}
        record = RunRecord.start("crash", "t", "1")
        with Database.model_validate(options).open(record, people().schema) as chamber:
            chamber.stage(people(1, 2))
            record.rows.read, record.staged = 2, chamber.seal()
            pid = int((server.data / "postmaster.pid").read_text().split()[0])
            os.kill(pid, signal.SIGQUIT)
            while server.is_up():
                time.sleep(0.05)
            server.start()
            for _attempt in range(2):
                with pytest.raises(LoadError):
                    chamber.publish(record, Quarantine(tmp_path / "q"))
        with psycopg.connect(uri) as connection:
            assert rows(connection) == [(9, "old")]
    finally:
        server.remove()


def test_a_referenced_table_is_merged_by_any_unique_key(target: Make, load: Load, connect: Connect) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t (id bigint UNIQUE, name text); INSERT INTO t VALUES (1, 'n1'), (2, 'n2')")
    connection.execute(
        "CREATE TABLE child (id bigint REFERENCES t (id) ON DELETE CASCADE); INSERT INTO child VALUES (1), (2)"
    )

    load(target(write_mode="overwrite"), people(1, 2))

    assert len(rows(connection, "SELECT * FROM child")) == 2


def test_a_referenced_table_without_a_key_in_the_load_is_refused(target: Make, load: Load, connect: Connect) -> None:
    connection = connect()
    connection.execute(
        "CREATE TABLE t (n serial UNIQUE, id bigint, name text); INSERT INTO t (id, name) VALUES (1, 'n1')"
    )
    connection.execute("CREATE TABLE child (n int REFERENCES t (n) ON DELETE CASCADE); INSERT INTO child VALUES (1)")

    with pytest.raises(RefusedError, match="foreign keys of other tables point at it"):
        load(target(write_mode="overwrite"), people(1))

    assert len(rows(connection, "SELECT * FROM child")) == 1


def test_rows_that_a_trigger_keeps_out_do_not_balance(target: Make, load: Load, connect: Connect) -> None:
    connection = connect()
    connection.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, name text); CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN IF NEW.id % 2 = 0 THEN RETURN NULL; END IF; RETURN NEW; END';"
        "CREATE TRIGGER odd BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION odd()"
    )

    for mode in ("append", "upsert", "overwrite"):
        with pytest.raises(LedgerError, match="were staged, the target accounts for"):
            load(target(write_mode=mode), people(1, 2, 3))

    assert rows(connection) == []


def test_a_key_that_the_target_has_twice_does_not_balance(target: Make, load: Load, connect: Connect) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t (id bigint, name text); INSERT INTO t VALUES (1, 'a'), (1, 'b')")

    with pytest.raises(LedgerError):
        load(target(write_mode="upsert", primary_key="id"), people(1))

    assert rows(connection) == [(1, "a"), (1, "b")]


@pytest.mark.parametrize("ddl", ["CREATE INDEX late ON t (name)", "GRANT SELECT ON t TO PUBLIC"])
def test_what_is_hung_on_the_table_while_it_is_published_stays(
    ddl: str, target: Make, connect: Connect, tmp_path: Path
) -> None:
    connection, other = connect(), connect()
    connection.execute("CREATE TABLE t (id bigint, name text); INSERT INTO t VALUES (9, 'old')")
    record = RunRecord.start("race", "t", "1")
    with target(write_mode="overwrite").open(record, people().schema) as chamber:
        chamber.stage(people(1))
        record.rows.read, record.staged = 1, chamber.seal()
        other.execute("BEGIN")
        other.execute(ddl)
        threading.Timer(0.1, lambda: other.execute("COMMIT")).start()

        published = chamber.publish(record, Quarantine(tmp_path))

    assert published.how == "rewritten in place"
    hung = (
        "SELECT count(*) FROM pg_indexes WHERE indexname = 'late'"
        if "INDEX" in ddl
        else "SELECT count(relacl) FROM pg_class WHERE oid = 't'::regclass"
    )
    assert rows(connection, hung) == [(1,)]


def test_upsert_updates_what_differs_in_any_byte(target: Make, load: Load, connect: Connect) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, c circle, x float8, n numeric)")
    connection.execute("INSERT INTO t VALUES (1, '<(0,0),1>', 0, 1.0)")
    frame = pl.DataFrame({"id": [1], "c": ["<(5,5),1>"], "x": [-0.0], "n": pl.Series(["1.00"]).cast(pl.Decimal(5, 2))})

    assert load(target(write_mode="upsert"), frame).updated == 1
    assert rows(connection, "SELECT c::text, x::text, n::text FROM t") == [("<(5,5),1>", "-0", "1.00")]
    assert load(target(write_mode="upsert"), frame).unchanged == 1


def test_texts_that_are_one_key_for_the_server_are_refused(target: Make, load: Load, connect: Connect) -> None:
    connect().execute("CREATE TABLE t (id inet, name text)")
    frame = pl.DataFrame({"id": ["10.0.0.1", "10.0.0.1/32"], "name": ["a", "b"]})

    with pytest.raises(LoadError, match="several rows share a key"):
        load(target(write_mode="upsert", primary_key="id"), frame)


def test_tables_of_one_name_do_not_trip_over_each_other(
    target: Make, load: Load, connect: Connect, tmp_path: Path
) -> None:
    connection = connect()
    connection.execute("CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE t_old (id int CONSTRAINT t_pkey PRIMARY KEY)")
    record = RunRecord.start("first", "a.t", "1")
    with target(table_name="a.t", primary_key="id").open(record, people().schema) as chamber:
        chamber.stage(people(1))
        record.rows.read, record.staged = 1, chamber.seal()
        load(target(table_name="b.t", primary_key="id"), people(2))
        load(target(primary_key="id"), people(3))
        chamber.publish(record, Quarantine(tmp_path))

    assert rows(connection, "SELECT id FROM a.t UNION ALL SELECT id FROM b.t UNION ALL SELECT id FROM t") == [
        (1,),
        (2,),
        (3,),
    ]


@pytest.mark.parametrize("name", ["é" * 31 + "x", "n" * 63, "ü" * 31])
def test_names_of_the_greatest_length(name: str, target: Make, load: Load, connect: Connect) -> None:
    for _run in range(2):
        load(target(table_name=name, primary_key="id", write_mode="overwrite"), people(1))

    assert rows(connect(), f'SELECT id FROM "{name}"') == [(1,)]


def test_a_swap_gives_nobody_more_than_they_had(target: Make, load: Load, connect: Connect, database: str) -> None:
    connection = connect()
    role = f"bi_{database.rpartition('test_')[2][:8]}"
    connection.execute(f"CREATE ROLE {role}; CREATE TABLE t (id bigint, name text); GRANT INSERT ON t TO {role}")
    connection.execute(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}; INSERT INTO t VALUES (1, 'x')")

    assert load(target(write_mode="overwrite"), people(1)).how == "swapped in"
    load(target(table_name="fresh"), people(1))

    may = f"SELECT has_table_privilege('{role}', '{{}}', 'SELECT'), has_table_privilege('{role}', '{{}}', 'INSERT')"
    assert rows(connection, may.format("t", "t")) == [(False, True)]
    assert rows(connection, may.format("fresh", "fresh")) == [(True, False)]
    connection.execute(
        f"DROP OWNED BY {role}; ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM {role}; DROP ROLE {role}"
    )


def test_what_cannot_be_loaded_is_refused_before_a_row_moves(target: Make, load: Load, connect: Connect) -> None:
    connect().execute("CREATE TABLE base (id bigint, name text); CREATE VIEW seen AS SELECT * FROM base WHERE id = 0")

    with pytest.raises(TargetMissingError, match=r"it is a view.*Load the table behind it"):
        load(target(table_name="seen"), people(1))
    with pytest.raises(TargetMissingError, match="there is no schema 'nowhere'"):
        load(target(table_name="nowhere.t"), people(1))
    with pytest.raises(ValueError, match="names a database too"):
        target(table_name="db.public.t")


def test_an_unqualified_table_is_found_as_the_server_finds_it(
    target: Make, load: Load, connect: Connect, database: str
) -> None:
    connection = connect()
    connection.execute("CREATE SCHEMA one; CREATE SCHEMA two; CREATE TABLE two.t (id bigint, name text)")
    name = database.partition("?")[0].rpartition("/")[2]
    connection.execute(f'ALTER DATABASE "{name}" SET search_path = one, two')

    load(target(), people(1))

    assert rows(connection, "SELECT id FROM two.t") == [(1,)]


@pytest.mark.parametrize("mode", ["append", "overwrite", "upsert", "delete_insert"])
@pytest.mark.parametrize("kind", ["serial PRIMARY KEY", "int PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY"])
def test_numbers_that_a_load_brings_along_are_not_given_out_again(
    mode: str, kind: str, target: Make, load: Load, connect: Connect
) -> None:
    connection = connect()
    connection.execute(f"CREATE TABLE t (id {kind}, name text); INSERT INTO t (name) VALUES ('first')")

    load(target(write_mode=mode, primary_key="id"), people(2, 3, 70))
    connection.execute("INSERT INTO t (name) VALUES ('next')")

    assert rows(connection, "SELECT id FROM t WHERE name = 'next'") == [(71,)]
    load(target(write_mode=mode, primary_key="id"), people(4))
    assert rows(connection, "SELECT nextval(pg_get_serial_sequence('t', 'id'))") == [(72,)]


def test_a_sequence_that_the_user_may_not_change_is_a_warning(
    target: Make, load: Load, connect: Connect, appender: tuple[str, str]
) -> None:
    role, uri = appender
    connect().execute(f"CREATE TABLE t (id serial PRIMARY KEY, name text); GRANT SELECT, INSERT ON t TO {role}")
    record = RunRecord.start("test", "t", "1")

    load(target(connection_string=uri), people(7), record=record)

    (warning,) = record.warnings
    assert warning == (
        "column 'id' now has numbers up to 7, and this user may not bring the sequence t_id_seq behind them: "
        "GRANT UPDATE ON SEQUENCE t_id_seq, or the table hands out numbers that are taken."
    )


@pytest.fixture
def appender(database: str, connect: Connect) -> Iterator[tuple[str, str]]:
    """A role that may make Lockgate's tables and nothing else, and the URI that it connects with."""
    role = f"appender_{uuid.uuid4().hex[:8]}"
    connection = connect()
    connection.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT CREATE ON DATABASE {connection.info.dbname} TO {role}"
    )
    yield role, f"{database}{'&' if '?' in database else '?'}user={role}&password=secret"
    connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_role_that_may_only_insert_can_append(
    target: Make, load: Load, connect: Connect, appender: tuple[str, str]
) -> None:
    role, uri = appender
    connect().execute(f"CREATE TABLE t (id bigint PRIMARY KEY, name varchar(9)); GRANT INSERT ON t TO {role}")

    assert load(target(connection_string=uri), people(7)) == Published(1, how="appended")


def test_a_table_that_is_swapped_in_or_made_is_known_to_the_planner(target: Make, load: Load, connect: Connect) -> None:
    known = "SELECT attname, n_distinct FROM pg_stats WHERE tablename = 't' ORDER BY 1"
    for _time in range(2):
        load(target(write_mode="overwrite"), people(*range(100)))

        assert rows(connect(), known) == [("id", -1), ("name", -1)]
        assert rows(connect(), "SELECT reltuples FROM pg_class WHERE oid = 't'::regclass") == [(100,)]


@pytest.mark.parametrize("hang", ["SELECT 1", "CREATE VIEW v AS SELECT * FROM t"], ids=["swap", "in place"])
def test_a_broken_constraint_names_the_table_and_not_the_chamber(
    hang: str, target: Make, load: Load, connect: Connect
) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, name text CONSTRAINT short CHECK (length(name) < 3))")
    connection.execute(hang)

    with pytest.raises(LoadError) as refused:
        load(target(write_mode="overwrite"), people(1, 100))

    assert str(refused.value) == (
        'target t: new row for relation "t" violates check constraint "short". Nothing was published. Fix the rows, or '
        "state the rule in quality_rules so that they go to quarantine."
    )


@pytest.mark.parametrize("mode", ["append", "overwrite", "upsert"])
def test_blanks_are_not_cut_from_a_text(mode: str, target: Make, load: Load, connect: Connect) -> None:
    connect().execute("CREATE TABLE t (id bigint PRIMARY KEY, name varchar(3))")
    frame = people(1).with_columns(name=pl.lit("abc "))

    with pytest.raises(TargetTypeError, match=r"column 'name': 'abc ' would be another value in varchar\(3\)"):
        load(target(write_mode=mode), frame)
    assert load(target(write_mode=mode), frame.with_columns(name=pl.lit("ab "))).inserted == 1
