"""Tells a person on stderr how a run is getting on: in place on a terminal, in lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

import click

from flows._ledger import RunRecord
from flows._report import Silent
from flows._secrets import redact

_EVERY_SECONDS = 5.0


class Watch(Silent, AbstractContextManager["Watch"]):
    """A reporter that keeps the record, for whoever shows how the run ended."""

    def __init__(self) -> None:
        self.record: RunRecord | None = None

    def began(self, record: RunRecord) -> None:
        """Keep the record."""
        self.record = record

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left on the screen."""


class Lines(Watch):
    """A line for every stage and warning, and now and then one for the rows; for logs and pipes."""

    def __init__(self, pipeline: str) -> None:
        super().__init__()
        self._pipeline = pipeline
        self._rate = Rate()
        self._said = 0.0

    def stage(self, name: str) -> None:
        """Write the stage's name."""
        self._rate = Rate()
        self._said = time.monotonic()
        self._write(name)

    def rows(self, read: int) -> None:
        """Write the rows read so far, every few seconds."""
        if time.monotonic() - self._said >= _EVERY_SECONDS:
            self._said = time.monotonic()
            self._write(self._rate.of(read))

    def warning(self, text: str) -> None:
        """Write it at once."""
        self._write(f"warning: {text}")

    def _write(self, text: str) -> None:
        click.echo(redact(f"{self._pipeline}: {text}"), err=True)


class Live(Watch):
    """One line that moves: the stage, the rows read and how many a second."""

    def __init__(self, pipeline: str) -> None:
        from rich.console import Console  # noqa: PLC0415 - 0.1 s that only a terminal needs
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - as above

        super().__init__()
        self._rate = Rate()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[said]}", markup=False),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._pipeline = pipeline
        self._task = self._progress.add_task(pipeline, total=None, said="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Clear the line."""
        self._progress.stop()

    def stage(self, name: str) -> None:
        """Show the stage's name."""
        self._rate = Rate()
        self._progress.update(self._task, description=f"{self._pipeline}: {name}")

    def rows(self, read: int) -> None:
        """Show the rows read so far."""
        self._progress.update(self._task, said=self._rate.of(read))

    def warning(self, text: str) -> None:
        """Write it above the line that moves, to stay."""
        self._progress.console.print(redact(f"{self._pipeline}: warning: {text}"), markup=False, highlight=False)


class Rate:
    """Rows and rows a second since it was made, in words."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def of(self, rows: int) -> str:
        """``40,000 rows read, 80,000 rows/s``."""
        return f"{rows:,} rows read, {per_second(rows, time.monotonic() - self._started)}"


def per_second(rows: int, seconds: float) -> str:
    """``80,000 rows/s``."""
    return f"{rows / max(seconds, 0.001):,.0f} rows/s"


def watching(pipeline: str) -> Watch:
    """The reporter that suits stderr."""
    return Live(pipeline) if sys.stderr.isatty() else Lines(pipeline)
