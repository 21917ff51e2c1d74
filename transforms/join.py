"""Brings columns of another source to the rows that match, or keeps the rows that do."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field

from transforms._errors import ParameterError, UnknownColumnError
from transforms._transform import Watch, transform
from transforms._types import shown
from transforms._values import checked

How = Literal["inner", "left", "right", "full", "semi", "anti", "cross"]
Keys = str | list[str]


_THERE, _PLACE = "__lockgate_there__", "__lockgate_place__"


def _watched(frame: pl.LazyFrame, *, watch: Watch, **arguments: Any) -> pl.LazyFrame:
    """The same join, which shows its rows to `watch`: an inner one those that it is about to drop."""
    how, validate, most = (arguments[name] for name in ("how", "validate", "max_fan_out"))
    if how in {"semi", "anti", "cross"}:  # rows in and out say it all
        return join(frame, **arguments)
    watch.joins(may_multiply=validate in {"1:m", "m:m"} or most is not None)
    if how == "left":
        return join(frame, **arguments)
    names = join(frame, **arguments).collect_schema().names()
    if how == "inner":
        # A left join has each row without a match once; Polars cannot make it inner again across the watch.
        marked = arguments["source"].with_columns(pl.lit(value=True).alias(_THERE))
        brings = arguments["columns"] and [*arguments["columns"], _THERE]
        joined = join(frame, **{**arguments, "how": "left", "source": marked, "columns": brings})
        return watch.unmatched(joined, _THERE).filter(pl.col(_THERE).is_not_null()).select(names)
    joined = join(frame.with_row_index(_PLACE), **arguments)
    # The filter keeps every row, and the column from being left out where nobody else asks for it.
    return watch.added(joined, _PLACE).filter(pl.col(_PLACE).is_null() | (pl.col(_PLACE) >= 0)).select(names)


@transform(removes="unmatched", row_local=False, watched=_watched)
def join(
    frame: pl.LazyFrame,
    *,
    source: pl.LazyFrame,
    how: How = "inner",
    on: Keys | None = None,
    left_on: Keys | None = None,
    right_on: Keys | None = None,
    validate: Literal["1:1", "1:m", "m:1", "m:m"] | None = None,
    max_fan_out: Annotated[int, Field(ge=1)] | None = None,
    suffix: Annotated[str, Field(min_length=1)] = "_right",
    columns: list[str] | None = None,
) -> pl.LazyFrame:
    """Join the rows with those of another source.

    In: the key columns, of one dtype on both sides.
    Out: the columns of the frame, then those of the source without its keys; for semi and anti, those of the frame.
        Row order is not kept. A row appears once for each row of the source that matches.

    Args:
        source: the name of another source.
        how: inner, left, right and full as in SQL; semi keeps rows with a match, anti rows without; cross is all pairs.
        on: key columns with one name on both sides.
        left_on: key columns of the frame, where names differ.
        right_on: key columns of the source, in the same order.
        validate: which side has each key at most once: "m:1" the source, "1:m" the frame, "1:1" both, "m:m" none.
            Left out, a run in which a row finds several matches is refused, unless `max_fan_out` is given.
        max_fan_out: rows of the source that may have one key, at most.
        suffix: added to the source's columns whose name the frame has too.
        columns: the columns to bring from the source; all when left out.

    Nulls: a null key matches nothing, not even another null, as in SQL.

    Raises:
        UnknownColumnError: a key or a column is not there.
        ParameterError: keys are missing, or their dtypes differ; at plan time.
        polars.exceptions.PolarsError: at run, when a key appears more often than `validate` or `max_fan_out` allow.

    >>> orders = pl.LazyFrame({"order": [1, 2], "customer": ["a", "z"]})
    >>> customers = pl.LazyFrame({"customer": ["a", "b"], "city": ["Rome", "Oslo"]})
    >>> join(orders, source=customers, on="customer", how="left", validate="m:1").sort("order").collect().rows()
    [(1, 'a', 'Rome'), (2, 'z', None)]
    """
    left, right = _keys(how, on, left_on, right_on)
    _refuse_misfits(frame.collect_schema(), source.collect_schema(), left, right, named=on is None)
    others = _columns(source, right, how, columns)
    if how == "cross":
        if validate not in {None, "m:m"} or max_fan_out is not None:
            raise ParameterError("a cross join has no keys to check: leave 'validate' and 'max_fan_out' out.")
        return frame.join(source.select(others), how="cross", suffix=suffix)
    if validate in {"1:1", "1:m"}:
        frame = _at_most(frame, left, 1, "the rows have")
    most = 1 if validate in {"1:1", "m:1"} else max_fan_out
    other = source.select([*right, *others])
    other = other if most is None else _at_most(other, right, most, "the joined source has")
    # Polars' own `validate` would leave its streaming engine.
    coalesce = None if how in {"semi", "anti"} else True
    return frame.join(other, left_on=left, right_on=right, how=how, suffix=suffix, coalesce=coalesce)


def _keys(how: How, on: Keys | None, left_on: Keys | None, right_on: Keys | None) -> tuple[list[str], list[str]]:
    given = on is not None, left_on is not None, right_on is not None
    if how == "cross":
        if any(given):
            raise ParameterError("a cross join has no keys: leave 'on', 'left_on' and 'right_on' out.")
        return [], []
    if given not in {(True, False, False), (False, True, True)}:
        raise ParameterError("a join needs 'on', or both 'left_on' and 'right_on'.")
    left, right = _listed(on or left_on), _listed(on or right_on)
    if not left or len(left) != len(right):
        raise ParameterError("'left_on' and 'right_on' need the same number of columns, at least one.")
    return left, right


def _refuse_misfits(here: pl.Schema, there: pl.Schema, left: list[str], right: list[str], *, named: bool) -> None:
    """Refuse keys that are not there or of two dtypes; `named` says that each side names its own."""
    names = ("left_on", "right_on") if named else ("on", "on")
    for position, (mine, other) in enumerate(zip(left, right, strict=True)):
        if mine not in here:
            raise UnknownColumnError(mine, here, path=(names[0], position))
        if other not in there:
            raise UnknownColumnError(other, there, path=(names[1], position))
        if here[mine] != there[other]:
            types = f"{mine!r} is {shown(here[mine])} and the source's {other!r} is {shown(there[other])}"
            raise ParameterError(f"{types}. Cast one of them with the map transform.", path=(names[0], position))


def _listed(keys: Keys | None) -> list[str]:
    return [keys] if isinstance(keys, str) else keys or []


def _columns(source: pl.LazyFrame, keys: list[str], how: How, columns: list[str] | None) -> list[str]:
    schema = source.collect_schema()
    if how in {"semi", "anti"}:
        if columns is not None:
            raise ParameterError(f"a join of kind {how!r} brings no columns.", path=("columns",))
        return []
    for position, column in enumerate(columns or ()):
        if column not in schema:
            raise UnknownColumnError(column, schema, path=("columns", position))
    return [name for name in (schema if columns is None else columns) if name not in keys]


def _at_most(frame: pl.LazyFrame, keys: list[str], most: int, whose: str) -> pl.LazyFrame:
    """Stop the run when a key without nulls appears more than `most` times; rows stay as they are."""
    known = pl.all_horizontal(pl.col(key).is_not_null() for key in keys)
    crowded = (pl.len().over(keys) > most) & known
    message = (
        f"{whose} a key more than {most} times: {', '.join(keys)}"
        if most > 1
        else (f"{whose} a key more than once: {', '.join(keys)}")
    )
    return frame.with_columns(checked(pl.col(keys[0]), crowded, message).alias(keys[0]))
