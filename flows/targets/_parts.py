"""One Parquet file of this machine that is written batch by batch, and what its footer says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from flows.targets._sink import Sink, os_errors

ROW_GROUP_BYTES = 16_000_000  # in memory; a sink holds about two of them
_SMALL_BYTES = 2_000_000
_FEWEST_ROWS, _MOST_ROWS = 1_000, 1_000_000


@dataclass(frozen=True)
class Statistics:
    """What is known of a column of a file, from its footer.

    Attributes:
        minimum, maximum: as Python values; None where the file does not say.
        nulls: how many; None where the file does not say.
    """

    minimum: Any
    maximum: Any
    nulls: int | None


class Part:
    """A file that is being written; one that stays small is written at once, in a fifth of the time."""

    def __init__(
        self, path: str, partition: Mapping[str, Any], file: Path, schema: pl.Schema, group_bytes: int
    ) -> None:
        self.path = path
        self.partition = partition
        self.file = file
        self.rows = 0
        self._schema = schema
        self._group_bytes = group_bytes
        self._held: list[pl.DataFrame] = []
        self._bytes = 0
        self._sink: Sink | None = None

    @property
    def bytes(self) -> int:
        """How large the file is by now; some row groups are not in it yet."""
        return self.file.stat().st_size if self.file.exists() else 0

    def put(self, rows: pl.DataFrame) -> None:
        """Hand over a batch."""
        self.rows += rows.height
        if self._sink is not None:
            self._sink.put(rows)
            return
        self._held.append(rows)
        self._bytes += int(rows.estimated_size())
        if self._bytes >= min(_SMALL_BYTES, self._group_bytes):
            group = _group_rows(self.rows, self._bytes, self._group_bytes)
            self._sink = Sink(self._schema, lambda frame: self._write(frame, group))
            for held in self._held:
                self._sink.put(held)
            self._held = []

    def close(self) -> None:
        """Write what is left."""
        if self._sink is not None:
            self._sink.close()
            return
        with os_errors():
            self._write(pl.concat(self._held).lazy(), None)

    def abandon(self) -> None:
        """Stop, and remove what was written."""
        if self._sink is not None:
            self._sink.abandon()
        self.file.unlink(missing_ok=True)

    def _write(self, frame: pl.LazyFrame, group: int | None) -> None:
        frame.sink_parquet(self.file, compression="zstd", row_group_size=group)


def _group_rows(rows: int, bytes_: int, group_bytes: int) -> int:
    """How many rows like these make a row group of about `group_bytes` in memory."""
    return min(max(group_bytes * rows // max(bytes_, 1), _FEWEST_ROWS), _MOST_ROWS)


def statistics_of(file: Path) -> dict[str, Statistics]:
    """What the footer of a file says of each column that is not nested."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - it takes time that only runs have

    footer = pq.read_metadata(file)
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    columns = range(footer.num_columns)
    flat = [place for place in columns if footer.schema.column(place).max_repetition_level == 0]
    return {
        groups[0].column(place).path_in_schema: _merged([group.column(place).statistics for group in groups])
        for place in flat
        if groups and "." not in groups[0].column(place).path_in_schema
    }


def _merged(parts: Sequence[Any]) -> Statistics:
    """The statistics of a column over all row groups."""
    if any(part is None for part in parts):
        return Statistics(None, None, None)
    nulls = sum(part.null_count for part in parts) if all(part.has_null_count for part in parts) else None
    ranged = [part for part in parts if part.has_min_max]
    if not ranged:
        return Statistics(None, None, nulls)
    try:
        return Statistics(min(part.min for part in ranged), max(part.max for part in ranged), nulls)
    except (OverflowError, ValueError):  # Python has no such date
        return Statistics(None, None, nulls)
