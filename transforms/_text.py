"""Functions and patterns on text as PostgreSQL has them: positions count from 1, trims take blanks only.

Text compares by code point, as under PostgreSQL's C collation. Patterns (LIKE, ~) must be written in the
formula, because PostgreSQL's regular expressions are translated here, and refused where they differ.
"""

from __future__ import annotations

import re

import polars as pl
from sqlglot import exp

from transforms._casts import cast
from transforms._errors import FormulaError
from transforms._scope import Node, Scope, node, text
from transforms._values import Value, checked

_TEXT = pl.String()
_INTEGER = pl.Int32()


def _string(expr: pl.Expr) -> Value:
    return Value(expr, _TEXT)


def _count(expr: pl.Expr) -> Value:
    return Value(expr.cast(_INTEGER), _INTEGER)


@node(exp.Lower, parts="this", called="lower")
def _lower(scope: Scope, part: Node) -> Value:
    return _string(scope.of(part.this, "text").expr.str.to_lowercase())


@node(exp.Upper, parts="this", called="upper")
def _upper(scope: Scope, part: Node) -> Value:
    return _string(scope.of(part.this, "text").expr.str.to_uppercase())


@node(exp.Length, parts="this", called="length char_length")
def _length(scope: Scope, part: Node) -> Value:
    return _count(scope.of(part.this, "text").expr.str.len_chars())


@node(exp.Reverse, parts="this", called="reverse")
def _reverse(scope: Scope, part: Node) -> Value:
    return _string(scope.of(part.this, "text").expr.str.reverse())


@node(exp.Trim, parts="this expression position", called="trim btrim ltrim rtrim")
def _trim(scope: Scope, part: Node) -> Value:
    subject, characters = scope.of(part.this, "text").expr.str, part.args.get("expression")
    strip = {"LEADING": subject.strip_chars_start, "TRAILING": subject.strip_chars_end}.get(
        part.args.get("position") or "BOTH", subject.strip_chars
    )
    return _string(strip(scope.of(characters, "text").expr if characters else " "))


@node(exp.Substring, parts="this start length", called="substring")
def _substring(scope: Scope, part: Node) -> Value:
    subject = scope.of(part.this, "text").expr
    start = scope.of(part.args["start"], "integer").expr.cast(pl.Int64)
    first = pl.when(start < 1).then(1).otherwise(start)
    if part.args.get("length") is None:
        return _string(pl.when(start.is_not_null()).then(subject.str.slice(first - 1)))
    length = scope.of(part.args["length"], "integer").expr.cast(pl.Int64)
    count = start + length - first
    taken = subject.str.slice(first - 1, pl.when(count < 0).then(0).otherwise(count))
    known = start.is_not_null() & length.is_not_null()
    return _string(checked(pl.when(known).then(taken), length < 0, f"negative length in {text(part)}"))


@node(exp.Left, called="left")
def _left(scope: Scope, part: Node) -> Value:
    return _string(scope.of(part.this, "text").expr.str.head(scope.of(part.expression, "integer").expr))


@node(exp.Right, called="right")
def _right(scope: Scope, part: Node) -> Value:
    return _string(scope.of(part.this, "text").expr.str.tail(scope.of(part.expression, "integer").expr))


@node(exp.Pad, parts="this expression fill_pattern is_left", called="lpad rpad")
def _pad(scope: Scope, part: Node) -> Value:
    subject, length = scope.of(part.this, "text").expr, max(scope.whole(part.expression), 0)
    fill = scope.written(part.args["fill_pattern"]) if part.args.get("fill_pattern") else " "
    if len(fill) != 1:
        raise FormulaError(f"{text(part)!r}: the filling must be one character.")
    padded = subject.str.pad_start(length, fill) if part.args["is_left"] else subject.str.pad_end(length, fill)
    return _string(padded.str.slice(0, length))


@node(exp.StrPosition, parts="this substr", called="position strpos")
def _position(scope: Scope, part: Node) -> Value:
    subject, wanted = scope.of(part.this, "text").expr, scope.of(part.args["substr"], "text").expr
    before = subject.str.splitn(wanted, 2).struct.field("field_0").str.len_chars() + 1
    found = pl.when(wanted == "").then(1).when(subject.str.contains(wanted, literal=True)).then(before).otherwise(0)
    return _count(pl.when(subject.is_not_null() & wanted.is_not_null()).then(found))


