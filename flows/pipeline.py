"""The batch flow: extract, transform, validate, load. Readable from top to bottom.

`run` is the whole of it; the stages it calls are plain functions (`_stages`) or the same ones
as Prefect tasks (`_tasks`). Whatever happens, a run that started leaves its record in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flows import _stages
from flows._config import Pipeline
from flows._errors import RefusedError, StagedRowsLostError, as_json
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

_LOOKED_AT = 100  # runs, when one is looked for in the ledger


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
    """Run a pipeline under a record that was opened before.

    Raises:
        ConfigError: nothing is left of the run that it is to resume.
    """
    record.resumes = pipeline.resumes
    record.backfill = pipeline.part.as_json() if pipeline.part else None
    with workspace(record.run_id, pipeline.name, pipeline.resumes) as work, _snapshots.shared():
        this = Run.begin(pipeline, record, work, reporter)
        try:
            _hold_runnable(this)
            plan = stages.transform(this, stages.extract(this))
            try:
                _publish(this, plan, stages)
            except StagedRowsLostError as error:
                if pipeline.error_handling.strategy != "retry":
                    raise
                this.warn(f"rows are read and staged again: {error}")
                _publish(this, plan, stages)
        except BaseException as error:
            if work.has_landed:
                this.warn(f"what had landed is kept. To go on from there: run {pipeline.name} --resume {record.run_id}")
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
    for position, alert in enumerate(pipeline.monitoring.alerts):
        this.warn(f"monitoring.alerts[{position}]: this version does not send {alert.type} alerts.")


def _publish(this: Run, plan: Plan, stages: Stages) -> None:
    with stages.validate(this, plan) as chamber:
        _hold_unpublished(this)
        stages.load(this, chamber)


def published(pipeline: Pipeline, run_id: str) -> dict[str, Any] | None:
    """The record of a run, as a result object, if it was published; looked for among the newest of the ledger."""
    found = pipeline.target.history(pipeline.name, _LOOKED_AT)
    return next((one for one in found if one["run_id"] == run_id and one["status"] in {"published", "unchanged"}), None)


def _hold_unpublished(this: Run) -> None:
    """Look again, now that the target is ours, whether the run that this one resumes is dead and unpublished.

    Raises:
        RefusedError: it was published meanwhile.
    """
    resumes = this.pipeline.resumes
    if resumes is not None and published(this.pipeline, resumes):
        raise RefusedError(f"{this.pipeline.name}: run {resumes} was published meanwhile. Nothing was loaded again.")


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
