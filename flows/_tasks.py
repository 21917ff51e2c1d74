"""The stages as Prefect tasks, and the flow around them: a thin layer over `flows.pipeline`.

One task a stage, so that Prefect shows, times and retries them. Data stays in this process: flow and
tasks have no parameters and return nothing, so Prefect has nothing to store, hash or show. What people
read there (names, states, logs, artifacts) has passed `redact`.

Importing this module imports Prefect, which takes seconds: only runs in Prefect do.
"""

from __future__ import annotations

import os

os.environ.setdefault("DO_NOT_TRACK", "1")  # Prefect asks while it is imported, and would tell its makers

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec, TypeVar

import polars as pl
from prefect import Flow, State, Task, get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, refresh_global_settings_context
from prefect.states import Completed, Failed
from prefect.utilities.urls import url_for

from flows import _artifacts, _prefect_log, _server, _stages
from flows._config import Pipeline
from flows._errors import Locate, rendered
from flows._ledger import RunRecord
from flows._plan import Plan
from flows._quarantine import SCHEMA
from flows._report import Reporter, Silent
from flows._retry import JITTER, Policy, Stage, is_retryable
from flows._secrets import redact
from flows._stages import Run
from flows.pipeline import Stages, resume
from flows.targets._base import Chamber
from transforms._errors import LockgateError

P = ParamSpec("P")
T = TypeVar("T")

#: What a stage may raise, kept and raised again outside of Prefect; a panic of Polars is a failure like any other.
_FAILURES = (Exception, pl.exceptions.PanicException)
#: Seconds after which a stage is given up. The second reads no row; the others take as long as the data does (the
#: first lands what cannot be read twice), but a day is not work any more.
TIMEOUTS = {"extract": 86_400, "transform": 600, "validate": 86_400, "load": 86_400}


@dataclass
class Outcome:
    """What Prefect is not given: how a run ended, kept for whoever asked for it."""

    record: RunRecord | None = None
    error: BaseException | None = None
    url: str | None = None
    sample: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SCHEMA))


def run_in_prefect(pipeline: Pipeline, reporter: Reporter | None = None) -> tuple[RunRecord, str | None]:
    """Run a pipeline once, in Prefect; returns its record, and where the run is to be seen.

    A local server is started where none is configured. Prefect's own lines go to its log only: on the
    terminal, `reporter` speaks.

    Raises:
        LockgateError: nothing was published; the ledger has the record, where the target could be reached.
        PrefectServerError: Prefect failed before the run began.
    """
    _use(_server.ensure())
    outcome = Outcome()
    with _prefect_log.quiet_terminal():
        try:
            flow_of(pipeline.name, lambda: pipeline, outcome, reporter)(return_state=True)
        except Exception as error:  # noqa: BLE001 - whatever Prefect met on its way; our own are in `outcome`
            _hold_begun(outcome, error)
    if outcome.error is not None:
        raise outcome.error
    assert outcome.record is not None  # noqa: S101 - a flow that neither failed nor raised has one
    return outcome.record, outcome.url


def _hold_begun(outcome: Outcome, error: Exception) -> None:
    """Let what became of the data decide, not whether Prefect could be told."""
    said = redact(str(error)).split("\n", maxsplit=1)[0]
    if outcome.record is None or outcome.record.status == "running":
        raise _server.PrefectServerError(
            f"Prefect failed: {type(error).__name__}: {said}. Run again, or without Prefect: --no-prefect."
        ) from error
    outcome.record.warnings.append(f"Prefect could not be told how the run ended: {type(error).__name__}: {said}")


def _use(server: _server.Server) -> None:
    """Let this process, its threads and its children talk to `server`."""
    os.environ["PREFECT_API_URL"] = server.api
    refresh_global_settings_context()


# --- the flow ---


def flow_of(
    name: str,
    opened: Callable[[], Pipeline],
    outcome: Outcome | None = None,
    reporter: Reporter | None = None,
) -> Flow[[], State]:
    """The Prefect flow that runs a pipeline; for deployments too.

    Args:
        name: of the flow in Prefect.
        opened: loads the pipeline; what it raises fails the flow run.
        outcome: is filled in as the run goes.
        reporter: is told what happens, beside the log of the run in Prefect.
    """
    kept = outcome or Outcome()

    def run() -> State:
        try:
            pipeline = opened()
        except _FAILURES as error:
            kept.error = error
            return Failed(message=_one_line(error))
        return _conduct(pipeline, kept, reporter or Silent())

    return Flow(run, name=name, retries=0, persist_result=False, validate_parameters=False)


