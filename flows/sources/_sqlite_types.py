"""What SQLite's columns are: by what they are declared, by what is in them, or by what a person says.

SQLite keeps any value in any column; a declared type is a wish. So a type here is also a condition that each
value must meet: one that does not is put aside, and stops the run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from flows._dialects import SQLITE
from flows.sources._pushdown import Compared
from transforms._types import DIGITS, TIMESTAMP, TIMESTAMPTZ

#: Of a decimal, that every binary float tells apart.
_EXACT_DIGITS = 15
#: Of the years 1 and 9999, since 1970.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_DAY = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC|DEC|DECIMAL_?TEXT)\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)")
#: Parts of declared types, and what they wish for; the first that is found says it, the rest is told by its values.
_DECLARED: tuple[tuple[str, pl.DataType], ...] = (
    (r"TIMESTAMPTZ|WITH TIME ?ZONE|DATETIMEOFFSET", TIMESTAMPTZ),
    ("DATETIME|TIMESTAMP", TIMESTAMP),
    ("DATE", pl.Date()),
    ("INTERVAL", pl.String()),
    ("TIME", pl.Time()),
    ("BOOL", pl.Boolean()),
    ("CHAR|CLOB|TEXT|STRING|UUID|GUID|JSON|XML|ENUM", pl.String()),
    ("INT", pl.Int64()),
    ("BLOB|BINARY|BYTEA|IMAGE", pl.Binary()),
    ("REAL|FLOA|DOUB", pl.Float64()),
)


@dataclass(frozen=True)
class Stored:
    """How values of one type are stored and taken.

    Attributes:
        dtype: what they are in Polars.
        first: a literal of the type that the driver is to take them for.
        fits: SQL that is true of a value that is one; ``{0}`` is the column.
        take: SQL for such a value.
        decode: makes `dtype` of what is taken, where its text does not.
    """

    dtype: pl.DataType
    first: str
    fits: str
    take: str = "{0}"
    decode: Callable[[pl.Expr], pl.Expr] | None = None


def _is_one(value: pl.Expr) -> pl.Expr:
    return value == 1


def declared(text: str) -> pl.DataType | None:
    """What a column is declared as; None where its values have to say."""
    upper = text.upper()
    if decimal := _DECIMAL.search(upper):
        precision, scale = int(decimal[1]), int(decimal[2] or 0)
        return pl.Decimal(precision, scale) if scale <= precision <= DIGITS and precision else None
    return next((dtype for pattern, dtype in _DECLARED if re.search(pattern, upper)), None)


def found(kinds: Iterable[str]) -> pl.DataType | None:
    """What a column is that holds values of these storage classes; None where they are of several kinds."""
    held = set(kinds)
    if held <= {"text"}:
        return pl.String()
    if held == {"integer"}:
        return pl.Int64()
    if held <= {"integer", "real"}:
        return pl.Float64()
    return pl.Binary() if held == {"blob"} else None


def natural(dtype: pl.DataType) -> Stored:  # noqa: PLR0911 - one a type
    """How SQLite stores a type where nobody says otherwise."""
    text = "typeof({0}) = 'text'"
    match dtype:
        case pl.Int64():
            return Stored(dtype, "0", "typeof({0}) = 'integer'")
        case pl.Boolean():
            return Stored(dtype, "0", "typeof({0}) = 'integer' AND {0} IN (0, 1)", decode=_is_one)
        case pl.Float64():  # whole numbers beyond 2^53 have no exact float
            whole = "typeof({0}) = 'integer' AND {0} BETWEEN -9007199254740992 AND 9007199254740992"
            return Stored(dtype, "0.0", f"(typeof({{0}}) = 'real' OR {whole})", "CAST({0} AS REAL)")
        case pl.String():
            return Stored(dtype, "''", text)
        case pl.Binary():
            return Stored(dtype, "x''", "typeof({0}) = 'blob'")
        case pl.Decimal():
            return _decimal(dtype)
        case pl.Date():
            return Stored(dtype, "''", f"{text} AND {{0}} GLOB '{_DAY}'")
        case pl.Time():
            return Stored(dtype, "''", f"{text} AND {{0}} GLOB '[0-2][0-9]:[0-5][0-9]*' AND NOT {{0}} GLOB '*[-+Zz]*'")
    zone = "" if dtype == TIMESTAMPTZ else " AND NOT substr({0}, 11) GLOB '*[-+Zz]*'"
    return Stored(dtype, "''", f"{text} AND {{0}} GLOB '{_DAY}*'{zone}")


def overridden(dtype: pl.DataType) -> Stored:
    """How a type is taken that a person wants, of whatever is stored: by its text."""
    if isinstance(dtype, pl.Float64 | pl.Binary | pl.Decimal):
        return natural(dtype)
    take = "CASE typeof({0}) WHEN 'integer' THEN CAST({0} AS TEXT) WHEN 'real' THEN format('%!.17g', {0}) ELSE {0} END"
    return Stored(dtype, "''", "typeof({0}) <> 'blob'", take)


def _decimal(dtype: pl.Decimal) -> Stored:
    """Exact digits: of a text, of a whole number, and of a float with so few that no other decimal is as near."""
    written = f"format('%.{dtype.scale}f', {{0}})"
    exact = f"abs({{0}}) < 1e{_EXACT_DIGITS - dtype.scale} AND CAST({written} AS REAL) = {{0}}"
    fits = f"(typeof({{0}}) IN ('integer', 'text') OR typeof({{0}}) = 'real' AND {exact})"
    take = f"CASE typeof({{0}}) WHEN 'integer' THEN CAST({{0}} AS TEXT) WHEN 'real' THEN {written} ELSE {{0}} END"
    return Stored(dtype, "''", fits, take)


def compared(name: str, stored: Stored, wish: str, *, is_utf8: bool) -> Compared:
    """What of a column SQLite answers as Polars does.

    Args:
        name: its quoted name.
        stored: how it is stored; where a person wants another type, only nulls are compared.
        wish: its declared type, which decides what SQLite makes of a value that it is compared with.
        is_utf8: whether texts are ordered by their bytes in UTF-8.
    """
    if stored != natural(stored.dtype):
        return Compared(name)
    binary = f"{name} COLLATE BINARY"
    affinity = wish.upper()
    match stored.dtype:
        case pl.Int64():
            return Compared(name, "ordered", lambda value: str(value) if type(value) is int else None)
        case pl.Boolean():
            return Compared(name, "condition", lambda value: str(int(value)) if type(value) is bool else None)
        case pl.Date():
            return Compared(binary, "ordered", lambda value: SQLITE.literal(value) if type(value) is date else None)
        case pl.String() if not wish or (re.search("CHAR|CLOB|TEXT|BLOB", affinity) and "INT" not in affinity):
            return Compared(binary, "ordered" if is_utf8 else "equal", _text)
    return Compared(name)


def _text(value: object) -> str | None:
    return SQLITE.literal(value) if isinstance(value, str) else None


def moment(seconds: int) -> str:
    """A text that stands for a second since 1970, as near as four digits of a year come."""
    within = max(_FIRST_SECOND, min(seconds, _LAST_SECOND))
    return SQLITE.literal((datetime(1970, 1, 1) + timedelta(seconds=within)).isoformat(" "))  # noqa: DTZ001 - no zone
