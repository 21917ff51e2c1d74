"""Puts quoted values where a query names its parameters: ``:name`` or ``$1``.

PostgreSQL takes no bound parameters in the COPY that streams a query out, so values become
literals by the driver's own quoting; the query is read token by token, and texts, comments and
``::`` casts in it are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import sqlglot
from sqlglot.tokenizer_core import Token, TokenType

from flows._postgres import Side, literal
from transforms._words import did_you_mean


def bound(query: str, parameters: Mapping[str, Any], side: Side) -> str:
    """The query with a literal for each of its parameters.

    Raises:
        ExtractError: a parameter has no value, a value has no parameter, or the query cannot be read.
    """
    text = query.strip().rstrip(";")
    try:
        found = list(_parameters(sqlglot.tokenize(text, read="postgres")))
    except sqlglot.errors.SqlglotError as error:
        raise side.error("query", f"the query cannot be read: {error}. Check its quotes.") from error
    values = dict(parameters) | {str(position): value for position, value in enumerate(parameters.values(), start=1)}
    for _start, _end, name in found:
        if name not in values:
            raise side.error("query", f"no value for the query's parameter {name!r}.{did_you_mean(name, parameters)}")
    used = {name for _start, _end, name in found}
    for position, name in enumerate(parameters, start=1):
        if name not in used and str(position) not in used:
            raise side.error("query", f"the query has no parameter ':{name}'. Remove it, or use it.")
    for start, end, name in reversed(found):
        text = f"{text[:start]}{literal(values[name])}{text[end:]}"
    return text


def _parameters(tokens: list[Token]) -> Iterator[tuple[int, int, str]]:
    """Start, end and name of every parameter."""
    for mark, name in pairwise(tokens):
        adjacent = mark.end + 1 == name.start
        colon = mark.token_type is TokenType.COLON and name.text.isidentifier()
        dollar = mark.token_type is TokenType.PARAMETER and mark.text == "$" and name.token_type is TokenType.NUMBER
        if adjacent and (colon or dollar):
            yield mark.start, name.end + 1, name.text
