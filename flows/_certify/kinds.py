"""How scratch targets are made, emptied and removed, one class a kind."""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows._certify.scratch import LONGEST_NAME, dialect, folder_of, marks
from flows._config import Pipeline
from flows._dialects import DUCKDB, POSTGRES, SQLITE, database_file
from flows._postgres import Connection, execute, literal, quote
from flows._sides import Side
from flows._storage import Store, scheme_of
from flows.targets import _session
from flows.targets._attached_table import AttachedTable
from flows.targets._base import Target
from flows.targets._engines import Session
from flows.targets._several import Several
from flows.targets._system import SCHEMA
from flows.targets._table import PostgresTable
from flows.targets.database import Database

_PATIENCE_SECONDS = 30.0


@dataclass
class Scratch(ABC):
    """A scratch target, and how it is emptied and removed.

    Attributes:
        target: the scratch one; real: the one that it stands for.
        pipeline: what the pipeline is called in its ledger.
        mark: what its name has in it.
        notes: what people should know about it.
    """

    target: Any
    real: Any
    pipeline: str
    mark: str
    notes: tuple[str, ...] = ()

    @abstractmethod
    def reset(self) -> None:
        """Make it, or make it as it was in the beginning: without rows, without history."""

    @abstractmethod
    def remove(self) -> None:
        """Remove it, and every trace."""

    def settle(self) -> None:  # noqa: B027 - only a server works on for the dead
        """Wait until nothing works for a process that was killed."""

    def cut(self) -> int:
        """Cut the connection of the run that is under way; returns how many there were."""
        return 0

    @property
    def root(self) -> str | None:
        """The folder that everything of it is in, on a disk of this machine."""
        return None


class FolderScratch(Scratch):
    """A file or a lake, in a folder of its own."""

    @property
    def folder(self) -> str:
        """The folder, or the prefix."""
        return folder_of(self.real.path, self.mark)

    @property
    def root(self) -> str | None:
        """The folder, where it is on a disk."""
        return self.folder if scheme_of(self.real.path) == "file" else None

    def reset(self) -> None:
        """Begin with an empty folder."""
        self.remove()
        if self.root:
            Path(self.root).mkdir(mode=0o700)

    def remove(self) -> None:
        """Remove the folder."""
        if self.root:
            shutil.rmtree(self.root, ignore_errors=True)
            return
        store = Store(self.folder, self.real.storage_options, Side("target", f"target {self.target.path}"))
        with store.mapped(), suppress(FileNotFoundError):
            store.fs.rm(store.path, recursive=True)


class FileScratch(Scratch):
    """A table in a database file of its own: the real file is only looked at."""

    @property
    def folder(self) -> Path:
        """The folder that the file is in."""
        return database_file(self.target.connection_string.reveal()).parent

    def reset(self) -> None:
        """Begin with a file that has the real table's definition, and no rows."""
        self.remove()
        self.folder.mkdir(mode=0o700)
        real = AttachedTable(self.real, dialect(self.real))
        with real.looked_at() as session:
            statements = self._definition(session, real.describe(session).exists)
        if any("REFERENCES" in statement.upper() for statement in statements):
            self.notes = (f"{self.real.label} has foreign keys; its copy is made as a run makes it, without them.",)
            return
        if statements:
            with AttachedTable(self.target, dialect(self.target)).session() as session, session.transaction():
                for statement in statements:
                    session.rows(statement)

    def _definition(self, session: Session, exists: bool) -> list[str]:
        *schemas, table = self.real.table_parts
        if dialect(self.real) is SQLITE:
            return [sql for (sql,) in session.rows(_SQLITE_DEFINITION, (table,))]
        schema = schemas[0] if schemas else "main"
        statements = [f"CREATE SCHEMA IF NOT EXISTS {quote(schema)}"] if schema.lower() != "main" else []
        if exists and dialect(self.real) is DUCKDB:
            statements += [sql for (sql,) in session.rows(_DUCKDB_DEFINITION, (schema, table, schema, table))]
        return statements

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


