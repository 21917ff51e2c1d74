"""The system files of targets that are files: the ledger, the quarantine and the state, in ``_lockgate/`` beside them.

    loads/PIPELINE/RUN.json          what became of a run
    quarantine/PIPELINE/RUN.quarantine  rows that broke a rule, as they were read: Parquet, which
                                     nobody takes for data who reads **/*.parquet
    quarantine/PIPELINE/RUN~BY.json  which of them a later run replayed, or somebody discarded
    state/PIPELINE.json              what the sources remember from load to load
    intents/TARGET/RUN.json          a load about to be published, and how to tell whether it was

A rename or a put is atomic, two of them are not. So a run first writes its whole record as an
*intent*, with a proof of what it is about to publish; then publishes, in one step; then files the
intent away. Whoever finds an intent asks the target for the proof: the load was published if, and
only if, the target has it. So the ledger and the data tell the same story, whenever a process dies.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from flows._ledger import RunRecord
from flows._quarantine import Marks, Quarantine, Status
from flows._storage import Store
from flows.targets import _kept
from flows.targets._durable import safe
from flows.targets._kept_files import KeptFiles, Marking, SystemFiles
from transforms._errors import LockgateError

FOLDER = "_lockgate"
Proof = dict[str, Any]
Entry = dict[str, Any]
_FORGOTTEN = timedelta(days=7)
_SECOND = len("20260131T235959")  # of a run id: what it sorts by


class Journal(SystemFiles):
    """The system files beside one target.

    Args:
        store: the folder that ``_lockgate/`` is in.
        name: the target's name in that folder.
        has: whether the target is, by now, what a proof tells. A proof is what `intend` was given: JSON values.
        folder: another one of the same store, as its file system says it.
    """

    def __init__(self, store: Store, name: str, has: Callable[[Proof], bool], folder: str | None = None) -> None:
        super().__init__(store)
        self._root = f"{(folder or store.path).rstrip('/')}/{FOLDER}"
        self._intents = f"{self._root}/intents/{safe(name)}"
        self._has = has
        self.quarantine = KeptFiles(store, f"{self._root}/quarantine")

    # --- publishing ---

    def intend(self, record: RunRecord, quarantine: Quarantine, proof: Proof) -> None:
        """Write down that a load is about to be published: its closed record, its state and its quarantine.

        Raises:
            LoadError: it cannot be written; nothing was published.
        """
        self._hold_waiting(record)
        if record.forgets_before is not None:
            record.forgotten = sum(self.quarantine.size(record.pipeline, run) for run in self._forgotten(record))
        with self.store.mapped():
            self.quarantine.keep(record, quarantine)
            self._write(self._intent(record.run_id), {**_entry(record), "proof": proof})

    def _hold_waiting(self, record: RunRecord) -> None:
        """Confirm that every row of a replay is waiting.

        Raises:
            TargetBusyError: one is not.
        """
        promised = self._promised(record.pipeline) if record.replays else []
        waiting = (
            self.quarantine.waiting(record.pipeline, run_id, numbers, promised)
            for run_id, numbers in (record.replays or {}).items()
        )
        _kept.hold_marked(record, sum(map(len, waiting)), self.store.side)

    def _forgotten(self, record: RunRecord) -> list[str]:
        """Runs whose quarantine is older than `record` wants to know."""
        older = self.quarantine.older(record.pipeline, record.forgets_before) if record.forgets_before else []
        return [run for run in older if run != record.run_id]

    def settle(self, run_id: str) -> None:
        """File the intent of a load away that was published, as far as that can be done now."""
        with suppress(LockgateError):  # it was published: an intent that stays says so, and the next run files it away
            self._settle(run_id)

    def withdraw(self, record: RunRecord) -> None:
        """Take an intent back; nothing was published."""
        with suppress(LockgateError), self.store.mapped():  # an intent that stays proves nothing
            self._remove(self._intent(record.run_id))
            self.quarantine.remove(record.pipeline, record.run_id)

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
            self.quarantine.remove(pipeline, run_id)

    def keep(self, record: RunRecord, quarantine: Quarantine | None) -> None:
        """Keep the record, and the quarantine, of a run that published nothing; one that did has its record already.

        Raises:
            LoadError: they cannot be written.
        """
        if self.find(record.pipeline, record.run_id) is not None:
            return
        with self.store.mapped():
            if quarantine is not None:
                self.quarantine.keep(record, quarantine)
            self._write(self._load(record.pipeline, record.run_id), {"record": record.as_json()})

    def remember(self, pipeline: str, state: Mapping[str, Any]) -> None:
        """Let `state` be all that the sources of a pipeline had remembered.

        Raises:
            LoadError: it cannot be written.
        """
        self.clear(alone=False)  # what a killed run published must not come back over it
        with self.store.mapped():
            self._write(self._state(pipeline), dict(state))

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

    def kept(self, pipeline: str, run_id: str | None = None, status: Status | None = None) -> Iterator[pl.DataFrame]:
        """Quarantined rows, a frame a run, the oldest first."""
        for record in sorted(self._quarantining(pipeline), key=lambda each: (each["started_at"], each["run_id"])):
            if run_id in {None, record["run_id"]}:
                yield self.quarantine.rows(record, self._promised(pipeline), status)

    def kept_counts(self, pipeline: str) -> list[dict[str, Any]]:
        """How many rows of each run are kept, by their status; the newest run first."""
        found = sorted(
            self._quarantining(pipeline), key=lambda each: (each["started_at"], each["run_id"]), reverse=True
        )
        promised = self._promised(pipeline)
        return [self.quarantine.counts(record, promised) for record in found]

    def discard(self, pipeline: str, marks: Marks) -> int:
        """Mark waiting rows as discarded."""
        promised = self._promised(pipeline)
        waiting = {
            run_id: self.quarantine.waiting(pipeline, run_id, numbers, promised) for run_id, numbers in marks.items()
        }
        with self.store.mapped():
            self.quarantine.mark(pipeline, _marking("discarded", waiting, f"discarded-{secrets.token_hex(4)}"))
        return sum(map(len, waiting.values()))

    def _quarantining(self, pipeline: str) -> Iterator[dict[str, Any]]:
        """The records of runs that have rows in quarantine; not of those that were only intended."""
        for run_id in self.quarantine.run_ids(pipeline):
            record = self.find(pipeline, run_id)
            if record is not None:
                yield record

    def _promised(self, pipeline: str) -> list[Marking]:
        """Marks of loads that were published, and that are not filed away yet."""
        entries = [entry for _run_id, entry in self._published() if entry["record"]["pipeline"] == pipeline]
        return [entry["marks"] for entry in entries if entry.get("marks")]

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
            if entry.get("marks"):
                self.quarantine.mark(pipeline, entry["marks"])
            if entry.get("forgets_before"):
                self.quarantine.forget(pipeline, datetime.fromisoformat(entry["forgets_before"]), keep=run_id)
            self._write(self._load(pipeline, run_id), {"record": entry["record"]})
            self._remove(self._intent(run_id))

    # --- files ---

    def _intent(self, run_id: str) -> str:
        return f"{self._intents}/{run_id}.json"

    def _load(self, pipeline: str, run_id: str) -> str:
        return f"{self._root}/loads/{safe(pipeline)}/{run_id}.json"

    def _state(self, pipeline: str) -> str:
        return f"{self._root}/state/{safe(pipeline)}.json"


def _entry(record: RunRecord) -> Entry:
    marks = _marking("replayed", record.replays, record.run_id) if record.replays else None
    forgets = record.forgets_before.isoformat() if record.forgets_before else None
    return {"record": record.as_json(), "state": record.state, "marks": marks, "forgets_before": forgets}


def _marking(status: Status, marks: Marks, by: str) -> Marking:
    return {"status": status, "at": datetime.now(UTC).isoformat(), "by": by, "marks": dict(marks)}
