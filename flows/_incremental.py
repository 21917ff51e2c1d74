"""The keys of ``incremental``: of which column the windows are, where they begin and end, and what is read again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from flows.sources._base import Source
from flows.targets._base import Target
from transforms._errors import Path

Value = int | float | datetime | date | str


class Incremental(BaseModel):
    """Each run reads what is new since the last one, by a column that grows: the *cursor*.

    The window of a run is fixed before it reads: from the greatest value that was loaded to, for PostgreSQL, the
    moment before which nothing can be committed any more. What is remembered is committed together with the rows.

    Attributes:
        cursor_field: a column of the first source: when a row was changed, or a number that grows.
        initial_value: where the first window begins, and none begins before; all rows, unless given.
        end_value: where the last window ends.
        lookback: how far before the remembered value a window begins again, for rows that come late: ``1h``,
            ``2d``, or a number.
        range_start: whether the beginning belongs to the window. Rows there that were loaded are not loaded again.
        range_end: whether ``end_value`` belongs to the window.
        on_cursor_value_missing: what becomes of rows whose cursor is null: `raise` refuses the load, `include` loads
            them, `exclude` leaves them out and counts them as filtered.
        start_parameter: of an API's query: is given the beginning of the window.
        end_parameter: of an API's query: is given ``end_value``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    cursor_field: Annotated[str, Field(min_length=1)]
    initial_value: Value | None = None
    end_value: Value | None = None
    lookback: Annotated[int | float | str | None, Field(validation_alias=AliasChoices("lookback", "lag"))] = None
    range_start: Literal["closed", "open"] = "closed"
    range_end: Literal["open", "closed"] = "open"
    on_cursor_value_missing: Literal["raise", "include", "exclude"] = "raise"
    start_parameter: Annotated[
        str | None, Field(min_length=1, validation_alias=AliasChoices("start_parameter", "start_param"))
    ] = None
    end_parameter: Annotated[
        str | None, Field(min_length=1, validation_alias=AliasChoices("end_parameter", "end_param"))
    ] = None


def stray(keys: Incremental, first: Source, target: Target) -> Iterator[tuple[Path, str]]:
    """What does not go together with an incremental load from source `first` into `target`, and where it stands."""
    if first.remembers:
        message = "the first source has 'only_new', which is another way to read what is new. Remove one of them."
        yield ("incremental",), message
    if why := target.replaces_more:
        message = f"{why} would take away what the newest window does not have. Use write_mode: append or upsert."
        yield ("incremental",), message
    for key in ("start_parameter", "end_parameter"):
        if getattr(keys, key) is not None and first.type != "api":
            message = f"only an API has such parameters, and the first source is a {first.type}. Remove it."
            yield ("incremental", key), message
