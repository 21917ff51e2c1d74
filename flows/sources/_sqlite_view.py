"""A SQLite file at the edge of a source: opened to be read, in one transaction, and its errors in our words."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote as percent

import adbc_driver_manager

from flows._secrets import redact
from flows.sources._files_of_databases import FileSide

_BUSY_SECONDS = 5
_LOOK = "SELECT count(*) FROM sqlite_schema"  # what a transaction sees, it sees from its first look on


class SqliteSide(FileSide):
    """An end of a run that is a SQLite database."""

    @contextmanager
    def mapped(self) -> Iterator[None]:
        """Turn the driver's errors into ours, once; a reader's arrive as errors of the system."""
        try:
            yield
        except (adbc_driver_manager.Error, sqlite3.Error, OSError) as error:
            first = str(error).partition("\n")[0]
            text = redact(first.rpartition("[SQLite] ")[2].removeprefix("Failed to prepare query: "))
            told = next((known for known in _KNOWN if known[0] in text), None)
            what, advice = told[1:] if told else ("query", "Check the query.")
            raise self.error(what, f"{text.rstrip('.')}. {advice}") from error


#: What SQLite says, what that is, and what to do next.
_KNOWN = (
    ("is locked", "busy", "Another program is writing the database. Run again when it is done."),
    ("file is not a database", "missing", "Name a SQLite database; an encrypted one cannot be read."),
    ("no such table", "missing", "Check the name."),
    ("no such column", "missing", "Check the name."),
    (
        "readonly database",
        "busy",
        "Its last writer was killed: open it once with a program that may write, then run again.",
    ),
    ("unable to open", "permission", "A database in WAL mode needs a folder that this user may write, too."),
    ("malformed", "type", "Check the file with PRAGMA integrity_check."),
)


class SqliteView:
    """One connection in one transaction, which all reads of a run share: nothing changes in it.

    The driver brings a SQLite of its own, and locks of a file do not part two of them in one process. So Python's,
    which a target uses, holds the view too: as long as it does, a target of this process waits like any other.
    """

    def __init__(self, file: Path, side: SqliteSide) -> None:
        self._file = file
        self._side = side
        self._connection: Any = None
        self._keeper: sqlite3.Connection | None = None
        self._readers = 0
        self._is_released = False
        self._lock = threading.Lock()

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        """A cursor of the connection; the transaction begins with the first one."""
        with self._lock:
            if self._connection is None:
                self._connection = self._opened()
            connection = self._connection
            self._readers += 1
            self._is_released = False
        try:
            with closing(connection.cursor()) as cursor:
                yield cursor
        finally:
            with self._lock:
                self._readers -= 1
                self._close_unused()

    def _opened(self) -> Any:
        from adbc_driver_sqlite import dbapi  # noqa: PLC0415 - only those who read need it

        # Never made where it is not there, never written.
        address = f"file:{percent(str(self._file.resolve()))}?mode=ro"
        with self._side.mapped(), ExitStack() as failed:
            keeper = sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False)
            failed.enter_context(closing(keeper))
            keeper.execute("BEGIN")
            keeper.execute(_LOOK)
            connection = failed.enter_context(closing(dbapi.connect(address, autocommit=True)))
            with closing(connection.cursor()) as cursor:
                for statement in (f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1_000}", "BEGIN", _LOOK):
                    cursor.execute(statement)
                    cursor.fetchall()
            failed.pop_all()
        self._keeper = keeper
        return connection

    def release(self) -> None:
        """Let go of the view; a reader that was left alone ends first."""
        with self._lock:
            self._is_released = True
            self._close_unused()

    def _close_unused(self) -> None:
        if self._is_released and self._readers == 0 and self._connection is not None:
            with suppress(adbc_driver_manager.Error):
                self._connection.close()
            self._connection = None
            if self._keeper is not None:
                self._keeper.close()
            self._keeper = None
