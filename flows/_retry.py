"""When a stage is tried again: ``error_handling`` as numbers, for plain runs and for Prefect's alike.

`Policy.of` is the one place that makes the numbers. A plain run wraps its stages with `retried`;
a Prefect run hands the same numbers to Prefect. Either way an error is asked one thing only:
whether it is `retryable`. Trying again is safe by what the stages promise: `validate` starts
afresh, `load` takes the chamber as it stands, `extract` and `transform` read nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import tenacity

from flows._keys import ErrorHandling
from flows._stages import Run
from transforms._errors import LockgateError

if TYPE_CHECKING:
    from flows.pipeline import Stages

P = ParamSpec("P")
T = TypeVar("T")
Stage = Callable[Concatenate[Run, P], T]

#: Part of a delay by which it may be shorter or longer, so that runs that failed together do not return together.
JITTER = 0.3
#: Doubling ends here, unless `retry_delay` itself is longer.
LONGEST_SECONDS = 3600.0
#: Prefect keeps no more delays; the last one repeats.
_MOST_DELAYS = 50


@dataclass(frozen=True)
class Policy:
    """How often and when.

    Attributes:
        retries: how many times after the first.
        delays: seconds before each retry, on average; the last one repeats.
    """

    retries: int = 0
    delays: tuple[float, ...] = ()

    @classmethod
    def of(cls, handling: ErrorHandling) -> Policy:
        """The numbers that a configuration asks for: none at all, unless its strategy is ``retry``."""
        if handling.strategy != "retry":
            return cls()
        longest = max(handling.retry_delay, LONGEST_SECONDS)
        doubled = (handling.retry_delay * 2**number for number in range(min(handling.max_retries, _MOST_DELAYS)))
        return cls(handling.max_retries, tuple(min(delay, longest) for delay in doubled))

    def tell(self, run: Run, stage: str, retry: int, error: BaseException | None) -> None:
        """Tell people about the `retry`-th retry, from 1, if there is one after `error`."""
        if retry > self.retries or not is_retryable(error):
            return
        delay = self.delays[min(retry, len(self.delays)) - 1]
        run.warn(f"{stage} is tried again in about {delay:,g} s (retry {retry} of {self.retries}): {error}")


def is_retryable(error: BaseException | None) -> bool:
    """Whether trying again may help: the error itself knows."""
    return isinstance(error, LockgateError) and error.retryable


def retried(stages: Stages, policy: Policy) -> Stages:
    """The same stages, tried again as `policy` says; for runs without Prefect."""
    return dataclasses.replace(
        stages,
        extract=_retried(stages.extract, policy),
        transform=_retried(stages.transform, policy),
        validate=_retried(stages.validate, policy),
        load=_retried(stages.load, policy),
    )


def _retried(stage: Stage[P, T], policy: Policy) -> Stage[P, T]:
    if not policy.retries:
        return stage

    def attempts(run: Run, /, *args: P.args, **kwargs: P.kwargs) -> T:
        def tell(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            policy.tell(run, stage.__name__, state.attempt_number, error)

        attempt = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_retryable),
            stop=tenacity.stop_after_attempt(policy.retries + 1),
            wait=tenacity.wait_chain(
                *(tenacity.wait_random(d * (1 - JITTER), d * (1 + JITTER)) for d in policy.delays)
            ),
            before_sleep=tell,
            reraise=True,
        )
        return attempt(stage, run, *args, **kwargs)

    return attempts
