"""What a target is: a frozen set of options that opens a chamber and publishes from it.

The *chamber* is the staged set of a run: it belongs to the target, because it is where that
target can publish from in one step. Until `Chamber.publish` returns, no reader of the target
sees anything of the run; when it has returned, every reader sees all of it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict

from flows._ledger import RunRecord
from flows._quarantine import STATUSES, Marks, Quarantine, Status
from transforms._registry import Registry
from validations._contract import RowCheck, SetRule

Kind = TypeVar("Kind", bound="type[Target]")


@dataclass(frozen=True)
class Published:
    """What the publishing transaction did to the target, counted by the target itself.

    Attributes:
        inserted, updated, unchanged, deleted: rows.
        how: one phrase for people: "swapped in", "rewritten in place", "appended", "merged".
        closed: versions of rows that ended, in a target that keeps history.
        removed: how many fewer rows there are now; versions that ended and that no other follows, where one keeps
            history. Counted where the write mode takes rows away.
        before: of how many rows, or of how many versions that were current.
    """

    inserted: int
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    how: str = ""
    closed: int = 0
    removed: int = 0
    before: int = 0

    @property
    def changed(self) -> bool:
        """Whether any row of the target is another one now."""
        return bool(self.inserted or self.updated or self.deleted or self.closed)


@dataclass(frozen=True)
class Violation:
    """What a whole-set rule found in the chamber.

    Attributes:
        rule: the broken rule.
        rows: how many rows it blames; 0 for a rule about the set as a whole.
        observed: what was seen, in words: "3 rows", "0 rows, at least 1 wanted".
    """

    rule: SetRule
    rows: int
    observed: str


@dataclass(frozen=True)
class Taken:
    """Rows taken out of the chamber because a whole-set rule blames them.

    Attributes:
        keys: the rule's fields of each row, with the staged dtypes.
        values: each row as it was staged, as a JSON object text.
    """

    keys: pl.DataFrame
    values: pl.Series


class Chamber(ABC):
    """The staged set of one run. A context manager: leaving it discards whatever was not published.

    Attributes:
        row_checks: what a row must hold to for this target, beside the pipeline's own contract: rows that do not
            are quarantined before they get here. On columns of the schema that the chamber was opened with.
        warnings: what people should know before the rows arrive, in words.
    """

    row_checks: tuple[RowCheck, ...] = ()
    warnings: tuple[str, ...] = ()

    @abstractmethod
    def stage(self, rows: pl.DataFrame) -> None:
        """Stage a batch of accepted rows; may be called from another thread, one call at a time."""

    @abstractmethod
    def seal(self) -> int:
        """End staging; returns the number of rows staged, as the target counted them."""

    @abstractmethod
    def audit(self, rules: Sequence[SetRule]) -> list[Violation]:
        """Hold whole-set rules against the sealed chamber; returns one `Violation` for each broken rule."""

    @abstractmethod
    def take(self, violation: Violation) -> Taken:
        """Take the rows that `violation` blames out of the chamber."""

    @abstractmethod
    def publish(self, record: RunRecord, quarantine: Quarantine) -> Published:
        """Publish rows, quarantine and ledger in one transaction.

        Counts go into `record` and are balanced inside the transaction; a second call for the same run
        finds what the first one published, and publishes nothing.

        Raises:
            LoadError: nothing was published.
            LedgerError: the counts do not balance; nothing was published.
            RefusedError: a guard refused; nothing was published.
        """

    @abstractmethod
    def discard(self) -> None:
        """Remove every trace of the chamber; safe to call twice, and after `publish`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


