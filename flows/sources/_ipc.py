"""Arrow IPC files (Feather): Polars reads only the columns that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from flows._errors import ExtractError
from flows.sources import _files
from flows.sources._base import Pushdown
from flows.sources._broken import Read
from flows.sources._brought import Piece
from flows.sources._found import readable

_FILE = b"ARROW1"


class Ipc(_files.Format):
    """An Arrow file says itself what it holds; a stream of Arrow batches is read whole."""

    def look(self, piece: Piece) -> pl.Schema:
        """Columns and types, as the file begins."""
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
        with readable(piece.name), piece.file.open("rb") as stream:
            begins = stream.read(len(_FILE))
            whole = begins != _FILE or (stream.seek(-len(_FILE), 2) and stream.read() == _FILE)
        if not whole:
            raise ExtractError(f"{piece.name!r} is not a whole Arrow file: it is cut off, or of another format.")


def _scan(piece: Piece) -> pl.LazyFrame:
    with piece.file.open("rb") as stream:
        is_file = stream.read(len(_FILE)) == _FILE
    if not is_file:
        return pl.read_ipc_stream(piece.file).lazy()
    return pl.scan_ipc(piece.file, glob=False, hive_partitioning=False)
