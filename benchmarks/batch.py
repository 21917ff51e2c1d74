"""A database to database load, beside the fastest the server itself can do."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from benchmarks import _customers
from benchmarks._bench import Cost, in_turn, process, script, server, settle, show

ROUNDS = 3


def main() -> None:
    print("\nbatch: customers, filter + calculate + contract, whole processes     limit     ours   ratio")
    with server() as postgres, TemporaryDirectory() as folder:
        for rows in (1_000_000, 5_000_000):
            uri = _customers.make(postgres, rows)
            _overwrite(uri, rows, Path(folder))
            if rows == 1_000_000:
                _upsert(uri, rows, Path(folder), "nothing changed", "false")
                _upsert(uri, rows, Path(folder), "1 % changed", "customer_id % 100 = 0")
                _upsert(uri, rows, Path(folder), "all changed", "true")


def _run(config: Path, uri: str) -> Cost:
    settle(uri)
    return process(sys.executable, "-m", "flows", "run", "customers", "--no-prefect", "--json", "--config", str(config))


def _overwrite(uri: str, rows: int, folder: Path) -> None:
    config = folder / f"overwrite_{rows}.yaml"
    config.write_text(_customers.config(uri, "ours", "overwrite"))

    def limit() -> Cost:
        settle(uri)
        return script(_customers.copy_overwrite(uri))

    costs = in_turn(ROUNDS, limit=limit, ours=lambda: _run(config, uri))
    show(f"overwrite {rows:,} against COPY | COPY, key, swap", costs["limit"], costs["ours"], 1.8)


def _upsert(uri: str, rows: int, folder: Path, title: str, changed: str) -> None:
    config = folder / "upsert.yaml"
    config.write_text(_customers.config(uri, "ours", "upsert"))
    statement = _customers.insert_on_conflict(uri, "limit_table")

    def reset(table: str) -> None:
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(f"UPDATE {table} SET name = name || '*' WHERE {changed}")
            connection.execute(f"VACUUM (FULL, ANALYZE) {table}")
        settle(uri)

    def limit() -> Cost:
        reset("limit_table")
        return script(statement)

    def ours() -> Cost:
        reset("ours")
        return _run(config, uri)

    costs = in_turn(ROUNDS, limit=limit, ours=ours)
    show(f"upsert {rows:,}, {title}, against INSERT ON CONFLICT", costs["limit"], costs["ours"], 1.25)
