"""``backfill``: load the past again, window by window."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import click

from flows._cli._columns import aligned
from flows._cli._verb import Asked, name_argument, sets_option, verb
from transforms._words import counted

if TYPE_CHECKING:
    from flows._backfill import Part
    from flows._ledger import RunRecord
    from transforms._errors import LockgateError


@verb("backfill")
@name_argument
@click.option("--from", "start", required=True, metavar="A", help="Where it begins: 2024-01-01, or a number.")
@click.option("--to", "end", required=True, metavar="B", help="Where it ends; B itself is not loaded.")
@click.option(
    "--window", "step", required=True, metavar="W", help="How much a run loads: 1d, 6h, 1w, 1mo, or a number."
)
@click.option(
    "--parallel", type=click.IntRange(1, 32), default=1, show_default=True, metavar="N", help="Runs at a time."
)
@click.option("--resume", is_flag=True, help="Load only the windows that the newest such backfill has not loaded.")
@click.option("--dry-run", is_flag=True, help="Say which windows would be loaded, and load none.")
@sets_option
def command(
    asked: Asked,
    name: str,
    *,
    start: str,
    end: str,
    step: str,
    parallel: int,
    resume: bool,
    dry_run: bool,
    sets: list[str],
) -> int:
    """Load the past of the pipeline NAME again, from A to B of its cursor, a run for each window.

    What the target has of a window is replaced, and the cursor that goes forward stays where it is. A window that
    fails does not stop the others; the exit code tells.
    """
    from flows._backfill import Span, load, parts  # noqa: PLC0415 - other verbs do not run

    pipeline = asked.pipeline(name, sets)
    span = Span(start, end, step)
    wanted = parts(pipeline, span, resume=resume)
    if dry_run or not wanted:
        said = (
            "\n".join(f"{low} to {high}" for low, high in (part.window for part in wanted))
            or "nothing is left to load."
        )
        return asked.answer({"pipeline": name, "windows": [part.as_json() for part in wanted]}, f"{name}: {said}")
    progress = _Progress(name, len(wanted))
    results = list(load(pipeline, wanted, parallel=parallel, ended=progress.ended))
    asked.answer(_facts(name, results), _told(name, results))
    return 1 if any(error is not None for _part, _record, error in results) else 0


class _Progress:
    """A line on stderr for every window that has ended."""

    def __init__(self, name: str, windows: int) -> None:
        self._name, self._windows, self._done = name, windows, 0
        self._lock = threading.Lock()

    def ended(self, part: Part, record: RunRecord | None, error: LockgateError | None) -> None:
        from flows._secrets import redact  # noqa: PLC0415 - with its only use

        with self._lock:
            self._done += 1
            rows = f", {counted(record.rows.written, 'row')}" if record and error is None else ""
            status = "failed" if record is None else record.status
            line = f"{self._name}: {self._done} of {self._windows}: {' to '.join(part.window)} {status}{rows}"
            click.echo(redact(f"{line}: {error}" if error else line), err=True)


Results = list[tuple["Part", "RunRecord | None", "LockgateError | None"]]


def _facts(name: str, results: Results) -> dict[str, Any]:
    return {
        "pipeline": name,
        "windows": [
            {"window": list(part.window), **(record.as_json() if record else {"status": "failed"})}
            for part, record, _error in results
        ],
    }


def _told(name: str, results: Results) -> str:
    failed = [part for part, _record, error in results if error is not None]
    rows = [
        (*part.window, record.status, record.rows.written, record.rows.unchanged, record.rows.quarantined)
        for part, record, _error in results
        if record is not None
    ]
    header = ("from", "to", "status", "written", "unchanged", "quarantined")
    end = f"{name}: {counted(len(results) - len(failed), 'window')} loaded"
    end += f", {len(failed)} failed. Load them with --resume." if failed else "."
    return f"{aligned(rows, header=header, right=[3, 4, 5])}\n\n{end}"
