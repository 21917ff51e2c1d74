"""Sets single values of the configuration from outside: variables, and ``--set key=value``.

    LOCKGATE_PIPELINES__CUSTOMER_DATA_ETL__SOURCE__CONNECTION_STRING=postgresql://...
    --set source.connection_string=postgresql://...        where there is one pipeline
    --set customer_data_etl.transformations[0].parameters.condition.value=10

Names are matched without regard to case, and ``-`` as ``_``; items of a list by their number. A text or a
secret is taken as it is, any other value is read as YAML. What matches nothing is a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flows import _shape
from flows._errors import Problem
from flows._yaml import Document, scalar
from transforms._errors import Path
from transforms._words import did_you_mean

_PREFIX = "LOCKGATE_PIPELINES__"


@dataclass(frozen=True)
class Override:
    """One value from outside.

    Attributes:
        origin: what errors call it: the variable's name, or ``--set key``.
        names: the keys and numbers below ``pipelines``, as they were written.
        text: the value, as it was written.
    """

    origin: str
    names: tuple[str, ...]
    text: str


def given(options: Mapping[str, str], environ: Mapping[str, str]) -> list[Override]:
    """Every override, variables first, so that options win; types first, because they decide which keys there are."""
    variables = [
        Override(name, tuple(name[len(_PREFIX) :].split("__")), text)
        for name, text in sorted(environ.items())
        if name.upper().startswith(_PREFIX)
    ]
    options_ = [Override(f"--set {key}", tuple(re.findall(r"[^.\[\]]+", key)), text) for key, text in options.items()]
    return sorted([*variables, *options_], key=lambda override: override.names[-1:] not in {("type",), ("TYPE",)})


def applied(document: Document, overrides: list[Override], annotation: Any) -> Iterator[Problem]:
    """Set the values in `document`, and yield a problem for each that matches nothing.

    Args:
        document: changed in place; the lines of what is set become the overrides' origins.
        overrides: in the order in which they are set.
        annotation: what stands under ``pipelines``, for keys that are not there yet.
    """
    for override in overrides:
        try:
            _set(document, override, annotation)
        except LookupError as error:
            yield Problem(str(error.args[0]), where=override.origin)


def _set(document: Document, override: Override, annotation: Any) -> None:
    names = _from_pipeline(document, override)
    if not names:
        raise LookupError("no key is named. Write it like 'source.connection_string=...'.")
    value: Any = document.data["pipelines"]
    path: Path = ("pipelines",)
    for name in names:
        key = _matched(name, value, annotation, path)
        annotation, value = _shape.child(annotation, value, key), _shape.under(value, key)
        path = (*path, key)
    _put(document.data, path, _read(override.text, annotation))
    _note(document, path, override.origin)


def _put(container: Any, path: Path, value: Any) -> None:
    for key in path[:-1]:
        if not isinstance(_shape.under(container, key), dict | list):
            container[key] = {}
        container = container[key]
    container[path[-1]] = value


def _from_pipeline(document: Document, override: Override) -> tuple[str, ...]:
    """The names with the pipeline's in front; an option may leave it out where there is only one pipeline."""
    names, pipelines = override.names, document.data["pipelines"]
    if not override.origin.startswith("--set"):
        return names
    if names[:1] == ("pipelines",):
        return names[1:]
    if not names or any(_folded(names[0]) == _folded(name) for name in pipelines):
        return names
    if len(pipelines) > 1:
        raise LookupError(f"which pipeline? Write its name first.{did_you_mean(names[0], map(str, pipelines))}")
    return (str(next(iter(pipelines))), *names)


def _matched(name: str, value: Any, annotation: Any, path: Path) -> str | int:
    """The key of `value` that `name` means."""
    if isinstance(value, list):
        if name.isdecimal() and int(name) < len(value):
            return int(name)
        raise LookupError(f"{name!r} is not an item of {path[-1]!r}, which has {len(value)}, counted from 0.")
    known = [*(value if isinstance(value, dict) else ()), *_shape.keys(annotation, value)]
    for key in known:
        if _folded(str(key)) == _folded(name):
            return key  # type: ignore[no-any-return]  # a key of YAML
    hint = did_you_mean(_folded(name), set(map(str, known)))
    raise LookupError(f"{name!r} matches nothing under {str(path[-1])!r}.{hint}")


def _read(text: str, annotation: Any) -> Any:
    """The value that `text` means there."""
    if annotation is None or not _shape.is_text(annotation):
        return scalar(text)
    value = scalar(text) if _shape.is_container(annotation) else text
    return value if isinstance(value, list | dict) else text


def _note(document: Document, path: Path, origin: str) -> None:
    """Let errors at `path` and below name the override instead of the file's line."""
    place = tuple(map(str, path))
    for known in [known for known in document.lines if known[: len(place)] == place]:
        del document.lines[known]
    document.lines[place] = origin


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_")
