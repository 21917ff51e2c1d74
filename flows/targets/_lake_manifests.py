"""A table of Parquet files whose numbered manifests say which files each version has.

Version n is the file ``_lockgate/manifests/n.json``, which only one run can create. Files stay where
they were staged, in ``versions/RUN/``. On a disk of this machine the folder of a version is complete
in itself: files that stay are hard links there, and ``current`` is a link to the newest folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from flows._ledger import RunRecord
from flows._storage import Store
from flows.targets import _version_folders
from flows.targets._durable import sync
from flows.targets._journal import FOLDER, Proof
from flows.targets._lake import Change, LakeTable
from flows.targets._manifest import VERSIONS, Manifest, comes_back
from flows.targets._objects import lost
from flows.targets._staged import StagedFile
from flows.targets._version_folders import LINK, folder_of
from transforms._errors import LockgateError

_NAME = re.compile(r"(\d{20})\.json")
_RUN = re.compile(r"\d{8}T\d{6}_")
_MANIFESTS_KEPT = 1_000
_LOOKED_BACK = 3  # versions that nobody needs any more; some runs may have been killed before they tidied up
_FORGOTTEN = timedelta(days=7)


class ManifestTable(LakeTable):
    """A table of Parquet files under manifests, at the version that was newest when it was loaded.

    Args:
        store: the table's folder.
        versions_kept: how many versions before the newest one stay readable.
    """

    def __init__(self, store: Store, versions_kept: int) -> None:
        super().__init__(store)
        self._versions_kept = versions_kept
        self.version = -1

    @property
    def _root(self) -> Path:
        return Path(self.store.path)

    @property
    def _manifests(self) -> str:
        return f"{self.store.path}/{FOLDER}/manifests"

    def _place(self, version: int) -> str:
        return f"{self._manifests}/{version:020}.json"

    # --- reading ---

    def load(self) -> None:
        """Learn the newest version, if there is one; a link that a killed run left behind is mended."""
        with self.store.mapped():
            newest = self._newest()
            if newest is None:
                self._require_free()
                self.version, self.schema, self.files, self.partition_by = -1, None, (), ()
                return
        self.version, self.schema = newest.version, newest.schema
        self.files, self.partition_by = newest.files, newest.partition_by
        if self.store.is_local:
            with suppress(LockgateError):  # somebody who may only read; the next run mends it
                self._lead(newest.run_id)

    def _numbers(self) -> list[int]:
        """Numbers of the versions, newest first."""
        try:
            places = self.store.fs.ls(self._manifests, detail=False)
        except FileNotFoundError:
            return []
        names = (_NAME.fullmatch(place.rstrip("/").rpartition("/")[2]) for place in places)
        return sorted((int(name[1]) for name in names if name), reverse=True)

    def _newest(self) -> Manifest | None:
        numbers = self._numbers()
        return self._read(numbers[0]) if numbers else None

    def _read(self, version: int) -> Manifest | None:
        """A version; None where there is no manifest of that number.

        Raises:
            LoadError: it is damaged, or none of ours.
        """
        place = self._place(version)
        with self.store.mapped():
            try:
                text = self.store.fs.cat_file(place)
            except FileNotFoundError:
                return None
        try:
            return Manifest.of(version, text)
        except ValueError as error:
            raise self.side.error(
                "other",
                f"'{place}' is not what Lockgate wrote there: {error}. Restore that file, or remove it if the "
                "version before shall be the newest one.",
            ) from error

    def _require_free(self) -> None:
        """Confirm that a new table would be alone in its folder."""
        if self.store.fs.exists(f"{self.store.path}/_delta_log"):
            raise self.side.error("type", "there is a Delta table. Use 'format: delta', or another path.")
        if self.store.is_local and os.path.lexists(self._root / LINK):
            raise self.side.error(
                "other",
                f"'{self._root / LINK}' is there, but '{self._manifests}' has no manifest of what it leads to. "
                "Restore the manifests, or remove the folder to begin anew.",
            )

    def carried(self, schema: pl.Schema) -> pl.Schema:
        """The same dtypes; Parquet carries nearly all of them."""
        for name, dtype in schema.items():
            if not comes_back(dtype):
                raise self.side.error(
                    "type",
                    f"column {name!r} is {dtype}, and parquet cannot carry that. Turn it into another type with a "
                    "'calculate' or 'map' step, or drop it.",
                )
        return schema

    def folder(self, run_id: str) -> str:
        """The folder of the version that a run makes."""
        return f"{VERSIONS}/{run_id}"

    # --- publishing ---

    def proof(self, record: RunRecord) -> Proof:
        """The run, and the number that its version gets."""
        return {"run": record.run_id, "version": self.version + 1}

    def has(self, proof: Proof) -> bool:
        """Whether the version of that number is that run's."""
        manifest = self._read(proof["version"])
        return manifest is not None and manifest.run_id == proof["run"]

    def commit(self, change: Change, record: RunRecord, partition_by: Sequence[str]) -> None:
        """Create the manifest of the next version, unless somebody has."""
        removed = {file.path for file in change.removed}
        kept = [file for file in self.files if file.path not in removed]
        with self.store.mapped():
            if self.store.fs.exists(self._place(self.version + 1)):  # some endpoints know no conditions
                raise self._late()
            if not self.store.is_local:
                self._create(self._next([*kept, *change.added], change, record, partition_by))
                return
            files = [*_version_folders.moved(kept, record.run_id), *change.added]
            try:
                with _version_folders.completed(self._root, record.run_id, change.added, kept):
                    self._create(self._next(files, change, record, partition_by))
            except FileNotFoundError as error:  # so old by now that its files were removed
                if self._numbers()[:1] > [self.version]:
                    raise self._late() from error
                raise
        with suppress(LockgateError):  # it is committed; whoever loads the table next mends the link
            self._lead(record.run_id)

    def _next(
        self, files: Sequence[StagedFile], change: Change, record: RunRecord, partition_by: Sequence[str]
    ) -> Manifest:
        now = datetime.now(UTC).isoformat()
        whose = (record.run_id, record.pipeline, now)
        return Manifest(self.version + 1, *whose, change.schema, tuple(partition_by), tuple(files))

    def _create(self, manifest: Manifest) -> None:
        """Write a manifest where there is none.

        Raises:
            TargetBusyError: there is one, of another run.
        """
        place = self._place(manifest.version)
        try:
            if self.store.is_local:
                _create_file(Path(place), manifest.as_bytes(), manifest.run_id)
            else:
                self.store.fs.pipe_file(place, manifest.as_bytes(), mode="create")
        except OSError as error:
            if not lost(error):
                raise
            if not self.has({"run": manifest.run_id, "version": manifest.version}):  # a put that was sent twice
                raise self._late() from error

    def _late(self) -> LockgateError:
        return self.side.error("busy", f"another run committed version {self.version + 1} first. Run again.")

    def _lead(self, run_id: str) -> None:
        """Let the link lead to the newest version, which is this run's as far as the caller knows."""
        with self.store.mapped():
            while _version_folders.linked_to(self._root) != f"{VERSIONS}/{run_id}":
                _version_folders.lead_to(self._root, run_id)
                newest = self._newest()  # the last one to change the link sees the last commit
                run_id = newest.run_id if newest else run_id

    # --- afterwards ---

    def tidy(self) -> None:
        """Remove files that no version to be kept has, if they were committed once, or nobody can be at work there."""
        with suppress(LockgateError), self.store.mapped():  # left to the next run
            numbers = self._numbers()
            ends = self._versions_kept + 1
            kept = [manifest for number in numbers[:ends] if (manifest := self._read(number))]
            past = [manifest for number in numbers[ends : ends + _LOOKED_BACK] if (manifest := self._read(number))]
            self._remove_files(kept, past)
            self._remove_manifests(numbers[max(ends, _MANIFESTS_KEPT) :])
            if self.store.is_local:
                self._remove_halves()

    def _remove_files(self, kept: Sequence[Manifest], past: Sequence[Manifest]) -> None:
        needed = {file.path for manifest in kept for file in manifest.files}
        committed = {manifest.run_id for manifest in (*kept, *past)}
        committed |= {folder_of(file.path) for manifest in (*kept, *past) for file in manifest.files}
        forgotten = f"{datetime.now(UTC) - _FORGOTTEN:%Y%m%dT%H%M%S}"

        def over(run_id: str) -> bool:
            return run_id in committed or (_RUN.match(run_id) is not None and run_id < forgotten)

        places = self.store.fs.find(f"{self.store.path}/{VERSIONS}")
        paths = [place.removeprefix(f"{self.store.path}/") for place in places]
        gone = [path for path in paths if path not in needed and over(folder_of(path))]
        if not self.store.is_local:
            if gone:
                self.store.fs.rm([f"{self.store.path}/{path}" for path in gone])
            return
        for path in gone:
            (self._root / path).unlink(missing_ok=True)
        needed_folders = {manifest.run_id for manifest in kept}
        for folder in (self._root / VERSIONS).iterdir():
            if folder.name not in needed_folders and over(folder.name.removeprefix(".")):
                _version_folders.prune(folder)

    def _remove_manifests(self, numbers: Sequence[int]) -> None:
        if not numbers:
            return
        asked = {proof.get("version") for proof in self.journal.proofs()}
        places = [self._place(number) for number in numbers if number not in asked]
        if places:
            self.store.fs.rm(places)

    def _remove_halves(self) -> None:
        """Remove what killed runs had not written to its end."""
        forgotten = (datetime.now(UTC) - _FORGOTTEN).timestamp()
        for hidden in (*Path(self._manifests).glob(".*.new"), *self._root.glob(f".{LINK}.*.new")):
            if hidden.lstat().st_mtime < forgotten:
                hidden.unlink(missing_ok=True)


def _create_file(place: Path, text: bytes, run_id: str) -> None:
    """Create a file with these bytes, whole or not at all.

    Raises:
        FileExistsError: there is one.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    hidden = place.with_name(f".{place.name}.{run_id}.new")
    try:
        hidden.write_bytes(text)
        sync(hidden)
        os.link(hidden, place)
    finally:
        hidden.unlink(missing_ok=True)
    sync(place.parent)
