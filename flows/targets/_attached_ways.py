"""How a chamber is brought into a table of a database file, one method a way; each runs in the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flows._ledger import RunRecord
from flows.targets import _booking, _refusals
from flows.targets._attached_layout import Layout
from flows.targets._base import Published
from flows.targets._engines import Engine, Session, quote
from flows.targets._modes import DeleteRange, Scd2

if TYPE_CHECKING:
    from flows.targets.database import Database


@dataclass(frozen=True)
class Staged:
    """The sealed staging table: its quoted name, and its rows as they were counted."""

    quoted: str
    rows: int


class Ways:
    """A session that is about to publish."""

    def __init__(self, session: Session, options: Database, layout: Layout, staged: Staged, record: RunRecord) -> None:
        self._session = session
        self._options = options
        self._layout = layout
        self._engine: Engine = layout.engine
        self._table = layout.table.quoted
        self._staged = staged
        self._record = record
        self._at = record.started_at

    # --- guards ---

    def refuse(self) -> None:
        """Refuse what the write mode cannot publish.

        Raises:
            RefusedError: the load is empty and that would leave nothing, or rows lie outside of what is replaced.
            LoadError: rows have no key, or share one; or the staged rows are not there any more.
        """
        options, layout, side = self._options, self._layout, self._engine.side
        if self._count(f"{self._staged.quoted}") != self._staged.rows:
            raise side.error("staging", "staged rows were lost. Nothing was published; run again.")
        mode, versions, by_range = options.write_mode, layout.versions, options.delete_range
        empties = mode == "overwrite" or (by_range is not None and not by_range.spans_load)
        if (empties or (versions is not None and versions.hard_deletes == "close")) and not options.allow_empty:
            _booking.refuse_empty(self._staged.rows, side.label, self._record)
        if mode in {"upsert", "scd2"} or not layout.table.exists:
            self._refuse_missing(layout.key)
            self._refuse_repeated(layout.key)
        numbered = tuple(column.name for column in layout.table.columns if column.numbers_itself)
        self._refuse_missing(tuple(name for name in numbered if name in layout.staged))
        if versions is not None and versions.effective_at is not None:
            self._refuse_missing((versions.effective_at,))
        if mode == "delete_insert" and by_range is None:
            self._refuse_missing(options.replaces_by)
        if by_range is not None:
            self._refuse_strays(by_range)

    def _refuse_missing(self, key: tuple[str, ...]) -> None:
        missing = " OR ".join(f"{quote(name)} IS NULL" for name in key)
        if key and self._any(f"{self._staged.quoted} WHERE {missing}"):
            raise _refusals.no_key(key, self._engine.side)

    def _refuse_repeated(self, key: tuple[str, ...]) -> None:
        names = ", ".join(self._layout.key_of(name) for name in key)
        if key and self._any(f"{self._staged.quoted} AS s GROUP BY {names} HAVING count(*) > 1"):
            raise _refusals.shared_key(key, self._engine.side)

    def _refuse_strays(self, wanted: DeleteRange) -> None:
        value = self._layout.key_of(wanted.column)
        inside = f"{value} IS NOT NULL" if wanted.spans_load else self._inside(wanted, value)
        if strays := self._count(f"{self._staged.quoted} AS s WHERE ({inside}) IS NOT TRUE"):
            raise _refusals.outside(wanted, strays, self._engine.side)

    # --- ways ---

    def publish(self) -> Published:
        """Bring the rows into the table, which is made or changed first where that is due."""
        layout, mode = self._layout, self._options.write_mode
        for statement in layout.changing() if layout.table.exists else layout.creating():
            self._session.rows(statement)
        if layout.versions is not None:
            return self._add_versions(layout.versions)
        if not layout.table.exists:
            return Published(self._insert(), how="created")
        if mode == "upsert":
            return self._upsert()
        if mode == "overwrite":
            return self._replace("true", ("rewritten in place", "merged in place"))
        if mode == "delete_insert":
            return self._replace(self._scope(), ("deleted and inserted", "merged in place"))
        return Published(self._insert(), how="appended")

    def _insert(self, joined: str = "", values: str = "", names: str = "") -> int:
        return self._session.changed(
            f"{self._engine.insert} {self._table} ({names or self._layout.names}) "
            f"SELECT {values or self._layout.values} FROM {self._staged.quoted} AS s{joined}"
        )

    def _upsert(self) -> Published:
        """Insert new keys, update rows that differ, leave equal rows alone and count them."""
        layout, updated = self._layout, 0
        if layout.outside_key:
            changes = ", ".join(f"{quote(name)} = {layout.key_of(name)}" for name in layout.outside_key)
            updated = self._session.changed(
                f"{self._engine.update} {self._table} AS t SET {changes} FROM {self._staged.quoted} AS s "
                f"WHERE {layout.same()} AND {layout.differs()}"
            )
        missing = f" LEFT JOIN {self._table} AS t ON {layout.same()} WHERE t.{quote(layout.key[0])} IS NULL"
        inserted = self._insert(missing)
        unchanged = self._staged.rows - inserted - updated
        if layout.table.intercepts or frozenset(layout.key) not in layout.table.unique_keys:
            # Nothing but the table itself can say then: a trigger may have kept rows out, a key may be there twice.
            equal = f"{self._table} AS t JOIN {self._staged.quoted} AS s ON {layout.same()} AND NOT {layout.differs()}"
            unchanged = self._count(equal) - inserted - updated
        return Published(inserted, updated, unchanged, how="merged")

    def _replace(self, scope: str, how: tuple[str, str]) -> Published:
        if self._layout.table.referenced:
            # Rows that other tables point at must not go away, not even for a moment.
            by_key = Ways(self._session, self._options, self._keyed(), self._staged, self._record)
            deleted = self._session.changed(
                f"DELETE FROM {self._table} AS t WHERE {scope} AND NOT {by_key.delivered()}"
            )
            merged = by_key._upsert()
            return self._shrunk(replace(merged, deleted=deleted, how=how[1]))
        deleted = self._session.changed(f"DELETE FROM {self._table} AS t WHERE {scope}")
        return self._shrunk(Published(self._insert(), deleted=deleted, how=how[0]))

    def _shrunk(self, published: Published) -> Published:
        """With how many fewer rows the table has now, which is counted only where that can be."""
        removed = published.deleted - published.inserted
        if removed <= 0:
            return published
        return replace(published, removed=removed, before=removed + self._count(self._table))

    def _keyed(self) -> Layout:
        layout = self._layout
        key = next((key for key in layout.table.unique_keys if key and key <= layout.staged.keys()), None)
        if key is None:
            raise _refusals.unkeyed(self._engine.side)
        return layout if frozenset(layout.key) in layout.table.unique_keys else replace(layout, key=tuple(sorted(key)))

    def delivered(self, key: tuple[str, ...] = ()) -> str:
        """SQL for whether the chamber has the key of a row of the table, called ``t``."""
        names = key or self._layout.key
        ours, theirs = (", ".join(f"t.{quote(n)}" for n in names), ", ".join(map(self._layout.key_of, names)))
        whole = " AND ".join(f"{self._layout.key_of(n)} IS NOT NULL" for n in names)
        one = f"({ours})" if len(names) > 1 else ours
        return f"({one} IN (SELECT {theirs} FROM {self._staged.quoted} AS s WHERE {whole})) IS TRUE"

    def _scope(self) -> str:
        """Which rows of the table, called ``t``, ``delete_insert`` replaces."""
        wanted = self._options.delete_range
        if wanted is None:
            return self.delivered(self._options.replaces_by)
        column = f"t.{quote(wanted.column)}"
        if not wanted.spans_load:
            return self._inside(wanted, column)
        value = self._layout.key_of(wanted.column)
        ends = (f"(SELECT {end}({value}) FROM {self._staged.quoted} AS s)" for end in ("min", "max"))
        return f"{column} BETWEEN {' AND '.join(ends)}"

    def _inside(self, wanted: DeleteRange, value: str) -> str:
        type_ = self._layout.column(wanted.column).type
        low, high = (self._engine.literal(end, type_) for end in (wanted.from_, wanted.to))
        return f"{value} >= {low} AND {value} < {high}"

    # --- versions ---

    def _add_versions(self, versions: Scd2) -> Published:
        """Close versions that are not true any more, and begin those that are; leave all others alone."""
        if not self._layout.table.exists:
            return Published(self._begin(versions, ""), how="created")
        self._refuse_earlier(versions)
        gone = before = 0
        ends, current = quote(versions.valid_to), f"t.{quote(versions.is_current)}"
        over = f"{self._engine.update} {self._table} AS t SET {quote(versions.is_current)} = false, {ends} = "
        if versions.hard_deletes == "close":
            started = self._engine.moment(self._at)
            gone = self._session.changed(f"{over}{started} WHERE {current} AND NOT {self.delivered()}")
            before = gone + self._count(f"{self._table} AS t WHERE {current}") if gone else 0
        closed = gone + self._session.changed(
            f"{over}{self._since(versions)} FROM {self._staged.quoted} AS s "
            f"WHERE {self._layout.same()} AND {current} AND {self._differs(versions)}"
        )
        is_current = f"{self._layout.same()} AND {current}"
        missing = f" LEFT JOIN {self._table} AS t ON {is_current} WHERE t.{quote(self._layout.key[0])} IS NULL"
        inserted = self._begin(versions, missing)
        unchanged = self._staged.rows - inserted
        if self._layout.table.intercepts:  # a trigger may have kept rows out; only the table itself can say
            found = f"{self._staged.quoted} AS s JOIN {self._table} AS t ON {is_current} AND NOT "
            unchanged = self._count(f"{found}{self._differs(versions)}") - inserted
        return Published(inserted, unchanged=unchanged, closed=closed, how="new versions", removed=gone, before=before)

    def _begin(self, versions: Scd2, joined: str) -> int:
        names = f"{self._layout.names}, {', '.join(map(quote, versions.own_columns))}"
        return self._insert(joined, f"{self._layout.values}, {self._since(versions)}, NULL, true", names)

    def _since(self, versions: Scd2) -> str:
        """SQL for since when a row of the chamber, called ``s``, is as it is."""
        name = versions.effective_at
        if name is None:
            return self._engine.moment(self._at)
        moment = self._engine.moment_of(self._layout.key_of(name), self._layout.column(name).dtype)
        if moment is None:
            type_ = self._layout.column(name).type
            raise self._engine.side.error(
                "type", f"scd2.effective_at names {name!r}, which is {type_}. Name a date or a timestamp."
            )
        return moment

    def _differs(self, versions: Scd2) -> str:
        return self._layout.differs(versions.tracked_columns)

    def _refuse_earlier(self, versions: Scd2) -> None:
        begins, ends, is_current = (f"t.{quote(name)}" for name in versions.own_columns)
        current = (
            f"SELECT {', '.join(map(quote, self._layout.key))} FROM {self._table} WHERE {quote(versions.is_current)}"
        )
        keys = ", ".join(map(self._layout.key_of, self._layout.key))
        has_current = f"{f'({keys})' if len(self._layout.key) > 1 else keys} IN ({current})"
        since = self._since(versions)
        earlier = self._count(
            f"{self._table} AS t JOIN {self._staged.quoted} AS s ON {self._layout.same()} "
            f"WHERE ({is_current} AND {since} <= {begins} AND {self._differs(versions)}) "
            f"OR (NOT {is_current} AND {since} < {ends} AND NOT {has_current})"
        )
        if versions.hard_deletes == "close":
            started = self._engine.moment(self._at)
            earlier += self._count(
                f"{self._table} AS t WHERE {is_current} AND {started} <= {begins} AND NOT {self.delivered()}"
            )
        if earlier:
            raise _refusals.too_early(versions, earlier, self._engine.side)

    def _count(self, of: str) -> int:
        return int(self._session.rows(f"SELECT count(*) FROM {of}")[0][0])

    def _any(self, of: str) -> bool:
        return bool(self._session.rows(f"SELECT 1 FROM {of} LIMIT 1"))
