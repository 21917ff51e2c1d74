"""What a contract says about a batch of rows, and how many bad ones are too many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from validations._errors import TooManyRejectedError


@dataclass(frozen=True)
class Verdict:
    """What a contract says about a batch of rows: every row is in one of two frames.

    Attributes:
        accepted: rows that broke nothing, or only rules that warn; in order.
        rejected: the other rows, as they were given; in order.
        positions: where each rejected row stood in the batch, from 0 (UInt32).
        reasons: the labels of the rules each rejected row broke (List(String)), without those that warn.
        counts: violations of each row check by its label, those that warn included; 0 where it held.
        failed: labels of broken rules that say ``on_violation: fail``.
    """

    accepted: pl.DataFrame
    rejected: pl.DataFrame
    positions: pl.Series
    reasons: pl.Series
    counts: dict[str, int]
    failed: tuple[str, ...] = field(default=())


def hold_ratio(
    pipeline: str, *, rejected: int, judged: int, max_failed_ratio: float, counts: Mapping[str, int]
) -> None:
    """Refuse a load of which too many rows were rejected; exactly `max_failed_ratio` is still good.

    Args:
        pipeline: whose rows they are; the error begins with it.
        rejected: rows rejected, each once.
        judged: rows judged.
        max_failed_ratio: the largest share of rejected rows, from 0 to 1.
        counts: violations by label, for the message.

    Raises:
        TooManyRejectedError: there were more.
    """
    # Not rejected / judged: 5 of 100 must not be more than 0.05, and no rows are no reason.
    if rejected > max_failed_ratio * judged:
        raise TooManyRejectedError(
            rejected=rejected, judged=judged, max_failed_ratio=max_failed_ratio, counts=counts, path=(pipeline,)
        )
