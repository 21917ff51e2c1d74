"""Measuring whole processes in turn, on one server, and printing their ratios."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from flows._embedded import DURABLE, Server

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Cost:
    """Wall seconds and peak resident bytes of one process."""

    seconds: float
    peak_bytes: int


@contextmanager
def server() -> Iterator[Server]:
    """A PostgreSQL of its own, as durable as any."""
    with TemporaryDirectory(prefix="lockgate-bench-") as folder:
        Path(folder).chmod(0o755)
        data = Path(folder, "postgres")
        data.mkdir(mode=0o755)
        started = Server(data, {**DURABLE, "max_wal_size": "8GB", "checkpoint_timeout": "1h"})
        started.start()
        try:
            yield started
        finally:
            started.remove()


def process(*command: str, environ: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end; its output is shown only when it fails."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **(environ or {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as child:
        assert child.stdout is not None
        output = child.stdout.read()
        _pid, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if child.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{output.decode()}")
    return Cost(seconds, usage.ru_maxrss * 1024)


def script(text: str) -> Cost:
    """Run a shell script to its end."""
    return process("bash", "-euc", text)


def in_turn(rounds: int, **measured: Callable[[], Cost]) -> dict[str, Cost]:
    """Measure each in turn, `rounds` times; the medians. One round before them does not count."""
    costs: dict[str, list[Cost]] = {name: [] for name in measured}
    for turn in range(rounds + 1):
        for name, measure in measured.items():
            cost = measure()
            if turn:
                costs[name].append(cost)
    return {
        name: Cost(statistics.median(c.seconds for c in taken), max(c.peak_bytes for c in taken))
        for name, taken in costs.items()
    }


def settle(uri: str) -> None:
    """Write what is dirty, so that no measured command pays for the one before it."""
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def show(title: str, limit: Cost, ours: Cost, goal: float) -> None:
    """Print one ratio beside its goal."""
    ratio = ours.seconds / limit.seconds
    verdict = "ok" if ratio <= goal else "MISSED"
    print(
        f"{title:58} {limit.seconds:7.2f} s {ours.seconds:7.2f} s {ratio:6.2f}x  (goal {goal}x) {verdict}", flush=True
    )
