"""DuckDB as a source: a file opened read-only, which nobody can write meanwhile, read as Arrow.

The rows come by the package's own Arrow reader and not by its ADBC entry: that would open the file a second
time in this process, unseen by the connections of a target, and takes twice as long.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

from flows._dialects import DUCKDB
from flows._names import split_name
from flows._secrets import redact
from flows.sources import _snapshots
from flows.sources._base import Extract
from flows.sources._files_of_databases import FileSide
from flows.sources._scan import Scan, gathered, origin_of, require_distinct
from flows.sources._splits import Key
from transforms._words import did_you_mean

if TYPE_CHECKING:
    from flows.sources.database import Database

_ROWS = 10_000  # of the driver's batches, which are gathered by their bytes
#: A session of ours; without the first, a table that is missing would be looked for among our variables.
_SETTLED = "SET python_enable_replacements = false; SET TimeZone = 'UTC'"
_MICROSECONDS = ("epoch_us(min({0}))", "epoch_us(max({0}))", "make_timestamp({0})")
_ZONED = (*_MICROSECONDS[:2], "to_timestamp({0} / 1000000)")
_SINCE = "date_diff('day', DATE '1970-01-01', {0})"
_DAYS = (_SINCE.format("min({0})"), _SINCE.format("max({0})"), "(DATE '1970-01-01' + {0})")
_WHOLE = ("CAST(min({0}) AS HUGEINT)", "CAST(max({0}) AS HUGEINT)", "{0}")
_KEYS = dict.fromkeys(
    ("tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint"), _WHOLE
) | {
    "date": _DAYS,
    "timestamp": _MICROSECONDS, "timestamp with time zone": _ZONED,
}  # fmt: skip


def opened(options: Database, name: str) -> Extract:
    """Learn the schema, and promise the rows.

    Raises:
        ExtractError: the package is missing, or the file, table, column or query cannot be read.
    """
    side = DuckdbSide("source", f"source {name!r}", str(options.connection_string))
    side.require_driver(DUCKDB)
    if options.dtypes:
        raise side.error("type", "DuckDB knows its types. Remove 'dtypes', and cast in a query or a 'map' step.")
    file = side.file(options.connection_string.reveal())
    query = origin_of(options, side, DUCKDB, _literal)
    view = _snapshots.of(f"duckdb {file.resolve()}", lambda: DuckdbView(file, side))
    scan = DuckdbScan(options=options, name=name, side=side, dialect=DUCKDB, query=query, view=view, file=file)
    with scan.held() as held:
        held.learn()
        scan.columns, scan.kinds = held.columns, held.kinds
    return scan.extract()


def _literal(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    return DUCKDB.literal(value)


class DuckdbSide(FileSide):
    """An end of a run that is a DuckDB database."""

    @contextmanager
    def mapped(self) -> Iterator[None]:
        """Turn the driver's errors into ours, once; a reader's arrive as errors of the system."""
        import duckdb  # noqa: PLC0415 - the duckdb extra is optional

        try:
            yield
        except (duckdb.Error, OSError) as error:
            kind, _, text = str(error).partition("\n")[0].partition(" Error: ")
            first = redact((text or kind).partition(" See also ")[0].rstrip(".!"))
            what, advice = next(
                (known[2:] for known in _KNOWN if known[0] in kind and known[1] in first), ("query", "Check the query.")
            )
            raise self.error(what, f"{first}. {advice}") from error


#: The kind of an error and words in it, what that is, and what to do next.
_KNOWN = (
    ("IO", "lock on file", "busy", "Another program has the database open to write. Run again when it is done."),
    ("Connection", "different configuration", "busy", "This very run has it open to write: publish to another file."),
    ("IO", "not a valid DuckDB", "missing", "Name a DuckDB database of a version that this one reads."),
    ("IO", "Permission denied", "permission", "Grant it, or use another user."),
    ("Permission", "", "permission", "The database is opened read-only."),
    ("Invalid Input", "read-only", "permission", "The database is opened read-only."),
    ("Catalog", "does not exist", "missing", "Check the name, and the schema it is in."),
    ("Binder", "not found", "missing", "Check the name."),
    ("Conversion", "", "type", "Cast it in a query."),
    ("Out of Range", "", "type", "Cast it in a query."),
    ("Out of Memory", "", "resources", "Free some memory, or let the query keep less of it."),
)


class DuckdbView:
    """The database held open read-only: as long as it is, nobody can write it."""

    def __init__(self, file: Path, side: DuckdbSide) -> None:
        self._file = file
        self._side = side
        self._keeper: Any = None
        self._lock = threading.Lock()

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        """A connection of its own to the database that is held."""
        import duckdb  # noqa: PLC0415 - the duckdb extra is optional

        with self._lock, self._side.mapped():
            if self._keeper is None:
                self._keeper = duckdb.connect(str(self._file), read_only=True)
            connection = self._keeper.cursor()
        with closing(connection):
            connection.execute(_SETTLED)
            yield connection

    def release(self) -> None:
        """Let go of the file; readers that are left keep it until they end."""
        with self._lock:
            if self._keeper is not None:
                self._keeper.close()
                self._keeper = None


@dataclass(kw_only=True)
class DuckdbScan(Scan):
    """One opened table or query of DuckDB.

    Attributes:
        kinds: the words that DuckDB has for the types of the columns.
    """

    side: DuckdbSide
    view: DuckdbView | None = None
    file: Path
    kinds: dict[str, str] | None = None

    hidden_keys: ClassVar[str] = "; or, of a table, 'rowid'"

    def new_view(self) -> DuckdbView:
        """The file held open for one read."""
        return DuckdbView(self.file, self.side)

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        """A connection to the view."""
        assert self.view is not None  # noqa: S101 - a scan that is `held` has one
        with self.side.mapped(), self.view.cursor() as cursor:
            yield cursor

    def first(self, sql: str) -> tuple[Any, ...]:
        """The first row of a statement, of the view."""
        with self.cursor() as cursor:
            return tuple(cursor.execute(sql).fetchone() or ())

    def learn(self) -> None:
        """Find out what each column is.

        Raises:
            ExtractError: the table or query cannot be read.
        """
        from flows.sources._duckdb_types import column  # noqa: PLC0415 - the duckdb extra is optional

        with self.cursor() as cursor:
            self._require_table(cursor)
            relation = cursor.sql(self.query)
            if relation is None:
                raise self.side.error("query", "the query gives no rows. Write a SELECT.")
            types = dict(zip(relation.columns, relation.types, strict=True))
            require_distinct(relation.columns, self.side)
            is_binary = self._is_binary(cursor)
        self.columns = {name: column(name, type_, is_binary=is_binary) for name, type_ in types.items()}
        self.kinds = {name: type_.id for name, type_ in types.items()}

    def _is_binary(self, cursor: Any) -> bool:
        """Whether no text here has a collation: a type does not tell."""
        texts = [self.query, *(row[0] or "" for row in cursor.execute(_DEFINITIONS).fetchall())]
        default = cursor.execute("SELECT current_setting('default_collation')").fetchone()[0]
        return not default and not any("collat" in text.lower() for text in texts)

    def _require_table(self, cursor: Any) -> None:
        if self.options.table is None:
            return
        name = split_name(self.options.table.table)[-1]
        tables = [row[0] for row in cursor.execute(_TABLES).fetchall()]
        if name.casefold() not in {table.casefold() for table in tables}:
            raise self.side.error("missing", f"no table {name!r}.{did_you_mean(name, tables, word='Present')}")

    def key(self, column: str) -> Key:
        """Whole numbers, dates and timestamps; or the place in the table, ``rowid``."""
        name = DUCKDB.quote(column)
        if column == "rowid" and self.options.table is not None and column not in self.columns:
            table = DUCKDB.quote(*split_name(self.options.table.table))
            return Key("rowid", f"SELECT min(rowid), max(rowid) FROM {table}", has_nulls=False, is_hidden=True)
        forms = _KEYS.get((self.kinds or {}).get(column, ""))
        if forms is None:
            raise self.unsplittable(column)
        low, high, literal = forms
        finite = "" if forms is _WHOLE else f" WHERE isfinite({name})"
        return Key(name, f"SELECT {low}, {high} FROM ({self.query}) AS q{finite}".replace("{0}", name), literal.format)

    def rows(self, sql: str, names: tuple[str, ...]) -> Iterator[pl.DataFrame]:
        """Read through a connection of its own to the view."""
        from flows.sources._duckdb_types import beyond  # noqa: PLC0415 - the duckdb extra is optional

        with self.held() as held, held.cursor() as cursor:
            reader = cursor.sql(sql).to_arrow_reader(_ROWS)
            with closing(reader):
                for table in gathered(reader, self.options.batch_bytes):
                    frame = pl.from_arrow(table)
                    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table is a frame
                    for name in names:
                        if table.column(name).null_count != frame[name].null_count():
                            raise self.side.error("type", _next_day(name))
                        if beyond(frame[name]):
                            raise self.side.error("type", _infinite(name))
                    if not frame.is_empty():
                        yield frame.select(names)


_TABLES = "SELECT table_name FROM duckdb_tables() UNION ALL SELECT view_name FROM duckdb_views()"
_DEFINITIONS = "SELECT sql FROM duckdb_tables() UNION ALL SELECT sql FROM duckdb_views() WHERE NOT internal"


def _next_day(name: str) -> str:
    advice = f"Read it with a query: nullif({DUCKDB.quote(name)}, '24:00:00')."
    return f"column {name!r} holds '24:00:00', which is the next day's. {advice}"


def _infinite(name: str) -> str:
    advice = f"Read it with a query: CASE WHEN isfinite({DUCKDB.quote(name)}) THEN {DUCKDB.quote(name)} END."
    return f"column {name!r} holds 'infinity' or a year after 262142, which no calculation would survive. {advice}"
