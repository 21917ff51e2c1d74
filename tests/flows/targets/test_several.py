"""Several targets of one run: each published whole, the others told of when one fails."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
from click.testing import CliRunner

from flows import _stages, pipeline
from flows.__main__ import main
from flows._config import Pipeline, load
from flows._errors import ConfigError, LoadError, RefusedError, TargetBusyError
from flows._explained import explained
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows._retry import Policy, retried
from flows.pipeline import Stages
from validations._errors import TooManyRejectedError

pytestmark = pytest.mark.postgres
Connect = Callable[[], psycopg.Connection]
CONFIG = """
pipelines:
  both:
    type: batch
    source: {{type: database, connection_string: "{uri}", query: "SELECT * FROM origin ORDER BY id"}}
    targets:
      near: {{type: database, connection_string: "{uri}", table_name: near, {near}}}
      far: {{type: database, connection_string: "{uri}", table_name: far, {far}}}
    quality_rules:
      - {{type: not_null, field: name}}
      - {{type: unique, field: id}}
"""
UPSERT = "write_mode: upsert, primary_key: id"
#: A third of the rows are twins, and one has no name.
ORIGIN = """
CREATE TABLE origin (id int, name text);
INSERT INTO origin SELECT g, 'n' || g FROM generate_series(1, 100) g;
INSERT INTO origin VALUES (7, 'twin'), (200, NULL)
"""
GOOD = [(g, f"n{g}") for g in range(1, 101) if g != 7]


@pytest.fixture
def session(connect: Connect) -> psycopg.Connection:
    connection = connect()
    connection.execute(ORIGIN)
    return connection


def test_a_guard_of_the_second_target_says_what_the_first_has(
    made: Callable[..., Pipeline], session: psycopg.Connection
) -> None:
    session.execute("CREATE TABLE far AS SELECT g AS id, 'n' || g AS name FROM generate_series(1, 1000) g")

    with pytest.raises(RefusedError, match=r"target far: .* 901 of 1,000 rows .*published to 'near' all the same"):
        pipeline.run(made(far="write_mode: overwrite"))

    assert session.execute("SELECT count(*) FROM far").fetchone() == (1000,)


@pytest.fixture
def made(database: str, tmp_path: Path) -> Callable[..., Pipeline]:
    def make(near: str = UPSERT, far: str = UPSERT) -> Pipeline:
        file = tmp_path / "both.yaml"
        file.write_text(CONFIG.format(uri=database, near=near, far=far))
        return load(file).pipeline("both")

    return make


def rows(session: psycopg.Connection, table: str) -> list[tuple[Any, ...]]:
    if (session.execute("SELECT to_regclass(%s)", (table,)).fetchone() or [None])[0] is None:
        return []
    return session.execute(f"SELECT * FROM {table} ORDER BY id, name").fetchall()


def ledger(session: psycopg.Connection) -> list[tuple[Any, ...]]:
    query = "SELECT target, status, rows_written, record -> 'rows' ->> 'unchanged' FROM lockgate.loads"
    return sorted(session.execute(query).fetchall())


def outcome(status: str, target: str, written: int = 0, unchanged: int = 0) -> dict[str, Any]:
    return {"target": target, "status": status, "written": written, "unchanged": unchanged}


def is_closed_to_writers(session: psycopg.Connection, table: str) -> None:
    session.execute(
        f"CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'closed'; END $$;"
        f"CREATE TRIGGER no BEFORE INSERT OR UPDATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION no()"
    )


def test_each_target_has_all_rows_and_a_ledger_row_of_its_own(session, made):
    record = pipeline.run(made())

    assert rows(session, "near") == rows(session, "far") == GOOD
    assert record.status == "published"
    assert (record.rows.read, record.rows.quarantined, record.rows.written) == (102, 3, 99)
    assert record.as_json()["targets"] == {
        "near": outcome("published", "near", written=99),
        "far": outcome("published", "far", written=99),
    }
    assert record.target == "near: near, far: far"


def test_one_that_has_the_rows_already_says_so_by_itself(session, made):
    pipeline.run(made())
    session.execute("UPDATE far SET name = 'changed' WHERE id < 4")

    record = pipeline.run(made())

    assert record.status == "published"
    assert record.targets == {
        "near": outcome("unchanged", "near", unchanged=99),
        "far": outcome("published", "far", written=3, unchanged=96),
    }
    assert pipeline.run(made()).status == "unchanged"


def test_every_verb_sees_one_pipeline(session, made):
    both = made()
    record = pipeline.run(both)

    assert [(run["run_id"], run["pipeline"], run["targets"]) for run in both.target.history("both", 5)] == [
        (record.run_id, "both", record.targets)
    ]
    for run_id in (None, record.run_id):
        kept = both.target.quarantined("both", run_id, 9)
        assert sorted(row["values"]["id"] for row in kept) == [7, 7, 200]
        assert {row["run_id"] for row in kept} == {record.run_id}
    assert both.target.quarantined("both", "nobody", 9) == []
    assert ledger(session) == [("far", "published", 99, "0"), ("near", "published", 99, "0")]
    assert session.execute("SELECT pipeline, count(*) FROM lockgate.quarantine GROUP BY 1 ORDER BY 1").fetchall() == [
        ("both.far", 3),
        ("both.near", 3),
    ]
    both.target.check()


def test_a_plan_says_what_becomes_of_each_and_changes_nothing(session, made):
    facts = explained(made(near="write_mode: append"))

    assert facts["target"] == "near: near, far: far"
    assert [line.partition(": ")[0] for line in facts["publishes"]] == ["near", "far", "far"]
    assert session.execute("SELECT to_regclass('near'), to_regclass('lockgate.loads')").fetchone() == (None, None)


def test_a_target_that_cannot_be_opened_lets_go_of_the_others(session, made):
    session.execute("CREATE TABLE far (id text, name text)")

    with pytest.raises(LoadError, match=r"^targets\.far: target far: column 'id': Int32 does not fit text") as failed:
        pipeline.run(made())

    assert failed.value.path == ("targets", "far")
    assert rows(session, "near") == []
    assert ledger(session) == [("far", "failed", 0, "0"), ("near", "failed", 0, "0")]
    assert session.execute("SELECT count(*) FROM pg_tables WHERE tablename ~ '^staging'").fetchone() == (0,)


def test_rules_refuse_the_load_of_all(session, made):
    session.execute("UPDATE origin SET name = NULL WHERE id < 20")

    with pytest.raises(TooManyRejectedError):
        pipeline.run(made())

    assert rows(session, "near") == rows(session, "far") == []
    assert ledger(session) == [("far", "refused", 0, "0"), ("near", "refused", 0, "0")]


def test_where_the_second_fails_the_first_is_published_and_the_error_and_the_record_say_so(session, made):
    pipeline.run(made())
    session.execute("UPDATE origin SET name = 'new' WHERE id = 1")
    is_closed_to_writers(session, "far")
    kept: list[RunRecord] = []

    with pytest.raises(LoadError) as failed:
        run_under(made(), kept)

    assert str(failed.value) == (
        "targets.far: target far: closed. Nothing was published there. The load is published to 'near' all the same: "
        "each target has a transaction of its own. Run again when this is mended."
    )
    assert rows(session, "near")[0] == (1, "new")
    assert rows(session, "far") == GOOD
    (record,) = kept
    assert record.status == "failed"
    assert record.targets == {
        "near": outcome("published", "near", written=1, unchanged=98),
        "far": outcome("failed", "far"),
    }
    newest, _first = made().target.history("both", 5)
    assert newest["status"] == "failed"
    assert newest["targets"] == record.targets

    session.execute("DROP TRIGGER no ON far")
    assert pipeline.run(made()).targets == {
        "near": outcome("unchanged", "near", unchanged=99),
        "far": outcome("published", "far", written=1, unchanged=98),
    }
    assert rows(session, "far") == rows(session, "near")


def run_under(both: Pipeline, kept: list[RunRecord], stages: Stages | None = None) -> RunRecord:
    """Run with a record that the test sees, however it ends."""
    kept.append(RunRecord.start(both.name, both.target.label, both.version))
    return pipeline.resume(both, kept[0], stages=stages or Stages())


@pytest.mark.parametrize("mode", ["append", "overwrite", "upsert, primary_key: id"])
def test_a_retry_of_load_goes_on_with_those_that_are_left(session, made, mode):
    both = made(near=f"write_mode: {mode}", far=f"write_mode: {mode}, lock_timeout_seconds: 1")
    pipeline.run(both)
    before = len(rows(session, "near"))
    attempts: list[str] = []

    def load_with_the_table_held_at_first(run, chamber):
        attempts.append("load")
        if len(attempts) > 1:
            return _stages.load(run, chamber)
        with session.transaction():
            session.execute("LOCK TABLE far IN ACCESS EXCLUSIVE MODE")
            return _stages.load(run, chamber)

    policy = Policy(retries=1, delays=(0,))
    record = run_under(both, [], retried(Stages(load=load_with_the_table_held_at_first), policy))

    assert attempts == ["load", "load"]
    assert {name: each["status"] for name, each in record.targets.items()} == dict.fromkeys(
        ("near", "far"), "unchanged" if "upsert" in mode else "published"
    )
    expected = sorted(GOOD * 2) if mode == "append" else GOOD
    assert rows(session, "near") == rows(session, "far") == expected
    assert before == len(GOOD)
    assert len(ledger(session)) == 4


CHILD = """
import sys
from flows import pipeline
from flows._config import load
print(pipeline.run(load(sys.argv[1]).pipeline("both")).status, flush=True)
"""


def test_killed_between_the_two_the_next_run_completes(session, made, tmp_path, connect):
    pipeline.run(made())
    session.execute("UPDATE origin SET name = name || '+'")
    watcher = connect()

    with session.transaction():
        session.execute("LOCK TABLE far IN SHARE MODE")
        command = (sys.executable, "-c", CHILD, str(tmp_path / "both.yaml"))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            deadline = time.monotonic() + 60
            while rows(watcher, "near")[0] != (1, "n1+"):
                assert child.poll() is None, child.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            child.send_signal(signal.SIGKILL)
    assert rows(session, "far") == GOOD

    record = pipeline.run(made())

    assert record.targets == {
        "near": outcome("unchanged", "near", unchanged=99),
        "far": outcome("published", "far", written=99),
    }
    assert rows(session, "near") == rows(session, "far") == [(g, f"{name}+") for g, name in GOOD]
    assert session.execute("SELECT count(*) FROM pg_tables WHERE tablename ~ '^staging'").fetchone() == (0,)


def test_a_guard_of_the_second_refuses_and_says_what_is_published(session, made):
    session.execute("DELETE FROM origin")

    with pytest.raises(RefusedError) as refused:
        pipeline.run(made(far="write_mode: overwrite"))

    assert str(refused.value).startswith("targets.far: target far: the load is empty")
    assert "The load is published to 'near' all the same" in str(refused.value)


def test_two_that_name_the_same_table_get_in_each_others_way(session, made, database, tmp_path):
    both = made()
    same = both.target.members["near"]
    target = both.target.model_copy(update={"members": {"near": same, "far": same}})

    with pytest.raises(TargetBusyError, match=r"^targets\.far: target near: another run is loading it"):
        target.open(RunRecord.start("both", "x", "1"), pl.Schema({"id": pl.Int32, "name": pl.String}))


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ("", "'target' cannot stand beside 'targets'. Write one of them."),
        ("targets:", "'target' is missing. Write it."),
    ],
)
def test_a_configuration_has_one_or_the_other(left_out, said, database, tmp_path):
    text = CONFIG.format(uri=database, near=UPSERT, far=UPSERT)
    if left_out:
        head, _targets, rest = text.partition("    targets:\n")
        text = head + "    quality_rules:\n" + rest.partition("    quality_rules:\n")[2]
    else:
        one = "    target: {type: stream, connection_string: x, topic: x}\n"
        text = text.replace("    targets:\n", f"{one}    targets:\n")
    (tmp_path / "both.yaml").write_text(text)

    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        load(tmp_path / "both.yaml")


def test_a_mistake_in_one_is_told_by_its_name(database, tmp_path):
    (tmp_path / "both.yaml").write_text(CONFIG.format(uri=database, near=UPSERT, far="wirte_mode: append"))

    with pytest.raises(ConfigError, match=r"both\.yaml:8  targets\.far\.wirte_mode: .* Did you mean 'write_mode'\?"):
        load(tmp_path / "both.yaml")


def test_the_state_of_the_target_that_is_behind_counts(session, made):
    both = made()
    near, far = both.target.members.values()
    keep(near, "both.near", {"source": {"seen": ["a"]}})
    keep(far, "both.far", {"source": {"seen": ["a"]}})
    assert both.target.state("both") == {"source": {"seen": ["a"]}}

    keep(near, "both.near", {"source": {"seen": ["a", "b"]}})

    assert both.target.state("both") == {"source": {"seen": ["a"]}}


def test_a_target_that_was_never_loaded_has_everything_to_get(session, made):
    both = made()
    keep(both.target.members["near"], "both.near", {"source": {"seen": ["a"]}})

    assert both.target.state("both") == {}


def keep(target, name: str, state: dict[str, Any]) -> None:
    """Publish one row under a state."""
    frame = pl.DataFrame({"id": [len(state["source"]["seen"])], "name": ["x"]})
    record = RunRecord.start(name, target.label, "1")
    record.state = state
    with target.open(record, frame.schema) as chamber:
        chamber.stage(frame)
        record.rows.read, record.staged = 1, chamber.seal()
        chamber.publish(record, Quarantine(Path("nowhere")))


#: Holds a database; SQLite's locks are between processes.
HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
input()
"""
ELSEWHERE = """
pipelines:
  all:
    type: batch
    source: {{type: database, connection_string: "{uri}", query: "SELECT * FROM origin ORDER BY id"}}
    targets:
      warehouse: {{type: database, connection_string: "{uri}", table_name: near, {upsert}}}
      book: {{type: database, connection_string: "sqlite:///{folder}/book.db", table_name: far, {upsert}}}
      export: {{type: file, path: "{folder}/export/orders.csv", write_mode: overwrite}}
      lake: {{type: data_lake, path: "{folder}/lake", {upsert}}}
    quality_rules:
      - {{type: not_null, field: name}}
      - {{type: unique, field: id}}
"""


