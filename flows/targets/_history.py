"""Publishing versions: ``scd2`` on PostgreSQL.

A version is true from `valid_from` on, and before `valid_to`; it is closed and the next one begins at
the same instant, so that every instant has one version of a row at most.
"""

from __future__ import annotations

from datetime import datetime

import polars as pl

from flows._postgres import Connection, PostgresSide, execute, literal, quote
from flows.targets import _refusals
from flows.targets._base import Published
from flows.targets._catalog import TableInfo
from flows.targets._layout import Layout, require
from flows.targets._modes import Scd2
from flows.targets._publish import Staged, lock, roomy
from flows.targets._system import SCHEMA

_MOMENTS = {"timestamptz": "{}", "timestamp": "({} AT TIME ZONE 'UTC')", "date": "({}::timestamp AT TIME ZONE 'UTC')"}


def require_columns(table: TableInfo, schema: pl.Schema, options: Scd2, side: PostgresSide) -> None:
    """Confirm that the table keeps versions, or can be made to, and that the load leaves that to it.

    Raises:
        LoadError: it does not, cannot, or the load delivers one of its columns.
    """
    for key, name in zip(("valid_from", "valid_to", "is_current"), options.own_columns, strict=True):
        if name in schema:
            raise side.error(
                "type",
                f"column {name!r} is kept by scd2, and the pipeline delivers one of that name. Rename it with a 'map' "
                f"step, or name another column in target.scd2.{key}.",
            )
        present = next((column for column in table.columns if column.name == name), None)
        if table.oid is None:
            continue
        if present is None:
            raise side.error(
                "missing",
                f"scd2 keeps its versions in column {name!r}, and the table has none. Add "
                f"{', '.join(_definitions(options))}, or name the table's own columns in target.scd2.",
            )
        wanted = ("bool",) if key == "is_current" else ("timestamptz", "timestamp")
        if present.pg.name not in wanted or (key == "valid_to" and present.not_null):
            nullable = ", which takes nulls," if key == "valid_to" else ""
            raise side.error(
                "type", f"column {name!r} is {present.pg.text}; scd2 needs {' or '.join(wanted)}{nullable} there."
            )
    require(options.tracked_columns, "scd2.tracked_columns", schema, side)
    if options.effective_at is not None:
        require((options.effective_at,), "scd2.effective_at", schema, side)


def require_moment(layout: Layout, options: Scd2, side: PostgresSide) -> None:
    """Confirm that ``effective_at`` names a moment.

    Raises:
        LoadError: it does not.
    """
    if options.effective_at is None:
        return
    pg = layout.column(options.effective_at).pg
    if pg.name not in _MOMENTS or pg.is_array:
        raise side.error(
            "type", f"scd2.effective_at names {options.effective_at!r}, which is {pg.text}. Name a date or a timestamp."
        )


def creating(layout: Layout, options: Scd2) -> list[str]:
    """Statements that make the table."""
    table, key = layout.table.quoted, ", ".join(map(quote, layout.key))
    return [
        f"CREATE TABLE {table} ({layout.created_columns}, {', '.join(_definitions(options))})",
        f"CREATE UNIQUE INDEX ON {table} ({key}) WHERE {quote(options.is_current)}",
    ]


def _definitions(options: Scd2) -> list[str]:
    return [
        f"{quote(options.valid_from)} timestamptz NOT NULL",
        f"{quote(options.valid_to)} timestamptz",
        f"{quote(options.is_current)} bool NOT NULL",
    ]


