"""The quarantine of a PostgreSQL target: ``lockgate.quarantine``, written in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from flows._ledger import RunRecord
from flows._postgres import Connection, execute, statement
from flows._quarantine import KEPT, STATUSES, Marks, Quarantine, Status
from flows._sides import Side
from flows.targets import _kept

_TABLE = "lockgate.quarantine"
_SLICE = 10_000
#: Makes a table of an earlier version one of this; what was kept before is told by the ledger.
UPGRADE = """
ALTER TABLE lockgate.quarantine
    ADD COLUMN IF NOT EXISTS config_version text,
    ADD COLUMN IF NOT EXISTS quarantined_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN IF NOT EXISTS status text NOT NULL DEFAULT 'waiting',
    ADD COLUMN IF NOT EXISTS resolved_at timestamptz,
    ADD COLUMN IF NOT EXISTS resolved_by text;
UPDATE lockgate.quarantine AS q SET config_version = l.config_version, quarantined_at = l.finished_at
FROM lockgate.loads AS l WHERE l.run_id = q.run_id AND q.config_version IS NULL;
CREATE INDEX IF NOT EXISTS quarantine_pipeline ON lockgate.quarantine (pipeline, quarantined_at);
"""
_EARLIER = """(
    SELECT q.*, 'waiting' AS status, l.config_version, l.finished_at AS quarantined_at,
        NULL::timestamptz AS resolved_at, NULL::text AS resolved_by
    FROM lockgate.quarantine AS q LEFT JOIN lockgate.loads AS l USING (run_id))"""
_ISO = """to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')"""


def is_current(connection: Connection) -> bool:
    """Whether the table is there, as this version makes it."""
    query = "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'resolved_by')"
    row = execute(connection, query, (_TABLE,)).fetchone()
    return bool(row and row[0])


def conclude(connection: Connection, record: RunRecord, quarantine: Quarantine, side: Side) -> None:
    """Keep a run's rows, mark those that it replays, and remove those that are too old.

    Raises:
        TargetBusyError: a row that it replays is not waiting any more.
    """
    write(connection, record, quarantine)
    if record.replays:
        marked = mark(connection, record.pipeline, record.replays, "replayed", record.run_id)
        _kept.hold_marked(record, marked, side)
    if record.forgets_before is not None:
        query = f"DELETE FROM {_TABLE} WHERE pipeline = %s AND quarantined_at < %s AND run_id <> %s"
        values = (record.pipeline, record.forgets_before, record.run_id)
        record.forgotten = execute(connection, query, values).rowcount


def write(connection: Connection, record: RunRecord, quarantine: Quarantine) -> None:
    """Copy a run's quarantined rows into the table."""
    if not quarantine.rows:
        return
    number = 0
    columns = 'run_id, pipeline, number, row, stage, "values", reasons, config_version'
    with connection.cursor() as cursor, cursor.copy(statement(f"COPY {_TABLE} ({columns}) FROM STDIN")) as copy:
        for frame in quarantine:
            for row, stage, values, reasons in frame.iter_rows():
                kept = (row, stage, values, reasons, record.config_version)
                copy.write_row((record.run_id, record.pipeline, number, *kept))
                number += 1


def mark(connection: Connection, pipeline: str, marks: Marks, status: Status, by: str | None = None) -> int:
    """Give those of the rows that are waiting another status; returns how many were."""
    query = f"""
        UPDATE {_TABLE} SET status = %s, resolved_at = now(), resolved_by = %s
        WHERE pipeline = %s AND run_id = %s AND number = ANY(%s) AND status = 'waiting'
    """
    return sum(
        execute(connection, query, (status, by, pipeline, run_id, list(numbers))).rowcount
        for run_id, numbers in sorted(marks.items())
    )


def kept(connection: Connection, pipeline: str, run_id: str | None, status: Status | None) -> Iterator[pl.DataFrame]:
    """The rows of a pipeline, a frame at a time."""
    rows = _rows(connection)
    if rows is None:
        return
    query = f"""
        SELECT run_id, number, row, stage, status, reasons, config_version, {_ISO.format("quarantined_at")},
            {_ISO.format("resolved_at")}, resolved_by, "values"::text
        FROM {rows} AS q
        WHERE pipeline = %(pipeline)s AND (%(run)s::text IS NULL OR run_id = %(run)s)
            AND (%(status)s::text IS NULL OR status = %(status)s)
        ORDER BY q.quarantined_at, run_id, number
    """
    with connection.transaction(), connection.cursor("kept") as cursor:
        cursor.execute(statement(query), {"pipeline": pipeline, "run": run_id, "status": status})
        while found := cursor.fetchmany(_SLICE):
            yield pl.DataFrame(found, schema=KEPT, orient="row")


def counts(connection: Connection, pipeline: str) -> list[dict[str, Any]]:
    """Each run of a pipeline that has rows, the newest first."""
    rows = _rows(connection)
    if rows is None:
        return []
    sums = ", ".join(f"count(*) FILTER (WHERE status = '{status}')" for status in STATUSES)
    query = (
        f"SELECT run_id, {sums} FROM {rows} AS q WHERE pipeline = %s "
        "GROUP BY run_id ORDER BY max(quarantined_at) DESC, run_id DESC"
    )
    return [dict(zip(("run_id", *STATUSES), row, strict=True)) for row in execute(connection, query, (pipeline,))]


def _rows(connection: Connection) -> str | None:
    """The table, or what stands for it until a run has upgraded it: whoever only looks changes nothing."""
    if is_current(connection):
        return _TABLE
    row = execute(connection, "SELECT to_regclass(%s) IS NOT NULL", (_TABLE,)).fetchone()
    return _EARLIER if row and row[0] else None
