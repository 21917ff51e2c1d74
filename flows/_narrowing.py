"""Which values fit a PostgreSQL type, asked of each value: for rows that are set aside instead of failing a load."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from dataclasses import replace

import polars as pl

from flows._reading import reading
from flows._types import EXACT_DIGITS, UTC, PgType
from flows._writing import DoesNotFit, Writing, writing

#: Makes an expression of an expression.
Change = Callable[[pl.Expr], pl.Expr]

_UUID = r"^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$"
_VARCHAR = re.compile(r"(?:character varying|varchar)\((\d+)\)")
_CHAR = re.compile(r"(?:character|char|bpchar)\((\d+)\)")
_TRUE, _FALSE = ("true", "t", "yes", "1"), ("false", "f", "no", "0")


def narrowing(dtype: pl.DataType, pg: PgType) -> Writing:
    """How a column of `dtype` is written into one of type `pg`, where not every value has to fit.

    Its `survives` says of each value whether it does. Numbers fit where they come back the same; texts where they
    are written as the server would write a number, a date, a timestamp or a truth; a text of a limited length
    where it is no longer.

    Raises:
        DoesNotFit: no value could.
    """
    try:
        written = writing(dtype, pg)
        return replace(written, survives=_all(written.survives, _bounded(dtype, pg)))
    except DoesNotFit:
        wanted = reading(pg).dtype
        endless = pg.name == "numeric" and pg.precision is None  # its decimals are not known
        found = None if pg.is_array or endless else _converted(dtype, wanted)
        if found is None:
            raise
    convert, same = found
    written = writing(wanted, pg)
    inside = _all(written.survives, _bounded(wanted, pg))

    def cast(column: pl.Expr) -> pl.Expr:
        return written.cast(convert(column))

    def survives(column: pl.Expr) -> pl.Expr:
        fits = same(column).fill_null(value=False)
        return column.is_null() | (fits if inside is None else fits & inside(convert(column)).fill_null(value=True))

    return replace(written, cast=cast, survives=survives)


def unshortened(dtype: pl.DataType, pg: PgType) -> Writing:
    """The same as `writing`, but for texts whose blanks the server would cut off without a word: they do not survive.

    Raises:
        DoesNotFit: as `writing`.
    """
    written, length = writing(dtype, pg), length_of(pg)
    if length is None or dtype != pl.String():
        return written
    return replace(written, survives=lambda column: column.str.len_chars().is_between(0, length)
                   | (column.str.strip_chars_end(" ").str.len_chars() > length))  # fmt: skip


def _all(*tests: Change | None) -> Change | None:
    """Whether a value survives all tests; null has no opinion."""
    given = [test for test in tests if test is not None]
    if not given:
        return None
    return lambda column: pl.all_horizontal(test(column).fill_null(value=True) for test in given)


def length_of(pg: PgType) -> int | None:
    """The characters that a ``varchar(n)`` takes; None where there is no limit."""
    found = _VARCHAR.fullmatch(pg.text)
    return int(found[1]) if found else None


def _bounded(dtype: pl.DataType, pg: PgType) -> Change | None:
    """What a value must hold to, where `writing` already knows how its dtype is written."""
    if pg.is_array or dtype == pl.Null():
        return None
    if pg.name in {"int2", "int4", "int8"}:
        return _survives_cast(reading(pg).dtype)
    if pg.name == "numeric" and pg.precision is not None and 0 <= (pg.scale or 0) <= pg.precision <= EXACT_DIGITS:
        return _survives_cast(pl.Decimal(pg.precision, pg.scale or 0))
    return _bounded_text(pg) if dtype == pl.String() else None


def _bounded_text(pg: PgType) -> Change | None:
    if pg.name == "uuid":
        return lambda column: column.is_null() | column.str.contains(_UUID)
    if (length := length_of(pg)) is not None:
        return lambda column: column.str.len_chars() <= length
    if pg.name == "bpchar" and (found := _CHAR.fullmatch(pg.text)):
        most = int(found[1])  # blanks at its end mean nothing
        return lambda column: column.is_null() | (column.str.strip_chars_end(" ").str.len_chars() <= most)
    return None


def _survives_cast(dtype: pl.DataType) -> Change:
    return lambda column: column.is_null() | column.cast(dtype, strict=False).is_not_null()


def _converted(dtype: pl.DataType, wanted: pl.DataType) -> tuple[Change, Change] | None:
    """How values of `dtype` become `wanted`, and which of them are the same afterwards."""
    if dtype == pl.String():
        return _parsed(wanted)
    clocks = isinstance(dtype, pl.Datetime) and (
        wanted == pl.Date() or (isinstance(wanted, pl.Datetime) and dtype.time_zone == wanted.time_zone)
    )
    if not (clocks or (dtype.is_numeric() and wanted.is_numeric())):
        return None

    def convert(column: pl.Expr) -> pl.Expr:
        if dtype.is_float() and isinstance(wanted, pl.Decimal):
            # Even where it need not be strict, Polars 2.1 stops at a number with too many digits.
            column = pl.when(column.abs() <= _largest(wanted)).then(column)
        return column.cast(wanted, strict=False)

    return convert, lambda column: convert(column).cast(dtype, strict=False) == column


def _largest(dtype: pl.Decimal) -> float:
    """The largest number that has no more digits; a float has 15 of its own, and what is beyond may be rounded up."""
    largest = (10**dtype.precision - 1) / 10**dtype.scale
    return largest if dtype.precision <= sys.float_info.dig else math.nextafter(largest, 0)


def _parsed(wanted: pl.DataType) -> tuple[Change, Change] | None:
    """How texts become `wanted`, and which of them are one."""
    convert = _from_text(wanted)
    if convert is None:
        return None
    if isinstance(wanted, pl.Decimal):  # a cast would round
        exact = rf"^[+-]?\d+(\.\d{{0,{wanted.scale}}}0*)?$"
        return convert, lambda column: column.str.contains(exact) & convert(column).is_not_null()
    return convert, lambda column: convert(column).is_not_null()


def _from_text(wanted: pl.DataType) -> Change | None:
    if wanted.is_numeric():
        return lambda column: column.cast(wanted, strict=False)
    if wanted == pl.Boolean():
        return lambda column: (
            pl.when(column.str.to_lowercase().is_in(_TRUE))
            .then(statement=True)
            .when(column.str.to_lowercase().is_in(_FALSE))
            .then(statement=False)
        )
    if wanted == pl.Date():
        return lambda column: column.str.to_date("%Y-%m-%d", strict=False)
    if wanted == pl.Datetime("us"):
        return lambda column: _timed(column, "%Y-%m-%d %H:%M:%S%.f")
    if wanted == UTC:
        return lambda column: _timed(column.str.replace(r"[zZ]$", "+00:00"), "%Y-%m-%d %H:%M:%S%.f%#z", "UTC")
    return None


def _timed(column: pl.Expr, shape: str, zone: str | None = None) -> pl.Expr:
    spaced = column.str.replace("T", " ", literal=True)
    return spaced.str.to_datetime(shape, time_unit="us", time_zone=zone, strict=False)
