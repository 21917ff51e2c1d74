"""Picks, renames, retypes and recodes columns."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import polars as pl

from transforms import _casts
from transforms._errors import FormulaError, ParameterError, UnknownColumnError
from transforms._transform import transform
from transforms._types import constant, dtype_named, kind, shown
from transforms._values import Value


@transform(row_local=True)
def map(
    frame: pl.LazyFrame,
    *,
    select: list[str] | None = None,
    drop: list[str] | None = None,
    values: dict[str, dict[Any, Any]] | None = None,
    defaults: dict[str, Any] | None = None,
    cast: dict[str, str] | None = None,
    constants: dict[str, Any] | None = None,
    rename: dict[str, str] | None = None,
) -> pl.LazyFrame:
    """Pick, recode, retype, add and rename columns, in this order; all names are those before the renaming.

    In: the columns named.
    Out: the same rows in the same order; columns in the order of `select`, or as they were, then `constants`.

    Args:
        select: the columns to keep, in this order.
        drop: the columns to leave out, instead of `select`.
        values: for a column, new values by old ones: ``{status: {a: active, g: gone}}``. Others stay as they are.
        defaults: for a column of `values`, what all other values become.
        cast: for a column, its new type, by a name of SQL or Polars: ``bigint``, ``Int64``, ``numeric(10, 2)``.
            Rounds as PostgreSQL's ``::`` does. A value that cannot be cast stops the run.
        constants: new columns with one value each.
        rename: new names by old ones; columns may swap names.

    Nulls: stay null in `values`, also where there is a default, unless null is one of the old values.

    Raises:
        UnknownColumnError: a column is not there.
        ParameterError: a type is unknown or cannot be cast to, a value does not fit, a name is taken.
        polars.exceptions.PolarsError: at run, for a value that cannot be cast.

    >>> frame = pl.LazyFrame({"id": ["1", "2"], "state": ["a", "x"]})
    >>> coded = map(frame, values={"state": {"a": "active"}}, cast={"id": "bigint"}, rename={"state": "status"})
    >>> coded.collect().rows()
    [(1, 'active'), (2, 'x')]
    """
    frame = _pick(frame, select, drop)
    frame = _recode(frame, values or {}, defaults or {})
    frame = _retype(frame, cast or {})
    frame = _add(frame, constants or {})
    return _rename(frame, rename or {})


def _pick(frame: pl.LazyFrame, select: list[str] | None, drop: list[str] | None) -> pl.LazyFrame:
    if select is not None and drop is not None:
        raise ParameterError("'select' and 'drop' exclude each other. Keep one of them.", path=("drop",))
    schema = frame.collect_schema()
    for parameter, names in (("select", select), ("drop", drop)):
        for position, name in enumerate(names or ()):
            if name not in schema:
                raise UnknownColumnError(name, schema, path=(parameter, position))
            if name in (names or ())[:position]:
                raise ParameterError(f"{name!r} is listed twice.", path=(parameter, position))
    if select is not None:
        return frame.select(select)
    return frame.drop(drop) if drop else frame


def _recode(frame: pl.LazyFrame, values: Mapping[str, Mapping[Any, Any]], defaults: Mapping[str, Any]) -> pl.LazyFrame:
    schema = frame.collect_schema()
    for name in defaults:
        if name not in values:
            raise ParameterError(
                f"there are no 'values' for {name!r}, so it needs no default.", path=("defaults", name)
            )
    for name, mapping in values.items():
        if name not in schema:
            raise UnknownColumnError(name, schema, path=("values", name))
        frame = frame.with_columns(_recoded(name, schema[name], mapping, defaults))
    return frame


def _recoded(name: str, dtype: pl.DataType, mapping: Mapping[Any, Any], defaults: Mapping[str, Any]) -> pl.Expr:
    dtype = pl.String() if kind(dtype) == "text" else dtype
    column = pl.col(name).cast(dtype)
    try:
        old = [None if each is None else constant(each, dtype) for each in mapping]
    except ValueError as error:
        raise ParameterError(f"{error}; column {name!r} is {shown(dtype)}.", path=("values", name)) from None
    new, target = _new_values(name, [*mapping.values(), *([defaults[name]] if name in defaults else [])], dtype)
    known = pl.Series(new[: len(mapping)], dtype=target)
    if name in defaults:
        default: pl.Expr = pl.when(column.is_not_null()).then(pl.lit(new[-1], dtype=target))
    elif target == dtype:
        default = column
    else:
        raise ParameterError(
            f"the new values are {shown(target)}, and {name!r} is {shown(dtype)}. Give other values a default.",
            path=("values", name),
        )
    return column.replace_strict(pl.Series(old, dtype=dtype), known, default=default, return_dtype=target)


def _new_values(name: str, values: list[Any], dtype: pl.DataType) -> tuple[list[Any], pl.DataType]:
    """The new values, and the column's type if they are of that kind, else their own."""
    try:
        own = pl.Series([each for each in values if each is not None], strict=True).dtype
    except (TypeError, pl.exceptions.PolarsError):
        raise ParameterError("the new values are of several types. Write all alike.", path=("values", name)) from None
    fits = (kind(own), kind(dtype))
    same = fits[0] in {fits[1], "unknown"} or fits in {("integer", "real"), ("integer", "numeric"), ("real", "numeric")}
    if not same and not (fits[0] == "text" and fits[1] in {"date", "timestamp", "timestamptz", "time"}):
        return values, own
    try:
        return [None if each is None else constant(each, dtype) for each in values], dtype
    except ValueError as error:
        raise ParameterError(f"{error}; column {name!r} is {shown(dtype)}.", path=("values", name)) from None


def _retype(frame: pl.LazyFrame, cast: Mapping[str, str]) -> pl.LazyFrame:
    schema = frame.collect_schema()
    columns = []
    for name, wanted in cast.items():
        if name not in schema:
            raise UnknownColumnError(name, schema, path=("cast", name))
        try:
            value = Value(pl.col(name), schema[name], sql=name)
            columns.append(_casts.cast(value, dtype_named(wanted)).expr.alias(name))
        except (ValueError, FormulaError) as error:
            message = error.message if isinstance(error, FormulaError) else str(error)
            raise ParameterError(message, path=("cast", name)) from None
    return frame.with_columns(columns) if columns else frame


def _add(frame: pl.LazyFrame, constants: Mapping[str, Any]) -> pl.LazyFrame:
    schema = frame.collect_schema()
    columns = []
    for name, value in constants.items():
        if name in schema:
            raise ParameterError(f"there is a column {name!r} already. Drop it first.", path=("constants", name))
        if not isinstance(value, str | int | float | date | None):
            raise ParameterError(f"{value!r} is not one value.", path=("constants", name))
        whole = isinstance(value, int) and not isinstance(value, bool)
        dtype = pl.Int64() if whole else pl.String() if value is None else None
        columns.append(pl.lit(value, dtype=dtype).alias(name))
    return frame.with_columns(columns) if columns else frame


def _rename(frame: pl.LazyFrame, rename: Mapping[str, str]) -> pl.LazyFrame:
    schema = frame.collect_schema()
    for name in rename:
        if name not in schema:
            raise UnknownColumnError(name, schema, path=("rename", name))
    taken: set[str] = set()
    for name in schema:
        new = rename.get(name, name)
        if new in taken:
            raise ParameterError(f"two columns would be called {new!r}.", path=("rename", _culprit(rename, new)))
        taken.add(new)
    return frame.rename(dict(rename)) if rename else frame


def _culprit(rename: Mapping[str, str], new: str) -> str:
    return next(old for old, name in rename.items() if name == new)
