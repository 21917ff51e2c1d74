"""A table or query of PostgreSQL, opened: its columns, the SQL for what a plan asks, and the rows.

Rows come over ADBC, which streams a binary COPY into Arrow; what the driver cannot carry exactly is
decoded here, or refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import polars as pl

from flows._names import split_name
from flows._postgres import (
    SETTLED,
    Column,
    Connection,
    PostgresSide,
    columns_of,
    connect,
    execute,
    literal,
    quote,
    require_columns,
    text_equality_is_exact,
    uri,
)
from flows._reading import MORE_DECIMALS, Reading, reading
from flows._types import FIRST_DAY, FIRST_MICROSECOND, PgType
from flows.sources import _snapshots
from flows.sources._base import Extract, Pushdown
from flows.sources._parameters import bound
from flows.sources._pushdown import to_sql

if TYPE_CHECKING:
    from flows.sources.database import Database


def opened(options: Database, name: str) -> Extract:
    """Learn the schema from the catalogue, and promise the rows.

    Raises:
        ExtractError: the server, table, column or query cannot be read.
    """
    side = PostgresSide("source", f"source {name!r}", str(options.connection_string))
    query = _query(options, side)
    snapshot = _snapshots.of(options.connection_string, side)
    connection = connect(options.connection_string, application=f"lockgate {name}", side=side)
    with closing(connection), side.mapped(), connection.transaction():
        if snapshot is not None:
            execute(connection, _snapshots.VIEW)
            execute(connection, _snapshots.taking(snapshot.identifier))
        columns = columns_of(connection, query)
        _require_distinct(columns, side)
        columns = [_with_scale(connection, query, column) for column in columns]
        exact_text = text_equality_is_exact(connection)
    return Scan(options, name, side, query, columns, exact_text=exact_text, snapshot=snapshot).extract()


def _query(options: Database, side: PostgresSide) -> str:
    if options.query is not None:
        return bound(options.query, options.parameters, side)
    assert options.table is not None  # noqa: S101 - the model has one or the other
    try:
        return f"SELECT * FROM {quote(*split_name(options.table.table))}"
    except ValueError as error:
        raise side.error("missing", str(error)) from error


class Scan:
    """One opened source: SQL for a pushdown, and the rows it gives."""

    def __init__(
        self,
        options: Database,
        name: str,
        side: PostgresSide,
        query: str,
        columns: list[Column],
        *,
        exact_text: bool,
        snapshot: _snapshots.Snapshot | None,
    ) -> None:
        self.options = options
        self.name = name
        self.query = query
        self.types: Mapping[str, PgType] = {column.name: column.pg for column in columns}
        self.readings: Mapping[str, Reading] = {column.name: reading(column.pg) for column in columns}
        self.exact_text = exact_text
        self.snapshot = snapshot
        self.side = side

    def extract(self) -> Extract:
        schema = pl.Schema({name: how.dtype for name, how in self.readings.items()})
        delivers = self.options.declared
        require_columns(list(delivers or ()), list(schema), self.side)
        warnings = tuple(f"{self.name}.{name} {how.warning}" for name, how in self.readings.items() if how.warning)
        return Extract(self.name, schema, self.read, self.sql, self.pushed, delivers, warnings)

    def pushed(self, pushdown: Pushdown) -> str | None:
        """The SQL of the predicate's part that the server applies."""
        if pushdown.predicate is None:
            return None
        return to_sql(pushdown.predicate, self.types, exact_text=self.exact_text)

    def sql(self, pushdown: Pushdown) -> str:
        """The one statement that reads what `pushdown` asks for."""
        names = pushdown.columns if pushdown.columns is not None else tuple(self.readings)
        selected = ", ".join(
            f"{self.readings[name].select.format(quote(name), literal(repr(name)))} AS {quote(name)}" for name in names
        )
        condition = self.pushed(pushdown)
        where = f" WHERE {condition}" if condition else ""
        origin = f"({self.query}) AS q"
        if pushdown.limit is not None:
            limit = f" LIMIT {pushdown.limit}"
            if not where:
                return f"SELECT {selected} FROM {origin}{limit}"
            origin = f"(SELECT * FROM {origin}{limit}) AS q"  # a limit counts before the predicate
        return f"SELECT {selected} FROM {origin}{where}"

    def read(self, pushdown: Pushdown) -> Iterator[pl.DataFrame]:
        """Stream the rows in batches of about ``batch_bytes``."""
        from adbc_driver_postgresql import StatementOptions, dbapi  # noqa: PLC0415 - only those who read need it

        names = pushdown.columns if pushdown.columns is not None else tuple(self.readings)
        decode = [how.decode(pl.col(name)) for name in names if (how := self.readings[name]).decode]
        guards = _guards({name: self.readings[name].dtype for name in names})
        with ExitStack() as opened:  # closes reader, cursor, connection in that order, or ADBC hides an error's cause
            opened.enter_context(self.side.mapped())
            connection = opened.enter_context(closing(dbapi.connect(uri(self.options.connection_string))))
            cursor = opened.enter_context(closing(connection.cursor()))
            batch_bytes = {StatementOptions.BATCH_SIZE_HINT_BYTES.value: str(self.options.batch_bytes)}
            cursor.adbc_statement.set_options(**batch_bytes)
            if self.snapshot is not None:
                cursor.execute(_snapshots.VIEW)
                cursor.execute(_snapshots.taking(self.snapshot.identifier))
            cursor.execute(SETTLED)
            cursor.fetchall()
            cursor.execute(self.sql(pushdown))
            reader = cursor._results.reader  # noqa: SLF001 - fetch_record_batch() unwraps it, and loses SQLSTATEs
            for batch in opened.enter_context(closing(reader)):
                yield self._decoded(batch, names, decode, guards)

    def _decoded(
        self, batch: Any, names: tuple[str, ...], decode: list[pl.Expr], guards: list[pl.Expr]
    ) -> pl.DataFrame:
        frame = pl.from_arrow(batch, rechunk=False)
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a record batch is a frame
        try:
            decoded = frame.with_columns(decode) if decode else frame
        except pl.exceptions.PolarsError as error:
            raise self.side.error("type", self._undecodable(frame)) from error
        for name, found in decoded.select(guards).row(0, named=True).items() if guards else ():
            if found:
                raise self.side.error("type", _infinite(name, self.readings[name].dtype))
        for name in names:
            if self.readings[name].dtype == pl.Time() and batch.column(name).null_count != frame[name].null_count():
                advice = f"Read it with a query: nullif({quote(name)}, '24:00')."
                raise self.side.error("type", f"column {name!r} holds '24:00', which is the next day's. {advice}")
        return decoded.select(names)

    def _undecodable(self, frame: pl.DataFrame) -> str:
        """Which text of a batch is no number that a Decimal holds."""
        for name in frame.columns:
            dtype = self.readings[name].dtype
            if not isinstance(dtype, pl.Decimal):
                continue
            column = frame.get_column(name)
            unfit = column.filter(column.cast(dtype, strict=False).is_null() & column.is_not_null())
            if unfit.len() and (text := str(unfit[0])).startswith(MORE_DECIMALS):
                number = text.removeprefix(MORE_DECIMALS)
                return f"column {name!r}: {number} was not there when the run began, and has more decimals. Run again."
            if unfit.len():
                return f"column {name!r}: {unfit[0]!r} has no exact Decimal (38 digits, no NaN). Cast it in a query."
        return "a number has no exact Decimal. Cast it in a query."


