"""A CSV file to a Parquet file, beside the same plan in bare Polars, streaming."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from benchmarks._bench import Cost, in_turn, process, show

ROWS = 1_000_000
ROUNDS = 3
DTYPES = """
        customer_id: bigint
        name: text
        email: text
        amount: float
        quantity: bigint
        status: text
        created_at: timestamp
        day: date
"""
CONFIG = """
pipelines:
  orders:
    type: batch
    source:
      type: file
      path: {folder}/orders.csv
      {dtypes}
    target: {{type: file, path: {folder}/ours.parquet, write_mode: overwrite}}
    transformations:
      - {{type: filter, parameters: {{where: "status <> 'closed'"}}}}
      - {{type: calculate, parameters: {{expressions: [{{field: total, formula: amount * quantity}}]}}}}
    quality_rules:
      - {{type: not_null, field: customer_id}}
      - {{type: matches, field: email, parameters: {{pattern: "@"}}}}
      - {{type: between, field: quantity, parameters: {{min: 0, max: 1000}}}}
"""
LIMIT = """
import polars as pl

types = {{"customer_id": pl.Int64, "name": pl.String, "email": pl.String, "amount": pl.Float64, "quantity": pl.Int64,
          "status": pl.String, "created_at": pl.Datetime("us"), "day": pl.Date}}
frame = pl.scan_csv("{folder}/orders.csv", schema=types)
frame = frame.filter(pl.col("status") != "closed").with_columns(total=pl.col("amount") * pl.col("quantity"))
frame.sink_parquet("{folder}/limit.parquet")
"""


def main() -> None:
    print("\nfiles: CSV, filter + calculate + contract, Parquet; whole processes  limit     ours   ratio")
    with TemporaryDirectory(prefix="lockgate-bench-") as name:
        folder = Path(name)
        _make(folder / "orders.csv")
        (folder / "limit.py").write_text(LIMIT.format(folder=folder))
        declared, inferred = folder / "declared.yaml", folder / "inferred.yaml"
        declared.write_text(CONFIG.format(folder=folder, dtypes="dtypes:" + DTYPES.rstrip()))
        inferred.write_text(CONFIG.format(folder=folder, dtypes="has_header: true"))
        costs = in_turn(
            ROUNDS,
            limit=lambda: process(sys.executable, str(folder / "limit.py")),
            declared=lambda: _run(declared),
            inferred=lambda: _run(inferred),
        )
        show(f"{ROWS:,} rows, types declared", costs["limit"], costs["declared"], 1.3)
        # Polars itself takes a minute to infer types from every row; the limit here is told them, too.
        show(f"{ROWS:,} rows, types inferred from every row", costs["limit"], costs["inferred"], 2.5)
        peaks = "".join(f"{cost.peak_bytes / 1e6:7.0f} MB" for cost in costs.values())
        print(f"{'peak memory: limit, declared, inferred':58}{peaks}", flush=True)


def _run(config: Path) -> Cost:
    return process(sys.executable, "-m", "flows", "run", "orders", "--no-prefect", "--json", "--config", str(config))


def _make(path: Path) -> None:
    """Write rows with every kind of type, the same ones each time."""

    def spread(seed: int, size: int) -> pl.Expr:
        return pl.int_range(ROWS).hash(seed) % size

    pl.select(
        customer_id=pl.int_range(ROWS),
        name="Customer " + spread(1, 10**6).cast(pl.String),
        email="user" + spread(2, 10**6).cast(pl.String) + "@example.com",
        amount=spread(3, 10**5).cast(pl.Float64) / 100,
        quantity=spread(4, 100).cast(pl.Int64),
        status=spread(5, 4).replace_strict(dict(enumerate(["active", "closed", "new", "paid"]))),
        created_at=(spread(6, 10**14).cast(pl.Int64) + 16 * 10**14).cast(pl.Datetime("us")),
        day=(spread(7, 5_000) + 15_000).cast(pl.Int32).cast(pl.Date),
    ).write_csv(path)
