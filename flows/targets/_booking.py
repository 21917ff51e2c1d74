"""What every target that keeps its own ledger does with the record of a run that it publishes."""

from __future__ import annotations

from typing import Any

from flows._errors import RefusedError
from flows._ledger import Rows, RunRecord
from flows.targets._base import Published


def settle(record: RunRecord, published: Published) -> None:
    """Book what the target did, hold the counts against each other, and close the record.

    Raises:
        LedgerError: they do not add up.
    """
    record.rows.written = published.inserted + published.updated
    record.rows.unchanged = published.unchanged
    record.balance()
    record.published = published.how
    record.finish("published" if published.changed else "unchanged")


def recall(record: RunRecord, earlier: dict[str, Any]) -> Published:
    """Take over what an earlier attempt of the same run published before its answer was lost."""
    record.rows = Rows(**earlier["rows"])
    record.published = earlier["published"]
    record.finish(earlier["status"])
    return Published(record.rows.written, unchanged=record.rows.unchanged, how=earlier["published"])


def refuse_empty(rows: int, label: str) -> None:
    """An overwrite with nothing would leave nothing.

    Args:
        rows: how many are staged.
        label: what errors begin with.

    Raises:
        RefusedError: none are.
    """
    if not rows:
        raise RefusedError(
            f"{label}: the load is empty, and overwriting with it would leave no rows. "
            "Set target.allow_empty: true if that is meant.",
            guard="allow_empty",
            observed=0,
        )
