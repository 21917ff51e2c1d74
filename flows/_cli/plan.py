"""``plan``: what a run would do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from flows._cli._columns import aligned, indented
from flows._cli._verb import Asked, name_argument, sets_option, verb


@verb("plan")
@name_argument
@sets_option
def command(asked: Asked, name: str, sets: list[str]) -> int:
    """Show what a run of the pipeline NAME would do; reads no rows and changes nothing.

    Shown are what each source is asked for, the steps and how they run, the optimised plan, the
    columns, the checks, and what would become of the target.
    """
    from flows._explained import explained  # noqa: PLC0415 - a mistyped option is not worth half a second

    facts = explained(asked.pipeline(name, sets))
    for warning in facts["warnings"]:
        click.echo(f"{name}: warning: {warning}", err=True)
    return asked.answer(facts, _text(facts))


def _text(facts: dict[str, Any]) -> str:
    """A section for each part, in the order in which a run comes to them."""
    reads = {f"source {each['name']}" if each["name"] != "source" else "source": each for each in facts["sources"]}
    sections = {title: _source(each) for title, each in reads.items()}
    sections["steps"] = aligned((step["number"], step["step"], step["runs"]) for step in facts["steps"])
    sections["plan"] = facts["optimised_plan"]
    sections["columns"] = aligned(facts["columns"].items())
    sections["checks"] = _checks(facts)
    sections["guards"] = "\n".join(_guards(**facts["guards"]))
    sections[f"target {facts['target']}"] = "\n".join(facts["publishes"])
    return "\n\n".join(f"{title}\n{indented(body or 'none')}" for title, body in sections.items())


def _checks(facts: dict[str, Any]) -> str:
    checks = aligned((check["rule"], check["on_violation"], check["looks_at"]) for check in facts["checks"])
    most = f"{100 * facts['max_failed_ratio']:g} %"
    return f"{checks}\nrefused if more than {most} of the rows are rejected (max_failed_ratio)" if checks else ""


def _guards(max_removed_ratio: float, row_count: dict[str, Any]) -> Iterator[str]:
    most = f"{100 * max_removed_ratio:g} %"
    yield f"refused if more than {most} of the rows that are there would go (max_removed_ratio)"
    ends = "refused" if row_count["on_violation"] == "fail" else "a warning"
    far = f"more than {row_count['sensitivity']:g} spreads"
    yield f"{ends} if the rows read are {far} away from those of earlier runs (row_count)"


def _source(each: dict[str, Any]) -> str:
    at_source = each["filtered_at_source"]
    return f"{each['reads']}\nfiltered at the source: {at_source}" if at_source else str(each["reads"])