class TableScratch(Scratch):
    """A table of a PostgreSQL database, beside the real one."""

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        table = PostgresTable(self.target)
        with closing(table.connect("certify")) as connection, table.side.mapped():
            yield connection

    def reset(self) -> None:
        """Begin with a table that has the real one's definition, and no rows."""
        real = PostgresTable(self.real)
        with self._connected() as connection, connection.transaction():
            self._forget(connection)
            there = real.describe(connection)
            own = PostgresTable(self.target).describe(connection)
            if there.oid is None:
                return
            execute(connection, f"CREATE TABLE {own.quoted} (LIKE {there.quoted} INCLUDING ALL)")
            for (column,) in execute(connection, _NUMBERED, (own.quoted,)).fetchall():
                self._number(connection, own.schema, own.quoted, column)

    def _number(self, connection: Connection, schema: str, table: str, column: str) -> None:
        """Let a column have numbers of its own: its copied default would use up the real table's."""
        sequence = quote(schema, f"lockgate_scratch_{self.pipeline.rpartition('_')[2]}_{column}"[:LONGEST_NAME])
        execute(connection, f"CREATE SEQUENCE {sequence} OWNED BY {table}.{quote(column)}")
        execute(
            connection,
            f"ALTER TABLE {table} ALTER COLUMN {quote(column)} SET DEFAULT nextval({literal(sequence)}::regclass)",
        )

    def remove(self) -> None:
        """Drop the table, and delete what the system tables have of it."""
        self.settle()
        with self._connected() as connection, connection.transaction():
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        own = PostgresTable(self.target).describe(connection)
        _session.drop_leftovers(connection, own)
        execute(connection, f"DROP TABLE IF EXISTS {own.quoted}")
        for (table,) in execute(connection, _SYSTEM_TABLES, (SCHEMA,)).fetchall():
            execute(connection, f"DELETE FROM {quote(SCHEMA, table)} WHERE pipeline = %s", (self.pipeline,))

    def settle(self) -> None:
        """Wait for the server to notice that its client is dead; tell it, if it does not."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        with self._connected() as connection:
            while execute(connection, f"SELECT count(*) {_OURS}", (self._application,)).fetchone() != (0,):
                if time.monotonic() > deadline:
                    self._terminate(connection)
                time.sleep(0.01)

    def cut(self) -> int:
        """Terminate the backend that publishes."""
        with self._connected() as connection:
            return self._terminate(connection)

    def _terminate(self, connection: Connection) -> int:
        query = f"SELECT pg_terminate_backend(pid, 5000) {_OURS}"
        return len(execute(connection, query, (self._application,)).fetchall())

    @property
    def _application(self) -> str:
        return f"lockgate {self.pipeline}"[:LONGEST_NAME]


_SQLITE_DEFINITION = """
SELECT sql FROM sqlite_master WHERE tbl_name = ? COLLATE NOCASE AND type IN ('table', 'index') AND sql IS NOT NULL
ORDER BY type DESC
"""
_DUCKDB_DEFINITION = """
SELECT sql FROM duckdb_tables()
WHERE database_name = current_database() AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)
UNION ALL
SELECT sql FROM duckdb_indexes()
WHERE database_name = current_database() AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)
AND sql IS NOT NULL
"""
_OURS = "FROM pg_stat_activity WHERE datname = current_database() AND starts_with(application_name, %s)"
_SYSTEM_TABLES = """
SELECT c.relname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('r', 'p') AND a.attname = 'pipeline'
"""
_NUMBERED = """
SELECT a.attname FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
WHERE d.adrelid = %s::regclass AND pg_get_expr(d.adbin, d.adrelid) LIKE '%%nextval(%%'
"""


def scratches(real: Pipeline, copy: Pipeline, scratch: str) -> list[Scratch]:
    """How each target of the copy is emptied and removed."""
    if not isinstance(real.target, Several):
        return [_kind(real.target)(copy.target, real.target, copy.name, scratch)]
    own: dict[str, Target] = copy.target.members  # type: ignore[attr-defined] # made of the same
    return [
        _kind(member)(own[name], member, f"{copy.name}.{name}", mark)
        for (name, member), mark in zip(real.target.members.items(), marks(real.target, scratch), strict=True)
    ]


def _kind(target: Target) -> Callable[[Any, Any, str, str], Scratch]:
    if not isinstance(target, Database):
        return FolderScratch
    return TableScratch if dialect(target) is POSTGRES else FileScratch
