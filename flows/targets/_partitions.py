"""Rows sorted into hive partitions, however they arrive and however many partitions there are.

Rows wait in memory up to a limit, and are then sorted by partition and set aside on this machine's
disk. At the end each partition is written from its first row to its last. So memory depends
neither on the rows nor on the partitions, and no partition is cut into more files than it needs.
"""

from __future__ import annotations

import datetime as dt
import mmap
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

#: What a folder is called for a null, by everybody who knows hive.
NULL = "__HIVE_DEFAULT_PARTITION__"
_HELD_BYTES = 32_000_000
#: What cannot be in a folder's name, or means something to those who look for files.
_UNFIT = re.compile(r"[\x00-\x1f\x7f/=%\\*?\[\]{}#]")

Key = tuple[Any, ...]


def hive_text(value: object) -> str:
    """A partition's value as a folder has it: ``2024-01-31``, ``true``, ``a%20b``; null by its own name."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return str(value).lower()
    text = value.isoformat(sep=" ") if isinstance(value, dt.datetime) else str(value)
    return quote(text, safe="")


def hive_folder(partition: Mapping[str, object]) -> str:
    """The folder of a partition: ``year=2024/city=S%C3%A3o%20Paulo``.

    Readers decode the values, and few of them the names: a name stays as it is, unless it could be no folder's.
    """
    return "/".join(f"{_UNFIT.sub(_quoted, name)}={hive_text(value)}" for name, value in partition.items())


def is_plain(name: str) -> bool:
    """Whether a partition column's name is the folder's too, so that every reader finds the column by it."""
    return not _UNFIT.search(name)


def _quoted(match: re.Match[str]) -> str:
    return quote(match[0], safe="")


class Partitions:
    """Rows on their way into partitions.

    Args:
        columns: the partition columns.
        scratch: a folder of this machine for what does not fit into memory; it need not exist yet.
    """

    def __init__(self, columns: Sequence[str], scratch: Path, held_bytes: int = _HELD_BYTES) -> None:
        self.columns = list(columns)
        self._scratch = scratch
        self._most = held_bytes
        self._held: list[pl.DataFrame] = []
        self._bytes = 0
        self._runs: list[tuple[pl.DataFrame, dict[Key, tuple[int, int]]]] = []
        self._files: list[Path] = []
        self._maps: list[mmap.mmap] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Take a batch."""
        self._held.append(rows)
        self._bytes += int(rows.estimated_size())
        if self._bytes >= self._most:
            self._set_aside()

    def __iter__(self) -> Iterator[tuple[Key, Iterator[pl.DataFrame]]]:
        """Each partition once, by its values, nulls first: its key and its rows in the order they came."""
        if self._held:
            self._runs.append(self._sorted())
        keys = {key for _rows, places in self._runs for key in places}
        for key in sorted(keys, key=_order):
            yield key, self._rows_of(key)

    def clear(self) -> None:
        """Let go of every row."""
        self._held, self._runs, self._maps, self._bytes = [], [], [], 0
        for file in self._files:
            file.unlink(missing_ok=True)
        self._files = []

    def _rows_of(self, key: Key) -> Iterator[pl.DataFrame]:
        for rows, places in self._runs:
            if key in places:
                yield rows.slice(*places[key])
        for mapped in self._maps:
            mapped.madvise(mmap.MADV_DONTNEED)  # what was read once is not read again

    def _set_aside(self) -> None:
        rows, places = self._sorted()
        self._scratch.mkdir(parents=True, exist_ok=True)
        file = self._scratch / f"partitions-{len(self._files):05}.arrow"
        rows.write_ipc(file)
        self._files.append(file)
        self._runs.append((self._mapped(file), places))

    def _mapped(self, file: Path) -> pl.DataFrame:
        """The rows of a file, which stay on the disk until somebody looks at them."""
        import pyarrow as pa  # noqa: PLC0415 - it takes time that only runs have

        with file.open("rb") as opened:
            self._maps.append(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        rows = pl.from_arrow(pa.ipc.open_file(pa.py_buffer(self._maps[-1])).read_all(), rechunk=False)
        assert isinstance(rows, pl.DataFrame)  # noqa: S101 - a table is a frame
        return rows

    def _sorted(self) -> tuple[pl.DataFrame, dict[Key, tuple[int, int]]]:
        """What is held, sorted by partition, and where each partition begins and how long it is."""
        rows = pl.concat(self._held).sort(self.columns, maintain_order=True)
        self._held, self._bytes = [], 0
        lengths = rows.group_by(self.columns, maintain_order=True).len("__rows__")
        places, first = {}, 0
        for *key, length in lengths.iter_rows():
            places[tuple(key)] = (first, length)
            first += length
        return rows.drop(self.columns), places


def _order(key: Key) -> tuple[tuple[bool, Any], ...]:
    return tuple((value is not None, value if value is not None else 0) for value in key)
