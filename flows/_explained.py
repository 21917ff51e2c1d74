"""A pipeline's plan in words: what a run would do, found without reading a row or changing anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import polars as pl

from flows import _stages
from flows._config import Pipeline
from flows._plan import Plan, counters
from flows.sources._base import Extract, Pushdown
from transforms._expressions import clock


def explained(pipeline: Pipeline) -> dict[str, Any]:
    """What a run would do, as plain values.

    Raises:
        ExtractError: a source cannot be reached or read.
        TransformError: a step does not fit.
        ContractError: a rule does not fit.
        LoadError: the target cannot be reached, or a column does not fit.
    """
    with clock(datetime.now(UTC)):
        extracts = _stages.looked_at(pipeline)
        plan = _stages.planned(pipeline, extracts)
        pushdowns = {plan.spine.name: plan.pushdown, **_asked_of_sides(plan)}
        return {
            "pipeline": pipeline.name,
            "sources": [_source(extract, pushdowns[name]) for name, extract in extracts.items()],
            "steps": list(_steps(plan)),
            "optimised_plan": plan.over(plan.spine.frame).explain(),
            "columns": {name: str(dtype) for name, dtype in plan.output.items()},
            "checks": list(_checks(plan)),
            "max_failed_ratio": pipeline.error_handling.max_failed_ratio,
            "guards": pipeline.guards.model_dump(),
            "target": pipeline.target.label,
            "publishes": pipeline.target.plan(plan.output),
            "warnings": [*(warning for extract in extracts.values() for warning in extract.warnings), *plan.skipped],
        }


def _asked_of_sides(plan: Plan) -> dict[str, Pushdown]:
    """Run the tail over no rows, and see what Polars asks of the other sources."""
    asked = {name: Pushdown() for name in plan.sides}

    def recording(extract: Extract) -> Extract:
        def read(pushdown: Pushdown) -> Iterator[pl.DataFrame]:
            asked[extract.name] = pushdown
            names = pushdown.columns if pushdown.columns is not None else tuple(extract.schema)
            yield pl.DataFrame(schema={name: extract.schema[name] for name in names})

        return replace(extract, read=read)

    if plan.sides:
        watched = replace(plan, sides={name: recording(extract) for name, extract in plan.sides.items()})
        watched.counted_tail(pl.LazyFrame(schema=plan.tail_schema), *counters(plan.tail)).collect()
    return asked


def _source(extract: Extract, pushdown: Pushdown) -> dict[str, Any]:
    return {
        "name": extract.name,
        "reads": extract.describe(pushdown),
        "filtered_at_source": extract.pushed(pushdown),
    }


def _steps(plan: Plan) -> Iterator[dict[str, Any]]:
    batchwise = len(plan.steps) - len(plan.tail)
    for number, step in enumerate(plan.steps, start=1):
        runs = "row by row, in batches" if number <= batchwise else "over the whole set"
        yield {"number": number, "step": step.name, "type": step.transform.name, "runs": runs}


def _checks(plan: Plan) -> Iterator[dict[str, Any]]:
    for when, contract in (("as read", plan.read_contract), ("to be published", plan.contract)):
        for check in contract.row_checks:
            yield {"rule": check.label, "on_violation": check.on_violation, "looks_at": f"each row {when}"}
        for rule in contract.set_rules:
            yield {"rule": rule.label, "on_violation": rule.on_violation, "looks_at": f"the whole set {when}"}