@node(exp.SplitPart, parts="this delimiter part_index", called="split_part")
def _split_part(scope: Scope, part: Node) -> Value:
    subject, delimiter = scope.of(part.this, "text").expr, scope.written(part.args["delimiter"])
    index = scope.whole(part.args["part_index"])
    if index == 0:
        raise FormulaError(f"{text(part)!r}: parts count from 1, or from -1 at the end.")
    if not delimiter:
        return _string(subject if index in {1, -1} else pl.when(subject.is_not_null()).then(pl.lit("")))
    found = subject.str.split(delimiter).list.get(index - 1 if index > 0 else index, null_on_oob=True)
    return _string(pl.when(subject.is_not_null()).then(found.fill_null("")))


@node(exp.Replace, parts="this expression replacement", called="replace")
def _replace(scope: Scope, part: Node) -> Value:
    subject, new = (scope.of(part.args[each], "text").expr for each in ("this", "replacement"))
    old = scope.written(part.expression)
    replaced = subject.str.replace_all(old, new, literal=True) if old else subject
    return _string(pl.when(new.is_not_null()).then(replaced))


@node(exp.DPipe)
def _join(scope: Scope, part: Node) -> Value:
    left, right = scope(part.this), scope(part.expression)
    if "text" not in {left.kind, right.kind} and not {left.kind, right.kind} & {"unknown"}:
        raise FormulaError(f"{text(part)!r}: neither side is text. Cast one: {text(part.this)}::text.")
    return _string(cast(left, _TEXT).expr + cast(right, _TEXT).expr)


@node(exp.Concat, parts="expressions", called="concat")
def _concat(scope: Scope, part: Node) -> Value:
    return _string(pl.concat_str([_output(scope, each) for each in part.expressions], ignore_nulls=True))


@node(exp.ConcatWs, parts="expressions", called="concat_ws")
def _concat_ws(scope: Scope, part: Node) -> Value:
    separator, *rest = part.expressions
    parts = [_output(scope, each) for each in rest]
    return _string(pl.concat_str(parts, separator=scope.written(separator), ignore_nulls=True))


def _output(scope: Scope, part: Node) -> pl.Expr:
    # concat(true) is 't', where true::text is 'true'.
    value = scope(part)
    written = cast(value, _TEXT).expr
    return written.str.slice(0, 1) if value.kind == "boolean" else written


@node(exp.StartsWith, called="starts_with")
def _starts_with(scope: Scope, part: Node) -> Value:
    subject, prefix = scope.of(part.this, "text").expr, scope.of(part.expression, "text").expr
    return Value(subject.str.starts_with(prefix), pl.Boolean())


@node(exp.Like, parts="this expression negate")
def _like(scope: Scope, part: Node) -> Value:
    return _matches_like(scope, part, "\\", fold=False)


@node(exp.ILike, parts="this expression negate")
def _ilike(scope: Scope, part: Node) -> Value:
    return _matches_like(scope, part, "\\", fold=True)


@node(exp.Escape)
def _escape(scope: Scope, part: Node) -> Value:
    escape = scope.written(part.expression)
    if len(escape) > 1 or not isinstance(part.this, exp.Like | exp.ILike):
        raise FormulaError(f"{text(part)!r}: ESCAPE takes one character, after LIKE.")
    return _matches_like(scope, part.this, escape, fold=isinstance(part.this, exp.ILike))


def _matches_like(scope: Scope, part: Node, escape: str, *, fold: bool) -> Value:
    subject, pattern = scope.of(part.this, "text").expr, _like_pieces(scope.written(part.expression), escape)
    found = None if fold else _plain_like(subject, pattern)
    if found is None:
        body = "".join({"%": ".*", "_": "."}[piece] if wild else re.escape(piece) for wild, piece in pattern)
        found = subject.str.contains(f"(?s{'i' if fold else ''})^{body}$")
    return Value(~found if part.args.get("negate") else found, pl.Boolean())


def _like_pieces(pattern: str, escape: str) -> list[tuple[bool, str]]:
    """Each character of a LIKE pattern, with whether it is a wildcard."""
    pieces, rest = [], iter(pattern)
    for character in rest:
        if escape and character == escape:
            escaped = next(rest, None)
            if escaped is None:
                raise FormulaError(f"'{pattern}' must not end with the escape character.")
            pieces.append((False, escaped))
        else:
            pieces.append((character in "%_", character))
    return pieces


