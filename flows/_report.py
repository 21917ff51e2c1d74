"""Telling people what happens while it happens; machines get the record instead."""

from __future__ import annotations

from typing import Protocol

from flows._ledger import RunRecord


class Reporter(Protocol):
    """Is told what a run does. Methods are quick, and may be called from the run's own thread only."""

    def began(self, record: RunRecord) -> None:
        """The run starts; its record will be filled in as it goes, and says in the end how it ended."""

    def stage(self, name: str) -> None:
        """A stage begins."""

    def rows(self, read: int) -> None:
        """So many rows were read so far."""

    def warning(self, text: str) -> None:
        """Something a person should know."""


class Silent:
    """Tells nobody."""

    def began(self, record: RunRecord) -> None:
        """Say nothing."""

    def stage(self, name: str) -> None:
        """Say nothing."""

    def rows(self, read: int) -> None:
        """Say nothing."""

    def warning(self, text: str) -> None:
        """Say nothing."""
