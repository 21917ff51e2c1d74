"""The table behind a PostgreSQL target: what can be asked of it without loading anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from flows._ledger import RunRecord
from flows._postgres import Connection, PostgresSide, connect, execute
from flows._quarantine import Marks, Quarantine, Status
from flows.targets import _history, _refusals, _system, _system_quarantine
from flows.targets._base import Chamber
from flows.targets._catalog import TableInfo, describe
from flows.targets._evolution import evolved, pinned_columns
from flows.targets._layout import Layout, place, require

if TYPE_CHECKING:
    from flows.targets.database import Database


class PostgresTable:
    """The table that a target's options name.

    Attributes:
        side: the end that its errors belong to.
    """

    def __init__(self, options: Database) -> None:
        self.options = options
        self.side = PostgresSide("target", f"target {options.label}", str(options.connection_string))

    def open(self, record: RunRecord, schema: pl.Schema, folder: Path | None) -> Chamber:  # noqa: ARG002 - the database stages
        """Lock the table against other runs, and open a staging table beside it."""
        from flows.targets._chamber import PostgresChamber  # noqa: PLC0415 - pyarrow and pgpq are for runs only

        return PostgresChamber(self, record, schema)

    def connect(self, purpose: str) -> Connection:
        """Open a connection that the server's administrator knows by `purpose`."""
        return connect(self.options.connection_string, application=f"lockgate {purpose}", side=self.side)

    def describe(self, connection: Connection) -> TableInfo:
        """What the catalogue says about it."""
        return describe(connection, self.options.table_parts)

    def require_schema(self, connection: Connection, table: TableInfo) -> None:
        """Confirm that the schema of a table that will be made is there.

        Raises:
            LoadError: it is not.
        """
        row = execute(
            connection, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)", (table.schema,)
        ).fetchone()
        if not (row and row[0]):
            raise self.side.error("missing", f"there is no schema {table.schema!r}. Create it, or name another one.")

    def layout(self, connection: Connection, schema: pl.Schema, table: TableInfo) -> Layout:
        """Place the columns of `schema` in it.

        Raises:
            LoadError: a column does not fit, or a key that the write mode needs is not there.
        """
        options, mode, versions = self.options, self.options.write_mode, self.options.versions
        contract = options.schema_contract
        if versions is not None:
            _history.require_columns(table, schema, versions, self.side)
        pinned = pinned_columns(connection, table) if contract.data_type == "evolve" else frozenset()
        evolution = evolved(contract, schema, table, self.side, pinned=pinned)
        placed = place(
            evolution.schema,
            evolution.table,
            self.side,
            key=options.primary_key,
            overwrites=mode == "overwrite",
            own=versions.own_columns if versions is not None else (),
            judges=contract.data_type == "quarantine",
        )
        layout = replace(placed, table=table, evolution=evolution)
        if mode == "upsert" and not layout.key:
            raise self.side.error("missing", "upsert needs a key. Set target.primary_key, such as [customer_id].")
        if mode == "delete_insert":
            require(options.delete_key, "delete_key", evolution.schema, self.side)
            require(
                [options.delete_range.column] if options.delete_range else (),
                "delete_range",
                evolution.schema,
                self.side,
            )
        if versions is not None:
            _history.require_moment(layout, versions, self.side)
        return layout

    def plan(self, schema: pl.Schema) -> list[str]:
        """What publishing rows of `schema` would do."""
        with closing(self.connect("plan")) as connection, self.side.mapped():
            table = self.describe(connection)
            self.require_schema(connection, table)
            layout = self.layout(connection, schema, table)
        return [*layout.evolution.warnings, *self._ddl(layout), *self._moves(layout), *_set_aside(layout, self.options)]

    def _ddl(self, layout: Layout) -> list[str]:
        if not layout.creates:
            return layout.changing(layout.table.quoted)
        if self.options.versions is not None:
            return _history.creating(layout, self.options.versions)
        indexes = (index.on(layout.table.quoted) for index in layout.indexes)
        return [*layout.staging(layout.table.quoted), *indexes]

    def _moves(self, layout: Layout) -> list[str]:
        """What becomes of rows, in words; nothing where the table is yet to be made."""
        if layout.creates:
            return []
        options, table = self.options, layout.table
        key = ", ".join(layout.key)
        keeps = table.keeps or "a column is parsed by the server"
        swaps = f"swap the staged table in for {table.quoted}, or rewrite it in place while readers keep it busy"
        replaced = _refusals.replaced(options.replaces_by, options.delete_range)
        closes = ", and those that the load does not have any more are closed"
        closes = closes if options.versions is not None and options.versions.hard_deletes == "close" else ""
        return [
            {
                "append": f"append to {table.quoted}",
                "upsert": f"merge into {table.quoted} by ({key}), equal rows are left alone",
                "overwrite": swaps if layout.swaps else f"rewrite {table.quoted} in place ({keeps})",
                "delete_insert": f"replace in {table.quoted} {replaced}",
                "scd2": f"add versions to {table.quoted} by ({key}), equal rows are left alone{closes}",
            }[options.write_mode]
        ]

    def check(self) -> None:
        """Reach the server and look the table up."""
        with closing(self.connect("check")) as connection, self.side.mapped():
            self.describe(connection)

    def record(self, record: RunRecord, quarantine: Quarantine | None) -> None:
        """Keep the record of a run that published nothing, in a transaction of its own."""
        with closing(self.connect(record.pipeline)) as connection, self.side.mapped():
            _system.prepare(connection)
            with connection.transaction():
                if quarantine is not None:
                    _system_quarantine.write(connection, record, quarantine)
                _system.write(connection, record)

    def state(self, pipeline: str) -> dict[str, Any]:
        """What the sources of `pipeline` had remembered with the newest published load."""
        with closing(self.connect(pipeline)) as connection, self.side.mapped():
            return _system.state(connection, pipeline)

    def remember(self, pipeline: str, state: Mapping[str, Any]) -> None:
        """Let `state` be what the sources of `pipeline` had remembered."""
        with closing(self.connect(pipeline)) as connection, self.side.mapped():
            _system.prepare(connection)
            with connection.transaction():
                _system.remember(connection, pipeline, state)

    def history(self, pipeline: str, limit: int) -> list[dict[str, Any]]:
        """The newest runs of `pipeline`, newest first."""
        with closing(self.connect(pipeline)) as connection, self.side.mapped():
            return _system.history(connection, pipeline, limit)

    def kept(self, pipeline: str, run_id: str | None, status: Status | None) -> Iterator[pl.DataFrame]:
        """Quarantined rows, a frame at a time."""
        with closing(self.connect(pipeline)) as connection, self.side.mapped():
            yield from _system_quarantine.kept(connection, pipeline, run_id, status)

    def kept_counts(self, pipeline: str) -> list[dict[str, Any]]:
        """How many rows of each run are kept, by their status."""
        with closing(self.connect(pipeline)) as connection, self.side.mapped():
            return _system_quarantine.counts(connection, pipeline)

    def discard(self, pipeline: str, marks: Marks) -> int:
        """Mark waiting rows as discarded, in a transaction of its own."""
        with closing(self.connect(pipeline)) as connection, self.side.mapped():
            _system.prepare(connection)
            with connection.transaction():
                return _system_quarantine.mark(connection, pipeline, marks, "discarded")


def _set_aside(layout: Layout, options: Database) -> list[str]:
    if options.schema_contract.data_type != "quarantine":
        return []
    return [
        f"rows whose {column.name!r} does not fit {column.pg.text} go to quarantine"
        for column in layout.columns
        if column.writing.survives is not None
    ]
