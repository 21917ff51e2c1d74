"""Several targets of one run, each published whole: a target that is made of others.

Every batch is staged in a chamber of each; the rules are held once, and the same rows are taken out of
all. Then each publishes in a transaction of its own, in the configuration's order, with its own copy of the
run's record. No transaction spans them: where the second fails, the first stays published, the error and the
record say so, and a retry of `load` goes on with those that are left.

Two of them may share a database, and with it the ledger, the quarantine and the state. So each has a
pipeline's name of its own there, ``orders.near``, and from the second on a run's id of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl

from flows._ledger import RunRecord
from flows._quarantine import Marks, Quarantine, Status
from flows._sides import Side
from flows.targets import _kept
from flows.targets._base import Chamber, Published, Taken, Target, Violation
from transforms._errors import LockgateError
from transforms._words import counted
from validations._contract import SetRule

_LOOKED_AT = 100  # how far back in a ledger the newest load is looked for
_DONE = {"published", "unchanged"}
#: How much a status has to be told to people, the most first.
_WORST = ("failed", "refused", "running", "published", "unchanged")


class Several(Target):
    """Targets by name, in the order in which they are published; at least one."""

    type: Literal["several"] = "several"
    members: dict[str, Target]

    @property
    def label(self) -> str:
        """The labels of all, by their names."""
        return ", ".join(f"{name}: {member.label}" for name, member in self.members.items())

    @property
    def described(self) -> str:
        """The kinds and the labels of all, by their names."""
        return ", ".join(f"{name}: {member.described}" for name, member in self.members.items())

    @property
    def adds(self) -> bool:
        """Whether one of them has a row twice that is loaded twice."""
        return any(member.adds for member in self.members.values())

    @property
    def replaces_more(self) -> str | None:
        """What the first of them says that replaces more than it loads."""
        return next((why for member in self.members.values() if (why := member.replaces_more)), None)

    def rebuilt(self) -> Target:
        """The same targets, each rebuilt."""
        return Several(members={name: member.rebuilt() for name, member in self.members.items()})

    def open(self, record: RunRecord, schema: pl.Schema, folder: Path | None = None) -> Chamber:
        """Open a chamber in each target; all of them, or none."""
        chambers: dict[str, Chamber] = {}
        with ExitStack() as undone:
            for name, member in self.members.items():
                with _of(name):
                    own = self.own(record, name)
                    chambers[name] = member.open(own, schema, folder / name if folder else None)
                undone.callback(chambers[name].discard)
            undone.pop_all()
        return SeveralChamber(self, chambers)

    def plan(self, schema: pl.Schema) -> list[str]:
        """What would become of each target, behind its name."""
        lines = []
        for name, member in self.members.items():
            with _of(name):
                lines += [f"{name}: {line}" for line in member.plan(schema)]
        return lines

    def check(self) -> None:
        """Reach every target."""
        for name, member in self.members.items():
            with _of(name):
                member.check()

    def record(self, record: RunRecord, quarantine: Quarantine | None) -> None:
        """Keep the record in every target that the run did not publish to, as far as they can be reached."""
        failures: list[LockgateError] = []
        for name, member in self.members.items():
            if record.targets.get(name, {}).get("status") in _DONE:
                continue  # its ledger has the run already, with what it published
            try:
                member.record(self.own(record, name), quarantine)
            except LockgateError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def state(self, pipeline: str) -> dict[str, Any]:
        """What the sources had remembered with the last load that every target has.

        Where the targets disagree, that of the one which is behind: what it has not got yet is read again.
        """
        states = {name: member.state(_known(pipeline, name)) for name, member in self.members.items()}
        first, *others = states.values()
        if all(other == first for other in others):
            return first
        return states[min(self.members, key=lambda name: self._newest(name, pipeline))]

    def _newest(self, name: str, pipeline: str) -> str:
        """When the newest load of a target began; before all others where it has none."""
        runs = self.members[name].history(_known(pipeline, name), _LOOKED_AT)
        return max((run["started_at"] for run in runs if run["status"] in _DONE), default="")

    def remember(self, pipeline: str, state: Mapping[str, Any]) -> None:
        """Let every target remember the same."""
        for name, member in self.members.items():
            with _of(name):
                member.remember(_known(pipeline, name), state)

    def history(self, pipeline: str, limit: int) -> list[dict[str, Any]]:
        """The newest runs of all ledgers, each told by the target where it went worst."""
        runs: dict[str, dict[str, dict[str, Any]]] = {}
        for name, member in self.members.items():
            for run in member.history(_known(pipeline, name), limit):
                runs.setdefault(_shared(run["run_id"]), {})[name] = run
        merged = [
            {**_merged(by_target), "pipeline": pipeline, "run_id": run_id, "target": self.label}
            for run_id, by_target in runs.items()
        ]
        return sorted(merged, key=lambda run: (run["started_at"], run["run_id"]), reverse=True)[:limit]

    def kept(self, pipeline: str, run_id: str | None = None, status: Status | None = None) -> Iterator[pl.DataFrame]:
        """Quarantined rows of each run, as that target tells them where most are waiting."""
        for name, counts in reversed(self._kept(pipeline)):
            if run_id in {None, counts["run_id"]}:
                own = self._run_id(counts["run_id"], name)
                for frame in self.members[name].kept(_known(pipeline, name), own, status):
                    yield frame.with_columns(
                        run_id=pl.lit(counts["run_id"]),
                        resolved_by=pl.col("resolved_by").str.extract(r"^([^_]*_[^_]*)"),
                    )

    def kept_counts(self, pipeline: str) -> list[dict[str, Any]]:
        """How many rows of each run are kept, as that target tells it where most are waiting."""
        return [counts for _name, counts in self._kept(pipeline)]

    def _kept(self, pipeline: str) -> list[tuple[str, dict[str, Any]]]:
        """The target to be asked for each run that has rows, the newest run first."""
        found: dict[str, tuple[str, dict[str, Any]]] = {}
        for name, member in self.members.items():
            for counts in member.kept_counts(_known(pipeline, name)):
                run_id = _shared(counts["run_id"])
                if run_id not in found or counts["waiting"] > found[run_id][1]["waiting"]:
                    found[run_id] = (name, {**counts, "run_id": run_id})
        return [found[run_id] for run_id in sorted(found, reverse=True)]

    def discard(self, pipeline: str, marks: Marks) -> int:
        """Mark waiting rows as discarded in every target; returns how many were, where most of them were."""
        return max(
            member.discard(_known(pipeline, name), self._own_marks(marks, name))
            for name, member in self.members.items()
        )

    def _own_marks(self, marks: Marks, name: str) -> dict[str, list[int]]:
        return {self._run_id(run_id, name): list(numbers) for run_id, numbers in marks.items()}

    def own(self, record: RunRecord, name: str) -> RunRecord:
        """The record as the ledger of one target has it: with nothing about the others."""
        return replace(
            deepcopy(record),
            pipeline=_known(record.pipeline, name),
            run_id=self._run_id(record.run_id, name),
            target=self.members[name].label,
            targets={},
            replays=None if record.replays is None else self._own_marks(record.replays, name),
        )

    def _run_id(self, run_id: str, name: str) -> str:
        place = list(self.members).index(name)
        return f"{run_id}_{place + 1}" if place else run_id


def _known(pipeline: str, name: str) -> str:
    """What a pipeline is called in the ledger of one of its targets; no pipeline has a dot in its own name."""
    return f"{pipeline}.{name}"


def _shared(run_id: str) -> str:
    """The id of the run that a target knows under one of its own."""
    return "_".join(run_id.split("_")[:2])


def _merged(by_target: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    worst = min(by_target.values(), key=lambda run: _WORST.index(run["status"]))
    outcomes = {name: _outcome(run["target"], run) for name, run in by_target.items()}
    return {**worst, "targets": outcomes}


def _outcome(target: str, run: Mapping[str, Any]) -> dict[str, Any]:
    rows = run["rows"]
    return {"target": target, "status": run["status"], "written": rows["written"], "unchanged": rows["unchanged"]}


@dataclass
class SeveralChamber(Chamber):
    """A chamber in each target, filled with the same rows."""

    target: Several
    chambers: Mapping[str, Chamber]

    def __post_init__(self) -> None:
        self.row_checks = tuple(check for chamber in self.chambers.values() for check in chamber.row_checks)
        self.warnings = tuple(
            f"targets.{name}: {warning}" for name, chamber in self.chambers.items() for warning in chamber.warnings
        )

    @property
    def _first(self) -> tuple[str, Chamber]:
        return next(iter(self.chambers.items()))

    def stage(self, rows: pl.DataFrame) -> None:
        """Stage a batch in every chamber."""
        self._each(lambda chamber: chamber.stage(rows))

    def seal(self) -> int:
        """End staging everywhere; every target counts the same rows."""
        return self._agreed("staged", self._each(lambda chamber: chamber.seal()))

    def audit(self, rules: Sequence[SetRule]) -> list[Violation]:
        """Hold the rules against the first chamber: the others have the same rows."""
        name, chamber = self._first
        with _of(name):
            return chamber.audit(rules)

    def take(self, violation: Violation) -> Taken:
        """Take the same rows out of every chamber."""
        taken: dict[str, Taken] = self._each(lambda chamber: chamber.take(violation))
        name, _chamber = self._first
        self._agreed(f"blames by {violation.rule.label}", {name: each.values.len() for name, each in taken.items()})
        return taken[name]

    def _each(self, act: Callable[[Chamber], Any]) -> dict[str, Any]:
        done = {}
        for name, chamber in self.chambers.items():
            with _of(name):
                done[name] = act(chamber)
        return done

    def _agreed(self, what: str, counts: Mapping[str, int]) -> int:
        name, chamber_count = next(iter(counts.items()))
        for other, count in counts.items():
            if count != chamber_count:
                raise Side("target", f"target {self.target.members[other].label}").error(
                    "other",
                    f"{other!r} {what} {counted(count, 'row')}, {name!r} {chamber_count:,}. Nothing was published. "
                    "Give the pipeline one target until it is known why they disagree.",
                )
        return chamber_count

    def publish(self, record: RunRecord, quarantine: Quarantine) -> Published:
        """Publish to one target after the other; those that have this run already are left alone."""
        members = self.target.members.items()
        record.targets = {name: _outcome(member.label, _WAITING) for name, member in members}
        published: list[Published] = []
        records: list[RunRecord] = []
        for name, member in members:
            own = self.target.own(record, name)
            try:
                with _of(name):
                    known = _kept.replayed_before(member, own)
                    published.append(known or self.chambers[name].publish(own, quarantine))
            except BaseException as error:
                record.targets[name]["status"] = "failed"
                _say_what_was_published(error, record)
                raise
            record.targets[name] = _outcome(member.label, own.as_json())
            records.append(own)
        first = records[0]
        record.rows = replace(first.rows)
        record.forgotten = first.forgotten
        record.published = "; ".join(f"{name}: {each.how}" for name, each in zip(self.chambers, published, strict=True))
        record.finish("unchanged" if all(own.status == "unchanged" for own in records) else "published")
        return replace(published[0], how=record.published)

    def discard(self) -> None:
        """Remove every chamber, whatever becomes of the others."""
        with ExitStack() as stack:
            for chamber in self.chambers.values():
                stack.callback(chamber.discard)


_WAITING: dict[str, Any] = {"status": "waiting", "rows": {"written": 0, "unchanged": 0}}


def _say_what_was_published(error: BaseException, record: RunRecord) -> None:
    done = [name for name, outcome in record.targets.items() if outcome["status"] in _DONE]
    if not done or not isinstance(error, LockgateError):
        return
    said = error.message.replace("Nothing was published", "Nothing was published there")
    error.message = (
        f"{said} The load is published to {', '.join(map(repr, done))} all the same: each target has a transaction "
        "of its own. Run again when this is mended."
    )


@contextmanager
def _of(name: str) -> Iterator[None]:
    """Say which of the targets an error is about."""
    try:
        yield
    except LockgateError as error:
        if not error.path:
            error.path = ("targets", name)
        raise
