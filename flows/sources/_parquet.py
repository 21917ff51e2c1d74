"""Parquet files: Polars reads only the columns and row groups that are asked for, also from S3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import polars as pl

from flows._errors import ExtractError
from flows.sources import _files
from flows.sources._base import Pushdown
from flows.sources._broken import Read
from flows.sources._brought import Piece
from flows.sources._found import readable


class Parquet(_files.Format):
    """A Parquet file says itself what it holds."""

    pushes_predicates: ClassVar[bool] = True
    read_in_place: ClassVar[frozenset[str]] = frozenset({"file", "s3"})

    def look(self, piece: Piece) -> pl.Schema:
        """Columns and types, from the footer."""
        return _scan(piece).collect_schema()

    def agreed(self, looks: Mapping[str, pl.Schema], known: pl.Schema | None) -> pl.Schema:
        """The columns of the first file, which all the others must have with the same types."""
        del known
        return _files.same_schema(looks)

    def rows(self, piece: Piece, schema: pl.Schema, ask: Pushdown) -> Iterator[Read]:
        """Stream the rows that `ask` wants."""
        yield from _files.asked(_files.fitted(_scan(piece), schema), ask)

    def require_whole(self, piece: Piece) -> None:
        """Read what a whole file ends with."""
        if piece.options:
            return
        with readable(piece.name), piece.file.open("rb") as stream:
            whole = stream.read(4) == b"PAR1" and stream.seek(-4, 2) and stream.read() in {b"PAR1", b"PARE"}
        if not whole:
            raise ExtractError(f"{piece.name!r} is not a whole Parquet file: it is cut off, or of another format.")


def _scan(piece: Piece) -> pl.LazyFrame:
    return pl.scan_parquet(piece.path, glob=False, hive_partitioning=False, storage_options=piece.options or None)
