"""How the columns of a load fit a table of a lake: the gate that every column passes before a file is written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from flows._ledger import RunRecord
from flows._survival import shown
from flows.targets._fitting import castable, comes_back
from flows.targets._journal import FOLDER
from flows.targets._lake import LakeTable
from flows.targets._modes import Scd2
from flows.targets._partitions import is_plain
from flows.targets._refusals import replaced
from flows.targets._schema_contract import drift
from transforms._words import did_you_mean
from validations._contract import RowCheck

if TYPE_CHECKING:
    from flows.targets.data_lake import DataLake

MOMENT = pl.Datetime("us", "UTC")
#: Modes that would lose the value of a column that is not delivered.
_WHOLE = ("upsert", "scd2")
_PARTITIONS = (pl.String, pl.Date, pl.Boolean, pl.Decimal)


@dataclass(frozen=True)
class LakeFit:
    """Columns of a load, placed in a table that is there or will be made.

    Attributes:
        schema: the table's columns after the commit, in its order.
        loaded: the dtypes of the load, for the columns that are loaded.
        partition_by: the table's partition columns.
        added: columns that the table gets with the commit.
        warnings: what people should know, in words.
    """

    table: LakeTable
    schema: pl.Schema
    loaded: pl.Schema
    partition_by: tuple[str, ...]
    versions: Scd2 | None
    added: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def cast(self, rows: pl.DataFrame, record: RunRecord) -> pl.DataFrame:
        """A batch in the table's dtypes and order; rows that keep history get the columns for that.

        Raises:
            TargetTypeError: a value does not survive; names its column.
        """
        for name, dtype in self.loaded.items():
            survives = comes_back(dtype, self.schema[name])
            lost = rows.select(name).filter(~survives(pl.col(name))) if survives else pl.DataFrame()
            if lost.height:
                raise self.table.side.error(
                    "type",
                    f"column {name!r}: {shown(lost.to_series().head(1))} would be another value in "
                    f"{self.schema[name]}. Nothing was published.",
                )
        self._require_told_apart(rows)
        self._require_filled(rows)
        columns = [pl.col(name).cast(self.schema[name]) for name in self.loaded]
        kept = {*self.loaded, *(self.versions.own_columns if self.versions else ())}
        empty = [pl.lit(None, dtype).alias(name) for name, dtype in self.schema.items() if name not in kept]
        return rows.select(*columns, *self._history(record), *empty).select(list(self.schema))

    def row_checks(self) -> tuple[RowCheck, ...]:
        """That every value is the same in the table, as checks of rows."""
        found = {name: comes_back(dtype, self.schema[name]) for name, dtype in self.loaded.items()}
        checks = {name: survives(pl.col(name)) for name, survives in found.items() if survives}
        for name in self._with_empty_as_null:
            told_apart = pl.col(name).cast(pl.String) != ""
            checks[name] = checks[name] & told_apart if name in checks else told_apart
        return tuple(
            RowCheck(f"data_type: {name} does not fit {self.schema[name]}", "quarantine", name, check)
            for name, check in checks.items()
        )

    @property
    def _with_empty_as_null(self) -> list[str]:
        """Partition columns in which an empty text would be a null."""
        names = () if self.table.knows_empty_partitions else self.partition_by
        return [name for name in names if self.schema[name] == pl.String()]

    def _require_filled(self, rows: pl.DataFrame) -> None:
        for name in self.table.required:
            if name in self.loaded and rows.get_column(name).has_nulls():
                raise self.table.side.error(
                    "constraint",
                    f"a row has no {name!r}, and the table's column takes no null. Add a 'not_null' rule to "
                    "quality_rules so that such rows go to quarantine. Nothing was published.",
                )

    def _require_told_apart(self, rows: pl.DataFrame) -> None:
        for name in self._with_empty_as_null:
            if (rows.get_column(name).cast(pl.String) == "").any():
                raise self.table.side.error(
                    "type",
                    f"column {name!r}: '' would be null, because it is a partition column of a Delta table. Give such "
                    "rows another value with a 'calculate' step. Nothing was published.",
                )

    def _history(self, record: RunRecord) -> list[pl.Expr]:
        if self.versions is None:
            return []
        since = pl.col(self.versions.effective_at) if self.versions.effective_at else pl.lit(record.started_at)
        return [
            since.cast(MOMENT).alias(self.versions.valid_from),
            pl.lit(None, MOMENT).alias(self.versions.valid_to),
            pl.lit(value=True).alias(self.versions.is_current),
        ]


def fitted(options: DataLake, table: LakeTable, schema: pl.Schema) -> LakeFit:
    """Place the columns of `schema` in a table that was loaded.

    Raises:
        LoadError: a column does not fit, is not there, or is needed and not delivered; names it.
    """
    side, versions = table.side, options.versions
    if not schema:
        raise side.error("type", "the pipeline delivers no columns. Select at least one.")
    own = versions.own_columns if versions else ()
    for name in own:
        if name in schema:
            raise side.error(
                "type", f"column {name!r} is kept by scd2 itself. Drop it with a 'map' step, or rename it."
            )
    _require_keys(options, table, schema)
    history = dict(zip(own, (MOMENT, MOMENT, pl.Boolean()), strict=False))
    if not table.exists:
        whole = pl.Schema({**table.carried(schema), **history})
        _require_partitions(options.partition_by, whole, table)
        return LakeFit(table, whole, schema, options.partition_by, versions)
    return _in_existing(options, table, schema, history)


def _in_existing(options: DataLake, table: LakeTable, schema: pl.Schema, history: dict[str, pl.DataType]) -> LakeFit:
    side = table.side
    assert table.schema is not None  # noqa: S101 - the caller asked
    present = {name: dtype for name, dtype in table.schema.items() if name not in history}
    if options.partition_by and options.partition_by != table.partition_by:
        theirs = f"by {', '.join(table.partition_by)}" if table.partition_by else "not"
        raise side.error(
            "type", f"the table that is there is {theirs} partitioned. Set 'partition_by' to that, or leave it out."
        )
    drifted = drift(options.schema_contract, schema, present, lambda _present, _delivered: None)
    if drifted.unknown:
        (name, *_others) = drifted.unknown
        raise side.error(
            "missing",
            f"the table has no column {name!r}.{did_you_mean(name, present, word='Present')} "
            "Drop or rename it with a 'map' step, or set schema_contract: {columns: evolve}.",
        )
    for name, dtype in table.schema.items():
        if name in history and dtype != history[name]:
            raise side.error("type", f"the table's column {name!r} is {dtype}, and scd2 needs {history[name]}.")
        if name not in schema and name not in history and name in table.required:
            raise side.error(
                "missing", f"the table's column {name!r} of type {dtype} takes no null, and the pipeline delivers none."
            )
        if name not in schema and name not in history and (options.write_mode in _WHOLE or name in table.partition_by):
            raise side.error(
                "missing",
                f"the table has a column {name!r} of type {dtype}, and the pipeline delivers none. Deliver it: "
                f"{options.write_mode} writes rows whole.",
            )
        if name in schema and not castable(schema[name], dtype):
            raise side.error(
                "type",
                f"column {name!r}: {schema[name]} does not fit {dtype} without loss. Cast it with a 'map' step "
                "(cast: {...}), or write another table.",
            )
    missing = [name for name in history if name not in table.schema]
    if missing:
        raise side.error("missing", f"the table keeps no history: it has no column {missing[0]!r}. Write another one.")
    loaded = pl.Schema({name: dtype for name, dtype in schema.items() if name not in drifted.discarded})
    whole = pl.Schema({**table.schema, **table.carried(pl.Schema(drifted.added))})
    return LakeFit(table, whole, loaded, table.partition_by, options.versions, tuple(drifted.added), drifted.warnings)


def _require_keys(options: DataLake, table: LakeTable, schema: pl.Schema) -> None:
    ranged = (options.delete_range.column,) if options.delete_range else ()
    tracked = options.versions.tracked_columns if options.versions else ()
    since = (options.versions.effective_at,) if options.versions and options.versions.effective_at else ()
    for name in (*options.primary_key, *options.delete_key, *ranged, *tracked, *since):
        if name not in schema:
            raise table.side.error(
                "missing", f"no column {name!r} is delivered.{did_you_mean(name, schema, word='Present')}"
            )
    if since and not isinstance(schema[since[0]], pl.Date | pl.Datetime):
        raise table.side.error("type", f"'effective_at' needs a date or timestamp, and {since[0]!r} is none.")


def _require_partitions(partition_by: tuple[str, ...], schema: pl.Schema, table: LakeTable) -> None:
    for name in partition_by:
        if not is_plain(name):
            raise table.side.error(
                "type",
                f"column {name!r} cannot be in partition_by: not every reader would find it by the name of its folder. "
                "Rename it with a 'map' step (rename: {...}).",
            )
        if name not in schema:
            raise table.side.error(
                "missing", f"partition_by names no column {name!r}.{did_you_mean(name, schema, word='Present')}"
            )
        if not (schema[name].is_integer() or schema[name] in _PARTITIONS):
            raise table.side.error(
                "type",
                f"column {name!r} is {schema[name]}; folders are named after texts, whole numbers, dates, booleans.",
            )
    if partition_by and len(partition_by) == len(schema):
        raise table.side.error("type", "'partition_by' has every column; the files need one at least.")


def planned(options: DataLake, table: LakeTable, schema: pl.Schema) -> list[str]:
    """What publishing rows of `schema` would do, a line each.

    Raises:
        LoadError: the table cannot be read, or a column does not fit.
    """
    table.load()
    fit = fitted(options, table, schema)
    by = f", partitioned by {', '.join(fit.partition_by)}" if fit.partition_by else ""
    if not table.exists:
        columns = ", ".join(f"{name} {dtype}" for name, dtype in fit.schema.items())
        return [f"create the {options.format} table {options.path}{by}: {columns}", *_judged(options, fit)]
    added = [f"add column {name} {fit.schema[name]}" for name in fit.added]
    within = " in the partitions that arrive" if options.partition_overwrite == "dynamic" else ""
    how = {
        "append": f"append to {options.path}{by}",
        "overwrite": f"replace the rows of {options.path}{within}{by}",
        "upsert": f"merge into {options.path} by ({', '.join(options.primary_key)}), equal rows are left alone",
        "delete_insert": f"replace in {options.path} {replaced(options.replaces_by, options.delete_range)}",
        "scd2": f"keep the history of {options.path} by ({', '.join(options.primary_key)})",
    }[options.write_mode]
    return [*added, f"{how}, in one commit", *_judged(options, fit)]


def _judged(options: DataLake, fit: LakeFit) -> list[str]:
    """What is said of values that do not fit, where they do not stop the load."""
    judged = fit.row_checks() if options.schema_contract.data_type == "quarantine" else ()
    names = [check.field for check in judged if check.field]
    return [f"rows whose {name!r} does not fit {fit.schema[name]} go to quarantine" for name in names]


def require_writable(table: LakeTable) -> None:
    """Put a small file into the table's system folder, and take it away again.

    Raises:
        LoadError: it cannot be written.
    """
    probe = f"{table.store.path}/{FOLDER}/probe-{os.getpid()}"
    with table.store.mapped():
        if table.store.is_local:  # on S3 it would make the bucket
            table.store.fs.makedirs(f"{table.store.path}/{FOLDER}", exist_ok=True)
        table.store.fs.pipe_file(probe, b"")
        table.store.fs.rm_file(probe)
