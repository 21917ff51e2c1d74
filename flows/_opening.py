"""The sources of a run, opened: with what they remember, and through the window of an incremental load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows import _window, _windowed
from flows._config import Pipeline
from flows._errors import ConfigError, LoadError
from flows._incremental import Incremental
from flows.sources._base import OUTSIDE, Context, Extract
from transforms._types import constant, shown

Landed = Callable[[Path], None]


def scanned(
    pipeline: Pipeline, folder: Path | None = None, run_id: str = "", landed: Landed = OUTSIDE.landed
) -> dict[str, Extract]:
    """Every source, opened once, in the configuration's order; one that another needs is opened before that.

    `folder` is the run's workspace, `run_id` its id; there is none for whoever only wants to look. `landed` is told
    of files from which another run could go on.
    """
    opened: dict[str, Extract] = {}
    incremental = {next(iter(pipeline.sources)): pipeline.incremental}

    def scan(name: str) -> Extract:
        if name not in opened:
            keys = incremental.get(name)
            opened[name] = windowed(name, keys) if keys else pipeline.sources[name].scan(name, context(name))
        return opened[name]

    def windowed(name: str, keys: Incremental) -> Extract:
        state = _state(pipeline, name)
        told = replace(context(name), cursor=_window.cursor_of(keys, state), state=lambda: None)
        extracted = replace(pipeline.sources[name].scan(name, told), follows=state)
        return _windowed.windowed(extracted, keys, state, remembers_rows=pipeline.remembers_rows)

    def context(name: str) -> Context:
        own = folder / "sources" / name if folder else None
        state = lambda: _state(pipeline, name)  # noqa: E731 - one line of what a source is told
        return Context(own, state, sample=folder is None, run_id=run_id, others=scan, landed=landed)

    return {name: scan(name) for name in pipeline.sources}


def require_fresh(pipeline: Pipeline, spine: Extract) -> None:
    """Confirm, with the target locked, that no other run loaded this window meanwhile.

    Raises:
        LoadError: one did.
    """
    if pipeline.incremental is not None and _state(pipeline, spine.name) != spine.follows:
        raise LoadError(
            "another run of this pipeline published while this one began, so that its window is not the next one any "
            "more. Nothing was published. Run again."
        )


def _state(pipeline: Pipeline, name: str) -> Any:
    return None if pipeline.starts_over else pipeline.target.state(pipeline.name).get(name)


def begun_at(pipeline: Pipeline, value: str) -> dict[str, Any]:
    """What the first source would have remembered, had a row with `value` been loaded last.

    Raises:
        ConfigError: the pipeline has no cursor, or `value` is not one of its type.
        ExtractError: the source cannot be reached.
    """
    keys = pipeline.incremental
    if keys is None:
        raise ConfigError(f"{pipeline.name!r} has no 'incremental', and so no cursor.")
    name, source = next(iter(pipeline.sources.items()))
    dtype = _window.dtype_of(source.scan(name, Context(sample=True)), keys)
    try:
        return _window.state_at(keys, constant(value, dtype))
    except ValueError as error:
        raise ConfigError(f"--cursor: {error}. {keys.cursor_field!r} is {shown(dtype)}.") from error
