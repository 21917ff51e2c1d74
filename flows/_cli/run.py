"""``run``: run pipelines now."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from flows._cli._group import INTERRUPTED
from flows._cli._verb import Asked, names_argument, sets_option, verb
from transforms._words import counted

if TYPE_CHECKING:
    from flows._config import Pipeline


@verb("run")
@names_argument
@click.option("--all", "every", is_flag=True, help="Run every pipeline of the configuration, in its order.")
@sets_option
@click.option(
    "--allow-shrink", is_flag=True, help="Publish also what leaves far fewer rows in the target, or none; this time."
)
@click.option(
    "--resume",
    "resumes",
    metavar="RUN",
    help="Go on from what the run RUN had landed, pages of an API, before it failed or was killed.",
)
@click.option("--full-refresh", is_flag=True, help="Forget what was loaded before, load all of it, replace the target.")
@click.option("--no-prefect", is_flag=True, help="Run the stages as plain functions: no server, no UI, a quick start.")
def command(asked: Asked, names: tuple[str, ...], *, every: bool, sets: list[str], no_prefect: bool, **how: Any) -> int:
    """Run the pipelines called NAME now, one after the other.

    After one that failed, the others are run only where its error_handling.strategy is `continue`; the exit code
    tells of the failure all the same.

    With --json, stdout is one object for each pipeline that was begun, also when it fails.
    """
    from flows._cli._running import never_began, run_and_show  # noqa: PLC0415 - other verbs do not run

    asked.facts = never_began(names[0] if names else None)
    pipelines = [_this_once(pipeline, **how) for pipeline in _asked_for(asked, names, every, sets)]
    if how["resumes"] is not None and (earlier := _published(pipelines)):
        rows = counted(earlier["rows"]["written"], "row")
        return asked.answer(
            earlier, f"{names[0]}: run {earlier['run_id']} was published, with {rows}. Nothing is left to do."
        )
    exit_code = 0
    for position, pipeline in enumerate(pipelines):
        code = run_and_show(pipeline, as_json=asked.as_json, prefect=not no_prefect, named=asked.named)
        exit_code = exit_code or code
        waiting = [other.name for other in pipelines[position + 1 :]]
        if code and waiting and not _goes_on(pipeline, code):
            click.echo(f"not run after that: {', '.join(waiting)}.", err=True)
            break
    return exit_code


def _asked_for(asked: Asked, names: tuple[str, ...], every: bool, sets: list[str]) -> list[Pipeline]:
    """Every pipeline is looked up before the first one runs."""
    if every == bool(names):
        raise click.UsageError(
            "--all is all of them. Remove the names" if every else "NAME is missing", click.get_current_context()
        )
    if every:
        names = tuple(asked.configuration().pipelines)
    return [asked.pipeline(name, sets) for name in dict.fromkeys(names)]


def _this_once(pipeline: Pipeline, *, allow_shrink: bool, full_refresh: bool, resumes: str | None) -> Pipeline:
    """The pipeline with what is asked of this run alone."""
    pipeline = pipeline.afresh() if full_refresh else pipeline
    return replace(pipeline, allows_shrink=allow_shrink, resumes=resumes)


def _published(pipelines: list[Pipeline]) -> dict[str, Any] | None:
    """The record of the run that is to be resumed, if it was published after all."""
    from flows.pipeline import published  # noqa: PLC0415 - only for those who resume

    if len(pipelines) > 1:
        raise click.UsageError("--resume is for one pipeline", click.get_current_context())
    (pipeline,) = pipelines
    return published(pipeline, pipeline.resumes or "")


def _goes_on(pipeline: Pipeline, code: int) -> bool:
    return code != INTERRUPTED and pipeline.error_handling.strategy == "continue"
