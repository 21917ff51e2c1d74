"""Rows of a database's table or query, streamed as Arrow.

Only the columns, rows and number of rows that the plan needs are asked for. All sources of a run that read
one database see the same view of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from flows._dialects import DUCKDB, POSTGRES, SQLITE, Dialect, dialect_of
from flows._errors import SourceUnreachableError
from flows._secrets import Secret
from flows.sources._base import OUTSIDE, Context, Extract, Source, source
from flows.sources._texts import require_readable
from transforms._types import dtype_named


class Table(BaseModel):
    """Which table to read, and which of its columns the pipeline delivers.

    Attributes:
        table: its name, with its schema where needed: ``sales.orders``.
        columns: what is delivered; all of them when left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    columns: tuple[str, ...] | None = None


def _known_type(name: str) -> str:
    require_readable(dtype_named(name))
    return name


@source
class Database(Source):
    """A table (``schema: {table, columns}``) or a ``query`` with ``parameters`` of a database.

    ``columns`` are the columns that the pipeline *delivers*; a step may use any other column of the
    table: it is read, used, and dropped. Values of ``parameters`` stand for ``:name`` or ``$1`` in the
    query and are quoted, never pasted. Filters, limits and the choice of columns are left to the database
    where it answers as the steps would. All sources of a run see one view of a database, however often
    they read it.

    - **PostgreSQL**: ``postgresql://user:password@host:port/database``, or ``embedded://NAME``.
    - **SQLite**: ``sqlite:///relative.db``, ``sqlite:////absolute.db``; opened read-only. A column is what its
      declared type says: integers, REAL, TEXT, BLOB, BOOLEAN (0 and 1), DATE, TIME and DATETIME texts in
      ISO 8601, DECIMAL(p, s) exactly. SQLite keeps any value in any column: one that does not fit stops the
      run. A column without a declared type is what all its values are. ``dtypes`` says otherwise, with the
      names that ``map`` knows: ``{code: text, at: timestamptz}``. Others can write the database meanwhile if
      it is in WAL mode; if not, they wait for the run to have read.
    - **DuckDB**: ``duckdb:///file.db`` (``pip install 'lockgate[duckdb]'``), opened read-only: nobody can write
      it while a run reads it. HUGEINT is Decimal(38, 0) and MAP a list of keys and values.
    - **Any other** scheme is read by its ADBC driver, ``snowflake://`` by adbc_driver_snowflake, which gets
      the URL as it stands. Steps filter, not the database, and every read has a view of its own.

    **Big tables** are read in ranges: ``split_on`` names a column of whole numbers, dates or timestamps, best
    with an index, or the hidden key of a table: ``ctid`` of PostgreSQL (14 or later), ``rowid`` of SQLite and
    DuckDB. ``splits`` is the number of ranges, of equal width. PostgreSQL reads up to four at a time, through
    connections of their own and from one snapshot; up to eight batches of each wait. Rows come range by
    range, nulls last, each time in the same order. It helps where the server has cores to spare; each range
    costs a connection, and without an index a scan of the whole table.

    Attributes:
        connection_string: where the database is; better a reference, ``${NAME}``.
        schema: the table; or else
        query: one SELECT statement.
        parameters: values by name, for the query.
        dtypes: types by column, for SQLite.
        split_on: the column, or hidden key, that ranges are of.
        splits: the number of ranges.
        batch_bytes: how much is read at a time.

    Out: one column per column of the table or query. numeric(p, s) is Decimal(p, s), exactly;
    timestamptz is in UTC; json, uuid and enums are texts; types without a Polars twin are read as text,
    with a warning. Rows come in the database's order.
    """

    type: Literal["database"] = "database"
    connection_string: Secret
    table: Annotated[Table | None, Field(alias="schema")] = None
    query: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    dtypes: dict[str, Annotated[str, AfterValidator(_known_type)]] = Field(default_factory=dict)
    split_on: str | None = None
    splits: Annotated[int, Field(ge=2, le=10_000)] = 16
    batch_bytes: Annotated[int, Field(ge=64_000, le=256_000_000)] = 4_000_000

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("give either 'schema' with a 'table', or a 'query'.")
        if self.parameters and self.query is None:
            raise ValueError("'parameters' belong to a 'query'.")
        if "splits" in self.model_fields_set and self.split_on is None:
            raise ValueError("'splits' needs 'split_on': the column that the ranges are of.")
        return self

    @property
    def declared(self) -> tuple[str, ...] | None:
        """``schema.columns``, where they are given."""
        return self.table.columns if self.table else None

    def scan(self, name: str, context: Context = OUTSIDE) -> Extract:
        """Learn the schema, and promise the rows.

        Raises:
            ExtractError: the database, table, column or query cannot be read.
        """
        try:
            dialect = dialect_of(self.connection_string.reveal())
        except ValueError as error:
            raise SourceUnreachableError(f"source {name!r}: {self.connection_string}: {error}") from error
        return _opener(dialect)(self, name, context)

    def check(self) -> None:
        """Reach the database and plan the query.

        Raises:
            ExtractError: it cannot be read.
        """
        self.scan("source")


def _opener(dialect: Dialect) -> Callable[[Database, str, Context], Extract]:
    """What opens a database of `dialect`; loads its driver, and no other."""
    if dialect is POSTGRES:
        from flows.sources import _scan_of_postgres  # noqa: PLC0415 - nobody loads a driver that is not used

        return _scan_of_postgres.opened
    if dialect is SQLITE:
        from flows.sources import _scan_of_sqlite  # noqa: PLC0415 - as above

        return lambda options, name, _context: _scan_of_sqlite.opened(options, name)
    if dialect is DUCKDB:
        from flows.sources import _scan_of_duckdb  # noqa: PLC0415 - as above

        return lambda options, name, _context: _scan_of_duckdb.opened(options, name)
    from flows.sources import _scan_of_adbc  # noqa: PLC0415 - as above

    return lambda options, name, _context: _scan_of_adbc.opened(options, name)
