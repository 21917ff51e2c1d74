"""Up to where the rows of a PostgreSQL table are complete: what transactions under way may still add lies beyond.

A transaction that commits late brings values of a cursor that are older than those that others have committed
meanwhile. A window that ended at the newest visible value would skip them for ever. So, *before* the run's view is
taken, the end of the window is fixed where nobody can add anything below any more:

    moments   the start of the oldest transaction that is open, or now: whoever commits later writes ``now()`` or
              ``clock_timestamp()``, which are no earlier than the start of its transaction
    numbers   the greatest number there is, once every transaction that was writing then has ended: each number of a
              sequence below it was drawn by one of them, or by one that had ended

Both trust that values come from the server: its clock, its sequence, drawn by the statement that inserts. What is
written with other values, or drawn beforehand, needs a ``lookback``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flows._names import split_name
from flows._postgres import Connection, PostgresSide, columns_of, execute, quote
from flows.sources._base import Bound, Cursor
from transforms._words import counted

_MOMENTS = {"timestamp", "timestamptz", "date"}
_WHOLE = {"int2", "int4", "int8"}
#: A transaction has its start before others can see it; by then they can.
_SEEN_SECONDS = 0.05
_POLL_SECONDS = 0.1
PATIENCE_SECONDS = 60.0
_LONG_SECONDS = 60

_OLDEST = """
SELECT xact_start, 'process ' || pid || ' (' || coalesce(nullif(application_name, ''), usename) || ')'
FROM pg_stat_activity
WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid()
  AND datid = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND backend_type NOT IN ('autovacuum worker', 'walsender', 'parallel worker')
ORDER BY xact_start LIMIT 1
"""
#: When a prepared transaction began is not kept anywhere, only when it was prepared.
_PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared LIMIT 1"
_SIGHT = (
    "SELECT pg_is_in_recovery(), pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), quote_ident(current_user)"
)
_WRITERS = """
SELECT DISTINCT l.virtualtransaction, coalesce(
    'process ' || l.pid || ' (' || coalesce(nullif(a.application_name, ''), a.usename) || ')', 'a prepared transaction'
)
FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
  AND (%s::oid = l.relation OR (%s::oid IS NULL AND l.relation >= 16384))
