"""``run``: run a pipeline now."""

from __future__ import annotations

import click

from flows._cli._verb import Asked, name_argument, sets_option, verb


@verb("run")
@name_argument
@sets_option
@click.option("--no-prefect", is_flag=True, help="Run the stages as plain functions: no server, no UI, a quick start.")
@click.option("--full-refresh", is_flag=True, help="Forget what was loaded before, load all of it, replace the target.")
def command(asked: Asked, name: str, sets: list[str], no_prefect: bool, full_refresh: bool) -> int:
    """Run the pipeline NAME now.

    With --json, stdout is one object, also when the run fails.
    """
    from flows._cli._running import never_began, run_and_show  # noqa: PLC0415 - other verbs do not run

    asked.facts = never_began(name)
    pipeline = asked.pipeline(name, sets)
    pipeline = pipeline.afresh() if full_refresh else pipeline
    return run_and_show(pipeline, as_json=asked.as_json, prefect=not no_prefect, named=asked.named)
