"""A table of a warehouse, PostgreSQL or DuckDB: the same promises as `database`, under the name analysts use."""

from __future__ import annotations

from typing import Literal

from flows.targets._base import target
from flows.targets.database import Database


@target
class DataWarehouse(Database):
    """A table of a data warehouse, PostgreSQL or DuckDB; see `database` for its keys and promises."""

    type: Literal["data_warehouse"] = "data_warehouse"  # type: ignore[assignment] # a kind of database by another name
