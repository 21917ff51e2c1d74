"""A target as one that only adds: for a handful of rows that are no whole load, such as those of a replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows._errors import ConfigError
from flows.targets._base import Target
from flows.targets._several import Several


def adding(target: Target) -> tuple[Target, tuple[str, ...]]:
    """The same target, in a mode that takes nothing away; and in words what was changed.

    Raises:
        ConfigError: its write mode cannot take single rows.
    """
    if isinstance(target, Several):
        changed = {name: adding(member) for name, member in target.members.items()}
        words = tuple(f"targets.{name}: {word}" for name, (_member, said) in changed.items() for word in said)
        return Several(members={name: member for name, (member, _said) in changed.items()}), words
    updates, words = _changes(target)
    return target.model_copy(update=dict(updates)), words


def is_keyed(target: Target) -> bool:
    """Whether the target finds rows again by a key, so that none may be there twice in a load."""
    members = target.members.values() if isinstance(target, Several) else (target,)
    return any(getattr(member, "write_mode", "append") in {"upsert", "scd2"} for member in members)


def overwrites(target: Target) -> bool:
    """Whether each load of the target is everything there is."""
    members = target.members.values() if isinstance(target, Several) else (target,)
    return any(getattr(member, "write_mode", "append") == "overwrite" for member in members)


def _changes(target: Target) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    mode, key = getattr(target, "write_mode", "append"), getattr(target, "primary_key", ())
    instead = f"write_mode is 'upsert' for this replay, by ({', '.join(key)})"
    if mode == "overwrite":
        updates: dict[str, Any] = {"write_mode": "upsert" if key else "append"}
        if getattr(target, "partition_overwrite", "static") != "static":
            updates["partition_overwrite"] = "static"
        added = instead if key else "write_mode is 'append' for this replay"
        return updates, (f"{added}: 'overwrite' would leave only its rows.",)
    if mode == "delete_insert":
        if not key:
            raise ConfigError(
                "rows cannot be replayed with write_mode 'delete_insert' alone: it would delete the rows that share a "
                "key or range with them. Set 'primary_key', and a replay merges by it; or run the pipeline again.",
                path=("target", "primary_key"),
            )
        updates = {"write_mode": "upsert", "delete_key": (), "delete_range": None}
        return updates, (f"{instead}: 'delete_insert' would delete rows that are good.",)
    versions = getattr(target, "scd2", None)
    if mode == "scd2" and versions is not None and versions.hard_deletes == "close":
        closing = "scd2.hard_deletes is 'ignore' for this replay: 'close' would close every row that is not replayed."
        return {"scd2": versions.model_copy(update={"hard_deletes": "ignore"})}, (closing,)
    return {}, ()
