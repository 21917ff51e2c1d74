"""A table or query of any database, opened: its columns, the SQL for what a plan asks, and the rows.

What differs from one database to another is in `_scan_of_*`: how it is opened, what its types become, which
comparisons it answers as Polars does, and how a statement's rows arrive.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import polars as pl

from flows._dialects import Dialect
from flows._names import split_name
from flows._sides import Side
from flows.sources import _splits
from flows.sources._base import Extract, Pushdown
from flows.sources._parameters import Literal, bound
from flows.sources._pushdown import Compared, to_sql
from flows.sources._snapshots import View
from flows.sources._splits import Key
from transforms._errors import LockgateError
from transforms._types import shown
from transforms._words import did_you_mean

if TYPE_CHECKING:
    from flows.sources.database import Database


@dataclass(frozen=True)
class Column:
    """How one column of a table or query is read.

    Attributes:
        select: SQL for the column.
        dtype: what it is in Polars.
        decode: makes that of what the driver hands over; None where it is that already.
        compared: what of it may be compared in the database.
        warning: what a person should know; None when the type survives whole.
    """

    select: str
    dtype: pl.DataType
    compared: Compared
    decode: Callable[[pl.Expr], pl.Expr] | None = None
    warning: str | None = None


@dataclass(kw_only=True)
class Scan(ABC):
    """One opened source: SQL for a pushdown, and the rows it gives.

    Attributes:
        query: the SELECT that the rows come from, as a person would write it.
        view: what a run's statements share, so that all of them see the same rows; None outside a run.
        columns: how each column is read, in their order.
        warnings: what a person should know about all of it.
        ranges: the conditions of its ranges, once they are cut.
    """

    options: Database
    name: str
    side: Side
    dialect: Dialect
    query: str
    view: View | None = None
    columns: Mapping[str, Column] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    ranges: list[str] = field(default_factory=list)
    cutting: threading.Lock = field(default_factory=threading.Lock)

    #: How many ranges are read at a time.
    concurrency: ClassVar[int] = 1
    #: What else a table can be split on, in words.
    hidden_keys: ClassVar[str] = ""

    @abstractmethod
    def rows(self, sql: str, names: tuple[str, ...]) -> Iterator[pl.DataFrame]:
        """Run one statement, and give its rows in batches of about ``batch_bytes``.

        Args:
            sql: selects `names`.
            names: columns of `columns`, in the order wanted.
        """

    @abstractmethod
    def key(self, column: str) -> Key:
        """How rows can be parted by a column.

        Raises:
            ExtractError: they cannot.
        """

    @abstractmethod
    def first(self, sql: str) -> tuple[Any, ...]:
        """The first row of a statement."""

    @abstractmethod
    def new_view(self) -> View:
        """A view for statements outside a run."""

    @contextmanager
    def held(self) -> Iterator[Self]:
        """Give a scan all of whose statements see the same rows."""
        if self.view is not None:
            yield self
            return
        view = self.new_view()
        try:
            yield replace(self, view=view, ranges=[])
        finally:
            view.release()

    def extract(self) -> Extract:
        """What a pipeline is promised of it.

        Raises:
            ExtractError: it has no such column to deliver, or to be split at.
        """
        delivers = self.options.declared
        require_columns(delivers or (), list(self.columns), self.side)
        if self.options.split_on is not None:
            self.key(self.options.split_on)
        told = tuple(f"{self.name}.{name} {how.warning}" for name, how in self.columns.items() if how.warning)
        schema = pl.Schema({name: how.dtype for name, how in self.columns.items()})
        return Extract(self.name, schema, self.read, self.sql, self.pushed, delivers, (*self.warnings, *told))

    def pushed(self, pushdown: Pushdown) -> str | None:
        """The SQL of the predicate's part that the database applies."""
        if pushdown.predicate is None:
            return None
        return to_sql(pushdown.predicate, {name: how.compared for name, how in self.columns.items()})

    def sql(self, pushdown: Pushdown, query: str | None = None) -> str:
        """The one statement that reads what `pushdown` asks for."""
        quote = self.dialect.quote
        selected = ", ".join(f"{self.columns[name].select} AS {quote(name)}" for name in self.asked(pushdown))
        origin = f"({query or self.query}) AS q"
        condition = self.pushed(pushdown)
        if pushdown.limit is not None:  # it counts before the predicate
            if not self.dialect.limits:
                return f"SELECT {selected} FROM {origin}"
            limit = f" LIMIT {pushdown.limit}"
            if condition is None:
                return f"SELECT {selected} FROM {origin}{limit}"
            origin = f"(SELECT * FROM {origin}{limit}) AS q"
        return f"SELECT {selected} FROM {origin}{f' WHERE {condition}' if condition else ''}"

    def asked(self, pushdown: Pushdown) -> tuple[str, ...]:
        """The columns to select: some, because SQL knows no table without columns."""
        names = tuple(self.columns) if pushdown.columns is None else pushdown.columns
        return names or tuple(self.columns)[:1]

    def read(self, pushdown: Pushdown) -> Iterator[pl.DataFrame]:
        """Stream the rows; range by range, where there are ranges."""
        names = self.asked(pushdown)
        if self.options.split_on is not None:
            batches = self._ranged(pushdown, names)
        else:
            batches = self.rows(self.sql(pushdown), names)
        left = pushdown.limit
        with closing(batches):  # type: ignore[type-var]  # a generator, as everything that yields
            for batch in batches:
                kept = batch if left is None or self.dialect.limits else batch.head(left)
                yield kept if pushdown.columns is None else kept.select(pushdown.columns)
                if left is not None and not self.dialect.limits and (left := left - kept.height) <= 0:
                    return

    def unsplittable(self, column: str) -> LockgateError:
        """What to say of a column that rows are not parted by."""
        require_columns([column], list(self.columns), self.side)
        kind = shown(self.columns[column].dtype)
        advice = f"Name a column of whole numbers, dates or timestamps{self.hidden_keys}."
        return self.side.error("type", f"split_on {column!r} is {kind}, which has no even parts. {advice}")

    def _ranged(self, pushdown: Pushdown, names: tuple[str, ...]) -> Iterator[pl.DataFrame]:
        with self.held() as scan:
            queries = scan.queries()
            if pushdown.limit is not None:
                yield from scan.first_rows(queries, pushdown, names)
                return
            statements = [scan.sql(pushdown, query) for query in queries]
            readers = [partial(scan.rows, statement, names) for statement in statements]
            yield from _splits.in_order(readers, scan.concurrency)

    def queries(self) -> list[str]:
        """A query for each range; cut once, so that rows come in the same order again."""
        assert self.options.split_on is not None  # noqa: S101 - asked only where it is given
        key = self.key(self.options.split_on)
        with self.cutting:
            if not self.ranges:
                self.ranges = _splits.conditions(key, self.first(key.extremes), self.options.splits)
        if key.is_hidden:
            return [f"{self.query} WHERE {condition}" for condition in self.ranges]
        return [f"SELECT * FROM ({self.query}) AS q WHERE {condition}" for condition in self.ranges]

    def first_rows(self, queries: Sequence[str], pushdown: Pushdown, names: tuple[str, ...]) -> Iterator[pl.DataFrame]:
        """The first rows over all ranges; the predicate is left to the plan, or nobody could count to the limit."""
        left = pushdown.limit or 0
        for query in queries:
            if left <= 0:
                return
            with closing(self.rows(self.sql(Pushdown(names, None, left), query), names)) as batches:  # type: ignore[type-var]  # a generator
                for batch in batches:
                    yield batch
                    left -= batch.height


