"""One view of a database for everything that a run reads there, however often and through whatever connection.

PostgreSQL lets one transaction export its snapshot and others take it over. Inside `shared`, all sources
of one database see the same rows: a join never pairs yesterday's customer with today's order, and rows
can be looked up again as they were read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from flows._postgres import Connection, Foreign, PostgresSide, connect, execute
from flows._secrets import Secret


class Snapshot:
    """A transaction that keeps a view of one database open, from its first use until `release`."""

    def __init__(self, connection_string: Secret, side: PostgresSide) -> None:
        self._connection_string = connection_string
        self._side = side
        self._keeper: Connection | None = None
        self._identifier = ""
        self._lock = threading.Lock()

    @property
    def identifier(self) -> str:
        """What ``SET TRANSACTION SNAPSHOT`` takes; of a new view, where the old one was released or lost."""
        with self._lock:
            if self._keeper is None or self._keeper.closed or self._keeper.broken:
                self._open()
            return self._identifier

    def _open(self) -> None:
        self._keeper = connect(self._connection_string, application="lockgate snapshot", side=self._side)
        with self._side.mapped():
            execute(self._keeper, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            row = execute(self._keeper, "SELECT pg_export_snapshot()").fetchone()
            self._identifier = row[0] if row else ""

    def release(self) -> None:
        """Let go of the view, so that the server may clean up behind it."""
        with self._lock, suppress(*Foreign):
            if self._keeper is not None:
                self._keeper.close()
                self._keeper = None


_shared: ContextVar[dict[str, Snapshot] | None] = ContextVar("shared snapshots", default=None)


@contextmanager
def shared() -> Iterator[None]:
    """Let sources that are opened inside share one view of each database."""
    snapshots: dict[str, Snapshot] = {}
    token = _shared.set(snapshots)
    try:
        yield
    finally:
        release()
        _shared.reset(token)


def release() -> None:
    """Let go of every view; one that is needed again is taken anew."""
    for snapshot in (_shared.get() or {}).values():
        snapshot.release()


def of(connection_string: Secret, side: PostgresSide) -> Snapshot | None:
    """The view of this database that a run shares; None outside of `shared`, where every read has its own."""
    snapshots = _shared.get()
    if snapshots is None:
        return None
    return snapshots.setdefault(connection_string.reveal(), Snapshot(connection_string, side))


VIEW = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


def taking(identifier: str) -> str:
    """The statement that makes a transaction see the view."""
    return f"SET TRANSACTION SNAPSHOT '{identifier}'"
