"""The chamber of a table in a lake: Parquet files that lie where they will stay, and that no reader knows yet."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.targets import _booking, _lake_leftovers, _refusals
from flows.targets._base import Chamber, Published, Taken, Violation
from flows.targets._durable import Lock, Turn
from flows.targets._journal import FOLDER
from flows.targets._lake import Change, LakeTable
from flows.targets._lake_changes import Changes
from flows.targets._lake_fit import LakeFit, fitted
from flows.targets._staged import StagedFiles
from transforms._errors import LockgateError
from validations._contract import SetRule

if TYPE_CHECKING:
    from flows.targets.data_lake import DataLake


class LakeChamber(Chamber):
    """Staged files of one run, and the change of the table that they will be part of."""

    def __init__(
        self, options: DataLake, table: LakeTable, record: RunRecord, schema: pl.Schema, folder: Path | None
    ) -> None:
        self._options = options
        self._table = table
        self._record = record
        self._given = schema
        self._temporary = tempfile.TemporaryDirectory(prefix="lockgate-") if folder is None else None
        self._scratch = Path(self._temporary.name) if self._temporary else folder or Path()
        self._written: list[StagedFiles] = []
        self._lock: Lock | None = None
        try:
            self._lock = self._locked()
            self._fit = self._entered(schema)
        except BaseException:
            self._clean_up()
            raise
        self.warnings = self._fit.warnings
        self.row_checks = self._fit.row_checks() if options.schema_contract.data_type == "quarantine" else ()
        self._staged = self._files("part")

    def _locked(self) -> Lock | None:
        """Keep other runs out, where that is asked for; correct is the table without it, for the first commit wins.

        Raises:
            TargetBusyError: another run has it.
        """
        options, store = self._options, self._table.store
        if options.concurrent_runs is None:
            return None
        patience = options.lock_timeout_seconds if options.concurrent_runs == "wait" else 0
        turn = Turn(f"{self._record.pipeline} {self._record.run_id}", patience)
        with store.mapped():
            try:
                return Lock(Path(store.path, FOLDER, "locks", "table"), turn)
            except BlockingIOError as error:
                raise _refusals.busy(repr(error.strerror), patience, self._table.side) from None

    def _entered(self, schema: pl.Schema) -> LakeFit:
        table = self._table
        table.load()
        self._began_with = self._columns()
        self._follows = table.journal.state(self._record.pipeline)
        fit = fitted(self._options, table, schema)
        table.journal.clear(alone=False)
        _lake_leftovers.remove(table)
        _lake_leftovers.announce(table, self._record.pipeline, self._record.run_id)
        return fit

    def _files(self, name: str) -> StagedFiles:
        return StagedFiles(
            self._table.store,
            self._fit.schema,
            folder=self._table.folder(self._record.run_id),
            name=f"{name}-{self._record.run_id}-{secrets.token_hex(4)}",  # another attempt has other files
            scratch=self._scratch,
            partition_by=self._fit.partition_by,
            target_file_bytes=self._options.target_file_bytes,
            statistics=True,
        )

    # --- staging ---

    def stage(self, rows: pl.DataFrame) -> None:
        """Stage a batch in the table's dtypes.

        Raises:
            TargetTypeError: a value does not survive; names its column.
        """
        self._staged.write(self._fit.cast(rows, self._record))

    def seal(self) -> int:
        """End staging."""
        return self._staged.seal()

    def audit(self, rules: Sequence[SetRule]) -> list[Violation]:
        """Hold `rules` against the staged files, reading the columns they ask for."""
        return self._staged.audit(rules)

    def take(self, violation: Violation) -> Taken:
        """Take the blamed rows out of the staged files; keys come back in the dtypes of the load."""
        taken = self._staged.take(violation)
        return Taken(taken.keys.cast({name: self._given[name] for name in taken.keys.columns}), taken.values)

    # --- publishing ---

    def publish(self, record: RunRecord, quarantine: Quarantine) -> Published:
        """Work out the change, write the journal's intent, commit, and file the intent away."""
        journal = self._table.journal
        earlier = journal.find(record.pipeline, record.run_id)
        if earlier is not None:
            return _booking.recall(record, earlier)
        self._refuse_empty()
        self._look_again(record)
        change, published = self._changed(record)
        _booking.settle(record, published)
        commits = bool(change.added or change.removed or not self._table.exists)
        proof = self._table.proof(record) if commits else {}
        journal.clear(alone=False)  # once another load is committed, nothing may prove what the last run published
        journal.intend(record, quarantine, proof)
        try:
            if commits:
                self._table.commit(change, record, self._fit.partition_by)
        except LockgateError as error:
            if not self._happened(record, error):
                journal.withdraw(record)
                raise
        journal.settle(record.run_id)
        self._hand_over(change)
        return published

    def _refuse_empty(self) -> None:
        options = self._options
        by_range, versions = options.delete_range, options.versions
        dynamic = options.partition_overwrite == "dynamic"
        empties = (options.write_mode == "overwrite" and not dynamic) or (by_range and not by_range.spans_load)
        closes = versions is not None and versions.hard_deletes == "close"
        if (empties or closes) and not options.allow_empty:
            _booking.refuse_empty(self._staged.rows, self._table.side.label, self._record)

    def _look_again(self, record: RunRecord) -> None:
        """Rows may be added to any version; rows that replace others are for the version that was seen last.

        So are rows that continue what was remembered: somebody else's load may have had the same ones.
        Other columns are never for this chamber, also not for its second attempt: it staged without them.
        """
        version = self._table.version
        self._table.load()
        fitting = (self._began_with, (self._fit.schema, self._fit.partition_by, self._began_with[2]))
        other = self._columns() not in fitting
        if other or (self._table.version != version and self._options.write_mode != "append"):
            raise self._table.side.error("busy", "the table was changed while the run was under way. Run again.")
        if record.state and self._table.journal.state(record.pipeline) != self._follows:
            raise self._table.side.error(
                "other", "another run of this pipeline published what this one has read, too. Run again."
            )

    def _columns(self) -> tuple[Any, ...]:
        return self._table.schema, self._table.partition_by, self._table.required

    def _changed(self, record: RunRecord) -> tuple[Change, Published]:
        self._drop_written()

        def written(frame: pl.LazyFrame) -> StagedFiles:
            files = self._files(f"kept{len(self._written)}")
            self._written.append(files)
            for rows in frame.select(list(self._fit.schema)).collect_batches(engine="streaming", lazy=True):
                files.write(rows)
            files.seal()
            return files

        with self._table.store.mapped():
            return Changes(self._options, self._fit, self._staged, record, written).made()

    def _happened(self, record: RunRecord, error: LockgateError) -> bool:
        """The commit may have been made before its answer was lost: only the table knows."""
        try:
            return self._table.has(self._table.proof(record))
        except LockgateError:
            raise self._table.side.error(
                "lost",
                "the connection broke while committing, and nobody answers: whether the load was published is not "
                "known yet. The next run, and 'history', will find out.",
            ) from error

    def _hand_over(self, change: Change) -> None:
        """Files of the commit stay; staged ones that became others go."""
        committed = {file.path for file in change.added}
        for files in (self._staged, *self._written):
            files.files = [file for file in files.files if file.path not in committed]
            files.remove()
        _lake_leftovers.withdraw(self._table, self._record.run_id)
        self._table.tidy()

    def _drop_written(self) -> None:
        for files in self._written:
            files.remove()
        self._written = []

    def discard(self) -> None:
        """Remove every file that was not committed."""
        self._staged.remove()
        self._drop_written()
        _lake_leftovers.withdraw(self._table, self._record.run_id)
        self._clean_up()

    def _clean_up(self) -> None:
        if self._lock is not None:
            self._lock.release()
        if self._temporary is not None:
            self._temporary.cleanup()
