"""The files of one source in one run: what they tell about their columns, and the rows they give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import polars as pl

from flows._errors import ExtractError
from flows.sources import _files, _folders
from flows.sources._base import Batch, Malformed, Pushdown
from flows.sources._broken import Placed
from flows.sources._brought import Brought, Piece
from flows.sources._files import Format
from flows.sources._folders import Constants
from flows.sources._found import Found
from flows.sources._seen import require_unchanged


@dataclass
class FileScan:
    """Files and how they are read.

    Attributes:
        name: the source's name, for messages.
        files: in the order in which they are read.
        brought: takes what cannot be read where it is.
        constants: columns that a file has as a whole.
        quarantines: whether a broken record goes to quarantine; it stops the run otherwise.
        once: whether a file must not change while it is read, because it is never read again.
        schema: of the files' own columns.
    """

    name: str
    format: Format
    files: Sequence[Found]
    brought: Brought
    constants: Constants
    quarantines: bool
    once: bool
    batch_bytes: int
    schema: pl.Schema = field(default_factory=pl.Schema)

    @property
    def whole_schema(self) -> pl.Schema:
        """Columns of the files, then those that a file has as a whole."""
        return pl.Schema({**self.schema, **self.constants.schema})

    def learn(self, known: pl.Schema | None, *, sample: bool) -> None:
        """Look at the files, and agree on their columns; a sample is the first file.

        Raises:
            ExtractError: one cannot be read, or they do not agree.
        """
        own = None if known is None else pl.Schema({n: t for n, t in known.items() if n not in self.constants.schema})
        if not self.files and own is not None:
            self.schema = own
            return
        is_far = not all(file.store.is_local for file in self.files)
        looks = {file.name: self._look(file) for file in (self.files[:1] if sample and is_far else self.files)}
        agreed = self.format.agreed(looks, own)
        for key, name in self.constants.named.items():
            if name in agreed:
                raise ExtractError(f"the files have a column {name!r} themselves. Give {key!r} another name.")
        # A folder knows better than the files in it, as everywhere.
        self.schema = pl.Schema({n: t for n, t in agreed.items() if n not in self.constants.schema})

    def _look(self, file: Found) -> object:
        with self._piece(file) as piece, self.format.mapped(piece):
            return self.format.look(piece)

    def read(self, ask: Pushdown) -> Iterator[Batch]:
        """Stream the rows, one file after the other, in batches of about ``batch_bytes``."""
        yield from _files.resized(self._rows(ask), self.batch_bytes)

    def _rows(self, ask: Pushdown) -> Iterator[Batch]:
        names = ask.columns or tuple(self.whole_schema)
        of_files, of_rows = _folders.parted(ask, tuple(self.constants.schema))
        own = tuple(name for name in names if name in self.schema) or tuple(self.schema)[:1]
        left = ask.limit
        for file in self.files:
            if left == 0:
                return
            if not self.constants.may_want(file, of_files):
                continue
            inner = Pushdown(own, of_rows if self.format.pushes_predicates else None, left)
            for batch in self._of(file, inner):
                if isinstance(batch, Malformed):
                    yield batch
                    continue
                rows = batch if left is None else batch.head(left)
                left = None if left is None else left - rows.height
                yield self.constants.added(file, rows, names)
                if left == 0:
                    break
            if self.once and ask.limit is None:
                with labelled(self.name):
                    require_unchanged(file)

    def _of(self, file: Found, ask: Pushdown) -> Iterator[Batch]:
        """The rows of one file's own columns."""
        placed = Placed(file.name, self.quarantines)
        with labelled(self.name), self._piece(file) as piece, self.format.mapped(piece):
            for read in self.format.rows(piece, self.schema, ask):
                yield from placed.batches(read)

    @contextmanager
    def _piece(self, file: Found) -> Iterator[Piece]:
        store = file.store
        if file.member is None and (self.format.is_table or store.scheme in self.format.read_in_place):
            yield Piece(file.path if store.is_local else f"s3://{file.path}", file.name, store.object_store())
            return
        with self.brought.here(file) as piece:
            yield piece


@contextmanager
def labelled(name: str) -> Iterator[None]:
    """Say in an error which source it is about."""
    try:
        yield
    except ExtractError as error:
        if error.source is not None:
            raise
        raise type(error)(f"source {name!r}: {error.message}", source=name) from error.__cause__
