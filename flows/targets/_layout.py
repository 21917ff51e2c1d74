"""How rows of one schema fit one table: the gate that every column passes before a byte moves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import polars as pl

from flows._narrowing import narrowing, unshortened
from flows._postgres import PostgresSide, quote
from flows._survival import shown
from flows._types import PgType
from flows._writing import DoesNotFit, Writing, created_type, writing
from flows.targets._catalog import NAME, PLACE, Index, TableInfo
from flows.targets._evolution import Evolution
from transforms._words import did_you_mean

_LONGEST_NAME = 63  # bytes
_LONGEST_STEM = 58  # bytes of a table's name that leave room for "_pkey"


@dataclass(frozen=True)
class Placed:
    """A column of the load and how it is written."""

    name: str
    pg: PgType
    writing: Writing

    @property
    def cast(self) -> pl.Expr:
        """The column in its wire type."""
        return self.writing.cast(pl.col(self.name)).alias(self.name)

    def published(self, staged: str) -> str:
        """SQL that turns `staged`, the staging column, into the table's type."""
        return self.writing.publish.replace("{}", staged)


@dataclass(frozen=True)
class Layout:
    """Columns of the load, placed in a table that is there or will be made.

    Attributes:
        key: the primary key, from the configuration or the table.
        swaps: whether the chamber itself may become the table.
        evolution: what the table needs before it takes the rows.
    """

    table: TableInfo
    columns: tuple[Placed, ...]
    key: tuple[str, ...]
    swaps: bool
    evolution: Evolution

    @property
    def creates(self) -> bool:
        """Whether the table is not there yet."""
        return self.table.oid is None

    @property
    def wires(self) -> dict[str, str]:
        """The wire type of each column, in order."""
        return {column.name: column.writing.wire for column in self.columns}

    def cast(self, rows: pl.DataFrame, side: PostgresSide) -> pl.DataFrame:
        """Cast a frame to exactly the wire types.

        Raises:
            LoadError: a value does not survive; names its column.
        """
        self._require_survival(rows, side)
        try:
            return rows.select(column.cast for column in self.columns)
        except pl.exceptions.PolarsError as error:
            raise side.error("type", self._misfit(rows, str(error))) from error

    def _require_survival(self, rows: pl.DataFrame, side: PostgresSide) -> None:
        tests = {
            column: column.writing.survives(pl.col(column.name)) for column in self.columns if column.writing.survives
        }
        lost = [test.not_().fill_null(value=False).any() for test in tests.values()]
        found = rows.select(verdict.alias(str(place)) for place, verdict in enumerate(lost)).row(0) if lost else ()
        for (column, test), is_lost in zip(tests.items(), found, strict=True):
            if is_lost:
                value = rows.filter(test.not_()).get_column(column.name).head(1)
                raise side.error(
                    "type",
                    f"column {column.name!r}: {shown(value)} would be another value in {column.pg.text}. "
                    "Nothing was published.",
                )

    def _misfit(self, rows: pl.DataFrame, reason: str) -> str:
        for column in self.columns:
            try:
                rows.select(column.cast)
            except pl.exceptions.PolarsError as error:
                reason = str(error).split("\n", maxsplit=1)[0]
                return f"column {column.name!r} does not fit {column.pg.text}: {reason}. Nothing was published."
        return reason

    @property
    def names(self) -> str:
        """The quoted columns, with commas."""
        return ", ".join(quote(column.name) for column in self.columns)

    @property
    def values(self) -> str:
        """SQL for the columns of the chamber, called ``s``, in the table's types, with commas."""
        return ", ".join(column.published(f"s.{quote(column.name)}") for column in self.columns)

    def differs(self, table: str, staged: str, among: Collection[str] = ()) -> str:
        """SQL for whether a row of the table differs in any byte from one of the chamber, outside the key.

        Only `among` these columns, where any are given.
        """
        others = [column for column in self.columns if column.name in (among or self.outside_key)]
        old = ", ".join(f"{table}.{quote(column.name)}" for column in others)
        new = ", ".join(column.published(f"{staged}.{quote(column.name)}") for column in others)
        # Not IS DISTINCT FROM: for some types equality means something else, for others it does not exist.
        return f"ROW({old})::record *<> ROW({new})::record"

    @property
    def outside_key(self) -> tuple[str, ...]:
        """Columns that are not of the key."""
        return tuple(column.name for column in self.columns if column.name not in self.key)

    def same_key(self, table: str, staged: str, key: Sequence[str] = ()) -> str:
        """SQL for whether a row of the table has the key of one of the chamber, or is alike in the columns `key`."""
        return " AND ".join(f"{table}.{quote(name)} = {self.key_of(name, staged)}" for name in key or self.key)

    def key_of(self, name: str, staged: str) -> str:
        """SQL for a column of the key in the table's type."""
        return self.column(name).published(f"{staged}.{quote(name)}")

    def column(self, name: str) -> Placed:
        """The column of that name, which must be there."""
        return next(column for column in self.columns if column.name == name)

    @property
    def keys_are_parsed(self) -> bool:
        """Whether the server parses a column of the key, so that different texts may be one key."""
        return any(column.writing.publish != "{}" for column in self.columns if column.name in self.key)

    def staging(self, name: str) -> list[str]:
        """Statements that make the staging table `name` (quoted)."""
        if self.creates and self.swaps:
            return [f"CREATE TABLE {name} ({self.created_columns})"]
        if self.swaps:
            like = "INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS EXCLUDING IDENTITY"
            return [f"CREATE TABLE {name} (LIKE {self.table.quoted} {like})", *self.changing(name)]
        columns = ", ".join(f"{quote(column.name)} {column.writing.staged}" for column in self.columns)
        return [f"CREATE UNLOGGED TABLE {name} ({columns})"]

    def changing(self, name: str) -> list[str]:
        """The statement, if one is needed, that gives the table `name` (quoted) what the contract lets it have."""
        clauses = self.evolution.clauses
        return [f"ALTER TABLE {name} {', '.join(clauses)}"] if clauses else []

    @property
    def created_columns(self) -> str:
        """SQL that defines the columns of the load for a new table."""
        return ", ".join(
            f"{quote(column.name)} {column.pg.text}{' NOT NULL' if column.name in self.key else ''}"
            for column in self.columns
        )

    @property
    def indexes(self) -> tuple[Index, ...]:
        """Indexes that the chamber needs before it can become the table."""
        if not self.swaps:
            return ()
        if not self.creates:
            return self.table.indexes
        if not self.key:
            return ()
        name = f"{self.table.name.encode()[:_LONGEST_STEM].decode(errors='ignore')}_pkey"
        columns = ", ".join(map(quote, self.key))
        definition = f"CREATE UNIQUE INDEX {NAME} ON {PLACE} USING btree ({columns})"
        return (Index(name, definition, self.key, True, "PRIMARY KEY"),)


