"""``quarantine list`` and ``quarantine show``: rows that broke a rule."""

from __future__ import annotations

import json
from typing import Any

import click

from flows._cli._columns import aligned, indented
from flows._cli._group import Verbs
from flows._cli._verb import Asked, limit_option, name_argument, verb
from transforms._words import counted

_RUNS = 100  # how far back a run is looked for in the ledger
_SHORT = 100  # characters of a row's values in a list

run_option = click.option("--run", "run_id", metavar="RUN", help="A run's id. Default: the newest that has such rows.")


@click.group("quarantine", cls=Verbs)
def command() -> None:
    """Look at the rows that broke a rule."""


@verb("list", group=command)
@name_argument
@run_option
@limit_option(20)
def list_rows(asked: Asked, name: str, run_id: str | None, limit: int) -> int:
    """List the runs with quarantined rows, and the rows of one.

    NAME is the pipeline. They are kept as they were read.
    """
    target = asked.pipeline(name).target
    runs = [_summary(run) for run in target.history(name, _RUNS) if run["rows"]["quarantined"]]
    rows = target.quarantined(name, run_id, limit)
    if not rows:
        return asked.answer({"runs": runs, "rows": []}, _nothing(name, run_id, runs))
    header = ("started", "run", "status", "rows", "rules")
    ledger = aligned(map(_run, runs), header=header, right=[3])
    table = aligned(map(_row, rows), header=("row", "rules", "values"), right=[0])
    look = asked.see(f"quarantine show {name} --run {rows[0]['run_id']}")
    shown = f"{counted(len(rows), 'row')} of run {rows[0]['run_id']}; whole rows: {look}"
    return asked.answer({"runs": runs, "rows": rows}, f"{ledger}\n\n{table}\n\n{shown}")


@verb("show", group=command)
@name_argument
@run_option
@click.option("--row", type=click.IntRange(min=0), metavar="N", help="Only the row with this number.")
@limit_option(20)
def show_rows(asked: Asked, name: str, run_id: str | None, row: int | None, limit: int) -> int:
    """Show whole rows, and the rules they broke.

    NAME is the pipeline; values are those that were read.
    """
    everything = 10**9
    rows = asked.pipeline(name).target.quarantined(name, run_id, limit if row is None else everything)
    chosen = [each for each in rows if row is None or each["row"] == row][:limit]
    if not chosen:
        return asked.answer([], _nothing(name, run_id, []) if row is None else f"{name}: no row {row} in quarantine.")
    return asked.answer(chosen, "\n\n".join(map(_whole, chosen)))


def _summary(run: dict[str, Any]) -> dict[str, Any]:
    blamed = [check for check in run["checks"] if check["violations"] and check["on_violation"] == "quarantine"]
    return {
        "started_at": run["started_at"],
        "run_id": run["run_id"],
        "status": run["status"],
        "rows": run["rows"]["quarantined"],
        "rules": {check["rule"]: check["violations"] for check in blamed},
    }


def _run(run: dict[str, Any]) -> tuple[object, ...]:
    from validations._errors import worst_first  # noqa: PLC0415 - a mistyped option is not worth half a second

    started = run["started_at"][:19].replace("T", " ")
    return started, run["run_id"], run["status"], run["rows"], worst_first(run["rules"])


def _row(row: dict[str, Any]) -> tuple[object, ...]:
    values = json.dumps(row["values"], ensure_ascii=False)
    short = values if len(values) <= _SHORT else f"{values[: _SHORT - 1]}…"
    return _number(row), ", ".join(row["reasons"]), short


def _whole(row: dict[str, Any]) -> str:
    values = ((name, json.dumps(value, ensure_ascii=False)) for name, value in row["values"].items())
    return f"row {_number(row)} of run {row['run_id']}: {', '.join(row['reasons'])}\n{indented(aligned(values))}"


def _number(row: dict[str, Any]) -> str:
    """As ``--row`` takes it; a row that steps had merged has none."""
    return "-" if row["row"] is None else str(row["row"])


def _nothing(name: str, run_id: str | None, runs: list[dict[str, Any]]) -> str:
    if run_id is None:
        return f"{name}: no rows in quarantine."
    known = f" Runs that have: {', '.join(run['run_id'] for run in runs)}." if runs else ""
    return f"{name}: no rows of run {run_id!r} in quarantine.{known}"
