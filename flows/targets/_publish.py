"""The statements that make a chamber visible, one function a way; each runs in the caller's transaction."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psycopg

from flows._postgres import Connection, execute, quote
from flows.targets._base import Published
from flows.targets._layout import Layout
from flows.targets._system import SCHEMA

_SWAP_ATTEMPTS = 5
_WORK_MEMORY = "64MB"  # for the one hash table of a merge
_COUNTS_MERGES = 170_000  # the server version whose MERGE returns what it did
_SWAP_WAIT_MILLISECONDS = 200  # readers that arrive while we wait for our lock wait no longer than this


@dataclass(frozen=True)
class Staged:
    """The sealed staging table: its name in the system schema, and its rows as the server counted them."""

    name: str
    rows: int

    @property
    def quoted(self) -> str:
        """The quoted, qualified name."""
        return quote(SCHEMA, self.name)


def append(connection: Connection, layout: Layout, staged: Staged) -> Published:
    """Insert every row of the chamber."""
    return Published(_insert(connection, layout, staged), how="appended")


def upsert(connection: Connection, layout: Layout, staged: Staged) -> Published:
    """Insert new keys, update rows that differ in any column, leave equal rows alone and count them."""
    execute(connection, f"ANALYZE {staged.quoted}")
    execute(connection, f"SET LOCAL work_mem = '{_WORK_MEMORY}'")
    _lock(connection, layout)
    merge = _merge if connection.info.server_version >= _COUNTS_MERGES else _update_and_insert
    inserted, updated = merge(connection, layout, staged)
    return Published(inserted, updated, staged.rows - inserted - updated, how="merged")


def overwrite(connection: Connection, layout: Layout, staged: Staged) -> Published:
    """Replace every row of the table in place; readers see the old rows until the transaction commits."""
    _lock(connection, layout)
    if layout.table.referenced and frozenset(layout.key) in layout.table.unique_keys:
        # Rows that other tables point at must not go away, not even for a moment.
        deleted = _delete_missing(connection, layout, staged)
        merged = upsert(connection, layout, staged)
        return Published(merged.inserted, merged.updated, merged.unchanged, deleted, "merged in place")
    deleted = execute(connection, f"DELETE FROM {layout.table.quoted}").rowcount
    return Published(_insert(connection, layout, staged), deleted=deleted, how="rewritten in place")


def create(connection: Connection, layout: Layout, staged: Staged) -> Published:
    """Let the chamber become the table that is not there yet."""
    _become(connection, layout, staged)
    return Published(staged.rows, how="created")


def swap(connection: Connection, layout: Layout, staged: Staged) -> Published | None:
    """Let the chamber become the table; None when readers keep the table busy.

    The staged rows are frozen, so a reader whose snapshot is older than the load sees the new rows, never an
    empty table. The exclusive lock is held for a few changes of the catalogue.
    """
    deleted = execute(connection, f"SELECT count(*) FROM {layout.table.quoted}").fetchone()
    if not _locked_for_swap(connection, layout.table.quoted):
        return None
    execute(connection, f"DROP TABLE {layout.table.quoted}")
    _become(connection, layout, staged)
    return Published(staged.rows, deleted=deleted[0] if deleted else 0, how="swapped in")


def transaction_id(connection: Connection) -> int:
    """The number of the transaction that is under way."""
    row = execute(connection, "SELECT pg_current_xact_id()::text::bigint").fetchone()
    return int(row[0]) if row else 0


def older_snapshots(connection: Connection, transaction: int) -> bool:
    """Whether anybody in this database may still see it as it was before `transaction` committed."""
    row = execute(
        connection,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND age(backend_xmin) >= age(%s::text::xid))",
        (transaction % 2**32,),
    ).fetchone()
    return bool(row and row[0])


def _become(connection: Connection, layout: Layout, staged: Staged) -> None:
    table = layout.table
    execute(connection, f"ALTER TABLE {staged.quoted} SET SCHEMA {quote(table.schema)}")
    execute(connection, f"ALTER TABLE {quote(table.schema, staged.name)} RENAME TO {quote(table.name)}")


def _locked_for_swap(connection: Connection, table: str) -> bool:
    for attempt in range(_SWAP_ATTEMPTS):
        try:
            with connection.transaction():
                execute(connection, f"SET LOCAL lock_timeout = {_SWAP_WAIT_MILLISECONDS}")
                execute(connection, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        except psycopg.errors.LockNotAvailable:
            time.sleep(_SWAP_WAIT_MILLISECONDS / 1000 * (attempt + 1))
        else:
            return True
    return False


def _lock(connection: Connection, layout: Layout) -> None:
    """Keep other writers out, and let readers in."""
    execute(connection, f"LOCK TABLE {layout.table.quoted} IN SHARE ROW EXCLUSIVE MODE")


def _insert(connection: Connection, layout: Layout, staged: Staged, *, only_new: bool = False) -> int:
    new = f" WHERE NOT EXISTS (SELECT FROM {layout.table.quoted} AS t WHERE {_same_key(layout)})" if only_new else ""
    return execute(
        connection,
        f"INSERT INTO {layout.table.quoted} ({layout.names}) OVERRIDING SYSTEM VALUE "
        f"SELECT {layout.values} FROM {staged.quoted} AS s{new}",
    ).rowcount


def _merge(connection: Connection, layout: Layout, staged: Staged) -> tuple[int, int]:
    changes = _changes(layout)
    update = f"WHEN MATCHED AND {_differs(layout)} THEN UPDATE SET {changes} " if changes else ""
    row = execute(
        connection,
        f"WITH merged AS (MERGE INTO {layout.table.quoted} AS t USING {staged.quoted} AS s ON {_same_key(layout)} "
        f"{update}WHEN NOT MATCHED THEN INSERT ({layout.names}) OVERRIDING SYSTEM VALUE VALUES ({layout.values}) "
        "RETURNING merge_action() AS action) "
        "SELECT count(*) FILTER (WHERE action = 'INSERT'), count(*) FILTER (WHERE action = 'UPDATE') FROM merged",
    ).fetchone()
    return (row[0], row[1]) if row else (0, 0)


def _update_and_insert(connection: Connection, layout: Layout, staged: Staged) -> tuple[int, int]:
    """The same for servers whose MERGE does not say what it did."""
    updated = 0
    if changes := _changes(layout):
        updated = execute(
            connection,
            f"UPDATE {layout.table.quoted} AS t SET {changes} FROM {staged.quoted} AS s "
            f"WHERE {_same_key(layout)} AND {_differs(layout)}",
        ).rowcount
    return _insert(connection, layout, staged, only_new=True), updated


def _changes(layout: Layout) -> str:
    return ", ".join(
        f"{quote(column.name)} = {column.published(f's.{quote(column.name)}')}"
        for column in layout.columns
        if column.name not in layout.key
    )


def _differs(layout: Layout) -> str:
    return f"{layout.compared('t')} IS DISTINCT FROM {layout.staged_compared('s')}"


def _delete_missing(connection: Connection, layout: Layout, staged: Staged) -> int:
    return execute(
        connection,
        f"DELETE FROM {layout.table.quoted} AS t "
        f"WHERE NOT EXISTS (SELECT FROM {staged.quoted} AS s WHERE {_same_key(layout)})",
    ).rowcount


def _same_key(layout: Layout) -> str:
    by_name = {column.name: column for column in layout.columns}
    return " AND ".join(f"t.{quote(name)} = {by_name[name].published(f's.{quote(name)}')}" for name in layout.key)