def _require_distinct(columns: list[Column], side: PostgresSide) -> None:
    names = [column.name for column in columns]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise side.error(
            "query", f"two columns of the query are called {twice!r}. Give one of them another name with AS."
        )


def _with_scale(connection: Connection, query: str, column: Column) -> Column:
    """Give an unconstrained numeric the scale of the values that are there."""
    pg = column.pg
    if pg.name != "numeric" or pg.is_array or pg.precision is not None:
        return column
    name = quote(column.name)
    row = execute(connection, f"SELECT coalesce(max(scale({name})), 0) FROM ({query}) AS q").fetchone()
    return Column(column.name, PgType(pg.name, pg.text, False, None, min(int(row[0]) if row else 0, 38)))


def _guards(schema: Mapping[str, pl.DataType]) -> list[pl.Expr]:
    """For each column of dates or timestamps, whether it holds a value that only PostgreSQL has."""
    first = {pl.Date: FIRST_DAY, pl.Datetime: FIRST_MICROSECOND}
    guards = []
    for name, dtype in schema.items():
        item = dtype.inner if isinstance(dtype, pl.List) else dtype
        earliest = first.get(item.base_type())
        if earliest is None:
            continue
        if isinstance(dtype, pl.List):
            early = pl.element().to_physical() < earliest
            guards.append(pl.col(name).list.eval(early).list.any().any())
        else:
            guards.append((pl.col(name).to_physical() < earliest).any())
    return guards


def _infinite(name: str, dtype: pl.DataType) -> str:
    remove = "array_remove" if isinstance(dtype, pl.List) else "nullif"
    return (
        f"column {name!r} holds 'infinity' or a year after 294246, which no calculation would survive. "
        f"Read it with a query: {remove}({quote(name)}, 'infinity')."
    )
