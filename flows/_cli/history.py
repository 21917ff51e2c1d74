"""``history``: the ledger of a pipeline."""

from __future__ import annotations

from typing import Any

from flows._cli._columns import aligned
from flows._cli._verb import Asked, limit_option, name_argument, verb

_HEADER = ("started", "run", "status", "read", "written", "unchanged", "quarantined", "seconds", "error")


@verb("history")
@name_argument
@limit_option(10)
def command(asked: Asked, name: str, limit: int) -> int:
    """Show the newest runs of the pipeline NAME, from the ledger beside its data."""
    pipeline = asked.pipeline(name)
    runs = pipeline.target.history(name, limit)
    if not runs:
        return asked.answer([], f"{name} has not run yet. Run it: {asked.see(f'run {name}')}")
    return asked.answer(runs, aligned(map(_row, runs), header=_HEADER, right=range(3, 8)))


def _row(run: dict[str, Any]) -> tuple[object, ...]:
    rows, error = run["rows"], run["error"]
    return (
        run["started_at"][:19].replace("T", " "), run["run_id"], run["status"], rows["read"], rows["written"],
        rows["unchanged"], rows["quarantined"], f"{run['seconds']:.1f}", error["message"] if error else None,
    )  # fmt: skip
