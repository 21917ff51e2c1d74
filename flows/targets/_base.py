"""What a target is: a frozen set of options that opens a chamber and publishes from it.

The *chamber* is the staged set of a run: it belongs to the target, because it is where that
target can publish from in one step. Until `Chamber.publish` returns, no reader of the target
sees anything of the run; when it has returned, every reader sees all of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Literal, Self, TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict

from flows._ledger import LedgerBook, Quarantined, RunRecord
from transforms._registry import Registry
from validations._contract import SetRule

Kind = TypeVar("Kind", bound="type[Target]")
WriteMode = Literal["append", "overwrite", "upsert"]


@dataclass(frozen=True)
class Published:
    """What the publishing transaction did to the target, counted by the target itself.

    Attributes:
        inserted, updated, unchanged, deleted: rows.
        how: one phrase for people: "swapped in", "rewritten in place", "appended", "merged".
    """

    inserted: int
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    how: str = ""


@dataclass(frozen=True)
class Violation:
    """What a whole-set rule found in the chamber.

    Attributes:
        rule: the rule's label, as in the contract.
        rows: positions of the offending rows in the order they were staged, from 0; empty for a
            rule about the set as a whole.
        observed: what was seen, in words: "3 duplicates", "0 rows".
    """

    rule: str
    rows: tuple[int, ...]
    observed: str


class Chamber(ABC):
    """The staged set of one run. A context manager: leaving it discards whatever was not published."""

    @abstractmethod
    def stage(self, rows: pl.DataFrame) -> None:
        """Stage a batch of accepted rows; may be called from another thread, one call at a time."""

    @abstractmethod
    def seal(self) -> int:
        """End staging; returns the number of rows staged, as the target counted them."""

    @abstractmethod
    def audit(self, rules: Sequence[SetRule]) -> list[Violation]:
        """Hold whole-set rules against the sealed chamber; returns one `Violation` for each broken rule."""

    @abstractmethod
    def take(self, positions: Sequence[int]) -> pl.DataFrame:
        """Take the rows at these positions out of the chamber, and return them as they were staged."""

    @abstractmethod
    def publish(self, record: RunRecord, quarantined: Sequence[Quarantined]) -> Published:
        """Publish rows, quarantine and ledger in one transaction; afterwards the chamber is gone."""

    @abstractmethod
    def discard(self) -> None:
        """Remove every trace of the chamber; safe to call twice, and after `publish`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


class Target(BaseModel, ABC):
    """A kind of target; its pydantic fields are its YAML keys, one file registers one kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    #: The target's name for people: "analytics.dim_customers".
    label: ClassVar[str]


targets: Registry[type[Target]] = Registry("target", package="flows.targets")


def target(kind: Kind) -> Kind:
    """Register a `Target` class under the name of its file."""
    targets.register(kind.__module__.rpartition(".")[2], kind)
    return kind
