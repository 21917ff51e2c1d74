"""Quarantines of an earlier version, which knew no status: they can be read, and the next run upgrades them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import psycopg
import pytest

from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.targets._base import Target, targets

pytestmark = pytest.mark.postgres
LATER = ("config_version", "quarantined_at", "status", "resolved_at", "resolved_by")
Run = Callable[[str], Any]


@pytest.fixture(params=["postgresql", "sqlite", "duckdb"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Target, Run, str]:
    """A target, what runs SQL there, and the name of its table."""
    if request.param == "postgresql":
        uri = request.getfixturevalue("database")
        opened: Callable[[], Any] = lambda: psycopg.connect(uri, autocommit=True)  # noqa: E731 - one of three
        table = "lockgate.quarantine"
    else:
        uri = f"{request.param}:///{tmp_path}/old.db"
        module: Any = sqlite3 if request.param == "sqlite" else duckdb
        opened = lambda: module.connect(f"{tmp_path}/old.db")  # noqa: E731 - as above
        table = "lockgate_quarantine" if request.param == "sqlite" else "lockgate.quarantine"

    def run(query: str) -> Any:
        with closing(opened()) as connection:
            found = connection.execute(query)
            rows = found.fetchall() if query.startswith("SELECT") else None
            connection.commit()
            return rows

    return (
        targets.get("database").model_validate({"type": "database", "connection_string": uri, "table_name": "t"}),
        run,
        table,
    )


def publish(target: Target, folder: Path, **facts: Any) -> RunRecord:
    record = RunRecord.start("old", "t", "v1")
    for name, value in facts.items():
        setattr(record, name, value)
    quarantine = Quarantine(folder / record.run_id)
    quarantine.add(pl.DataFrame({"n": [1, 2]}), pl.Series([0, 1]), pl.Series([["n positive"]] * 2))
    record.rows.read = record.rows.quarantined = record.rejected_as_read = 2
    with target.open(record, pl.Schema({"n": pl.Int64()}), folder / "work") as chamber:
        record.staged = chamber.seal()
        chamber.publish(record, quarantine)
    return record


def test_an_old_quarantine_is_read_and_upgraded_in_place(old: tuple[Target, Run, str], tmp_path: Path) -> None:
    target, run, table = old
    first = publish(target, tmp_path)
    for column in LATER:
        run(f"ALTER TABLE {table} DROP COLUMN {column}")

    (frame,) = target.kept("old")
    assert (
        frame.select("run_id", "status", "config_version", "resolved_by").rows()
        == [(first.run_id, "waiting", "v1", None)] * 2
    )
    assert frame["quarantined_at"].str.starts_with(f"{first.started_at:%Y-%m-%d}").all()
    assert target.kept_counts("old") == [{"run_id": first.run_id, "waiting": 2, "replayed": 0, "discarded": 0}]
    assert len(target.quarantined("old", None, 9, "waiting")) == 2

    second = publish(target, tmp_path, replays={first.run_id: [1]})

    assert [row["status"] for row in target.quarantined("old", first.run_id, 9)] == ["waiting", "replayed"]
    assert [row["config_version"] for row in target.quarantined("old", first.run_id, 9)] == ["v1", "v1"]
    assert len(target.quarantined("old", second.run_id, 9)) == 2
    assert run(f"SELECT count(*) FROM {table} WHERE status = 'waiting'") == [(3,)]
