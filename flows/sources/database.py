"""Rows of a PostgreSQL table or query, streamed over ADBC.

Only the columns, rows and number of rows that the plan needs are asked for, in one statement. All
sources of a run that read one database see the same snapshot of it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows._secrets import Secret
from flows.sources._base import OUTSIDE, Context, Extract, Source, source


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

    def scan(self, name: str, context: Context = OUTSIDE) -> Extract:  # noqa: ARG002 - reads again what it is asked for
        """Learn the schema from the catalogue, and promise the rows.

        Raises:
            ExtractError: the server, table, column or query cannot be read.
        """
        from flows.sources import _scan  # noqa: PLC0415 - commands that only list need no driver

        return _scan.opened(self, name)

    def check(self) -> None:
        """Reach the server and plan the query.

        Raises:
            ExtractError: it cannot be read.
        """
        self.scan("source")
