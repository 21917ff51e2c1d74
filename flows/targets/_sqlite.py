"""SQLite at the edge of a target: connections, the catalogue and its errors.

Sources read it over the same ADBC driver. Python's own module is another copy of the library, and two
copies in one process do not see each other's locks: closing a file in one lets go of those of the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote as percent

import adbc_driver_manager
import polars as pl
import pyarrow as pa
from adbc_driver_sqlite import dbapi

from flows._dialects import SQLITE
from flows._secrets import redact
from flows.targets import _sqlite_types
from flows.targets._engines import STAGED, Column, Engine, Session, Table, Writer, quote
from flows.targets._fitting import Fit

_BATCH_ROWS = "adbc.sqlite.query.batch_rows"


def _arrow(rows: pl.DataFrame) -> pa.Table:
    return rows.to_arrow(compat_level=pl.CompatLevel.oldest())


class SqliteSession(Session):
    """A connection in autocommit mode."""

    begin = "BEGIN IMMEDIATE"

    def __init__(self, file: Path | None, patience_seconds: int) -> None:
        self._connection = dbapi.connect(":memory:" if file is None else f"file:{percent(str(file))}", autocommit=True)
        try:
            self.rows(f"PRAGMA busy_timeout = {patience_seconds * 1000}")
            self.rows("PRAGMA foreign_keys = ON")
            self.rows("SELECT count(*) FROM sqlite_schema")  # whether it is a database shows at its first use
        except BaseException:
            self.close()
            raise

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement."""
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(query, parameters or None)
            return cursor.fetchall()

    def changed(self, statement: str) -> int:
        """Run one statement; returns the rows that it changed itself, without those that triggers did."""
        self.rows(statement)
        return int(self.rows("SELECT changes()")[0][0])

    def frame(self, query: str, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
        """The rows of a query."""
        ((count,),) = self.rows(f"SELECT count(*) FROM ({query})")
        with closing(self._connection.cursor()) as cursor:
            # A column has the type of the values of the first batch: let there be one.
            cursor.adbc_statement.set_options(**{_BATCH_ROWS: str(max(count, 1))})
            cursor.execute(query)
            found = pl.DataFrame(cursor.fetch_arrow_table())
        return found.select(pl.col(name).cast(dtype) for name, dtype in schema.items())

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Insert rows."""
        with closing(self._connection.cursor()) as cursor:
            names = ", ".join(map(quote, rows.columns))
            cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * rows.width)})", _arrow(rows))

    def attach(self, file: Path, name: str) -> None:
        """Attach the file read-only: a transaction that writes one file only is atomic."""
        self.rows(f"ATTACH ? AS {quote(name)}", (f"file:{percent(str(file))}?mode=ro",))

    def close(self) -> None:
        """Close it."""
        self._connection.close()


class SqliteWriter(Writer):
    """Writes Arrow batches, in half of the time that Python's tuples take."""

    def __init__(self, file: Path, columns: Mapping[str, str]) -> None:
        self._connection = dbapi.connect(str(file), autocommit=True)
        self._cursor = self._connection.cursor()
        for pragma in ("journal_mode = OFF", "synchronous = OFF"):  # nobody reads it if we die
            self._execute(f"PRAGMA {pragma}")
        self._execute("BEGIN")
        self._execute(
            f"CREATE TABLE {STAGED} ({', '.join(f'{quote(name)} {type_}' for name, type_ in columns.items())})"
        )

    def _execute(self, statement: str) -> None:
        self._cursor.execute(statement)
        self._cursor.fetchall()

    def write(self, rows: pl.DataFrame) -> None:
        """Write a batch."""
        self._cursor.adbc_ingest(STAGED, _arrow(rows), mode="append")

    def finish(self) -> None:
        """Commit."""
        self._execute("COMMIT")
        self.abandon()

    def abandon(self) -> None:
        """Close the file."""
        self._cursor.close()
        self._connection.close()


class Sqlite(Engine):
    """A SQLite database."""

    title = SQLITE.title
    insert, update = "INSERT OR ABORT INTO", "UPDATE OR ABORT"  # whatever a constraint says about conflicts
    indexes_staging = True
    json_type = "TEXT"  # JSON would have the affinity of a number
    moment_type, truth_type = "TIMESTAMPTZ", "BOOLEAN"

    @property
    def foreign(self) -> tuple[type[Exception], ...]:
        """The driver's errors."""
        return (adbc_driver_manager.Error,)

    def explained(self, error: Exception) -> tuple[str, str]:
        """By SQLite's own words, which the driver puts its own before."""
        text = _PREFIX.sub("", str(error).split("\n", maxsplit=1)[0]).rstrip(".")
        what, advice = next((known for words, known in _KNOWN.items() if words in text), _OTHER)
        return what, f"{redact(text)}. {advice}"

    def connect(self, file: Path | None, *, looks: bool = False) -> Session:  # noqa: ARG002 - who looks is no trouble
        """Connect, and wait for writers as long as the target has patience."""
        return SqliteSession(file, self.patience_seconds)

    # --- the catalogue ---

    def describe(self, session: Session, parts: tuple[str, ...]) -> Table:
        """Look the table up."""
        *schemas, name = parts
        if schemas not in ([], ["main"]):
            raise self.side.error("missing", f"SQLite has no schemas. Write 'table_name: {name}'.")
        found = session.rows(
            "SELECT name, type, strict, wr FROM pragma_table_list WHERE schema = 'main' AND name = ? COLLATE NOCASE",
            (name,),
        )
        if not found:
            return Table(name, quote(name))
        name, kind, strict, no_rowid = found[0]
        columns = session.rows(
            'SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?)', (name,)
        )
        key = tuple(column for column, *_rest, pk, _hidden in sorted(columns, key=lambda c: c[4]) if pk)
        return Table(
            name,
            quote(name),
            exists=True,
            columns=tuple(
                Column(
                    column,
                    "" if strict and type_ == "ANY" else type_,
                    not_null=bool(not_null),
                    fills_itself=not not_null or default is not None,
                    generated=hidden > 0,
                    numbers_itself=key == (column,) and type_.upper() == "INTEGER" and not no_rowid,
                )
                for column, type_, not_null, default, _pk, hidden in columns
            ),
            primary_key=key,
            unique_keys=(*([frozenset(key)] if key else []), *_unique(session, name)),
            referenced=_some(
                session,
                "SELECT 1 FROM sqlite_schema AS m, pragma_foreign_key_list(m.name) AS f "
                "WHERE m.type = 'table' AND f.\"table\" = ? COLLATE NOCASE",
                name,
            ),
            is_view=kind == "view",
            intercepts=_some(
                session, "SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE", name
            ),
        )

    def system(self, table: str) -> str:
        """``lockgate_loads``: SQLite has no schemas."""
        return quote(f"lockgate_{table}")

    def has(self, session: Session, table: str) -> bool:
        """Whether a system table is there."""
        return _some(session, "SELECT 1 FROM sqlite_schema WHERE name = ?", f"lockgate_{table}")

    def has_column(self, session: Session, table: str, column: str) -> bool:
        """Whether a system table has a column."""
        query = "SELECT 1 FROM pragma_table_info(?) WHERE name = ?"
        return bool(session.rows(query, (f"lockgate_{table}", column)))

    def creating_system(self) -> list[str]:
        """Nothing comes before the tables."""
        return []

    # --- types ---

    def created(self, dtype: pl.DataType) -> str:
        """The declared type that tells our own source, and people, what the column holds."""
        return _sqlite_types.created(dtype)

    def fit(self, dtype: pl.DataType, declared: str) -> Fit:
        """Between the dtype and the affinity, in the form that the declared type asks for."""
        return _sqlite_types.fit(dtype, declared)

    def grown(self, declared: str, dtype: pl.DataType) -> str | None:  # noqa: ARG002 - as every engine has it
        """No column has to grow: whatever its type is called, it holds 64 bits and texts of any length."""
        return None

    def writer(self, file: Path, columns: dict[str, str]) -> Writer:
        """A writer over ADBC."""
        return SqliteWriter(file, columns)

    def differs(self, old: str, new: str, declared: str) -> str:  # noqa: ARG002 - as every engine has it
        """Not by the column's collation: 'a' and 'A' are not the same."""
        return f"{old} COLLATE BINARY IS NOT {new}"

    def literal(self, value: object, declared: str) -> str:
        """Moments in the form that the column has; numbers as they are."""
        if isinstance(value, int | float):
            return str(value)
        text, form = str(value), _sqlite_types.form_of(declared)
        if form in {"timestamp", "timestamptz"}:
            at = datetime.fromisoformat(text)
            text = self.moment(at if at.tzinfo else at.replace(tzinfo=UTC)).strip("'")
            text = text if form == "timestamptz" else text[: _sqlite_types.MOMENT_LENGTH]
        return "'" + text.replace("'", "''") + "'"

    def orders(self, dtype: pl.DataType, declared: str) -> bool:
        """Not of decimals, which are texts: '10' comes before '9'."""
        return not (isinstance(dtype, pl.Decimal) and _sqlite_types.keeps_texts(declared))

    def moment(self, at: datetime) -> str:
        """In UTC."""
        return f"'{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00:00'"

    def moment_of(self, value: str, dtype: pl.DataType) -> str | None:
        """By the length of the text: a date, a naive timestamp, or a moment."""
        if not isinstance(dtype, pl.Datetime | pl.Date):
            return None
        return (
            f"CASE length({value}) WHEN 10 THEN {value} || ' 00:00:00.000000+00:00' "
            f"WHEN {_sqlite_types.MOMENT_LENGTH} THEN {value} || '+00:00' ELSE {value} END"
        )

    def keeps_moments(self, declared: str) -> bool:
        """Also as texts."""
        form = _sqlite_types.form_of(declared)
        return form == "timestamptz" or (form is None and _sqlite_types.keeps_texts(declared))

    def keeps_truths(self, declared: str) -> bool:
        """Also as 0 and 1."""
        return _sqlite_types.form_of(declared) in {"boolean", None} and _sqlite_types.keeps_integers(declared)


def _some(session: Session, query: str, parameter: str) -> bool:
    return bool(session.rows(f"{query} LIMIT 1", (parameter,)))


def _unique(session: Session, table: str) -> list[frozenset[str]]:
    names = session.rows('SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial', (table,))
    keys = [session.rows("SELECT name FROM pragma_index_info(?)", name) for name in names]
    return [frozenset(name for (name,) in key) for key in keys if all(name is not None for (name,) in key)]


_BUSY = ("busy", "Somebody else is writing to it. Run again when they are done.")
_READ_ONLY = ("permission", "Let the user of this process write the file and its folder.")
_OTHER = ("other", "Nothing was published.")
_CONSTRAINT = (
    "constraint",
    "Nothing was published. Fix the rows, or state the rule in quality_rules so that they go to quarantine.",
)
#: What the driver says before SQLite's own words: ``IO: Failed to step query: ``.
_PREFIX = re.compile(r"^[A-Z_]+: (\[SQLite\] )?(Failed to [a-z ]+: )?")
#: Words of an error, and what it means; the driver has no codes.
_KNOWN: dict[str, tuple[str, str]] = {
    "is locked": _BUSY,
    "failed to open": ("permission", "Check that the path is a file, and that this process may read and write it."),
    "unable to open": ("permission", "Check that the path is a file, and that this process may read and write it."),
    "readonly database": _READ_ONLY,
    "access permission denied": _READ_ONLY,
    "file is not a database": ("other", "Name a database that SQLite made, or a file that is not there yet."),
    "is full": ("resources", "Free some space, then run again."),
    "cannot store": ("type", "Nothing was published."),
    "datatype mismatch": ("type", "Nothing was published."),
    "constraint failed": _CONSTRAINT,
}
