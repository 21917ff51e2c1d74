"""What is tried on a scratch copy of a pipeline, and what held."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

from flows._certify.bench import Bench, DidNotHoldError, NotApplicableError, Wanted
from flows._certify.child import BOUNDARIES, LEDGER, Order, between
from flows._certify.seen import difference
from flows._secrets import redact
from transforms._errors import LockgateError
from transforms._words import counted

Verdict = Literal["held", "did not hold", "not applicable"]
_DRAWS = 6  # to hit a run before it ends
_MOST_STEPS = 8  # of those that put files into their places


@dataclass(frozen=True)
class Trial:
    """One thing that was tried."""

    name: str
    verdict: Verdict
    detail: str
    seconds: float


@dataclass
class Certificate:
    """What was tried and what held.

    Attributes:
        rows: how many every trial had.
        kills: how many processes were killed.
        notes: what people should know about how it was tried.
        advice: what would help where something did not hold.
    """

    pipeline: str
    seed: int
    rows: int = 0
    kills: int = 0
    trials: list[Trial] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether everything held that could be tried."""
        return bool(self.trials) and not self.broken

    @property
    def broken(self) -> list[Trial]:
        """What did not hold."""
        return [trial for trial in self.trials if trial.verdict == "did not hold"]

    @property
    def tried(self) -> int:
        """How many trials there was something to try in."""
        return sum(trial.verdict != "not applicable" for trial in self.trials)

    def as_json(self) -> dict[str, Any]:
        """The result object."""
        return {"pipeline": self.pipeline, "held": self.held, **asdict(self)}


Act = Callable[[], str]


def certify(wanted: Wanted, tell: Callable[[Trial], None]) -> Certificate:
    """Try a pipeline on a scratch copy of its target, and remove the copy.

    Args:
        wanted: which, and how.
        tell: is told of every trial when it is over.

    Raises:
        LockgateError: there is nothing to try it on: a source or the target cannot be reached.
    """
    certificate = Certificate(wanted.pipeline.name, wanted.seed)
    with Bench(wanted) as bench:
        certificate.rows = bench.recorded.rows
        for name, act in _trials(bench):
            trial = _tried(name, act)
            certificate.trials.append(trial)
            tell(trial)
        certificate.kills, certificate.notes = bench.runner.kills, bench.notes
    certificate.advice = _advice(certificate, getattr(wanted.pipeline.target, "write_mode", ""))
    return certificate


def _tried(name: str, act: Act) -> Trial:
    started = time.monotonic()
    verdict: Verdict = "held"
    try:
        detail = act()
    except DidNotHoldError as error:
        verdict, detail = "did not hold", redact(str(error))
    except NotApplicableError as error:
        verdict, detail = "not applicable", str(error)
    except LockgateError as error:
        verdict, detail = "did not hold", redact(f"the target cannot be looked at: {error}")
    return Trial(name, verdict, detail, round(time.monotonic() - started, 3))


RUNS_ONCE, RUNS_AGAIN, RUNS_AFRESH = "runs once", "runs again", "runs again from nothing"
REORDERED, DOUBLED = "batches in another order", "batches that come twice"


def _trials(bench: Bench) -> Iterator[tuple[str, Act]]:
    """Every trial, as far as those before it let it make sense."""
    yield RUNS_ONCE, partial(_once, bench)
    if not hasattr(bench, "oracle"):
        return
    yield RUNS_AGAIN, partial(_again, bench)
    steady: list[bool] = []
    yield RUNS_AFRESH, partial(_afresh, bench, steady)
    if not steady:
        return  # every comparison would fail for the same reason
    bench.learn_start()
    for boundary in _boundaries(bench):
        yield f"killed {boundary}", partial(_killed, bench, boundary)
    chance = random.Random(bench.wanted.seed)  # noqa: S311 - to be repeated, not to be secret
    for number in range(1, bench.wanted.kills + 1):
        yield f"killed at random moment {number}", partial(_killed_at_random, bench, chance)
    yield REORDERED, partial(_reordered, bench)
    yield DOUBLED, partial(_doubled, bench)
    yield "target fails while the ledger is written", partial(_failing, bench, bench.order(fail=LEDGER))
    if bench.has_server:
        yield "target fails: its connection is cut", partial(_cut, bench)
    for step in _steps(bench):
        yield f"target fails at {step}", partial(_failing, bench, bench.order(fail=step))


def _boundaries(bench: Bench) -> list[str]:
    load = BOUNDARIES.index(LEDGER) + 1
    targets = [between(number) for number in range(2, len(bench.places) + 1)]
    steps = [f"before {step}" for step in _steps(bench)]
    return [*BOUNDARIES[:load], *targets, *steps, *BOUNDARIES[load:]]


def _steps(bench: Bench) -> list[str]:
    """The steps that put files into their places; some of them, where there are many."""
    steps = bench.outcome.facts["steps"]
    chosen = range(1, steps + 1)
    if steps > _MOST_STEPS:
        chosen = sorted({1 + round(number * (steps - 1) / (_MOST_STEPS - 1)) for number in range(_MOST_STEPS)})  # type: ignore[assignment] # any numbers
    return [f"disk step {number}" for number in chosen]


