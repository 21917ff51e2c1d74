"""``show``: one pipeline as it is configured, every key with the place that set it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

from flows._cli._columns import aligned
from flows._cli._verb import Asked, name_argument, verb
from flows._errors import Locate
from transforms._errors import Path

_PLAIN = re.compile(r"(?!(?:true|false|null|yes|no|on|off)$)[A-Za-z_][\w.-]*", re.IGNORECASE)

_LINE = 60  # characters; a mapping that is longer is written over several lines


@verb("show")
@name_argument
def command(asked: Asked, name: str) -> int:
    """Show the pipeline NAME as it is configured, with the file and line of every key.

    Values from LOCKGATE_PIPELINES__... variables are in it, and secrets are stars.
    """
    pipeline = asked.pipeline(name)
    written, locate = _written(asked, name)
    lines = [(text, f"# {locate(path)}") for text, path in _lines(written, (), "  ")]
    facts = {"name": name, "where": pipeline.locate(()), "version": pipeline.version, "pipeline": written}
    return asked.answer(facts, aligned([(f"{name}:", f"# {pipeline.locate(())}"), *lines]))


def _written(asked: Asked, name: str) -> tuple[dict[str, Any], Locate]:
    """The keys as they were written, overrides among them, secrets as stars; and where each of them stands."""
    from flows import _overrides, _yaml  # noqa: PLC0415 - a mistyped option is not worth half a second
    from flows._keys import PipelineKeys  # noqa: PLC0415 - as above
    from flows._plain import canonical  # noqa: PLC0415 - as above

    document = _yaml.read(asked.file)
    list(_overrides.applied(document, _overrides.given({}, os.environ), dict[str, PipelineKeys]))
    written: dict[str, Any] = canonical(document.data["pipelines"][name], PipelineKeys)
    for named in {"sources", "targets"} & set(written):
        written[named] = dict(written[named])
    return written, lambda path: document.locate(("pipelines", name, *path))


def _lines(value: Any, path: Path, margin: str) -> Iterator[tuple[str, Path]]:
    """Lines of YAML, each with the path it is about."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        here = (*path, key)
        label = f"{_scalar(key)}:" if isinstance(value, dict) else "-"
        flow = _flow(inner)
        nested = isinstance(inner, dict) or (isinstance(inner, list) and any(isinstance(each, dict) for each in inner))
        if not nested or len(flow) <= _LINE:
            yield f"{margin}{label} {flow}", here
        elif isinstance(value, dict):
            yield f"{margin}{label}", here
            yield from _lines(inner, here, margin + "  ")
        else:  # a mapping in a list: its first key stands behind the dash
            (first, where), *others = _lines(inner, here, margin + "  ")
            yield f"{margin}- {first.lstrip()}", where
            yield from others


def _flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_scalar(key)}: {_flow(inner)}' for key, inner in value.items())}}}"
    return f"[{', '.join(map(_flow, value))}]" if isinstance(value, list) else _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)
