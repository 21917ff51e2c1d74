"""The run record: what a run did with every row, and whether that adds up.

Every count is taken where rows really pass (the reader, each step, the contract, the target's
own row counts); `RunRecord.balance` then holds them against each other. A record that does not
balance fails the run before anything is published.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from flows._errors import LedgerError, RefusedError

Status = Literal["running", "published", "unchanged", "refused", "failed"]


@dataclass
class Rows:
    """Where the rows of a run went.

    Attributes:
        read: rows that the source delivered.
        filtered: rows that a step left out: a filter, or a join without a match.
        deduplicated: rows that a ``deduplicate`` step left out.
        aggregated: rows that an ``aggregate`` step folded into others.
        expanded: rows that a join added because one row had several matches.
        quarantined: rows that broke a rule.
        written: rows that the target inserted, updated or replaced.
        unchanged: rows that the target had already, equal in every column.
    """

    read: int = 0
    filtered: int = 0
    deduplicated: int = 0
    aggregated: int = 0
    expanded: int = 0
    quarantined: int = 0
    written: int = 0
    unchanged: int = 0


@dataclass(frozen=True)
class Guards:
    """What publishing a run may do to the rows that are there; it is not part of what a ledger keeps.

    Attributes:
        max_removed_ratio: of the rows that are there, the part that may go.
        allows_empty: whether a load without rows may take all of them away, whatever the target says.
    """

    max_removed_ratio: float = 1.0
    allows_empty: bool = False


@dataclass
class StepCount:
    """How many rows went into a step and came out of it.

    Attributes:
        dropped: rows that did not come out, where the step counts them; else the difference says it.
        added: rows that came out and stand for none that went in: those of a joined source alone.
        may_multiply: whether the configuration says that several rows may come out for one.
    """

    step: str
    removes: str
    rows_in: int = 0
    rows_out: int = 0
    dropped: int | None = None
    added: int = 0
    may_multiply: bool = True

    @property
    def lost(self) -> int:
        """How many rows did not come out."""
        return max(self.rows_in - self.rows_out, 0) if self.dropped is None else self.dropped

    @property
    def multiplied(self) -> int:
        """How many rows came out beside the first one for each that went in."""
        return self.rows_out - self.added - (self.rows_in - self.lost)

    def add_to(self, rows: Rows) -> None:
        """Book what was lost where this step's kind of loss belongs, and what came out beside the rest."""
        rows.expanded += self.multiplied + self.added
        column = "filtered" if self.removes in {"unmatched", "nothing"} else self.removes
        setattr(rows, column, getattr(rows, column) + self.lost)

    def hold_declared(self) -> None:
        """Confirm that rows were not multiplied behind anybody's back.

        Raises:
            RefusedError: they were.
        """
        if self.may_multiply or not self.multiplied:
            return
        raise RefusedError(
            f"step {self.step!r} multiplies rows: {self.rows_in - self.lost:,} with a match became "
            f"{self.rows_out - self.added:,}, because the joined source has some of their keys several times. Nothing "
            "was published. Write validate: '1:m' or 'm:m', or max_fan_out, if that is meant; otherwise deliver each "
            "key of that source once.",
            guard="validate",
            observed=self.multiplied,
            allowed=0,
            path=("transformations",),
        )