"""
_LIVING = "SELECT DISTINCT virtualtransaction FROM pg_locks WHERE virtualtransaction = ANY(%s)"
#: A plain table; a view, or one with partitions, is written by its own ways.
_ALONE = """
SELECT oid FROM pg_class WHERE oid = to_regclass(%s) AND relkind = 'r'
AND NOT EXISTS (SELECT 1 FROM pg_inherits WHERE inhparent = pg_class.oid)
"""


@dataclass(frozen=True)
class Horizon:
    """Looks for the end of a window, through a connection in autocommit mode.

    Attributes:
        query: the SELECT that the rows come from.
        table: the table, if it is one.
        waits: whether to wait for writers; who only wants to look does not.
    """

    connection: Connection
    side: PostgresSide
    cursor: Cursor
    query: str
    table: str | None
    waits: bool

    def bound(self) -> tuple[Bound | None, tuple[str, ...]]:
        """The end of the window, and what a person should know about it.

        Raises:
            SourcePermissionError: what others do cannot be seen, and nothing is read again.
            SourceBusyError: a writer does not end.
        """
        kinds = {column.name: column.pg for column in columns_of(self.connection, self.query)}
        pg = kinds.get(self.cursor.column)
        kind = None if pg is None or pg.is_array else pg.name
        if kind in _MOMENTS:
            return self._moment(is_date=kind == "date", is_naive=kind == "timestamp")
        if kind in _WHOLE:
            return self._number()
        if kind is None or self.cursor.looks_back:
            return None, ()
        warning = (
            f"{self.cursor.column!r} is neither a moment nor a whole number: rows that are committed late, with a "
            "value below one that was loaded, are skipped. Set incremental.lookback."
        )
        return None, (warning,)

    def _moment(self, *, is_date: bool, is_naive: bool) -> tuple[Bound, tuple[str, ...]]:
        sees = self._sees_all()
        now = self._one("SELECT clock_timestamp()")
        oldest: datetime = now
        warnings: tuple[str, ...] = ()
        if sees:
            time.sleep(_SEEN_SECONDS)
            row = execute(self.connection, _OLDEST).fetchone()
            self._hold_nothing_prepared()  # after that: a transaction leaves there for here
            if row is not None and row[0] < now:
                oldest, warnings = row[0], self._held_back(row[1], now, row[0])
        end = oldest.astimezone(UTC)
        if is_date:  # a day has not ended; what it still gets is read again
            return Bound(end.date(), is_closed=True, is_settled=False), warnings
        value = end.replace(tzinfo=None) if is_naive else end
        return Bound(value, is_closed=False, is_settled=sees), warnings

    def _hold_nothing_prepared(self) -> None:
        gid = None if self.cursor.looks_back else self._one(_PREPARED)
        if gid is not None:
            raise self.side.error(
                "busy",
                f"prepared transaction {gid!r} is open, and nobody knows since when: rows with an earlier "
                f"{self.cursor.column!r} may still be committed. End it, and run again; or set incremental.lookback.",
            )

    def _held_back(self, who: str, now: datetime, since: datetime) -> tuple[str, ...]:
        seconds = (now - since).total_seconds()
        if seconds <= _LONG_SECONDS:
            return ()
        warning = (
            f"{who} has had a transaction open for {counted(int(seconds), 'second')}: rows that changed since then "
            "are loaded by the first run after it has ended."
        )
        return (warning,)

    def _number(self) -> tuple[Bound, tuple[str, ...]]:
        sees = self._sees_all(by_locks=True)
        greatest = self._one(f"SELECT max({quote(self.cursor.column)}) FROM ({self.query}) AS q")
        if self.waits and sees:
            self._await_writers()
        return Bound(greatest, is_closed=True, is_settled=sees), ()

    def _await_writers(self) -> None:
        """Let every transaction end that may have drawn a number."""
        oid = self._table_alone()
        writers = dict(execute(self.connection, _WRITERS, (oid, oid)).fetchall())
        deadline = time.monotonic() + PATIENCE_SECONDS
        while writers:
            living = {name for (name,) in execute(self.connection, _LIVING, (list(writers),))}
            writers = {name: who for name, who in writers.items() if name in living}
            if not writers:
                return
            if time.monotonic() > deadline:
                who = ", ".join(sorted(set(writers.values())))
                raise self.side.error(
                    "busy",
                    f"{who} has written, and has not ended its transaction for {PATIENCE_SECONDS:g} s: rows below the "
                    f"greatest {self.cursor.column!r} may still come. End it, or run again later.",
                )
            time.sleep(_POLL_SECONDS)

    def _table_alone(self) -> int | None:
        if self.table is None:
            return None
        found = execute(self.connection, _ALONE, (quote(*split_name(self.table)),)).fetchone()
        return found[0] if found else None

    def _sees_all(self, *, by_locks: bool = False) -> bool:
        """Whether this role can see what all others do, on the server where they do it; locks are seen by everybody."""
        is_standby, may_see, role = execute(self.connection, _SIGHT).fetchone() or (True, False, "")
        if not is_standby and (may_see or by_locks):
            return True
        if self.cursor.looks_back:
            return False
        why = "the server is a standby" if is_standby else f"role {role} does not see what others do"
        grant = "read from the primary" if is_standby else f"GRANT pg_read_all_stats TO {role}"
        raise self.side.error(
            "permission",
            f"{why}, so that nobody can tell whether rows with an earlier "
            f"{self.cursor.column!r} may still be committed. Do one of: {grant}; or set incremental.lookback, such as "
            "1h, to read so much again.",
        )

    def _one(self, sql: str) -> Any:
        row = execute(self.connection, sql).fetchone()
        return row[0] if row else None
