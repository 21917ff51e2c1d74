"""``validate``: check the configuration without reaching anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flows._cli._verb import Asked, verb
from flows._errors import ConfigError, Problem
from transforms._words import counted

if TYPE_CHECKING:
    from flows._config import Pipeline


@verb("validate")
@click.argument("name", required=False)
def command(asked: Asked, name: str | None) -> int:
    """Check the configuration, or the pipeline NAME of it, offline.

    Parses it, finds every source, step, rule and target that it names, and plans the steps and rules as far as
    columns are declared. What only the source knows, its types, is checked by plan.
    """
    from flows._offline import check  # noqa: PLC0415 - Polars and the SQL parser are for this verb, not for all

    configuration = asked.configuration()
    chosen = [configuration.pipeline(name)] if name else list(configuration.pipelines.values())
    checked = {pipeline.name: check(pipeline) for pipeline in chosen}
    problems = [
        Problem(error.message, ("pipelines", pipeline.name, *error.path), pipeline.locate(error.path))
        for pipeline in chosen
        for error in checked[pipeline.name].mistakes
    ]
    if problems:
        raise ConfigError(problems, file=configuration.file)
    facts = [_facts(pipeline, checked[pipeline.name].open_step) for pipeline in chosen]
    return asked.answer(facts, "\n".join(_line(asked, each) for each in facts))


def _facts(pipeline: Pipeline, open_step: str | None) -> dict[str, Any]:
    return {
        "pipeline": pipeline.name,
        "valid": True,
        "where": pipeline.locate(()),
        "type": pipeline.type,
        "steps": len(pipeline.steps),
        "rules": len(pipeline.rules) + len(pipeline.source_rules),
        "open_step": open_step,
    }


def _line(asked: Asked, facts: dict[str, Any]) -> str:
    steps, rules = counted(facts["steps"], "step"), counted(facts["rules"], "rule")
    said = f"{facts['pipeline']} is valid: {facts['type']}, {steps}, {rules}."
    if facts["open_step"]:
        look = asked.see(f"plan {facts['pipeline']}")
        return f"{said} From step {facts['open_step']!r} on, types matter that only the source knows. See: {look}"
    return said
