"""Windows of the past, each loaded by a run of its own; what goes forward is left where it is.

A window replaces what the target has of it, so that it can be loaded again: rows of an `append` pipeline are
replaced by their range, rows with a key by their key. Which windows are done stands in the ledger, where each
window's run was committed together with its rows.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from flows import pipeline as batch
from flows._config import Pipeline
from flows._errors import ConfigError
from flows._ledger import RunRecord
from flows._report import Silent
from flows.targets._base import Target
from flows.targets._modes import DeleteRange
from transforms._errors import LockgateError

_MOST_WINDOWS = 100_000
_LOOKED_AT = 100_000  # runs of the ledger, when windows are looked for that are done
Bound = int | date | datetime


@dataclass(frozen=True)
class Span:
    """What is loaded, as it was asked for.

    Attributes:
        start, end: bounds of the cursor; the end does not belong to it.
        step: how wide a window is: ``1d``, ``6h``, ``1mo``, or a number.
    """

    start: str
    end: str
    step: str

    def windows(self) -> list[tuple[str, str]]:
        """The windows, the last of which may be narrower.

        Raises:
            ConfigError: the bounds or the step are none.
        """
        low, high = _bound(self.start), _bound(self.end)
        if type(low) is not type(high):
            raise ConfigError(
                f"'{self.start}' and '{self.end}' are not of one kind. Write both as dates, or as numbers."
            )
        if not low < high:  # type: ignore[operator]  # of one kind, as was just seen
            raise ConfigError(f"--from '{self.start}' is not before --to '{self.end}'.")
        try:
            cuts = _cuts(low, high, self.step)
        except (ValueError, pl.exceptions.PolarsError, OverflowError) as error:
            like = "1000" if isinstance(low, int) else "1d, 6h, 1w or 1mo"
            raise ConfigError(f"--window '{self.step}' is not a width. Write it like {like}.") from error
        if len(cuts) > _MOST_WINDOWS:
            raise ConfigError(f"{len(cuts):,} windows are too many; the most are {_MOST_WINDOWS:,}. Make them wider.")
        return list(zip(cuts, [*cuts[1:], _written(high)], strict=True))


def _bound(text: str) -> Bound:
    with suppress(ValueError):
        return int(text)
    with suppress(ValueError):
        return date.fromisoformat(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"'{text}' is not a bound. Write a date, 2024-01-31, a moment, or a number.") from None


def _written(bound: Bound) -> str:
    return str(bound) if isinstance(bound, int) else bound.isoformat()


def _cuts(low: Bound, high: Bound, step: str) -> list[str]:
    """Where windows begin."""
    if isinstance(low, int) and isinstance(high, int):
        return _numbers(low, high, step)
    assert not isinstance(low, int)  # noqa: S101 - both are of one kind
    assert not isinstance(high, int)  # noqa: S101 - as said
    return _moments(low, high, step)


def _numbers(low: int, high: int, step: str) -> list[str]:
    if int(step) < 1:
        raise ValueError(step)
    return [str(number) for number in range(low, high, int(step))]


def _moments(low: date, high: date, step: str) -> list[str]:
    if isinstance(low, datetime) or not step.endswith(("d", "w", "mo", "q", "y")):
        begins = low if isinstance(low, datetime) else datetime(low.year, low.month, low.day)  # noqa: DTZ001 - as written
        ends = high if isinstance(high, datetime) else datetime(high.year, high.month, high.day)  # noqa: DTZ001 - as written
        found = pl.datetime_range(begins, ends, step, closed="left", eager=True)
    else:
        found = pl.date_range(low, high, step, closed="left", eager=True)
    return [moment.isoformat() for moment in found.to_list()]


@dataclass(frozen=True)
class Part:
    """One window of a backfill, as the ledger keeps it.

    Attributes:
        backfill: the id that all windows of one backfill share.
        span: what was asked for.
        window: where this one begins and ends.
    """

    backfill: str
    span: Span
    window: tuple[str, str]

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON value."""
        return {"id": self.backfill, "window": list(self.window), **asdict(self.span)}


