"""The batch flow: extract, transform, validate, load. Readable from top to bottom.

`run` is the whole of it; the stages it calls are plain functions (`_stages`) or the same ones
as Prefect tasks (`_tasks`). Whatever happens, a run that started leaves its record in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from flows import _stages
from flows._config import Pipeline
from flows._errors import as_json
from flows._ledger import RunRecord
from flows._plan import Plan
from flows._report import Reporter
from flows._retry import Policy, retried
from flows._secrets import redact
from flows._stages import REFUSALS, Extracts, Run
from flows._workspace import workspace
from flows.sources import _snapshots
from flows.targets._base import Chamber
from transforms._errors import LockgateError


@dataclass(frozen=True)
class Stages:
    """The four stages, as plain functions or as tasks."""

    extract: Callable[[Run], Extracts] = _stages.extract
    transform: Callable[[Run, Extracts], Plan] = _stages.transform
    validate: Callable[[Run, Plan], Chamber] = _stages.validate
    load: Callable[[Run, Chamber], None] = _stages.load


def run(pipeline: Pipeline, *, stages: Stages | None = None, reporter: Reporter | None = None) -> RunRecord:
    """Run a pipeline once; returns its record, with ``status`` published or unchanged.

    Raises:
        LockgateError: nothing was published; the ledger has the record, where the target could be reached.
    """
    record = RunRecord.start(pipeline.name, pipeline.target.label, pipeline.version)
    stages = stages or retried(Stages(), Policy.of(pipeline.error_handling))
    return resume(pipeline, record, stages=stages, reporter=reporter)


def resume(pipeline: Pipeline, record: RunRecord, *, stages: Stages, reporter: Reporter | None = None) -> RunRecord:
    """Run a pipeline under a record that was opened before."""
    with workspace(record.run_id) as folder, _snapshots.shared():
        this = Run.begin(pipeline, record, folder, reporter)
        try:
            _hold_runnable(this)
            plan = stages.transform(this, stages.extract(this))
            with stages.validate(this, plan) as chamber:
                stages.load(this, chamber)
        except BaseException as error:
            _leave_record(this, error)
            raise
    return record


def _hold_runnable(this: Run) -> None:
    """Say what the configuration asks for and this version does not do yet."""
    pipeline = this.pipeline
    if pipeline.type != "batch":
        raise LockgateError(
            f"pipelines of type {pipeline.type!r} cannot run in this version; 'batch' can. "
            "'validate', 'list' and 'show' work for all types.",
            path=("type",),
        )
    if pipeline.error_handling.strategy == "continue":
        this.warn("error_handling.strategy: 'continue' ends a failed run as 'fail' does in this version.")
    for position, alert in enumerate(pipeline.monitoring.alerts):
        this.warn(f"monitoring.alerts[{position}]: this version does not send {alert.type} alerts.")


def _leave_record(this: Run, error: BaseException) -> None:
    """Write how the run ended into the ledger, unless it was published after all."""
    record = this.record
    record.finish("refused" if isinstance(error, REFUSALS) else "failed")
    if isinstance(error, LockgateError):
        record.error = as_json(error, this.pipeline.locate)
    else:
        kind = type(error).__name__
        said = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or kind
        record.error = {"type": kind, "message": said}
    record.error["message"] = redact(record.error["message"])
    refused = record.status == "refused"
    record.rows.written = record.rows.unchanged = 0
    if not refused or record.is_replay:  # what a replay could not publish waits where it was
        record.rows.quarantined = 0
    with suppress(LockgateError):  # the target is what failed; the error that is raised says so
        this.pipeline.target.record(record, this.quarantine if refused and not record.is_replay else None)
