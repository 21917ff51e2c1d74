"""The rows of a pipeline's sources, read once and replayed: every trial sees the same."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl

from flows import _stages
from flows._config import Pipeline
from flows._ledger import RunRecord
from flows._stages import Run
from flows.sources import _snapshots
from flows.sources._base import OUTSIDE, Batch, Context, Extract, Malformed, Pushdown, Source
from flows.targets._durable import safe

#: whole: as recorded; half: the first half of the rows; shuffled: batches in another order, each of them upside
#: down; doubled: the first rows come a second time, in the end.
Variant = Literal["whole", "half", "shuffled", "doubled"]
_BATCHES = 8  # that a recording is replayed in, at least
_DOUBLED_PART = 50  # of the rows, that come twice: one in so many
_FACTS, _SCHEMA = "facts.json", "schema.arrow"


@dataclass(frozen=True)
class Recorded:
    """What was recorded.

    Attributes:
        rows: of the first source.
        cut: whether the source had more.
        remembers: whether a source keeps a state, so that a second run reads something else.
    """

    rows: int
    cut: bool
    remembers: bool


def record(pipeline: Pipeline, folder: Path, limit: int, take: Literal["first", "again"]) -> Recorded:
    """Read every source, and keep what it delivers.

    Args:
        pipeline: with the target whose state the sources ask for.
        folder: of the recording.
        limit: rows of the first source at most.
        take: ``again`` is what is delivered after a load of the ``first``.

    Raises:
        LockgateError: a source cannot be read, or the plan does not fit.
    """
    run = Run.begin(pipeline, RunRecord.start(pipeline.name, pipeline.target.label, pipeline.version), folder / "run")
    taken = []
    with _snapshots.shared():
        extracts = _stages.extract(run)
        predicate = _stages.planned(pipeline, extracts).pushdown.predicate
        for number, (name, extract) in enumerate(extracts.items()):
            asked = Pushdown() if number else Pushdown(predicate=predicate)
            taken.append(_kept(extract, asked, folder / safe(name), take, None if number else limit))
    return Recorded(taken[0].rows, taken[0].cut, any(each.remembers for each in taken))


def _kept(extract: Extract, asked: Pushdown, folder: Path, take: str, limit: int | None) -> Recorded:
    place = folder / take
    place.mkdir(parents=True)
    rows, cut = 0, False
    for number, batch in enumerate(extract.read(asked)):
        if limit is not None and rows + batch.height > limit:
            cut = True
            batch = _first(batch, limit - rows)  # noqa: PLW2901 - what is left of it
        rows += batch.height
        _write(batch, place, number)
        if cut:
            break
    pl.DataFrame(schema=extract.schema).write_ipc(place / _SCHEMA)
    state = None if extract.state is None else extract.state()
    facts = {"state": state, "cut": cut, "delivers": extract.delivers}
    (place / _FACTS).write_text(json.dumps(facts))
    return Recorded(rows, cut, state is not None)


def _first(batch: Batch, rows: int) -> Batch:
    if isinstance(batch, Malformed):
        return Malformed(batch.values.head(rows), batch.reasons.head(rows))
    return batch.head(rows)


def _write(batch: Batch, place: Path, number: int) -> None:
    if isinstance(batch, Malformed):
        frame = pl.DataFrame({"values": batch.values, "reasons": batch.reasons})
        frame.write_ipc(place / f"{number:06}.malformed", compression="lz4")
    else:
        batch.write_ipc(place / f"{number:06}.rows", compression="lz4")


def replayed(pipeline: Pipeline, folder: Path, variant: Variant, seed: int) -> Pipeline:
    """The pipeline over a recording, instead of its sources; only the first of them is cut or doubled."""
    sources: dict[str, Source] = {}
    for number, name in enumerate(pipeline.sources):
        own = variant if not number or variant == "shuffled" else "whole"
        sources[name] = Replay(folder=folder / safe(name), variant=own, seed=seed)
    return replace(pipeline, sources=sources)


class Replay(Source):
    """A source that delivers what was recorded of another one."""

    type: Literal["replay"] = "replay"
    folder: Path
    variant: Variant = "whole"
    seed: int = 0

    def scan(self, name: str, context: Context = OUTSIDE) -> Extract:
        """Replay what the source delivers from the state that the target has."""
        first = self._facts("first")
        take = "first" if first["state"] is None or context.state() is None else "again"
        if take == "again" and not (self.folder / take).exists():  # the recording was cut: here the source ends
            return self._extract(name, "first", first, ends=True)
        return self._extract(name, take, self._facts(take), ends=False)

    def _extract(self, name: str, take: str, facts: dict[str, Any], *, ends: bool) -> Extract:
        place = self.folder / take
        state = facts["state"]
        return Extract(
            name=name,
            schema=pl.read_ipc(place / _SCHEMA).schema,
            read=lambda asked: iter(()) if ends else self._read(place, asked),
            describe=lambda _asked: f"a recording of {name}",
            delivers=None if facts["delivers"] is None else tuple(facts["delivers"]),
            state=None if state is None else lambda: state,
        )

    def check(self) -> None:
        """It is there."""

    def _facts(self, take: str) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.folder / take / _FACTS).read_text())
        return facts

    def _read(self, place: Path, asked: Pushdown) -> Iterator[Batch]:
        left = asked.limit
        for batch in self._arranged(self._sliced(place)):
            if left is not None:
                if left <= 0:
                    return
                batch = _first(batch, left)  # noqa: PLW2901 - what is left of it
                left -= batch.height
            whole = isinstance(batch, Malformed) or asked.columns is None
            yield batch if whole else batch.select(asked.columns)  # type: ignore[union-attr] # asked just now

    def _sliced(self, place: Path) -> list[Batch]:
        """The recording in at least some batches, so that there is something to put into another order."""
        kept: list[Batch] = []
        for file in sorted(place.glob("*.rows")) + sorted(place.glob("*.malformed")):
            frame = pl.read_ipc(file)
            kept.append(frame if file.suffix == ".rows" else Malformed(frame["values"], frame["reasons"]))
        kept_rows = sum(batch.height for batch in kept)
        most = max(1, -(-kept_rows // _BATCHES))
        sliced: list[Batch] = []
        for batch in kept:
            sliced += [batch] if isinstance(batch, Malformed) else batch.iter_slices(most)
        return sliced

    def _arranged(self, batches: list[Batch]) -> list[Batch]:
        if self.variant == "half":
            return batches[: len(batches) // 2]
        if self.variant == "doubled":
            frames = [batch for batch in batches if not isinstance(batch, Malformed)]
            few = max(1, sum(frame.height for frame in frames) // _DOUBLED_PART)
            return [*batches, *(frame.head(few) for frame in frames[:1])]
        if self.variant == "shuffled":
            turned = [batch if isinstance(batch, Malformed) else batch.reverse() for batch in batches]
            random.Random(self.seed).shuffle(turned)  # noqa: S311 - to be repeated, not to be secret
            return turned
        return batches
