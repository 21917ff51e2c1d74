"""Quarantined rows as the source of a run: what waits is sent through today's pipeline again, and marked.

`replaying` makes a pipeline of another, whose first source delivers quarantined rows in the columns that the source
has today. All the rest is an ordinary run: the same steps, rules and target. The marks travel on the run's record,
and the target commits them with the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import polars as pl
from pydantic import ConfigDict

from flows._config import Pipeline
from flows._ledger import RunRecord
from flows._plan import Plan
from flows._read_back import read_back
from flows.sources._base import OUTSIDE, Context, Extract, Pushdown, Source
from flows.targets._adding import adding, is_keyed, overwrites
from flows.targets._base import Target
from transforms import _errors
from transforms._words import counted

_LEDGER = 1_000  # how far back a run's end is looked for
_DONE = {"published", "unchanged"}
_MALFORMED = "malformed"


@dataclass(frozen=True)
class Choice:
    """Which waiting rows are meant; all of them, unless something is given.

    Attributes:
        run_id: those that one run has kept.
        rows: those with one of these numbers, as ``quarantine list`` shows them.
        rule: those that broke the rule with this label.
    """

    run_id: str | None = None
    rows: tuple[int, ...] = ()
    rule: str | None = None

    def of(self, target: Target, pipeline: str) -> Iterator[pl.DataFrame]:
        """The waiting rows that are meant, the oldest run first."""
        for frame in target.kept(pipeline, self.run_id, "waiting"):
            meant = frame
            if self.rows:
                meant = meant.filter(pl.col("row").is_in(self.rows))
            if self.rule is not None:
                meant = meant.filter(pl.col("reasons").list.contains(self.rule))
            if not meant.is_empty():
                yield meant


def replaying(pipeline: Pipeline, choice: Choice) -> Pipeline:
    """The same pipeline, that reads the chosen rows instead of its first source.

    Raises:
        ConfigError: its target cannot take single rows.
    """
    target, said = adding(pipeline.target)
    first, *_others = pipeline.sources
    source = WaitingRows(
        source=pipeline.sources[first],
        pipeline=pipeline.name,
        kept_in=pipeline.target,
        choice=choice,
        is_keyed=is_keyed(target),
        said=said,
    )
    return replace(
        pipeline,
        sources={**pipeline.sources, first: source},
        target=target,
        error_handling=pipeline.error_handling.model_copy(update={"max_failed_ratio": 1.0}),
        is_replay=True,
    )


def without_whole_set(plan: Plan, warn: Callable[[str], None]) -> Plan:
    """The plan of a replay without rules about the set as a whole, which its rows are not; any other as it is."""
    if plan.spine.replayed is None:
        return plan
    for rule in plan.contract.set_rules:
        if not rule.blames_rows:
            warn(f"{rule.label}: this rule is about a whole load, and is not held for a replay.")
    blaming = tuple(rule for rule in plan.contract.set_rules if rule.blames_rows)
    return replace(plan, contract=replace(plan.contract, set_rules=blaming))


def note_replayed(record: RunRecord, plan: Plan, warn: Callable[[str], None]) -> None:
    """Write down which rows a replay has read, so that the target marks them; no source has read on in it."""
    if plan.spine.replayed is None:
        return
    record.state = {}
    record.replays, left = plan.spine.replayed()
    for warning in left:
        warn(warning)


class WaitingRows(Source):
    """Quarantined rows in the place of a source.

    Attributes:
        source: is asked for its columns, and not for a row.
        pipeline: whose rows.
        kept_in: the target that keeps them.
        choice: which of them.
        is_keyed: whether a row that waits twice, the same in every column, is sent once.
        said: what people should know of the target.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    type: Literal["quarantine"] = "quarantine"
    source: Any
    pipeline: str
    kept_in: Any
    choice: Choice
    is_keyed: bool
    said: tuple[str, ...]

    @property
    def needs(self) -> Mapping[_errors.Path, str]:
        """What the source needs to tell its columns."""
        needs: Mapping[_errors.Path, str] = self.source.needs
        return needs

    def scan(self, name: str, context: Context = OUTSIDE) -> Extract:
        """Put the chosen rows into the workspace, so that every look at them sees the same."""
        looked_at = replace(context, folder=None, sample=True, state=lambda: None)
        known: Extract = self.source.scan(name, looked_at)
        rows = Waiting(context.folder, is_keyed=self.is_keyed)
        rows.land(self.choice, self.kept_in, self.pipeline)
        return Extract(
            name=name,
            schema=known.schema,
            read=lambda pushdown: rows.read(pushdown, known.schema),
            describe=lambda _pushdown: f"{counted(rows.height, 'row')} in quarantine",
            delivers=known.delivers,
            warnings=(*known.warnings, *self.said),
            replayed=rows.replayed,
        )

    def check(self) -> None:
        """Confirm that the source's columns can be asked for."""
        self.source.check()


