"""A run's record as people read it: how it ended, the ledger, the checks, and where to look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import click

from flows._cli._columns import aligned, indented
from flows._cli._terminal import per_second
from flows._ledger import RunRecord
from transforms._words import counted
from validations._errors import worst_first

_COLOURS = {"published": "green", "unchanged": "green", "refused": "yellow"}
_ALWAYS = ("read", "quarantined", "written")
_LEFT = ("filtered", "deduplicated", "aggregated", "quarantined", "written", "unchanged")
_CONSEQUENCES = {"quarantine": "to quarantine", "warn": "only a warning", "fail": "the load was refused"}


def told(record: RunRecord, see: Callable[[str], str], url: str | None = None) -> str:
    """The whole result of a run, several lines.

    Args:
        record: finished.
        see: writes the command of another verb.
        url: of the run in the Prefect UI, where there is one.
    """
    parts = [_headline(record), _ledger(record)]
    if record.checks:
        parts.append(aligned(map(_check, record.checks)))
    parts.append(aligned(_where(record, url)))
    heading, *rest = parts
    text = "\n\n".join([heading, *map(indented, rest)])
    return f"{text}\n\n{quarantined(record, see)}" if record.rows.quarantined else text


def quarantined(record: RunRecord, see: Callable[[str], str]) -> str:
    """How many rows were quarantined, by which rules, and how to see them; one line."""
    rows = record.rows.quarantined
    judged = counted(rows + record.staged, "row")
    verb = "was" if rows == 1 else "were"
    why = worst_first(
        {check["rule"]: check["violations"] for check in record.checks if check["on_violation"] == "quarantine"}
    )
    look = see(f"quarantine list {record.pipeline}")
    return f"{record.pipeline}: {rows:,} of {judged} {verb} quarantined ({why}). See: {look}"


def _headline(record: RunRecord) -> str:
    status = click.style(record.status, fg=_COLOURS.get(record.status, "red"), bold=True)
    how = f" ({record.published})" if record.status in {"published", "unchanged"} and record.published else ""
    rate = per_second(record.rows.read, record.seconds)
    return f"{record.pipeline}: {status}{how} in {record.seconds:.1f} s, {rate}"


def _ledger(record: RunRecord) -> str:
    return aligned(_lines(record), right=[1])


def _lines(record: RunRecord) -> Iterator[tuple[str, Any, str | None]]:
    """Every count that says something, and whether they add up."""
    rows = record.rows
    at_source = f"filtered at the source: {record.filtered_at_source}" if record.filtered_at_source else None
    yield "read", rows.read, at_source
    if rows.expanded:
        yield "expanded", rows.expanded, "by joins"
    for name in _LEFT:
        if name in _ALWAYS or getattr(rows, name):
            yield name, getattr(rows, name), None
    if record.status in {"published", "unchanged"}:
        sums = " + ".join(f"{getattr(rows, name):,} {name}" for name in _LEFT if getattr(rows, name))
        yield "balanced", rows.read + rows.expanded, f"= {sums or 'nothing'}"


def _check(check: dict[str, Any]) -> tuple[str, str, str | None]:
    if check["passed"]:
        return check["rule"], "held", None
    return check["rule"], counted(check["violations"], "violation"), _CONSEQUENCES[check["on_violation"]]


def _where(record: RunRecord, url: str | None) -> Iterator[tuple[str, str]]:
    if not record.targets:
        yield "table", record.target
    for name, each in record.targets.items():
        counts = f"{each['written']:,} written, {each['unchanged']:,} unchanged"
        yield f"target {name}", f"{each['target']}: {each['status']}, {counts}"
    yield "run", record.run_id
    if record.replays is not None:
        runs = f"{counted(len(record.replays), 'run')} in quarantine"
        yield "replay", f"{counted(sum(map(len, record.replays.values())), 'row')} of {runs}"
    if record.forgotten:
        yield "forgotten", f"{counted(record.forgotten, 'row')} of the quarantine, by retention_days"
    if url:
        yield "Prefect", url
