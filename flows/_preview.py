"""The first rows that come out of a step: reads what they need, and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import polars as pl

from flows import _stages
from flows._config import Pipeline
from flows._pass import through_head
from flows._plan import Plan
from flows.sources._base import Malformed
from transforms._expressions import clock


def first_rows(pipeline: Pipeline, steps: int, limit: int) -> pl.DataFrame:
    """At most `limit` rows as they come out of the first `steps` steps, before any rule.

    Steps that look at one row at a time read until there are enough; a step that needs the whole set reads it.

    Raises:
        ExtractError: a source cannot be read.
        TransformError: a step does not fit.
    """
    begun = replace(pipeline, steps=pipeline.steps[:steps], rules=(), source_rules=(), model=None)
    with clock(datetime.now(UTC)):
        plan = _stages.planned(begun, _stages.looked_at(begun))
        if not plan.tail:
            return pl.concat([pl.DataFrame(schema=plan.output), *_enough(plan, limit)])
        return _of_the_whole_set(plan, limit)


def _enough(plan: Plan, limit: int) -> Iterator[pl.DataFrame]:
    """Batches of rows until there are `limit`; the source is left alone after that."""
    keeps_all = all(segment.counted is None for segment in plan.segments)
    batches = plan.spine.read(replace(plan.pushdown, limit=limit) if keeps_all else plan.pushdown)
    for batch in batches:
        if isinstance(batch, Malformed):
            continue
        rows = through_head(plan, batch).rows.head(limit)
        yield rows
        limit -= rows.height
        if not limit:
            break
    close = getattr(batches, "close", None)
    if close is not None:
        close()


def _of_the_whole_set(plan: Plan, limit: int) -> pl.DataFrame:
    extracts = (plan.spine, *plan.sides.values())
    try:
        return plan.over(plan.spine.frame).head(limit).collect(engine="streaming")
    except BaseException:
        for failure in (failure for extract in extracts for failure in extract.failures):
            raise failure from None  # Polars wraps it in an error of its own
        raise
