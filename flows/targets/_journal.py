"""The system files of targets that are files: the ledger, the quarantine and the state, in ``_lockgate/`` beside them.

    loads/PIPELINE/RUN.json          what became of a run
    quarantine/PIPELINE/RUN.quarantine  rows that broke a rule, as they were read: Parquet, which
                                     nobody takes for data who reads **/*.parquet
    state/PIPELINE.json              what the sources remember from load to load
    intents/TARGET/RUN.json          a load about to be published, and how to tell whether it was

A rename or a put is atomic, two of them are not. So a run first writes its whole record as an
*intent*, with a proof of what it is about to publish; then publishes, in one step; then files the
intent away. Whoever finds an intent asks the target for the proof: the load was published if, and
only if, the target has it. So the ledger and the data tell the same story, whenever a process dies.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from flows import _quarantine
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows._storage import Store
from flows.targets._durable import replacing, safe
from flows.targets._sink import Sink
from transforms._errors import LockgateError

FOLDER = "_lockgate"
Proof = dict[str, Any]
Entry = dict[str, Any]
_FORGOTTEN = timedelta(days=7)
_SECOND = len("20260131T235959")  # of a run id: what it sorts by


class Journal:
    """The system files beside one target.

    Args:
        store: the folder that ``_lockgate/`` is in.
        name: the target's name in that folder.
        has: whether the target is, by now, what a proof tells. A proof is what `intend` was given: JSON values.
        folder: another one of the same store, as its file system says it.
    """

    def __init__(self, store: Store, name: str, has: Callable[[Proof], bool], folder: str | None = None) -> None:
        self.store = store
        self._root = f"{(folder or store.path).rstrip('/')}/{FOLDER}"
        self._intents = f"{self._root}/intents/{safe(name)}"
        self._has = has

    # --- publishing ---

    def intend(self, record: RunRecord, quarantine: Quarantine, proof: Proof) -> None:
        """Write down that a load is about to be published: its closed record, its state and its quarantine.

        Raises:
            LoadError: it cannot be written; nothing was published.
        """
        with self.store.mapped():
            self._keep_quarantine(record, quarantine)
            self._write(self._intent(record.run_id), {**_entry(record), "proof": proof})

    def settle(self, run_id: str) -> None:
        """File the intent of a load away that was published, as far as that can be done now."""
        with suppress(LockgateError):  # it was published: an intent that stays says so, and the next run files it away
            self._settle(run_id)

    def withdraw(self, record: RunRecord) -> None:
        """Take an intent back; nothing was published."""
        with suppress(LockgateError), self.store.mapped():  # an intent that stays proves nothing
            self._remove(self._intent(record.run_id))
            self._remove(self._quarantine(record.pipeline, record.run_id))

    def clear(self, *, alone: bool = True) -> None:
        """File away what killed runs published, and take back what they only intended.

        Args:
            alone: whether no other run can be publishing, because a lock is held. Otherwise an intent
                that proves nothing may still be somebody's, and stays for some days.

        Raises:
            LoadError: the files cannot be read or written.
        """
        forgotten = f"{datetime.now(UTC) - _FORGOTTEN:%Y%m%dT%H%M%S}"
        for run_id, entry in self._intended():
            if self._has(entry["proof"]):
                self._settle(run_id)
            elif alone or run_id < forgotten:
                self.forget(entry["record"]["pipeline"], run_id)

    def forget(self, pipeline: str, run_id: str) -> None:
        """Take back what a killed run intended, and the quarantine that it had kept already.

        Raises:
            LoadError: the files cannot be removed.
        """
        with self.store.mapped():
            self._remove(self._intent(run_id))
            self._remove(self._quarantine(pipeline, run_id))

    def keep(self, record: RunRecord, quarantine: Quarantine | None) -> None:
        """Keep the record, and the quarantine, of a run that published nothing; one that did has its record already.

        Raises:
            LoadError: they cannot be written.
        """
        if self.find(record.pipeline, record.run_id) is not None:
            return
        with self.store.mapped():
            if quarantine is not None:
                self._keep_quarantine(record, quarantine)
            self._write(self._load(record.pipeline, record.run_id), {"record": record.as_json()})

    # --- reading ---

    def find(self, pipeline: str, run_id: str) -> dict[str, Any] | None:
        """The record of a run as a result object, or None."""
        intended = next((entry for one, entry in self._published() if one == run_id), None)
        entry = intended or self._read(self._load(pipeline, run_id))
        return entry["record"] if entry else None

    def proofs(self) -> list[Proof]:
        """What tells, of every load that is not filed away yet, whether it was published."""
        return [entry["proof"] for _run_id, entry in self._intended()]

    def state(self, pipeline: str) -> dict[str, Any]:
        """What the sources of a pipeline had remembered with the newest published load, by their names."""
        state: dict[str, Any] = self._read(self._state(pipeline)) or {}
        for _run_id, entry in self._published():
            if entry["record"]["pipeline"] == pipeline:
                state |= entry["state"]
        return state

    def history(self, pipeline: str, limit: int) -> list[dict[str, Any]]:
        """The newest runs of a pipeline as result objects, newest first."""
        records = [entry["record"] for _run_id, entry in self._published() if entry["record"]["pipeline"] == pipeline]
        found = {record["run_id"] for record in records}
        records += [record for record in self._records(pipeline, limit) if record["run_id"] not in found]
        return sorted(records, key=lambda record: (record["started_at"], record["run_id"]), reverse=True)[:limit]

    def quarantined(self, pipeline: str, run_id: str | None, limit: int) -> list[dict[str, Any]]:
        """Quarantined rows of one run; of the newest run that has any where `run_id` is None."""
        known = self.find(pipeline, run_id) if run_id else self._newest_quarantine(pipeline)
        if known is None or not known["rows"]["quarantined"]:
            return []
        with self.store.mapped(), self.store.fs.open(self._quarantine(pipeline, known["run_id"]), "rb") as file:
            rows = pl.read_parquet(file, n_rows=limit)
        return [
            {"run_id": known["run_id"], **row, "values": json.loads(row["values"])}
            for row in rows.iter_rows(named=True)
        ]

    def _newest_quarantine(self, pipeline: str) -> dict[str, Any] | None:
        limit = 32
        while True:
            records = self.history(pipeline, limit)
            known = next((record for record in records if record["rows"]["quarantined"]), None)
            if known is not None or len(records) < limit:
                return known
            limit *= 8

    def _records(self, pipeline: str, limit: int) -> Iterator[dict[str, Any]]:
        """At least the `limit` newest, as far as names tell: runs of one second come in any order."""
        names = sorted(self._listed(f"{self._root}/loads/{safe(pipeline)}"), reverse=True)
        last = names[limit - 1][:_SECOND] if 0 < limit <= len(names) else ""
        for name in names:
            if name[:_SECOND] < last:
                return
            entry = self._read(f"{self._root}/loads/{safe(pipeline)}/{name}")
            if entry is not None:
                yield entry["record"]

    # --- intents ---

    def _intended(self) -> list[tuple[str, Entry]]:
        names = [name.removesuffix(".json") for name in sorted(self._listed(self._intents))]
        return [(name, entry) for name in names if (entry := self._read(self._intent(name))) is not None]

    def _published(self) -> list[tuple[str, Entry]]:
        """Intents of loads that were published all the same: their process died before it filed them away."""
        return [(run_id, entry) for run_id, entry in self._intended() if self._has(entry["proof"])]

    def _settle(self, run_id: str) -> None:
        with self.store.mapped():
            entry = self._read(self._intent(run_id))
            if entry is None:
                return
            pipeline = entry["record"]["pipeline"]
            if entry["state"]:
                self._write(self._state(pipeline), (self._read(self._state(pipeline)) or {}) | entry["state"])
            self._write(self._load(pipeline, run_id), {"record": entry["record"]})
            self._remove(self._intent(run_id))

    # --- files ---

    def _intent(self, run_id: str) -> str:
        return f"{self._intents}/{run_id}.json"

    def _load(self, pipeline: str, run_id: str) -> str:
        return f"{self._root}/loads/{safe(pipeline)}/{run_id}.json"

    def _state(self, pipeline: str) -> str:
        return f"{self._root}/state/{safe(pipeline)}.json"

    def _quarantine(self, pipeline: str, run_id: str) -> str:
        return f"{self._root}/quarantine/{safe(pipeline)}/{run_id}.quarantine"

    def _listed(self, folder: str) -> list[str]:
        """Names in a folder, but for those that are still being written."""
        with self.store.mapped():
            try:
                places = self.store.fs.ls(folder, detail=False)
            except FileNotFoundError:
                return []
        names = [place.rstrip("/").rpartition("/")[2] for place in places]
        return [name for name in names if name.endswith(".json") and not name.startswith(".")]

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

    def _keep_quarantine(self, record: RunRecord, quarantine: Quarantine) -> None:
        if not quarantine.rows:
            return
        place = self._quarantine(record.pipeline, record.run_id)
        if self.store.is_local:
            with replacing(Path(place)) as hidden:
                _write_quarantine(quarantine, hidden)
            return
        with tempfile.TemporaryDirectory(prefix="lockgate-") as folder:
            file = Path(folder, "quarantine.parquet")
            _write_quarantine(quarantine, file)
            self.store.fs.put_file(str(file), place)


def _entry(record: RunRecord) -> Entry:
    return {"record": record.as_json(), "state": record.state}


def _write_quarantine(quarantine: Quarantine, file: Path) -> None:
    sink = Sink(pl.Schema(_quarantine.SCHEMA), lambda frame: frame.sink_parquet(file, compression="zstd"))
    try:
        for rows in quarantine:
            sink.put(rows)
    except BaseException:
        sink.abandon()
        raise
    sink.close()
