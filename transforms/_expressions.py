"""SQL expressions in PostgreSQL's sense, as Polars expressions: ``current_date - created_at``.

The text is parsed, never evaluated: every part of it must be one that is known to give
PostgreSQL's answer in Polars, and what PostgreSQL does differently is written so that it comes
out as PostgreSQL says. The rest is refused, with a word on what would work.

Where we differ, knowingly:
    - What PostgreSQL answers with an error (division by zero, a text that is no number, an
      overflow of whole numbers) stops the run; a double that overflows becomes infinite.
    - numeric has at most 38 digits and, where PostgreSQL sets no limit, 18 decimals; a quotient has 16.
    - sqrt, power, exp, ln and log calculate in double precision also for numeric.
    - Text sorts by code point. The session's time zone is UTC.
"""

from __future__ import annotations

from functools import lru_cache

import polars as pl
import sqlglot
from sqlglot import exp
from sqlglot.tokenizer_core import TokenType

from transforms import _arithmetic, _logic, _moments, _numbers, _text, _windows  # noqa: F401 - each registers its parts
from transforms._errors import FormulaError
from transforms._moments import clock
from transforms._scope import Node, Scope
from transforms._text import regex
from transforms._values import Value, convert

__all__ = ["clock", "condition", "expression", "is_row_local", "regex"]


_TOO_DEEP = "the formula is nested too deeply. Split it into several."


def expression(text: str, schema: pl.Schema) -> pl.Expr:
    """Translate one SQL expression over the columns of `schema`.

    >>> frame = pl.LazyFrame({"price": [7, 9], "parts": [2, None]})
    >>> frame.select(each=expression("price / parts", frame.collect_schema())).collect()["each"].to_list()
    [3, None]

    Raises:
        FormulaError: it is not understood, or its types do not fit; the message quotes what.
        UnknownColumnError: it names a column that is not there.
    """
    value = _translated(text, schema)
    if value.months:
        raise FormulaError(f"{text!r} is an interval of months, which no column can hold.")
    return (convert(value, pl.String()) if value.kind == "unknown" else value).expr


def condition(text: str, schema: pl.Schema) -> pl.Expr:
    """Translate one SQL expression that must be true or false.

    Raises:
        FormulaError: it is not understood, or is of another type.
        UnknownColumnError: it names a column that is not there.
    """
    value = _translated(text, schema)
    if value.kind not in {"boolean", "unknown"}:
        raise FormulaError(f"{text!r} is {value.called}, and a condition is true or false. Compare it: {text} = ...")
    return convert(value, pl.Boolean()).expr


def is_row_local(text: str) -> bool:
    """Whether the result for a row depends on that row alone: no window in it.

    Raises:
        FormulaError: it is not an expression.
    """
    return _parse(text).find(exp.Window, exp.AggFunc) is None


def _translated(text: str, schema: pl.Schema) -> Value:
    try:
        return Scope(schema)(_parse(text))
    except RecursionError as error:
        raise FormulaError(_TOO_DEEP) from error


@lru_cache(maxsize=256)
def _parse(text: str) -> Node:
    try:
        tokens = sqlglot.tokenize(text, read="postgres")
        parts = [part for part in sqlglot.parse(text, read="postgres") if part is not None]
    except RecursionError as error:
        raise FormulaError(_TOO_DEEP) from error
    except sqlglot.errors.SqlglotError as error:
        raise FormulaError(f"{text!r} cannot be read as SQL{_near(error)}.") from error
    if not parts:
        raise FormulaError("the formula is empty. Write one SQL expression over the columns of a row.")
    if any(token.comments for token in tokens):
        raise FormulaError(f"{text!r} has a comment in it. Leave it out.")
    if len(parts) > 1 or any(token.token_type is TokenType.SEMICOLON for token in tokens):
        raise FormulaError(f"{text!r} is more than one expression: leave out the ';'.")
    return parts[0]


def _near(error: Exception) -> str:
    details = getattr(error, "errors", None)
    if not details or not details[0].get("highlight"):
        return ""
    return f": {details[0]['highlight']!r} was not expected"
