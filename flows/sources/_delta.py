"""Delta Lake tables: Polars reads the files of one version, and only what is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

import polars as pl

from flows._errors import ExtractError, SourceMissingError, SourcePermissionError
from flows._sides import Side
from flows._storage import Store
from flows.sources import _files
from flows.sources._base import Pushdown
from flows.sources._broken import Read
from flows.sources._brought import Piece

#: How a disk, and how an object store, say that it may not be read.
_FORBIDDEN = ("ermission denied", "PermissionDenied", "AccessDenied", "403 Forbidden")


@dataclass
class Delta(_files.Format):
    """A table, at one version.

    Attributes:
        version: a number, or a moment; None is the newest, which stays the same for the whole run.
    """

    pushes_predicates: ClassVar[bool] = True
    read_in_place: ClassVar[frozenset[str]] = frozenset({"file", "s3"})
    is_table: ClassVar[bool] = True

    version: int | datetime | None = None

    def look(self, piece: Piece) -> pl.Schema:
        """Columns and types, from the log; settles on the version."""
        import deltalake  # noqa: PLC0415 - 0.2 s that only such tables need

        try:
            table = deltalake.DeltaTable(piece.path, storage_options=piece.options or None)
            if self.version is not None:
                table.load_as_version(self.version)
        except (OSError, deltalake.exceptions.TableNotFoundError) as error:
            raise _closed(piece, error) from error
        except (deltalake.exceptions.DeltaError, ValueError) as error:
            raise ExtractError(f"{piece.name!r} cannot be read: {_files.first_line(error)}.") from error
        self.version = table.version()
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
        return pl.scan_delta(piece.path, version=self.version, storage_options=piece.options or None)


def _closed(piece: Piece, error: Exception) -> Exception:
    """Why a table cannot be opened; an error of the object store says so behind its first line."""
    if any(sign in str(error) for sign in _FORBIDDEN):
        return SourcePermissionError(f"{piece.name!r} may not be read. Grant it, or use another user.")
    if not isinstance(error, OSError):
        return SourceMissingError(f"{piece.name!r} is no Delta table: it has no '_delta_log'.")
    try:
        with Store(piece.path, side=Side("source", "")).mapped():
            raise error
    except ExtractError as found:
        return found
