"""What a transform is: a plain function on a lazy frame, and what its signature says about it.

``@transform`` registers a function ``frame -> frame`` under the name of its file. Its
keyword-only arguments *are* its parameters: the pydantic model, the JSON Schema, the
reference page and the compliance tests all come from the signature. An argument
annotated ``pl.LazyFrame`` takes the name of another source in the configuration.
"""

from __future__ import annotations

import inspect
import typing
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict, create_model

from transforms._errors import ParameterError
from transforms._registry import Registry
from transforms._words import did_you_mean

Function = TypeVar("Function", bound=Callable[..., pl.LazyFrame])
Parameters = BaseModel

#: What the ledger calls the rows that a transform takes away: it keeps every row, or ...
Removes = Literal["nothing", "filtered", "deduplicated", "aggregated", "unmatched"]


class Watch(Protocol):
    """Counts what a join does with rows; each method gives the same frame, counted when the plan runs."""

    def joins(self, *, may_multiply: bool) -> None:
        """Hear, before the plan runs, that the step is a join, and whether a row may have several matches."""

    def unmatched(self, frame: pl.LazyFrame, there: str) -> pl.LazyFrame:
        """Rows without a match, which are about to go: those where the column `there` is null."""

    def added(self, frame: pl.LazyFrame, place: str) -> pl.LazyFrame:
        """Rows of the other source alone: those where `place`, which tells all others apart, is null."""


@dataclass(frozen=True)
class Transform:
    """A registered transform.

    Attributes:
        name: the name of its file, as users write it.
        function: the function itself; call it as a plain function on lazy frames.
        parameters: the pydantic model of its keyword-only arguments; unknown keys are refused.
        frames: arguments that take another source's lazy frame by its name.
        removes: what the ledger calls the rows it takes away.
        row_local: whether each row's fate and values depend on that row alone, given parameters. Such
            a step keeps the order of rows and may run batch by batch; others need the whole set.
        watched: the function with one more argument, a `Watch`; None where rows in and out say it all.
    """

    name: str
    function: Callable[..., pl.LazyFrame]
    parameters: type[Parameters]
    frames: frozenset[str]
    removes: Removes
    row_local: Callable[[Any], bool]
    watched: Callable[..., pl.LazyFrame] | None = None

    def __call__(
        self,
        frame: pl.LazyFrame,
        parameters: Parameters,
        sources: Mapping[str, pl.LazyFrame],
        watch: Watch | None = None,
    ) -> pl.LazyFrame:
        """Apply the transform; `sources` are the other frames that parameters may name.

        Raises:
            TransformError: at plan time, for columns, types and formulas that do not fit.
        """
        arguments = {name: getattr(parameters, name) for name in type(parameters).model_fields}
        for name in self.frames:
            wanted = arguments[name]
            if wanted not in sources:
                raise ParameterError(f"no source {wanted!r}.{did_you_mean(wanted, sources)}", path=(name,))
            arguments[name] = sources[wanted]
        if watch is not None and self.watched is not None:
            return self.watched(frame, watch=watch, **arguments)
        return self.function(frame, **arguments)


transforms: Registry[Transform] = Registry("transform", package="transforms")


def transform(
    *,
    removes: Removes = "nothing",
    row_local: bool | Callable[[Any], bool],
    watched: Callable[..., pl.LazyFrame] | None = None,
) -> Callable[[Function], Function]:
    """Register a function on lazy frames as the transform named after its file.

    Args:
        removes: what the ledger calls the rows it takes away.
        row_local: True, False, or a function of the parameter model that decides.
        watched: the same function with one more argument, ``watch``.
    """

    def register(function: Function) -> Function:
        name = function.__module__.rpartition(".")[2]
        model, frames = _parameter_model(name, function)
        decide = row_local if callable(row_local) else lambda _parameters: bool(row_local)
        transforms.register(name, Transform(name, function, model, frames, removes, decide, watched))
        return function

    return register


def _parameter_model(name: str, function: Callable[..., pl.LazyFrame]) -> tuple[type[Parameters], frozenset[str]]:
    hints = typing.get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    frames = set()
    for argument in inspect.signature(function).parameters.values():
        if argument.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        annotation = hints[argument.name]
        if annotation is pl.LazyFrame:
            frames.add(argument.name)
            annotation = str
        default = ... if argument.default is inspect.Parameter.empty else argument.default
        fields[argument.name] = (annotation, default)
    config = ConfigDict(extra="forbid", frozen=True, strict=False, arbitrary_types_allowed=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Field name .* shadows")  # a parameter may be called `validate`
        return create_model(f"{name}_parameters", __config__=config, **fields), frozenset(frames)
