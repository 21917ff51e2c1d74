"""The chamber of a target that is a database file: a file of the same kind, which publishing attaches.

While rows are read and staged, nobody opens the target's own file: it is neither locked nor grown. It
is published from the attached file in one transaction that writes the target's file alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import polars as pl

from flows._ledger import RunRecord
from flows._quarantine import Quarantine, as_json_texts
from flows.targets import _booking, _refusals
from flows.targets._attached_layout import place
from flows.targets._attached_table import AttachedTable
from flows.targets._attached_ways import Staged, Ways
from flows.targets._base import Chamber, Published, Taken, Violation
from flows.targets._booked import Books
from flows.targets._durable import Lock, Turn, safe
from flows.targets._engines import STAGED, Session, quote
from transforms._words import counted
from validations._contract import SetRule

_FOLDER = "_lockgate"


class AttachedChamber(Chamber):
    """A staging file, and the way it will be published."""

    def __init__(self, table: AttachedTable, record: RunRecord, schema: pl.Schema, folder: Path | None) -> None:
        self.table = table
        self.engine = table.engine
        self.side = table.engine.side
        self.schema = schema
        self._rows = 0
        self._staging: Session | None = None
        self._cleanup = ExitStack()
        try:
            self._lock(f"{record.pipeline} {record.run_id}")
            with table.looked_at() as session:
                self.layout = table.layout(session, schema)
            self._file = self._in(folder) / f"{record.run_id}.staged"
            self._file.unlink(missing_ok=True)  # of an earlier attempt of the same run
            self._cleanup.callback(self._file.unlink, missing_ok=True)
            with self.engine.mapped():
                self._writer = self.engine.writer(self._file, self.layout.staged)
            self._cleanup.callback(self._writer.abandon)
            self._cleanup.callback(self._close)
        except BaseException:
            self._cleanup.close()
            raise
        self.warnings = self.layout.warnings
        judges = table.options.schema_contract.data_type == "quarantine"
        self.row_checks = self.layout.row_checks() if judges else ()

    def _lock(self, who: str) -> None:
        """Keep other runs out; the lock dies with the process.

        Raises:
            TargetBusyError: another run has it.
        """
        path, side, patience = self.engine.path, self.side, self.table.options.patience_seconds
        name = safe(f"{path.name} {'.'.join(self.table.options.table_parts)}".casefold())
        self.engine.require_folder()
        try:
            lock = Lock(path.parent / _FOLDER / "locks" / name, Turn(who, patience))
        except BlockingIOError as error:
            raise _refusals.busy(repr(error.strerror), patience, side) from None
        except OSError as error:
            said = f"{str(path.parent)!r} cannot be written ({error.strerror}). Let the user of this process write it."
            raise side.error("permission", said) from error
        self._cleanup.callback(lock.release)

    def _in(self, folder: Path | None) -> Path:
        if folder is None:
            return Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="lockgate-")))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    # --- staging ---

    def stage(self, rows: pl.DataFrame) -> None:
        """Cast a batch and write it."""
        cast = self.layout.cast(rows)
        with self.engine.mapped():
            self._writer.write(cast)
        self._rows += cast.height

    def seal(self) -> int:
        """End staging, and count again."""
        with self.engine.mapped():
            self._writer.finish()
            if self.engine.indexes_staging and self.layout.key:
                self._sealed.rows(f"CREATE INDEX by_key ON {STAGED} ({', '.join(map(quote, self.layout.key))})")
            self._rows = self._sealed.rows(f"SELECT count(*) FROM {STAGED}")[0][0]
        return self._rows

    @property
    def _sealed(self) -> Session:
        """A connection to the staging file, which is kept until that is published."""
        if self._staging is None:
            self._staging = self.engine.staging(self._file)
        return self._staging

    def _close(self) -> None:
        if self._staging is not None:
            self._staging.close()
            self._staging = None

    # --- whole-set rules ---

    def audit(self, rules: Sequence[SetRule]) -> list[Violation]:
        """Hold `rules` against the chamber, in SQL."""
        with self.engine.mapped():
            return [violation for rule in rules if (violation := self._audited(rule)) is not None]

    def _audited(self, rule: SetRule) -> Violation | None:
        for name in rule.fields:
            if name not in self.layout.staged:
                raise self.side.error(
                    "missing",
                    f"rule {rule.label!r} is about column {name!r}, which is not loaded (schema_contract). Add the "
                    "column to the target, or remove the rule.",
                )
        if not rule.blames_rows:
            good, observed = self._sealed.rows(rule.verdict_sql(STAGED))[0]
            return None if good else Violation(rule, 0, observed)
        blamed = self._sealed.rows(f"SELECT count(*) FROM ({rule.violations_sql(STAGED, 'rowid')}) AS v")[0][0]
        return Violation(rule, blamed, counted(blamed, "row")) if blamed else None

    def take(self, violation: Violation) -> Taken:
        """Delete the blamed rows from the chamber, and hand them over."""
        blamed = f"rowid IN ({violation.rule.violations_sql(STAGED, 'rowid')})"
        wires = {column.name: column.fit.wire for column in self.layout.columns}
        with self.engine.mapped(), self._sealed.transaction():
            wired = self._sealed.frame(f"SELECT {self.layout.names} FROM {STAGED} WHERE {blamed}", wires)
            self._rows -= self._sealed.changed(f"DELETE FROM {STAGED} WHERE {blamed}")
        rows = wired.select(column.fit.back(pl.col(column.name)).alias(column.name) for column in self.layout.columns)
        return Taken(rows.select(violation.rule.fields), as_json_texts(rows))

    # --- publishing ---

    def publish(self, record: RunRecord, quarantine: Quarantine) -> Published:
        """Publish in one transaction of the target's file."""
        attached = f"staging_{record.run_id}"
        self._close()
        with self.table.session() as session:
            session.attach(self._file, attached)
            with session.transaction():
                books = Books(self.engine, session)
                books.prepare()
                earlier = books.find(record.run_id)
                if earlier is not None:
                    return _booking.recall(record, earlier)
                self._confirm_unchanged(session)
                staged = Staged(quote(attached, STAGED), self._rows)
                ways = Ways(session, self.table.options, self.layout, staged, record)
                ways.refuse()
                books.quarantine.conclude(record, quarantine)
                published = ways.publish()
                _booking.settle(record, published)
                books.write(record)
                books.write_state(record)
        return published

    def _confirm_unchanged(self, session: Session) -> None:
        """The table may have been changed since the layout was made; one that still fits in the same way will do."""
        layout = place(self.engine, self.table.options, self.schema, self.table.describe(session))
        if layout.staged != self.layout.staged:
            raise self.side.error("busy", "the table was changed while the run was under way. Run again.")
        self.layout = layout

    def discard(self) -> None:
        """Remove the staging file, and let go of the lock."""
        self._cleanup.close()
