"""Any database with an ADBC driver: plain SQL, the types that the driver gives, and no view but each read's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

import adbc_driver_manager
import polars as pl

from flows._dialects import Dialect, dialect_of
from flows._secrets import redact
from flows._sides import Side
from flows.sources._base import Extract
from flows.sources._pushdown import Compared
from flows.sources._scan import Column, Scan, gathered, origin_of, require_distinct
from flows.sources._splits import Key

if TYPE_CHECKING:
    from flows.sources.database import Database


def opened(options: Database, name: str) -> Extract:
    """Learn the schema of a statement without rows, and promise the rows.

    Raises:
        ExtractError: there is no driver, or the database, table, column or query cannot be read.
    """
    side = AdbcSide("source", f"source {name!r}", str(options.connection_string))
    dialect = dialect_of(options.connection_string.reveal())
    side.require_driver(dialect)
    if options.split_on is not None:
        kinds = "PostgreSQL, SQLite and DuckDB"
        raise side.error("query", f"'split_on' needs one view for all ranges, which {kinds} give. Remove it.")
    if options.dtypes:
        raise side.error("type", "'dtypes' is for SQLite. Remove it, and cast in a query or a 'map' step.")
    query = origin_of(options, side, dialect, dialect.literal)
    told = f"{name}: every read of {dialect.title} has a view of its own; rows may change between two."
    scan = AdbcScan(options=options, name=name, side=side, dialect=dialect, query=query, warnings=(told,))
    scan.learn()
    return scan.extract()


class AdbcSide(Side):
    """An end of a run that some ADBC driver reaches."""

    def require_driver(self, dialect: Dialect) -> None:
        """Confirm that the driver is installed.

        Raises:
            ExtractError: it is not; the message says what to install.
        """
        if find_spec(dialect.driver) is None:
            raise self.error("driver", f"{self.address} needs an ADBC driver. Run: pip install {dialect.package}.")

    @contextmanager
    def mapped(self) -> Iterator[None]:
        """Turn the driver's errors into ours, once; a reader's arrive as errors of the system."""
        try:
            yield
        except (adbc_driver_manager.Error, OSError) as error:
            self._raise(error)

    def _raise(self, error: adbc_driver_manager.Error | OSError) -> NoReturn:
        code = adbc_driver_manager.AdbcStatusCode
        status = getattr(error, "status_code", None)
        known = {
            code.UNAUTHENTICATED: ("authentication", "Check the user and the password."),
            code.UNAUTHORIZED: ("permission", "Grant it, or use another user."),
            code.NOT_FOUND: ("missing", "Check the name."),
            code.TIMEOUT: ("unreachable", "Check the address and that the server is up; then run again."),
            code.IO: ("unreachable", "Check the address and that the server is up; then run again."),
        }
        what, advice = (
            known.get(status, ("query", "Check the query.")) if status is not None else ("lost", "Run again.")
        )
        text = redact(str(error).partition("\n")[0].rstrip("."))
        raise self.error(what, f"{text}. {advice}") from error


@dataclass(kw_only=True)
class AdbcScan(Scan):
    """One opened table or query of some database."""

    side: AdbcSide

    def new_view(self) -> NoReturn:
        """There is none."""
        raise NotImplementedError

    def first(self, sql: str) -> NoReturn:
        """Nothing is asked but rows."""
        raise NotImplementedError

    def key(self, column: str) -> Key:
        """There is none."""
        raise self.unsplittable(column)

    @contextmanager
    def _reader(self, sql: str) -> Iterator[Any]:
        dbapi = import_module(f"{self.dialect.driver}.dbapi")
        with ExitStack() as opened:
            opened.enter_context(self.side.mapped())
            address = self.options.connection_string.reveal()
            connection = opened.enter_context(closing(dbapi.connect(address)))
            cursor = opened.enter_context(closing(connection.cursor()))
            cursor.execute(sql)
            yield opened.enter_context(closing(cursor.fetch_record_batch()))

    def learn(self) -> None:
        """Find out what each column is.

        Raises:
            ExtractError: the table or query cannot be read, or a column has a type that Polars has not.
        """
        with self._reader(f"SELECT * FROM ({self.query}) AS q WHERE 1 = 0") as reader:
            schema = reader.schema
        require_distinct(schema.names, self.side)
        self.columns = {field.name: self._column(field) for field in schema}

    def _column(self, field: Any) -> Column:
        import pyarrow as pa  # noqa: PLC0415 - only those who read need it

        quoted = self.dialect.quote(field.name)
        try:
            frame = pl.from_arrow(pa.schema([field]).empty_table())
        except pl.exceptions.PolarsError as error:
            raise self.side.error("type", f"column {field.name!r} is {field.type}. Cast it in a query.") from error
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table is a frame
        return Column(quoted, frame.schema[field.name], Compared(quoted))

    def rows(self, sql: str, names: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Read through a connection of its own."""
        with self._reader(sql) as reader:
            for table in gathered(reader, self.options.batch_bytes):
                frame = pl.from_arrow(table)
                assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table is a frame
                for name in names:
                    if frame.schema[name] != self.columns[name].dtype:
                        found, wanted = frame.schema[name], self.columns[name].dtype
                        advice = "Cast it in a query."
                        raise self.side.error("type", f"column {name!r} is {found}, and was {wanted} before. {advice}")
                if not frame.is_empty():
                    yield frame.select(names)
