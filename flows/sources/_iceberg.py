"""Iceberg tables, without a catalogue: Polars reads the files of one snapshot, and only what is asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import polars as pl

from flows._errors import ExtractError, SourceMissingError
from flows.sources import _files
from flows.sources._base import Pushdown
from flows.sources._broken import Read
from flows.sources._brought import Piece
from flows.sources._found import Found

# Its own planner is a package of its own; where it lacks, Polars says so at every scan.
os.environ.setdefault("POLARS_ICEBERG_PLANNER", "pyiceberg")
_NUMBER = re.compile(r"^v?(\d+)")
#: An option of S3, as pyiceberg calls it.
_S3 = {
    "aws_access_key_id": "s3.access-key-id",
    "aws_secret_access_key": "s3.secret-access-key",
    "aws_session_token": "s3.session-token",
    "aws_endpoint_url": "s3.endpoint",
    "aws_region": "s3.region",
}


@dataclass
class Iceberg(_files.Format):
    """A table, at one snapshot.

    Attributes:
        version: number of a snapshot; None is the newest, which stays the same for the whole run.
    """

    pushes_predicates: ClassVar[bool] = True
    read_in_place: ClassVar[frozenset[str]] = frozenset({"file", "s3"})
    is_table: ClassVar[bool] = True

    version: int | None = None

    def look(self, piece: Piece) -> pl.Schema:
        """Columns and types, from the metadata; settles on the snapshot."""
        from pyiceberg.exceptions import NoSuchTableError, ValidationError  # noqa: PLC0415 - slow to import
        from pyiceberg.table import StaticTable  # noqa: PLC0415 - as above

        properties = {theirs: piece.options[ours] for ours, theirs in _S3.items() if ours in piece.options}
        try:
            self._table = StaticTable.from_metadata(piece.path, properties)
        except (NoSuchTableError, ValidationError, ValueError, OSError) as error:
            raise ExtractError(f"{piece.name!r} cannot be read: {_files.first_line(error)}.") from error
        known = [snapshot.snapshot_id for snapshot in self._table.snapshots()]
        if self.version is not None and self.version not in known:
            raise SourceMissingError(f"{piece.name!r} has no snapshot {self.version}. Present: {known}.")
        newest = self._table.current_snapshot()
        self.version = self.version or (newest.snapshot_id if newest is not None else None)
        return self._scan(piece).collect_schema()

    def agreed(self, looks: Mapping[str, pl.Schema], known: pl.Schema | None) -> pl.Schema:
        """The columns of the table."""
        del known
        return _files.same_schema(looks)

    def rows(self, piece: Piece, schema: pl.Schema, ask: Pushdown) -> Iterator[Read]:
        """Stream the rows that `ask` wants."""
        del schema
        yield from _files.asked(self._scan(piece), ask)

    def _scan(self, piece: Piece) -> pl.LazyFrame:
        table: Any = self._table
        return pl.scan_iceberg(table, snapshot_id=self.version, storage_options=piece.options or None)


def metadata_of(table: Found) -> Found:
    """The newest metadata file of a table's folder; a path that names one is that.

    Raises:
        SourceMissingError: there is none.
    """
    if table.path.endswith(".json"):
        return table
    with table.store.mapped():
        files = table.store.fs.glob(f"{table.store.path}/metadata/*.metadata.json")
    if not files:
        raise SourceMissingError(f"{table.name!r} is no Iceberg table: it has no 'metadata/*.metadata.json'.")
    newest = max(files, key=lambda path: (_numbered(path), path))
    return Found(table.name, newest, table.store)


def _numbered(path: str) -> int:
    number = _NUMBER.match(path.rsplit("/", 1)[-1])
    return int(number[1]) if number else -1
