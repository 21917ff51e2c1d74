"""The command line: ``python -m flows <verb>``, also installed as ``lockgate``."""

from __future__ import annotations

import atexit
import gc
import sys

import click

from flows._cli._group import Verbs

gc.set_threshold(50_000)  # imports make many objects and hardly any garbage


@atexit.register
def _leave_garbage() -> None:
    """Nobody needs the garbage of a process that ends: searching for it took 0.15 s."""
    if "_duckdb" not in sys.modules:  # which tells people of leaks where it finds its objects alive
        gc.freeze()


@click.command(cls=Verbs)
def main() -> None:
    """Data pipelines: all or nothing, every row accounted for.

    Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 the data or a run
    failed, 2 the command line or the configuration.
    """


if __name__ == "__main__":
    main()