@dataclass
class RunRecord:
    """One run, as the ledger keeps it.

    Attributes:
        run_id: sorts by time.
        filtered_at_source: the filter that kept the source from sending rows, in words; they are not read.
        staged: rows that the target counted in the chamber.
        rejected_as_read: quarantined rows that never reached the first step.
        left_out: how many of `steps` stand for what an incremental load left out, before all rules.
        state: what each source wants remembered when the load is published, by the source's name.
        targets: of a run with several targets, what became of each by its name: its label as ``target``, its
            ``status`` (``waiting`` until its turn), and the rows ``written`` and ``unchanged``. `rows` then says
            what the first of them did.
        seconds: wall time until the record was made.
        resumes: the run whose landed files it took over.
        replays: of a run that replays quarantined rows, which: the numbers of the rows by the run that kept them.
            None where it is no replay. They are marked in the transaction that publishes the run.
        forgets_before: quarantined rows that are older are removed when the run is published; None keeps them.
        forgotten: how many were.
        guards: what publishing may take away; without any until a pipeline's rows are staged.
        backfill: the window that it loads, where it is part of a backfill.
    """

    pipeline: str
    target: str
    config_version: str
    run_id: str
    started_at: datetime
    status: Status = "running"
    rows: Rows = field(default_factory=Rows)
    steps: list[StepCount] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, Any] | None = None
    filtered_at_source: str | None = None
    staged: int = 0
    rejected_as_read: int = 0
    left_out: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    published: str | None = None
    resumes: str | None = None
    guards: Guards = Guards()
    replays: dict[str, list[int]] | None = None
    forgets_before: datetime | None = None
    forgotten: int = 0
    backfill: dict[str, Any] | None = None

    @classmethod
    def start(cls, pipeline: str, target: str, config_version: str) -> RunRecord:
        """Open the record of a new run."""
        now = datetime.now(UTC)
        run_id = f"{now:%Y%m%dT%H%M%S}_{secrets.token_hex(4)}"
        return cls(pipeline, target, config_version, run_id, now)

    @property
    def is_replay(self) -> bool:
        """Whether its rows come from the quarantine."""
        return self.replays is not None

    def finish(self, status: Status) -> None:
        """Close the record with how it ended and how long it took."""
        self.status = status
        self.seconds = round((datetime.now(UTC) - self.started_at).total_seconds(), 3)

    def add_left_out(self, rows: Mapping[str, int]) -> None:
        """Book rows that were read, and left out before the first step, by what they are counted as."""
        self.left_out = len(rows)
        self.rows.read += sum(rows.values())
        steps, arriving = [], self.rows.read
        for removes, lost in rows.items():
            steps.append(StepCount("incremental", removes, arriving, arriving - lost))
            arriving -= lost
        self.steps = [*steps, *self.steps]

    def tally(self) -> None:
        """Book every step's losses; call once, when the pass is over.

        Raises:
            RefusedError: a step multiplied rows, and the configuration does not say that it may.
        """
        for step in self.steps:
            step.add_to(self.rows)
        for step in self.steps:
            step.hold_declared()

    def balance(self) -> None:
        """Hold the counts against each other.

        Raises:
            LedgerError: rows were lost or counted twice; the message shows the sums.
        """
        rows = self.rows
        if min(asdict(rows).values()) < 0:
            raise self._unbalanced("a count is below zero")
        flow = [("source", rows.read), *((step.step, step.rows_in) for step in self.steps)]
        ends = [rows.read, *(step.rows_out for step in self.steps)]
        ends[self.left_out] -= self.rejected_as_read
        for (name, arriving), leaving in zip(flow[1:], ends, strict=False):
            if arriving != leaving:
                raise self._unbalanced(f"step {name!r} got {arriving:,} rows of the {leaving:,} before it")
        accepted = ends[-1] - (rows.quarantined - self.rejected_as_read)
        if accepted != self.staged:
            raise self._unbalanced(f"{accepted:,} rows were accepted, the target staged {self.staged:,}")
        if self.staged != rows.written + rows.unchanged:
            gone = rows.written + rows.unchanged
            raise self._unbalanced(f"{self.staged:,} rows were staged, the target accounts for {gone:,}")
        entered = rows.read + rows.expanded
        left = sum(asdict(rows).values()) - entered
        if entered != left:
            raise self._unbalanced(f"{entered:,} rows came in, {left:,} are accounted for")

    def _unbalanced(self, found: str) -> LedgerError:
        counts = asdict(self.rows)
        return LedgerError(
            f"the ledger does not balance: {found}. Nothing was published; this is a fault of Lockgate or of a "
            f"custom step, please report it. Counts: {counts}.",
            counts=counts,
        )

    def as_json(self) -> dict[str, Any]:
        """The result object of ``run --json``, in texts that every ledger takes."""
        facts = {
            "pipeline": self.pipeline,
            "run_id": self.run_id,
            "status": self.status,
            "target": self.target,
            **({"targets": self.targets} if self.targets else {}),
            "started_at": self.started_at.isoformat(),
            "config_version": self.config_version,
            "rows": asdict(self.rows),
            "filtered_at_source": self.filtered_at_source,
            "seconds": self.seconds,
            "steps": [asdict(step) for step in self.steps],
            "stages": self.stages,
            "checks": self.checks,
            "warnings": self.warnings,
            "published": self.published,
            **({"resumes": self.resumes} if self.resumes else {}),
            **({"replays": {run: len(rows) for run, rows in self.replays.items()}} if self.replays is not None else {}),
            **({"forgotten": self.forgotten} if self.forgotten else {}),
            **({"backfill": self.backfill} if self.backfill else {}),
            "error": self.error,
        }
        return {name: _sayable(fact) for name, fact in facts.items()}


def _sayable(fact: Any) -> Any:
    """A fact without NUL and halves of characters, which an error may quote and some ledgers refuse."""
    if isinstance(fact, str):
        return fact.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    if isinstance(fact, dict):
        return {_sayable(name): _sayable(inner) for name, inner in fact.items()}
    return [_sayable(inner) for inner in fact] if isinstance(fact, list) else fact
