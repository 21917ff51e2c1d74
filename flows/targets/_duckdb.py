"""DuckDB at the edge of a target: connections, the catalogue and its errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from flows._dialects import DUCKDB
from flows._secrets import redact
from flows.targets import _duckdb_types
from flows.targets._engines import STAGED, Column, Engine, Session, Table, Writer, quote
from flows.targets._fitting import Fit

_BATCH = "_lockgate_batch"
_SETTLED = "SET python_enable_replacements = false"  # or a table that is missing is looked for in our variables

_FRUGAL = "SET memory_limit = '512MB'"  # otherwise pages stay until four fifths of the machine's memory are full


class DuckdbSession(Session):
    """A connection; those of one process to one file share an instance of the database."""

    def __init__(self, file: Path | None, *, read_only: bool = False) -> None:
        self._connection = duckdb.connect(":memory:" if file is None else str(file), read_only=read_only)
        self._connection.execute(_SETTLED)
        self._attached: str | None = None

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement."""
        return self._connection.execute(query, list(parameters)).fetchall()

    def changed(self, statement: str) -> int:
        """Run one statement; its only row is a count."""
        return int(self.rows(statement)[0][0])

    def frame(self, query: str, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
        """The rows of a query."""
        found = pl.DataFrame(self._connection.sql(query).to_arrow_table())
        return found.select(pl.col(name).cast(dtype) for name, dtype in schema.items())

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Insert rows."""
        names = ", ".join(map(quote, rows.columns))
        self._connection.register(_BATCH, rows.to_arrow())
        try:
            self._connection.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM {_BATCH}")
        finally:
            self._connection.unregister(_BATCH)

    def attach(self, file: Path, name: str) -> None:
        """Attach the file read-only."""
        path = str(file).replace("'", "''")
        self.rows(f"ATTACH '{path}' AS {quote(name)} (READ_ONLY)")
        self._attached = name

    def close(self) -> None:
        """Detach, because the instance may live on in other connections, and close."""
        if self._attached is not None:
            with suppress(duckdb.Error):  # what went wrong before is what people should know
                self.rows(f"DETACH {quote(self._attached)}")
            self._attached = None
        self._connection.close()


class DuckdbWriter(Writer):
    """Inserts Arrow batches."""

    def __init__(self, file: Path, columns: Mapping[str, str]) -> None:
        self._session = DuckdbSession(file)
        self._session.rows(_FRUGAL)
        self._session.rows(
            f"CREATE TABLE {STAGED} ({', '.join(f'{quote(name)} {type_}' for name, type_ in columns.items())})"
        )
        self._session.rows("BEGIN")

    def write(self, rows: pl.DataFrame) -> None:
        """Write a batch."""
        self._session.insert(STAGED, rows)

    def finish(self) -> None:
        """Commit."""
        self._session.rows("COMMIT")
        self.abandon()

    def abandon(self) -> None:
        """Close the file."""
        self._session.close()


class Duckdb(Engine):
    """A DuckDB database."""

    title = DUCKDB.title
    json_type = "JSON"
    moment_type, truth_type = "TIMESTAMP WITH TIME ZONE", "BOOLEAN"

    @property
    def foreign(self) -> tuple[type[Exception], ...]:
        """The driver's errors."""
        return (duckdb.Error,)

    def explained(self, error: Exception) -> tuple[str, str]:
        """By the class of the error, and by its words where one class means many things."""
        first = str(error).split("\n", maxsplit=1)[0]
        text = redact(first.partition(" Error: ")[2] or first).rstrip(".!")
        for kind, word, what, advice in _KNOWN:
            if isinstance(error, kind) and word in text:
                return what, f"{text.partition(' See also ')[0].rstrip('.')}. {advice}"
        return "other", f"{text}. Nothing was published."

    def connect(self, file: Path | None, *, looks: bool = False) -> Session:
        """Connect; who only looks does so beside sources of this run, which read it read-only."""
        if not looks or file is None:
            return DuckdbSession(file)
        try:
            return DuckdbSession(file, read_only=True)
        except duckdb.ConnectionException:  # somebody in this process has it open to write: then we are let in, too
            return DuckdbSession(file)

    def staging(self, file: Path) -> Session:
        """Nobody else has it open: how much memory it takes is for us to say."""
        session = DuckdbSession(file)
        session.rows(_FRUGAL)
        return session

    # --- the catalogue ---

    def describe(self, session: Session, parts: tuple[str, ...]) -> Table:
        """Look the table up."""
        schema, name = parts if len(parts) > 1 else ("main", parts[0])
        here = "database_name = current_database() AND "
        schemas = session.rows(
            f"SELECT schema_name FROM duckdb_schemas() WHERE {here} lower(schema_name) = lower(?)", (schema,)
        )
        if not schemas:
            raise self.side.error("missing", f"there is no schema {schema!r}. Create it, or name another one.")
        key, named = (schemas[0][0], name), f"{here} schema_name = ? AND lower(table_name) = lower(?)"
        views = session.rows(f"SELECT 1 FROM duckdb_views() WHERE {named.replace('table_', 'view_')}", key)
        tables = session.rows(f"SELECT table_name FROM duckdb_tables() WHERE {named}", key)
        if not tables:
            return Table(name, quote(schema, name), exists=bool(views), is_view=bool(views))
        key = (key[0], tables[0][0])
        constraints = session.rows(
            "SELECT constraint_type, constraint_column_names FROM duckdb_constraints() "
            f"WHERE {named} AND constraint_type IN ('PRIMARY KEY', 'UNIQUE')",
            key,
        )
        columns = session.rows(
            "SELECT column_name, data_type, is_nullable, column_default, is_generated FROM duckdb_columns() "
            f"WHERE {named} ORDER BY column_index",
            key,
        )
        return Table(
            key[1],
            quote(*key),
            exists=True,
            columns=tuple(
                Column(column, type_, not nullable, nullable or default is not None, generated)
                for column, type_, nullable, default, generated in columns
            ),
            primary_key=next((tuple(names) for kind, names in constraints if kind == "PRIMARY KEY"), ()),
            unique_keys=tuple(frozenset(names) for _kind, names in constraints),
            referenced=bool(
                session.rows(
                    f"SELECT 1 FROM duckdb_constraints() WHERE {named.replace('table_name', 'referenced_table')}", key
                )
            ),
            intercepts=bool(session.rows(f"SELECT 1 FROM duckdb_triggers() WHERE {named}", key)),
        )

    def system(self, table: str) -> str:
        """``lockgate.loads``."""
        return quote("lockgate", table)

    def has(self, session: Session, table: str) -> bool:
        """Whether a system table is there."""
        query = "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'lockgate' "
        return bool(session.rows(f"{query} AND table_name = ?", (table,)))

    def has_column(self, session: Session, table: str, column: str) -> bool:
        """Whether a system table has a column."""
        query = "SELECT 1 FROM duckdb_columns() WHERE database_name = current_database() AND schema_name = 'lockgate' "
        return bool(session.rows(f"{query} AND table_name = ? AND column_name = ?", (table, column)))

    def creating_system(self) -> list[str]:
        """The schema."""
        return ["CREATE SCHEMA IF NOT EXISTS lockgate"]

    # --- types ---

    def created(self, dtype: pl.DataType) -> str:
        """The type that holds exactly what the dtype holds; parts of a second below microseconds only in some."""
        return _duckdb_types.created(dtype)

    def fit(self, dtype: pl.DataType, declared: str) -> Fit:
        """Through the twin of the type, where it has one; as a text that the database parses, where it has none."""
        return _duckdb_types.fit(dtype, declared)

    def grown(self, declared: str, dtype: pl.DataType) -> str | None:
        """Within its kind."""
        return _duckdb_types.grown(declared, dtype)

    def writer(self, file: Path, columns: dict[str, str]) -> Writer:
        """A writer of Arrow batches."""
        return DuckdbWriter(file, columns)

    def differs(self, old: str, new: str, declared: str) -> str:
        """Zeros have a sign, too; and a collation does not make 'a' of 'A'."""
        collation = ' COLLATE "C"' if declared == "VARCHAR" else ""
        plain = f"{old}{collation} IS DISTINCT FROM {new}"
        if declared in {"FLOAT", "DOUBLE"}:
            return f"({plain} OR signbit({old}) IS DISTINCT FROM signbit({new}))"
        return plain

    def literal(self, value: object, declared: str) -> str:
        """Read as the column's own type."""
        text = str(value).replace("'", "''")
        return f"CAST('{text}' AS {declared})"

    def moment(self, at: datetime) -> str:
        """With its offset."""
        return f"TIMESTAMPTZ '{at.isoformat(sep=' ')}'"

    def moment_of(self, value: str, dtype: pl.DataType) -> str | None:
        """Dates and naive timestamps are in UTC."""
        if not isinstance(dtype, pl.Datetime | pl.Date):
            return None
        is_zoned = isinstance(dtype, pl.Datetime) and dtype.time_zone
        return value if is_zoned else f"(CAST({value} AS TIMESTAMP) AT TIME ZONE 'UTC')"

    def only_where(self, condition: str) -> str | None:  # noqa: ARG002 - as every engine has it
        """Indexes of some rows only do not exist."""
        return None


_AGAIN = "Run again when they are done."
#: Class, words in the message, what happened, and what to do next; the first that fits.
_KNOWN: tuple[tuple[type[Exception], str, str, str], ...] = (
    (duckdb.IOException, "Could not set lock", "busy", f"Another process has the file open. {_AGAIN}"),
    (duckdb.Error, "different configuration", "busy", f"This process has it open in another way. {_AGAIN}"),
    (duckdb.Error, "Unique file handle conflict", "busy", f"This process has it open in another way. {_AGAIN}"),
    (duckdb.Error, "onflict", "busy", f"Somebody else is writing to it. {_AGAIN}"),
    (
        duckdb.IOException,
        "not a valid DuckDB",
        "other",
        "Name a database that DuckDB made, or a file that is not there.",
    ),
    (duckdb.Error, "ermission denied", "permission", "Let the user of this process write the file and its folder."),
    (duckdb.Error, "read-only", "permission", "Let the user of this process write the file and its folder."),
    (duckdb.IOException, "No space left", "resources", "Free some space, then run again."),
    (duckdb.OutOfMemoryException, "", "resources", "Free some memory or disk space, then run again."),
    (duckdb.IOException, "Cannot open file", "missing", "Check the path."),
    (
        duckdb.ConstraintException,
        "",
        "constraint",
        "Nothing was published. Fix the rows, or state the rule in quality_rules so that they go to quarantine.",
    ),
    (duckdb.ConversionException, "", "type", "Nothing was published."),
    (duckdb.OutOfRangeException, "", "type", "Nothing was published."),
)