# --- the trials ---


def _once(bench: Bench) -> str:
    outcome = bench.completed()
    bench.learn(outcome)
    if faults := bench.oracle.faults:
        raise DidNotHoldError("; ".join(faults))
    rows = outcome.facts["rows"]
    if not rows["read"]:
        del bench.oracle
        raise DidNotHoldError("the source has no rows, so nothing can be proved")
    counts = ", ".join(f"{count:,} {name}" for name, count in rows.items() if count and name != "read")
    return f"{counted(rows['read'], 'row')} read: {counts}"


def _again(bench: Bench) -> str:
    rows = bench.completed().facts["rows"]
    bench.hold_same(bench.oracle)
    return f"{counted(rows['read'], 'row')} read: {rows['written']:,} written, {rows['unchanged']:,} unchanged"


def _afresh(bench: Bench, steady: list[bool]) -> str:
    bench.reset()
    bench.completed()
    bench.hold_same(bench.oracle)
    steady.append(True)
    return "the same rows, state and quarantine"


def _killed(bench: Bench, boundary: str) -> str:
    bench.begin()
    outcome = bench.runner.kill(bench.order(stop=_stop(boundary)))
    if not outcome.killed:
        raise NotApplicableError("no run gets there")
    return _completed(bench)


def _stop(boundary: str) -> str:
    return boundary.removeprefix("before ") if boundary.startswith("before disk step") else boundary


def _killed_at_random(bench: Bench, chance: random.Random) -> str:
    longest = bench.outcome.facts["seconds"]
    for _ in range(_DRAWS):
        bench.begin()
        moment = chance.uniform(0, longest)
        if bench.runner.kill(bench.order(), moment).killed:
            return f"after {1000 * moment:,.0f} ms: {_completed(bench)}"
        longest = moment
    raise NotApplicableError("every run was over before it could be killed")


def _completed(bench: Bench) -> str:
    """A run has died: readers see all or nothing, at once and later; and the next run completes."""
    bench.hold_whole()
    bench.settle()
    found = bench.hold_whole()
    bench.completed()
    bench.hold_same(bench.after)
    return f"{found}; the next run completed it"


def _reordered(bench: Bench) -> str:
    bench.reset()
    bench.completed(variant="shuffled")
    bench.hold_same(bench.oracle)
    return "the same rows, state and quarantine"


def _doubled(bench: Bench) -> str:
    bench.reset()
    outcome = bench.runner.run(bench.order(variant="doubled"))
    if not outcome.published:
        return f"nothing was published: {bench.said(outcome.why)}"
    found, oracle = bench.look(), bench.oracle
    if found.rows == oracle.rows:
        return "the same rows"
    more = found.quarantine.total() - oracle.quarantine.total()
    if more > 0 and all(rows <= good for rows, good in zip(found.rows, oracle.rows, strict=True)):
        return f"{counted(more, 'row')} more in quarantine, none twice in the target"
    raise DidNotHoldError(f"the target: {difference(found.rows[0], oracle.rows[0])}")


def _failing(bench: Bench, order: Order) -> str:
    bench.begin()
    return _mended(bench, bench.runner.run(order).published)


def _cut(bench: Bench) -> str:
    bench.begin()
    outcome = bench.runner.run(bench.order(stop=LEDGER), meanwhile=bench.cut)
    if outcome.reached is None:
        raise NotApplicableError("no run gets there")
    return _mended(bench, outcome.published)


def _mended(bench: Bench, published: bool) -> str:
    """A run has failed, or come through all the same; a failed one is run again."""
    found = bench.hold_whole()
    if not published:
        bench.settle()
        bench.completed()
    bench.hold_same(bench.after)
    return f"{found}; {'the run went on' if published else 'the next run completed it'}"


# --- what would help ---


def _advice(certificate: Certificate, write_mode: str) -> list[str]:
    broken = {trial.name for trial in certificate.broken}
    if RUNS_ONCE in broken:
        return ["A run has to publish something before it can be tried. Mend it first: run it, or preview it."]
    if RUNS_AFRESH in broken:
        return ["The same rows came out differently. Look for a step that asks for the time, or for chance."]
    advice = []
    if RUNS_AGAIN in broken and write_mode == "append":
        advice.append(
            "append: a second run adds the rows again. Use write_mode: upsert with a primary_key, or a source that "
            "reads only what is new."
        )
    if REORDERED in broken:
        advice.append("The order of the rows decides which of them stay. Sort them before the step that chooses.")
    if DOUBLED in broken:
        advice.append(
            "Rows that come twice are loaded twice. A 'unique' rule, or a 'deduplicate' step, keeps them out."
        )
    if not advice and broken:
        advice.append("That is a fault of Lockgate, of the target or of a custom step. Please report it with the seed.")
    return advice
