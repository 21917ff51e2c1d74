"""The guard on the number of rows read: is it far from what the pipeline's newest runs have read?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from flows._config import Pipeline
from flows._errors import RefusedError
from flows._ledger import RunRecord
from transforms._errors import LockgateError
from transforms._words import counted

_LOOKED_AT = 30
_DEVIATION = 1.4826  # a median absolute deviation, times this, estimates a normal distribution's standard deviation
_LEAST_SPREAD = 0.1  # of the median: runs that all read the same may still grow


@dataclass(frozen=True)
class Usual:
    """What some runs read, told by robust statistics: a run that went wrong among them hardly moves it.

    Attributes:
        runs: how many there were.
        rows: their median.
        spread: 1.4826 times their median absolute deviation (Iglewicz and Hoaglin, How to Detect and Handle Outliers,
            1993), a tenth of the median at least, and one row.
    """

    runs: int
    rows: float
    spread: float

    @classmethod
    def of(cls, read: Sequence[int]) -> Usual:
        """What is usual among these numbers of rows, of which there is at least one."""
        middle = median(read)
        deviation = median(abs(rows - middle) for rows in read)
        return cls(len(read), middle, max(_DEVIATION * deviation, _LEAST_SPREAD * middle, 1))

    def spreads_away(self, rows: int) -> float:
        """How far a number of rows is from the median."""
        return abs(rows - self.rows) / self.spread


def hold(pipeline: Pipeline, record: RunRecord) -> str | None:
    """A warning where the run read a number of rows far from the usual; None where it did not, or nobody can say.

    Raises:
        RefusedError: it did, and ``on_violation`` is ``fail``; ``--allow-shrink`` lets fewer rows pass with a warning.
    """
    keys, read = pipeline.guards.row_count, record.rows.read
    if _is_special(record.as_json()):
        return None
    earlier = _earlier(pipeline, record)
    if len(earlier) < keys.minimum_runs:
        return None
    usual = Usual.of(earlier)
    if usual.spreads_away(read) <= keys.sensitivity:
        return None
    said = (
        f"the run read {counted(read, 'row')}, and the last {usual.runs} read {usual.rows:,.0f} (median): more than "
        f"guards.row_count.sensitivity: {keys.sensitivity:g} times their spread of {usual.spread:,.0f} away."
    )
    fewer = read < usual.rows
    if keys.on_violation == "warn" or (fewer and pipeline.allows_shrink):
        return said
    way = "run with --allow-shrink" if fewer else "run with --set guards.row_count.on_violation=warn"
    raise RefusedError(
        f"{pipeline.name}: {said} Nothing was published. Look at the source; if that is meant, {way}.",
        guard="row_count",
        observed=read,
        allowed=usual.rows + (-1 if fewer else 1) * keys.sensitivity * usual.spread,
    )


def _earlier(pipeline: Pipeline, record: RunRecord) -> list[int]:
    """What the newest published runs read; a history that cannot be read is no reason to fail."""
    try:
        runs = pipeline.target.history(pipeline.name, _LOOKED_AT)
    except LockgateError:
        return []
    done = [run for run in runs if run["status"] in {"published", "unchanged"} and run["run_id"] != record.run_id]
    done = [run for run in done if not _is_special(run)]
    return [run["rows"]["read"] for run in done]


def _is_special(run: dict[str, Any]) -> bool:
    """Whether a run read what it was told to: quarantined rows, or a window of the past."""
    return "replays" in run or "backfill" in run
