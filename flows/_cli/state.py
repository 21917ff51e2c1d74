"""``state show``, ``state set`` and ``state clear``: what a pipeline remembers from load to load."""

from __future__ import annotations

import json
from typing import Any

import click

from flows._cli._columns import aligned
from flows._cli._group import Verbs
from flows._cli._verb import Asked, name_argument, verb
from transforms._words import counted, did_you_mean

source_option = click.option("--source", metavar="NAME", help="One of 'sources'. Default: the first.")


@click.group("state", cls=Verbs)
def command() -> None:
    """Look at what a pipeline remembers from load to load, or change it."""


@verb("show", group=command)
@name_argument
def show(asked: Asked, name: str) -> int:
    """Show what the pipeline NAME remembers of its sources.

    It is kept in the target, and committed together with the rows.
    """
    state = asked.pipeline(name).target.state(name)
    if not state:
        return asked.answer({}, f"{name}: nothing is remembered; the next run begins at the beginning.")
    return asked.answer(state, aligned(map(_told, state.items()), header=("source", "remembers")))


@verb("set", group=command)
@name_argument
@click.option("--cursor", metavar="VALUE", required=True, help="As if this value had been loaded last.")
@source_option
def set_cursor(asked: Asked, name: str, cursor: str, source: str | None) -> int:
    """Let the next run of the pipeline NAME begin at VALUE, less its lookback.

    VALUE is held against the cursor's type in the source. Rows that lie there and were loaded are loaded again.
    """
    from flows._opening import begun_at  # noqa: PLC0415 - a mistyped option is not worth half a second

    pipeline = asked.pipeline(name)
    first = next(iter(pipeline.sources))
    if source not in {None, first}:
        hint = did_you_mean(str(source), [first])
        raise click.UsageError(f"{source!r} has no cursor, which the first of the sources has.{hint}")
    state = {**pipeline.target.state(name), first: begun_at(pipeline, cursor)}
    pipeline.target.remember(name, state)
    return asked.answer(state, f"{name}: the next run begins at {_said(state[first])}.")


@verb("clear", group=command)
@name_argument
@source_option
def clear(asked: Asked, name: str, source: str | None) -> int:
    """Forget what the pipeline NAME remembers: the next run begins at the beginning.

    Rows that are in the target stay there; with write_mode append they are then there twice. See run --full-refresh.
    """
    target = asked.pipeline(name).target
    state = target.state(name)
    if source is not None and source not in state:
        raise click.UsageError(f"nothing is remembered of {source!r}.{did_you_mean(source, state)}")
    left = {} if source is None else {key: kept for key, kept in state.items() if key != source}
    target.remember(name, left)
    gone = [key for key in state if key not in left]
    said = f"forgotten: {', '.join(gone)}" if gone else "nothing was remembered"
    return asked.answer(left, f"{name}: {said}.")


def _told(entry: tuple[str, Any]) -> tuple[str, str]:
    source, state = entry
    if isinstance(state, dict) and "cursor" in state:
        again = counted(len(state["rows"]), "row")
        return source, f"{_said(state)}, and {again} that the next run reads again"
    if isinstance(state, dict) and "files" in state:
        return source, counted(len(state["files"]), "file")
    return source, json.dumps(state, ensure_ascii=False)


def _said(state: dict[str, Any]) -> str:
    return f"{state['cursor_field']} = {json.dumps(state['cursor'], ensure_ascii=False)}"
