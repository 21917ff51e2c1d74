"""What becomes of the rows that a target has already: the write modes, and the keys that go with them.

Every target that takes rows shares these words. A target declares those of them that it can do,
and calls `refuse_stray` from a validator, so that a key that would mean nothing is a mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Mode = Literal["append", "overwrite", "upsert", "delete_insert", "scd2"]

#: What other tools call the same thing. Words that mean one thing here and another there ("incremental",
#: "insert-only") are none of them.
ALIASES: dict[str, Mode] = {
    "replace": "overwrite",
    "full_refresh": "overwrite",
    "truncate": "overwrite",
    "merge": "upsert",
    "delete+insert": "delete_insert",
    "snapshot": "scd2",
}


def by_its_name(value: Any) -> Any:
    """The name of a write mode that is called by an alias, or with dashes; everything else as it is."""
    if not isinstance(value, str):
        return value
    word = value.lower().replace("-", "_")
    return ALIASES.get(word, ALIASES.get(word.replace("delete_insert", "delete+insert"), word))


_Overwrite = Literal["overwrite", "replace", "full_refresh", "truncate"]

#: The field type of ``write_mode`` for targets that can do all of them.
WriteMode = Annotated[
    Mode,
    BeforeValidator(
        by_its_name,
        json_schema_input_type=Literal["append", _Overwrite, "upsert", "merge", "delete_insert", "scd2", "snapshot"],
    ),
]
#: The same for targets that cannot find a row again.
AddOrReplace = Annotated[
    Literal["append", "overwrite"],
    BeforeValidator(by_its_name, json_schema_input_type=Literal["append", _Overwrite]),
]


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


#: Column names; one may be written without the list.
Columns = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, populate_by_name=True)


class DeleteRange(_Keys):
    """The rows that ``delete_insert`` replaces, as a range of one column: ``{column: day, from: 2024-01-01, to: ...}``.

    Attributes:
        column: a column of the load and of the target that can be ordered.
        from_: the first value that is replaced. Without ``from`` and ``to`` it is the range that the load spans.
        to: the first value that is not replaced any more.
    """

    column: Annotated[str, Field(min_length=1)]
    from_: Annotated[int | float | datetime | date | str | None, Field(alias="from")] = None
    to: int | float | datetime | date | str | None = None

    @property
    def spans_load(self) -> bool:
        """Whether the load itself says which range it replaces, both ends included."""
        return self.from_ is None and self.to is None

    @model_validator(mode="after")
    def _both_ends(self) -> Self:
        if not self.spans_load and (self.from_ is None or self.to is None):
            raise ValueError("'from' and 'to' go together: rows from 'from' on, and before 'to', are replaced.")
        return self


class Scd2(_Keys):
    """How ``scd2`` keeps the history of a row: a version for each change, of which one is current.

    Attributes:
        valid_from: the column for the moment from which a version is true.
        valid_to: the column for the moment from which it is not true any more; null while it is current.
        is_current: the column for whether it is the current version.
        tracked_columns: columns whose change makes a new version; all that are delivered, unless given.
        effective_at: a delivered column that says since when a row is as it is; otherwise the run's start does.
        hard_deletes: whether a row that the load does not have any more is closed at the run's start.
    """

    valid_from: Annotated[str, Field(min_length=1)] = "valid_from"
    valid_to: Annotated[str, Field(min_length=1)] = "valid_to"
    is_current: Annotated[str, Field(min_length=1)] = "is_current"
    tracked_columns: Columns = ()
    effective_at: Annotated[str, Field(min_length=1)] | None = None
    hard_deletes: Literal["ignore", "close"] = "ignore"

    @property
    def own_columns(self) -> tuple[str, str, str]:
        """The three columns that the target keeps itself, and no load delivers."""
        return self.valid_from, self.valid_to, self.is_current

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        if len(set(self.own_columns)) < len(self.own_columns):
            raise ValueError("'valid_from', 'valid_to' and 'is_current' need a column each.")
        return self


#: The field type of ``concurrent_runs``: what a run does that finds another one at its target.
ConcurrentRuns = Literal["refuse", "wait"]


def refuse_stray(
    mode: str,
    primary_key: Sequence[str],
    *,
    delete_key: Sequence[str] = (),
    delete_range: DeleteRange | None = None,
    scd2: Scd2 | None = None,
) -> None:
    """Confirm that the keys that were given mean something in `mode`, and that those it needs are there.

    Raises:
        ValueError: they do not, or are not; for pydantic, from a validator.
    """
    if mode != "delete_insert" and (delete_key or delete_range):
        raise ValueError("'delete_key' and 'delete_range' are for write_mode: delete_insert. Remove them.")
    if mode != "scd2" and scd2 is not None:
        raise ValueError("'scd2' is for write_mode: scd2. Remove it.")
    if delete_key and delete_range:
        raise ValueError("'delete_key' and 'delete_range' are two ways to say the same. Remove one.")
    if mode == "delete_insert" and not (delete_key or delete_range or primary_key):
        raise ValueError(
            "delete_insert needs to know which rows it replaces. Set 'delete_key', such as [order_id], or "
            "'delete_range', such as {column: order_date}."
        )
    if mode == "scd2" and not primary_key:
        raise ValueError("scd2 needs a key to find a row by. Set 'primary_key', such as [customer_id].")