@dataclass
class Waiting:
    """The chosen rows of one run, in files of its workspace.

    Attributes:
        folder: where the files are; None outside a run: a temporary one.
        height: how many rows were landed.
    """

    folder: Path | None
    is_keyed: bool
    height: int = 0
    _files: list[Path] = field(default_factory=list)
    _twins: list[pl.DataFrame] = field(default_factory=list)
    _passed_over: Counter[str] = field(default_factory=Counter)
    _marks: dict[str, list[int]] = field(default_factory=dict)
    _left: Counter[str] = field(default_factory=Counter)
    _temporary: TemporaryDirectory[str] | None = None

    def land(self, choice: Choice, target: Target, pipeline: str) -> None:
        """Fetch the rows, but for those that are no rows of the source any more."""
        if self.folder is None:
            self._temporary = TemporaryDirectory(prefix="lockgate-")
        folder = self.folder or Path(self._temporary.name if self._temporary else "")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        judged = _Judged(choice, target, pipeline)
        sent: set[int] = set()
        for frame in choice.of(target, pipeline):
            good = judged.replayable(frame, self._passed_over)
            if self.is_keyed:
                hashes = good.get_column("values").hash(0)
                first = hashes.is_first_distinct() & ~hashes.is_in(list(sent))
                sent |= set(hashes)
                self._twins.append(good.filter(~first).select("run_id", "number", "values"))
                good = good.filter(first)
            if good.is_empty():
                continue
            file = folder / f"{len(self._files):06}.arrow"
            good.select("run_id", "number", "values").write_ipc(file, compression="lz4")
            self._files.append(file)
            self.height += good.height

    def read(self, pushdown: Pushdown, schema: pl.Schema) -> Iterator[pl.DataFrame]:
        """The rows in the asked-for columns of `schema`; those that cannot be read back so are left."""
        columns = tuple(schema) if pushdown.columns is None else pushdown.columns
        wanted = pl.Schema({name: schema[name] for name in columns})
        room = pushdown.limit
        self._marks, self._left = {}, Counter(self._passed_over)
        for file in self._files:
            kept = pl.read_ipc(file)
            back = read_back(kept.get_column("values"), wanted)
            self._left.update(reason for _place, reason in back.left)
            self._mark(kept[back.places])
            rows = back.rows if room is None else back.rows.head(room)
            room = None if room is None else room - rows.height
            if not rows.is_empty():
                yield rows
        for twins in self._twins:  # equal to a row that was sent, or could not be
            self._mark(twins[read_back(twins.get_column("values"), wanted).places])

    def _mark(self, kept: pl.DataFrame) -> None:
        for run_id, number in kept.select("run_id", "number").iter_rows():
            self._marks.setdefault(run_id, []).append(number)

    def replayed(self) -> tuple[dict[str, list[int]], list[str]]:
        """The rows that were read, to be marked; and in words those that were left."""
        marks = {run_id: sorted(numbers) for run_id, numbers in sorted(self._marks.items())}
        return marks, [
            f"{counted(rows, 'row')} stayed in quarantine: {reason}." for reason, rows in self._left.most_common()
        ]


class _Judged:
    """Which quarantined rows can be rows of the source again."""

    def __init__(self, choice: Choice, target: Target, pipeline: str) -> None:
        runs = {} if choice.run_id else {run["run_id"]: run for run in target.history(pipeline, _LEDGER)}
        self._unpublished = [run_id for run_id, run in runs.items() if run["status"] not in _DONE]
        whole = (run for run in runs.values() if run["status"] in _DONE and "replays" not in run)
        self._newest = next((run["started_at"] for run in whole), "") if overwrites(target) else ""
        self._older = [run_id for run_id, run in runs.items() if run["started_at"] < self._newest]

    def replayable(self, frame: pl.DataFrame, left: Counter[str]) -> pl.DataFrame:
        """The rows that can; the others are counted in `left`, by the reason."""
        reasons = {
            "a step had merged them, so they are no rows of the source": pl.col("stage") != "read",
            "they are records that are no rows; mend them in the source": pl.col("reasons")
            .list.first()
            .str.starts_with(_MALFORMED),
            "their run published nothing, so the next run reads them again": pl.col("run_id").is_in(self._unpublished),
            "a later load has overwritten theirs; name their run to replay them all the same": pl.col("run_id").is_in(
                self._older
            ),
        }
        for reason, whose in reasons.items():
            if found := frame.filter(whose).height:
                left[reason] += found
            frame = frame.filter(~whose)
        return frame
