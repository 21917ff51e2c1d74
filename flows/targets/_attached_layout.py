"""How rows of one schema fit a table of a database file: the gate that every column passes before a byte moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from flows._survival import shown
from flows._writing import DoesNotFit
from flows.targets._engines import Column, Engine, Table, quote
from flows.targets._fitting import Fit
from flows.targets._modes import Scd2
from flows.targets._schema_contract import Drift, drift
from transforms._words import did_you_mean
from validations._contract import RowCheck

if TYPE_CHECKING:
    from flows.targets.database import Database


@dataclass(frozen=True)
class Placed:
    """A column of the load, the type that it has in the table, and how it gets there."""

    name: str
    dtype: pl.DataType
    type: str
    fit: Fit

    def published(self, staged: str) -> str:
        """SQL that turns `staged`, the staging column, into the table's type."""
        return self.fit.publish.replace("{}", staged)


@dataclass(frozen=True)
class Layout:
    """Columns of the load, placed in a table that is there or will be made.

    Attributes:
        columns: those of the load that are loaded.
        key: the primary key, from the configuration or the table.
        clauses: of ``ALTER TABLE``, one by one, that the table needs before it takes the rows.
        warnings: what people should know, in words.
    """

    engine: Engine
    table: Table
    columns: tuple[Placed, ...]
    key: tuple[str, ...]
    versions: Scd2 | None = None
    clauses: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def staged(self) -> dict[str, str]:
        """The staging columns and their types."""
        return {column.name: column.fit.staged for column in self.columns}

    @property
    def names(self) -> str:
        """The quoted columns, with commas."""
        return ", ".join(quote(column.name) for column in self.columns)

    @property
    def values(self) -> str:
        """SQL for the columns of the chamber, called ``s``, in the table's types, with commas."""
        return ", ".join(column.published(f"s.{quote(column.name)}") for column in self.columns)

    @property
    def outside_key(self) -> tuple[str, ...]:
        """Columns that are not of the key."""
        return tuple(column.name for column in self.columns if column.name not in self.key)

    def column(self, name: str) -> Placed:
        """The column of that name, which must be there."""
        return next(column for column in self.columns if column.name == name)

    def key_of(self, name: str) -> str:
        """SQL for a column of the chamber, called ``s``, in the table's type."""
        return self.column(name).published(f"s.{quote(name)}")

    def same(self, key: Sequence[str] = ()) -> str:
        """SQL for whether a row of the table, called ``t``, has the key of one of the chamber."""
        return " AND ".join(f"t.{quote(name)} = {self.key_of(name)}" for name in key or self.key)

    def differs(self, among: Collection[str] = ()) -> str:
        """SQL for whether the two rows differ outside the key; only `among` these columns, where any are given."""
        names = [name for name in self.outside_key if name in (among or self.outside_key)]
        told_apart = (
            self.engine.differs(f"t.{quote(name)}", self.key_of(name), self.column(name).type) for name in names
        )
        return f"({' OR '.join(told_apart)})" if names else "false"

    # --- casting ---

    def cast(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Cast a batch to the dtypes of the staging columns.

        Raises:
            TargetTypeError: a value does not survive; names its column.
        """
        for column in self.columns:
            survives = column.fit.survives
            if survives is None:
                continue
            lost = rows.select(pl.col(column.name)).filter(survives(pl.col(column.name)).not_())
            if lost.height:
                raise self.engine.side.error(
                    "type",
                    f"column {column.name!r}: {shown(lost.to_series().head(1))} would be another value in "
                    f"{column.type}. Nothing was published.",
                )
        return rows.select(column.fit.cast(pl.col(column.name)).alias(column.name) for column in self.columns)

    def row_checks(self) -> tuple[RowCheck, ...]:
        """That every value fits its column, as checks of rows."""
        return tuple(
            RowCheck(
                f"data_type: {column.name} does not fit {column.type}",
                "quarantine",
                column.name,
                column.fit.survives(pl.col(column.name)),
            )
            for column in self.columns
            if column.fit.survives is not None
        )

    # --- statements ---

    def creating(self) -> list[str]:
        """Statements that make the table."""
        columns = [f"{quote(c.name)} {c.type}{' NOT NULL' if c.name in self.key else ''}" for c in self.columns]
        key, table = ", ".join(map(quote, self.key)), self.table.quoted
        if self.versions is None:
            columns += [f"PRIMARY KEY ({key})"] if key else []
            return [f"CREATE TABLE {table} ({', '.join(columns)})"]
        made = [f"CREATE TABLE {table} ({', '.join([*columns, *self.version_columns()])})"]
        if (current := self.engine.only_where(quote(self.versions.is_current))) is not None:
            made.append(f"CREATE UNIQUE INDEX {quote(f'{self.table.name}_current')} ON {table} ({key}){current}")
        return made

    def version_columns(self) -> list[str]:
        """Definitions of the columns that ``scd2`` keeps."""
        versions, moment = self.versions or Scd2(), self.engine.moment_type
        return [
            f"{quote(versions.valid_from)} {moment} NOT NULL",
            f"{quote(versions.valid_to)} {moment}",
            f"{quote(versions.is_current)} {self.engine.truth_type} NOT NULL",
        ]

    def changing(self) -> list[str]:
        """Statements that give the table what the contract lets it have."""
        return [f"ALTER TABLE {self.table.quoted} {clause}" for clause in self.clauses]


def place(engine: Engine, options: Database, schema: pl.Schema, table: Table) -> Layout:
    """Place the columns of `schema` in `table`.

    Raises:
        LoadError: a column does not fit, is not there, may not be written, or is needed and not delivered; or a key
            that the write mode needs is missing.
    """
    side = engine.side
    if table.is_view:
        raise side.error("missing", "it is a view, and a load through it could lose rows. Load the table behind it.")
    found = _drift(engine, options, schema, table)
    loaded = {name: dtype for name, dtype in schema.items() if name not in found.discarded}
    if not loaded:
        raise side.error("type", "the pipeline delivers no columns that are loaded. Select at least one.")
    present = {column.name: column for column in table.columns}
    placed = tuple(_placed(engine, name, dtype, present.get(name), found) for name, dtype in loaded.items())
    layout = Layout(
        engine,
        table,
        placed,
        options.primary_key or table.primary_key,
        options.versions,
        clauses=(
            *(f"ADD COLUMN {quote(c.name)} {c.type}" for c in placed if c.name in found.added),
            *(f"ALTER COLUMN {quote(name)} TYPE {wide}" for name, wide in found.widened.items()),
        ),
        warnings=found.warnings,
    )
    _require_keys(layout, options, loaded)
    own = options.versions.own_columns if options.versions is not None else ()
    for column in table.columns:
        if column.name not in (*loaded, *own) and not column.fills_itself and not column.generated:
            raise side.error("missing", f"column {column.name!r} is NOT NULL and the pipeline does not deliver it.")
    return layout


def _drift(engine: Engine, options: Database, schema: pl.Schema, table: Table) -> Drift[str]:
    folded = Counter(name.casefold() for name in schema)
    if twins := [name for name in schema if folded[name.casefold()] > 1]:
        raise engine.side.error(
            "type", f"{engine.title} takes columns {twins[0]!r} and {twins[1]!r} for one. Rename one with a 'map' step."
        )
    if not table.exists:
        return Drift()
    found = drift(options.schema_contract, schema, {c.name: c.type for c in table.columns}, engine.grown)
    taken = {column.name.casefold(): column.name for column in table.columns}
    for name in (*found.unknown, *found.added):
        if name in found.unknown or name.casefold() in taken:
            known = did_you_mean(name, taken.values(), word="Present")
            raise engine.side.error(
                "missing",
                f"the table has no column {name!r}.{known} Add the column, drop or rename it with a 'map' step, or set "
                "target.schema_contract: {columns: evolve} (or discard).",
            )
    return found


def _placed(engine: Engine, name: str, dtype: pl.DataType, column: Column | None, found: Drift[str]) -> Placed:
    if column is not None and column.generated:
        raise engine.side.error("type", f"column {name!r} is generated by the database. Drop it with a 'map' step.")
    try:
        type_ = found.widened.get(name) or (column.type if column is not None else engine.created(dtype))
        return Placed(name, dtype, type_, engine.fit(dtype, type_))
    except DoesNotFit as error:
        raise engine.side.error("type", f"column {name!r}: {error}") from error


def _require_keys(layout: Layout, options: Database, schema: Collection[str]) -> None:
    named: dict[str, Collection[str]] = {
        "primary_key": layout.key if options.write_mode == "upsert" else options.primary_key
    }
    if options.write_mode == "upsert" and not layout.key:
        raise layout.engine.side.error("missing", "upsert needs a key. Set target.primary_key, such as [customer_id].")
    if options.write_mode == "delete_insert":
        named["delete_key"] = options.delete_key
        named["delete_range"] = (options.delete_range.column,) if options.delete_range else ()
    if layout.versions is not None:
        named["scd2.tracked_columns"] = layout.versions.tracked_columns
        named["scd2.effective_at"] = (layout.versions.effective_at,) if layout.versions.effective_at else ()
        _require_versions(layout, layout.versions, schema)
    for key, names in named.items():
        for name in names:
            if name not in schema:
                known = did_you_mean(name, schema, word="Present")
                raise layout.engine.side.error("missing", f"{key} names no column {name!r}.{known}")
    for name in named.get("delete_range", ()):
        column = layout.column(name)
        if not layout.engine.orders(column.dtype, column.type):
            raise layout.engine.side.error(
                "type", f"delete_range needs a column that can be ordered, and {name!r} is {column.type}. Name another."
            )


def _require_versions(layout: Layout, versions: Scd2, schema: Collection[str]) -> None:
    engine, side = layout.engine, layout.engine.side
    present = {column.name: column for column in layout.table.columns}
    for key, name in zip(("valid_from", "valid_to", "is_current"), versions.own_columns, strict=True):
        if name in schema:
            raise side.error(
                "type",
                f"column {name!r} is kept by scd2, and the pipeline delivers one of that name. Rename it with a 'map' "
                f"step, or name another column in target.scd2.{key}.",
            )
        if not layout.table.exists:
            continue
        if name not in present:
            raise side.error(
                "missing",
                f"scd2 keeps its versions in column {name!r}, and the table has none. Add "
                f"{', '.join(layout.version_columns())}, or name the table's own columns in target.scd2.",
            )
        column, is_truth = present[name], key == "is_current"
        keeps = engine.keeps_truths(column.type) if is_truth else engine.keeps_moments(column.type)
        if not keeps or (key == "valid_to" and column.not_null):
            nullable = ", which takes nulls," if key == "valid_to" else ""
            wanted = engine.truth_type if is_truth else engine.moment_type
            raise side.error("type", f"column {name!r} is {column.type}; scd2 needs {wanted}{nullable} there.")