def test_systems_of_different_kinds_get_the_same_rows_and_each_its_ledger(session, database, tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "all.yaml").write_text(ELSEWHERE.format(uri=database, folder=tmp_path, upsert=UPSERT))
    everywhere = load(tmp_path / "all.yaml").pipeline("all")

    def exported() -> list[tuple[Any, ...]]:
        return pl.read_csv(tmp_path / "export" / "orders.csv").rows()

    def booked() -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(tmp_path / "book.db")) as connection:
            return connection.execute("SELECT * FROM far ORDER BY id").fetchall()

    def in_lake() -> list[tuple[Any, ...]]:
        return pl.read_delta(str(tmp_path / "lake")).sort("id").rows()

    record = pipeline.run(everywhere)

    assert rows(session, "near") == booked() == exported() == in_lake() == GOOD
    assert {name: each["written"] for name, each in record.targets.items()} == dict.fromkeys(record.targets, 99)
    for name, member in everywhere.target.members.items():
        (run,) = member.history(f"all.{name}", 5)
        assert (run["status"], run["rows"]["quarantined"], run["target"]) == ("published", 3, member.label)
        assert len(member.quarantined(f"all.{name}", None, 9)) == 3

    # The second is held by somebody else: the first has the change, the third does not, until the next run.
    session.execute("UPDATE origin SET name = 'new' WHERE id = 1")
    command = (sys.executable, "-c", HOLDER, str(tmp_path / "book.db"))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        busy = everywhere.target.members["book"].model_copy(update={"lock_timeout_seconds": 1})
        members = everywhere.target.members | {"book": busy}
        target = everywhere.target.model_copy(update={"members": members})
        with pytest.raises(TargetBusyError, match=r"The load is published to 'warehouse' all the same"):
            run_under(replace(everywhere, target=target), kept := [])
        holder.communicate("done\n")
    assert [each["status"] for each in kept[0].targets.values()] == ["published", "failed", "waiting", "waiting"]
    assert rows(session, "near")[0] == (1, "new")
    assert booked()[0] == exported()[0] == in_lake()[0] == (1, "n1")

    record = pipeline.run(everywhere)

    assert {name: each["unchanged"] for name, each in record.targets.items()} == {
        "warehouse": 99, "book": 98, "export": 0, "lake": 98,
    }  # fmt: skip
    assert rows(session, "near") == booked() == exported() == in_lake()
    assert [run["status"] for run in everywhere.target.history("all", 5)] == ["published", "failed", "published"]


