"""Runs in processes of their own: started from one that has imported already, watched, and killed."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

from flows._certify import child
from flows._certify.child import Order
from flows._secrets import redact

#: Imported, not used: what starts threads of its own when it is used must not be forked after that.
_PRELOADED = [
    *("flows._certify.child", "flows.targets._chamber", "flows.targets._attached", "flows.targets._file_chamber"),
    *("flows.targets._lake_chamber", "flows.targets._lake_delta", "flows.targets._lake_manifests", "deltalake"),
    *("flows.targets._sqlite", "flows.targets._duckdb", "flows.sources.file", "flows.sources.database"),
    *("adbc_driver_postgresql.dbapi", "adbc_driver_sqlite.dbapi", "pyarrow.parquet", "sqlglot", "httpx"),
]
_LONGEST_SECONDS = 3600.0
_PATHS = "PYTHONPATH"


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        killed: whether it ended by our signal.
        reached: the boundary where it stopped, if it got there.
        facts: what it said at its end; nothing if it was killed.
    """

    killed: bool = False
    reached: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def published(self) -> bool:
        """Whether it published, or found nothing to publish."""
        return self.facts.get("status") in {"published", "unchanged"}

    @property
    def why(self) -> str:
        """Why it did not."""
        return redact(str(self.facts.get("error") or "the run ended without a word")).partition("\n")[0]


@dataclass
class Runner:
    """Starts children and keeps count.

    Attributes:
        kills: how many were killed.
        run_ids: of all runs.
    """

    kills: int = 0
    run_ids: list[str] = field(default_factory=list)
    _processes: list[BaseProcess] = field(default_factory=list)

    def stop(self) -> None:
        """Kill what still runs; wherever we were interrupted, no run goes on."""
        for process in self._processes:
            _kill(process)

    def run(self, order: Order, *, meanwhile: Callable[[], object] | None = None) -> Outcome:
        """Run to the end.

        Args:
            order: what.
            meanwhile: done while the run waits at ``order.stop``.
        """
        outcome = Outcome()
        with _Child(order, self._processes) as process:
            for word, said in process.heard(self.run_ids):
                if word == "at":
                    outcome.reached = said
                    if meanwhile is not None:
                        meanwhile()
                    process.pipe.send("go")
                elif word == "ended":
                    outcome.facts = said
        return outcome

    def kill(self, order: Order, after_seconds: float | None = None) -> Outcome:
        """Run until ``order.stop``, or for some seconds since it began, and kill.

        A run that ended before that was not killed.
        """
        outcome = Outcome()
        with _Child(order, self._processes) as process:
            for word, said in process.heard(self.run_ids, after_seconds):
                if word == "ended":
                    outcome.facts = said
                elif word in {"at", "time"}:
                    outcome.reached = said
                    break
            outcome.killed = process.kill()
        self.kills += outcome.killed
        return outcome


def _context() -> ForkServerContext:
    """The server that forks; it looks for modules where this process does."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    earlier = os.environ.get(_PATHS)
    os.environ[_PATHS] = os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path)
    try:
        forkserver.ensure_running()
    finally:
        del os.environ[_PATHS]
        if earlier is not None:
            os.environ[_PATHS] = earlier
    return context


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Put off what would interrupt us, so that no process is started that nobody knows."""
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def _kill(process: BaseProcess) -> None:
    with suppress(ProcessLookupError):
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
    process.join()


class _Child:
    """A process, and our end of its pipe; it does not outlive the block."""

    def __init__(self, order: Order, processes: list[BaseProcess]) -> None:
        context = _context()
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=child.main, args=(order, dict(os.environ), theirs))
        with _undisturbed():
            self.process.start()
            processes[:] = [self.process]
        theirs.close()

    def heard(self, run_ids: list[str], after_seconds: float | None = None) -> Iterator[tuple[str, Any]]:
        """What it says, a word and what belongs to it; ``time`` when its time is over."""
        patience = _LONGEST_SECONDS
        while True:
            if not self.pipe.poll(patience):
                yield "time", "its time"
                return
            try:
                word, said = self.pipe.recv()
            except (EOFError, ConnectionResetError):
                return
            if word == "began":
                run_ids.append(said)
                patience = _LONGEST_SECONDS if after_seconds is None else after_seconds
            yield word, said

    def kill(self) -> bool:
        """SIGKILL, if it still runs."""
        _kill(self.process)
        return self.process.exitcode == -signal.SIGKILL

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.kill()
        self.process.join()
        self.pipe.close()
