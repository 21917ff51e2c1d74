"""The staged rows of a run as Parquet files, for targets that are files, and those that cannot stage.

The files lie where they will be published from: on this machine or on S3. Each is written once, by
Polars' streaming engine, while the source is still being read; whole-set rules read back only the
columns that they ask for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from flows._quarantine import as_json_texts
from flows._storage import Store
from flows.targets._base import Taken, Violation
from flows.targets._partitions import Partitions, hive_folder
from flows.targets._parts import ROW_GROUP_BYTES, Part, Statistics, statistics_of
from flows.targets._sink import os_errors
from transforms._words import counted
from validations._contract import SetRule

TARGET_FILE_BYTES = 128_000_000
_ROWS_REWRITTEN = 100_000
_ROWS_AT_ONCE = 4_000_000  # keys in memory, to find those that are there twice
_PLACE = "__lockgate_place__"


@dataclass(frozen=True)
class StagedFile:
    """A file with staged rows.

    Attributes:
        path: below the store's own path, with ``/``.
        rows, bytes: how many.
        partition: values of the partition columns, which the file itself does not have.
        statistics: of its columns, where they were asked for; nested columns are left out.
    """

    path: str
    rows: int
    bytes: int
    partition: Mapping[str, Any] = field(default_factory=dict)
    statistics: Mapping[str, Statistics] = field(default_factory=dict)


class StagedFiles:
    """Rows staged as Parquet files below `folder` of `store`; written batch by batch, by one thread at a time.

    Args:
        store: a disk of this machine, or S3.
        schema: columns and dtypes of the rows to come, partition columns included.
        folder: below the store's path; it need not exist yet.
        name: how the files' names begin; they go on ``-00000``.
        suffix: how they end; anything but ``.parquet`` hides them from who reads ``**/*.parquet``.
        scratch: a folder of this machine for what is on its way; None makes a temporary one.
        partition_by: columns that become folders ``name=value``; one column at least must be left over.
        target_file_bytes: how large a file should be; None is one file for each partition.
        statistics: whether `StagedFile.statistics` are wanted.
    """

    def __init__(
        self,
        store: Store,
        schema: pl.Schema,
        *,
        folder: str = "",
        name: str = "part",
        suffix: str = ".parquet",
        scratch: Path | None = None,
        partition_by: Sequence[str] = (),
        target_file_bytes: int | None = TARGET_FILE_BYTES,
        statistics: bool = False,
    ) -> None:
        self.store = store
        self.schema = schema
        self.partition_by = tuple(partition_by)
        self.files: list[StagedFile] = []
        self._inner = pl.Schema({column: dtype for column, dtype in schema.items() if column not in self.partition_by})
        self._folder = folder.strip("/")
        self._name = name
        self._suffix = suffix
        self._limit = target_file_bytes
        self._with_statistics = statistics
        self._temporary = tempfile.TemporaryDirectory(prefix="lockgate-") if scratch is None else None
        self._scratch = Path(self._temporary.name) if self._temporary else scratch or Path()
        self._partitions = Partitions(self.partition_by, self._scratch) if self.partition_by else None
        self._open: Part | None = None
        self._made = 0

    # --- staging ---

    @property
    def rows(self) -> int:
        """How many rows are staged; all of them once it is sealed."""
        return sum(file.rows for file in self.files)

    def write(self, rows: pl.DataFrame) -> None:
        """Stage a batch.

        Raises:
            LoadError: it cannot be written.
        """
        if self._partitions is not None:
            with self.store.mapped():
                self._partitions.add(rows)
        else:
            self._put(rows, {})

    def seal(self) -> int:
        """End staging; returns the number of rows.

        Raises:
            LoadError: they cannot be written.
        """
        if self._partitions is not None:
            for key, batches in self._partitions:
                for rows in batches:
                    self._put(rows, dict(zip(self.partition_by, key, strict=True)))
                self._close()
            self._partitions.clear()
        self._close()
        return self.rows

    def _put(self, rows: pl.DataFrame, partition: Mapping[str, Any]) -> None:
        if self._open is None:
            path = self._new_path(partition)
            group_bytes = ROW_GROUP_BYTES if self._limit is None else min(ROW_GROUP_BYTES, self._limit // 2)
            self._open = Part(path, partition, self._local(path), self._inner, group_bytes)
        with self.store.mapped():
            self._open.put(rows)
            if self._limit is not None and self._open.bytes >= self._limit:
                self._close()

    def _new_path(self, partition: Mapping[str, Any]) -> str:
        self._made += 1
        parts = (self._folder, hive_folder(partition), f"{self._name}-{self._made - 1:05}{self._suffix}")
        return "/".join(filter(None, parts))

    def _close(self) -> None:
        if self._open is not None:
            opened, self._open = self._open, None
            with self.store.mapped():
                opened.close()
                self.files.append(self._delivered(opened.path, opened.partition, opened.rows))

    def _local(self, path: str) -> Path:
        """Where a file is written: in its place, or on its way to a place elsewhere."""
        file = Path(self.store.path if self.store.is_local else self._scratch, path)
        with self.store.mapped():
            file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def _delivered(self, path: str, partition: Mapping[str, Any], rows: int) -> StagedFile:
        """A file that is written, in its place."""
        file = self._local(path)
        statistics = statistics_of(file) if self._with_statistics else {}
        staged = StagedFile(path, rows, file.stat().st_size, partition, statistics)
        if not self.store.is_local:
            self.store.fs.put_file(str(file), f"{self.store.path}/{path}")
            file.unlink()
        return staged

    # --- reading back ---

    def frame(self, files: Sequence[StagedFile] | None = None) -> pl.LazyFrame:
        """The rows of `files` (None: of all) in the order staged, with the columns of the schema."""
        files = self.files if files is None else files
        if not files:
            return pl.LazyFrame(schema=self.schema)
        places = [self._address(file) for file in files]
        options = None if self.store.is_local else dict(self.store.object_store())
        scan = pl.scan_parquet(
            places, glob=False, hive_partitioning=False, include_file_paths=_PLACE, storage_options=options
        )
        if self.partition_by:  # not told by the folders: they may lie in others that are called name=value
            values = {name: [file.partition[name] for file in files] for name in self.partition_by}
            schema = {name: self.schema[name] for name in self.partition_by}
            partitions = pl.LazyFrame({_PLACE: places, **values}, schema={_PLACE: pl.String(), **schema})
            scan = scan.join(partitions, on=_PLACE, how="left", maintain_order="left")
        return scan.select(list(self.schema))

    def _address(self, file: StagedFile) -> str:
        place = f"{self.store.path}/{file.path}"
        return place if self.store.is_local else f"{self.store.scheme}://{place}"

    def audit(self, rules: Iterable[SetRule]) -> list[Violation]:
        """Hold whole-set rules against the sealed rows; returns one `Violation` for each broken rule."""
        return [violation for rule in rules if (violation := self._audited(rule)) is not None]

    def _audited(self, rule: SetRule) -> Violation | None:
        with self.store.mapped():
            if rule.blames_rows:
                rows = self._blamed(rule).len()
                return Violation(rule, rows, counted(rows, "row")) if rows else None
            good, observed = rule.verdict(self.frame()).collect(engine="streaming").row(0)
        return None if good else Violation(rule, 0, observed)

    def _blamed(self, rule: SetRule) -> pl.Series:
        """Places of the rows that a rule blames, in the order staged, from 0."""
        shares = -(-self.rows // _ROWS_AT_ONCE)
        if shares < 2 or not rule.is_unique:  # noqa: PLR2004 - one share is the whole
            return rule.violations(self.frame()).collect(engine="streaming").get_column("row")
        # Rows with the same key are in the same share, so each share can be asked alone, and memory stays flat.
        keys = self.frame().select(rule.fields).with_row_index(_PLACE)
        share = pl.struct(rule.fields).hash() % shares
        blamed = [
            keys.filter(share == number).filter(rule.violated).select(_PLACE).collect(engine="streaming").to_series()
            for number in range(shares)
        ]
        return pl.concat(blamed).sort()

    def take(self, violation: Violation) -> Taken:
        """Take the rows that `violation` blames out; only the files that have some are written again."""
        rule, first = violation.rule, 0
        taken: list[pl.DataFrame] = []
        kept: list[StagedFile] = []
        with self.store.mapped():
            blamed = self._blamed(rule)
            for file in self.files:
                places = blamed.filter(blamed.is_between(first, first + file.rows, closed="left")) - first
                first += file.rows
                if places.len():
                    taken.append(self._rows_at(file, places))
                    kept.extend(self._without(file, places))
                else:
                    kept.append(file)
        self.files = kept
        rows = pl.concat(taken) if taken else self.schema.to_frame()
        return Taken(rows.select(rule.fields), as_json_texts(rows).cast(pl.String))

    def _rows_at(self, file: StagedFile, places: pl.Series) -> pl.DataFrame:
        return (
            self._numbered(file).filter(pl.col(_PLACE).is_in(places.implode())).drop(_PLACE).collect(engine="streaming")
        )

    def _without(self, file: StagedFile, places: pl.Series) -> Iterator[StagedFile]:
        """The file without some of its rows; none where no row is left."""
        if places.len() < file.rows:
            path = self._new_path(file.partition)
            left = self._numbered(file).filter(~pl.col(_PLACE).is_in(places.implode())).select(list(self._inner))
            with os_errors():
                left.sink_parquet(self._local(path), compression="zstd", row_group_size=_ROWS_REWRITTEN)
            yield self._delivered(path, file.partition, file.rows - places.len())
        self._delete(file.path)

    def _numbered(self, file: StagedFile) -> pl.LazyFrame:
        return self.frame([file]).with_row_index(_PLACE)

    def release(self) -> None:
        """Hand the files over: they were published, and `remove` leaves them where they are."""
        self.files = []
        self.remove()

    def remove(self) -> None:
        """Stop, and remove every file that is still where it was staged; safe to call twice."""
        if self._open is not None:
            self._open.abandon()
            self._delete(self._open.path)
            self._open = None
        if self._partitions is not None:
            self._partitions.clear()
        if self.store.is_local:
            for file in self.files:
                self._delete(file.path)
        elif self.files:
            with self.store.mapped(), suppress(FileNotFoundError):
                self.store.fs.rm([f"{self.store.path}/{file.path}" for file in self.files])
        self.files = []
        if self._temporary is not None:
            self._temporary.cleanup()

    def _delete(self, path: str) -> None:
        """Remove a file, and the folders of this machine that it leaves empty."""
        place = f"{self.store.path}/{path}"
        with self.store.mapped(), suppress(FileNotFoundError):
            self.store.fs.rm_file(place)
        if self.store.is_local:
            with suppress(OSError):  # not empty, or gone with the file
                for folder in list(Path(place).parents)[: path.count("/")]:
                    folder.rmdir()
