"""Memory of the client does not grow with the rows."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import _customers
from benchmarks._bench import process, server

MIB = 1 << 20


def main() -> None:
    print("\nmemory: peak of the client process, overwrite")
    peaks = {}
    with server() as postgres, TemporaryDirectory() as folder:
        for rows in (1_000_000, 5_000_000):
            uri = _customers.make(postgres, rows)
            config = Path(folder, f"{rows}.yaml")
            config.write_text(_customers.config(uri, "ours", "overwrite"))
            command = (sys.executable, "-m", "flows", "run", "customers", "--no-prefect", "--json")
            peaks[rows] = max(process(*command, "--config", str(config)).peak_bytes for _ in range(3))
            print(f"{rows:>12,} rows {peaks[rows] / MIB:8.0f} MiB  (goal 300 MiB)", flush=True)
    print(f"5M / 1M rows {peaks[5_000_000] / peaks[1_000_000]:8.2f}x     (goal 1.2x)")
