"""PostgreSQL as a source: its columns by the catalogue, its rows over ADBC, its snapshot.

Rows come as a binary COPY that the driver turns into Arrow; what the driver cannot carry exactly is
decoded here, or refused by name.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl
import psycopg

from flows._dialects import POSTGRES
from flows._names import split_name
from flows._postgres import (
    SETTLED,
    Connection,
    Foreign,
    PostgresSide,
    columns_of,
    connect,
    execute,
    quote,
    text_equality_is_exact,
    uri,
)
from flows._postgres import Column as Described
from flows._postgres import literal as quoted
from flows._reading import MORE_DECIMALS, reading
from flows._secrets import Secret
from flows._types import FIRST_DAY, FIRST_MICROSECOND, PgType
from flows.sources import _snapshots
from flows.sources._base import Bound, Context, Extract
from flows.sources._horizon import Horizon
from flows.sources._pushdown import Compared
from flows.sources._scan import Column, Scan, origin_of, require_distinct
from flows.sources._splits import Key

if TYPE_CHECKING:
    from flows.sources.database import Database

_ORDERED = {"int2", "int4", "int8", "float8", "numeric", "date", "timestamp", "timestamptz"}
_TEXTS = {"text", "varchar"}  # not char(n): its comparison ignores padding
_VIEW = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
#: The least and the greatest key as whole numbers, and a whole number as a key, by type.
_WHOLE = ("min({0})", "max({0})", "{0}")
_DAYS = ("min({0}) - DATE '1970-01-01'", "max({0}) - DATE '1970-01-01'", "(DATE '1970-01-01' + {0})")
_MICROSECONDS = (
    "(extract(epoch FROM min({0})) * 1000000)::int8",
    "(extract(epoch FROM max({0})) * 1000000)::int8",
    "(TIMESTAMP 'epoch' + {0} * INTERVAL '1 microsecond')",
)
_KEYS = {
    "int2": _WHOLE, "int4": _WHOLE, "int8": _WHOLE, "date": _DAYS, "timestamp": _MICROSECONDS,
    "timestamptz": (*_MICROSECONDS[:2], _MICROSECONDS[2].replace("TIMESTAMP '", "TIMESTAMPTZ '")),
}  # fmt: skip


def opened(options: Database, name: str, context: Context) -> Extract:
    """Learn the schema from the catalogue, and promise the rows; first of all, fix where a window of them ends.

    Raises:
        ExtractError: the server, table, column or query cannot be read.
    """
    side = PostgresSide("source", f"source {name!r}", str(options.connection_string))
    if options.dtypes:
        raise side.error("type", "PostgreSQL knows its types. Remove 'dtypes', and cast in a query or a 'map' step.")
    query = origin_of(options, side, POSTGRES, _literal)
    view = _snapshots.of(options.connection_string.reveal(), lambda: Snapshot(options.connection_string, side))
    connection = connect(options.connection_string, application=f"lockgate {name}", side=side)
    bound: Bound | None = None
    told: tuple[str, ...] = ()
    with closing(connection), side.mapped():
        if context.cursor is not None:
            if view is not None:
                view.release()  # one that an earlier attempt took is older than the end of this window
            table = options.table.table if options.table else None
            waits = not context.sample
            bound, told = Horizon(connection, side, context.cursor, query, table, waits).bound()
        with connection.transaction():
            if view is not None:
                execute(connection, _VIEW)
                execute(connection, view.taking)
            described = columns_of(connection, query)
            require_distinct([column.name for column in described], side)
            described = [_with_scale(connection, query, column) for column in described]
            exact_text = text_equality_is_exact(connection)
    columns = {column.name: _column(column, exact_text=exact_text) for column in described}
    types = {column.name: column.pg for column in described}
    scan = PostgresScan(
        options=options, name=name, side=side, dialect=POSTGRES, query=query, view=view, columns=columns, types=types
    )
    return replace(scan.extract(), bound=bound, warnings=(*scan.extract().warnings, *told))


class Snapshot:
    """A transaction that keeps a view of one database open, and exports it to others."""

    def __init__(self, connection_string: Secret, side: PostgresSide) -> None:
        self._connection_string = connection_string
        self._side = side
        self._keeper: Connection | None = None
        self._identifier = ""
        self._lock = threading.Lock()

    @property
    def taking(self) -> str:
        """The statement that makes a transaction see the view; a new one, where the old was released or lost."""
        with self._lock:
            self._opened()
            return f"SET TRANSACTION SNAPSHOT '{self._identifier}'"

    def first(self, sql: str) -> tuple[Any, ...]:
        """The first row of a statement; the tables in it keep their rows in place until `release`."""
        with self._lock, self._side.mapped():
            row = execute(self._opened(), sql).fetchone()
        return tuple(row or ())

    def _opened(self) -> Connection:
        if self._keeper is None or self._keeper.closed or self._keeper.broken:
            self._keeper = connect(self._connection_string, application="lockgate snapshot", side=self._side)
            with self._side.mapped():
                execute(self._keeper, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                row = execute(self._keeper, "SELECT pg_export_snapshot()").fetchone()
                self._identifier = row[0] if row else ""
        return self._keeper

    def release(self) -> None:
        """Let go of the view, so that the server may clean up behind it."""
        with self._lock, suppress(*Foreign):
            if self._keeper is not None:
                self._keeper.close()
                self._keeper = None


@dataclass(kw_only=True)
class PostgresScan(Scan):
    """One opened table or query of PostgreSQL."""

    side: PostgresSide
    view: Snapshot | None = None
    types: Mapping[str, PgType]

    concurrency: ClassVar[int] = 4
    hidden_keys: ClassVar[str] = "; or, of a table, 'ctid'"

    def new_view(self) -> Snapshot:
        """A snapshot of its own."""
        return Snapshot(self.options.connection_string, self.side)

    def first(self, sql: str) -> tuple[Any, ...]:
        """The first row of a statement, of the view."""
        assert self.view is not None  # noqa: S101 - a scan that is `held` has one
        return self.view.first(sql)

    def key(self, column: str) -> Key:
        """Whole numbers, dates and timestamps; or the place in the table, ``ctid``."""
        name = quote(column)
        if column == "ctid" and self.options.table is not None and column not in self.columns:
            table = quoted(quote(*split_name(self.options.table.table))).strip()
            pages = f"pg_relation_size({table}::regclass) / current_setting('block_size')::int8"
            # The rows of a table that is rewritten would be found twice, or not at all: the look at it locks it.
            extremes = f"SELECT 0, {pages} FROM (SELECT count(*) FROM ({self.query} LIMIT 1) AS q) AS locked"
            return Key("ctid", extremes, "'({},0)'::tid".format, has_nulls=False, is_hidden=True)
        kind = self.types.get(column)
        forms = _KEYS.get(kind.name) if kind is not None and not kind.is_array else None
        if forms is None:
            raise self.unsplittable(column)
        low, high, literal = forms
        finite = "" if forms is _WHOLE else f" WHERE isfinite({name})"
        extremes = f"SELECT {low}, {high} FROM ({self.query}) AS q{finite}".replace("{0}", name)
        return Key(name, extremes, literal.format)

    def rows(self, sql: str, names: tuple[str, ...]) -> Iterator[pl.DataFrame]:
        """Stream a binary COPY."""
        from adbc_driver_postgresql import StatementOptions, dbapi  # noqa: PLC0415 - only those who read need it

        decode = [how.decode(pl.col(name)) for name in names if (how := self.columns[name]).decode]
        guards = _guards({name: self.columns[name].dtype for name in names})
        with ExitStack() as opened:  # closes reader, cursor, connection in that order, or ADBC hides an error's cause
            opened.enter_context(self.side.mapped())
            connection = opened.enter_context(closing(dbapi.connect(uri(self.options.connection_string))))
            cursor = opened.enter_context(closing(connection.cursor()))
            batch_bytes = {StatementOptions.BATCH_SIZE_HINT_BYTES.value: str(self.options.batch_bytes)}
            cursor.adbc_statement.set_options(**batch_bytes)
            if self.view is not None:
                cursor.execute(_VIEW)
                cursor.execute(self.view.taking)
            cursor.execute(SETTLED)
            cursor.fetchall()
            cursor.execute(sql)
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
                raise self.side.error("type", _infinite(name, self.columns[name].dtype))
        for name in names:
            if self.columns[name].dtype == pl.Time() and batch.column(name).null_count != frame[name].null_count():
                advice = f"Read it with a query: nullif({quote(name)}, '24:00')."
                raise self.side.error("type", f"column {name!r} holds '24:00', which is the next day's. {advice}")
        return decoded.select(names)

    def _undecodable(self, frame: pl.DataFrame) -> str:
        """Which text of a batch is no number that a Decimal holds."""
        for name in frame.columns:
            dtype = self.columns[name].dtype
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


def _column(column: Described, *, exact_text: bool) -> Column:
    how = reading(column.pg)
    name = quote(column.name)
    select = how.select.format(name, quoted(repr(column.name)))
    compared = _compared(name, column.pg, exact_text=exact_text)
    if how.warning and not column.pg.is_array:
        compared = Compared(f"{name}::text")  # a row of which a part is null is neither null nor not null
    return Column(select, how.dtype, compared, how.decode, how.warning)


def _compared(name: str, pg: PgType, *, exact_text: bool) -> Compared:
    if pg.name in _ORDERED and not pg.is_array:
        return Compared(name, "ordered", _written)
    if pg.name == "bool" and not pg.is_array:
        return Compared(name, "condition", _written)
    if pg.name in _TEXTS and not pg.is_array:  # collations order texts in their own ways
        return Compared(name, "equal" if exact_text else "null", _written)
    return Compared(name)


def _written(value: object) -> str:
    return quoted(value).strip()


def _literal(value: object) -> str:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("holds a zero byte, which PostgreSQL cannot keep. Remove it.")
    try:
        return quoted(value)
    except psycopg.Error as error:
        kind = type(value).__name__
        raise ValueError(f"is a {kind}, which is no SQL value. Write a text, a number, a date or a list.") from error


def _with_scale(connection: Connection, query: str, column: Described) -> Described:
    """Give an unconstrained numeric the scale of the values that are there."""
    pg = column.pg
    if pg.name != "numeric" or pg.is_array or pg.precision is not None:
        return column
    name = quote(column.name)
    row = execute(connection, f"SELECT coalesce(max(scale({name})), 0) FROM ({query}) AS q").fetchone()
    return Described(column.name, PgType(pg.name, pg.text, False, None, min(int(row[0]) if row else 0, 38)))


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
