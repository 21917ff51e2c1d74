"""``list``: the configured pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows._cli._columns import aligned
from flows._cli._verb import Asked, verb

if TYPE_CHECKING:
    from flows._config import Pipeline


@verb("list")
def command(asked: Asked) -> int:
    """List the configured pipelines."""
    configuration = asked.configuration()
    facts = [_facts(pipeline) for pipeline in configuration.pipelines.values()]
    columns = ("name", "type", "schedule", "source", "target", "where")
    return asked.answer(facts, aligned(([each[column] for column in columns] for each in facts), header=columns))


def _facts(pipeline: Pipeline) -> dict[str, Any]:
    return {
        "name": pipeline.name,
        "type": pipeline.type,
        "schedule": _scheduled(pipeline),
        "source": ", ".join(source.type for source in pipeline.sources.values()),
        "target": pipeline.target.described,
        "where": pipeline.locate(()),
        "description": pipeline.description,
        "tags": pipeline.tags,
    }


def _scheduled(pipeline: Pipeline) -> str | None:
    schedule = pipeline.schedule
    if schedule is None:
        return None
    written = schedule.cron or schedule.rrule or f"every {schedule.interval:g} s"
    return written if schedule.timezone == "UTC" else f"{written} {schedule.timezone}"