def origin_of(options: Database, side: Side, dialect: Dialect, literal: Literal) -> str:
    """The SELECT that the options name: of a table, or their query with its parameters.

    Raises:
        ExtractError: the name or the query cannot be read.
    """
    if options.query is not None:
        return bound(options.query, options.parameters, side, dialect, literal)
    assert options.table is not None  # noqa: S101 - the model has one or the other
    try:
        return f"SELECT * FROM {dialect.quote(*split_name(options.table.table))}"
    except ValueError as error:
        raise side.error("missing", str(error)) from error


def require_columns(wanted: Sequence[str], present: Sequence[str], side: Side) -> None:
    """Confirm that every wanted column is there.

    Raises:
        ExtractError: one is not; with did-you-mean.
    """
    for name in wanted:
        if name not in present:
            raise side.error("missing", f"no column {name!r}.{did_you_mean(name, present, word='Present')}")


def require_distinct(names: Sequence[str], side: Side) -> None:
    """Confirm that no two columns have one name.

    Raises:
        ExtractError: two have.
    """
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise side.error(
            "query", f"two columns of the query are called {twice!r}. Give one of them another name with AS."
        )


def gathered(batches: Iterable[Any], batch_bytes: int) -> Iterator[Any]:
    """Arrow tables of about `batch_bytes`, of the smaller batches that a driver gives."""
    import pyarrow as pa  # noqa: PLC0415 - only those who read need it

    waiting: list[Any] = []
    size = 0
    for batch in batches:
        waiting.append(batch)
        size += batch.nbytes
        if size >= batch_bytes:
            yield pa.Table.from_batches(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)
