"""Raw values with their references resolved, and raw values as a text that is the same for the same meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from flows import _shape
from flows._errors import SecretError
from flows._references import MalformedReferenceError, Reference, parts
from flows._secrets import STARS, Secret
from flows._yaml import scalar
from transforms._errors import Path

_ONLY_SECRETS = (
    "'{}' is read where a secret is wanted, such as 'connection_string', and nowhere else. "
    "Write the value, or ${{NAME}} for a variable of the environment."
)


def resolved(
    value: Any, annotation: Any, environ: Mapping[str, str], problem: Callable[[Path, str], None], path: Path = ()
) -> Any:
    """`value` with the references in its texts resolved from `environ`; those in secrets stay as they are.

    A value that is one reference and nothing else is read as YAML where not a text is wanted:
    ``max_retries: ${RETRIES}`` is a number.

    Args:
        value: as the user wrote it.
        environ: where ``${NAME}`` is looked up.
        path: where `value` stands, for `problem`.
        annotation: what `value` will be validated as; tells where secrets and texts are.
        problem: told of every reference that cannot be resolved.
    """
    if isinstance(value, dict):
        kind = resolved(value.get("type"), str, environ, lambda *_: None)  # decides which keys are secrets
        chosen = {**value, "type": kind} if kind else value
        kinds = {key: _shape.child(annotation, chosen, key) for key in value}
        kinds["type"] = kinds.get("type") or str
        return {key: resolved(inner, kinds[key], environ, problem, (*path, key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [
            resolved(inner, _shape.child(annotation, value, index), environ, problem, (*path, index))
            for index, inner in enumerate(value)
        ]
    if not isinstance(value, str) or annotation is None or _shape.is_secret(annotation):
        return value
    try:
        return _text(value, annotation, environ)
    except (SecretError, MalformedReferenceError) as error:
        problem(path, str(error))
        return value


def canonical(value: Any, annotation: Any) -> Any:
    """`value` in JSON's kinds, with the order of keys kept only where it means something, and no secret in it."""
    if isinstance(value, dict):
        inner = {str(key): canonical(item, _shape.child(annotation, value, key)) for key, item in value.items()}
        for ordered in ("sources", "targets"):  # the steps start from the first; the first is published first
            if isinstance(inner.get(ordered), dict):
                inner[ordered] = list(inner[ordered].items())
        return inner
    if isinstance(value, list):
        return [canonical(item, _shape.child(annotation, value, index)) for index, item in enumerate(value)]
    if isinstance(value, str) and annotation is not None and _shape.is_secret(annotation):
        return _shown(value)
    return value.isoformat() if isinstance(value, date) else value


def _text(text: str, annotation: Any, environ: Mapping[str, str]) -> Any:
    found = parts(text)
    for part in found:
        if isinstance(part, Reference) and part.kind in {"block", "variable"}:
            raise SecretError(part.text, _ONLY_SECRETS.format(part.text))
    plain = "".join(_value(part, environ) for part in found)
    is_reference = len(found) == 1 and isinstance(found[0], Reference) and found[0].kind == "environment"
    return scalar(plain) if is_reference and not _shape.is_text(annotation) else plain


def _value(part: str | Reference, environ: Mapping[str, str]) -> str:
    if isinstance(part, str):
        return part
    return part.value(environ) if part.kind == "environment" else part.text  # other braces are the text's own


def _shown(text: str) -> str:
    try:
        return Secret(text).shown
    except MalformedReferenceError:
        return STARS
