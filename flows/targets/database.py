"""A table of a database: PostgreSQL, SQLite or DuckDB."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import polars as pl
from pydantic import Field, field_validator, model_validator

from flows._dialects import POSTGRES, dialect_of
from flows._ledger import RunRecord
from flows._names import split_name
from flows._quarantine import Marks, Quarantine, Status
from flows._secrets import Secret
from flows._sides import Side
from flows.targets._base import Chamber, Target, target
from flows.targets._modes import Columns, ConcurrentRuns, DeleteRange, Scd2, WriteMode, refuse_stray
from flows.targets._schema_contract import Contracted, SchemaContract

if TYPE_CHECKING:
    from flows.targets._attached_table import AttachedTable
    from flows.targets._table import PostgresTable


@target
class Database(Target):
    """A table of a PostgreSQL, SQLite or DuckDB database, published whole in one transaction.

    The ``write_mode`` says what becomes of the rows that are there:

    - ``append`` adds the rows.
    - ``overwrite`` (or ``replace``) makes them the table's only rows, and keeps its grants, views, indexes and
      constraints.
    - ``upsert`` (or ``merge``) inserts new keys, updates rows that differ and leaves equal rows alone.
    - ``delete_insert`` replaces the rows that share a ``delete_key`` with the load, or lie in a ``delete_range``: a
      day, a customer, an order with its lines. Equal rows are written again.
    - ``scd2`` (or ``snapshot``) keeps history: a row that changed is closed (``valid_to``), and its new version begins
      at the same instant (``valid_from``). Rows that did not change stay as they are.

    ```yaml
    target:
      type: database
      connection_string: ${WAREHOUSE}
      table_name: sales.order_lines
      write_mode: delete_insert
      delete_key: [order_id]
    ```

    The table is made when it is missing, with ``primary_key`` as its key; for ``scd2`` with a unique index on the key
    of current versions. What ``schema_contract`` lets a load change, it changes in the publishing transaction;
    ``lockgate plan`` shows the statements. A column that is added is nullable. Types grow within their kind and to
    numbers that hold them exactly (``int4`` to ``int8`` or ``numeric``, ``varchar(20)`` to ``text``); readers wait
    from such a change until the transaction ends.

    Beside the data, in schema ``lockgate``, the ledger (``loads``) and the ``quarantine`` are kept. SQLite has no
    schemas: there they are tables, ``lockgate_loads`` and so on.

    ``sqlite:///file.db`` and ``duckdb:///file.db`` name a file by a path from the working directory,
    ``sqlite:////data/file.db`` from the root. It is made when it is missing, its folder is not. Rows are staged in a
    file of the run's workspace, so that the database stays free while they are read, and are published in one
    transaction. DuckDB opens a file for one process at a time: publishing waits up to ``lock_timeout_seconds`` for
    others to close it. Tables are always rewritten in place.

    SQLite has few types. What it lacks is declared in words and kept as text: ``DATE``, ``TIME``, ``TIMESTAMP`` and
    ``TIMESTAMPTZ`` in ISO 8601, in microseconds, moments in UTC; decimals as ``DECIMAL_TEXT(precision, scale)``,
    because SQLite makes binary floats of numbers in a column that is declared ``DECIMAL`` or ``NUMERIC``, of which
    only 15 digits are exact. Lists, structs, durations and NaN are refused.

    Attributes:
        connection_string: ``postgresql://user:password@host:port/database``, ``embedded://NAME``,
            ``sqlite:///file.db`` or ``duckdb:///file.db``.
        table_name: with its schema where needed: ``sales.orders``.
        write_mode: what becomes of the rows that are there.
        primary_key: the columns that ``upsert`` and ``scd2`` find a row by, and the key of a table that a run makes.
        delete_key: the columns whose values ``delete_insert`` looks for; ``primary_key``, unless given.
        delete_range: the range that ``delete_insert`` replaces, instead of a key.
        scd2: how ``scd2`` calls its columns, what it compares, and whether missing rows are closed.
        schema_contract: what a load may do to the columns of the table, and what happens to values that do not fit.
        allow_empty: whether a load without rows may empty the table, the range, or close every version.
        concurrent_runs: what a run does that finds another one at the table: `refuse` ends it with an error that is
            worth a retry, `wait` waits for ``lock_timeout_seconds``. The lock dies with the run that has it.
        lock_timeout_seconds: how long publishing waits for others who hold the table.
        writer: for PostgreSQL: ``copy`` is binary COPY; ``adbc`` the driver's own way, which takes longer.
    """

    type: Literal["database"] = "database"
    connection_string: Secret
    table_name: str
    write_mode: WriteMode = "append"
    primary_key: Columns = ()
    delete_key: Columns = ()
    delete_range: DeleteRange | None = None
    scd2: Scd2 | None = None
    schema_contract: Contracted = SchemaContract()
    allow_empty: bool = False
    concurrent_runs: ConcurrentRuns = "refuse"
    lock_timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    writer: Literal["copy", "adbc"] = "copy"

    @field_validator("table_name")
    @classmethod
    def _named(cls, value: str) -> str:
        split_name(value)
        return value

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        refuse_stray(
            self.write_mode,
            self.primary_key,
            delete_key=self.delete_key,
            delete_range=self.delete_range,
            scd2=self.scd2,
        )
        return self

    @property
    def patience_seconds(self) -> float:
        """How long a run waits for another one to end."""
        return self.lock_timeout_seconds if self.concurrent_runs == "wait" else 0

    @property
    def versions(self) -> Scd2 | None:
        """How versions are kept; None in every other mode."""
        return (self.scd2 or Scd2()) if self.write_mode == "scd2" else None

    @property
    def replaces_by(self) -> tuple[str, ...]:
        """The columns whose values say which rows ``delete_insert`` replaces; none where a range does."""
        return () if self.delete_range else self.delete_key or self.primary_key

    @property
    def table_parts(self) -> tuple[str, ...]:
        """The name's parts: schema, where given, and table."""
        return split_name(self.table_name)

    @property
    def label(self) -> str:
        """The table, as the configuration names it."""
        return self.table_name

    def open(self, record: RunRecord, schema: pl.Schema, folder: Path | None = None) -> Chamber:
        """Lock the table against other runs, and open a staging table: beside it, or in a file of `folder`."""
        return self._table.open(record, schema, folder)

    def plan(self, schema: pl.Schema) -> list[str]:
        """Say what publishing rows of `schema` would do."""
        return self._table.plan(schema)

    def check(self) -> None:
        """Reach the server and look the table up."""
        self._table.check()

    def record(self, record: RunRecord, quarantine: Quarantine | None) -> None:
        """Keep the record of a run that published nothing, in a transaction of its own."""
        self._table.record(record, quarantine)

    def state(self, pipeline: str) -> dict[str, Any]:
        """What the sources of `pipeline` had remembered."""
        return self._table.state(pipeline)

    def remember(self, pipeline: str, state: Mapping[str, Any]) -> None:
        """Let `state` be what the sources of `pipeline` had remembered."""
        self._table.remember(pipeline, state)

    def history(self, pipeline: str, limit: int) -> list[dict[str, Any]]:
        """The newest runs of `pipeline`, newest first."""
        return self._table.history(pipeline, limit)

    def kept(self, pipeline: str, run_id: str | None = None, status: Status | None = None) -> Iterator[pl.DataFrame]:
        """Quarantined rows, a frame at a time."""
        return self._table.kept(pipeline, run_id, status)

    def kept_counts(self, pipeline: str) -> list[dict[str, Any]]:
        """How many rows of each run are kept, by their status."""
        return self._table.kept_counts(pipeline)

    def discard(self, pipeline: str, marks: Marks) -> int:
        """Mark waiting rows as discarded."""
        return self._table.discard(pipeline, marks)

    @property
    def _table(self) -> PostgresTable | AttachedTable:
        """The table, behind the kind of database that the connection string names.

        Raises:
            LoadError: no target can be made of that kind.
        """
        # Imports are here, because commands that only list need no driver.
        side = Side("target", f"target {self.label}", str(self.connection_string))
        try:
            dialect = dialect_of(self.connection_string.reveal())
        except ValueError as error:
            raise side.error("missing", f"connection_string: {error}") from error
        if dialect is POSTGRES:
            from flows.targets._table import PostgresTable  # noqa: PLC0415 - as said

            return PostgresTable(self)
        if not dialect.is_file:
            raise side.error(
                "missing",
                f"{dialect.title!r} is no kind of database that rows can be published to. Name one of postgresql://, "
                "sqlite:/// and duckdb:///.",
            )
        from flows.targets._attached_table import AttachedTable  # noqa: PLC0415 - as said

        return AttachedTable(self, dialect)
