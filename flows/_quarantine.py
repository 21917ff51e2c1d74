"""Rows that broke a rule, kept as they were read, with the rules they broke.

They wait in the run's workspace, on disk, so that memory does not grow with them, until the
target takes them in the transaction that publishes the load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from flows._survival import has_only_json, sayable

#: row: bigint, from 0, in the order read (null where a step had merged rows); stage: "read" or "transformed".
SCHEMA: dict[str, pl.DataType] = {
    "row": pl.Int64(),
    "stage": pl.String(),
    "values": pl.String(),
    "reasons": pl.List(pl.String()),
}

Status = Literal["waiting", "replayed", "discarded"]
STATUSES: tuple[Status, ...] = ("waiting", "replayed", "discarded")
#: Quarantined rows by the run that kept them: their numbers there, from 0.
Marks = Mapping[str, Sequence[int]]
#: A row as a target keeps it. Moments are ISO texts; resolved_by is the run of the replay; values is a JSON text.
KEPT: dict[str, pl.DataType] = {
    "run_id": pl.String(),
    "number": pl.Int64(),
    "row": pl.Int64(),
    "stage": pl.String(),
    "status": pl.String(),
    "reasons": pl.List(pl.String()),
    "config_version": pl.String(),
    "quarantined_at": pl.String(),
    "resolved_at": pl.String(),
    "resolved_by": pl.String(),
    "values": pl.String(),
}
#: What of a row is written to a file for people.
EXPORTED = {
    name: KEPT[name]
    for name in ("run_id", "row", "stage", "status", "reasons", "config_version", "quarantined_at", "values")
}


class Quarantine:
    """The quarantined rows of one run, in files of the run's workspace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = 0
        self._files: list[Path] = []

    def add(self, rows: pl.DataFrame, positions: pl.Series | None, reasons: pl.Series) -> None:
        """Keep `rows` with the labels of the rules each one broke.

        Args:
            rows: as read, or as transformed where `positions` is None.
            positions: of each row in the order read, from 0.
            reasons: a list of labels for each row.
        """
        if rows.is_empty():
            return
        self.add_texts(as_json_texts(rows), reasons, positions)

    def add_texts(self, values: pl.Series, reasons: pl.Series, positions: pl.Series | None = None) -> None:
        """Keep rows that are JSON texts already: as read, or as transformed where `positions` is None."""
        nowhere = pl.Series([None] * values.len(), dtype=pl.Int64)
        at, stage = (nowhere, "transformed") if positions is None else (positions, "read")
        self._keep(at, stage, values, reasons)

    def _keep(self, positions: pl.Series, stage: str, values: pl.Series, reasons: pl.Series) -> None:
        frame = pl.DataFrame(
            {"row": positions, "values": values, "reasons": reasons, "stage": [stage] * values.len()}
        ).select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{len(self._files):06}.arrow"
        frame.write_ipc(file, compression="lz4")
        self._files.append(file)
        self.rows += frame.height

    def __iter__(self) -> Iterator[pl.DataFrame]:
        """The kept rows, a frame at a time, with the columns of `SCHEMA`."""
        return (pl.read_ipc(file) for file in self._files)


def as_json_texts(rows: pl.DataFrame) -> pl.Series:
    """Each row as a JSON object text; dates and decimals as texts, bytes in hex, NaN and infinity as texts."""
    if not rows.width:
        return pl.Series(["{}"] * rows.height)
    columns = {name: pl.col(name) for name in rows.columns}
    finite = rows.select(
        has_only_json(columns[name], dtype).all().alias(name) for name, dtype in rows.schema.items()
    ).row(0)
    said = [
        sayable(columns[name], dtype, numbers=numbers).alias(name)
        for (name, dtype), numbers in zip(rows.schema.items(), finite, strict=True)
    ]
    return rows.select(pl.struct(said).struct.json_encode()).to_series()
