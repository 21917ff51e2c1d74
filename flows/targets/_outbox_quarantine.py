"""The quarantine of what was sent to an API: a table of the outbox, written in the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime

from flows._ledger import RunRecord
from flows._quarantine import Marks, Status
from flows._sides import Side
from flows.targets import _kept

#: 10,000 rows of run ?1 behind number ?2, of status ?3 if it is not null.
PAGE = """
SELECT q.run_id, q.number, coalesce(q."row", -1), q.stage, q.status, q.reasons, l.record ->> '$.config_version',
    l.started_at, coalesce(q.resolved_at, ''), coalesce(q.resolved_by, ''), q."values"
FROM quarantine AS q JOIN loads AS l USING (run_id)
WHERE q.run_id = ?1 AND q.number > ?2 AND (?3 IS NULL OR q.status = ?3) ORDER BY q.number LIMIT 10000
"""
#: For each run of pipeline ?1: how many rows are waiting, replayed and discarded.
COUNTS = """
SELECT q.run_id, sum(q.status = 'waiting'), sum(q.status = 'replayed'), sum(q.status = 'discarded')
FROM quarantine AS q JOIN loads AS l USING (run_id) WHERE l.pipeline = ?1
GROUP BY q.run_id ORDER BY max(l.started_at) DESC, q.run_id DESC
"""
_ADDED = {"status": "TEXT NOT NULL DEFAULT 'waiting'", "resolved_at": "TEXT", "resolved_by": "TEXT"}


def upgrade(connection: sqlite3.Connection) -> None:
    """Give a table of an earlier version the columns of this one."""
    known = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info('quarantine')")}
    for name, kind in _ADDED.items():
        if name not in known:
            connection.execute(f"ALTER TABLE quarantine ADD COLUMN {name} {kind}")


def conclude(connection: sqlite3.Connection, record: RunRecord, side: Side) -> None:
    """Mark the rows that a run replays, and remove those that are too old.

    Raises:
        TargetBusyError: a row that it replays is not waiting any more.
    """
    if record.replays:
        _kept.hold_marked(record, mark(connection, record.replays, "replayed", record.run_id), side)
    if record.forgets_before is not None:
        old = "SELECT run_id FROM loads WHERE pipeline = ? AND started_at < ? AND run_id <> ?"
        values = (record.pipeline, record.forgets_before.isoformat(), record.run_id)
        record.forgotten = connection.execute(f"DELETE FROM quarantine WHERE run_id IN ({old})", values).rowcount


def mark(connection: sqlite3.Connection, marks: Marks, status: Status, by: str | None = None) -> int:
    """Give those of the rows that are waiting another status; returns how many were."""
    now = datetime.now(UTC).isoformat()
    return sum(
        connection.execute(
            "UPDATE quarantine SET status = ?, resolved_at = ?, resolved_by = ? "
            "WHERE run_id = ? AND status = 'waiting' AND number IN (SELECT value FROM json_each(?))",
            (status, now, by, run_id, json.dumps(list(numbers))),
        ).rowcount
        for run_id, numbers in sorted(marks.items())
    )
