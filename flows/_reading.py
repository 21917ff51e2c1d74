"""From PostgreSQL to Polars: what every column becomes, how it is selected and decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from flows._types import EXACT_DIGITS, LIST_ITEMS, READ_AS_IS, PgType

#: Begins the text of a number with more decimals than were there when the run began.
MORE_DECIMALS = "more decimals: "
#: Types whose text is their value for every practical purpose: no warning is due.
READ_AS_TEXT = {"json", "jsonb", "uuid", "enum", "citext", "char"}


@dataclass(frozen=True)
class Reading:
    """How one column is read.

    Attributes:
        select: SQL for the column, with ``{0}`` where its quoted name goes, and ``{1}`` where a literal with its name.
        dtype: what it is in Polars.
        decode: makes that of what the driver hands over; None where it is that already.
        warning: what a person should know; None when the type survives whole.
    """

    select: str
    dtype: pl.DataType
    decode: Callable[[pl.Expr], pl.Expr] | None = None
    warning: str | None = None


def reading(pg: PgType) -> Reading:  # noqa: PLR0911 - one line a family
    """How a column of PostgreSQL type `pg` is read.

    numeric(p, s) becomes Decimal(p, s), exactly: it travels as text, because the driver's own
    conversion costs more and cannot be written back. Types without a Polars twin are read as text.
    """
    if pg.is_array:
        return _array(pg)
    if pg.name in READ_AS_IS:
        return Reading("{}", READ_AS_IS[pg.name])
    if pg.name == "numeric" and (dtype := _decimal(pg)) is not None:
        return Reading(_exact_numeric(pg), dtype, lambda column: column.cast(dtype))
    if pg.name == "oid":
        return Reading("{}::int8", pl.Int64())
    if pg.name == "money":
        cents = pl.Decimal(19, 2)
        return Reading("{}::numeric(19,2)::text", cents, lambda column: column.cast(cents))
    if pg.name == "inet":  # its cast to text adds the mask that it has none of
        return Reading(_in_its_own_words("{0}"), pl.String(), warning=f"is {pg.text} and is read as text")
    if pg.name in READ_AS_TEXT:
        return Reading("{}::text", pl.String())
    return Reading("{}::text", pl.String(), warning=f"is {pg.text} and is read as text")


def _decimal(pg: PgType) -> pl.Decimal | None:
    """The Decimal that holds every number of a numeric; None where none does."""
    scale = pg.scale or 0
    if pg.precision is None:
        return pl.Decimal(EXACT_DIGITS, scale)
    digits = max(pg.precision - min(scale, 0), scale)  # with a scale below zero, as many zeros stand at the end
    return pl.Decimal(digits, max(scale, 0)) if digits <= EXACT_DIGITS else None


def _in_its_own_words(value: str) -> str:
    return f"CASE WHEN {value} IS NOT NULL THEN format('%s', {value}) END"


def _exact_numeric(pg: PgType) -> str:
    # An unconstrained numeric got its scale from the values seen at the start of the run; a later one
    # with more digits must stop the run, not be rounded: its text then fails the cast to Decimal.
    if pg.precision is not None:
        return "{}::text"
    return f"CASE WHEN scale({{0}}) > {pg.scale or 0} THEN '{MORE_DECIMALS}' || {{0}}::text ELSE {{0}}::text END"


def _array(pg: PgType) -> Reading:
    if pg.name not in LIST_ITEMS:
        words = f"ARRAY(SELECT {_in_its_own_words('item')} FROM unnest({{0}}) AS item)"
        return Reading(
            _one_dimension(words if pg.name == "inet" else "{0}::text[]", "text[]"),
            pl.List(pl.String()),
            warning=f"is {pg.text} and is read as a list of texts",
        )
    return Reading(_one_dimension("{0}", pg.text), pl.List(READ_AS_IS[pg.name]))


def _one_dimension(value: str, text: str) -> str:
    # The cast of a text that is no array literal stops the query; it is only reached by such rows.
    return (
        "CASE WHEN {0} IS NULL THEN NULL "
        f"WHEN coalesce(array_ndims({{0}}), 1) = 1 AND coalesce(array_lower({{0}}, 1), 1) = 1 THEN {value} "
        f"ELSE ('column ' || {{1}} || ' holds an array of more than one dimension, or that does not begin at 1: ' "
        f"|| {{0}}::text)::{text} END"
    )
