"""Puts quoted values where a query names its parameters: ``:name`` or ``$1``.

PostgreSQL takes no bound parameters in the COPY that streams a query out, so values become
literals by the driver's own quoting; the query is read token by token, and texts, comments and
``::`` casts in it are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import psycopg
import sqlglot
from sqlglot.tokenizer_core import Token, TokenType

from flows._postgres import PostgresSide, literal
from transforms._words import did_you_mean


def bound(query: str, parameters: Mapping[str, Any], side: PostgresSide) -> str:
    """The query with a literal for each of its parameters.

    Raises:
        ExtractError: a parameter has no value, a value has no parameter, or the query cannot be read.
    """
    try:
        tokens = sqlglot.tokenize(query, read="postgres")
    except sqlglot.errors.SqlglotError as error:
        raise side.error("query", f"the query cannot be read: {error}. Check its quotes.") from error
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens.pop()
    if not tokens:
        raise side.error("query", "the query is empty. Write a SELECT.")
    if any(token.token_type is TokenType.SEMICOLON for token in tokens):
        raise side.error("query", "the query has several statements. Leave one SELECT.")
    text = query[: tokens[-1].end + 1]  # a comment behind it would swallow what is written around the query
    found = list(_parameters(tokens))
    values = dict(parameters) | {str(position): value for position, value in enumerate(parameters.values(), start=1)}
    for _start, _end, name in found:
        if name not in values:
            raise side.error("query", f"no value for the query's parameter {name!r}.{did_you_mean(name, parameters)}")
    used = {name for _start, _end, name in found}
    for position, name in enumerate(parameters, start=1):
        if name not in used and str(position) not in used:
            raise side.error("query", f"the query has no parameter ':{name}'. Remove it, or use it.")
    for start, end, name in reversed(found):
        text = f"{text[:start]}{_literal(name, values[name], side)}{text[end:]}"
    return text


def _literal(name: str, value: object, side: PostgresSide) -> str:
    if isinstance(value, str) and "\0" in value:
        raise side.error("query", f"the parameter {name!r} holds a zero byte, which PostgreSQL cannot keep. Remove it.")
    try:
        return literal(value)
    except psycopg.Error as error:
        kind = type(value).__name__
        advice = "Write a text, a number, a date or a list."
        raise side.error("query", f"the parameter {name!r} is a {kind}, which is no SQL value. {advice}") from error


def _parameters(tokens: list[Token]) -> Iterator[tuple[int, int, str]]:
    """Start, end and name of every parameter."""
    for mark, name in pairwise(tokens):
        adjacent = mark.end + 1 == name.start
        colon = mark.token_type is TokenType.COLON and name.text.isidentifier()
        dollar = mark.token_type is TokenType.PARAMETER and mark.text == "$" and name.token_type is TokenType.NUMBER
        if adjacent and (colon or dollar):
            yield mark.start, name.end + 1, name.text
