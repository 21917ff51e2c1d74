"""A table of a PostgreSQL database."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field, field_validator

from flows._ledger import RunRecord
from flows._postgres import Connection, Side, connect, split_name
from flows._quarantine import Quarantine
from flows._secrets import Secret
from flows.targets import _system
from flows.targets._base import Chamber, Target, target
from flows.targets._catalog import TableInfo, describe
from flows.targets._layout import Layout, place

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

    @property
    def side(self) -> Side:
        """The end that errors of this target belong to."""
        return Side("target", f"target {self.table_name}", str(self.connection_string))

    def layout(self, schema: pl.Schema, table: TableInfo) -> Layout:
        """Place the columns of `schema` in the table, or raise what does not fit."""
        layout = place(schema, table, self.side, key=self.primary_key, overwrites=self.mode == "overwrite")
        if self.mode == "upsert" and not layout.key:
            raise self.side.error("missing", "upsert needs a key. Set target.primary_key, such as [customer_id].")
        return layout

    def open(self, record: RunRecord, schema: pl.Schema) -> Chamber:
        """Lock the table against other runs, and open a staging table beside it."""
        from flows.targets._chamber import PostgresChamber  # noqa: PLC0415 - pyarrow and pgpq are not for plans

        return PostgresChamber(self, record, schema)

    def plan(self, schema: pl.Schema) -> list[str]:
        """Say what publishing rows of `schema` would do."""
        with closing(self._connect("plan")) as connection, self.side.mapped():
            table = describe(connection, self.table_parts)
            layout = self.layout(schema, table)
        if layout.creates:
            return [ddl.rstrip(";") for ddl in layout.staging(table.quoted)] + [
                index.on(table.quoted) for index in layout.indexes
            ]
        ways = {
            "append": f"append to {table.quoted}",
            "upsert": f"merge into {table.quoted} by ({', '.join(layout.key)}), equal rows are left alone",
            "overwrite": f"swap the staged table in for {table.quoted}"
            if layout.swaps
            else f"rewrite {table.quoted} in place ({table.keeps or 'a column is parsed by the server'})",
        }
        return [ways[self.mode]]

    def check(self) -> None:
        """Reach the server and look the table up."""
        with closing(self._connect("check")) as connection, self.side.mapped():
            describe(connection, self.table_parts)

    def record(self, record: RunRecord, quarantine: Quarantine | None) -> None:
        """Keep the record of a run that published nothing, in a transaction of its own."""
        with closing(self._connect(record.pipeline)) as connection, self.side.mapped():
            _system.prepare(connection)
            with connection.transaction():
                if quarantine is not None:
                    _system.write_quarantine(connection, record, quarantine)
                _system.write(connection, record)

    def history(self, pipeline: str, limit: int) -> list[dict[str, Any]]:
        """The newest runs of `pipeline`, newest first."""
        with closing(self._connect(pipeline)) as connection, self.side.mapped():
            return _system.history(connection, pipeline, limit)

    def quarantined(self, pipeline: str, run_id: str | None, limit: int) -> list[dict[str, Any]]:
        """Quarantined rows of one run."""
        with closing(self._connect(pipeline)) as connection, self.side.mapped():
            return _system.quarantined(connection, pipeline, run_id, limit)

    def _connect(self, purpose: str) -> Connection:
        return connect(self.connection_string, application=f"lockgate {purpose}", side=self.side)
