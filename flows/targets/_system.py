"""The system tables beside the data, in schema ``lockgate``: the ledger, the quarantine and the state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flows._ledger import RunRecord
from flows._postgres import Connection, execute, literal, statement
from flows.targets import _system_quarantine

SCHEMA = "lockgate"
#: Stands for the run where a person said what is remembered.
BY_HAND = "state set"
_SETUP_LOCK = "lockgate: system tables"

_TABLES = (
    """
CREATE SCHEMA IF NOT EXISTS lockgate;
CREATE TABLE IF NOT EXISTS lockgate.loads (
    run_id text PRIMARY KEY,
    pipeline text NOT NULL,
    target text NOT NULL,
    status text NOT NULL,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL DEFAULT now(),
    config_version text NOT NULL,
    rows_read bigint NOT NULL,
    rows_written bigint NOT NULL,
    rows_quarantined bigint NOT NULL,
    record jsonb NOT NULL
);
COMMENT ON TABLE lockgate.loads IS 'The ledger: one row a run, committed together with its data.';
CREATE INDEX IF NOT EXISTS loads_pipeline ON lockgate.loads (pipeline, started_at DESC);
CREATE TABLE IF NOT EXISTS lockgate.quarantine (
    run_id text NOT NULL,
    pipeline text NOT NULL,
    number bigint NOT NULL,
    row bigint,
    stage text NOT NULL,
    "values" json NOT NULL,
    reasons text[] NOT NULL,
    PRIMARY KEY (run_id, number)
);
"""
    + _system_quarantine.UPGRADE
    + """
CREATE TABLE IF NOT EXISTS lockgate.state (
    pipeline text NOT NULL,
    source text NOT NULL,
    value jsonb NOT NULL,
    run_id text NOT NULL,
    PRIMARY KEY (pipeline, source)
);
COMMENT ON TABLE lockgate.state IS 'What sources remember from load to load, committed together with its data.';
COMMENT ON TABLE lockgate.quarantine IS 'Rows that broke a rule, as they were read, with the rules they broke.';
"""
)


def prepare(connection: Connection) -> None:
    """Make the schema and its tables where they are missing; safe with others doing the same."""
    tables = ("loads", "quarantine", "state")
    if all(_is_there(connection, table) for table in tables) and _system_quarantine.is_current(connection):
        return
    with connection.transaction():
        execute(connection, f"SELECT pg_advisory_xact_lock(hashtextextended({literal(_SETUP_LOCK)}, 0))")
        connection.execute(statement(_TABLES))


def find(connection: Connection, run_id: str) -> dict[str, Any] | None:
    """The ledger's record of a run, or None."""
    row = execute(connection, "SELECT record FROM lockgate.loads WHERE run_id = %s", (run_id,)).fetchone()
    return row[0] if row else None


def write(connection: Connection, record: RunRecord) -> None:
    """Insert a run's record into the ledger, in the caller's transaction."""
    rows = record.rows
    execute(
        connection,
        "INSERT INTO lockgate.loads (run_id, pipeline, target, status, started_at, finished_at, config_version, "
        "rows_read, rows_written, rows_quarantined, record) "
        "VALUES (%s, %s, %s, %s, %s, clock_timestamp(), %s, %s, %s, %s, %s::jsonb)",
        (
            record.run_id, record.pipeline, record.target, record.status, record.started_at, record.config_version,
            rows.read, rows.written, rows.quarantined, json.dumps(record.as_json()),
        ),
    )  # fmt: skip


def write_state(connection: Connection, record: RunRecord) -> None:
    """Keep what the sources of a run want remembered, in the caller's transaction."""
    for source, value in record.state.items():
        execute(
            connection,
            "INSERT INTO lockgate.state (pipeline, source, value, run_id) VALUES (%s, %s, %s::jsonb, %s) "
            "ON CONFLICT (pipeline, source) DO UPDATE SET value = excluded.value, run_id = excluded.run_id",
            (record.pipeline, source, json.dumps(value), record.run_id),
        )


def remember(connection: Connection, pipeline: str, state: Mapping[str, Any]) -> None:
    """Let `state` be all that the sources of a pipeline had remembered, in the caller's transaction."""
    execute(connection, "DELETE FROM lockgate.state WHERE pipeline = %s", (pipeline,))
    for source, value in state.items():
        execute(
            connection,
            "INSERT INTO lockgate.state (pipeline, source, value, run_id) VALUES (%s, %s, %s::jsonb, %s)",
            (pipeline, source, json.dumps(value), BY_HAND),
        )


def state(connection: Connection, pipeline: str) -> dict[str, Any]:
    """What the sources of a pipeline had remembered, by their names."""
    if not _is_there(connection, "state"):
        return {}
    return dict(execute(connection, "SELECT source, value FROM lockgate.state WHERE pipeline = %s", (pipeline,)))


def history(connection: Connection, pipeline: str, limit: int) -> list[dict[str, Any]]:
    """The newest runs of a pipeline, newest first; none where the ledger is not there yet."""
    if not _is_there(connection, "loads"):
        return []
    query = "SELECT record FROM lockgate.loads WHERE pipeline = %s ORDER BY started_at DESC, run_id DESC LIMIT %s"
    return [record for (record,) in execute(connection, query, (pipeline, limit))]


def _is_there(connection: Connection, table: str) -> bool:
    row = execute(connection, "SELECT to_regclass(%s) IS NOT NULL", (f"{SCHEMA}.{table}",)).fetchone()
    return bool(row and row[0])
