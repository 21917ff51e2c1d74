"""``quarantine replay``, ``discard`` and ``export``: what becomes of the rows that broke a rule."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path as File
from typing import Any, TypeVar

import click

from flows._cli._verb import Asked, name_argument, sets_option, verb
from transforms._words import counted

Function = TypeVar("Function", bound=Callable[..., Any])
_SUFFIXES = (".csv", ".ndjson", ".parquet")

status_option = click.option(
    "--status",
    type=click.Choice(("waiting", "replayed", "discarded")),
    help="Only rows of which this became. Default: all.",
)
_RUN = click.option("--run", "run_id", metavar="RUN", help="Only rows of this run. Default: of all runs.")
_ROWS = click.option("--row", "rows", type=click.IntRange(min=0), multiple=True, metavar="N", help="Only this row.")
_RULE = click.option("--rule", metavar="LABEL", help="Only rows that broke this rule: --rule 'email not_null'.")


def _choosing(function: Function) -> Function:
    """The options that say which waiting rows are meant."""
    chosen: Function = _RUN(_ROWS(_RULE(function)))
    return chosen


@verb("replay")
@name_argument
@_choosing
@sets_option
@click.option("--no-prefect", is_flag=True, help="Run the stages as plain functions: no server, no UI, a quick start.")
def replay(  # noqa: PLR0917 - options of one command
    asked: Asked, name: str, run_id: str | None, rows: tuple[int, ...], rule: str | None, sets: list[str],
    no_prefect: bool,
) -> int:  # fmt: skip
    """Send waiting rows through today's pipeline.

    NAME is the pipeline. The rows are published to its target, and marked as replayed in the same transaction; those
    that break a rule again wait again, as rows of the new run.
    """
    from flows._cli._running import never_began, run_and_show  # noqa: PLC0415 - other verbs do not run
    from flows._replay import Choice, replaying  # noqa: PLC0415 - as above

    asked.facts = never_began(name)
    pipeline = asked.pipeline(name, sets)
    choice = Choice(run_id, rows, rule)
    if next(choice.of(pipeline.target, name), None) is None:
        return asked.answer({"pipeline": name, "run_id": None, "status": "unchanged"}, _nothing(name))
    replayed = replaying(pipeline, choice)
    return run_and_show(replayed, as_json=asked.as_json, prefect=not no_prefect, named=asked.named)


@verb("discard")
@name_argument
@_choosing
@click.option("--yes", is_flag=True, help="Do not ask.")
def discard(  # noqa: PLR0917 - options of one command
    asked: Asked, name: str, run_id: str | None, rows: tuple[int, ...], rule: str | None, yes: bool
) -> int:
    """Give waiting rows up: they are never replayed.

    NAME is the pipeline. The rows stay in the quarantine, marked as discarded.
    """
    from flows._replay import Choice  # noqa: PLC0415 - a mistyped option is not worth half a second

    target = asked.pipeline(name).target
    marks: dict[str, list[int]] = {}
    for frame in Choice(run_id, rows, rule).of(target, name):
        for run, number in frame.select("run_id", "number").iter_rows():
            marks.setdefault(run, []).append(number)
    found = sum(map(len, marks.values()))
    if found and not yes and not _confirmed(f"Discard {counted(found, 'waiting row')} of {name}?"):
        return asked.answer({"pipeline": name, "discarded": 0}, f"{name}: nothing was discarded.")
    discarded = target.discard(name, marks) if found else 0
    said = f"{name}: {counted(discarded, 'row')} discarded." if discarded else _nothing(name)
    return asked.answer({"pipeline": name, "discarded": discarded}, said)


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody can be asked here: say so with --yes.")
    return click.confirm(question, err=True)


@verb("export")
@name_argument
@click.argument("file", type=click.Path(dir_okay=False, path_type=File))
@_RUN
@status_option
def export(asked: Asked, name: str, file: File, run_id: str | None, status: Any) -> int:
    """Write quarantined rows to a file: .csv, .ndjson or .parquet.

    NAME is the pipeline; the values of a row are a JSON text.
    """
    if file.suffix not in _SUFFIXES:
        raise click.UsageError(f"{str(file)!r} names no format. End it in one of {', '.join(_SUFFIXES)}.")
    frames = asked.pipeline(name).target.kept(name, run_id, status)
    try:
        rows = _written(frames, file)
    except OSError as error:
        raise click.UsageError(f"{str(file)!r} cannot be written: {error.strerror or error}.") from error
    return asked.answer(
        {"pipeline": name, "file": str(file), "rows": rows}, f"{name}: {counted(rows, 'row')} written to {file}."
    )


def _written(frames: Iterator[Any], file: File) -> int:
    """Write the frames one after the other, beside the file, which is there when all of them are."""
    import polars as pl  # noqa: PLC0415 - a mistyped option is not worth its import

    from flows._quarantine import EXPORTED  # noqa: PLC0415 - as above
    from flows.targets._durable import replacing  # noqa: PLC0415 - as above
    from flows.targets._sink import Sink  # noqa: PLC0415 - as above

    is_csv, rows = file.suffix == ".csv", 0
    schema = pl.Schema(EXPORTED | ({"reasons": pl.String()} if is_csv else {}))
    with replacing(file.absolute()) as hidden:
        sinks = {
            ".csv": lambda frame: frame.sink_csv(hidden),
            ".ndjson": lambda frame: frame.sink_ndjson(hidden),
            ".parquet": lambda frame: frame.sink_parquet(hidden),
        }
        sink = Sink(schema, sinks[file.suffix])
        try:
            for frame in frames:
                rows += frame.height
                labels = [json.dumps(reasons, ensure_ascii=False) for reasons in frame["reasons"].to_list()]
                said = frame.with_columns(reasons=pl.Series(labels, dtype=pl.String)) if is_csv else frame
                sink.put(said.select(list(schema)))
        except BaseException:
            sink.abandon()
            raise
        sink.close()
    return rows


def _nothing(name: str) -> str:
    return f"{name}: no such rows are waiting in quarantine."
