"""What a database that is one file must be able to do, for a target to keep its promises there.

`_sqlite` and `_duckdb` say what differs: how to connect, what their catalogues and types are like, and
what their errors mean. All the rest is one.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from flows._sides import Side
from flows.targets._fitting import Fit
from transforms._errors import LockgateError

_SECONDS_BETWEEN = 0.1
#: The name of the one table in a staging file.
STAGED = "staged"


@dataclass(frozen=True)
class Column:
    """A column of the target table.

    Attributes:
        type: as the catalogue spells it.
        fills_itself: whether a row may leave it out: it is nullable, or has a default.
        generated: whether nobody may write it.
        numbers_itself: whether a null in it becomes a number that the database makes up.
    """

    name: str
    type: str
    not_null: bool = False
    fills_itself: bool = True
    generated: bool = False
    numbers_itself: bool = False


@dataclass(frozen=True)
class Table:
    """A target table as it stands, or as it is not there yet.

    Attributes:
        quoted: its quoted name, with its schema where the database has such.
        referenced: whether foreign keys of other tables point at it.
        intercepts: whether triggers may keep a row from being written.
    """

    name: str
    quoted: str
    exists: bool = False
    columns: tuple[Column, ...] = ()
    primary_key: tuple[str, ...] = ()
    unique_keys: tuple[frozenset[str], ...] = ()
    referenced: bool = False
    is_view: bool = False
    intercepts: bool = False


class Session(ABC):
    """One connection to a file."""

    @abstractmethod
    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement; `parameters` stand for its question marks."""

    @abstractmethod
    def changed(self, statement: str) -> int:
        """Run one statement that inserts, updates or deletes; returns the number of rows."""

    @abstractmethod
    def frame(self, query: str, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
        """The rows of a query that has staging columns of these dtypes."""

    @abstractmethod
    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Insert rows of numbers and texts into `table` (quoted), by the names of their columns."""

    @abstractmethod
    def attach(self, file: Path, name: str) -> None:
        """Let the staging file be read under a name until the session is closed."""

    @abstractmethod
    def close(self) -> None:
        """Close it; safe to call twice."""

    #: The statement that begins a transaction which will write.
    begin = "BEGIN"

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is done inside."""
        self.rows(self.begin)
        try:
            yield
            self.rows("COMMIT")
        except BaseException:
            with suppress(Exception):  # an engine that gave up has rolled back by itself, and says so
                self.rows("ROLLBACK")
            raise


class Writer(ABC):
    """Fills the one table of a staging file."""

    @abstractmethod
    def write(self, rows: pl.DataFrame) -> None:
        """Write rows that are in the dtypes of the staging columns."""

    @abstractmethod
    def finish(self) -> None:
        """Keep what was written, and close the file."""

    @abstractmethod
    def abandon(self) -> None:
        """Close the file; safe to call twice, and after `finish`."""


class Engine(ABC):
    """A kind of database that is a file, at one path.

    Attributes:
        title: what people call the kind.
        has_schemas: whether tables live in schemas.
        insert, update: the words that begin such statements.
        indexes_staging: whether joins with the chamber need an index there.
        json_type, moment_type, truth_type: of columns that keep a JSON text, a moment, a truth.
    """

    title: str
    json_type: str
    moment_type: str
    truth_type: str
    insert = "INSERT INTO"
    update = "UPDATE"
    indexes_staging = False

    def __init__(self, path: Path, side: Side, patience_seconds: int) -> None:
        self.path = path
        self.side = side
        self.patience_seconds = patience_seconds

    def require_folder(self) -> None:
        """Confirm that the file's folder is there: one that is misspelt must not be made.

        Raises:
            TargetMissingError: it is not.
            TargetPermissionError: nobody may say so, or a file cannot be looked up in it.
        """
        folder = str(self.path.parent)
        try:
            is_there = self.path.parent.is_dir()
            self.path.exists()
        except PermissionError as error:
            raise self.side.error(
                "permission", f"{folder!r}: {error.strerror}. Grant it, or use another user."
            ) from error
        if not is_there:
            raise self.side.error("missing", f"there is no folder {folder!r}. Make it, or name another file.")

    def session(self, *, looks: bool = False) -> Session:
        """Connect to the target's file; waits for others who hold it.

        Args:
            looks: whether nothing will be written. A file that is missing is not made then: an empty database in
                memory stands in for it.

        Raises:
            LoadError: it cannot be opened, or others hold it for too long.
        """
        self.require_folder()
        deadline = time.monotonic() + self.patience_seconds
        while True:
            try:
                with self.mapped():
                    return self.connect(self.path if self.path.exists() or not looks else None, looks=looks)
            except LockgateError as error:
                if not error.retryable or time.monotonic() > deadline:
                    raise
                time.sleep(_SECONDS_BETWEEN)

    @contextmanager
    def mapped(self) -> Iterator[None]:
        """Turn the driver's errors into ours, once."""
        try:
            yield
        except self.foreign as error:
            what, said = self.explained(error)
            raise self.side.error(what, said) from error

    @property
    @abstractmethod
    def foreign(self) -> tuple[type[Exception], ...]:
        """The driver's errors."""

    @abstractmethod
    def explained(self, error: Exception) -> tuple[str, str]:
        """What kind of error it is, and what to say."""

    @abstractmethod
    def connect(self, file: Path | None, *, looks: bool = False) -> Session:
        """Open a file of the kind, which is made if it is missing; None is a database in memory.

        Args:
            file: its path.
            looks: whether nothing will be written.
        """

    def staging(self, file: Path) -> Session:
        """Open a staging file again."""
        return self.connect(file)

    @abstractmethod
    def describe(self, session: Session, parts: tuple[str, ...]) -> Table:
        """What the catalogue says about a table.

        Raises:
            LoadError: its schema is not there, or cannot be.
        """

    @abstractmethod
    def system(self, table: str) -> str:
        """The quoted name of a system table."""

    @abstractmethod
    def creating_system(self) -> list[str]:
        """Statements that make the system tables where they are missing."""

    @abstractmethod
    def has(self, session: Session, table: str) -> bool:
        """Whether a system table is there."""

    @abstractmethod
    def has_column(self, session: Session, table: str, column: str) -> bool:
        """Whether a system table has a column."""

    @abstractmethod
    def created(self, dtype: pl.DataType) -> str:
        """The SQL type of a column that a run creates.

        Raises:
            DoesNotFit: there is none.
        """

    @abstractmethod
    def fit(self, dtype: pl.DataType, declared: str) -> Fit:
        """How a column of `dtype` goes into one of type `declared`.

        Raises:
            DoesNotFit: it does not.
        """

    @abstractmethod
    def grown(self, declared: str, dtype: pl.DataType) -> str | None:
        """The type that a column becomes for every value of `dtype`; None where it need not or cannot."""

    @abstractmethod
    def writer(self, file: Path, columns: dict[str, str]) -> Writer:
        """Make a staging file with its one table."""

    @abstractmethod
    def differs(self, old: str, new: str, declared: str) -> str:
        """SQL for whether two values of a column are not the same, bit by bit."""

    @abstractmethod
    def literal(self, value: object, declared: str) -> str:
        """SQL for a value that a configuration has, as a column of type `declared` keeps it."""

    def orders(self, dtype: pl.DataType, declared: str) -> bool:  # noqa: ARG002 - most keep the order of every dtype
        """Whether the column keeps the order of the values."""
        return True

    @abstractmethod
    def moment(self, at: datetime) -> str:
        """SQL for a moment, as `moment_type` keeps it."""

    @abstractmethod
    def moment_of(self, value: str, dtype: pl.DataType) -> str | None:
        """SQL for the moment that a staged value of a date or timestamp is; None where `dtype` is no moment."""

    def keeps_moments(self, declared: str) -> bool:
        """Whether a column keeps moments as `moment` writes them."""
        return declared.upper() == self.moment_type

    def keeps_truths(self, declared: str) -> bool:
        """Whether a column keeps truths."""
        return declared.upper() == self.truth_type

    def only_where(self, condition: str) -> str | None:
        """What makes an index one of some rows only; None where there is no such."""
        return f" WHERE {condition}"


def quote(*parts: str) -> str:
    """Quote an identifier, dotted where there are several parts."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)
