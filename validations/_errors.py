"""What can go wrong with promises.

LockgateError
└── ContractError               a promise cannot be held, or was not kept
    ├── RuleError               a quality rule does not fit its column or its parameters: found at plan time
    ├── ModelError              a Pandera model cannot be loaded or judged with, or does not fit: found at plan time
    ├── BrokenContractError     rows that were validated broke their contract
    └── TooManyRejectedError    more rows were rejected than ``max_failed_ratio`` allows
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transforms._errors import LockgateError, Path
from transforms._words import counted


class ContractError(LockgateError):
    """A promise cannot be held, or was not kept."""


class RuleError(ContractError):
    """A quality rule does not fit its column or its parameters: found before any row is read."""


class ModelError(ContractError):
    """A Pandera model cannot be loaded or judged with, or does not fit the rows: found before any row is read."""

    def __init__(self, model: str, problems: Sequence[str], *, path: Path = ("schema",)) -> None:
        self.model = model
        self.problems = tuple(problems)
        super().__init__(f"{model}: {' '.join(problems)}", path=path)


class BrokenContractError(ContractError):
    """Rows that were validated broke their contract."""

    def __init__(self, counts: Mapping[str, int], *, path: Path = ()) -> None:
        self.counts = dict(counts)
        checks = counted(len(counts), "check")
        super().__init__(f"the rows broke {checks} of the contract ({worst_first(counts)}).", path=path)


class TooManyRejectedError(ContractError):
    """More rows were rejected than ``max_failed_ratio`` allows."""

    def __init__(
        self, *, rejected: int, judged: int, max_failed_ratio: float, counts: Mapping[str, int], path: Path = ()
    ) -> None:
        self.rejected, self.judged, self.max_failed_ratio = rejected, judged, max_failed_ratio
        self.counts = dict(counts)
        super().__init__(
            f"{rejected:,} of {counted(judged, 'row')} ({percent(rejected, judged)}) broke the contract, "
            f"more than max_failed_ratio {max_failed_ratio:g} allows ({worst_first(counts)}). Nothing was loaded.",
            path=path,
        )


def worst_first(counts: Mapping[str, int]) -> str:
    """Write violations as ``email matches: 400, customer_id unique: 200``; checks that held are left out."""
    broken = sorted((-violations, label) for label, violations in counts.items() if violations)
    return ", ".join(f"{label}: {-violations:,}" for violations, label in broken)


def percent(part: int, whole: int) -> str:
    """Write a share as ``6.0 %``; never ``0.0 %`` for something, nor ``100.0 %`` for less than everything."""
    written = f"{100 * part / whole:.1f} %"
    if part and written == "0.0 %":
        return "less than 0.1 %"
    return "more than 99.9 %" if part < whole and written == "100.0 %" else written