def _conduct(pipeline: Pipeline, outcome: Outcome, reporter: Reporter) -> State:
    """Run the pipeline inside the flow run that is under way, and leave its artifacts there."""
    _prefect_log.redact_lines()
    record = outcome.record = RunRecord.start(pipeline.name, pipeline.target.label, pipeline.version)
    _name_flow_run(pipeline, record, outcome)
    try:
        resume(pipeline, record, stages=_Tasks(pipeline, outcome).stages(), reporter=_prefect_log.Logging(reporter))
    except _FAILURES as error:
        outcome.error = error
        state: State = Failed(message=_one_line(error, pipeline.locate))
    else:
        outcome.error = None
        state = Completed(message=_summary(record))
    try:
        _artifacts.leave(record, outcome.sample)
    except Exception as error:  # noqa: BLE001 - whatever it is, it does not undo what became of the data
        get_run_logger().warning("no artifacts of this run: %s: %s", type(error).__name__, error)
    return state


def _name_flow_run(pipeline: Pipeline, record: RunRecord, outcome: Outcome) -> None:
    context = FlowRunContext.get()
    assert context is not None  # noqa: S101 - Prefect's own promise inside a flow
    assert context.flow_run is not None  # noqa: S101 - as above
    name = f"{pipeline.name} {record.run_id}"
    context.client.update_flow_run(
        context.flow_run.id,
        name=name,
        flow_version=pipeline.version,
        tags={*context.flow_run.tags, *pipeline.tags},
    )
    context.flow_run.name = name
    outcome.url = url_for("flow-run", obj_id=context.flow_run.id)


def _summary(record: RunRecord) -> str:
    rows = record.rows
    return (
        f"{record.status}: {rows.read:,} read, {rows.written:,} written, {rows.unchanged:,} unchanged, "
        f"{rows.quarantined:,} quarantined"
    )


def _one_line(error: BaseException, locate: Locate | None = None) -> str:
    """What Prefect shows of an error: ours in our words, others with their kind."""
    if isinstance(error, LockgateError):
        return redact(rendered(error, locate))
    return redact(f"{type(error).__name__}: {error}")


# --- the tasks ---


@dataclass
class _Attempts(Generic[T]):
    """What became of a stage's attempts: how many were made, the last one's error, the result."""

    made: int = 0
    error: BaseException | None = None
    results: list[T] = field(default_factory=list)


class _Tasks:
    """The stages of one run as tasks of the flow run that is under way."""

    def __init__(self, pipeline: Pipeline, outcome: Outcome) -> None:
        self._pipeline = pipeline
        self._outcome = outcome
        self._policy = Policy.of(pipeline.error_handling)
        self._before: list[State[Any]] = []

    def stages(self) -> Stages:
        """Each stage as a task."""
        return Stages(
            extract=self._tracked("extract", _stages.extract),
            transform=self._tracked("transform", _stages.transform),
            validate=self._tracked("validate", self._validate),
            load=self._tracked("load", _stages.load),
        )

    def _validate(self, run: Run, plan: Plan) -> Chamber:
        try:
            return _stages.validate(run, plan)
        finally:  # the rows are gone when the run is over
            self._outcome.sample = _artifacts.first_rows(run.quarantine)

    def _tracked(self, name: str, stage: Stage[P, T]) -> Stage[P, T]:
        """`stage` as a task that Prefect runs, and tries again, when it is called."""

        def tracked(run: Run, /, *args: P.args, **kwargs: P.kwargs) -> T:
            attempts: _Attempts[T] = _Attempts()

            def attempt() -> State | None:
                attempts.made, attempts.error = attempts.made + 1, None
                try:
                    attempts.results.append(stage(run, *args, **kwargs))
                except _FAILURES as error:
                    attempts.error = error
                    self._policy.tell(run, name, attempts.made, error)
                    return Failed(message=_one_line(error, self._pipeline.locate))
                return None

            state = self._task(name, attempt, attempts)(wait_for=self._before, return_state=True)
            self._before = [state]
            if attempts.results:
                return attempts.results[0]
            raise attempts.error or _timed_out(name)

        return tracked

    def _task(self, name: str, attempt: Callable[[], State | None], attempts: _Attempts[T]) -> Task[[], State | None]:
        def may_pass(*_: object) -> bool:
            return is_retryable(attempts.error)

        # Elsewhere a timeout could not interrupt anything, and Prefect would say so in every task's log.
        is_main = threading.current_thread() is threading.main_thread()
        return Task(
            attempt,
            name=name,
            task_run_name=name,
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=self._policy.retries,
            retry_delay_seconds=list(self._policy.delays),
            retry_jitter_factor=JITTER,
            retry_condition_fn=may_pass,
            timeout_seconds=TIMEOUTS[name] if is_main else None,
        )


def _timed_out(stage: str) -> LockgateError:
    return LockgateError(
        f"{stage} was given up after {TIMEOUTS[stage]:,} s. Nothing was published. "
        "See what holds it up (a lock, a slow query, a source that does not end), then run again."
    )
