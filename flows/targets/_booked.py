"""The system tables of a database that is one file: the ledger, the quarantine and the state, beside the data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flows._ledger import RunRecord
from flows.targets._booked_quarantine import BookedQuarantine
from flows.targets._engines import Engine, Session

_TABLES = {
    "loads": (
        "run_id VARCHAR PRIMARY KEY, pipeline VARCHAR NOT NULL, target VARCHAR NOT NULL, status VARCHAR NOT NULL, "
        "started_at {moment} NOT NULL, finished_at {moment} NOT NULL, config_version VARCHAR NOT NULL, "
        "rows_read BIGINT NOT NULL, rows_written BIGINT NOT NULL, rows_quarantined BIGINT NOT NULL, "
        "record {json} NOT NULL"
    ),
    "quarantine": (
        'run_id VARCHAR NOT NULL, pipeline VARCHAR NOT NULL, number BIGINT NOT NULL, "row" BIGINT, '
        'stage VARCHAR NOT NULL, "values" {json} NOT NULL, reasons {json} NOT NULL, config_version VARCHAR, '
        "quarantined_at VARCHAR, status VARCHAR DEFAULT 'waiting', resolved_at VARCHAR, resolved_by VARCHAR, "
        "PRIMARY KEY (run_id, number)"
    ),
    "state": (
        "pipeline VARCHAR NOT NULL, source VARCHAR NOT NULL, value {json} NOT NULL, run_id VARCHAR NOT NULL, "
        "PRIMARY KEY (pipeline, source)"
    ),
}
#: Stands for the run where a person said what is remembered.
BY_HAND = "state set"
_NEWEST = "ORDER BY started_at DESC, run_id DESC"


class Books:
    """The system tables, by one session."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._engine = engine
        self._session = session
        self.quarantine = BookedQuarantine(engine, session)

    def prepare(self) -> None:
        """Make the tables where they are missing, in the caller's transaction."""
        missing = [table for table in _TABLES if not self._engine.has(self._session, table)]
        for statement in self._engine.creating_system() if missing else ():
            self._session.rows(statement)
        for table in missing:
            columns = _TABLES[table].format(moment=self._engine.moment_type, json=self._engine.json_type)
            self._session.rows(f"CREATE TABLE IF NOT EXISTS {self._engine.system(table)} ({columns})")
        self.quarantine.upgrade()

    def find(self, run_id: str) -> dict[str, Any] | None:
        """The ledger's record of a run, or None."""
        found = self._session.rows(f"SELECT record FROM {self._engine.system('loads')} WHERE run_id = ?", (run_id,))
        return json.loads(found[0][0]) if found else None

    def write(self, record: RunRecord) -> None:
        """Insert a run's record, in the caller's transaction."""
        rows = record.rows
        values = (
            record.run_id, record.pipeline, record.target, record.status, _text(record.started_at),
            _text(datetime.now(UTC)), record.config_version, rows.read, rows.written, rows.quarantined,
            json.dumps(record.as_json()),
        )  # fmt: skip
        self._session.rows(
            f"INSERT INTO {self._engine.system('loads')} VALUES ({', '.join('?' * len(values))})", values
        )

    def write_state(self, record: RunRecord) -> None:
        """Keep what the sources of a run want remembered, in the caller's transaction."""
        for source, value in record.state.items():
            self._session.rows(
                f"INSERT INTO {self._engine.system('state')} VALUES (?, ?, ?, ?) ON CONFLICT (pipeline, source) "
                "DO UPDATE SET value = excluded.value, run_id = excluded.run_id",
                (record.pipeline, source, json.dumps(value), record.run_id),
            )

    def remember(self, pipeline: str, state: Mapping[str, Any]) -> None:
        """Let `state` be all that the sources of a pipeline had remembered, in the caller's transaction."""
        table = self._engine.system("state")
        self._session.rows(f"DELETE FROM {table} WHERE pipeline = ?", (pipeline,))
        for source, value in state.items():
            self._session.rows(
                f"INSERT INTO {table} VALUES (?, ?, ?, ?)", (pipeline, source, json.dumps(value), BY_HAND)
            )

    def state(self, pipeline: str) -> dict[str, Any]:
        """What the sources of a pipeline had remembered, by their names."""
        if not self._engine.has(self._session, "state"):
            return {}
        query = f"SELECT source, value FROM {self._engine.system('state')} WHERE pipeline = ?"
        return {source: json.loads(value) for source, value in self._session.rows(query, (pipeline,))}

    def history(self, pipeline: str, limit: int) -> list[dict[str, Any]]:
        """The newest runs of a pipeline, newest first."""
        if not self._engine.has(self._session, "loads"):
            return []
        query = f"SELECT record FROM {self._engine.system('loads')} WHERE pipeline = ? {_NEWEST} LIMIT ?"
        return [json.loads(record) for (record,) in self._session.rows(query, (pipeline, limit))]


def _text(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00:00"
