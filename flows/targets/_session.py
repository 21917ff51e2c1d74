"""The one session that may load a table: a connection that holds its lock.

The lock is the server's own and dies with the connection, so it never outlives a crash. What an
earlier session left behind is nobody's, and is dropped by the next one.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import closing, suppress
from typing import NoReturn

from flows._postgres import Connection, Foreign, PostgresSide, execute, literal, quote
from flows.targets import _refusals
from flows.targets._catalog import TableInfo
from flows.targets._durable import POLL_SECONDS
from flows.targets._system import SCHEMA
from flows.targets._table import PostgresTable

#: The server may need a moment to see that a killed run's connection is gone.
_PATIENCE_SECONDS = 1.0


def opened(table: PostgresTable, purpose: str) -> Connection:
    """Connect, and lock the table against other runs.

    Raises:
        LoadError: the server cannot be reached, or another run holds the lock; says which.
    """
    connection = table.connect(purpose)
    try:
        with table.side.mapped():
            _lock(connection, table.describe(connection), table.side, table.options.patience_seconds)
    except BaseException:
        closed(connection)
        raise
    return connection


def closed(connection: Connection) -> None:
    """Let go of the lock, and then of the connection, whose end the server would notice a moment later."""
    with closing(connection), suppress(*Foreign):
        if not (connection.closed or connection.broken):
            connection.rollback()
            execute(connection, "SELECT pg_advisory_unlock_all()")


def _lock(connection: Connection, table: TableInfo, side: PostgresSide, patience_seconds: float) -> None:
    # A statement that waits would hold a snapshot, and the holder could not swap its table in: so ask again and again.
    key = f"hashtextextended({literal(f'lockgate: {table.schema}.{table.name}')}, 0)"
    deadline = time.monotonic() + max(patience_seconds, _PATIENCE_SECONDS)
    while execute(connection, f"SELECT pg_try_advisory_lock({key})").fetchone() != (True,):
        if time.monotonic() > deadline:
            _refuse(connection, key, side, patience_seconds)
        time.sleep(POLL_SECONDS if patience_seconds else 0.02)


def _refuse(connection: Connection, key: str, side: PostgresSide, patience_seconds: float) -> NoReturn:
    holder = execute(
        connection,
        f"WITH k AS (SELECT {key} AS key) "
        "SELECT a.application_name FROM k, pg_locks l JOIN pg_stat_activity a USING (pid) "
        "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
        "AND ((l.classid::bigint << 32) | l.objid::bigint) = k.key "
        "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    ).fetchone()
    who = repr(holder[0]) if holder and holder[0] else "another session"
    raise _refusals.busy(who, patience_seconds, side)


def staging_name(table: TableInfo, run_id: str) -> str:
    """The staging table of a run."""
    return f"{_prefix(table)}{run_id}"


def drop_leftovers(connection: Connection, table: TableInfo) -> None:
    """Drop staging tables of this table: whoever made them is dead, for we hold the lock."""
    names = execute(
        connection,
        "SELECT tablename FROM pg_tables WHERE schemaname = %s AND starts_with(tablename, %s)",
        (SCHEMA, _prefix(table)),
    ).fetchall()
    for (name,) in names:
        execute(connection, f"DROP TABLE {quote(SCHEMA, name)}")


def _prefix(table: TableInfo) -> str:
    digest = hashlib.sha256(f"{table.schema}.{table.name}".encode()).hexdigest()[:12]
    return f"staging_{digest}_"
