"""Paths into JSON, in the words of RFC 9535: ``data.items``, ``$.data.items[*]``, ``$['@odata.nextLink']``."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

if TYPE_CHECKING:
    from jsonpath import JSONPath

#: Names with dots between them are paths: this much is known without the parser, which takes 0.1 s to import.
_PLAIN = re.compile(r"(?:\$\.)?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\[\*\])?", re.ASCII)


@cache
def compiled(path: str) -> JSONPath:
    """The path, ready to be used; the leading ``$.`` may be left out.

    Raises:
        ValueError: it is no path.
    """
    import jsonpath  # noqa: PLC0415 - 0.1 s that only pipelines with such paths need

    whole = path if path.startswith("$") else f"${path}" if path.startswith("[") else f"$.{path}"
    try:
        made = jsonpath.JSONPathEnvironment().compile(whole)
    except jsonpath.JSONPathError as error:
        said = str(error).split("\n", maxsplit=1)[0]
        raise ValueError(f"{path!r} is not a JSONPath: {said}. Write it like 'data.items' or $['odd.name'].") from error
    if not isinstance(made, jsonpath.JSONPath):
        raise ValueError(f"{path!r} is several JSONPaths. Write one of them.")  # noqa: TRY004 - a text was wanted
    return made


def _path(text: str) -> str:
    if not _PLAIN.fullmatch(text):
        compiled(text)
    return text


#: A JSONPath in a configuration.
JsonPath = Annotated[str, AfterValidator(_path)]


def value_at(path: str, json: Any) -> Any:
    """The first value that `path` finds; None where there is none."""
    return next((match.obj for match in compiled(path).finditer(json)), None)


def values_at(path: str, json: Any) -> list[Any]:
    """Every value that `path` finds."""
    return list(compiled(path).findall(json))
