"""What Prefect adds to a run, with its server already up."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import _customers
from benchmarks._bench import Cost, in_turn, process, server
from flows import _server

ROWS = 100_000
GOAL_SECONDS = 3


def main() -> None:
    print("\nprefect: what it adds to a run, its server already up, whole processes")
    api = _server.ensure().api
    with server() as postgres, TemporaryDirectory() as folder:
        uri = _customers.make(postgres, ROWS)
        config = Path(folder, "pipelines.yaml")
        config.write_text(_customers.config(uri, "ours", "overwrite"))

        def run(*options: str) -> Cost:
            command = (sys.executable, "-m", "flows", "run", "customers", "--json", "--config", str(config), *options)
            return process(*command, environ={"PREFECT_API_URL": api})

        costs = in_turn(5, plain=lambda: run("--no-prefect"), prefect=run)
    plain, prefect = costs["plain"].seconds, costs["prefect"].seconds
    print(
        f"without {plain:5.2f} s   in Prefect {prefect:5.2f} s   adds {prefect - plain:5.2f} s  (goal {GOAL_SECONDS} s)"
    )
