"""How a column of a load fits a column of a database file, where Polars itself can say what survives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

#: Makes an expression of an expression.
Change = Callable[[pl.Expr], pl.Expr]

_SMALL = (pl.Int8(), pl.Int16(), pl.UInt8(), pl.UInt16())
#: Floats, and the whole numbers that they hold exactly, all of them.
_EXACT: dict[pl.DataType, tuple[pl.DataType, ...]] = {
    pl.Float32(): _SMALL,
    pl.Float64(): (*_SMALL, pl.Int32(), pl.UInt32(), pl.Float32()),
}


@dataclass(frozen=True)
class Fit:
    """How one column is staged and published.

    Attributes:
        staged: SQL type of the staging column.
        wire: the dtype in which values are written there and read again.
        cast: to `wire`.
        back: from `wire` to the dtype of the load.
        publish: SQL that turns the staged column, ``{}``, into the table's type.
        survives: whether a value is the same after the cast and in the table; None where every one is.
    """

    staged: str
    wire: pl.DataType
    cast: Change
    back: Change
    publish: str = "{}"
    survives: Change | None = None


def known(dtype: object) -> pl.DataType:
    """The dtype of an item or field, which is never a class in the schema of a frame."""
    assert isinstance(dtype, pl.DataType)  # noqa: S101 - as said
    return dtype


def to(dtype: pl.DataType) -> Change:
    """A cast that has been shown to be harmless for the values that it meets."""
    return lambda column: column.cast(dtype)


def both(one: Change | None, other: Change | None) -> Change | None:
    """Whether two tests, of which either may be missing, are both passed."""
    if one is None or other is None:
        return one or other
    return lambda column: one(column) & other(column)


def comes_back(dtype: pl.DataType, wire: pl.DataType) -> Change | None:
    """Whether a value of `dtype` is the same after a way through `wire` and back; None where every value is."""
    if dtype in {wire, pl.Null()} or dtype in _EXACT.get(wire, ()):
        return None
    return lambda column: column.cast(wire, strict=False).cast(dtype, strict=False).eq_missing(column)


def castable(dtype: pl.DataType, wanted: pl.DataType) -> bool:  # noqa: PLR0911 - one line a family of types
    """Whether values of `dtype` mean the same as values of `wanted`, so that all that can be wrong is their size."""
    if dtype in {wanted, pl.Null()}:
        return True
    if wanted.is_integer():
        return dtype.is_integer()
    if wanted.is_float():
        return dtype in _EXACT[wanted]
    if isinstance(wanted, pl.Decimal):
        return dtype.is_integer() or (isinstance(dtype, pl.Decimal) and dtype.scale <= wanted.scale)
    if wanted == pl.String():
        return isinstance(dtype, pl.Categorical | pl.Enum)
    if isinstance(wanted, pl.Datetime):
        if isinstance(dtype, pl.Datetime):
            return bool(dtype.time_zone) == bool(wanted.time_zone)
        return dtype == pl.Date() and not wanted.time_zone
    if isinstance(wanted, pl.Duration):
        return isinstance(dtype, pl.Duration)
    return _nested(dtype, wanted)


def _nested(dtype: pl.DataType, wanted: pl.DataType) -> bool:
    if isinstance(dtype, pl.List) and isinstance(wanted, pl.List):
        return castable(known(dtype.inner), known(wanted.inner))
    if isinstance(dtype, pl.Array) and isinstance(wanted, pl.Array):
        return dtype.shape[0] == wanted.shape[0] and castable(known(dtype.inner), known(wanted.inner))
    if isinstance(dtype, pl.Struct) and isinstance(wanted, pl.Struct):
        return [field.name for field in dtype.fields] == [field.name for field in wanted.fields] and all(
            castable(known(one.dtype), known(other.dtype))
            for one, other in zip(dtype.fields, wanted.fields, strict=True)
        )
    return False
