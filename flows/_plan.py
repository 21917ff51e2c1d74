"""A pipeline's plan: folded once against the source's schema, before a row is read.

Row-local steps at the front run batch by batch, cut after every step that takes rows away, so
that each is counted where rows really pass; the rest runs in Polars' streaming engine over the
whole set. What Polars would push to the source is found by running the plan over no rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl
from polars.io.plugins import register_io_source

from flows._counters import Counter, Matches
from flows.sources._base import Extract, Pushdown
from transforms._errors import TransformError
from transforms._plan import Step, fold, reason, split
from validations._contract import Contract

Schema = pl.Schema
_ROW = "__lockgate_row__"


class Segment:
    """Row-local steps over one batch at a time; folded once, run for every batch.

    Args:
        schema: columns before the steps. A batch need not have those that nobody asks for.
        steps: keep every row.
        counted: the last step, if it takes rows away.
        needed: columns that are wanted after the steps.

    Attributes:
        asks: columns that a batch must have.
    """

    def __init__(self, schema: Schema, steps: Sequence[Step], counted: Step | None, needed: Sequence[str]) -> None:
        self.counted = counted
        self._steps = (*steps, counted) if counted else tuple(steps)
        self._batch = pl.DataFrame(schema=schema)
        self.asks = columns_asked(schema, self._planned(steps, needed))
        self._plan = self._planned(steps, needed)(register_io_source(self._feed, schema=schema))

    def _planned(self, steps: Sequence[Step], needed: Sequence[str]) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
        def plan(frame: pl.LazyFrame) -> pl.LazyFrame:
            frame = fold(frame, steps)
            if self.counted is None:
                return frame.select(needed)
            return self.counted.apply(frame.with_row_index(_ROW)).select(*needed, _ROW)

        return plan

    def __call__(self, batch: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series | None]:
        """Run the steps over a batch; where rows may be gone, with the positions of those that are left.

        Raises:
            TransformError: a value that a step cannot work with; names the step.
        """
        self._batch = batch
        try:
            result = self._plan.collect(engine="in-memory")
        except pl.exceptions.PolarsError as error:
            raise self._stopped(batch, error) from error
        if self.counted is None:
            return result, None
        return result.drop(_ROW), result.get_column(_ROW)

    def _stopped(self, batch: pl.DataFrame, error: pl.exceptions.PolarsError) -> TransformError:
        """Find the step by running more and more of them."""
        for upto, step in enumerate(self._steps, start=1):
            try:
                fold(batch.lazy(), self._steps[:upto]).collect()
            except pl.exceptions.PolarsError as found:
                return stopped(found, step)
        return stopped(error)

    def _feed(
        self, columns: list[str] | None, predicate: pl.Expr | None, limit: int | None, _rows: int | None
    ) -> Iterator[pl.DataFrame]:
        yield _pushed(self._batch, columns, predicate, limit)


@dataclass(frozen=True)
class Plan:
    """Everything that is known before a row is read.

    Attributes:
        spine: the source that the steps start from.
        sides: the other sources, by name, for joins.
        pushdown: what the plan asks of the spine.
        segments: row-local steps, run batch by batch.
        tail: steps that need the whole set; `tail_schema`: the columns before them.
        output: columns and dtypes about to be published.
        read_contract: what must hold for rows as read; `contract`: for rows about to be published.
        skipped: steps left out because they did not fit and ``on_transform_error: skip`` is set, in words.
    """

    spine: Extract
    sides: Mapping[str, Extract]
    steps: tuple[Step, ...]
    pushdown: Pushdown
    segments: tuple[Segment, ...]
    tail: tuple[Step, ...]
    tail_schema: Schema
    output: Schema
    read_contract: Contract
    contract: Contract
    skipped: tuple[str, ...] = ()

    def over(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """The whole plan over any frame of the spine's columns: what `plan` explains and `preview` shows."""
        sides = {name: extract.frame for name, extract in self.sides.items()}
        return fold(frame, self.steps, sides).select(list(self.output))

    def counted_tail(self, frame: pl.LazyFrame, counts: Sequence[Counter], matches: Sequence[Matches]) -> pl.LazyFrame:
        """The tail over `frame`, with a counter before each step and behind the last, and one of matches in each."""
        sides = {name: extract.frame for name, extract in self.sides.items()}
        return counted_steps(frame, self.tail, sides, counts, matches).select(list(self.output))


def counted_steps(
    frame: pl.LazyFrame,
    steps: Sequence[Step],
    sides: Mapping[str, pl.LazyFrame],
    counts: Sequence[Counter],
    matches: Sequence[Matches],
) -> pl.LazyFrame:
    """Steps over `frame`, with a counter before each and behind the last, and one of matches in each."""
    frame = counts[0].watching(frame)
    for step, counter, watch in zip(steps, counts[1:], matches, strict=True):
        frame = counter.watching(step.apply(frame, sides, watch))
    return frame


def counters(steps: Sequence[Step]) -> tuple[list[Counter], list[Matches]]:
    """What `counted_steps` needs to count each step once."""
    return [Counter() for _ in range(len(steps) + 1)], [Matches() for _ in steps]


