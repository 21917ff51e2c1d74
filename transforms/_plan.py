"""Folds the steps of a pipeline into one lazy plan, and splits it where the whole set is needed.

Nothing is computed here. Every step's output schema is resolved as it is added, so an
unknown column, a type that does not fit or a bad formula is an error at that step, before a
row is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import polars as pl

from transforms._errors import TransformError
from transforms._registry import UnknownNameError
from transforms._transform import Parameters, Transform, Watch

Sources = Mapping[str, pl.LazyFrame]


@dataclass(frozen=True)
class Step:
    """One named step of a pipeline: a transform with its parameters.

    Attributes:
        position: its place in ``transformations``, from 0; errors name it.
        name: what the ledger and progress call it; the transform's name unless the config gives one.
    """

    position: int
    name: str
    transform: Transform
    parameters: Parameters

    @property
    def row_local(self) -> bool:
        """Whether the step may run batch by batch."""
        return self.transform.row_local(self.parameters)

    def apply(self, frame: pl.LazyFrame, sources: Sources | None = None, watch: Watch | None = None) -> pl.LazyFrame:
        """Add this step to the plan and resolve its schema; `watch` is shown what a join does with rows.

        Raises:
            TransformError: with the step's path in front, when it does not fit the frame.
        """
        try:
            planned = self.transform(frame, self.parameters, sources or {}, watch)
            planned.collect_schema()
        except (TransformError, UnknownNameError) as error:
            raise error.under("transformations", self.position, "parameters") from error.__cause__
        except pl.exceptions.PolarsError as error:
            raise TransformError(
                f"step {self.name!r} does not fit its input: {reason(error)}", path=("transformations", self.position)
            ) from error
        return planned


def fold(frame: pl.LazyFrame, steps: Sequence[Step], sources: Sources | None = None) -> pl.LazyFrame:
    """Fold `steps` over `frame` into one lazy plan.

    Raises:
        TransformError: the first step that does not fit.
    """
    for step in steps:
        frame = step.apply(frame, sources)
    return frame


def reason(error: pl.exceptions.PolarsError) -> str:
    """Say in one line why a running plan stopped: our own words where a formula or a check refused a value."""
    first = str(error).split("\n", maxsplit=1)[0]
    ours = re.search(
        r"^conversion from `str` to `i64` failed in column 'literal' .*: \[(['\"])(.*?)\1(?:, |\]| …)", first
    )
    return ours[2] if ours else first


def split(steps: Sequence[Step]) -> tuple[list[Step], list[Step]]:
    """Part `steps` into the row-local ones at the front, which run batch by batch, and the rest."""
    head = list(takewhile(lambda step: step.row_local, steps))
    return head, list(steps[len(head) :])
