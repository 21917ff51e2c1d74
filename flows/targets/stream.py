"""A Kafka topic to publish to; can be configured and checked for shape, and cannot run yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import polars as pl
from pydantic import Field

from flows._errors import LoadError
from flows._ledger import RunRecord
from flows._quarantine import Marks, Quarantine, Status
from flows._secrets import Secret
from flows.targets._base import Target, target


@target
class Stream(Target):
    """Messages to a ``topic``; ``connection_string`` is ``kafka://broker:9092``, a path after it is of no meaning.

    Everything but its `label` raises LoadError.
    """

    type: Literal["stream"] = "stream"
    connection_string: Secret
    topic: Annotated[str, Field(min_length=1)]

    @property
    def label(self) -> str:
        """The topic."""
        return self.topic

    def open(self, record: RunRecord, schema: pl.Schema, folder: Path | None = None) -> NoReturn:  # noqa: ARG002 - the signature of every target
        """Refuse to publish."""
        self._refuse()

    def plan(self, schema: pl.Schema) -> NoReturn:  # noqa: ARG002 - as above
        """Refuse to publish."""
        self._refuse()

    def check(self) -> NoReturn:
        """Refuse to publish."""
        self._refuse()

    def record(self, record: RunRecord, quarantine: Quarantine | None) -> NoReturn:  # noqa: ARG002 - as above
        """Refuse to keep a record."""
        self._refuse()

    def state(self, pipeline: str) -> dict[str, Any]:  # noqa: ARG002 - as above
        """Refuse to look for what cannot be there."""
        self._refuse()

    def remember(self, pipeline: str, state: Mapping[str, Any]) -> NoReturn:  # noqa: ARG002 - as above
        """Refuse to remember."""
        self._refuse()

    def history(self, pipeline: str, limit: int) -> list[dict[str, Any]]:  # noqa: ARG002 - as above
        """Refuse to look for records that cannot be there."""
        self._refuse()

    def kept(self, pipeline: str, run_id: str | None = None, status: Status | None = None) -> NoReturn:  # noqa: ARG002 - as above
        """Refuse to look for rows that cannot be there."""
        self._refuse()

    def kept_counts(self, pipeline: str) -> NoReturn:  # noqa: ARG002 - as above
        """Refuse to look for rows that cannot be there."""
        self._refuse()

    def discard(self, pipeline: str, marks: Marks) -> NoReturn:  # noqa: ARG002 - as above
        """Refuse to mark rows that cannot be there."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise LoadError(
            "pipelines of type 'stream' cannot run in this version. Write a pipeline of type 'batch'.",
            target=self.label,
        )