def stopped(error: pl.exceptions.PolarsError, step: Step | None = None) -> TransformError:
    """The error of a plan that met a value it cannot work with."""
    if step is None:
        return TransformError(f"a step met a value it cannot work with: {reason(error)}. Nothing was published.")
    return TransformError(
        f"step {step.name!r} met a value it cannot work with: {reason(error)}. Nothing was published.",
        path=("transformations", step.position),
    )


def make(
    spine: Extract,
    sides: Mapping[str, Extract],
    steps: Sequence[Step],
    *,
    read_contract: Callable[[Schema], Contract],
    contract: Callable[[Schema], Contract],
    skipped: tuple[str, ...] = (),
) -> Plan:
    """Fold `steps` over the sources' schemas.

    Args:
        spine: the source that the steps start from.
        sides: the other sources, by name.
        steps: in order.
        read_contract: from columns to what must hold for rows as read.
        contract: from columns to what must hold for rows about to be published.
        skipped: steps that were left out, in words.

    Raises:
        TransformError: a step does not fit.
        ContractError: a rule does not fit.
    """
    empty = {name: pl.LazyFrame(schema=extract.schema) for name, extract in sides.items()}
    output = _delivered(spine, fold(pl.LazyFrame(schema=spine.schema), steps, empty).collect_schema())
    head, tail = split(steps)
    tail_schema = fold(pl.LazyFrame(schema=spine.schema), head).collect_schema()
    needed = tuple(output)
    if tail:
        counts, matches = counters(tail)
        needed = columns_asked(
            tail_schema, lambda frame: counted_steps(frame, tail, empty, counts, matches).select(list(output))
        )
    segments = _segments(spine.schema, head, needed)
    pushdown = asked(spine.schema, lambda frame: fold(frame, steps, empty).select(list(output)))
    read = _read(spine.schema, segments[0].asks if segments else needed, pushdown, read_contract(spine.schema))
    return Plan(
        spine=spine,
        sides=sides,
        steps=tuple(steps),
        pushdown=replace(pushdown, columns=tuple(read)),
        segments=segments,
        tail=tuple(tail),
        tail_schema=tail_schema,
        output=output,
        read_contract=read_contract(read),
        contract=contract(output),
        skipped=skipped,
    )


def asked(schema: Schema, plan: Callable[[pl.LazyFrame], pl.LazyFrame]) -> Pushdown:
    """Run `plan` over no rows of `schema`, and see what Polars asks of its source."""
    found: list[Pushdown] = []

    def scan(
        columns: list[str] | None, predicate: pl.Expr | None, limit: int | None, _rows: int | None
    ) -> Iterator[pl.DataFrame]:
        found.append(Pushdown(None if columns is None else tuple(columns), predicate, limit))
        yield _pushed(pl.DataFrame(schema=schema), columns, None, None)

    plan(register_io_source(scan, schema=schema)).collect()
    if len(found) != 1:  # a step that uses its input twice: everything, once
        return Pushdown()
    return found[0]


def columns_asked(schema: Schema, plan: Callable[[pl.LazyFrame], pl.LazyFrame]) -> tuple[str, ...]:
    """The columns of its source that `plan` needs."""
    columns = asked(schema, plan).columns
    return tuple(schema) if columns is None else columns


def _read(schema: Schema, needed: Sequence[str], pushdown: Pushdown, contract: Contract) -> Schema:
    """The columns to read: those that steps, rules and the filter need, and at least one to count rows by."""
    filtered_by = pushdown.predicate.meta.root_names() if pushdown.predicate is not None else []
    wanted = {*needed, *filtered_by, *_columns_of(contract)} or {next(iter(schema))}
    return Schema({name: dtype for name, dtype in schema.items() if name in wanted})


def _delivered(spine: Extract, planned: Schema) -> Schema:
    """Delivered columns in their order, then new ones; without those that a step may use and nobody asked for."""
    if spine.delivers is None:
        return planned
    new = [name for name in planned if name not in spine.schema]
    return Schema({name: planned[name] for name in (*spine.delivers, *new) if name in planned})


def _columns_of(contract: Contract) -> set[str]:
    named = {check.field for check in contract.row_checks if check.field}
    for check in contract.row_checks:
        if isinstance(check.good, pl.Expr):
            named |= set(check.good.meta.root_names())
    return named | {name for rule in contract.set_rules for name in rule.fields}


def _segments(schema: Schema, head: Sequence[Step], needed: Sequence[str]) -> tuple[Segment, ...]:
    """Cut the row-local steps after every one that takes rows away; each hands on what the next ones need."""
    groups: list[tuple[Schema, list[Step], Step | None]] = []
    waiting: list[Step] = []
    for step in (*head, None):
        if step is not None and step.transform.removes == "nothing":
            waiting.append(step)
        elif step is not None or waiting:
            groups.append((schema, waiting, step))
            schema = fold(pl.LazyFrame(schema=schema), [*waiting, *([step] if step else [])]).collect_schema()
            waiting = []
    segments: list[Segment] = []
    for before, steps, counted in reversed(groups):
        segments.insert(0, Segment(before, steps, counted, needed))
        needed = segments[0].asks
    return tuple(segments)


def _pushed(
    batch: pl.DataFrame, columns: list[str] | None, predicate: pl.Expr | None, limit: int | None
) -> pl.DataFrame:
    kept = batch if predicate is None else batch.filter(predicate)
    kept = kept if limit is None else kept.head(limit)
    return kept if columns is None else kept.select(columns)
