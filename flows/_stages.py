"""The four stages of a run as plain functions, without Prefect: the only place that runs a plan.

    extract     opens the sources and learns their schemas; reads nothing
    transform   folds the steps into one plan; computes nothing
    validate    runs the plan once, streaming, into the chamber; judges rows, then the whole set
    load        publishes rows, quarantine and ledger in one transaction of the target

A flow written by hand composes the same functions and gets the same promises.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from flows import _plan, _usual
from flows._config import Pipeline
from flows._errors import RefusedError
from flows._ledger import Rows, RunRecord
from flows._opening import require_fresh, scanned
from flows._pass import Pass, Passed, read_rows_of
from flows._plan import Plan
from flows._quarantine import Quarantine
from flows._replay import note_replayed, without_whole_set
from flows._report import Reporter, Silent
from flows._workspace import Workspace
from flows.sources import _snapshots
from flows.sources._base import Extract
from flows.targets._base import Chamber, Violation
from transforms._errors import LockgateError, TransformError
from transforms._expressions import clock
from transforms._plan import Step
from transforms._words import counted
from validations._contract import BoundRule, Contract
from validations._errors import BrokenContractError, TooManyRejectedError
from validations._verdict import hold_ratio

Extracts = Mapping[str, Extract]


@dataclass
class Run:
    """What the stages of one run share.

    Attributes:
        record: the run's record, filled in as the run goes.
        folder: the run's workspace.
        quarantine: rows that broke a rule.
        reporter: is told what happens, for whoever watches.
        landed: is told of every file of the workspace from which another run could go on.
    """

    pipeline: Pipeline
    record: RunRecord
    folder: Path
    quarantine: Quarantine
    reporter: Reporter = field(default_factory=Silent)
    landed: Callable[[Path], None] = lambda _file: None

    @classmethod
    def begin(
        cls, pipeline: Pipeline, record: RunRecord, work: Workspace | Path, reporter: Reporter | None = None
    ) -> Run:
        """A run whose workspace, or the folder of it, is `work`; the reporter is told that it began."""
        folder = work if isinstance(work, Path) else work.folder
        run = cls(pipeline, record, folder, Quarantine(folder / "quarantine"), reporter or Silent())
        if not isinstance(work, Path):
            run.landed = work.landed
        run.reporter.began(record)
        return run

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, object]]:
        """Time a stage and leave its result in the record; a retried stage replaces its earlier result."""
        facts: dict[str, object] = {}
        started = time.monotonic()
        self.reporter.stage(name)
        status = "failed"
        try:
            yield facts
            status = "done"
        finally:
            seconds = round(time.monotonic() - started, 3)
            others = [stage for stage in self.record.stages if stage["stage"] != name]
            self.record.stages = [*others, {"stage": name, "status": status, "seconds": seconds, **facts}]

    def warn(self, warning: str) -> None:
        """Tell people, once."""
        if warning not in self.record.warnings:
            self.record.warnings.append(warning)
            self.reporter.warning(warning)


def extract(run: Run) -> Extracts:
    """Open every source and learn its schema; read no row.

    Raises:
        ExtractError: a source cannot be reached or read.
    """
    run.record.replays = {} if run.pipeline.is_replay else None
    run.record.forgets_before = run.pipeline.forgets_before(run.record.started_at)
    with run.stage("extract") as facts:
        try:
            extracts = scanned(run.pipeline, run.folder, run.record.run_id, run.landed)
        except BaseException:
            _snapshots.release()  # the session that keeps one may be what broke: another attempt takes its own
            raise
        for extracted in extracts.values():
            for warning in extracted.warnings:
                run.warn(warning)
        facts["columns"] = {name: len(extracted.schema) for name, extracted in extracts.items()}
    return extracts


def looked_at(pipeline: Pipeline) -> Extracts:
    """The sources of a pipeline, for whoever only wants to look: nothing is landed that is not looked at."""
    return scanned(pipeline)


def transform(run: Run, extracts: Extracts) -> Plan:
    """Fold the steps into one plan, and hold the rules against its columns; compute nothing.

    Raises:
        TransformError: a step does not fit, and ``on_transform_error`` is not ``skip``.
        ContractError: a rule does not fit.
    """
    with run.stage("transform") as facts, clock(run.record.started_at):
        plan = planned(run.pipeline, extracts)
        plan = without_whole_set(plan, run.warn)
        for skipped in plan.skipped:
            run.warn(skipped)
        run.record.filtered_at_source = plan.spine.pushed(plan.pushdown)
        facts["columns"] = {name: str(dtype) for name, dtype in plan.output.items()}
    return plan


def planned(pipeline: Pipeline, extracts: Extracts) -> Plan:
    """The plan of a pipeline over its extracts; what `transform`, ``plan`` and ``preview`` share."""
    (_first, spine), *others = extracts.items()
    steps, skipped = _fitting(pipeline, extracts)
    return _plan.make(
        spine,
        dict(others),
        steps,
        read_contract=lambda schema: _read_contract(pipeline.source_rules, schema),
        contract=lambda schema: _contract(pipeline.rules, schema, pipeline.model),
        skipped=skipped,
    )


def _fitting(pipeline: Pipeline, extracts: Extracts) -> tuple[list[Step], tuple[str, ...]]:
    """The steps that can be planned; all of them, unless the configuration says to skip."""
    if pipeline.error_handling.on_transform_error == "fail":
        return list(pipeline.steps), ()
    first, *_others = extracts
    frames = {name: pl.LazyFrame(schema=extracted.schema) for name, extracted in extracts.items()}
    frame = frames.pop(first)
    fitting, skipped = [], []
    for step in pipeline.steps:
        try:
            frame = step.apply(frame, frames)
        except TransformError as error:
            skipped.append(f"step {step.name!r} was skipped: {error}")
        else:
            fitting.append(step)
    return fitting, tuple(skipped)


def _contract(rules: tuple[BoundRule, ...], schema: pl.Schema, model: str | None) -> Contract:
    if model is None:
        return Contract.plan(rules, schema)
    from validations._model import load_model  # noqa: PLC0415 - Pandera takes time that only models need

    return Contract.plan(rules, schema, load_model(model))


def _read_contract(rules: tuple[BoundRule, ...], schema: pl.Schema) -> Contract:
    try:
        return Contract.plan(rules, schema)
    except LockgateError as error:  # the same rules, written in another place
        error.path = ("source", "rules", *error.path[1:])
        raise


def validate(run: Run, plan: Plan) -> Chamber:
    """Run the plan once, streaming, into a chamber of the target; judge rows, then the whole set.

    May be called again for the same run: it starts afresh. The caller closes the chamber.

    Raises:
        ExtractError: reading failed.
        LoadError: staging failed.
        ContractError: a rule that refuses the load was broken, or too many rows were rejected.
    """
    with run.stage("validate") as facts:
        run.record.rows, run.record.checks, run.record.guards = Rows(), [], run.pipeline.limits
        run.quarantine = Quarantine(run.folder / "quarantine")
        chamber = run.pipeline.target.open(run.record, plan.output, run.folder / "target")
        try:
            require_fresh(run.pipeline, plan.spine)
            for warning in chamber.warnings:
                run.warn(warning)
            plan = replace(plan, contract=plan.contract.with_checks(chamber.row_checks))
            passed = _passed(run, plan, chamber)
            run.record.staged = chamber.seal()
            _audit(run, plan, chamber, passed)
        except BaseException:
            chamber.discard()
            raise
        finally:
            _snapshots.release()
        facts["rows"] = run.record.staged
    return chamber


def _passed(run: Run, plan: Plan, chamber: Chamber) -> Passed:
    passed = Pass(plan, chamber.stage, run.quarantine, progress=run.reporter.rows).run()
    run.record.rows.read, run.record.rejected_as_read = passed.read, passed.rejected_as_read
    run.record.rows.quarantined = run.quarantine.rows
    run.record.steps = passed.steps
    run.record.add_left_out(plan.spine.left_out())
    run.record.tally()
    for told in plan.spine.told():
        run.warn(told)
    extracts = (plan.spine, *plan.sides.values())
    if run.pipeline.part is None:  # a past that is loaded again moves nothing forward
        run.record.state = {extract.name: extract.state() for extract in extracts if extract.state is not None}
    note_replayed(run.record, plan, run.warn)
    return passed


def _audit(run: Run, plan: Plan, chamber: Chamber, passed: Passed) -> None:
    """Whole-set rules on the chamber, first those that blame rows; then the verdict on the load."""
    violations = passed.violations
    failed = {label: violations[label] for label in passed.failed}
    set_rules = plan.contract.set_rules
    for rules in ([r for r in set_rules if r.blames_rows], [r for r in set_rules if not r.blames_rows]):
        for violation in chamber.audit(rules):
            rule = violation.rule
            violations[rule.label] = violation.rows or 1
            if rule.on_violation == "quarantine" and rule.blames_rows:
                _quarantine(run, plan, chamber, violation)
            elif rule.on_violation != "warn":
                failed[rule.label if violation.rows else f"{rule.label} ({violation.observed})"] = violation.rows or 1
    run.record.checks = plan.read_contract.summary(violations) + plan.contract.summary(violations)
    for check in run.record.checks:
        if not check["passed"] and check["on_violation"] == "warn":
            run.warn(f"{check['rule']}: {counted(check['violations'], 'row')} broke this rule, which only warns.")
    if failed:
        raise BrokenContractError(failed, path=(run.pipeline.name,))
    hold_ratio(
        run.pipeline.name,
        rejected=run.record.rows.quarantined,
        judged=run.record.rows.quarantined + run.record.staged,
        max_failed_ratio=run.pipeline.error_handling.max_failed_ratio,
        counts=violations,
    )


def _quarantine(run: Run, plan: Plan, chamber: Chamber, violation: Violation) -> None:
    """Move the blamed rows from the chamber to quarantine: as read, where they can be found again."""
    taken = chamber.take(violation)
    run.record.staged -= taken.values.len()
    reasons = [violation.rule.label]
    found = [] if plan.tail else list(read_rows_of(plan, taken.keys))
    if sum(rows.height for rows, _positions in found) == taken.values.len():
        for rows, positions in found:
            run.quarantine.add(rows, positions, pl.Series([reasons] * rows.height))
    else:  # merged by a step, or not to be found as it was: keep what was staged
        run.quarantine.add_texts(taken.values, pl.Series([reasons] * taken.values.len()))
    run.record.rows.quarantined = run.quarantine.rows


def load(run: Run, chamber: Chamber) -> None:
    """Publish the chamber, the quarantine and the ledger in one transaction of the target.

    May be called again for the same run: what was published stays published, once.

    Raises:
        LoadError: nothing was published.
        RefusedError: a guard refused; nothing was published.
        LedgerError: the rows do not add up; nothing was published.
    """
    with run.stage("load") as facts:
        if warning := _usual.hold(run.pipeline, run.record):
            run.warn(warning)
        published = chamber.publish(run.record, run.quarantine)
        facts["how"] = published.how
        for name in ("inserted", "updated", "unchanged", "deleted", "closed"):
            facts[name] = getattr(published, name)


#: Errors that say "refused": the data or a guard, not a failure of a system.
REFUSALS = (BrokenContractError, TooManyRejectedError, RefusedError)
