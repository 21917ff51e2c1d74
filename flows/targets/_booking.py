"""What every target that keeps its own ledger does with the record of a run that it publishes."""

from __future__ import annotations

from typing import Any

from flows._errors import RefusedError
from flows._ledger import Rows, RunRecord
from flows.targets._base import Published
from transforms._words import counted


def settle(record: RunRecord, published: Published) -> None:
    """Book what the target did, hold the counts against each other, and close the record.

    Raises:
        LedgerError: they do not add up.
        RefusedError: more rows would go than the guards allow.
    """
    record.rows.written = published.inserted + published.updated
    record.rows.unchanged = published.unchanged
    record.balance()
    _refuse_shrinking(record, published)
    record.published = published.how
    record.finish("published" if published.changed else "unchanged")


def recall(record: RunRecord, earlier: dict[str, Any]) -> Published:
    """Take over what an earlier attempt of the same run published before its answer was lost."""
    record.rows = Rows(**earlier["rows"])
    record.published = earlier["published"]
    record.finish(earlier["status"])
    return Published(record.rows.written, unchanged=record.rows.unchanged, how=earlier["published"])


def _refuse_shrinking(record: RunRecord, published: Published) -> None:
    """Hold what goes against what was there; an empty load is allowed, or was refused before.

    Raises:
        RefusedError: too much of it goes.
    """
    removed, before, allowed = published.removed, published.before, record.guards.max_removed_ratio
    if not record.staged or removed <= allowed * before:
        return
    raise RefusedError(
        f"target {record.target}: the load would remove {removed:,} of {counted(before, 'row')} "
        f"({100 * removed / before:.4g} %), more than guards.max_removed_ratio: {allowed:g} allows. Nothing was "
        "published. Look whether the source is whole; if that is meant, run with --allow-shrink, or raise the ratio.",
        guard="max_removed_ratio",
        observed=removed / before,
        allowed=allowed,
    )


def refuse_empty(rows: int, label: str, record: RunRecord) -> None:
    """An overwrite with nothing would leave nothing.

    Args:
        rows: how many are staged.
        label: what errors begin with.
        record: of the run, which may allow it.

    Raises:
        RefusedError: none are.
    """
    if not rows and not record.guards.allows_empty:
        raise RefusedError(
            f"{label}: the load is empty, and overwriting with it would leave no rows. "
            "Set target.allow_empty: true if that is meant, or run with --allow-shrink.",
            guard="allow_empty",
            observed=0,
        )
