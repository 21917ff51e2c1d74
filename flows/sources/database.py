"""Rows of a PostgreSQL table or query, streamed over ADBC.

Only the columns, rows and number of rows that the plan needs are asked for, in one statement. All
sources of a run that read one database see the same snapshot of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Annotated, Any, Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows._postgres import (
    Column,
    Connection,
    Side,
    columns_of,
    connect,
    execute,
    quote,
    require_columns,
    split_name,
    text_equality_is_exact,
    uri,
)
from flows._secrets import Secret
from flows._types import FIRST_DAY, FIRST_MICROSECOND, MORE_DECIMALS, PgType, Reading, reading
from flows.sources import _snapshots
from flows.sources._base import Extract, Pushdown, Source, source
from flows.sources._parameters import bound
from flows.sources._pushdown import to_sql


class Table(BaseModel):
    """Which table to read, and which of its columns the pipeline delivers.

    Attributes:
        table: its name, with its schema where needed: ``sales.orders``.
        columns: what is delivered; all of them when left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    columns: tuple[str, ...] | None = None


@source
class Database(Source):
    """A table (``schema: {table, columns}``) or a ``query`` with ``parameters`` of a PostgreSQL database.

    ``columns`` are the columns that the pipeline *delivers*; a step may use any other column of the
    table: it is read, used, and dropped. Values of ``parameters`` stand for ``:name`` or ``$1`` in the
    query and are quoted, never pasted.

    Attributes:
        connection_string: ``postgresql://user:password@host:port/database``, or ``embedded://NAME``.
        schema: the table; or else
        query: one SELECT statement.
        parameters: values by name, for the query.
        batch_bytes: how much is read at a time.

    Out: one column per column of the table or query. numeric(p, s) is Decimal(p, s), exactly;
    timestamptz is in UTC; json, uuid and enums are texts; types without a Polars twin are read as text,
    with a warning. Rows come in the server's order.
    """

    type: Literal["database"] = "database"
    connection_string: Secret
    table: Annotated[Table | None, Field(alias="schema")] = None
    query: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    batch_bytes: Annotated[int, Field(ge=64_000, le=256_000_000)] = 4_000_000

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("give either 'schema' with a 'table', or a 'query'.")
        if self.parameters and self.query is None:
            raise ValueError("'parameters' belong to a 'query'.")
        return self

    @property
    def declared(self) -> tuple[str, ...] | None:
        """``schema.columns``, where they are given."""
        return self.table.columns if self.table else None

    def scan(self, name: str) -> Extract:
        """Learn the schema from the catalogue, and promise the rows.

        Raises:
            ExtractError: the server, table, column or query cannot be read.
        """
        side = self._side(name)
        query = self._query(side)
        snapshot = _snapshots.of(self.connection_string, side)
        with closing(self._connect(name, side)) as connection, side.mapped(), connection.transaction():
            if snapshot is not None:
                execute(connection, _snapshots.VIEW)
                execute(connection, _snapshots.taking(snapshot.identifier))
            columns = columns_of(connection, query)
            _require_distinct(columns, side)
            columns = [_with_scale(connection, query, column) for column in columns]
            exact_text = text_equality_is_exact(connection)
        return _Scan(self, name, query, columns, exact_text=exact_text, snapshot=snapshot).extract()

    def check(self) -> None:
        """Reach the server and plan the query.

        Raises:
            ExtractError: it cannot be read.
        """
        self.scan("source")

    def _query(self, side: Side) -> str:
        if self.query is not None:
            return bound(self.query, self.parameters, side)
        assert self.table is not None  # noqa: S101 - the model has one or the other
        try:
            return f"SELECT * FROM {quote(*split_name(self.table.table))}"
        except ValueError as error:
            raise side.error("missing", str(error)) from error

    def _connect(self, name: str, side: Side) -> Connection:
        return connect(self.connection_string, application=f"lockgate {name}", side=side)

    def _side(self, name: str) -> Side:
        return Side("source", f"source {name!r}", str(self.connection_string))


class _Scan:
    """One opened source: SQL for a pushdown, and the rows it gives."""

    def __init__(
        self,
        options: Database,
        name: str,
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
        self.side = options._side(name)  # noqa: SLF001 - the two classes are one thing

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
        selected = ", ".join(f"{self.readings[name].select.format(quote(name))} AS {quote(name)}" for name in names)
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
        from adbc_driver_postgresql import StatementOptions, dbapi  # noqa: PLC0415 - 0.2 s that plans need not pay

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


def _require_distinct(columns: list[Column], side: Side) -> None:
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
