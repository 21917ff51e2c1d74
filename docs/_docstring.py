"""A docstring in its parts: the house writes them all in one form, so they can be read again."""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import dataclass, field

_SECTION = re.compile(r"(In|Out|Args|Attributes|Nulls|Raises|Source):(.*)")
_ENTRY = re.compile(r"(\w+(?:, \w+)*): (.*)")


@dataclass(frozen=True)
class Docstring:
    """What a docstring says, as Markdown.

    Attributes:
        prose: everything outside of sections, paragraphs apart.
        sections: In, Out, Nulls, Raises and Source, where they are there.
        entries: what ``Args`` or ``Attributes`` say of each name.
        example: the doctest; empty where there is none.
    """

    prose: str
    sections: dict[str, str] = field(default_factory=dict)
    entries: dict[str, str] = field(default_factory=dict)
    example: str = ""


def parsed(thing: object) -> Docstring:
    """The docstring of a function or class in its parts."""
    text, mark, example = (inspect.getdoc(thing) or "").partition("\n>>> ")
    prose: list[str] = []
    sections: dict[str, list[str]] = {}
    inside: list[str] | None = None
    for line in text.splitlines():
        if begun := _SECTION.fullmatch(line):
            inside = sections.setdefault(begun[1], [])
            if begun[2]:
                inside.append(begun[2])
        elif inside is not None and (not line or line.startswith(" ") or (inside and inside[-1])):
            inside.append(line)
        else:
            inside = None
            prose.append(line)
    listed = [*sections.pop("Args", []), *sections.pop("Attributes", [])]
    return Docstring(
        prose=_markdown("\n".join(prose).strip()),
        sections={name: _said(name, lines) for name, lines in sections.items()},
        entries=_entries(listed),
        example=f"{mark.lstrip()}{example}".strip(),
    )


def _said(name: str, lines: list[str]) -> str:
    if name == "Raises":
        return "".join(f"\n  - `{kind}`: {what}" for kind, what in _entries(lines).items())
    return _markdown(" ".join(" ".join(lines).split()))


def _entries(lines: list[str]) -> dict[str, str]:
    entries: dict[str, str] = {}
    names: list[str] = []
    for line in textwrap.dedent("\n".join(lines)).splitlines():
        if begun := _ENTRY.fullmatch(line.replace(".exceptions.", "_exceptions_")):
            names = [name.replace("_exceptions_", ".exceptions.") for name in begun[1].split(", ")]
            entries |= dict.fromkeys(names, begun[2])
        elif line.strip():
            entries |= {name: f"{entries[name]} {line.strip()}" for name in names}
    return {name: _markdown(text.rstrip(".")) for name, text in entries.items()}


def _markdown(text: str) -> str:
    return re.sub(r"(?<!`)``(?!`)", "`", text)  # fences of examples have three
