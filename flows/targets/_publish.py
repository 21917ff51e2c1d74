"""The statements that make a chamber visible, one function a way; each runs in the caller's transaction."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import psycopg

from flows._errors import RefusedError
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

    def index(self, place: int) -> str:
        """The name of an index while the table is staged; the final one may still be another table's."""
        return f"{self.name}_{place}"


def append(connection: Connection, layout: Layout, staged: Staged) -> Published:
    """Insert every row of the chamber."""
    return Published(_insert(connection, layout, staged), how="appended")


def upsert(connection: Connection, layout: Layout, staged: Staged) -> Published:
    """Insert new keys, update rows that differ in any column, leave equal rows alone and count them."""
    roomy(connection)
    lock(connection, layout)
    merge = _merge if connection.info.server_version >= _COUNTS_MERGES else _update_and_insert
    inserted, updated = merge(connection, layout, staged)
    unchanged = staged.rows - inserted - updated
    if layout.table.intercepts or frozenset(layout.key) not in layout.table.unique_keys:
        # Nothing but the table itself can say then: a trigger may have kept rows out, a key may be there twice.
        unchanged = _found(connection, layout, staged) - inserted - updated
    return Published(inserted, updated, unchanged, how="merged")


def overwrite(connection: Connection, layout: Layout, staged: Staged) -> Published:
    """Replace every row of the table in place; readers see the old rows until the transaction commits."""
    return _replace(connection, layout, staged, "true", ("rewritten in place", "merged in place"))


def delete_insert(connection: Connection, layout: Layout, staged: Staged, scope: str) -> Published:
    """Replace the rows of the table, called ``t``, for which the SQL condition `scope` is true."""
    roomy(connection)
    return _replace(connection, layout, staged, scope, ("deleted and inserted", "merged in place"))


def _replace(connection: Connection, layout: Layout, staged: Staged, scope: str, how: tuple[str, str]) -> Published:
    lock(connection, layout)
    if layout.table.referenced:
        # Rows that other tables point at must not go away, not even for a moment.
        by_key = _keyed(layout)
        execute(connection, f"ANALYZE {staged.quoted}")
        deleted = _delete_missing(connection, by_key, staged, scope)
        merged = upsert(connection, by_key, staged)
        return _shrunk(connection, layout, replace(merged, deleted=deleted, how=how[1]))
    deleted = execute(connection, f"DELETE FROM {layout.table.quoted} AS t WHERE {scope}").rowcount
    return _shrunk(connection, layout, Published(_insert(connection, layout, staged), deleted=deleted, how=how[0]))


def _shrunk(connection: Connection, layout: Layout, published: Published) -> Published:
    """With how many fewer rows the table has now, which is counted only where that can be."""
    removed = published.deleted - published.inserted
    if removed <= 0:
        return published
    return replace(published, removed=removed, before=removed + _count(connection, layout.table.quoted))


def _count(connection: Connection, table: str) -> int:
    row = execute(connection, f"SELECT count(*) FROM {table}").fetchone()
    return int(row[0]) if row else 0


def _keyed(layout: Layout) -> Layout:
    """The layout by a key that the table holds to be unique.

    Raises:
        RefusedError: there is none among the columns of the load.
    """
    if frozenset(layout.key) in layout.table.unique_keys:
        return layout
    names = {column.name for column in layout.columns}
    key = next((key for key in layout.table.unique_keys if key and key <= names), None)
    if key is None:
        raise RefusedError(
            f"target {layout.table.name}: foreign keys of other tables point at it, and the load has no unique key to "
            "tell which rows stay. Deliver the key's columns, or use write_mode: upsert."
        )
    return replace(layout, key=tuple(sorted(key)))


def create(connection: Connection, layout: Layout, staged: Staged) -> Published:
    """Let the chamber become the table that is not there yet."""
    rows = _count(connection, staged.quoted)
    _become(connection, layout, staged)
    return Published(rows, how="created")


def swap(connection: Connection, layout: Layout, staged: Staged, still_fits: Callable[[], bool]) -> Published | None:
    """Let the chamber become the table; None when readers keep the table busy, or something new hangs on it.

    The staged rows are frozen, so a reader whose snapshot is older than the load sees the new rows, never an
    empty table. The exclusive lock is held for a few changes of the catalogue.
    """
    rows, deleted = _count(connection, staged.quoted), _count(connection, layout.table.quoted)
    if not _locked_for_swap(connection, layout.table.quoted, still_fits):
        return None
    execute(connection, f"DROP TABLE {layout.table.quoted}")
    _become(connection, layout, staged)
    removed = max(deleted - rows, 0)
    return Published(rows, deleted=deleted, how="swapped in", removed=removed, before=deleted if removed else 0)


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
    for place, index in enumerate(layout.indexes):
        staged_index = quote(table.schema, staged.index(place))
        if layout.creates and _exists(connection, table.schema, index.name):
            continue  # the name is somebody else's; the index keeps its own
        execute(connection, f"ALTER INDEX {staged_index} RENAME TO {quote(index.name)}")


