"""SIGKILL in the middle of each stage: the target is as before or as after, and the next run completes."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests._python import Child

pytestmark = pytest.mark.postgres
Connect = Callable[[], psycopg.Connection]

ROWS = 20_000
CONFIG = """
pipelines:
  crash:
    type: batch
    source: {{type: database, connection_string: "{uri}", schema: {{table: source}}, batch_bytes: 64000}}
    target: {{type: database, connection_string: "{uri}", table_name: target, write_mode: {mode}, primary_key: {key}}}
    transformations: [{{type: filter, parameters: {{where: "id IS NULL OR id % 10 <> 3"}}}}]
    quality_rules:
      - {{type: not_null, field: id}}
      - {{type: unique, field: id}}
"""
#: Says which stage it is in, so that the test knows when to strike.
CHILD = """
import sys
from flows import pipeline
from flows._config import load
from flows._report import Silent
class Loud(Silent):
    def stage(self, name): print(name, flush=True)
    def rows(self, read): print("rows", flush=True)
print(pipeline.run(load(sys.argv[1]).pipeline("crash"), reporter=Loud()).status, flush=True)
"""
SOURCE = f"""
CREATE TABLE source AS SELECT nullif(g, 77) AS id, md5(g::text) AS name, (g / 7.0)::numeric(12, 3) AS amount
FROM generate_series(1, {ROWS}) g;
INSERT INTO source VALUES (5, 'twice', 0)
"""
#: What one run makes of the source.
GOOD = "SELECT * FROM source WHERE id % 10 <> 3 AND id <> 5"
#: Versions that end before another one begins, or while it is true already; here no row is ever gone.
GAPS = """
SELECT count(*) FROM (SELECT valid_to, lead(valid_from) OVER (PARTITION BY id ORDER BY valid_from) AS next FROM target)
WHERE valid_to IS DISTINCT FROM next
"""


class Crash:
    """One pipeline, run in processes of its own."""

    def __init__(self, mode: str, uri: str, connection: psycopg.Connection, folder: Path) -> None:
        self.mode = mode
        self.connection = connection
        self.config = folder / "crash.yaml"
        self.config.write_text(CONFIG.format(uri=uri, mode=mode, key="[]" if mode == "append" else "id"))
        connection.execute(SOURCE)

    @contextmanager
    def started(self) -> Iterator[Child]:
        with Child(CHILD, str(self.config)) as child:
            try:
                yield child
            finally:
                child.send_signal(signal.SIGKILL)

    def run(self) -> str:
        with self.started() as child:
            output, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
        return output.split()[-1]

    def table(self) -> list[tuple]:
        if self.scalar("SELECT to_regclass('target')") is None:
            return []
        current = " WHERE is_current" if self.mode == "scd2" else ""
        return self.connection.execute(f"SELECT id, name, amount FROM target{current} ORDER BY id, name").fetchall()

    def scalar(self, query: str) -> object:
        return (self.connection.execute(query).fetchone() or (None,))[0]

    def good(self, times: int = 1) -> list[tuple]:
        once = self.connection.execute(f"{GOOD} ORDER BY id, name").fetchall()
        return sorted(once * times)

    def change_source(self) -> None:
        """Make the next load differ from the last, so that before and after can be told apart."""
        self.connection.execute("UPDATE source SET name = name || '+' WHERE id % 2 = 0")

    def check(self, before: list[tuple]) -> None:
        """As before or as after, nothing of the dead run in sight; and the next run completes."""
        deadline = time.monotonic() + 20
        while self.scalar("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lockgate crash%'"):
            assert time.monotonic() < deadline, "the server still works for a dead client"
            time.sleep(0.02)
        after = sorted([*before, *self.good()]) if self.mode == "append" else self.good()
        found = self.table()
        assert found in (before, after)
        self.run()
        assert self.table() == (sorted([*found, *self.good()]) if self.mode == "append" else self.good())
        assert (
            self.scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'lockgate' AND tablename ~ '^staging'") == 0
        )
        unbalanced = """SELECT count(*) FROM lockgate.loads, jsonb_to_record(record -> 'rows')
            AS r(read int, filtered int, quarantined int, written int, unchanged int)
            WHERE r.read <> filtered + quarantined + written + unchanged"""
        assert self.scalar(unbalanced) == 0
        if self.mode == "scd2":
            assert self.scalar(GAPS) == 0
        assert self.scalar("SELECT count(*) % 3 FROM lockgate.quarantine") == 0  # two twins and a null, every time


MODES = ["overwrite", "append", "upsert", "delete_insert", "scd2"]
#: What comes before publishing is the same for every mode.
STAGES = [(mode, stage) for mode in MODES[:3] for stage in ("extract", "transform", "validate", "load")]
STAGES += [(mode, "load") for mode in MODES[3:]]


@pytest.fixture(params=MODES[:3])
def crash(request: pytest.FixtureRequest, database: str, connect: Connect, tmp_path: Path) -> Crash:
    return Crash(request.param, database, connect(), tmp_path)


@pytest.mark.parametrize(("crash", "stage"), STAGES, indirect=["crash"])
def test_killed_in_a_stage(crash: Crash, stage: str) -> None:
    crash.run()
    before = crash.table()
    crash.change_source()

    with crash.started() as child:
        for line in child.stdout:
            if line.strip() == stage:
                time.sleep(random.uniform(0, 0.02))
                break

    crash.check(before)


def test_killed_halfway_through_the_rows(crash: Crash) -> None:
    crash.run()
    before = crash.table()
    crash.change_source()

    with crash.started() as child:
        seen = 0
        for line in child.stdout:
            seen += line.strip() == "rows"
            if seen == 5:
                break

    crash.check(before)


@pytest.mark.parametrize("crash", MODES, indirect=True)
def test_killed_inside_the_publishing_transaction(crash: Crash) -> None:
    crash.run()
    before = crash.table()
    crash.change_source()

    with crash.connection.transaction():
        crash.connection.execute("LOCK TABLE lockgate.loads IN EXCLUSIVE MODE")  # the ledger is the last to be written
        with crash.started() as child:
            while child.stdout.readline().strip() != "load":
                pass
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'lockgate.loads'::regclass"
            while not crash.scalar(waiting):
                assert child.poll() is None
                time.sleep(0.01)
    assert crash.table() == before

    crash.check(before)


def test_killed_on_the_first_run_of_all(crash: Crash) -> None:
    with crash.started() as child:
        for line in child.stdout:
            if line.strip() == "load":
                break

    crash.check([])


@pytest.mark.soak
@pytest.mark.parametrize("crash", MODES, indirect=True)
@pytest.mark.parametrize("turn", range(60))
def test_killed_at_any_moment(crash: Crash, turn: int) -> None:
    crash.run()
    before = crash.table()
    crash.change_source()

    with crash.started():
        time.sleep(random.uniform(0, 0.5))

    crash.check(before)
