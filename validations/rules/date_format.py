"""Dates must be written in one format, and be real."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import polars as pl

from validations._errors import RuleError
from validations._rule import rule


@dataclass(frozen=True)
class _Token:
    """A part of a date: its digits as a regular expression, chrono's name for it, and Polars' for its length."""

    digits: str
    directive: str
    unit: str


# There is no year 0, neither in PostgreSQL nor in Python.
_YEAR: Final = _Token("(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)", "%Y", "1y")
_MONTH: Final = _Token("(?:0[1-9]|1[0-2])", "%m", "1mo")
_DAY: Final = _Token("(?:0[1-9]|[12][0-9]|3[01])", "%d", "1d")
_HOUR: Final = _Token("(?:[01][0-9]|2[0-3])", "%H", "1h")
_MINUTE: Final = _Token("[0-5][0-9]", "%M", "1m")
_SECOND: Final = _Token("[0-5][0-9]", "%S", "1s")
_PARTS: Final = (_YEAR, _MONTH, _DAY, _HOUR, _MINUTE, _SECOND)

#: As SQL (HH24, MI, SS), the web (HH, mm, ss) and strptime write them; longest first.
_TOKENS: Final = {
    "YYYY": _YEAR,
    "HH24": _HOUR,
    "MM": _MONTH,
    "DD": _DAY,
    "HH": _HOUR,
    "MI": _MINUTE,
    "mm": _MINUTE,
    "SS": _SECOND,
    "ss": _SECOND,
    **{part.directive: part for part in _PARTS},
}
_SPLIT: Final = re.compile("(" + "|".join(_TOKENS) + ")")
_LITERAL: Final = re.compile(r"[^A-Za-z%]*[TZ]?[^A-Za-z%]*")


@rule(accepts=("text", "date"))
def date_format(column: pl.Expr, dtype: pl.DataType, *, format: str) -> pl.Expr:
    """The value must be a real date, written in exactly this format.

    A *text* must consist of the format's parts, each with all its digits, and be in the calendar:
    ``2023-02-30``, ``2023-2-3`` and ``2023-02-03 `` are bad. A *date* or *datetime* is real by its type;
    it is good if the format can write it without loss. So ``YYYY-MM-DD`` suits every date, and a
    datetime only at midnight (in the column's time zone).

    In: one column of text, dates or datetimes.

    Args:
        format: ``YYYY``, ``MM``, ``DD``, ``HH`` or ``HH24``, ``mm`` or ``MI``, ``ss`` or ``SS``, each at most
            once, and signs between them; ``%Y-%m-%d`` and its like mean the same.
    Nulls: have no opinion.

    Raises:
        RuleError: at plan, when the format has a letter that means nothing, a part twice, or a day without
            its month and year; or, for dates and datetimes, a gap, as in ``YYYY-DD``.
    Source: the calendar is the proleptic Gregorian one from year 1, as in PostgreSQL and Python; times run from
        00:00:00 to 23:59:59.

    >>> frame = pl.DataFrame({"born": ["2024-02-29", "2023-02-29", "2024-2-9", None]})
    >>> frame.select(date_format(pl.col("born"), frame.schema["born"], format="YYYY-MM-DD"))["born"].to_list()
    [True, False, False, None]
    """
    pieces = _parsed(format)
    parts = {piece for piece in pieces if isinstance(piece, _Token)}
    if dtype == pl.String:
        return _written(column, pieces, parts)
    finest = max(_PARTS.index(part) for part in parts)
    if len(parts) <= finest:
        raise RuleError(
            f"{format!r} leaves out a part between the year and its finest, so it cannot write a {dtype}.",
            path=("parameters", "format"),
        )
    unit = _PARTS[finest].unit
    return column.dt.truncate("1d" if dtype == pl.Date and finest > _PARTS.index(_DAY) else unit) == column


def _parsed(text: str) -> list[_Token | str]:
    pieces: list[_Token | str] = []
    for piece in filter(None, _SPLIT.split(text)):
        if piece not in _TOKENS and not _LITERAL.fullmatch(piece):
            known = "YYYY, MM, DD, HH, mm, ss"
            raise _unreadable(text, f"{piece!r} means nothing. Known: {known}")
        if _TOKENS.get(piece) in pieces:
            raise _unreadable(text, f"{piece!r} is there twice")
        pieces.append(_TOKENS.get(piece, piece))
    if not any(isinstance(piece, _Token) for piece in pieces):
        raise _unreadable(text, "it has no part of a date. Known: YYYY, MM, DD, HH, mm, ss")
    if _DAY in pieces and not {_YEAR, _MONTH} <= set(pieces):
        raise _unreadable(text, "a day needs its month and year to be a real one")
    return pieces


def _written(column: pl.Expr, pieces: list[_Token | str], parts: set[_Token]) -> pl.Expr:
    digits = "".join(piece.digits if isinstance(piece, _Token) else re.escape(piece) for piece in pieces)
    good = column.str.contains(f"^{digits}$")
    if _DAY not in parts:
        return good
    # The calendar; alone it would not do, because it also reads "2024- 1-5" and "+024-01-05".
    directives = "".join(piece.directive if isinstance(piece, _Token) else piece for piece in pieces)
    kind = pl.Date if parts == {_YEAR, _MONTH, _DAY} else pl.Datetime("us")
    real = column.str.strptime(kind, directives, strict=False, cache=False).is_not_null()
    return good & (real | column.is_null())


def _unreadable(text: str, reason: str) -> RuleError:
    return RuleError(f"{text!r} is not a format of dates: {reason}.", path=("parameters", "format"))
