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
    if frozenset(layout.key) in layout.table.unique_keys:
        inserted, updated = _insert_on_conflict(connection, layout, staged)
    else:
        execute(connection, f"ANALYZE {staged.quoted}")
        _lock(connection, layout)
        updated = _update_differing(connection, layout, staged)
        inserted = _insert(connection, layout, staged, only_new=True)
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


def _insert_on_conflict(connection: Connection, layout: Layout, staged: Staged) -> tuple[int, int]:
    table, key = layout.table.quoted, ", ".join(map(quote, layout.key))
    others = [quote(column.name) for column in layout.columns if column.name not in layout.key]
    update = f"UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in others)}"
    differing = f"WHERE {layout.compared('t')} IS DISTINCT FROM {layout.compared('excluded')}"
    row = execute(
        connection,
        f"WITH merged AS (INSERT INTO {table} AS t ({layout.names}) OVERRIDING SYSTEM VALUE "
        f"SELECT {layout.values} FROM {staged.quoted} AS s "
        f"ON CONFLICT ({key}) DO {f'{update} {differing}' if others else 'NOTHING'} "
        "RETURNING xmax = 0 AS inserted) "
        "SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted) FROM merged",
    ).fetchone()
    return (row[0], row[1]) if row else (0, 0)


def _update_differing(connection: Connection, layout: Layout, staged: Staged) -> int:
    changes = [
        f"{quote(column.name)} = {column.published(f's.{quote(column.name)}')}"
        for column in layout.columns
        if column.name not in layout.key
    ]
    if not changes:
        return 0
    return execute(
        connection,
        f"UPDATE {layout.table.quoted} AS t SET {', '.join(changes)} FROM {staged.quoted} AS s "
        f"WHERE {_same_key(layout)} AND {layout.compared('t')} IS DISTINCT FROM {layout.staged_compared('s')}",
    ).rowcount


def _delete_missing(connection: Connection, layout: Layout, staged: Staged) -> int:
    return execute(
        connection,
        f"DELETE FROM {layout.table.quoted} AS t "
        f"WHERE NOT EXISTS (SELECT FROM {staged.quoted} AS s WHERE {_same_key(layout)})",
    ).rowcount


def _same_key(layout: Layout) -> str:
    by_name = {column.name: column for column in layout.columns}
    return " AND ".join(f"t.{quote(name)} = {by_name[name].published(f's.{quote(name)}')}" for name in layout.key)
