"""A load of 1,000 partitions into a lake, and what publishing it reads and takes, beside Delta's own writer."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import polars as pl

from benchmarks._bench import Cost, in_turn, process

ROUNDS = 3
ROWS = 1_000_000
PARTITIONS = 1_000

#: Staging and publishing as a run does them; says what publishing took, and how many bytes it read.
OURS = """
import json, sys, time
from pathlib import Path
import polars as pl
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.targets._base import targets
def read():
    return int(Path("/proc/self/io").read_text().split()[1])
source, lake, said, format_ = sys.argv[1:]
keys = {"type": "data_lake", "path": lake, "partition_by": "p", "write_mode": "overwrite", "format": format_}
target = targets.get("data_lake").model_validate(keys)
record = RunRecord.start("bench", target.label, "1")
scan = pl.scan_parquet(source)
with target.open(record, scan.collect_schema()) as chamber:
    for batch in scan.collect_batches(engine="streaming", lazy=True):
        record.rows.read += batch.height
        chamber.stage(batch)
    record.staged = chamber.seal()
    began, before = time.perf_counter(), read()
    chamber.publish(record, Quarantine(Path(lake, "q")))
    Path(said).write_text(json.dumps([time.perf_counter() - began, read() - before]))
"""
#: The same rows by the writer that comes with Delta Lake.
PEER = """
import sys, polars as pl
from deltalake import write_deltalake
write_deltalake(sys.argv[2], pl.read_parquet(sys.argv[1]).to_arrow(), partition_by=["p"], mode="overwrite")
"""


def main() -> None:
    print(f"\nlake: {ROWS:,} rows into {PARTITIONS:,} partitions; whole processes     peer     ours   ratio")
    with tempfile.TemporaryDirectory(prefix="lockgate-bench-") as name:
        folder = Path(name)
        source, said = folder / "rows.parquet", folder / "said"
        rows = pl.select(id=pl.int_range(ROWS)).with_columns(
            p=pl.col("id").hash(7) % PARTITIONS, text=pl.format("customer {}", "id"), value=pl.col("id") * 0.5
        )
        rows.with_columns(pl.col("p").cast(pl.Int64)).write_parquet(source)

        def fresh(code: str, *more: str) -> Cost:
            lake = folder / "lake"
            shutil.rmtree(lake, ignore_errors=True)
            return process(sys.executable, "-c", code, str(source), str(lake), *more)

        costs = in_turn(
            ROUNDS,
            peer=lambda: fresh(PEER),
            parquet=lambda: fresh(OURS, str(said), "parquet"),
            delta=lambda: fresh(OURS, str(said), "delta"),
        )
        seconds, read = json.loads(said.read_text())
        files = sum(1 for _file in (folder / "lake").rglob("*.parquet"))
        size = sum(file.stat().st_size for file in (folder / "lake").rglob("*.parquet"))
        log = sum(file.stat().st_size for file in (folder / "lake").glob("_delta_log/*.json"))
    for format_ in ("delta", "parquet"):
        ours, peer = costs[format_].seconds, costs["peer"].seconds
        print(f"{f'{format_} against write_deltalake':58} {peer:7.2f} s {ours:7.2f} s {ours / peer:6.2f}x")
    # Delta reads its own log back four times; the rows that lie there must add nothing to that.
    verdict = "ok" if read < 4 * log + size / 100 else "MISSED"
    print(f"publishing {files:,} files to Delta: {seconds:.2f} s, {size / 1e6:.1f} MB lie there, ", end="")
    print(
        f"{read / 1e6:.2f} MB were read, the log is {log / 1e6:.2f} MB  (goal: rows are not read back) {verdict}",
        flush=True,
    )
