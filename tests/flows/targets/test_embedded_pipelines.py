"""Whole pipelines into database files, and SIGKILL in the middle of them."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from flows import pipeline
from flows._config import load
from flows._home import home
from flows._ledger import RunRecord
from tests._python import Child

ROWS = 20_000
CONFIG = """
pipelines:
  people:
    type: batch
    source: {{type: file, path: "{folder}/people.csv", batch_bytes: 64000}}
    target:
      type: {type}
      connection_string: "{kind}:///{folder}/target.db"
      table_name: people
      write_mode: {mode}
      primary_key: {key}
    transformations:
      - {{type: filter, parameters: {{where: "id IS NULL OR id % 10 <> 3"}}}}
    quality_rules:
      - {{type: not_null, field: id}}
      - {{type: unique, field: id}}
      - {{type: row_count, parameters: {{min: 10}}}}
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
print(pipeline.run(load(sys.argv[1]).pipeline("people"), reporter=Loud()).status, flush=True)
"""


class Run:
    """One pipeline, in processes of its own."""

    def __init__(self, kind: str, mode: str, folder: Path, *, type_: str = "database") -> None:
        self.kind, self.mode, self.folder = kind, mode, folder
        self.file = folder / "target.db"
        self.config = folder / "people.yaml"
        key = "[]" if mode == "append" else "id"
        self.config.write_text(CONFIG.format(folder=folder, kind=kind, mode=mode, key=key, type=type_))

    def write_source(self, rows: int, mark: str = "") -> None:
        lines = (f"{'' if n == 77 else n},n{n}{mark if n % 2 else ''},{n / 4}" for n in range(rows))
        self.folder.joinpath("people.csv").write_text("\n".join(["id,name,amount", *lines, "5,twice,0"]) + "\n")

    def good(self, rows: int, mark: str = "") -> list[tuple[Any, ...]]:
        """What one run makes of the source."""
        kept = (n for n in range(rows) if n % 10 != 3 and n not in (5, 77))
        return [(n, f"n{n}{mark if n % 2 else ''}", n / 4) for n in kept]

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        connect: Any = sqlite3.connect if self.kind == "sqlite" else duckdb.connect
        with closing(connect(str(self.file))) as connection:
            return [tuple(row) for row in connection.execute(sql).fetchall()]

    def table(self) -> list[tuple[Any, ...]]:
        names = "sqlite_master" if self.kind == "sqlite" else "duckdb_tables()"
        column = "name" if self.kind == "sqlite" else "table_name"
        if not self.file.exists() or not self.query(f"SELECT 1 FROM {names} WHERE {column} = 'people'"):
            return []
        return self.query("SELECT id, name, amount FROM people ORDER BY id, name")

    def system(self, table: str) -> str:
        return f"lockgate_{table}" if self.kind == "sqlite" else f"lockgate.{table}"

    def flows(self, *arguments: str) -> tuple[int, Any]:
        command = (sys.executable, "-m", "flows", *arguments, "--config", str(self.config), "--json")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    @contextmanager
    def started(self) -> Iterator[Child]:
        with Child(CHILD, str(self.config)) as child:
            try:
                yield child
            finally:
                child.send_signal(signal.SIGKILL)

    def finish(self) -> RunRecord:
        """Run it in this process."""
        return pipeline.run(load(self.config).pipeline("people"))

    def kill_when(self, line: str, times: int = 1) -> None:
        with self.started() as child:
            for said in child.stdout:
                times -= said.strip() == line
                if not times:
                    time.sleep(random.uniform(0, 0.08))
                    return


@pytest.fixture(params=["sqlite", "duckdb"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_run_from_yaml(kind: str, tmp_path: Path) -> None:
    run = Run(kind, "upsert", tmp_path, type_="data_warehouse" if kind == "duckdb" else "database")
    run.write_source(100)

    code, result = run.flows("run", "people", "--no-prefect")
    assert (code, result["status"], result["published"]) == (0, "published", "created")
    assert {name: count for name, count in result["rows"].items() if count} == {
        "read": 101,
        "filtered": 10,
        "quarantined": 3,
        "written": 88,
    }
    assert run.table() == run.good(100)

    run.write_source(100, mark="+")
    second = run.finish()
    assert (second.rows.written, second.rows.unchanged) == (38, 50)
    assert run.table() == run.good(100, mark="+")
    found = load(run.config).pipeline("people").target.quarantined("people", second.run_id, 9)
    assert sorted(row["reasons"][0] for row in found) == ["id not_null", "id unique", "id unique"]

    run.write_source(4)
    code, refused = run.flows("run", "people", "--no-prefect")
    assert (code, refused["status"]) == (1, "refused")
    assert run.table() == run.good(100, mark="+")
    assert run.query(f"SELECT status, count(*) FROM {run.system('loads')} GROUP BY 1 ORDER BY 1") == [
        ("published", 2),
        ("refused", 1),
    ]


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_killed_anywhere_the_table_is_as_before_or_as_after(kind: str, mode: str, tmp_path: Path) -> None:
    run = Run(kind, mode, tmp_path)
    run.write_source(ROWS)
    run.finish()
    before = run.table()
    assert before == run.good(ROWS)
    for round_, (line, times) in enumerate((("rows", 3), ("load", 1))):
        mark = f"+{round_}"
        run.write_source(ROWS, mark)
        once = run.good(ROWS, mark)
        after = sorted([*before, *once]) if mode == "append" else once

        run.kill_when(line, times)

        assert run.table() in (before, after)
        before = run.table()
    run.finish()
    assert list((home() / "runs").iterdir()) == []  # nothing is left of the dead
    again = run.good(ROWS, mark)
    assert run.table() == (sorted([*before, *again]) if mode == "append" else again)
    written = f"SELECT sum(rows_written), count(*) FROM {run.system('loads')}"
    assert mode != "append" or run.query(written)[0][0] == len(run.table())
    assert run.query(f"SELECT count(*) FROM {run.system('quarantine')}")[0][0] == 3 * run.query(written)[0][1]


WITHIN = """
pipelines:
  people:
    type: batch
    source: {{type: database, connection_string: "{url}", schema: {{table: people}}}}
    target: {{type: database, connection_string: "{url}", table_name: {table}, write_mode: replace}}
    quality_rules: [{{type: unique, field: name}}]
"""


@pytest.mark.parametrize("table", ["copies", "people"])
def test_from_a_table_to_another_of_the_same_file_or_to_itself(kind: str, table: str, tmp_path: Path) -> None:
    run = Run(kind, "append", tmp_path)
    run.write_source(100)
    run.finish()
    run.config.write_text(WITHIN.format(url=f"{kind}:///{run.file}", table=table))
    run.folder.joinpath("people.csv").unlink()

    for _again in range(2):
        record = run.finish()

    assert (record.status, record.rows.read, record.rows.written) == ("published", 88, 88)
    assert run.query(f"SELECT id, name, amount FROM {table} ORDER BY id") == run.good(100)
