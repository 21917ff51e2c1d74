"""Commands that need no Prefect start at once."""

from __future__ import annotations

import sys

from benchmarks._bench import in_turn, process

GOAL_SECONDS = 0.8


def main() -> None:
    print("\nstart: whole processes")
    costs = in_turn(
        5,
        python=lambda: process(sys.executable, "-c", "pass"),
        list=lambda: process(sys.executable, "-m", "flows", "list", "--config", "flows/customer_etl.yaml"),
    )
    print(f"python -c pass        {costs['python'].seconds:6.2f} s")
    print(f"python -m flows list  {costs['list'].seconds:6.2f} s  (goal {GOAL_SECONDS} s)")
