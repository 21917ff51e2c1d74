"""The chamber of an API target: rows staged on this machine, and sent when every check has passed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from flows._errors import RefusedError
from flows._http.loop import run
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows._storage import Store
from flows.targets import _booking
from flows.targets._base import Chamber, Published, Taken, Violation
from flows.targets._durable import Lock, Turn, safe
from flows.targets._formats import Ndjson
from flows.targets._outbox import Outbox
from flows.targets._sending import Delivery
from flows.targets._staged import StagedFiles
from transforms._errors import LockgateError
from transforms._words import counted, did_you_mean
from validations._contract import SetRule

if TYPE_CHECKING:
    from flows.targets.api import Api


class ApiChamber(Chamber):
    """Staged rows, and what the API said to them so far."""

    def __init__(self, options: Api, outbox: Outbox, record: RunRecord, schema: pl.Schema, folder: Path | None) -> None:
        self.options = options
        self.side = side = outbox.side
        self._outbox = outbox
        self._format = Ndjson()
        self._format.require(schema, side)
        for column in options.columns_in_url:
            if column not in schema:
                hint = did_you_mean(column, schema, word="Present")
                raise side.error("missing", f"'url' has {{{column}}} in it, and there is no such column.{hint}")
        # What was accepted of a load that broke is for the next such load, and no business of a replay.
        self._load = f"{record.pipeline}/replay" if record.is_replay else record.pipeline
        self._lock = self._locked(record)
        self._temporary = tempfile.TemporaryDirectory(prefix="lockgate-") if folder is None else None
        store = Store(self._temporary.name if self._temporary else str(folder), side=side)
        self._staged = StagedFiles(store, schema, name="staged", scratch=Path(store.path), target_file_bytes=None)
        self._accepted = 0
        self._added = False

    def _locked(self, record: RunRecord) -> Lock:
        place = self.options.folder / f"{safe(self.options.label)}.{safe(record.pipeline)}.lock"
        try:
            return Lock(place, Turn(f"{record.pipeline} {record.run_id}"))
        except BlockingIOError as error:
            raise self.side.error(
                "busy",
                f"another run of this pipeline is sending there ({error.strerror!r}). Run again when it is done.",
            ) from None
        except OSError as error:
            raise self.side.error(
                "permission",
                f"nothing can be kept in {str(self.options.folder)!r}: {error.strerror}. Set 'state_folder'.",
            ) from error

    def stage(self, rows: pl.DataFrame) -> None:
        """Stage a batch.

        Raises:
            TargetTypeError: JSON cannot carry a value.
        """
        self._format.fitted(rows, self.side)
        self._staged.write(rows)

    def seal(self) -> int:
        """End staging."""
        return self._staged.seal()

    def audit(self, rules: Sequence[SetRule]) -> list[Violation]:
        """Hold `rules` against the staged rows."""
        return self._staged.audit(rules)

    def take(self, violation: Violation) -> Taken:
        """Take the blamed rows out."""
        return self._staged.take(violation)

    def publish(self, record: RunRecord, quarantine: Quarantine) -> Published:
        """Send what was not accepted before, and commit the ledger when the last answer is there.

        Raises:
            LoadError: the API cannot be reached, or takes no rows. What it accepted is written down.
            RefusedError: it refused too many rows. What it accepted is written down.
        """
        earlier = self._outbox.find(record.run_id)
        if earlier is not None:
            return _booking.recall(record, earlier)
        total = self._staged.rows
        delivery = Delivery(self.options, self.side, self._outbox, self._load, total, self._outbox.begin(self._load))
        try:
            if total:
                frames = self._staged.frame().collect_batches(engine="streaming", lazy=True)
                run(lambda: delivery.run(iter(frames)))
        except LockgateError as error:
            self._quarantine(record, quarantine, wanted=isinstance(error, RefusedError))
            raise self._told(error, self._load, total) from error.__cause__
        finally:
            self._accepted += delivery.counts.accepted
        self._quarantine(record, quarantine, wanted=True)
        record.staged = total - delivery.counts.refused
        known = record.staged - self._accepted
        published = Published(self._accepted, unchanged=known, how="sent" if self._accepted else "nothing to send")
        _booking.settle(record, published)
        self._outbox.commit(record, quarantine, self._load)
        return published

    def _quarantine(self, record: RunRecord, quarantine: Quarantine, *, wanted: bool) -> None:
        """Add the refused rows to the quarantine; once, however often publishing is tried."""
        if not wanted or self._added:
            return
        self._added = True
        for rows in self._outbox.refused(self._load):
            quarantine.add_texts(rows["values"], pl.Series([[reason] for reason in rows["reason"]]))
        record.rows.quarantined = quarantine.rows

    def _told(self, error: LockgateError, pipeline: str, total: int) -> LockgateError:
        """The error, with what was accepted before it: that cannot be undone, and need not be sent again."""
        accepted = self._outbox.accepted(pipeline)
        if accepted:
            error.message += (
                f" Of {counted(total, 'row')}, {accepted:,} had been accepted: the next run sends only the others."
            )
            error.args = (error.message,)
        return error

    def discard(self) -> None:
        """Remove the staged rows, and let others in; what was accepted stays written down."""
        self._staged.remove()
        self._outbox.close()
        self._lock.release()
        if self._temporary is not None:
            self._temporary.cleanup()