def parts(pipeline: Pipeline, span: Span, *, resume: bool = False) -> list[Part]:
    """The windows that are to be loaded; those that are not done, where a backfill is resumed.

    Raises:
        ConfigError: the pipeline has no windows, or no such backfill has begun.
        LoadError: the ledger cannot be read.
    """
    if pipeline.incremental is None:
        raise ConfigError(
            f"{pipeline.name} has no 'incremental', so it has no windows. Set incremental.cursor_field to the column "
            "that --from and --to are of."
        )
    windows = span.windows()
    if not resume:
        mark = f"{datetime.now(UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(4)}"
        return [Part(mark, span, window) for window in windows]
    begun = [run for run in pipeline.target.history(pipeline.name, _LOOKED_AT) if _is_of(run, span)]
    if not begun:
        raise ConfigError(
            f"no backfill of {pipeline.name} from {span.start} to {span.end} by {span.step} has begun. "
            "Run it without --resume."
        )
    mark = begun[0]["backfill"]["id"]
    done = {
        tuple(run["backfill"]["window"])
        for run in begun
        if run["backfill"]["id"] == mark and run["status"] in {"published", "unchanged"}
    }
    return [Part(mark, span, window) for window in windows if window not in done]


def _is_of(run: dict[str, Any], span: Span) -> bool:
    said = run.get("backfill")
    return said is not None and {key: said[key] for key in asdict(span)} == asdict(span)


def of_part(pipeline: Pipeline, part: Part) -> Pipeline:
    """The pipeline that loads one window, and remembers nothing.

    Raises:
        ConfigError: what the target has of a window cannot be replaced.
    """
    assert pipeline.incremental is not None  # noqa: S101 - `parts` has seen to that
    low, high = part.window
    keys = pipeline.incremental.model_copy(
        update={
            "initial_value": low, "end_value": high, "range_start": "closed", "range_end": "open", "lookback": None,
            "on_cursor_value_missing": "exclude",  # no window has them; the forward run does
        }
    )  # fmt: skip
    target = _replacing(pipeline.target, keys.cursor_field, low, high)
    if "concurrent_runs" in type(target).model_fields:
        target = target.model_copy(update={"concurrent_runs": "wait"})
    return replace(pipeline, incremental=keys, target=target, starts_over=True, remembers_rows=False, part=part)


def _replacing(target: Target, column: str, low: str, high: str) -> Target:
    mode = getattr(target, "write_mode", None)
    if mode in {"upsert", "delete_insert"} and getattr(target, "delete_range", None) is None:
        return target
    if mode == "append" and "delete_range" in type(target).model_fields:
        replaced = DeleteRange.model_validate({"column": column, "from": _bound(low), "to": _bound(high)})
        return target.model_copy(update={"write_mode": "delete_insert", "delete_range": replaced, "allow_empty": True})
    raise ConfigError(
        f"{target.described} cannot replace a window of the past with write_mode {mode!r}. A backfill needs upsert or "
        "delete_insert by a key, or append to a table.",
        path=("target",),
    )


def load(
    pipeline: Pipeline,
    wanted: Sequence[Part],
    *,
    parallel: int = 1,
    ended: Callable[[Part, RunRecord | None, LockgateError | None], None],
) -> Iterator[tuple[Part, RunRecord | None, LockgateError | None]]:
    """Load windows, `parallel` at a time; one that fails does not stop the others. In their order.

    Args:
        pipeline: as configured.
        wanted: the windows.
        parallel: how many are under way at once. They wait for one another where the target takes one run at a time.
        ended: is told of each when it has ended; from any thread.
    """
    prepared = [(part, of_part(pipeline, part)) for part in wanted]  # all are refused, or none

    def one(part: Part, configured: Pipeline) -> tuple[Part, RunRecord | None, LockgateError | None]:
        heard = _Heard()
        error: LockgateError | None = None
        try:
            batch.run(configured, reporter=heard)
        except LockgateError as failure:
            error = failure
        ended(part, heard.record, error)
        return part, heard.record, error

    if parallel == 1:
        yield from (one(*each) for each in prepared)
        return
    with ThreadPoolExecutor(parallel, thread_name_prefix="backfill") as pool:
        futures = [pool.submit(one, *each) for each in prepared]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _Heard(Silent):
    def __init__(self) -> None:
        self.record: RunRecord | None = None

    def began(self, record: RunRecord) -> None:
        self.record = record
