"""The one pass over the rows: read, transform, judge and stage at the same time, batch by batch.

Every row that is read ends up in the chamber, in the quarantine, or in the count of a step. A
reader thread runs ahead and a writer thread behind, a few batches apart, so memory stays flat.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import polars as pl
from polars.io.plugins import register_io_source

from flows._ledger import StepCount
from flows._plan import Plan, counters, stopped
from flows._quarantine import Quarantine
from flows._threads import Ahead, Behind
from flows.sources._base import Batch, Malformed
from validations._contract import Contract

_TAIL_BATCH_ROWS = 50_000
#: What a record that cannot be read as a row is counted under, beside the rules' labels.
MALFORMED = "malformed"
Progress = Callable[[int], None]


@dataclass
class Judged:
    """A batch on its way: the rows that are left, and what became of the others.

    Attributes:
        rows: the rows that are left, transformed so far.
        positions: where each of them stood in the batch, from 0.
        rejections: positions and reasons of the rows that broke a rule, a pair for each contract.
        steps: rows into and out of each step that takes rows away.
    """

    rows: pl.DataFrame
    positions: pl.Series
    rejections: list[tuple[pl.Series, pl.Series]] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    violations: Counts[str] = field(default_factory=Counts)
    failed: set[str] = field(default_factory=set)
    rejected_as_read: int = 0

    @classmethod
    def whole(cls, batch: pl.DataFrame) -> Judged:
        """A batch of which every row is left."""
        return cls(batch, pl.int_range(batch.height, dtype=pl.Int64, eager=True))

    def hold(self, contract: Contract) -> None:
        """Take the rows out that break `contract`."""
        if not contract.row_checks:
            return
        verdict = contract.judge(self.rows)
        self.violations.update(verdict.counts)
        self.failed.update(verdict.failed)
        self.rows = verdict.accepted
        if verdict.positions.len():
            self.rejections.append((self.positions.gather(verdict.positions), verdict.reasons))
            everywhere = pl.int_range(self.positions.len(), eager=True)
            self.positions = self.positions.filter(~everywhere.is_in(verdict.positions.to_list()))


def through_head(plan: Plan, batch: pl.DataFrame) -> Judged:
    """Run the row-local steps over a batch as read; and the contract, where no other step follows."""
    judged = Judged.whole(batch)
    judged.hold(plan.read_contract)
    judged.rejected_as_read = batch.height - judged.rows.height
    for segment in plan.segments:
        arrived = judged.rows.height
        judged.rows, kept = segment(judged.rows)
        if kept is not None:
            judged.positions = judged.positions.gather(kept)
            judged.steps.append((arrived, judged.rows.height))
    if not plan.tail:
        judged.rows = judged.rows.select(list(plan.output))
        judged.hold(plan.contract)
    return judged


@dataclass
class Passed:
    """What a pass counted.

    Attributes:
        read: rows that the source delivered.
        rejected_as_read: those of them that broke a rule of the source.
        accepted: rows that were handed to the chamber.
        violations: of each row check by its label, those that only warn included.
        failed: labels of broken rules that refuse the load.
    """

    steps: list[StepCount]
    read: int = 0
    rejected_as_read: int = 0
    accepted: int = 0
    violations: Counts[str] = field(default_factory=Counts)
    failed: set[str] = field(default_factory=set)


class Pass:
    """One pass of a plan.

    Args:
        stage: takes accepted rows.
        quarantine: takes rejected rows.
        progress: is told the number of rows read so far.
    """

    def __init__(
        self,
        plan: Plan,
        stage: Callable[[pl.DataFrame], None],
        quarantine: Quarantine,
        *,
        progress: Progress,
    ) -> None:
        self.plan = plan
        self._quarantine = quarantine
        self._progress = progress
        self._stage = stage
        counted = [segment.counted for segment in plan.segments if segment.counted is not None]
        self._head = [StepCount(step.name, step.transform.removes) for step in counted]
        self._passed = Passed(steps=self._head)

    def run(self) -> Passed:
        """Move every row.

        Raises:
            LockgateError: of the source, a step or the chamber.
        """
        for extract in (self.plan.spine, *self.plan.sides.values()):
            extract.failures.clear()
        with Ahead(lambda: self.plan.spine.read(self.plan.pushdown)) as batches, Behind(self._stage) as writer:
            if self.plan.tail:
                self._through_tail(batches, writer)
            else:
                for batch in self._readable(batches):
                    self._hand_over(self._headed(batch).rows, writer)
        return self._passed

    def _readable(self, batches: Iterable[Batch]) -> Iterator[pl.DataFrame]:
        """The rows; what could not be read as rows goes to quarantine on the way."""
        for batch in batches:
            if isinstance(batch, pl.DataFrame):
                yield batch
                continue
            places = pl.int_range(batch.height, dtype=pl.Int64, eager=True) + self._passed.read
            self._quarantine.add_texts(batch.values, batch.reasons.reshape((-1, 1)).arr.to_list(), places)
            self._passed.violations[MALFORMED] += batch.height
            self._count_read(batch.height, rejected=batch.height)

    def _count_read(self, rows: int, *, rejected: int) -> None:
        self._passed.read += rows
        self._passed.rejected_as_read += rejected
        self._progress(self._passed.read)

    def _headed(self, batch: pl.DataFrame) -> Judged:
        first = self._passed.read
        judged = through_head(self.plan, batch)
        for positions, reasons in judged.rejections:
            self._quarantine.add(batch[positions], positions + first, reasons)
        for count, (rows_in, rows_out) in zip(self._head, judged.steps, strict=True):
            count.rows_in += rows_in
            count.rows_out += rows_out
        self._book(judged)
        self._count_read(batch.height, rejected=judged.rejected_as_read)
        return judged

    def _book(self, judged: Judged) -> None:
        self._passed.violations.update(judged.violations)
        self._passed.failed.update(judged.failed)

    def _hand_over(self, rows: pl.DataFrame, writer: Behind[pl.DataFrame]) -> None:
        self._passed.accepted += rows.height
        if not rows.is_empty():
            writer.put(rows)

    def _through_tail(self, batches: Iterable[Batch], writer: Behind[pl.DataFrame]) -> None:
        """Steps that need the whole set, in Polars' streaming engine."""
        failures: list[BaseException] = []

        def feed(
            columns: list[str] | None, _predicate: pl.Expr | None, _limit: int | None, _rows: int | None
        ) -> Iterator[pl.DataFrame]:
            try:
                for batch in self._readable(batches):
                    rows = self._headed(batch).rows
                    yield rows if columns is None else rows.select(columns)
            except BaseException as error:
                failures.append(error)  # Polars would wrap it in an error of its own
                raise

        counts, matches = counters(self.plan.tail)
        frame = self.plan.counted_tail(register_io_source(feed, schema=self.plan.tail_schema), counts, matches)
        try:
            for rows in frame.collect_batches(chunk_size=_TAIL_BATCH_ROWS, engine="streaming"):
                self._judge_transformed(rows, writer)
        except BaseException as error:
            for failure in (*failures, *(failure for side in self.plan.sides.values() for failure in side.failures)):
                raise failure from None
            if isinstance(error, pl.exceptions.PolarsError):
                raise stopped(error) from error
            raise
        self._passed.steps = [
            *self._head,
            *(
                watch.booked(step, before.rows, after.rows)
                for step, watch, before, after in zip(self.plan.tail, matches, counts, counts[1:], strict=False)
            ),
        ]

    def _judge_transformed(self, rows: pl.DataFrame, writer: Behind[pl.DataFrame]) -> None:
        judged = Judged.whole(rows)
        judged.hold(self.plan.contract)
        for positions, reasons in judged.rejections:
            self._quarantine.add(rows[positions], None, reasons)
        self._book(judged)
        self._hand_over(judged.rows, writer)


def read_rows_of(plan: Plan, keys: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
    """Rows as read, with their positions, that were accepted with one of `keys`; reads the source again.

    The plan is a function of the rows, and a run's view of a database does not change: what was read is
    found again by running the row-local steps once more.
    """
    wanted = keys.unique()
    first = 0
    with Ahead(lambda: plan.spine.read(plan.pushdown)) as batches:
        for batch in batches:
            if isinstance(batch, Malformed):
                first += batch.height
                continue
            judged = through_head(plan, batch)
            place = pl.int_range(judged.rows.height, eager=True)
            found = judged.rows.select(keys.columns).with_columns(place.alias("__place__"))
            places = found.join(wanted, on=keys.columns, how="semi").get_column("__place__").sort()
            if places.len():
                positions = judged.positions.gather(places)
                yield batch[positions], positions + first
            first += batch.height
