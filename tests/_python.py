"""Processes that are ready at once: forked from one that has imported already what runs need.

A fresh interpreter imports for a second or two before it does anything, and crash tests start hundreds. A child is a
real process all the same, with files and memory of its own: it runs a program with arguments, and can be killed.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.reduction import DupFd
from typing import Any, Self

#: Polars, and what starts threads of its own when it is *used*, is only imported: threads are not forked.
PRELOADED = [
    *("flows.pipeline", "flows._config", "flows.targets._chamber", "flows.sources._scan_of_postgres"),
    *("adbc_driver_postgresql.dbapi", "pyarrow.parquet", "pandera.polars", "deltalake", "duckdb", "sqlglot", "httpx"),
]


class Child:
    """A program in a process of its own, as a `subprocess.Popen` with pipes for its output and its errors.

    Args:
        code: the program.
        arguments: what it has in `sys.argv`.
        variables: what its environment has besides ours.
        before: called in the child before the program; a function of a module.
    """

    def __init__(
        self,
        code: str,
        *arguments: str,
        variables: dict[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - closed with the child
        reads, writes = os.pipe()
        environment = dict(os.environ) | (variables or {})
        self._process = context.Process(
            target=_Program(code, arguments, environment, writes, self._errors.fileno(), before)
        )
        self._process.start()
        os.close(writes)
        self.stdout = os.fdopen(reads, encoding="utf-8")

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative is the signal that ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same as `returncode`."""
        return self.returncode

    def wait(self, timeout: float = 60) -> int:
        """Wait until it has ended."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("the child", timeout)
        return self._process.exitcode

    def communicate(self, timeout: float = 60) -> tuple[str, str]:
        """Wait until it has ended; what it printed, and its errors."""
        output = self.stdout.read()
        self.wait(timeout)
        self._errors.seek(0)
        errors = self._errors.read()
        self.stdout.close()
        self._errors.close()
        return output, errors

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self.stdout.close()
        self._errors.close()


class _Program:
    """What a child does; travels there with the ends of its pipes."""

    def __init__(
        self,
        code: str,
        arguments: tuple[str, ...],
        environment: dict[str, str],
        output: int,
        errors: int,
        before: Callable[[], None] | None,
    ) -> None:
        self._code, self._arguments, self._environment, self._before = code, arguments, environment, before
        self._ends: tuple[Any, Any] = (output, errors)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_ends": tuple(DupFd(end) for end in self._ends)}

    def __call__(self) -> None:
        for number, end in enumerate(self._ends, start=1):
            os.dup2(end.detach(), number)
        sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115 - for ever
        sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115 - for ever
        os.environ.clear()
        os.environ |= self._environment
        sys.argv = ["-c", *self._arguments]
        if self._before is not None:
            self._before()
        os._exit(_run(self._code))


def _run(code: str) -> int:
    try:
        exec(compile(code, "<child>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as an interpreter does
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
    return 0
