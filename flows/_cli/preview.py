"""``preview``: rows after a step."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import click

from flows._cli._verb import Asked, limit_option, name_argument, sets_option, verb
from transforms._words import did_you_mean

if TYPE_CHECKING:
    import polars as pl

    from flows._config import Pipeline

_WIDE = 1_000  # characters, where no terminal has a width


@verb("preview")
@name_argument
@click.option("--step", metavar="K", help="The last step, by name or number from 1; 0 is none. Default: all.")
@sets_option
@limit_option(10)
def command(asked: Asked, name: str, step: str | None, sets: list[str], limit: int) -> int:
    """Show rows of the pipeline NAME as they come out of a step; changes nothing.

    With --json, each row is an object on a line of its own.
    """
    from flows._preview import first_rows  # noqa: PLC0415 - a mistyped option is not worth half a second
    from flows._quarantine import as_json_texts  # noqa: PLC0415 - as above

    pipeline = asked.pipeline(name, sets)
    rows = first_rows(pipeline, _steps(pipeline, step), limit)
    if asked.as_json:
        for text in as_json_texts(rows):
            click.echo(text)
        return 0
    return asked.answer(None, _table(rows))


def _steps(pipeline: Pipeline, wanted: str | None) -> int:
    """How many steps to take."""
    names = [step.name for step in pipeline.steps]
    if wanted is None:
        return len(names)
    if wanted in names:
        return names.index(wanted) + 1
    if wanted.isdecimal() and int(wanted) <= len(names):
        return int(wanted)
    known = did_you_mean(wanted, names)
    raise click.UsageError(f"--step: {wanted!r} is no step of {pipeline.name!r}.{known}", click.get_current_context())


def _table(rows: pl.DataFrame) -> str:
    """The rows as Polars shows them, all of them, as wide as the terminal."""
    import polars as pl  # noqa: PLC0415 - as above

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDE
    options = pl.Config(
        tbl_rows=-1, tbl_cols=-1, tbl_width_chars=width, fmt_str_lengths=60, tbl_hide_dataframe_shape=True
    )
    with options:
        return str(rows)
