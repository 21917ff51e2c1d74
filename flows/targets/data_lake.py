"""A table of a data lake: Delta Lake, or Parquet files under manifests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from flows._ledger import RunRecord
from flows._quarantine import Marks, Quarantine, Status
from flows._sides import Side
from flows._storage import StorageOptions, Store, require_known, scheme_of
from flows.targets._base import Chamber, Target, target
from flows.targets._modes import Columns, ConcurrentRuns, DeleteRange, Scd2, WriteMode, refuse_stray
from flows.targets._schema_contract import Contracted, SchemaContract

if TYPE_CHECKING:
    from flows.targets._lake import LakeTable


@target
class DataLake(Target):
    """A table of a data lake, on a disk of this machine or on S3, published whole in one commit.

    ``format: delta`` (the default) is a Delta Lake table: every reader of Delta sees the old version or the new one,
    wherever the table is. It needs ``pip install 'lockgate[lake]'``. ``format: parquet`` is a folder of Parquet
    files in hive partitions, for readers that know nothing but files: each commit is a numbered manifest in
    ``_lockgate/manifests/`` that lists the files of its version. Files that are in the folder and in no manifest are
    no part of the table. On a disk of this machine ``current`` is a link to a folder with exactly the files of the
    newest version; whoever resolves the link first and then lists reads one version, whole. On S3 there is no such
    link: read the files that the newest manifest lists, or use Delta.

    Iceberg tables are read, not written: what makes a commit to them one step is a catalog, and files alone have none.

    ```yaml
    target:
      type: data_lake
      path: s3://company-lake/orders
      partition_by: [order_date]
      write_mode: overwrite
      partition_overwrite: dynamic
    ```

    The ``write_mode`` says what becomes of the rows that are there:

    - ``append`` adds the rows.
    - ``overwrite`` (or ``replace``) makes them the only ones; with ``partition_overwrite: dynamic`` only in the
      partitions that the load has rows for.
    - ``upsert`` (or ``merge``) inserts new keys, updates rows that differ and leaves equal rows alone.
    - ``delete_insert`` replaces the rows that share a ``delete_key`` with the load, or lie in a ``delete_range``.
    - ``scd2`` (or ``snapshot``) keeps history: a row that changed is closed, and its new version begins.

    The last three write those files again that have a row to change, and leave the others alone; the keys of the load
    are held in memory. Rows are staged where they stay, so publishing copies nothing. Of two runs that overlap, one
    wins, and the other ends with an error that is worth a retry. Beside the data, in ``_lockgate/``, the ledger, the
    quarantine and the state are kept.

    Attributes:
        path: the table's folder, or ``s3://bucket/prefix``.
        format: ``delta`` or ``parquet``.
        partition_by: columns that become folders ``name=value``, in this order; those of a table that is there stay.
        write_mode: what becomes of the rows that are there.
        partition_overwrite: ``static`` replaces every partition, ``dynamic`` those that the load has rows for.
        primary_key: the columns that ``upsert`` and ``scd2`` find a row by.
        delete_key: the columns whose values ``delete_insert`` looks for; ``primary_key``, unless given.
        delete_range: the range that ``delete_insert`` replaces, instead of a key.
        scd2: how ``scd2`` calls its columns, what it compares, and whether missing rows are closed.
        schema_contract: what a load may do to the columns of the table. Types never change in a lake: ``data_type`` is
            ``freeze`` or ``quarantine``.
        target_file_bytes: how large a file should be.
        versions_kept: how many older versions of ``format: parquet`` stay readable; Delta has its own retention.
        allow_empty: whether a load without rows may empty the table, the range, or close every version.
        concurrent_runs: what a run does that finds another one at the table, on a disk of this machine: `refuse` ends
            it with an error that is worth a retry, `wait` waits for ``lock_timeout_seconds``. The lock dies with the
            run. Left out, and in S3, nothing is locked: both read and stage, and the first to commit wins.
        lock_timeout_seconds: how long it waits.
        storage_options: how to get into S3: ``key``, ``secret``, ``endpoint_url``, ``region``; what is not given comes
            from the environment.
    """

    type: Literal["data_lake"] = "data_lake"
    path: Annotated[str, Field(min_length=1)]
    format: Literal["delta", "parquet"] = "delta"
    partition_by: Columns = ()
    write_mode: WriteMode = "append"
    partition_overwrite: Literal["static", "dynamic"] = "static"
    primary_key: Columns = ()
    delete_key: Columns = ()
    delete_range: DeleteRange | None = None
    scd2: Scd2 | None = None
    schema_contract: Contracted = SchemaContract()
    target_file_bytes: Annotated[int, Field(ge=1_000)] = 128_000_000
    versions_kept: Annotated[int, Field(ge=1)] = 2
    allow_empty: bool = False
    concurrent_runs: ConcurrentRuns | None = None
    lock_timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    storage_options: Annotated[StorageOptions, Field(default_factory=dict)]

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        refuse_stray(
            self.write_mode,
            self.primary_key,
            delete_key=self.delete_key,
            delete_range=self.delete_range,
            scd2=self.scd2,
        )
        if self.partition_overwrite == "dynamic" and self.write_mode != "overwrite":
            raise ValueError("'partition_overwrite' is for write_mode: overwrite. Remove it.")
        if self.schema_contract.data_type == "evolve":
            raise ValueError(
                "the types of a lake's columns do not change. Let columns alone evolve: schema_contract: "
                "{columns: evolve}. With 'data_type: quarantine' beside it, rows that do not fit go to quarantine."
            )
        if self.format == "delta" and "versions_kept" in self.model_fields_set:
            raise ValueError("'versions_kept' is for format: parquet; Delta tables have a retention of their own.")
        scheme = scheme_of(self.path)
        if scheme not in {"file", "s3"}:
            raise ValueError(f"a lake at '{scheme}://' cannot be committed to. Use this machine, or 's3://'.")
        if scheme == "s3" and self.concurrent_runs is not None:
            raise ValueError("nothing locks a table in S3: the first run to commit wins. Remove 'concurrent_runs'.")
        if scheme == "s3" and not self.path.partition("://")[2].strip("/").partition("/")[2]:
            raise ValueError("a table in S3 needs a prefix of its own: 's3://bucket/prefix'.")
        require_known(self.storage_options, scheme)
        return self

    @property
    def versions(self) -> Scd2 | None:
        """How versions of rows are kept; None in every other mode."""
        return (self.scd2 or Scd2()) if self.write_mode == "scd2" else None

    @property
    def replaces_by(self) -> tuple[str, ...]:
        """The columns whose values say which rows ``delete_insert`` replaces; none where a range does."""
        return () if self.delete_range else self.delete_key or self.primary_key

    @property
    def label(self) -> str:
        """The path, as the configuration has it."""
        return self.path

    def open(self, record: RunRecord, schema: pl.Schema, folder: Path | None = None) -> Chamber:
        """Stage files of the table, which no reader knows yet."""
        from flows.targets._lake_chamber import LakeChamber  # noqa: PLC0415 - only runs stage

        return LakeChamber(self, self._table, record, schema, folder)

    def plan(self, schema: pl.Schema) -> list[str]:
        """Say what publishing rows of `schema` would do."""
        from flows.targets._lake_fit import planned  # noqa: PLC0415 - as above

        return planned(self, self._table, schema)

    def check(self) -> None:
        """Reach the table, and confirm that a run could write there."""
        from flows.targets._lake_fit import require_writable  # noqa: PLC0415 - as above

        self._table.load()
        require_writable(self._table)

    def record(self, record: RunRecord, quarantine: Quarantine | None) -> None:
        """Keep the record of a run that published nothing."""
        self._table.journal.keep(record, quarantine)

    def state(self, pipeline: str) -> dict[str, Any]:
        """What the sources of `pipeline` had remembered."""
        return self._table.journal.state(pipeline)

    def remember(self, pipeline: str, state: Mapping[str, Any]) -> None:
        """Let `state` be what the sources of `pipeline` had remembered."""
        self._table.journal.remember(pipeline, state)

    def history(self, pipeline: str, limit: int) -> list[dict[str, Any]]:
        """The newest runs of `pipeline`, newest first."""
        return self._table.journal.history(pipeline, limit)

    def kept(self, pipeline: str, run_id: str | None = None, status: Status | None = None) -> Iterator[pl.DataFrame]:
        """Quarantined rows, a frame at a time."""
        return self._table.journal.kept(pipeline, run_id, status)

    def kept_counts(self, pipeline: str) -> list[dict[str, Any]]:
        """How many rows of each run are kept, by their status."""
        return self._table.journal.kept_counts(pipeline)

    def discard(self, pipeline: str, marks: Marks) -> int:
        """Mark waiting rows as discarded."""
        return self._table.journal.discard(pipeline, marks)

    @property
    def _table(self) -> LakeTable:
        if self.format == "parquet":
            from flows.targets._lake_manifests import ManifestTable  # noqa: PLC0415 - as above

            return ManifestTable(self._store, self.versions_kept)
        from flows.targets._lake_delta import DeltaLakeTable  # noqa: PLC0415 - an extra, and as above

        return DeltaLakeTable(self._store)

    @cached_property
    def _store(self) -> Store:
        return Store(self.path.rstrip("/"), self.storage_options, Side("target", f"target {self.path}"))
