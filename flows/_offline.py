"""Planning without a source: what can be known of a pipeline from its configuration alone.

The configuration names columns and no types, so a step is tried with columns of every kind: only
what no kind can mend is a mistake. A column that nobody declared may still be in the source's
table; it is assumed there once, and a step that misses it nevertheless is mistaken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import polars as pl

from flows._config import Pipeline
from transforms._errors import LockgateError, UnknownColumnError
from transforms._plan import Step
from validations._contract import BoundRule, Contract

Names = tuple[str, ...]
Result = TypeVar("Result")

_KINDS: tuple[pl.DataType, ...] = (
    pl.Null(), pl.String(), pl.Int64(), pl.Float64(), pl.Decimal(38, 9), pl.Boolean(), pl.Date(),
    pl.Datetime("us", "UTC"), pl.List(pl.String()), pl.Struct({"key": pl.String()}),
)  # fmt: skip


@dataclass(frozen=True)
class Checked:
    """What planning without a source found.

    Attributes:
        mistakes: wrong whatever the source holds.
        open_step: the name of the first step that needs the source's types, and so ended the check; None if all
            steps were checked, and with them the rules.
    """

    mistakes: tuple[LockgateError, ...]
    open_step: str | None = None


class _NeedsTypes(Exception):  # noqa: N818 - a question, not a failure
    """Whether something fits depends on types that only the source knows."""


def check(pipeline: Pipeline) -> Checked:
    """Plan `pipeline` as far as its configuration tells; reaches nothing."""
    assumed: set[str] = set()
    while True:
        checked = _walked(pipeline, tuple(sorted(assumed)))
        missed = {error.column for error in checked.mistakes if isinstance(error, UnknownColumnError)}
        if missed <= assumed:
            return checked
        assumed |= missed


def _walked(pipeline: Pipeline, assumed: Names) -> Checked:
    """Every step and rule, with the columns that sources declare and those of `assumed` in each of them."""
    sources = {
        name: tuple(dict.fromkeys((*(source.declared or ()), *assumed))) for name, source in pipeline.sources.items()
    }
    first, *_others = sources
    read = sources.pop(first)
    mistakes = list(_broken(pipeline.source_rules, read, ("source", "rules")))
    names = read
    for step in pipeline.steps:
        try:
            names = _after(step, names, sources)
        except LockgateError as error:
            return Checked((*mistakes, error))
        except _NeedsTypes:
            return Checked(tuple(mistakes), step.name)
    declared = pipeline.sources[first].declared
    if declared is not None:
        names = (*(name for name in declared if name in names), *(name for name in names if name not in read))
    mistakes += [*_broken(pipeline.rules, names, ("quality_rules",)), *_unloadable(pipeline.model)]
    return Checked(tuple(mistakes))


def _after(step: Step, names: Names, sides: Mapping[str, Names]) -> Names:
    """The columns after a step."""

    def apply(kind: pl.DataType) -> Names:
        frames = {name: _empty(columns, kind) for name, columns in sides.items()}
        return tuple(step.apply(_empty(names, kind), frames).collect_schema())

    return _tried(apply)


def _broken(rules: Iterable[BoundRule], names: Names, place: tuple[str, ...]) -> Iterator[LockgateError]:
    def plan(rule: BoundRule, kind: pl.DataType) -> Contract:
        return Contract.plan([rule], _empty(names, kind).collect_schema())

    for rule in rules:
        try:
            _tried(partial(plan, rule))
        except LockgateError as error:
            error.path = (*place, *error.path[1:])
            yield error
        except _NeedsTypes:
            continue


def _unloadable(model: str | None) -> Iterator[LockgateError]:
    if model is None:
        return
    from validations._model import load_model  # noqa: PLC0415 - Pandera takes time that only models need

    try:
        load_model(model)
    except LockgateError as error:
        yield error


def _tried(attempt: Callable[[pl.DataType], Result]) -> Result:
    """What `attempt` gives with columns of the first kind that suits it.

    Raises:
        LockgateError: no kind can suit it: a name is missing, or all kinds meet the same objection.
        _NeedsTypes: none of the kinds suits it, a mixture of them may.
    """
    errors: list[LockgateError] = []
    for kind in _KINDS:
        try:
            return attempt(kind)
        except UnknownColumnError:
            raise
        except LockgateError as error:
            errors.append(error)
    if len({error.message for error in errors}) == 1:
        raise errors[0]
    raise _NeedsTypes


def _empty(names: Names, kind: pl.DataType) -> pl.LazyFrame:
    return pl.LazyFrame(schema=dict.fromkeys(names, kind))
