"""The bench that a pipeline is tried on: its recording, its scratch copy, and what a good run makes of them."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any, NoReturn, Self

from flows._certify import recording, scratch
from flows._certify.child import Order
from flows._certify.kinds import TableScratch, scratches
from flows._certify.runs import Outcome, Runner
from flows._certify.seen import Multiset, Seen, difference, rows_of, seen
from flows._config import Pipeline
from flows._errors import ConfigError
from flows._home import home


@dataclass(frozen=True)
class Wanted:
    """What is to be certified, and how.

    Attributes:
        file, overrides: the configuration, as `flows._config.load` takes them.
        limit: rows of the first source at most.
        kills: how many runs are killed at random moments.
        seed: of what is random.
    """

    file: str
    overrides: Mapping[str, str]
    pipeline: Pipeline
    limit: int
    kills: int
    seed: int


class DidNotHoldError(Exception):
    """What a trial was about did not hold; says why."""


class NotApplicableError(Exception):
    """There is nothing to be tried; says why."""


@dataclass
class Bench:
    """A context manager: nothing of the scratch copy is left when it ends.

    Attributes:
        columns: that the pipeline delivers.
        outcome, oracle: of the first run of all, and what is there after it.
        starts_half: whether killed runs begin on a target that has half of the rows.
        before, after: what a reader may find when a run was killed.
    """

    wanted: Wanted
    runner: Runner = field(default_factory=Runner)
    mark: str = field(default_factory=lambda: secrets.token_hex(4))
    columns: tuple[str, ...] = ()
    starts_half: bool = False
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        pipeline = self.wanted.pipeline
        if pipeline.type != "batch":
            raise ConfigError(f"only pipelines of type 'batch' can be certified; this one is {pipeline.type!r}.")
        self.copy = scratch.copied(pipeline, self.mark)
        self.places = scratches(pipeline, self.copy, self.mark)
        self.folder = home() / "runs" / f"certify_{self.mark}.{os.getpid()}"
        with ExitStack() as stack:
            stack.enter_context(_terminable())
            stack.callback(self._remove_workspaces)
            self.folder.mkdir(parents=True, mode=0o700)
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            for place in self.places:
                stack.callback(place.remove)
            stack.callback(self.runner.stop)  # the last to be added is the first to be done
            self.reset()
            self.recorded = recording.record(self.copy, self.folder, self.wanted.limit, "first")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _remove_workspaces(self) -> None:
        """What killed runs left on this machine."""
        for run_id in self.runner.run_ids:
            for folder in (home() / "runs").glob(f"*{run_id}*"):
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def notes(self) -> list[str]:
        """What people should know about this bench."""
        cut = f"only the first {self.recorded.rows:,} rows of the source were taken (--limit)."
        return [*([cut] if self.recorded.cut else []), *(note for place in self.places for note in place.notes)]

    # --- runs ---

    def order(self, **options: Any) -> Order:
        """A run of the copy over the recording."""
        wanted = self.wanted
        roots = tuple(place.root for place in self.places if place.root)
        plain = Order(wanted.file, wanted.overrides, wanted.pipeline.name, self.mark, self.folder, roots=roots)
        return replace(plain, seed=wanted.seed, **options)

    def reset(self) -> None:
        """Make the targets as they were in the beginning."""
        for place in self.places:
            place.settle()
            place.reset()

    def begin(self) -> None:
        """Make the targets as they are when a run is about to be killed."""
        self.reset()
        if self.starts_half:
            self.completed(variant="half")

    def completed(self, **options: Any) -> Outcome:
        """Run to the end.

        Raises:
            DidNotHoldError: nothing was published.
        """
        outcome = self.runner.run(self.order(**options))
        if not outcome.published:
            ended = "was refused" if outcome.facts.get("status") == "refused" else "failed"
            raise DidNotHoldError(f"the run {ended}: {self.said(outcome.why)}")
        return outcome

    def said(self, text: str) -> str:
        """A message in which the copy has the names of what it stands for."""
        for place in self.places:
            text = text.replace(place.target.label, place.real.label)
        return text.replace(self.copy.name, self.wanted.pipeline.name)

    def settle(self) -> None:
        """Wait until nothing works for a process that was killed."""
        for place in self.places:
            place.settle()

    def cut(self) -> None:
        """Cut the connections of the run that is under way."""
        for place in self.places:
            place.cut()

    @property
    def has_server(self) -> bool:
        """Whether there is a connection that can be cut."""
        return any(isinstance(place, TableScratch) for place in self.places)

    # --- looking ---

    def look(self) -> Seen:
        """What is there now."""
        return seen(self.copy, self.places, self.columns)

    def learn(self, outcome: Outcome) -> None:
        """Learn what a good run makes of the recording, the first of all having been made."""
        self.outcome = outcome
        self.columns = tuple(outcome.facts["columns"])
        self.oracle = self.look()
        if self.recorded.remembers and not self.recorded.cut:
            recording.record(self.copy, self.folder, self.wanted.limit, "again")

    def learn_start(self) -> None:
        """Learn what a run that begins where half of the rows are makes of it, if it can begin there."""
        self.before: tuple[Multiset, ...] = tuple(Multiset() for _ in self.places)
        self.after = self.oracle
        if self.recorded.remembers:
            return
        self.reset()
        if not self.runner.run(self.order(variant="half")).published:
            return
        before = self.look().rows
        if not self.runner.run(self.order()).published:
            return
        self.starts_half, self.before, self.after = True, before, self.look()

    def hold_same(self, wanted: Seen) -> None:
        """Compare what is there with what should be.

        Raises:
            DidNotHoldError: it is something else.
        """
        found = self.look()
        pairs = zip(self._labels("the target"), found.rows, wanted.rows, strict=True)
        said = [f"{label}: {how}" for label, *rows in pairs if (how := difference(*rows))]
        if how := difference(found.quarantine, wanted.quarantine):
            said.append(f"quarantine: {how}")
        if found.state != wanted.state:
            said.append("the state of the sources is another one")
        said += found.faults
        if said:
            raise DidNotHoldError("; ".join(said))

    def hold_whole(self) -> str:
        """Look as a reader does after a run has died: all of it, or nothing.

        Raises:
            DidNotHoldError: something in between.
        """
        told = []
        for label, place, before, after in zip(
            self._labels("a reader"), self.places, self.before, self.after.rows, strict=True
        ):
            rows = rows_of(place, self.columns)
            if rows not in (before, after):
                raise DidNotHoldError(f"{label} finds half a load: {difference(rows, after)}")
            told.append("all of the load" if rows == after else "nothing of the load")
        return f"readers found {' and '.join(dict.fromkeys(told))}"

    def _labels(self, alone: str) -> list[str]:
        return [alone] if len(self.places) == 1 else [place.real.label for place in self.places]


@contextmanager
def _terminable() -> Iterator[None]:
    """Let a polite request to end, SIGTERM, clean up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
