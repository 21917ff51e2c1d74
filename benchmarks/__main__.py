"""Runs every benchmark, or those named: ``python -m benchmarks [start] [batch] [memory] [files] ...``."""

from __future__ import annotations

import importlib
import os
import platform
import sys

BENCHMARKS = ("start", "batch", "memory", "prefect", "api", "lake", "files")


def main(names: list[str]) -> None:
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"{min(unknown)!r} is not a benchmark. Known: {', '.join(BENCHMARKS)}.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"Python {platform.python_version()}, {cores} cores for client and server, load {os.getloadavg()[0]:.1f}")
    for name in names or BENCHMARKS:
        importlib.import_module(f"benchmarks.{name}").main()


main(sys.argv[1:])
