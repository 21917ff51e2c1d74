"""Says in our words what pydantic found: one sentence for each mistake, at the place where the user wrote it.

What was found is shown as it was written, references unresolved; under a secret it is never shown.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from flows import _shape
from flows._secrets import without_passwords
from transforms._errors import Path
from transforms._words import did_you_mean

Mistake = tuple[Path, str]
_Found = tuple[Path, ErrorDetails]

_SHOWN_LENGTH = 60

#: The first word of pydantic's types of errors: what is wanted, and how to write it.
_WANTED = {
    "int": ("a whole number", "Write it like 3."),
    "float": ("a number", "Write it like 0.5."),
    "decimal": ("a number", "Write it like 0.5."),
    "bool": ("true or false", "Write it without quotes."),
    "string": ("a text", "Put it in quotes."),
    "date": ("a date", "Write it like 2026-01-31."),
    "datetime": ("a date with a time", "Write it like 2026-01-31T12:30:00Z."),
    "time": ("a time of day", "Write it like '12:30'."),
    **dict.fromkeys(
        ("list", "tuple", "set", "frozen"), ("a list", "Write it as [a, b], or begin each item with '- '.")
    ),
    **dict.fromkeys(("dict", "model", "mapping"), ("a mapping", "Write its keys below it, indented.")),
}
_KIND = re.compile(r"_(type|parsing|from_float|inexact|parsing_size)$")
_BOUNDS = {
    "greater_than": "is too small. It must be more than {gt:g}.",
    "greater_than_equal": "is too small. The least is {ge:g}.",
    "less_than": "is too large. It must be less than {lt:g}.",
    "less_than_equal": "is too large. The most is {le:g}.",
    "string_pattern_mismatch": "does not have the form {pattern}.",
    "string_too_short": "is too short. It needs {min_length} or more characters.",
    "too_short": "is too short. It needs {min_length} or more.",
    "string_too_long": "is too long. It can have {max_length} characters at most.",
    "too_long": "is too long. It can have {max_length} at most.",
    "union_tag_not_found": "has no {discriminator}, which says what else belongs there.",
}


def mistakes(error: ValidationError, raw: Any, value: Any, annotation: Any) -> list[Mistake]:
    """Every mistake that `error` holds, each with its path below `raw`.

    Args:
        error: of validating `value` as `annotation`.
        raw: the value as the user wrote it; what was found is shown from here.
        value: the same with its references resolved.
        annotation: what it was validated as.
    """
    by_path: dict[Path, list[ErrorDetails]] = defaultdict(list)
    for loc, detail in _chosen(list(_flat(error)), raw):
        by_path[loc].append(detail)
    above = {path[:length] for path in by_path for length in range(len(path))}
    meant = {
        (*path[:-1], guess[1])
        for path, details in by_path.items()
        if _is(details, "extra_forbidden")
        and (guess := re.search(r"Did you mean '(.*?)'", _unknown_key(path, value, annotation)))
    }
    return [
        _said(path, details, raw, value, annotation)
        for path, details in by_path.items()
        # one mistake, not two: a misspelt key is also a missing one, a list of bad items also too short
        if not (path in meant and _is(details, "missing")) and not (path in above and _is(details, "too_short"))
    ]


def _is(details: list[ErrorDetails], kind: str) -> bool:
    return details[0]["type"] == kind


def _flat(error: ValidationError, prefix: Path = ()) -> Iterator[_Found]:
    for detail in error.errors(include_url=False):
        cause = detail.get("ctx", {}).get("error")
        loc = (*prefix, *detail["loc"])
        if isinstance(cause, _shape.Mistakes):
            yield from _flat(cause.error, loc)
        else:
            at = "type" if detail["type"] == "union_tag_invalid" else detail.get("ctx", {}).get("at")
            yield (*loc, at) if at else loc, detail


def _chosen(found: list[_Found], raw: Any) -> list[_Found]:
    """Paths without pydantic's names for a union's branches; of the branches for one mapping or list, the best."""
    kept: list[_Found] = []
    unions: dict[Path, dict[Any, list[_Found]]] = defaultdict(lambda: defaultdict(list))
    for loc, detail in found:
        branch = _branch(loc, detail, raw)
        if branch is None:
            kept.append((loc, detail))
        else:
            unions[loc[:branch]][loc[branch]].append(((*loc[:branch], *loc[branch + 1 :]), detail))
    for path, branches in unions.items():
        is_container = isinstance(_value(raw, path), dict | list)
        best = [min(branches.values(), key=_misfit)] if is_container else branches.values()
        kept += _chosen([item for branch in best for item in branch], raw)
    return kept


def _branch(loc: Path, detail: ErrorDetails, raw: Any) -> int | None:
    """The index of the first part of `loc` that is not in `raw`."""
    value = raw
    last = len(loc) - (detail["type"] == "missing")
    for index, part in enumerate(loc[:last]):
        if not (isinstance(value, dict) and part in value) and _shape.under(value, part) is None:
            is_null_item = isinstance(value, list) and isinstance(part, int) and part < len(value)
            if not is_null_item:
                return index
        value = _shape.under(value, part)
    return None


def _misfit(branch: list[_Found]) -> tuple[int, int]:
    wrong_kind = sum(bool(_wanted(detail)) and len(branch) == 1 for _loc, detail in branch)
    other_keys = sum(detail["type"] in {"missing", "extra_forbidden"} for _loc, detail in branch)
    return wrong_kind * 100 + other_keys, len(branch)


def _said(path: Path, details: list[ErrorDetails], raw: Any, value: Any, annotation: Any) -> Mistake:
    if _is(details, "missing"):
        parent = path[:-1]
        wanted = ", ".join(_shape.needed(_shape.at(annotation, value, parent), _value(value, parent)))
        return parent, f"{str(path[-1])!r} is missing.{f' Needed: {wanted}.' if wanted else ''}"
    if _is(details, "extra_forbidden"):
        return path, _unknown_key(path, value, annotation)
    place = _shape.at(annotation, value, path)
    shown = _shown(_value(raw, path), hidden=place is None or _shape.hides_secrets(place))
    return path, without_passwords(_sentence(details, shown, path))


def _unknown_key(path: Path, value: Any, annotation: Any) -> str:
    known = _shape.keys(_shape.at(annotation, value, path[:-1]), _value(value, path[:-1]))
    return f"{str(path[-1])!r} is not a key here.{did_you_mean(str(path[-1]), known)}"


def _sentence(details: list[ErrorDetails], shown: str | None, path: Path) -> str:
    wanted = list(dict.fromkeys(filter(None, map(_wanted, details))))
    if wanted:
        kinds = " or ".join(kind for kind, _hint in wanted)
        is_quotable = wanted[0][0] != "a text" or shown not in {"a list", "a mapping"}
        hint = f" {wanted[0][1]}" if len(wanted) == 1 and is_quotable else ""
        return f"{shown} is not {kinds}.{hint}" if shown else f"the value is missing. Write {kinds}, or remove the key."
    detail = details[0]
    kind, facts = detail["type"], detail.get("ctx", {})
    if kind in {"literal_error", "enum", "union_tag_invalid"}:
        expected = str(facts.get("expected") or facts["expected_tags"])
        return f"{shown or 'nothing'} is not {_noun(path)}.{_known(expected, shown)}"
    if kind in _BOUNDS:
        return f"{shown} {_BOUNDS[kind].format(**facts)}"
    if kind == "value_error":
        said = str(facts["error"])
        return said if said.endswith((".", "?")) else f"{said}."
    if kind in {"mistake", "secret_type", "secret_reference"}:
        return detail["msg"]
    return f"{shown or 'nothing'} does not work here: {detail['msg'][0].lower()}{detail['msg'][1:]}."


def _wanted(detail: ErrorDetails) -> tuple[str, str] | None:
    return _WANTED.get(detail["type"].partition("_")[0]) if _KIND.search(detail["type"]) else None


def _known(expected: str, shown: str | None) -> str:
    names = re.findall(r"'([^']*)'", expected) or [expected]
    return did_you_mean((shown or "").strip("'"), names)


def _noun(path: Path) -> str:
    """What a key holds, in words: ``an operator``, ``a write mode``."""
    name = path[-1] if path and isinstance(path[-1], str) else ""
    if not name or name.startswith("on_"):
        return "known here"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name.replace('_', ' ')}"


def _value(raw: Any, path: Path) -> Any:
    for part in path:
        raw = _shape.under(raw, part)
    return raw


def _shown(value: Any, *, hidden: bool) -> str | None:
    """A value as messages quote it; None for nothing."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if hidden or value is None:
        return None if value is None else "the value"
    if isinstance(value, bool):
        value = str(value).lower()
    text = value.isoformat() if isinstance(value, date) else str(value)
    return repr(text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}...")