class History:
    """The versions of a table, and the chamber whose rows may begin new ones.

    Args:
        at: when the run started: since when a row is as it is, unless the load says so.
    """

    def __init__(self, layout: Layout, staged: Staged, options: Scd2, at: datetime) -> None:
        self.layout, self.staged, self.options = layout, staged, options
        self._table = layout.table.quoted
        self._from, self._to, self._current = (f"t.{quote(name)}" for name in options.own_columns)
        columns = {column.name: column.pg.name for column in layout.table.columns}
        self._is_naive = {name: columns.get(name) == "timestamp" for name in options.own_columns}
        self._started = literal(at)
        self._changes = quote(SCHEMA, f"{staged.name}_changes")
        self._same_key = layout.same_key("t", "s")
        self._differs = layout.differs("t", "s", options.tracked_columns) if self._tracked else "false"

    @property
    def _tracked(self) -> tuple[str, ...]:
        return self.options.tracked_columns or self.layout.outside_key

    def publish(self, connection: Connection, side: PostgresSide) -> Published:
        """Close versions that are not true any more, and begin those that are; leave all others alone.

        Raises:
            RefusedError: a row would begin before the version that it follows.
        """
        roomy(connection)
        if self.layout.creates:
            return self._create(connection)
        lock(connection, self.layout)
        self._find_changes(connection)
        gone, earlier = self._close_missing(connection) if self.options.hard_deletes == "close" else (0, 0)
        if earlier := earlier + self._earlier(connection):
            raise _refusals.too_early(self.options, earlier, side)
        before = gone + self._count(connection, f"{self._table} AS t WHERE {self._current}") if gone else 0
        closed = gone + self._close_changed(connection)
        inserted = self._begin(connection, f"s.ctid IN (SELECT begins FROM {self._changes})")
        execute(connection, f"DROP TABLE {self._changes}")
        unchanged = self.staged.rows - inserted
        if self.layout.table.intercepts:  # a trigger may have kept rows out; only the table itself can say
            unchanged = self._found(connection) - inserted
        return Published(inserted, unchanged=unchanged, closed=closed, how="new versions", removed=gone, before=before)

    def _create(self, connection: Connection) -> Published:
        table, *indexes = creating(self.layout, self.options)
        execute(connection, table)
        inserted = self._begin(connection, "true")
        for index in indexes:
            execute(connection, index)
        return Published(inserted, how="created")

    def _find_changes(self, connection: Connection) -> None:
        """Compare once, and keep which rows of the chamber begin a version, and which version that ends."""
        begins = self._moment(self.options.valid_from)
        execute(
            connection,
            f"CREATE UNLOGGED TABLE {self._changes} AS "
            "SELECT s.ctid AS begins, t.tableoid AS part, t.ctid AS ends, "
            f"coalesce({begins} <= {self._from}, false) AS early "
            f"FROM {self.staged.quoted} AS s LEFT JOIN {self._table} AS t ON {self._same_key} AND {self._current} "
            f"WHERE t.ctid IS NULL OR {self._differs}",
        )

    def _moment(self, column: str, *, started: bool = False) -> str:
        """SQL for since when a row of the chamber, called ``s``, is as it is, in the type of the table's `column`."""
        effective = self.options.effective_at
        moment = self._started
        if effective is not None and not started:
            moment = _MOMENTS[self.layout.column(effective).pg.name].format(self.layout.key_of(effective, "s"))
        return f"({moment} AT TIME ZONE 'UTC')" if self._is_naive[column] else moment

    def _earlier(self, connection: Connection) -> int:
        """Rows of the chamber that would begin before something that the table says has happened."""
        again = f"{self._table} AS t WHERE {self._same_key} AND {self._moment(self.options.valid_to)} < {self._to}"
        came_back = (
            f"{self._changes} AS c JOIN {self.staged.quoted} AS s ON s.ctid = c.begins "
            f"WHERE c.ends IS NULL AND EXISTS (SELECT FROM {again})"
        )
        return self._count(connection, f"{self._changes} WHERE early") + self._count(connection, came_back)

    def _close_changed(self, connection: Connection) -> int:
        return execute(
            connection,
            f"UPDATE {self._table} AS t SET {quote(self.options.valid_to)} = {self._moment(self.options.valid_to)}, "
            f"{quote(self.options.is_current)} = false "
            f"FROM {self._changes} AS c JOIN {self.staged.quoted} AS s ON s.ctid = c.begins "
            "WHERE t.ctid = c.ends AND t.tableoid = c.part",
        ).rowcount

    def _close_missing(self, connection: Connection) -> tuple[int, int]:
        """How many were closed, and how many of them had not begun."""
        ends = self._moment(self.options.valid_to, started=True)
        begun = f"{self._moment(self.options.valid_from, started=True)} <= {self._from}"
        row = execute(
            connection,
            f"WITH closed AS (UPDATE {self._table} AS t SET {quote(self.options.valid_to)} = {ends}, "
            f"{quote(self.options.is_current)} = false WHERE {self._current} "
            f"AND NOT EXISTS (SELECT FROM {self.staged.quoted} AS s WHERE {self._same_key}) "
            f"RETURNING {begun} AS early) "
            "SELECT count(*), count(*) FILTER (WHERE early) FROM closed",
        ).fetchone()
        return (row[0], row[1]) if row else (0, 0)

    def _begin(self, connection: Connection, which: str) -> int:
        own = ", ".join(map(quote, self.options.own_columns))
        return execute(
            connection,
            f"INSERT INTO {self._table} ({self.layout.names}, {own}) OVERRIDING SYSTEM VALUE "
            f"SELECT {self.layout.values}, {self._moment(self.options.valid_from)}, NULL, true "
            f"FROM {self.staged.quoted} AS s "
            f"WHERE {which}",
        ).rowcount

    def _found(self, connection: Connection) -> int:
        """Rows of the chamber that are current versions now."""
        return self._count(
            connection,
            f"{self.staged.quoted} AS s WHERE EXISTS (SELECT FROM {self._table} AS t "
            f"WHERE {self._same_key} AND {self._current} AND NOT {self._differs})",
        )

    def _count(self, connection: Connection, of: str) -> int:
        row = execute(connection, f"SELECT count(*) FROM {of}").fetchone()
        return int(row[0]) if row else 0
