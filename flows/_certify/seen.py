"""What a reader finds in a scratch target, and what its system tables say; in texts that can be compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import polars as pl

from flows._certify.kinds import FolderScratch, Scratch, TableScratch
from flows._certify.scratch import dialect
from flows._config import Pipeline
from flows._postgres import execute
from flows._quarantine import as_json_texts
from flows._sides import Side
from flows._storage import Store
from flows.targets._attached_table import AttachedTable
from flows.targets._lake import LakeTable
from flows.targets._table import PostgresTable
from flows.targets.data_lake import DataLake
from flows.targets.file import File
from transforms._words import counted

#: How often each row is there, as a text without what differs from run to run.
Multiset = Counter[str]
_ALL = 10**9
_DONE = {"published", "unchanged"}
_SUMS = ("filtered", "deduplicated", "aggregated", "quarantined", "written", "unchanged")


@dataclass(frozen=True)
class Seen:
    """Everything that certify compares.

    Attributes:
        rows: of each target, in the configuration's order.
        state: what the sources had remembered.
        quarantine: rows of the runs that were published, with their reasons, without their numbers; as often as the
            run has one that has it most often, because every run that reads a row again sets it aside again.
        faults: what in the system tables contradicts itself.
    """

    rows: tuple[Multiset, ...]
    state: Mapping[str, Any]
    quarantine: Multiset
    faults: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Rows of the first target."""
        return self.rows[0].total()


def seen(copy: Pipeline, places: Sequence[Scratch], columns: Sequence[str]) -> Seen:
    """Look at the targets of a copy.

    Args:
        copy: the pipeline.
        places: its targets.
        columns: that the pipeline delivers: others are the table's own, as a moment or a number that it fills in.
    """
    target = copy.target
    runs = target.history(copy.name, _ALL)
    faults, aside = [], Multiset()
    for run in runs:
        rows = target.quarantined(copy.name, run["run_id"], _ALL) if run["rows"]["quarantined"] else []
        if len(rows) != run["rows"]["quarantined"]:
            faults.append(f"the ledger counts {run['rows']['quarantined']:,} quarantined rows, {len(rows):,} are there")
        if run["status"] in _DONE:
            faults += _unbalanced(run["rows"])
            aside |= Multiset(_text([row["stage"], row["values"], row["reasons"]]) for row in rows)
    return Seen(tuple(rows_of(place, columns) for place in places), target.state(copy.name), aside, tuple(faults))


def _unbalanced(rows: Mapping[str, int]) -> list[str]:
    entered, left = rows["read"] + rows["expanded"], sum(rows[name] for name in _SUMS)
    return [] if entered == left else [f"in the ledger {entered:,} rows came in, {left:,} are accounted for"]


def difference(found: Multiset, wanted: Multiset) -> str | None:
    """How two sets of rows differ, in words; None where they do not."""
    missing, extra = (wanted - found).total(), (found - wanted).total()
    said = [f"{counted(missing, 'row')} missing"] if missing else []
    said += [f"{counted(extra, 'row')} too many"] if extra else []
    return " and ".join(said) or None


def rows_of(place: Scratch, columns: Sequence[str]) -> Multiset:
    """The rows that a reader of one target finds now."""
    if isinstance(place, TableScratch):
        return _of_postgres(place, columns)
    if not isinstance(place, FolderScratch):
        return _of_attached(place, columns)
    return _of_lake(place.target, columns) if isinstance(place.target, DataLake) else _of_files(place.target, columns)


def _of_postgres(place: TableScratch, columns: Sequence[str]) -> Multiset:
    table = PostgresTable(place.target)
    with closing(table.connect("certify reader")) as connection, table.side.mapped():
        there = table.describe(connection)
        if there.oid is None:
            return Multiset()
        texts = execute(connection, f"SELECT to_jsonb(t)::text FROM {there.quoted} AS t")
        return Multiset(_told(json.loads(text, parse_float=str), columns, place.target) for (text,) in texts)


def _of_attached(place: Scratch, columns: Sequence[str]) -> Multiset:
    table = AttachedTable(place.target, dialect(place.target))
    with table.looked_at() as session:
        there = table.describe(session)
        if not there.exists:
            return Multiset()
        names = [column.name for column in there.columns]
        rows = session.rows(f"SELECT * FROM {there.quoted}")
    return Multiset(_told(dict(zip(names, row, strict=True)), columns, place.target) for row in rows)


def _of_lake(target: DataLake, columns: Sequence[str]) -> Multiset:
    store = Store(target.path.rstrip("/"), target.storage_options, Side("target", f"target {target.path}"))
    table = _lake(target, store)
    table.load()
    found = Multiset()
    options = None if store.is_local else dict(store.object_store())
    root = store.path if store.is_local else f"{store.scheme}://{store.path}"
    for file in table.files:
        rows = pl.read_parquet(f"{root}/{file.path}", glob=False, hive_partitioning=False, storage_options=options)
        rows = rows.with_columns(pl.lit(str(value)).alias(name) for name, value in file.partition.items())
        found.update(_told(json.loads(text), columns, target) for text in as_json_texts(rows))
    return found


def _lake(target: DataLake, store: Store) -> LakeTable:
    if target.format == "parquet":
        from flows.targets._lake_manifests import ManifestTable  # noqa: PLC0415 - one of two

        return ManifestTable(store, target.versions_kept)
    from flows.targets._lake_delta import DeltaLakeTable  # noqa: PLC0415 - an extra

    return DeltaLakeTable(store)


def _of_files(target: File, columns: Sequence[str]) -> Multiset:
    folder = target.path.rpartition("/")[0] + "/" if target.is_folder else target.path
    store = Store(folder, target.storage_options, Side("target", f"target {target.path}"))
    found = Multiset()
    with store.mapped():
        if not store.fs.exists(store.path):
            return found
        for place in store.fs.ls(store.path, detail=False) if target.is_folder else [store.path]:
            with store.fs.open(place, "rb") as file:
                found.update(_of_file(file, target, columns))
    return found


def _of_file(file: Any, target: File, columns: Sequence[str]) -> list[str]:
    if target.kind in {"parquet", "ipc"}:
        rows = pl.read_parquet(file) if target.kind == "parquet" else pl.read_ipc(file)
        return [_told(json.loads(text), columns, target) for text in as_json_texts(rows)]
    lines = pl.read_lines(file).to_series().to_list()
    return lines[1:] if target.kind == "csv" and target.has_header else lines


def _told(row: Mapping[str, Any], columns: Sequence[str], target: Any) -> str:
    """A row without what the table fills in; of a version of a row, whether it ended, and not when."""
    told = {name: row.get(name) for name in columns}
    if versions := getattr(target, "versions", None):
        told["is current"], told["ended"] = row.get(versions.is_current), row.get(versions.valid_to) is not None
    return _text(told)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=repr)
