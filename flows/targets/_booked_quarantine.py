"""The quarantine of a database that is one file: a system table, written in the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import polars as pl

from flows._ledger import RunRecord
from flows._quarantine import STATUSES, Marks, Quarantine, Status
from flows.targets import _kept
from flows.targets._engines import Engine, Session

_SLICE = 10_000
_LISTED = 1_000  # numbers in a statement
#: Columns that tables of an earlier version lack. Moments are ISO texts in UTC.
ADDED = {
    "config_version": "VARCHAR",
    "quarantined_at": "VARCHAR",
    "status": "VARCHAR DEFAULT 'waiting'",
    "resolved_at": "VARCHAR",
    "resolved_by": "VARCHAR",
}


class BookedQuarantine:
    """The table, by one session."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._engine = engine
        self._session = session
        self._table = engine.system("quarantine")

    def upgrade(self) -> None:
        """Make a table of an earlier version one of this; what was kept before is told by the ledger."""
        if self._is_current:
            return
        for name, kind in ADDED.items():
            self._session.rows(f"ALTER TABLE {self._table} ADD COLUMN {name} {kind}")
        self._session.rows(
            f"UPDATE {self._table} SET status = 'waiting', config_version = {self._told('config_version')}, "
            f"quarantined_at = {self._told('started_at')}"
        )

    @property
    def _is_current(self) -> bool:
        return self._engine.has_column(self._session, "quarantine", "resolved_by")

    def _told(self, fact: str) -> str:
        loads = self._engine.system("loads")
        return f"(SELECT l.record ->> '$.{fact}' FROM {loads} AS l WHERE l.run_id = {self._table}.run_id)"

    @property
    def _rows(self) -> str:
        """The table, or what stands for it until a run has upgraded it: whoever only looks changes nothing."""
        if self._is_current:
            return self._table
        return (
            f"(SELECT *, 'waiting' AS status, {self._told('config_version')} AS config_version, "
            f"{self._told('started_at')} AS quarantined_at, NULL AS resolved_at, NULL AS resolved_by "
            f"FROM {self._table})"
        )

    # --- writing ---

    def conclude(self, record: RunRecord, quarantine: Quarantine) -> None:
        """Keep a run's rows, mark those that it replays, and remove those that are too old.

        Raises:
            TargetBusyError: a row that it replays is not waiting any more.
        """
        self.write(record, quarantine)
        if record.replays:
            marked = self.mark(record.pipeline, record.replays, "replayed", record.run_id)
            _kept.hold_marked(record, marked, self._engine.side)
        if record.forgets_before is not None:
            old = f"FROM {self._table} WHERE pipeline = ? AND quarantined_at < ? AND run_id <> ?"
            values = (record.pipeline, _text(record.forgets_before), record.run_id)
            record.forgotten = self._session.rows(f"SELECT count(*) {old}", values)[0][0]
            self._session.rows(f"DELETE {old}", values)

    def write(self, record: RunRecord, quarantine: Quarantine) -> None:
        """Keep a run's quarantined rows."""
        number, now = 0, _text(datetime.now(UTC))
        for frame in quarantine if quarantine.rows else ():
            reasons = [json.dumps(labels) for labels in frame["reasons"].to_list()]
            self._session.insert(
                self._table,
                frame.select(
                    run_id=pl.lit(record.run_id),
                    pipeline=pl.lit(record.pipeline),
                    number=pl.int_range(number, number + frame.height, dtype=pl.Int64),
                    row="row",
                    stage="stage",
                    values="values",
                    reasons=pl.Series(reasons, dtype=pl.String),
                    config_version=pl.lit(record.config_version),
                    quarantined_at=pl.lit(now),
                    status=pl.lit("waiting"),
                ),
            )
            number += frame.height

    def mark(self, pipeline: str, marks: Marks, status: Status, by: str | None = None) -> int:
        """Give those of the rows that are waiting another status; returns how many were."""
        marked, now = 0, _text(datetime.now(UTC))
        for run_id, numbers in sorted(marks.items()):
            for first in range(0, len(numbers), _LISTED):
                listed = ", ".join(str(int(number)) for number in numbers[first : first + _LISTED])
                of = f"WHERE pipeline = ? AND run_id = ? AND status = 'waiting' AND number IN ({listed})"
                marked += self._session.rows(f"SELECT count(*) FROM {self._table} {of}", (pipeline, run_id))[0][0]
                self._session.rows(
                    f"UPDATE {self._table} SET status = ?, resolved_at = ?, resolved_by = ? {of}",
                    (status, now, by, pipeline, run_id),
                )
        return marked

    # --- reading ---

    def kept(self, pipeline: str, run_id: str | None, status: Status | None) -> Iterator[pl.DataFrame]:
        """The rows of a pipeline, a frame at a time."""
        for run in reversed(self.counts(pipeline)):
            if run_id in {None, run["run_id"]}:
                yield from self._of_run(pipeline, run["run_id"], status)

    def _of_run(self, pipeline: str, run_id: str, status: Status | None) -> Iterator[pl.DataFrame]:
        query = f"""
            SELECT run_id, number, coalesce("row", -1), stage, status, reasons, coalesce(config_version, ''),
                coalesce(quarantined_at, ''), coalesce(resolved_at, ''), coalesce(resolved_by, ''), "values"
            FROM {self._rows} AS q WHERE pipeline = ? AND run_id = ? AND number > ? AND (? = '' OR status = ?)
            ORDER BY number LIMIT {_SLICE}
        """
        last = -1
        while found := self._session.rows(query, (pipeline, run_id, last, status or "", status or "")):
            last = found[-1][1]
            yield _kept.framed(found)

    def counts(self, pipeline: str) -> list[dict[str, Any]]:
        """Each run of a pipeline that has rows, the newest first."""
        if not self._engine.has(self._session, "quarantine"):
            return []
        sums = ", ".join(f"sum(CASE WHEN status = '{status}' THEN 1 ELSE 0 END)" for status in STATUSES)
        query = (
            f"SELECT run_id, {sums} FROM {self._rows} AS q WHERE pipeline = ? "
            "GROUP BY run_id ORDER BY max(coalesce(quarantined_at, '')) DESC, run_id DESC"
        )
        found = self._session.rows(query, (pipeline,))
        return [{"run_id": run, **dict(zip(STATUSES, map(int, sums), strict=True))} for run, *sums in found]


def _text(at: datetime) -> str:
    """A moment as the ledger's records have it: a text that sorts by time."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")
