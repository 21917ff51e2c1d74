"""A run in a process of its own, which says where it is, and stops or fails where it is told to.

Nothing of Lockgate is replaced for it: the stages are wrapped, the run's record tells when it is asked whether it
balances and what it says, and the interpreter itself tells of every rename on the way to a target.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from flows import _stages, pipeline
from flows._certify import recording, scratch
from flows._config import Pipeline, load
from flows._ledger import RunRecord
from flows._plan import Plan
from flows._report import Silent
from flows._stages import Extracts, Run
from flows.targets._base import Chamber
from transforms._errors import LockgateError

#: Where a run can be stopped, in the order in which it comes there.
BOUNDARIES = (
    "before extract",
    "after extract",
    "after transform",
    "among the rows",
    "after validate",
    "in load, before the counts are balanced",
    "in load, before the ledger is written",
    "after load",
)
BALANCE, LEDGER = BOUNDARIES[5:7]


def between(target: int) -> str:
    """The boundary before the second target, or a later one, is published, and after the one before it was."""
    return f"in load, before target {target} is published"


@dataclass(frozen=True)
class Order:
    """What a child is to run; travels to it.

    Attributes:
        file, overrides, name: the configuration and the pipeline.
        mark: of the scratch copy.
        folder: of the recording.
        roots: folders of this machine in which renames are counted.
        stop: a boundary, or ``disk step 3``, where it waits to be killed or to be told to go on.
        fail: the same, where it fails.
    """

    file: str
    overrides: Mapping[str, str]
    name: str
    mark: str
    folder: Path
    variant: recording.Variant = "whole"
    seed: int = 0
    roots: tuple[str, ...] = ()
    stop: str | None = None
    fail: str | None = None

    def pipeline(self) -> Pipeline:
        """The scratch copy, over the recording."""
        real = load(self.file, overrides=self.overrides).pipeline(self.name)
        return recording.replayed(scratch.copied(real, self.mark), self.folder, self.variant, self.seed)


@dataclass
class _Watch(Silent):
    """Knows where the run is; tells whoever waits at the other end of the pipe."""

    order: Order
    pipe: Connection
    loading: bool = False
    steps: int = 0
    targets: int = 0
    passed: set[str] = field(default_factory=set)

    def at(self, boundary: str) -> None:
        """The run is there."""
        if boundary in self.passed:
            return
        self.passed.add(boundary)
        if boundary == self.order.stop:
            self.pipe.send(("at", boundary))
            self.pipe.recv()
        if boundary == self.order.fail:
            raise OSError(errno.EIO, "made to fail by certify")

    def rows(self, _read: int) -> None:
        """Some rows were read."""
        self.at("among the rows")

    def audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The interpreter is about to do something; count what moves files into their places."""
        if not self.loading or event not in {"os.rename", "os.link", "ctypes.dlsym"}:
            return
        ours = arguments[1] == "renameat2" if event == "ctypes.dlsym" else self._is_ours(arguments[1])
        if ours:
            self.steps += 1
            self.at(f"disk step {self.steps}")

    def _is_ours(self, place: Any) -> bool:
        return any(os.fsdecode(place).startswith(root) for root in self.order.roots)


_watch: _Watch


@dataclass
class _Record(RunRecord):
    """Tells when it is asked."""

    def balance(self) -> None:
        """The rows are where they will be, in a transaction that is still open; once for each target."""
        _watch.targets += 1
        _watch.at(BALANCE if _watch.targets == 1 else between(_watch.targets))
        super().balance()

    def as_json(self) -> dict[str, Any]:
        """The ledger is about to be written."""
        if self.status in {"published", "unchanged"} and _watch.loading:
            _watch.at(LEDGER)
        return super().as_json()


def _extract(run: Run) -> Extracts:
    _watch.at("before extract")
    extracts = _stages.extract(run)
    _watch.at("after extract")
    return extracts


def _transform(run: Run, extracts: Extracts) -> Plan:
    plan = _stages.transform(run, extracts)
    _watch.at("after transform")
    return plan


def _validate(run: Run, plan: Plan) -> Chamber:
    chamber = _stages.validate(run, plan)
    try:
        _watch.at("after validate")
    except BaseException:
        chamber.discard()
        raise
    return chamber


def _load(run: Run, chamber: Chamber) -> None:
    _watch.loading = True
    try:
        _stages.load(run, chamber)
    finally:
        _watch.loading = False
    _watch.at("after load")


def main(order: Order, environment: Mapping[str, str], pipe: Connection) -> None:
    """Run, tell, and end."""
    global _watch  # noqa: PLW0603 - one run a process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us hears it too, and ends us
    nothing = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):  # what steps print is not for whoever reads certify
        os.dup2(nothing, number)
    os.environ.clear()
    os.environ.update(environment)
    _watch = _Watch(order, pipe)
    sys.addaudithook(_watch.audited)
    copy = order.pipeline()
    record = _Record.start(copy.name, copy.target.label, copy.version)
    pipe.send(("began", record.run_id))
    pipe.send(("ended", _run(copy, record)))
    pipe.close()


def _run(copy: Pipeline, record: RunRecord) -> dict[str, Any]:
    started = time.monotonic()
    stages = pipeline.Stages(_extract, _transform, _validate, _load)
    error = None
    try:
        pipeline.resume(copy, record, stages=stages, reporter=_watch)
    except BaseException as raised:  # noqa: BLE001 - whatever a step raises is an outcome; Polars' panics too
        error = str(raised) if isinstance(raised, LockgateError) else f"{type(raised).__name__}: {raised}"
    return {
        "status": record.status,
        "error": error,
        "rows": record.as_json()["rows"],
        "columns": next((list(stage["columns"]) for stage in record.stages if stage["stage"] == "transform"), []),
        "steps": _watch.steps,
        "seconds": time.monotonic() - started,
    }
