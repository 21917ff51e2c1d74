"""The chamber of a file target: Parquet files, on the same disk where they are what will be published.

Publishing is one step of the `Place`; what can take time, such as writing CSV, comes before it.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows._sides import Side
from flows._storage import Store
from flows.targets import _booking
from flows.targets._base import Chamber, Published, Taken, Violation
from flows.targets._durable import Turn
from flows.targets._formats import Format
from flows.targets._journal import Proof
from flows.targets._places import LocalFolder, Place
from flows.targets._sink import Sink
from flows.targets._staged import StagedFiles
from transforms._errors import LockgateError
from validations._contract import SetRule

_SLICE_BYTES = 4_000_000


@dataclass(frozen=True)
class Wish:
    """What a configuration asks of the file.

    Attributes:
        appends: whether the rows that are there stay.
        allow_empty: whether an overwrite may leave no rows.
        target_file_bytes: how large a part file should be.
        patience_seconds: how long it waits for another run to end.
    """

    format: Format
    appends: bool
    allow_empty: bool
    target_file_bytes: int
    patience_seconds: float


class FileChamber(Chamber):
    """Rows on their way into one file, or a folder of part files."""

    def __init__(self, place: Place, wish: Wish, record: RunRecord, schema: pl.Schema, folder: Path | None) -> None:
        self.place = place
        self.side: Side = place.side
        self._wish = wish
        self._format = wish.format
        self._run_id = record.run_id
        self._temporary = tempfile.TemporaryDirectory(prefix="lockgate-") if folder is None else None
        self._scratch = Path(self._temporary.name) if self._temporary else folder or Path()
        self._built: Path | None = None
        wish.format.require(schema, self.side)
        place.enter(record.run_id, Turn(f"{record.pipeline} {record.run_id}", wish.patience_seconds))
        try:
            self._old = place.old(self._scratch) if wish.appends else None
            aligned = list(schema)
            if self._old is not None:
                with self.place.store.mapped():
                    aligned = wish.format.aligned(self._old, schema, self.side)
            self._staged = self._open({name: schema[name] for name in aligned})
        except BaseException:
            place.leave()
            raise

    def _open(self, columns: dict[str, pl.DataType]) -> StagedFiles:
        folder = self.place.staging(self._scratch) if self._is_final else self._scratch
        return StagedFiles(
            Store(str(folder), side=self.side),
            pl.Schema(columns),
            name="staged",
            suffix="",
            scratch=self._scratch,
            target_file_bytes=self._wish.target_file_bytes if isinstance(self.place, LocalFolder) else None,
        )

    @property
    def _is_final(self) -> bool:
        """Whether the staged files are what will be published."""
        adds_to_file = self._old is not None and not isinstance(self.place, LocalFolder)
        return self._format.name == "parquet" and not adds_to_file

    # --- staging ---

    def stage(self, rows: pl.DataFrame) -> None:
        """Stage a batch.

        Raises:
            TargetTypeError: the format cannot carry a value.
        """
        self._format = self._format.fitted(rows, self.side)
        self._staged.write(rows.select(list(self._staged.schema)))

    def seal(self) -> int:
        """End staging."""
        return self._staged.seal()

    def audit(self, rules: Sequence[SetRule]) -> list[Violation]:
        """Hold `rules` against the staged files, reading the columns they ask for."""
        return self._staged.audit(rules)

    def take(self, violation: Violation) -> Taken:
        """Take the blamed rows out of the staged files."""
        return self._staged.take(violation)

    # --- publishing ---

    def publish(self, record: RunRecord, quarantine: Quarantine) -> Published:
        """Write the journal's intent, publish in one step, and file the intent away."""
        journal = self.place.journal
        earlier = journal.find(record.pipeline, record.run_id)
        if earlier is not None:
            return _booking.recall(record, earlier)
        if not (self._wish.appends or self._wish.allow_empty):
            _booking.refuse_empty(self._staged.rows, self.side.label, record)
        built = self._build()
        before = self._before(record)
        removed = max(before - self._staged.rows, 0)
        published = Published(self._staged.rows, how=self._how(built), removed=removed, before=before)
        _booking.settle(record, published)
        proof = self.place.proof(built, record.run_id) if built else {}
        journal.intend(record, quarantine, proof)
        try:
            if built is not None:
                self.place.publish(built, record.run_id, adds=self._wish.appends, rows=self._after)
        except LockgateError as error:
            if not self._happened(proof, error):
                journal.withdraw(record)
                raise
        journal.settle(record.run_id)
        return published

    def _before(self, record: RunRecord) -> int:
        """The rows that an overwrite takes away; 0 where nobody can say, or nobody asks."""
        if self._wish.appends or record.guards.max_removed_ratio >= 1:
            return 0
        try:
            with self.place.store.mapped():
                return self.place.rows(self._wish.format.rows)
        except pl.exceptions.PolarsError:
            warning = f"what is there is no {self._format.name}, so nobody can say how many rows are replaced."
            record.warnings.extend({warning}.difference(record.warnings))
            return 0

    @property
    def _after(self) -> int | None:
        """All rows that will be there, where that is known without counting."""
        return None if self._old is not None else self._staged.rows

    def _happened(self, proof: Proof, error: LockgateError) -> bool:
        """The step may have been done before its answer was lost: only the place knows."""
        try:
            return self.place.has(proof)
        except LockgateError:
            raise self.side.error(
                "lost",
                "the connection broke while publishing, and nobody answers: whether the load was published is not "
                "known yet. The next run, and 'history', will find out.",
            ) from error

    def _how(self, built: Path | None) -> str:
        if built is None:
            return "nothing to append"
        if self._old is not None:
            return "appended"
        return "replaced" if self.place.exists else "created"

    def _build(self) -> Path | None:
        """What will be published: a file, or a folder; None where nothing has to be."""
        if self._old is not None and not self._staged.rows:
            return None
        if self._built is None or self._old is not None:
            with self.place.store.mapped():
                folder = self.place.staging(self._scratch)
                folder.mkdir(parents=True, exist_ok=True)
                self._built = (
                    self._parts(folder / "parts") if isinstance(self.place, LocalFolder) else self._one(folder)
                )
        return self._built

    def _one(self, folder: Path) -> Path:
        built = folder / "built"
        frame = self._staged.frame()
        if self._old is not None:
            self._format.join(self._old, frame, built)
        elif self._is_final and self._staged.files:
            (file,) = self._staged.files
            return Path(self._staged.store.path, file.path)
        else:
            self._format.sink(frame, built)
        return built

    def _parts(self, folder: Path) -> Path:
        assert isinstance(self.place, LocalFolder)  # noqa: S101 - asked before
        folder.mkdir(exist_ok=True)
        kept = list(self.place.parts()) if self._wish.appends else []
        for old in kept:
            if not (folder / old.name).exists():
                os.link(old, folder / old.name)
        names = (folder / self.place.name(self._run_id, number) for number in itertools.count(len(kept)))
        if not self._staged.rows:
            self._format.sink(self._staged.frame(), next(names))
        elif self._is_final:
            for file, name in zip(self._staged.files, names, strict=False):
                Path(self._staged.store.path, file.path).rename(name)
        else:
            self._write_parts(names)
        return folder

    def _write_parts(self, names: Iterator[Path]) -> None:
        sink: Sink | None = None
        file = Path()
        try:
            for rows in self._slices():
                if sink is None:
                    file = next(names)
                    sink = Sink(self._staged.schema, lambda frame, file=file: self._format.sink(frame, file))  # type: ignore[misc] # the file of now
                sink.put(rows)
                if file.exists() and file.stat().st_size >= self._wish.target_file_bytes:
                    sink.close()
                    sink = None
        except BaseException:
            if sink is not None:
                sink.abandon()
            raise
        if sink is not None:
            sink.close()

    def _slices(self) -> Iterator[pl.DataFrame]:
        """The staged rows in batches that are small beside a part file."""
        most = min(self._wish.target_file_bytes // 8, _SLICE_BYTES)
        for batch in self._staged.frame().collect_batches(engine="streaming", lazy=True):
            yield from batch.iter_slices(max(1, batch.height * most // max(int(batch.estimated_size()), 1)))

    def discard(self) -> None:
        """Remove what is staged, and let others in."""
        self._staged.remove()
        self.place.leave()
        if self._temporary is not None:
            self._temporary.cleanup()
