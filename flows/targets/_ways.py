"""What each write mode refuses, and how it brings a chamber into a table that stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows._ledger import RunRecord
from flows._postgres import Connection, PostgresSide
from flows.targets import _guards, _publish, _scope, _sequences
from flows.targets._base import Published
from flows.targets._history import History
from flows.targets._layout import Layout
from flows.targets._publish import Staged

if TYPE_CHECKING:
    from flows.targets.database import Database


def refuse(
    connection: Connection,
    options: Database,
    layout: Layout,
    staged: Staged,
    side: PostgresSide,
    *,
    record: RunRecord,
    key_is_unique: bool,
) -> None:
    """Refuse what the write mode cannot publish; `key_is_unique` where it is proved that no two rows share the key.

    Raises:
        RefusedError: the load is empty and that would leave nothing, or rows lie outside of what is replaced.
        LoadError: rows have no key, or share one.
    """
    mode, versions, by_range = options.write_mode, options.versions, options.delete_range
    empties = mode == "overwrite" or (by_range is not None and not by_range.spans_load)
    if empties or (versions is not None and versions.hard_deletes == "close"):
        _guards.refuse_empty(staged, side, record, allowed=options.allow_empty)
    if mode in {"upsert", "scd2"}:
        _guards.refuse_missing_keys(connection, staged, layout.key, side)
        if not key_is_unique:
            _guards.refuse_repeated_keys(connection, staged, layout, side)
    if versions is not None and versions.effective_at is not None:
        _guards.refuse_missing_keys(connection, staged, (versions.effective_at,), side)
    if mode == "delete_insert" and by_range is None:
        _guards.refuse_missing_keys(connection, staged, options.replaces_by, side)
    if by_range is not None:
        _scope.refuse_strays(connection, layout, staged, by_range, side)


def in_place(
    connection: Connection,
    options: Database,
    layout: Layout,
    staged: Staged,
    *,
    record: RunRecord,
    side: PostgresSide,
) -> Published:
    """Publish into the table that is there, and stays; or that ``scd2`` makes.

    Raises:
        RefusedError: ``scd2`` would have to change the past.
    """
    if layout.evolution.clauses:
        _publish.change(connection, layout, patience_seconds=options.lock_timeout_seconds)
    if options.versions is not None:
        published = History(layout, staged, options.versions, record.started_at).publish(connection, side)
    elif options.write_mode == "upsert":
        published = _publish.upsert(connection, layout, staged)
    elif options.write_mode == "overwrite":
        published = _publish.overwrite(connection, layout, staged)
    elif options.write_mode == "delete_insert":
        published = _publish.delete_insert(connection, layout, staged, _scope_of(options, layout, staged))
    else:
        published = _publish.append(connection, layout, staged)
    found = _sequences.advance(connection, layout, staged)
    record.warnings.extend(warning for warning in found if warning not in record.warnings)  # once, also when retried
    return published


def _scope_of(options: Database, layout: Layout, staged: Staged) -> str:
    if options.delete_range is not None:
        return _scope.of_range(layout, staged, options.delete_range)
    return _scope.of_keys(layout, staged, options.replaces_by)