def place(
    schema: pl.Schema,
    table: TableInfo,
    side: PostgresSide,
    *,
    key: tuple[str, ...],
    overwrites: bool,
    own: Collection[str] = (),
    judges: bool = False,
) -> Layout:
    """Place the columns of `schema` in `table`.

    Args:
        schema: of the load.
        table: as it is, or as a contract lets it become.
        side: whose errors these are.
        key: the primary key, from the configuration.
        overwrites: whether the load replaces all rows.
        own: columns of the table that the target fills itself.
        judges: whether a value that does not fit is a matter of its row, not of the load.

    Raises:
        LoadError: a column does not fit, is not there, may not be written, or is needed and not delivered.
    """
    if not schema:
        raise side.error("type", "the pipeline delivers no columns that are loaded. Select at least one.")
    if table.is_view:
        raise side.error("missing", "it is a view, and a load through it could lose rows. Load the table behind it.")
    _require_short_names(schema, table, side)
    placed = tuple(_placed(name, dtype, table, side, judges=judges) for name, dtype in schema.items())
    require(key, "primary_key", schema, side)
    for column in table.columns:
        if column.name not in (*schema, *own) and not column.fills_itself and not column.generated:
            raise side.error("missing", f"column {column.name!r} is NOT NULL and the pipeline does not deliver it.")
    as_is = all(column.writing.publish == "{}" for column in placed)
    swaps = as_is and not own and (table.oid is None or (overwrites and table.keeps is None))
    return Layout(table, placed, key or table.primary_key, swaps, Evolution(schema, table))


def require(names: Collection[str], key: str, schema: pl.Schema, side: PostgresSide) -> None:
    """Confirm that the load has the columns that the configuration's `key` names.

    Raises:
        LoadError: it has not; with did-you-mean.
    """
    for name in names:
        if name not in schema:
            raise side.error("missing", f"{key} names no column {name!r}.{did_you_mean(name, schema, word='Present')}")


def _placed(name: str, dtype: pl.DataType, table: TableInfo, side: PostgresSide, *, judges: bool) -> Placed:
    present = {column.name: column for column in table.columns}
    if table.oid is not None:
        _writable(name, table, side)
    try:
        pg = present[name].pg if table.oid is not None else created_type(dtype)
        if table.oid is None:
            return Placed(name, pg, writing(dtype, pg))
        return Placed(name, pg, narrowing(dtype, pg) if judges else unshortened(dtype, pg))
    except DoesNotFit as error:
        raise side.error("type", f"column {name!r}: {error}") from error


def _require_short_names(schema: pl.Schema, table: TableInfo, side: PostgresSide) -> None:
    """The server would cut a longer name without a word, and the next run would not find it."""
    columns = {} if table.oid is None else {column.name for column in table.columns}
    made = [f"column {name!r}" for name in schema if name not in columns and len(name.encode()) > _LONGEST_NAME]
    if table.oid is None and len(table.name.encode()) > _LONGEST_NAME:
        made.insert(0, f"the table's name {table.name!r}")
    if made:
        raise side.error(
            "type", f"{made[0]} is longer than the {_LONGEST_NAME} bytes of a name in PostgreSQL. Give it another name."
        )


def _writable(name: str, table: TableInfo, side: PostgresSide) -> None:
    present = {column.name: column for column in table.columns}
    if name not in present:
        known = did_you_mean(name, present, word="Present")
        raise side.error(
            "missing",
            f"the table has no column {name!r}.{known} Add the column, drop or rename it with a 'map' step, or set "
            "target.schema_contract: {columns: evolve} (or discard).",
        )
    if present[name].generated:
        raise side.error("type", f"column {name!r} is generated by the database. Drop it with a 'map' step.")
