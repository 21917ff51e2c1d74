"""SQLite as a source, over ADBC: any value may be in any column, so every value is held against its type.

The driver takes the types of a column from the rows that come first, and reads a later number as a text or
stops at it. So the first row is one of ours, that says the types, and is dropped; behind it SQL puts every
value of another kind aside, where we find it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import polars as pl

from flows._dialects import SQLITE
from flows._names import split_name
from flows.sources import _snapshots
from flows.sources._base import Extract
from flows.sources._scan import Column, Scan, gathered, origin_of, require_columns
from flows.sources._splits import Key
from flows.sources._sqlite_types import Stored, compared, declared, found, moment, natural, overridden
from flows.sources._sqlite_view import SqliteSide, SqliteView
from flows.sources._texts import typed
from transforms._types import dtype_named, shown
from transforms._words import did_you_mean

if TYPE_CHECKING:
    from flows.sources.database import Database

_BATCH_ROWS = "adbc.sqlite.query.batch_rows"
_ROWS = "512"  # of the driver's batches, which are gathered by their bytes
_NAMED_TWICE = re.compile(r"(.+):\d+", re.DOTALL)
_SHOWN = 60
_KINDS = ("integer", "real", "text", "blob")


def opened(options: Database, name: str) -> Extract:
    """Learn the declared types, and promise the rows.

    Raises:
        ExtractError: the file, table, column or query cannot be read.
    """
    side = SqliteSide("source", f"source {name!r}", str(options.connection_string))
    file = side.file(options.connection_string.reveal())
    query = origin_of(options, side, SQLITE, SQLITE.literal)
    view = _snapshots.of(f"sqlite {file.resolve()}", lambda: SqliteView(file, side))
    scan = SqliteScan(options=options, name=name, side=side, dialect=SQLITE, query=query, view=view, file=file)
    with scan.held() as held:
        held.learn()
        scan.columns, scan.stored, scan.warnings = held.columns, held.stored, held.warnings
    return scan.extract()


@dataclass(kw_only=True)
class SqliteScan(Scan):
    """One opened table or query of SQLite.

    Attributes:
        stored: how each column is stored and asked for.
    """

    side: SqliteSide
    view: SqliteView | None = None
    file: Path
    stored: dict[str, Stored] = field(default_factory=dict)

    hidden_keys: ClassVar[str] = "; or, of a table, 'rowid'"

    def new_view(self) -> SqliteView:
        """A connection of its own."""
        return SqliteView(self.file, self.side)

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        assert self.view is not None  # noqa: S101 - a scan that is `held` has one
        with self.side.mapped(), self.view.cursor() as cursor:
            yield cursor

    def first(self, sql: str) -> tuple[Any, ...]:
        """The first row of a statement, of the view."""
        found = self._all(sql)
        return found[0] if found else ()

    def _all(self, sql: str) -> list[tuple[Any, ...]]:
        with self._cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    # --- the columns ---

    def learn(self) -> None:
        """Find out what each column is, and how it is taken.

        Raises:
            ExtractError: the table or query cannot be read, or `dtypes` names a column that is not there.
        """
        self._require_table()
        with self._cursor() as cursor:
            cursor.execute(f"SELECT * FROM ({self.query}) AS q LIMIT 0")
            names = list(cursor._results.reader.schema.names)  # noqa: SLF001 - no other way says them without a row
        self._require_distinct(names)
        require_columns(list(self.options.dtypes), names, self.side)
        wishes = self._wishes()
        is_utf8 = self.first("PRAGMA encoding") == ("UTF-8",)
        wanted = {name: dtype_named(kind) for name, kind in self.options.dtypes.items()}
        untold = [name for name in names if name not in wanted and declared(wishes.get(name, "")) is None]
        told = self._told_by_values(untold)
        columns = {}
        for name in names:
            if name in wanted:
                self.stored[name] = overridden(wanted[name])
            else:
                dtype = told[name] if name in told else declared(wishes[name])
                self.stored[name] = natural(dtype) if dtype is not None else overridden(pl.String())
            warning = "holds values of several kinds and is read as text" if name in told and not told[name] else None
            quoted = SQLITE.quote(name)
            use = compared(quoted, self.stored[name], wishes.get(name, ""), is_utf8=is_utf8)
            columns[name] = Column(quoted, self.stored[name].dtype, use, warning=warning)

        self.columns = columns

    def _require_table(self) -> None:
        if self.options.table is None:
            return
        *schema, table = split_name(self.options.table.table)
        if schema and schema != ["main"]:
            raise self.side.error("missing", f"SQLite has no schema {schema[0]!r}. Write 'table: {table}'.")
        tables = [name for (name,) in self._all("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")]
        folded = {name.casefold() for name in tables} | {"sqlite_schema", "sqlite_master"}
        if table.casefold() not in folded:
            raise self.side.error("missing", f"no table {table!r}.{did_you_mean(table, tables, word='Present')}")

    def _require_distinct(self, names: list[str]) -> None:
        if self.options.table is not None:
            return
        for name in names:
            if (twice := _NAMED_TWICE.fullmatch(name)) and twice[1] in names:
                advice = "Give one of them another name with AS."
                raise self.side.error("query", f"two columns of the query are called {twice[1]!r}. {advice}")

    def _wishes(self) -> dict[str, str]:
        """The declared types of the columns; a view knows them of any query."""
        if self.options.table is not None:
            table = SQLITE.literal(split_name(self.options.table.table)[-1])
            return dict(self._all(f"SELECT name, type FROM pragma_table_xinfo({table})"))
        view = f"lockgate_{uuid4().hex}"
        self._all(f"CREATE TEMP VIEW {view} AS {self.query}")
        wishes = dict(self._all(f"SELECT name, type FROM pragma_table_xinfo('{view}')"))
        self._all(f"DROP VIEW temp.{view}")
        # Of a column without a type, a view says BLOB.
        return {name: "" if wish == "BLOB" else wish for name, wish in wishes.items()}

    def _told_by_values(self, names: list[str]) -> dict[str, pl.DataType | None]:
        """What columns are of which nobody says it: one look at all of their values."""
        if not names:
            return {}
        looks = ", ".join(
            f"coalesce(max(typeof({SQLITE.quote(name)}) = '{kind}'), 0)" for name in names for kind in _KINDS
        )
        seen = iter(self.first(f"SELECT {looks} FROM ({self.query}) AS q"))
        return {name: found(kind for kind in _KINDS if next(seen)) for name in names}

    def key(self, column: str) -> Key:
        """Whole numbers, dates and timestamps; or the place in the table, ``rowid``."""
        name = SQLITE.quote(column)
        if column == "rowid" and self.options.table is not None and column not in self.columns:
            table = SQLITE.quote(*split_name(self.options.table.table))
            return Key("rowid", f"SELECT min(rowid), max(rowid) FROM {table}", has_nulls=False, is_hidden=True)
        stored = self.stored.get(column)
        if stored is not None and stored == natural(pl.Int64()):
            return Key(name, f"SELECT min({name}), max({name}) FROM ({self.query}) AS q")
        if stored is not None and isinstance(stored.dtype, pl.Date | pl.Datetime) and stored == natural(stored.dtype):
            least, greatest = (f"CAST(strftime('%s', {end}({name})) AS INTEGER)" for end in ("min", "max"))
            return Key(f"{name} COLLATE BINARY", f"SELECT {least}, {greatest} FROM ({self.query}) AS q", moment)
        raise self.unsplittable(column)

    # --- the rows ---

    def rows(self, sql: str, names: tuple[str, ...]) -> Iterator[pl.DataFrame]:
        """Read through the one connection of the view."""
        decode = [how.decode(pl.col(name)) for name in names if (how := self.stored[name]).decode]
        dtypes = {name: self.stored[name].dtype for name in names}
        with self.held() as held, held._cursor() as cursor:  # noqa: SLF001 - it is one of us
            cursor.adbc_statement.set_options(**{_BATCH_ROWS: _ROWS})
            cursor.execute(self._guarded(sql, names))
            reader = cursor._results.reader  # noqa: SLF001 - fetch_record_batch() unwraps it
            with closing(reader):
                is_first = True
                for table in gathered(reader, self.options.batch_bytes):
                    frame = self._frame(table, names)
                    rows = frame.slice(1) if is_first else frame
                    is_first = False
                    if not rows.is_empty():
                        yield self._typed(rows, dtypes).with_columns(decode)

    def _guarded(self, sql: str, names: tuple[str, ...]) -> str:
        """The statement behind a row that says the types, with a column that says which value does not fit."""
        first = ", ".join(f"{self.stored[name].first} AS {SQLITE.quote(name)}" for name in names)
        taken, unfit = [], []
        for index, name in enumerate(names):
            column, how = SQLITE.quote(name), self.stored[name]
            fits = how.fits.format(column)
            taken.append(f"CASE WHEN {fits} THEN {how.take.format(column)} END")
            told = f"'{index} ' || typeof({column}) || ' ' || quote({column})"
            unfit.append(f"WHEN {column} IS NOT NULL AND NOT ({fits}) THEN {told}")
        return f"SELECT {first}, '' UNION ALL SELECT {', '.join(taken)}, CASE {' '.join(unfit)} END FROM ({sql}) AS q"

    def _frame(self, table: Any, names: tuple[str, ...]) -> pl.DataFrame:
        """The batch without the last column, of which every text is null or a value that does not fit."""
        try:
            table.validate(full=True)  # Polars would take texts that are not UTF-8 as they are
        except ValueError as error:
            raise self.side.error("type", self._not_utf8(table, names)) from error
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table is a frame
        *_columns, unfit = frame.iter_columns()
        for told in unfit.drop_nulls().head(2).to_list():
            if told:  # our own first row has an empty one
                raise self.side.error("type", self._unfit(told, names))
        return frame.select(frame.columns[:-1])

    def _not_utf8(self, table: Any, names: tuple[str, ...]) -> str:
        for name, column in zip(names, table.columns, strict=False):
            try:
                column.validate(full=True)
            except ValueError:
                return f"column {name!r} holds a text that is not UTF-8. Read it with a query: CAST(... AS BLOB)."
        return "a text is not UTF-8."

    def _unfit(self, told: str, names: tuple[str, ...]) -> str:
        index, kind, value = told.split(" ", 2)
        name = names[int(index)]
        wanted = shown(self.stored[name].dtype)
        value = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
        if name in self.options.dtypes:
            return (
                f"column {name!r} holds {value}, which is no {wanted}. Mend it, or read it as another type in 'dtypes'."
            )
        advice = f"Say what it is in 'dtypes', or cast it in a query: dtypes: {{{name}: text}}."
        return f"column {name!r} holds {value} ({kind}), and is {wanted}. {advice}"

    def _typed(self, frame: pl.DataFrame, dtypes: dict[str, pl.DataType]) -> pl.DataFrame:
        rows, unfits = typed(frame, dtypes)
        if unfits:
            unfit = unfits[0]
            told = f"column {unfit.column!r} holds {unfit.text!r}, which is no {shown(unfit.dtype)}"
            raise self.side.error("type", f"{told}. Mend it, or read it as another type in 'dtypes'.")
        return rows
