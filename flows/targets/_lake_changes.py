"""What each write mode does to the files of a table: which ones go, and which ones come.

A file with a row that changes is written again without it, or with it changed; other files stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from flows._ledger import RunRecord
from flows.targets import _refusals
from flows.targets._base import Published
from flows.targets._lake import Change
from flows.targets._lake_fit import MOMENT, LakeFit
from flows.targets._staged import StagedFile, StagedFiles

if TYPE_CHECKING:
    from flows.targets.data_lake import DataLake

_FILE, _OLD, _END, _DIFFERS = "__lockgate_file__", "__lockgate_old_", "__lockgate_end__", "__lockgate_differs__"
Write = Callable[[pl.LazyFrame], StagedFiles]


class Changes:
    """The change that a load makes of a table.

    Args:
        options: the target's.
        fit: how the load fits the table.
        staged: the sealed rows of the load, in files that may become part of the table.
        record: of the run.
        write: writes rows into further files beside the staged ones.
    """

    def __init__(self, options: DataLake, fit: LakeFit, staged: StagedFiles, record: RunRecord, write: Write) -> None:
        self._options = options
        self._fit = fit
        self._table = fit.table
        self._staged = staged
        self._record = record
        self._write = write

    def made(self) -> tuple[Change, Published]:
        """The change, and what it does to rows.

        Raises:
            LoadError: rows have no key, or share one.
            RefusedError: rows lie outside of the range that is replaced, or would change the past.
        """
        modes = {
            "append": self._appended,
            "overwrite": self._overwritten,
            "upsert": self._merged,
            "delete_insert": self._replaced,
            "scd2": self._continued,
        }
        added, removed, published = modes[self._options.write_mode]()
        if not self._table.exists:
            published = replace(published, how="created")
        return Change(tuple(added), tuple(removed), self._fit.schema), published

    def _appended(self) -> tuple[list[StagedFile], list[StagedFile], Published]:
        return self._staged.files, [], Published(self._staged.rows, how="appended")

    def _overwritten(self) -> tuple[list[StagedFile], list[StagedFile], Published]:
        removed = list(self._table.files)
        if self._options.partition_overwrite == "dynamic":
            arrived = {tuple(file.partition.values()) for file in self._staged.files}
            removed = [file for file in removed if tuple(file.partition.values()) in arrived]
        deleted = sum(file.rows for file in removed)
        return self._staged.files, removed, self._shrunk("replaced", deleted, of=deleted)

    def _shrunk(self, how: str, deleted: int, *, of: int) -> Published:
        """The staged rows in the place of `deleted` ones, of as many as were there."""
        rows = self._staged.rows
        return Published(rows, deleted=deleted, how=how, removed=max(deleted - rows, 0), before=of)

    # --- by key ---

    def _merged(self) -> tuple[list[StagedFile], list[StagedFile], Published]:
        key = self._options.primary_key
        self._require_keys(key)
        others = [name for name in self._fit.schema if name not in key]
        found = self._found(self._rows(), key, others, [])
        changed, same = found.filter(_DIFFERS), found.filter(~pl.col(_DIFFERS))
        removed = self._files_of(changed)
        kept = self._rows(removed).join(changed.select(key).lazy(), on=key, how="anti")
        added = [*self._without(same, key), *(self._write(kept).files if removed else ())]
        inserted = self._staged.rows - found.height
        return added, removed, Published(inserted, changed.height, same.height, how="merged")

    def _replaced(self) -> tuple[list[StagedFile], list[StagedFile], Published]:
        goes = self._going_by_range() if self._options.delete_range else self._going_by_key()
        counts = goes(self._rows()).group_by(_FILE).len().collect(engine="streaming")
        removed = self._files_of(counts)
        place = "__lockgate_place__"
        rows = self._rows(removed).with_row_index(place)
        kept = rows.join(goes(rows).select(place), on=place, how="anti", maintain_order="left")
        added = [*self._staged.files, *(self._write(kept).files if removed else ())]
        deleted = int(counts.get_column("len").sum())
        before = sum(file.rows for file in self._table.files)
        return added, removed, self._shrunk("replaced in part", deleted, of=before)

    def _going_by_key(self) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
        key = self._options.replaces_by
        self._require_no_null(key)
        keys = self._staged.frame().select(key).unique()
        return lambda rows: rows.join(keys, on=key, how="semi")

    def _going_by_range(self) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
        wanted = self._options.delete_range
        assert wanted is not None  # noqa: S101 - asked before
        column = pl.col(wanted.column)
        if wanted.spans_load:
            span = self._staged.frame().select(low=column.min(), high=column.max()).collect(engine="streaming")
            low, high = (pl.lit(end, self._fit.schema[wanted.column]) for end in span.row(0))
            within = column.is_between(low, high)
        else:
            ends = [pl.lit(end).cast(self._fit.schema[wanted.column]) for end in (wanted.from_, wanted.to)]
            within = column.is_between(ends[0], ends[1], closed="left")
        outside = self._counted(self._staged.frame().filter(within.fill_null(value=False).not_()))
        if outside:
            raise _refusals.outside(wanted, outside, self._table.side)
        return lambda rows: rows.filter(within)

    # --- history ---

    def _continued(self) -> tuple[list[StagedFile], list[StagedFile], Published]:
        versions, key = self._fit.versions, self._options.primary_key
        assert versions is not None  # noqa: S101 - the mode has them
        self._require_keys(key)
        own = versions.own_columns
        compared = versions.tracked_columns or [n for n in self._fit.schema if n not in (*key, *own)]
        current = self._rows().filter(pl.col(versions.is_current))
        found = self._found(current, key, [name for name in compared if name not in key], [versions.valid_from])
        changed, same = found.filter(_DIFFERS), found.filter(~pl.col(_DIFFERS))
        self._require_later(changed, found, key)
        closed = changed.select(*key, _FILE, pl.col(versions.valid_from).alias(_END))
        removed_rows = before = 0
        if versions.hard_deletes == "close":
            gone = current.join(self._staged.frame().select(key), on=key, how="anti")
            at = pl.lit(self._record.started_at).cast(MOMENT).alias(_END)
            missing = gone.select(*key, _FILE, at).collect(engine="streaming")
            removed_rows, before = missing.height, self._counted(current) if missing.height else 0
            closed = pl.concat([closed, missing])
        removed = self._files_of(closed)
        ends = pl.col(versions.is_current) & pl.col(_END).is_not_null()
        rewritten = (
            self._rows(removed)
            .join(closed.lazy().drop(_FILE), on=key, how="left", maintain_order="left")
            .with_columns(
                pl.when(ends).then(_END).otherwise(versions.valid_to).alias(versions.valid_to),
                (pl.col(versions.is_current) & ~ends).alias(versions.is_current),
            )
        )
        added = [*self._without(same, key), *(self._write(rewritten).files if removed else ())]
        inserted = self._staged.rows - same.height
        published = Published(inserted, 0, same.height, how="history kept", closed=closed.height)
        return added, removed, replace(published, removed=removed_rows, before=before)

    def _require_later(self, changed: pl.DataFrame, found: pl.DataFrame, key: Sequence[str]) -> None:
        """A version must begin after the one that it follows, also where that one is closed."""
        versions = self._fit.versions
        assert versions is not None  # noqa: S101 - the mode has them
        begins = pl.col(versions.valid_from)
        early = changed.filter(begins <= pl.col(_OLD + versions.valid_from)).height
        again = self._staged.frame().join(found.select(key).lazy(), on=key, how="anti").select(*key, begins)
        ended = self._rows().filter(~pl.col(versions.is_current)).group_by(key).agg(pl.col(versions.valid_to).max())
        early += self._counted(again.join(ended, on=key).filter(begins < pl.col(versions.valid_to)))
        if early:
            raise _refusals.too_early(versions, early, self._table.side)

    # --- rows ---

    def _found(
        self, existing: pl.LazyFrame, key: Sequence[str], compared: Sequence[str], kept: Sequence[str]
    ) -> pl.DataFrame:
        """Keys of the load that the table has: their file, whether a compared column differs, and the old `kept`.

        Raises:
            LoadError: the table has a key twice.
        """
        wanted = [*compared, *kept]
        old = existing.select(*key, _FILE, *(pl.col(name).alias(_OLD + name) for name in wanted))
        differs = [pl.col(name).ne_missing(pl.col(_OLD + name)) for name in compared] or [pl.lit(value=False)]
        found = (
            self._staged.frame()
            .join(old, on=key, how="inner")
            .select(*key, _FILE, pl.any_horizontal(differs).alias(_DIFFERS), *kept, *(_OLD + name for name in kept))
            .collect(engine="streaming")
        )
        if found.select(pl.struct(key).n_unique()).item() < found.height:
            raise self._table.side.error(
                "constraint",
                f"the table has several rows with the same key ({', '.join(map(repr, key))}). Mend it first.",
            )
        return found

    def _without(self, same: pl.DataFrame, key: Sequence[str]) -> Iterable[StagedFile]:
        """The staged rows that are not in the table as they are; the staged files themselves where all are."""
        if not same.height:
            return self._staged.files
        if same.height == self._staged.rows:
            return ()
        return self._write(self._staged.frame().join(same.select(key).lazy(), on=key, how="anti")).files

    def _rows(self, files: Sequence[StagedFile] | None = None) -> pl.LazyFrame:
        """Rows of the table as it is, and the file of each; columns that a file has not got are null."""
        files = list(self._table.files if files is None else files)
        if not files or not self._table.exists:
            return pl.LazyFrame(schema={**self._fit.schema, _FILE: pl.String()})
        places = self._places
        inner = {name: dtype for name, dtype in self._fit.schema.items() if name not in self._fit.partition_by}
        scan = pl.scan_parquet(
            [places[file.path] for file in files],
            glob=False,
            hive_partitioning=False,
            include_file_paths=_FILE,
            storage_options=None if self._table.store.is_local else dict(self._table.store.object_store()),
            schema=inner,
            missing_columns="insert",
            extra_columns="ignore",
        )
        if self._fit.partition_by:
            values: dict[str, Any] = {
                name: pl.Series([file.partition[name] for file in files], dtype=self._fit.schema[name])
                for name in self._fit.partition_by
            }
            folders = pl.LazyFrame({_FILE: [places[file.path] for file in files], **values})
            scan = scan.join(folders, on=_FILE, how="left", maintain_order="left")
        return scan.select(*self._fit.schema, _FILE)

    @cached_property
    def _places(self) -> dict[str, str]:
        store = self._table.store
        root = store.path if store.is_local else f"{store.scheme}://{store.path}"
        return {file.path: f"{root}/{file.path}" for file in self._table.files}

    def _files_of(self, rows: pl.DataFrame) -> list[StagedFile]:
        wanted = set(rows.get_column(_FILE).unique())
        return [file for file in self._table.files if self._places[file.path] in wanted]

    def _require_keys(self, key: Sequence[str]) -> None:
        self._require_no_null(key)
        repeated = self._staged.frame().group_by(key).len().filter(pl.col("len") > 1)
        if self._counted(repeated):
            raise _refusals.shared_key(key, self._table.side)

    def _require_no_null(self, key: Sequence[str]) -> None:
        if self._counted(self._staged.frame().filter(pl.any_horizontal(pl.col(key).is_null()))):
            raise _refusals.no_key(key, self._table.side)

    @staticmethod
    def _counted(frame: pl.LazyFrame) -> int:
        return int(frame.select(pl.len()).collect(engine="streaming").item())
