"""Puts quoted values where a query names its parameters: ``:name`` or ``$1``.

PostgreSQL takes no bound parameters in the COPY that streams a query out, and no database takes them in
the query of a view, so values become literals by the dialect's own quoting; the query is read token by
token, and texts, comments, ``::`` casts and ``{'key': value}`` in it are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sqlglot
from sqlglot.tokenizer_core import Token, TokenType

from flows._dialects import Dialect
from flows._sides import Side
from transforms._words import did_you_mean

#: Writes a value as a literal. Raises ValueError with what it is, where there is no such literal.
Literal = Callable[[object], str]
_POSITION = re.compile(r"\$\d+")
#: Behind these a colon divides: a key from its value, the ends of a slice.
_VALUES = {TokenType.STRING, TokenType.NUMBER, TokenType.R_BRACKET, TokenType.R_PAREN}


def bound(query: str, parameters: Mapping[str, Any], side: Side, dialect: Dialect, literal: Literal) -> str:
    """The query with a literal for each of its parameters.

    Raises:
        ExtractError: a parameter has no value, a value has no parameter, or the query cannot be read.
    """
    try:
        tokens = sqlglot.tokenize(query, read=dialect.grammar)
    except sqlglot.errors.SqlglotError as error:
        raise side.error("query", f"the query cannot be read: {error}. Check its quotes.") from error
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens.pop()
    if not tokens:
        raise side.error("query", "the query is empty. Write a SELECT.")
    if any(token.token_type is TokenType.SEMICOLON for token in tokens):
        raise side.error("query", "the query has several statements. Leave one SELECT.")
    text = query[: tokens[-1].end + 1]  # a comment behind it would swallow what is written around the query
    found = sorted(_parameters(tokens))
    values = dict(parameters) | {str(position): value for position, value in enumerate(parameters.values(), start=1)}
    for _start, _end, name in found:
        if name not in values:
            raise side.error("query", f"no value for the query's parameter {name!r}.{did_you_mean(name, parameters)}")
    used = {name for _start, _end, name in found}
    for position, name in enumerate(parameters, start=1):
        if name not in used and str(position) not in used:
            raise side.error("query", f"the query has no parameter ':{name}'. Remove it, or use it.")
    for start, end, name in reversed(found):
        text = f"{text[:start]}{_written(name, values[name], side, literal)}{text[end:]}"
    return text


def _written(name: str, value: object, side: Side, literal: Literal) -> str:
    try:
        return literal(value)
    except ValueError as error:
        raise side.error("query", f"the parameter {name!r} {error}") from error


def _parameters(tokens: list[Token]) -> Iterator[tuple[int, int, str]]:
    """Start, end and name of every parameter."""
    for before, mark, name in zip([None, *tokens], tokens, tokens[1:], strict=False):
        adjacent = mark.end + 1 == name.start
        divides = before is not None and before.token_type in _VALUES
        colon = mark.token_type is TokenType.COLON and name.text.isidentifier() and not divides
        dollar = mark.token_type is TokenType.PARAMETER and mark.text == "$" and name.token_type is TokenType.NUMBER
        if adjacent and (colon or dollar):
            yield mark.start, name.end + 1, name.text
    for token in tokens:  # some grammars take both for one word
        if token.token_type is TokenType.VAR and _POSITION.fullmatch(token.text):
            yield token.start, token.end + 1, token.text[1:]