def _plain_like(subject: pl.Expr, pattern: list[tuple[bool, str]]) -> pl.Expr | None:
    """The patterns that need no regular expression: x, x%, %x and %x%."""
    first, last = pattern[:1] == [(True, "%")], len(pattern) > 1 and pattern[-1] == (True, "%")
    inner = pattern[int(first) : len(pattern) - int(last)]
    if any(wild for wild, _ in inner):
        return None
    plain = "".join(piece for _, piece in inner)
    if first:
        return subject.str.contains(plain, literal=True) if last else subject.str.ends_with(plain)
    return subject.str.starts_with(plain) if last else subject == plain


@node(exp.RegexpLike)
def _regexp(scope: Scope, part: Node) -> Value:
    return _matches_regexp(scope, part, fold=False)


@node(exp.RegexpILike)
def _regexp_fold(scope: Scope, part: Node) -> Value:
    return _matches_regexp(scope, part, fold=True)


def _matches_regexp(scope: Scope, part: Node, *, fold: bool) -> Value:
    pattern = regex(scope.written(part.expression))
    subject = scope.of(part.this, "text").expr
    return Value(subject.str.contains(f"(?{'i' if fold else ''}s){pattern}"), pl.Boolean())


#: One character, a class of them, or one run of either, perhaps at an end of the text: here "leftmost, longest"
#: (PostgreSQL) and "leftmost, first" (Polars) are the same match.
_ONE_ATOM = re.compile(r"\^?(?:\[[^\]]+\]|\\?.)\+?\$?", re.DOTALL)
_FIXED = re.compile(r"\^?[^\\\[\](){}*+?|.^$]+\$?")


@node(exp.RegexpReplace, parts="this expression replacement modifiers", called="regexp_replace")
def _regexp_replace(scope: Scope, part: Node) -> Value:
    pattern, flags = scope.written(part.expression), part.args.get("modifiers")
    options = scope.written(flags) if flags is not None else ""
    if not (_ONE_ATOM.fullmatch(pattern) or _FIXED.fullmatch(pattern)) or set(options) - set("gi"):
        raise FormulaError(
            f"{text(part)!r}: only a text, one character class, or one with + is replaced the same everywhere, "
            "with the flags 'g' and 'i'. Write: regexp_replace(x, '[^0-9]+', '', 'g')."
        )
    replacement = scope.written(part.args["replacement"])
    if "\\" in replacement:
        raise FormulaError(f"{text(part)!r}: the replacement must not contain '\\'.")
    subject = scope.of(part.this, "text").expr.str
    ready = f"(?{'i' if 'i' in options else ''}s){regex(pattern)}"
    new = replacement.replace("$", "$$")
    return _string(subject.replace_all(ready, new) if "g" in options else subject.replace(ready, new))


_ESCAPES = {"m": r"\b{start}", "M": r"\b{end}", "y": r"\b", "Y": r"\B", "Z": r"\z"}
_SAME = set("dDsSwWtnrfvA")


def regex(pattern: str) -> str:
    r"""Translate a PostgreSQL regular expression to Polars' dialect.

    PostgreSQL's ``\m \M \y`` are word boundaries and its ``\b`` is a backspace; look-around and
    back-references do not exist in Polars.

    Raises:
        FormulaError: it has a part that Polars does not know, or knows as something else.
    """
    translated = re.sub(r"\\(.)", lambda found: _escape_of(found[1], pattern), pattern, flags=re.DOTALL)
    plain = re.sub(r"\\.", "", pattern, flags=re.DOTALL)
    strange = re.search(r"\(\?(?!:)|^\*|&&|--|~~|\[[^\]]*\[(?!:)", plain)
    if strange:
        raise FormulaError(
            f"'{strange[0]}' in the pattern '{pattern}' does not mean the same everywhere. Leave it out."
        )
    try:
        pl.Series([""]).str.contains(translated)
    except pl.exceptions.ComputeError as error:
        reason = str(error).partition("error: ")[2].split("error: ")[-1].split("\n")[0]
        raise FormulaError(f"'{pattern}' is not a pattern that Polars understands: {reason}.") from error
    return translated


def _escape_of(character: str, pattern: str) -> str:
    if not character.isalnum() or character in _SAME:
        return f"\\{character}"
    if character not in _ESCAPES:
        hint = r" Word boundaries are \m, \M and \y." if character == "b" else ""
        raise FormulaError(f"'\\{character}' in the pattern '{pattern}' is not understood.{hint}")
    return _ESCAPES[character]
