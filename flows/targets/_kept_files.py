"""Quarantined rows in files beside the data: a Parquet file a run, and marks beside it for what became of its rows.

Nothing is ever written twice: whoever resolves rows adds a file of its own, so that marks can be filed away again
after a crash, and nobody's marks are lost to another's.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from flows import _quarantine
from flows._ledger import RunRecord
from flows._quarantine import KEPT, STATUSES, Quarantine, Status
from flows._storage import Store
from flows.targets._durable import replacing, safe
from flows.targets._sink import Sink

_KEPT = ".quarantine"
#: What became of rows: their new status, at which moment, by whom, and the numbers by the run that kept them.
Marking = dict[str, Any]


class SystemFiles:
    """Files of JSON in a store, each written whole.

    Args:
        store: the folder that they are in.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def _listed(self, folder: str, suffix: str = ".json") -> list[str]:
        """Names in a folder, but for those that are still being written."""
        with self.store.mapped():
            try:
                places = self.store.fs.ls(folder, detail=False)
            except FileNotFoundError:
                return []
        names = [place.rstrip("/").rpartition("/")[2] for place in places]
        return [name for name in names if name.endswith(suffix) and not name.startswith(".")]

    def _read(self, place: str) -> Any:
        with self.store.mapped():
            try:
                return json.loads(self.store.fs.cat_file(place))
            except FileNotFoundError:
                return None

    def _write(self, place: str, value: Any) -> None:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        if not self.store.is_local:
            self.store.fs.pipe_file(place, text)
            return
        with replacing(Path(place)) as hidden:
            hidden.write_bytes(text)

    def _remove(self, place: str) -> None:
        with suppress(FileNotFoundError):
            self.store.fs.rm_file(place)


class KeptFiles(SystemFiles):
    """The quarantine of one target.

    Args:
        store: the folder that it is in.
        root: its own folder there.
    """

    def __init__(self, store: Store, root: str) -> None:
        super().__init__(store)
        self._root = root

    def _folder(self, pipeline: str) -> str:
        return f"{self._root}/{safe(pipeline)}"

    def _place(self, pipeline: str, run_id: str) -> str:
        return f"{self._folder(pipeline)}/{run_id}{_KEPT}"

    # --- writing ---

    def keep(self, record: RunRecord, quarantine: Quarantine) -> None:
        """Keep the rows of a run."""
        if not quarantine.rows:
            return
        place = self._place(record.pipeline, record.run_id)
        if self.store.is_local:
            with replacing(Path(place)) as hidden:
                _write(quarantine, hidden)
            return
        with tempfile.TemporaryDirectory(prefix="lockgate-") as folder:
            file = Path(folder, "quarantine.parquet")
            _write(quarantine, file)
            self.store.fs.put_file(str(file), place)

    def mark(self, pipeline: str, marking: Marking) -> None:
        """Say what became of rows; saying it again changes nothing."""
        for run_id, numbers in marking["marks"].items():
            if numbers:
                said = {**marking, "marks": {run_id: numbers}}
                self._write(f"{self._folder(pipeline)}/{run_id}~{marking['by']}.json", said)

    def remove(self, pipeline: str, run_id: str) -> None:
        """Remove what is kept of a run."""
        for name in self._listed(self._folder(pipeline)):
            if name.startswith(f"{run_id}~"):
                self._remove(f"{self._folder(pipeline)}/{name}")
        self._remove(self._place(pipeline, run_id))

    def forget(self, pipeline: str, before: datetime, keep: str) -> None:
        """Remove what runs that began before a moment have kept, but for one."""
        for run_id in self.older(pipeline, before):
            if run_id != keep:
                self.remove(pipeline, run_id)

    # --- reading ---

    def run_ids(self, pipeline: str) -> list[str]:
        """Runs that have a file here, the oldest first; of some only the intent may be there."""
        return sorted(name.removesuffix(_KEPT) for name in self._listed(self._folder(pipeline), _KEPT))

    def older(self, pipeline: str, before: datetime) -> list[str]:
        """Those of them that began before a moment."""
        return [run_id for run_id in self.run_ids(pipeline) if run_id < f"{before:%Y%m%dT%H%M%S}"]

    def size(self, pipeline: str, run_id: str) -> int:
        """How many rows a run has kept."""
        with self.store.mapped(), self.store.fs.open(self._place(pipeline, run_id), "rb") as file:
            return int(pl.scan_parquet(file).select(pl.len()).collect().item())

    def waiting(self, pipeline: str, run_id: str, numbers: Sequence[int], promised: Sequence[Marking]) -> list[int]:
        """Those of the numbers that nothing became of."""
        if run_id not in self.run_ids(pipeline):
            return []
        marked = {number for mark in self._markings(pipeline, run_id, promised) for number in mark["marks"][run_id]}
        return sorted(set(numbers) - marked)

    def counts(self, record: dict[str, Any], promised: Sequence[Marking]) -> dict[str, Any]:
        """How many rows of a run are of each status."""
        pipeline, run_id = record["pipeline"], record["run_id"]
        numbers = range(self.size(pipeline, run_id))
        found = dict.fromkeys(numbers, "waiting")
        for mark in self._markings(pipeline, run_id, promised):
            found |= dict.fromkeys(mark["marks"][run_id], mark["status"])
        said = list(found.values())
        return {"run_id": run_id, **{status: said.count(status) for status in STATUSES}}

    def rows(self, record: dict[str, Any], promised: Sequence[Marking], status: Status | None) -> pl.DataFrame:
        """The rows of a run, with the columns of `KEPT`."""
        pipeline, run_id = record["pipeline"], record["run_id"]
        with self.store.mapped(), self.store.fs.open(self._place(pipeline, run_id), "rb") as file:
            rows = pl.read_parquet(file).with_row_index("number")
        rows = rows.with_columns(
            pl.col("number").cast(pl.Int64),
            run_id=pl.lit(run_id),
            config_version=pl.lit(record["config_version"]),
            quarantined_at=pl.lit(record["started_at"]),
            status=pl.lit("waiting"),
            resolved_at=pl.lit(None, pl.String),
            resolved_by=pl.lit(None, pl.String),
        )
        for mark in self._markings(pipeline, run_id, promised):
            whose = pl.col("number").is_in(mark["marks"][run_id])
            by = mark["by"] if mark["status"] == "replayed" else None
            said = {"status": mark["status"], "resolved_at": mark["at"], "resolved_by": by}
            rows = rows.with_columns(
                pl.when(whose).then(pl.lit(value, pl.String)).otherwise(name).alias(name)
                for name, value in said.items()
            )
        return rows.select(list(KEPT)).filter(pl.lit(value=True) if status is None else pl.col("status") == status)

    def _markings(self, pipeline: str, run_id: str, promised: Sequence[Marking]) -> list[Marking]:
        """What became of a run's rows, replays last: what was published counts, whatever somebody said beside it."""
        files = [name for name in self._listed(self._folder(pipeline)) if name.startswith(f"{run_id}~")]
        said = [self._read(f"{self._folder(pipeline)}/{name}") for name in files]
        known = [mark for mark in (*said, *promised) if mark and run_id in mark["marks"]]
        return sorted(known, key=lambda mark: (mark["status"] == "replayed", mark["at"]))


def _write(quarantine: Quarantine, file: Path) -> None:
    sink = Sink(pl.Schema(_quarantine.SCHEMA), lambda frame: frame.sink_parquet(file, compression="zstd"))
    try:
        for rows in quarantine:
            sink.put(rows)
    except BaseException:
        sink.abandon()
        raise
    sink.close()
