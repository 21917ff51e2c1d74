"""The types of PostgreSQL that both sides of the border know: `flows._reading` and `flows._writing`.

Nothing crosses by chance. A column is read through `Reading` (how to select it, which dtype
it has, how to decode what the driver hands over) and written through `Writing` (how to cast
it, which wire type it has). What does not fit is refused by name before a byte moves:
binary COPY checks only lengths, so an Int64 in a float8 column would be stored as 3.5e-323.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

EXACT_DIGITS = 38  # what a Decimal holds
UTC = pl.Datetime("us", "UTC")

#: PostgreSQL types, by the name the catalogue gives them, that the driver reads as they are.
READ_AS_IS: dict[str, pl.DataType] = {
    "int2": pl.Int16(),
    "int4": pl.Int32(),
    "int8": pl.Int64(),
    "bool": pl.Boolean(),
    "float4": pl.Float32(),
    "float8": pl.Float64(),
    "text": pl.String(),
    "varchar": pl.String(),
    "bpchar": pl.String(),
    "name": pl.String(),
    "bytea": pl.Binary(),
    "date": pl.Date(),
    "time": pl.Time(),
    "timestamp": pl.Datetime("us"),
    "timestamptz": UTC,
}
#: PostgreSQL's first day, 4714-11-24 BC, as Polars counts: in its binary form 'infinity', '-infinity' and moments
#: after the year 294246 overflow, and arrive before it.
FIRST_DAY = -2_440_588
FIRST_MICROSECOND = FIRST_DAY * 86_400_000_000
#: One-dimensional arrays of these are read as lists; the driver would flatten more dimensions unseen.
LIST_ITEMS = {"int2", "int4", "int8", "bool", "float4", "float8", "text", "varchar", "bpchar", "date", "timestamp"}


@dataclass(frozen=True)
class PgType:
    """A PostgreSQL type as the catalogue describes it.

    Attributes:
        name: ``pg_type.typname``; ``enum`` for any enumeration; of an array, its item's name.
        text: how SQL spells it: ``numeric(12,2)``.
        is_array: whether it is an array of `name`.
        precision, scale: of a numeric; None where it is unconstrained. `precision` is also how many digits of a
            second a time, timestamp or interval keeps; None where it keeps all six.
        plain: `text` without its modifier, ``numeric``; empty where it has none.
    """

    name: str
    text: str
    is_array: bool = False
    precision: int | None = None
    scale: int | None = None
    plain: str = ""
