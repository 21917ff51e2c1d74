"""Parquet files: Polars reads only the columns and row groups that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import polars as pl

from flows._errors import ExtractError
from flows.sources import _files
from flows.sources._base import Pushdown


class Parquet(_files.Format):
    """A Parquet file says itself what it holds."""

    pushes_predicates: ClassVar[bool] = True

    def schema(self, files: Sequence[Path]) -> pl.Schema:
        """The columns of the first file, which all the others must have with the same types."""
        schemas = {}
        for file in files:
            with self.mapped([file]):
                schemas[file] = _scan(file).collect_schema()
        _files.require_same_columns(schemas)
        _files.require_same_types(schemas)
        return schemas[files[0]]

    def rows(self, file: Path, schema: pl.Schema, ask: Pushdown) -> Iterator[pl.DataFrame]:
        """Stream the rows that `ask` wants."""
        frame = _scan(file)
        if ask.limit is not None:
            frame = frame.head(ask.limit)
        if ask.predicate is not None:
            frame = frame.filter(ask.predicate)
        yield from _files.streamed(frame.select(list(ask.columns or schema)))

    def require_whole(self, file: Path) -> None:
        """Read what a whole file ends with."""
        with _files.readable(file), file.open("rb") as stream:
            whole = stream.read(4) == b"PAR1" and stream.seek(-4, 2) and stream.read() in {b"PAR1", b"PARE"}
        if not whole:
            raise ExtractError(f"{str(file)!r} is not a whole Parquet file: it is cut off, or of another format.")


def _scan(file: Path) -> pl.LazyFrame:
    return pl.scan_parquet(file, glob=False, hive_partitioning=False)