def _exists(connection: Connection, schema: str, name: str) -> bool:
    row = execute(connection, "SELECT to_regclass(%s) IS NOT NULL", (quote(schema, name),)).fetchone()
    return bool(row and row[0])


def _locked_for_swap(connection: Connection, table: str, still_fits: Callable[[], bool]) -> bool:
    """Lock the table if that takes but a moment; what hangs on it is looked at again under the lock."""
    for attempt in range(_SWAP_ATTEMPTS):
        fits = False
        try:
            with connection.transaction():
                execute(connection, f"SET LOCAL lock_timeout = {_SWAP_WAIT_MILLISECONDS}")
                execute(connection, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
                fits = still_fits()
                if not fits:
                    raise psycopg.Rollback  # lets go of the lock
        except psycopg.errors.LockNotAvailable:
            time.sleep(_SWAP_WAIT_MILLISECONDS / 1000 * (attempt + 1))
        else:
            return fits
    return False


def roomy(connection: Connection) -> None:
    """Give the transaction memory for the hash table of a join with the chamber."""
    execute(connection, f"SET LOCAL work_mem = '{_WORK_MEMORY}'")


def lock(connection: Connection, layout: Layout) -> None:
    """Keep other writers out, and let readers in."""
    execute(connection, f"LOCK TABLE {layout.table.quoted} IN SHARE ROW EXCLUSIVE MODE")


def change(connection: Connection, layout: Layout, *, patience_seconds: int) -> None:
    """Give the table what the contract lets it have; readers wait from here until the transaction ends.

    The lock is asked for again and again, and each time only for a moment: readers who come while somebody else
    keeps the table busy do not have to queue up behind us.
    """
    deadline = time.monotonic() + patience_seconds
    for statement in layout.changing(layout.table.quoted):
        while True:
            try:
                with connection.transaction():
                    execute(connection, f"SET LOCAL lock_timeout = {_SWAP_WAIT_MILLISECONDS}")
                    execute(connection, f"LOCK TABLE {layout.table.quoted} IN ACCESS EXCLUSIVE MODE")
                break
            except psycopg.errors.LockNotAvailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_SWAP_WAIT_MILLISECONDS / 1000)
        execute(connection, statement)


def _insert(connection: Connection, layout: Layout, staged: Staged, *, only_new: bool = False) -> int:
    new = (
        f" WHERE NOT EXISTS (SELECT FROM {layout.table.quoted} AS t WHERE {layout.same_key('t', 's')})"
        if only_new
        else ""
    )
    return execute(
        connection,
        f"INSERT INTO {layout.table.quoted} ({layout.names}) OVERRIDING SYSTEM VALUE "
        f"SELECT {layout.values} FROM {staged.quoted} AS s{new}",
    ).rowcount


def _merge(connection: Connection, layout: Layout, staged: Staged) -> tuple[int, int]:
    changes = _changes(layout)
    update = f"WHEN MATCHED AND {layout.differs('t', 's')} THEN UPDATE SET {changes} " if changes else ""
    row = execute(
        connection,
        f"WITH merged AS (MERGE INTO {layout.table.quoted} AS t USING {staged.quoted} AS s "
        f"ON {layout.same_key('t', 's')} "
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
            f"WHERE {layout.same_key('t', 's')} AND {layout.differs('t', 's')}",
        ).rowcount
    return _insert(connection, layout, staged, only_new=True), updated


def _changes(layout: Layout) -> str:
    return ", ".join(
        f"{quote(column.name)} = {column.published(f's.{quote(column.name)}')}"
        for column in layout.columns
        if column.name not in layout.key
    )


def _found(connection: Connection, layout: Layout, staged: Staged) -> int:
    """Rows of the table that are exactly rows of the chamber."""
    same = layout.same_key("t", "s")
    differs = f" AND NOT ({layout.differs('t', 's')})" if _changes(layout) else ""
    row = execute(
        connection,
        f"SELECT count(*) FROM {layout.table.quoted} AS t JOIN {staged.quoted} AS s ON {same}{differs}",
    ).fetchone()
    return int(row[0]) if row else 0


def _delete_missing(connection: Connection, layout: Layout, staged: Staged, scope: str) -> int:
    return execute(
        connection,
        f"DELETE FROM {layout.table.quoted} AS t WHERE {scope} "
        f"AND NOT EXISTS (SELECT FROM {staged.quoted} AS s WHERE {layout.same_key('t', 's')})",
    ).rowcount
