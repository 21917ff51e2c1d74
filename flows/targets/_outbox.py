"""What an API accepted of a load that is under way, and the ledger of those that are done: one SQLite file.

Sending is not atomic, so each answer is written down before the next call is made: a run that
follows a broken one sends only the rest. The ledger, the quarantine and the state are committed
in the transaction that forgets what was accepted: the load is done then, and the next one is new.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from flows._ledger import RunRecord
from flows._quarantine import STATUSES, Marks, Quarantine, Status
from flows._sides import Side
from flows.targets import _kept, _outbox_quarantine

_BUSY_SECONDS = 60
_SLICE = 10_000
_TABLES = """
CREATE TABLE IF NOT EXISTS loads (
    run_id TEXT PRIMARY KEY, pipeline TEXT NOT NULL, started_at TEXT NOT NULL, record TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS loads_pipeline ON loads (pipeline, started_at DESC);
CREATE TABLE IF NOT EXISTS quarantine (
    run_id TEXT, number INTEGER, "row" INTEGER, stage TEXT, "values" TEXT, reasons TEXT,
    status TEXT NOT NULL DEFAULT 'waiting', resolved_at TEXT, resolved_by TEXT, PRIMARY KEY (run_id, number));
CREATE TABLE IF NOT EXISTS state (pipeline TEXT, source TEXT, value TEXT, PRIMARY KEY (pipeline, source));
CREATE TABLE IF NOT EXISTS done (pipeline TEXT PRIMARY KEY, loads INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS accepted (
    pipeline TEXT, row BLOB, times INTEGER NOT NULL, met INTEGER NOT NULL, PRIMARY KEY (pipeline, row)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (
    pipeline TEXT, position INTEGER, "values" TEXT, reason TEXT, PRIMARY KEY (pipeline, position)) WITHOUT ROWID;
"""


class Outbox:
    """The file, opened when it is first used; by one thread at a time.

    Args:
        file: where it is; its folder is made where it is missing, for its owner alone.
        side: the end that errors belong to.
    """

    def __init__(self, file: Path, side: Side) -> None:
        self._file = file
        self.side = side
        self._opened: sqlite3.Connection | None = None

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._opened is None:
                self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._opened = sqlite3.connect(self._file, _BUSY_SECONDS, isolation_level=None, check_same_thread=False)
                self._opened.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {_TABLES}")
                _outbox_quarantine.upgrade(self._opened)
            yield self._opened
        except (sqlite3.Error, OSError) as error:
            raise self.side.error(
                "other", f"what was sent cannot be kept in {str(self._file)!r}: {error}. Set 'state_folder' to another."
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @property
    def exists(self) -> bool:
        """Whether anything was ever kept."""
        return self._opened is not None or self._file.exists()

    def close(self) -> None:
        """Let go of the file; safe to call twice."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    # --- a load under way ---

    def begin(self, pipeline: str) -> int:
        """Begin to go through a load's rows; returns how many loads were done before."""
        with self._transaction() as connection:
            connection.execute("UPDATE accepted SET met = 0 WHERE pipeline = ?", (pipeline,))
            connection.execute("DELETE FROM refused WHERE pipeline = ?", (pipeline,))
            found = connection.execute("SELECT loads FROM done WHERE pipeline = ?", (pipeline,)).fetchone()
        return int(found[0]) if found else 0

    def accepted(self, pipeline: str) -> int:
        """How many rows of the load under way were accepted."""
        query = "SELECT coalesce(sum(times), 0) FROM accepted WHERE pipeline = ?"
        with self._connected() as connection:
            return int(connection.execute(query, (pipeline,)).fetchone()[0])

    def met(self, pipeline: str, rows: Sequence[bytes]) -> list[bool]:
        """Whether each row, as a digest, was accepted before; a row that is there twice, once for each time."""
        meet = "UPDATE accepted SET met = met + 1 WHERE pipeline = ? AND row = ? AND met < times"
        with self._transaction() as connection:
            return [connection.execute(meet, (pipeline, row)).rowcount == 1 for row in rows]

    def accept(self, pipeline: str, rows: Sequence[bytes]) -> None:
        """Write down that rows were accepted."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO accepted VALUES (?, ?, 1, 1) "
                "ON CONFLICT (pipeline, row) DO UPDATE SET times = times + 1, met = met + 1",
                [(pipeline, row) for row in rows],
            )

    def refuse(self, pipeline: str, rows: Sequence[tuple[int, str, str]]) -> None:
        """Write down that rows were refused: where each stood, the row as JSON, and why."""
        with self._transaction() as connection:
            connection.executemany("INSERT INTO refused VALUES (?, ?, ?, ?)", [(pipeline, *row) for row in rows])

    def refused(self, pipeline: str) -> Iterator[pl.DataFrame]:
        """The rows that were refused, with columns ``values`` and ``reason``, in their order."""
        query = 'SELECT "values", reason FROM refused WHERE pipeline = ? ORDER BY position'
        with self._connected() as connection, closing(connection.execute(query, (pipeline,))) as cursor:
            while rows := cursor.fetchmany(_SLICE):
                yield pl.DataFrame(rows, schema={"values": pl.String, "reason": pl.String}, orient="row")

    # --- the ledger ---

    def commit(self, record: RunRecord, quarantine: Quarantine, load: str) -> None:
        """Keep the record of a load that is done, with its quarantine and state; what comes next is a new load."""
        with self._transaction() as connection:
            _outbox_quarantine.conclude(connection, record, self.side)
            _keep(connection, record, quarantine)
            for source, value in record.state.items():
                entry = (record.pipeline, source, json.dumps(value))
                connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", entry)
            for table in ("accepted", "refused"):
                connection.execute(f"DELETE FROM {table} WHERE pipeline = ?", (load,))
            connection.execute(
                "INSERT INTO done VALUES (?, 1) ON CONFLICT (pipeline) DO UPDATE SET loads = loads + 1",
                (load,),
            )

    def keep(self, record: RunRecord, quarantine: Quarantine | None) -> None:
        """Keep the record of a run that came to no end, unless it did after all."""
        if self.find(record.run_id) is None:
            with self._transaction() as connection:
                _keep(connection, record, quarantine)

    def find(self, run_id: str) -> dict[str, Any] | None:
        """The record of a run as a result object, or None."""
        found = self._read("SELECT record FROM loads WHERE run_id = ?", run_id)
        return json.loads(found[0][0]) if found else None

    def state(self, pipeline: str) -> dict[str, Any]:
        """What the sources of a pipeline had remembered, by their names."""
        found = self._read("SELECT source, value FROM state WHERE pipeline = ?", pipeline)
        return {source: json.loads(value) for source, value in found}

    def remember(self, pipeline: str, state: Mapping[str, Any]) -> None:
        """Let `state` be all that the sources of a pipeline had remembered."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM state WHERE pipeline = ?", (pipeline,))
            entries = [(pipeline, source, json.dumps(value)) for source, value in state.items()]
            connection.executemany("INSERT INTO state VALUES (?, ?, ?)", entries)

    def history(self, pipeline: str, limit: int) -> list[dict[str, Any]]:
        """The newest runs of a pipeline as result objects, newest first."""
        query = "SELECT record FROM loads WHERE pipeline = ? ORDER BY started_at DESC, run_id DESC LIMIT ?"
        return [json.loads(record) for (record,) in self._read(query, pipeline, limit)]

    def kept(self, pipeline: str, run_id: str | None = None, status: Status | None = None) -> Iterator[pl.DataFrame]:
        """Quarantined rows, a frame at a time, the oldest run first."""
        for run in reversed(self.kept_counts(pipeline)):
            last = -1
            while run_id in {None, run["run_id"]}:
                rows = self._read(_outbox_quarantine.PAGE, run["run_id"], last, status)
                if not rows:
                    break
                last = rows[-1][1]
                yield _kept.framed(rows)

    def kept_counts(self, pipeline: str) -> list[dict[str, Any]]:
        """How many rows of each run are kept, by their status; the newest run first."""
        names = ("run_id", *STATUSES)
        return [dict(zip(names, row, strict=True)) for row in self._read(_outbox_quarantine.COUNTS, pipeline)]

    def discard(self, pipeline: str, marks: Marks) -> int:  # noqa: ARG002 - run ids tell pipelines apart here
        """Mark waiting rows as discarded."""
        with self._transaction() as connection:
            return _outbox_quarantine.mark(connection, marks, "discarded")

    def _read(self, query: str, *values: Any) -> list[Any]:
        if not self.exists:
            return []
        with self._connected() as connection:
            return connection.execute(query, values).fetchall()


def _keep(connection: sqlite3.Connection, record: RunRecord, quarantine: Quarantine | None) -> None:
    entry = (record.run_id, record.pipeline, record.started_at.isoformat(), json.dumps(record.as_json()))
    connection.execute("INSERT INTO loads VALUES (?, ?, ?, ?)", entry)
    number = 0
    for frame in quarantine or ():
        rows = frame.select("row", "stage", "values", "reasons").iter_rows()
        connection.executemany(
            'INSERT INTO quarantine (run_id, number, "row", stage, "values", reasons) VALUES (?, ?, ?, ?, ?, ?)',
            [
                (record.run_id, number + place, *kept, json.dumps(reasons))
                for place, (*kept, reasons) in enumerate(rows)
            ],
        )
        number += frame.height