class Target(BaseModel, ABC):
    """A kind of target; its pydantic fields are its YAML keys, one file registers one kind."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: str

    @property
    @abstractmethod
    def label(self) -> str:
        """The target's name for people: ``analytics.dim_customers``."""

    @property
    def described(self) -> str:
        """Its kind and its label."""
        return f"{self.type} {self.label}"

    @property
    def adds(self) -> bool:
        """Whether a row that is loaded twice is there twice."""
        return getattr(self, "write_mode", "append") == "append"

    @property
    def replaces_more(self) -> str | None:
        """By which of its options a load takes rows away that it has nothing about; None by none."""
        if getattr(self, "write_mode", None) == "overwrite":
            return "write_mode: overwrite"
        delete_range, scd2 = getattr(self, "delete_range", None), getattr(self, "scd2", None)
        if delete_range is not None:
            return "delete_range"
        return "hard_deletes: close" if scd2 is not None and scd2.hard_deletes == "close" else None

    def rebuilt(self) -> Target:
        """The same target, of which a load replaces all rows; as it is where it cannot, or keeps their history."""
        if getattr(self, "write_mode", None) not in {"append", "upsert", "delete_insert"}:
            return self
        none = {"delete_key": (), "delete_range": None}
        return self.model_copy(
            update={"write_mode": "overwrite"} | {key: no for key, no in none.items() if hasattr(self, key)}
        )

    @abstractmethod
    def open(self, record: RunRecord, schema: pl.Schema, folder: Path | None = None) -> Chamber:
        """Lock the target against other runs, check that `schema` fits, and open a chamber.

        Args:
            record: of the run.
            schema: columns and dtypes of the rows to come.
            folder: the target's own place in the run's workspace, for a target that cannot stage rows itself.
                It need not exist yet. None outside a run: make a temporary one.

        Raises:
            LoadError: the target cannot be reached, another run holds it, or a column does not fit.
        """

    @abstractmethod
    def plan(self, schema: pl.Schema) -> list[str]:
        """Say what publishing rows of `schema` would do, a line each; changes nothing."""

    @abstractmethod
    def check(self) -> None:
        """Reach the target and confirm that a run could publish there.

        Raises:
            LoadError: it could not; the message says what is missing.
        """

    @abstractmethod
    def record(self, record: RunRecord, quarantine: Quarantine | None) -> None:
        """Keep the record, and the quarantine, of a run that published nothing."""

    @abstractmethod
    def state(self, pipeline: str) -> dict[str, Any]:
        """What the sources of `pipeline` had remembered with the newest published load, by their names."""

    @abstractmethod
    def remember(self, pipeline: str, state: Mapping[str, Any]) -> None:
        """Let `state` be what the sources of `pipeline` had remembered; nothing else is."""

    @abstractmethod
    def history(self, pipeline: str, limit: int) -> list[dict[str, Any]]:
        """The newest runs of `pipeline` in the ledger, newest first, as result objects."""

    @abstractmethod
    def kept(self, pipeline: str, run_id: str | None = None, status: Status | None = None) -> Iterator[pl.DataFrame]:
        """Quarantined rows with the columns of `KEPT`, a frame at a time: the oldest run first, then by number.

        Args:
            pipeline: whose rows.
            run_id: those of one run; of all where it is None.
            status: those of one status; all where it is None.
        """

    @abstractmethod
    def kept_counts(self, pipeline: str) -> list[dict[str, Any]]:
        """Each run with quarantined rows, the newest first: its run_id, and how many are of each status."""

    @abstractmethod
    def discard(self, pipeline: str, marks: Marks) -> int:
        """Mark those of these quarantined rows that are waiting as discarded; returns how many were."""

    def quarantined(
        self, pipeline: str, run_id: str | None, limit: int, status: Status | None = None
    ) -> list[dict[str, Any]]:
        """Quarantined rows of a run (of the newest that has any of `status`), as objects with the keys of `KEPT`."""
        runs = self.kept_counts(pipeline)
        having = (run["run_id"] for run in runs if any(run[each] for each in ([status] if status else STATUSES)))
        wanted = run_id or next(having, None)
        if wanted is None:
            return []
        rows = (row for frame in self.kept(pipeline, wanted, status) for row in frame.iter_rows(named=True))
        return [{**row, "values": json.loads(row["values"])} for row in islice(rows, limit)]


targets: Registry[type[Target]] = Registry("target", package="flows.targets")


def target(kind: Kind) -> Kind:
    """Register a `Target` class under the name of its file."""
    targets.register(kind.__module__.rpartition(".")[2], kind)
    return kind
