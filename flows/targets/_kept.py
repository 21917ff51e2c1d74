"""What every target that keeps quarantined rows does alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from flows._ledger import RunRecord
from flows._quarantine import KEPT
from flows._sides import Side
from flows.targets._base import Published, Target
from transforms._words import counted

_NO_ROW = -1


def hold_marked(record: RunRecord, marked: int, side: Side) -> None:
    """Confirm that every row of a replay was waiting until it was marked.

    Raises:
        TargetBusyError: one was not: another replay, or somebody who discarded it, was quicker.
    """
    wanted = sum(map(len, (record.replays or {}).values()))
    if marked != wanted:
        raise side.error(
            "busy",
            f"{counted(wanted - marked, 'row')} of this replay ceased to wait in quarantine while it was under way: "
            "another replay, or somebody who discarded them, was quicker. Nothing was published. Replay again.",
        )


def framed(rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """Rows of SQL in a frame of `KEPT`: reasons are JSON, moments are texts, and -1 and '' stand for null."""
    frame = pl.DataFrame(
        [(*row[:2], None if row[2] == _NO_ROW else row[2], *row[3:5], json.loads(row[5]), *row[6:]) for row in rows],
        schema=KEPT,
        orient="row",
    )
    texts = ("config_version", "quarantined_at", "resolved_at", "resolved_by")
    return frame.with_columns(pl.col(*texts).replace("", None))


def replayed_before(target: Target, record: RunRecord) -> Published | None:
    """What there is to do where an earlier replay of the same rows got as far as one of several targets: nothing.

    None where there is something, and for every run that is no replay.
    """
    for run_id, numbers in (record.replays or {}).items():
        done = {number for frame in target.kept(record.pipeline, run_id, "replayed") for number in frame["number"]}
        if not done.issuperset(numbers):
            return None
    if not record.replays:
        return None
    record.rows.unchanged = record.staged
    record.published = "replayed before"
    record.finish("unchanged")
    target.record(record, None)
    return Published(0, unchanged=record.staged, how=record.published)
