"""Runs a pipeline for a person or a program, and shows how it ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from flows._cli import _endings, _result
from flows._cli._terminal import Watch, watching
from flows._cli._verb import Asked
from flows._config import Pipeline
from flows._ledger import RunRecord
from flows._report import Reporter

Runner = Callable[[Pipeline, Reporter], tuple[RunRecord, str | None]]


def run_and_show(pipeline: Pipeline, *, as_json: bool = False, prefect: bool = True, named: str | None = None) -> int:
    """Run `pipeline` now; returns the exit code. Errors become one line, Ctrl-C another.

    Args:
        pipeline: to be run.
        as_json: print the run's record on stdout, one object, and nothing else there, whatever happens.
        prefect: run the stages as Prefect tasks; otherwise as plain functions.
        named: the configuration as named with ``--config``, for the commands that the result suggests.
    """
    asked = Asked(named, as_json, pipeline.locate)
    watch = Watch() if as_json else watching(pipeline.name)

    def facts() -> dict[str, Any]:
        return watch.record.as_json() if watch.record else never_began(pipeline.name)

    return _endings.ended(
        lambda: _run(pipeline, asked, watch, _in_prefect if prefect else _plain),
        name=pipeline.name,
        locate=lambda: pipeline.locate,
        facts=facts if as_json else None,
        interrupted="interrupted. Nothing was published.",
    )


def never_began(name: str | None) -> dict[str, Any]:
    """What is said of a run that has no record, for programs."""
    return {"pipeline": name, "run_id": None, "status": "failed"}


def _run(pipeline: Pipeline, asked: Asked, watch: Watch, runner: Runner) -> int:
    try:
        with watch:
            record, url = runner(pipeline, watch)
    except Exception:
        refused = watch.record
        if refused and refused.status == "refused" and not asked.as_json:
            asked.answer(None, _result.told(refused, asked.see))
        raise
    if asked.as_json:
        click.echo(json.dumps({**record.as_json(), "url": url}, ensure_ascii=False))
        return 0
    return asked.answer(None, _result.told(record, asked.see, url))


def _plain(pipeline: Pipeline, reporter: Reporter) -> tuple[RunRecord, None]:
    from flows.pipeline import run  # noqa: PLC0415 - only the one that is asked for

    return run(pipeline, reporter=reporter), None


def _in_prefect(pipeline: Pipeline, reporter: Reporter) -> tuple[RunRecord, str | None]:
    from flows._tasks import run_in_prefect  # noqa: PLC0415 - Prefect takes seconds to import

    return run_in_prefect(pipeline, reporter)
