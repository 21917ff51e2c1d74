"""What happens when the columns of a load and those of its target are not the same: pure functions on both.

A target asks `drift` once, before a row is read. It knows types of its own, so it brings along what
it can do with a dtype; nothing here knows a database or a lake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, TypeVar

import polars as pl
from pydantic import BaseModel, BeforeValidator, ConfigDict

Type = TypeVar("Type")

_EXACT_DIGITS = 38  # what a Decimal holds
_SIGNED = (pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64())
#: Signed dtypes with room for unsigned ones; the largest of those has no such.
_SIGNED_TWINS: dict[pl.DataType, pl.DataType] = {
    pl.UInt8(): pl.Int16(),
    pl.UInt16(): pl.Int32(),
    pl.UInt32(): pl.Int64(),
}
_SMALL = (pl.Int8(), pl.Int16(), pl.UInt8(), pl.UInt16())
_EXACT_IN_FLOAT64 = (*_SMALL, pl.Int32(), pl.UInt32())
_DIGITS: dict[pl.DataType, int] = {
    pl.Int8(): 3, pl.UInt8(): 3, pl.Int16(): 5, pl.UInt16(): 5, pl.Int32(): 10, pl.UInt32(): 10, pl.Int64(): 19,
    pl.UInt64(): 20,
}  # fmt: skip


class SchemaContract(BaseModel):
    """What a load may do to its target's columns. One word stands for both: ``schema_contract: evolve``.

    Attributes:
        columns: a column that the target does not have is added (``evolve``), refused (``freeze``), or not
            loaded, which the run's record says (``discard``).
        data_type: a column whose values could be too large for the target's grows where nothing is lost
            (``evolve``), or is refused as soon as a value does not fit (``freeze``); with ``quarantine`` a row with
            such a value goes to quarantine, and the others are loaded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    columns: Literal["evolve", "freeze", "discard"] = "freeze"
    data_type: Literal["evolve", "freeze", "quarantine"] = "freeze"


def _both(value: Any) -> Any:
    return {"columns": value, "data_type": value} if value in ("evolve", "freeze") else value


#: The field type of ``schema_contract``.
Contracted = Annotated[
    SchemaContract, BeforeValidator(_both, json_schema_input_type=Literal["evolve", "freeze"] | SchemaContract)
]


@dataclass(frozen=True)
class Drift(Generic[Type]):
    """How the columns of a load differ from those of a target that is there, and what is done about it.

    Attributes:
        added: columns that the target gets, with their dtypes.
        discarded: columns that are not loaded.
        widened: columns of the target that grow, with their new types.
        unknown: columns that the target does not have and must not get: the caller refuses them in its words.
        warnings: what people should know, in words.
    """

    added: Mapping[str, pl.DataType] = field(default_factory=dict)
    discarded: tuple[str, ...] = ()
    widened: Mapping[str, Type] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def drift(
    contract: SchemaContract,
    schema: pl.Schema,
    present: Mapping[str, Type],
    grown: Callable[[Type, pl.DataType], Type | None],
) -> Drift[Type]:
    """Hold the columns of a load against those of its target.

    Args:
        contract: what the load may do.
        schema: of the load.
        present: the target's columns and their types, in the target's own terms.
        grown: the type that a column of that type must become for values of that dtype; None where it need not or
            cannot. `wider` answers it for dtypes.
    """
    new = {name: dtype for name, dtype in schema.items() if name not in present}
    # A column that holds nothing but nulls has no type yet: to add it would be a guess, and nothing is lost.
    empty = tuple(name for name, dtype in new.items() if dtype == pl.Null() and contract.columns == "evolve")
    discarded = tuple(new) if contract.columns == "discard" else empty
    evolves = contract.columns == "evolve"
    widened: dict[str, Type] = {}
    if contract.data_type == "evolve":
        candidates = {name: grown(present[name], dtype) for name, dtype in schema.items() if name in present}
        widened = {name: wide for name, wide in candidates.items() if wide is not None}
    return Drift(
        added={name: dtype for name, dtype in new.items() if name not in empty} if evolves else {},
        discarded=discarded,
        widened=widened,
        unknown=tuple(new) if contract.columns == "freeze" else (),
        warnings=tuple(_discarded(name, untyped=name in empty) for name in discarded),
    )


def _discarded(name: str, *, untyped: bool) -> str:
    if untyped:
        return f"column {name!r} is not in the target, and has no type yet: all its values are null. It was left out."
    return f"column {name!r} is not in the target and was discarded (schema_contract.columns: discard)."


def wider(present: pl.DataType, delivered: pl.DataType) -> pl.DataType | None:
    """The dtype that `present` must become to hold every value of both; None where it need not, or cannot.

    Grows within a kind, and from whole numbers to the numbers that hold them exactly. Dates do not become
    timestamps, nor numbers texts: whoever reads the column would get something else.
    """
    if isinstance(present, pl.Decimal) or isinstance(delivered, pl.Decimal):
        return _wider_decimal(present, delivered)
    if present in _SIGNED and delivered.is_integer():
        room = _SIGNED_TWINS.get(delivered, delivered)
        return room if room in _SIGNED and _SIGNED.index(room) > _SIGNED.index(present) else None
    if present == pl.Float32():
        return pl.Float64() if delivered == pl.Float64() or delivered in {pl.Int32(), pl.UInt32()} else None
    return pl.Float64() if present in _EXACT_IN_FLOAT64 and delivered.is_float() else None


def _wider_decimal(present: pl.DataType, delivered: pl.DataType) -> pl.DataType | None:
    """Room for the digits of both, before and behind the point; None where that is there, or is too many."""
    ours, theirs = _digits(present), _digits(delivered)
    if ours is None or theirs is None:
        return None
    before, behind = max(ours[0], theirs[0]), max(ours[1], theirs[1])
    if (before, behind) == ours or before + behind > _EXACT_DIGITS:
        return None
    return pl.Decimal(before + behind, behind)


def _digits(dtype: pl.DataType) -> tuple[int, int] | None:
    """Digits before and behind the point that a number of that dtype can have."""
    if isinstance(dtype, pl.Decimal):
        return dtype.precision - dtype.scale, dtype.scale
    return (_DIGITS[dtype], 0) if dtype in _DIGITS else None
