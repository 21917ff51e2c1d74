"""What targets that are databases say when they refuse a load: the same words in each of them."""

from __future__ import annotations

from collections.abc import Sequence

from flows._errors import RefusedError
from flows._sides import Side
from flows.targets._modes import DeleteRange, Scd2
from transforms._errors import LockgateError
from transforms._words import counted


def busy(who: str, patience_seconds: float, side: Side) -> LockgateError:
    """Another run has the lock of the target."""
    advice = "Run again when that one is done, or set target.concurrent_runs: wait."
    if patience_seconds:
        advice = f"It did not end in {patience_seconds:g} s. Run again, or wait longer (target.lock_timeout_seconds)."
    return side.error("busy", f"another run is loading it ({who}). {advice}")


def no_key(key: Sequence[str], side: Side) -> Exception:
    """A row without a key would be inserted again by every merge."""
    return side.error(
        "constraint",
        f"a row has no key ({_listed(key)} is null). Add a 'not_null' rule to quality_rules so that such rows "
        "go to quarantine.",
    )


def shared_key(key: Sequence[str], side: Side) -> Exception:
    """A merge would take one of several rows with the same key, and nobody could say which."""
    return side.error(
        "constraint",
        f"several rows share a key ({_listed(key)}). Add a 'unique' rule to quality_rules so that they go to "
        "quarantine, or a 'deduplicate' step that picks one.",
    )


def unkeyed(side: Side) -> RefusedError:
    """Rows that other tables point at can only stay where a key tells which they are."""
    return RefusedError(
        f"{side.label}: foreign keys of other tables point at it, and the load has no unique key to "
        "tell which rows stay. Deliver the key's columns, or use write_mode: upsert."
    )


def replaced(key: Sequence[str], wanted: DeleteRange | None) -> str:
    """Which rows ``delete_insert`` replaces, in words."""
    if wanted is None:
        return f"rows whose ({', '.join(key)}) the load has"
    if wanted.spans_load:
        return f"rows whose {wanted.column} is in the range that the load spans"
    return f"rows whose {wanted.column} is from {wanted.from_} on and before {wanted.to}"


def outside(wanted: DeleteRange, rows: int, side: Side) -> RefusedError:
    """A row outside of the range that is replaced would be there twice after the next run."""
    missing = "has no value there" if wanted.spans_load else "is outside of it"
    return RefusedError(
        f"{side.label}: delete_range replaces {replaced((), wanted)}, and {counted(rows, 'row')} of the load "
        f"{missing if rows == 1 else missing.replace('has', 'have', 1).replace('is', 'are', 1)}. "
        "Filter such rows with a 'filter' step, or let a rule send them to quarantine.",
        guard="delete_range",
        observed=rows,
    )


def too_early(versions: Scd2, rows: int, side: Side) -> RefusedError:
    """A version that begins before the one that it follows would make two of them true at once."""
    since = repr(versions.effective_at) if versions.effective_at else "the start of the run"
    return RefusedError(
        f"{side.label}: {counted(rows, 'row')} would change the past: {since} is not after the last change that "
        "the table has there. Load changes in the order in which they happened, oldest first.",
        guard="scd2_order",
        observed=rows,
    )


def _listed(key: Sequence[str]) -> str:
    return ", ".join(map(repr, key))