def test_people_see_each_target(session, made, tmp_path):
    made()

    def said(*arguments: str) -> str:
        result = CliRunner().invoke(main, [*arguments, "--config", str(tmp_path / "both.yaml")])
        assert result.exit_code == 0, result.output
        return result.stdout

    answer = said("run", "both", "--no-prefect")
    for name in ("near", "far"):
        assert re.search(rf"^  target {name} +{name}: published, 99 written, 0 unchanged$", answer, re.MULTILINE)
    assert "near: database near, far: database far" in said("list")
    assert re.search(
        r"^  targets:  +# .*both\.yaml:6\n    near:  +# .*both\.yaml:7$", said("show", "both"), re.MULTILINE
    )
    (run,) = json.loads(said("history", "both", "--json"))
    assert (run["pipeline"], run["status"]) == ("both", "published")
    assert "3 rows of run " in said("quarantine", "list", "both")


def test_the_order_of_targets_is_part_of_the_version(made, database, tmp_path):
    forth = made()
    lines = (tmp_path / "both.yaml").read_text().splitlines()
    (tmp_path / "both.yaml").write_text("\n".join([*lines[:6], lines[7], lines[6], *lines[8:]]))

    back = load(tmp_path / "both.yaml").pipeline("both")

    assert list(forth.target.members) == ["near", "far"]
    assert list(back.target.members) == ["far", "near"]
    assert forth.version != back.version
