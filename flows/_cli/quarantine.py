"""``quarantine``: rows that broke a rule, listed and shown; what becomes of them is in `_levers`."""

from __future__ import annotations

import json
from typing import Any

import click

from flows._cli import _levers
from flows._cli._columns import aligned, indented
from flows._cli._group import Verbs
from flows._cli._verb import Asked, limit_option, name_argument, verb
from transforms._words import counted

STATUSES = ("waiting", "replayed", "discarded")
_RUNS = 100  # how far back a run is looked for in the ledger
_SHORT = 100  # characters of a row's values in a list

run_option = click.option("--run", "run_id", metavar="RUN", help="A run's id. Default: the newest that has such rows.")


@click.group("quarantine", cls=Verbs)
def command() -> None:
    """Look at the rows that broke a rule, and say what becomes of them."""


for _lever in (_levers.replay, _levers.discard, _levers.export):
    command.add_command(_lever)


@verb("list", group=command)
@name_argument
@run_option
@_levers.status_option
@limit_option(20)
def list_rows(asked: Asked, name: str, run_id: str | None, status: Any, limit: int) -> int:
    """List the runs with quarantined rows, and the rows of one.

    NAME is the pipeline. They are kept as they were read.
    """
    target = asked.pipeline(name).target
    counts = {run["run_id"]: run for run in target.kept_counts(name)}
    known = (run for run in target.history(name, _RUNS) if run["run_id"] in counts)
    runs = [_summary(run, counts[run["run_id"]]) for run in known]
    rows = target.quarantined(name, run_id, limit, status)
    if not rows:
        return asked.answer({"runs": runs, "rows": []}, _nothing(name, run_id, runs))
    header = ("started", "run", "status", *STATUSES, "rules")
    ledger = aligned(map(_run, runs), header=header, right=[3, 4, 5])
    table = aligned(map(_row, rows), header=("row", "status", "rules", "values"), right=[0])
    look = asked.see(f"quarantine show {name} --run {rows[0]['run_id']}")
    shown = f"{counted(len(rows), 'row')} of run {rows[0]['run_id']}; whole rows: {look}"
    return asked.answer({"runs": runs, "rows": rows}, f"{ledger}\n\n{table}\n\n{shown}")


@verb("show", group=command)
@name_argument
@run_option
@click.option("--row", type=click.IntRange(min=0), metavar="N", help="Only the row with this number.")
@_levers.status_option
@limit_option(20)
def show_rows(asked: Asked, name: str, run_id: str | None, row: int | None, status: Any, limit: int) -> int:  # noqa: PLR0917 - options of one command
    """Show whole rows, and the rules they broke.

    NAME is the pipeline; values are those that were read.
    """
    everything = 10**9
    rows = asked.pipeline(name).target.quarantined(name, run_id, limit if row is None else everything, status)
    chosen = [each for each in rows if row is None or each["row"] == row][:limit]
    if not chosen:
        return asked.answer([], _nothing(name, run_id, []) if row is None else f"{name}: no row {row} in quarantine.")
    return asked.answer(chosen, "\n\n".join(map(_whole, chosen)))


def _summary(run: dict[str, Any], counts: dict[str, Any]) -> dict[str, Any]:
    blamed = [check for check in run["checks"] if check["violations"] and check["on_violation"] == "quarantine"]
    return {
        "started_at": run["started_at"],
        "run_id": run["run_id"],
        "status": run["status"],
        "rows": run["rows"]["quarantined"],
        **{status: counts[status] for status in STATUSES},
        "rules": {check["rule"]: check["violations"] for check in blamed},
    }


def _run(run: dict[str, Any]) -> tuple[object, ...]:
    from validations._errors import worst_first  # noqa: PLC0415 - a mistyped option is not worth half a second

    started = run["started_at"][:19].replace("T", " ")
    return started, run["run_id"], run["status"], *(run[status] for status in STATUSES), worst_first(run["rules"])


def _row(row: dict[str, Any]) -> tuple[object, ...]:
    values = json.dumps(row["values"], ensure_ascii=False)
    short = values if len(values) <= _SHORT else f"{values[: _SHORT - 1]}…"
    return _number(row), row["status"], ", ".join(row["reasons"]), short


def _whole(row: dict[str, Any]) -> str:
    values = ((name, json.dumps(value, ensure_ascii=False)) for name, value in row["values"].items())
    became = f"{row['status']} by run {row['resolved_by']}" if row["resolved_by"] else row["status"]
    heading = f"row {_number(row)} of run {row['run_id']}, {became}: {', '.join(row['reasons'])}"
    return f"{heading}\n{indented(aligned(values))}"


def _number(row: dict[str, Any]) -> str:
    """As ``--row`` takes it; a row that steps had merged has none."""
    return "-" if row["row"] is None else str(row["row"])


def _nothing(name: str, run_id: str | None, runs: list[dict[str, Any]]) -> str:
    if run_id is None:
        return f"{name}: no rows in quarantine."
    known = f" Runs that have: {', '.join(run['run_id'] for run in runs)}." if runs else ""
    return f"{name}: no rows of run {run_id!r} in quarantine.{known}"
