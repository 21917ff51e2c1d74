"""The table behind a target in a database file: what can be asked of it without loading anything."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from flows._dialects import SQLITE, Dialect, database_file
from flows._errors import ConfigError
from flows._ledger import RunRecord
from flows._quarantine import Marks, Quarantine, Status
from flows._sides import Side
from flows.targets import _refusals
from flows.targets._attached_layout import Layout, place
from flows.targets._base import Chamber
from flows.targets._booked import Books
from flows.targets._engines import Engine, Session, Table

if TYPE_CHECKING:
    from flows.targets.database import Database


class AttachedTable:
    """The table that a target's options name.

    Attributes:
        engine: the kind of database that the file is.

    Raises:
        LoadError: the connection string names no file.
    """

    def __init__(self, options: Database, dialect: Dialect) -> None:
        self.options = options
        side = Side("target", f"target {options.label}", str(options.connection_string))
        if "writer" in options.model_fields_set:
            raise side.error("other", f"'writer' is for PostgreSQL, and this is {dialect.title}. Remove it.")
        try:
            path = Path(os.path.realpath(database_file(options.connection_string.reveal())))
        except ValueError as error:
            raise side.error("missing", f"connection_string: {error}") from error
        self.engine = _engine(dialect)(path, side, options.lock_timeout_seconds)

    def open(self, record: RunRecord, schema: pl.Schema, folder: Path | None) -> Chamber:
        """Lock the table against other runs, and open a staging file in `folder`."""
        from flows.targets._attached import AttachedChamber  # noqa: PLC0415 - the chamber asks the table

        return AttachedChamber(self, record, schema, folder)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A connection to the file, with the driver's errors in our words."""
        with closing(self.engine.session()) as session, self.engine.mapped():
            yield session

    def describe(self, session: Session) -> Table:
        """What the catalogue says about it."""
        return self.engine.describe(session, self.options.table_parts)

    def layout(self, session: Session, schema: pl.Schema) -> Layout:
        """Place the columns of `schema` in it.

        Raises:
            LoadError: a column does not fit, or a key that the write mode needs is not there.
        """
        return place(self.engine, self.options, schema, self.describe(session))

    def plan(self, schema: pl.Schema) -> list[str]:
        """What publishing rows of `schema` would do."""
        with self.looked_at() as session:
            table = self.describe(session)
        layout = place(self.engine, self.options, schema, table)
        statements = layout.changing() if table.exists else layout.creating()
        return [*layout.warnings, *statements, *self._moves(layout), *self._set_aside(layout)]

    def _moves(self, layout: Layout) -> list[str]:
        """What becomes of rows, in words; nothing where the table is yet to be made."""
        options, table, key = self.options, layout.table.quoted, ", ".join(layout.key)
        if not layout.table.exists:
            return []
        closes = layout.versions is not None and layout.versions.hard_deletes == "close"
        return [
            {
                "append": f"append to {table}",
                "upsert": f"merge into {table} by ({key}), equal rows are left alone",
                "overwrite": f"rewrite {table} in place",
                "delete_insert": f"replace in {table} {_refusals.replaced(options.replaces_by, options.delete_range)}",
                "scd2": f"add versions to {table} by ({key}), equal rows are left alone"
                + (", and those that the load does not have any more are closed" if closes else ""),
            }[options.write_mode]
        ]

    def _set_aside(self, layout: Layout) -> list[str]:
        if self.options.schema_contract.data_type != "quarantine":
            return []
        return [
            f"rows whose {column.name!r} does not fit {column.type} go to quarantine"
            for column in layout.columns
            if column.fit.survives is not None
        ]

    def check(self) -> None:
        """Open the file and look the table up; where there is none yet, see whether it could be made."""
        with self.looked_at() as session:
            self.describe(session)
        writable = self.engine.path if self.engine.path.exists() else self.engine.path.parent
        if not os.access(writable, os.W_OK):
            raise self.engine.side.error(
                "permission", f"{str(writable)!r} cannot be written. Let the user of this process write it."
            )

    def record(self, record: RunRecord, quarantine: Quarantine | None) -> None:
        """Keep the record of a run that published nothing, in a transaction of its own."""
        with self.session() as session, session.transaction():
            books = Books(self.engine, session)
            books.prepare()
            if quarantine is not None:
                books.quarantine.write(record, quarantine)
            books.write(record)

    def state(self, pipeline: str) -> dict[str, Any]:
        """What the sources of `pipeline` had remembered with the newest published load."""
        with self.looked_at() as session:
            return Books(self.engine, session).state(pipeline)

    def remember(self, pipeline: str, state: Mapping[str, Any]) -> None:
        """Let `state` be what the sources of `pipeline` had remembered."""
        with self.session() as session, session.transaction():
            books = Books(self.engine, session)
            books.prepare()
            books.remember(pipeline, state)

    def history(self, pipeline: str, limit: int) -> list[dict[str, Any]]:
        """The newest runs of `pipeline`, newest first."""
        with self.looked_at() as session:
            return Books(self.engine, session).history(pipeline, limit)

    def kept(self, pipeline: str, run_id: str | None, status: Status | None) -> Iterator[pl.DataFrame]:
        """Quarantined rows, a frame at a time."""
        with self.looked_at() as session:
            yield from Books(self.engine, session).quarantine.kept(pipeline, run_id, status)

    def kept_counts(self, pipeline: str) -> list[dict[str, Any]]:
        """How many rows of each run are kept, by their status."""
        with self.looked_at() as session:
            return Books(self.engine, session).quarantine.counts(pipeline)

    def discard(self, pipeline: str, marks: Marks) -> int:
        """Mark waiting rows as discarded, in a transaction of its own."""
        with self.session() as session, session.transaction():
            books = Books(self.engine, session)
            books.prepare()
            return books.quarantine.mark(pipeline, marks, "discarded")

    @contextmanager
    def looked_at(self) -> Iterator[Session]:
        """A session for whoever only looks: a file that is not there is not made, it is an empty database."""
        with closing(self.engine.session(looks=True)) as session, self.engine.mapped():
            yield session


def _engine(dialect: Dialect) -> type[Engine]:
    """The engine of a dialect; each is only loaded by those who have such a file.

    Raises:
        ConfigError: its package is not installed.
    """
    if dialect is SQLITE:
        from flows.targets._sqlite import Sqlite  # noqa: PLC0415 - as said

        return Sqlite
    try:
        from flows.targets._duckdb import Duckdb  # noqa: PLC0415 - the extra is optional
    except ModuleNotFoundError as error:
        raise ConfigError(f"DuckDB is not installed. Install it with: pip install '{dialect.package}'.") from error
    return Duckdb
