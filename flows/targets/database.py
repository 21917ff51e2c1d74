"""A table of a PostgreSQL database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import polars as pl
from pydantic import Field, field_validator

from flows._ledger import RunRecord
from flows._names import split_name
from flows._quarantine import Quarantine
from flows._secrets import Secret
from flows.targets._base import Chamber, Target, target

if TYPE_CHECKING:
    from flows.targets._table import PostgresTable

Mode = Literal["append", "overwrite", "upsert"]
_ALIASES: dict[str, Mode] = {"replace": "overwrite", "merge": "upsert"}


@target
class Database(Target):
    """A table of a PostgreSQL database, published whole in one transaction.

    ``append`` adds the rows; ``overwrite`` (or ``replace``) makes them the table's only rows, and keeps its
    grants, views, indexes and constraints; ``upsert`` (or ``merge``) inserts new keys, updates rows that differ
    and leaves equal rows alone. The table is made when it is missing, with ``primary_key`` as its key.

    Beside the data, in schema ``lockgate``, the ledger (``loads``) and the ``quarantine`` are kept.

    Attributes:
        connection_string: ``postgresql://user:password@host:port/database``, or ``embedded://NAME``.
        table_name: with its schema where needed: ``sales.orders``.
        write_mode: what becomes of the rows that are there.
        primary_key: the columns that ``upsert`` finds a row by, and the key of a table that a run makes.
        allow_empty: whether an ``overwrite`` may leave a table without rows.
        lock_timeout_seconds: how long publishing waits for others who hold the table.
        writer: ``copy`` is binary COPY; ``adbc`` the driver's own way, which takes longer.
    """

    type: Literal["database"] = "database"
    connection_string: Secret
    table_name: str
    write_mode: Mode | Literal["replace", "merge"] = "append"
    primary_key: tuple[str, ...] = ()
    allow_empty: bool = False
    lock_timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    writer: Literal["copy", "adbc"] = "copy"

    @field_validator("primary_key", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("table_name")
    @classmethod
    def _named(cls, value: str) -> str:
        split_name(value)
        return value

    @property
    def mode(self) -> Mode:
        """The write mode by its own name."""
        return _ALIASES.get(self.write_mode) or self.write_mode  # type: ignore[return-value] # the rest are modes

    @property
    def table_parts(self) -> tuple[str, ...]:
        """The name's parts: schema, where given, and table."""
        return split_name(self.table_name)

    @property
    def label(self) -> str:
        """The table, as the configuration names it."""
        return self.table_name

    def open(self, record: RunRecord, schema: pl.Schema, folder: Path | None = None) -> Chamber:  # noqa: ARG002 - the database stages
        """Lock the table against other runs, and open a staging table beside it."""
        from flows.targets._chamber import PostgresChamber  # noqa: PLC0415 - pyarrow and pgpq are for runs only

        return PostgresChamber(self._table, record, schema)

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

    def history(self, pipeline: str, limit: int) -> list[dict[str, Any]]:
        """The newest runs of `pipeline`, newest first."""
        return self._table.history(pipeline, limit)

    def quarantined(self, pipeline: str, run_id: str | None, limit: int) -> list[dict[str, Any]]:
        """Quarantined rows of one run."""
        return self._table.quarantined(pipeline, run_id, limit)

    @property
    def _table(self) -> PostgresTable:
        from flows.targets._table import PostgresTable  # noqa: PLC0415 - commands that only list need no driver

        return PostgresTable(self)
