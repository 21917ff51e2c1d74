"""Avro files: Polars reads one whole, and only the columns that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import polars as pl

from flows._errors import ExtractError
from flows.sources import _files
from flows.sources._base import Pushdown
from flows.sources._broken import Read
from flows.sources._brought import Piece
from flows.sources._found import readable

_MAGIC = b"Obj\x01"


class Avro(_files.Format):
    """An Avro file says itself what it holds."""

    def look(self, piece: Piece) -> pl.Schema:
        """Columns and types."""
        return pl.read_avro(piece.file, n_rows=1).schema

    def agreed(self, looks: Mapping[str, pl.Schema], known: pl.Schema | None) -> pl.Schema:
        """The columns of the first file, which all the others must have with the same types."""
        del known
        return _files.same_schema(looks)

    def rows(self, piece: Piece, schema: pl.Schema, ask: Pushdown) -> Iterator[Read]:
        """Stream the rows that `ask` wants."""
        names = list(ask.columns) if ask.columns else list(schema)[:1]
        frame = pl.read_avro(piece.file, columns=names, n_rows=ask.limit)
        yield from _files.asked(_files.fitted(frame.lazy(), schema), replace(ask, limit=None))

    def require_whole(self, piece: Piece) -> None:
        """Read what every file begins with."""
        with readable(piece.name), piece.file.open("rb") as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise ExtractError(f"{piece.name!r} is not an Avro file.")
