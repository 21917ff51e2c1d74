"""Turns the text of one YAML file into plain values, and notes the line of each of them.

The parser's nodes are read here, not its finished values: only they know where a merged or
aliased value was written, and only so can a second key, a tag or an alias bomb be refused.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from flows._errors import ConfigError, Problem
from transforms._errors import Path

MAX_DEPTH = 60
#: Values after every alias is written out; a million-fold alias bomb stops here.
MAX_VALUES = 100_000

#: `file:line` of values, by their path with each part as text.
Lines = dict[tuple[str, ...], str]
_Pairs = dict[Any, tuple[Node, Node]]

_TAG = "tag:yaml.org,2002:"
_KINDS: dict[type[Node], set[str]] = {
    ScalarNode: {"null", "bool", "int", "float", "timestamp", "str", "value", "merge"},
    SequenceNode: {"seq"},
    MappingNode: {"map"},
}

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_OLD_VERSION = re.compile(r"^%YAML\s+(?!1\.2\s*$)", re.MULTILINE)
_OPENED = re.compile(r"quoted scalar|flow (node|sequence|mapping)")

#: What the parser says, and what we say instead.
_SYNTAX = (
    (r"character '\\t'", "a tab stands where YAML wants spaces. Indent with spaces."),
    (r"character ('[^'\"]+')", r"a text cannot begin with \1. Put it in quotes."),
    (r"mapping values are", "a ':' stands where no key can be. Check the indentation, or put the text in quotes."),
    (r"undefined alias '(.*)'", r"no anchor '&\1' stands above '*\1'."),
    (r"another document", "a second document begins here. One file holds one document: remove the '---'."),
    (r"maximum depth", f"values are nested deeper than {MAX_DEPTH} levels."),
    (r"quoted scalar", "a quote is opened here and never closed."),
    (r"flow (node|sequence|mapping)", "a '[' or '{' opened here is not closed, or a ',' is missing in it."),
    (r"expected ':'", "a key needs a ':' and a value."),
    (r"expected <block end>", "the indentation does not fit the lines above."),
)


def values(text: str, file: str) -> tuple[Any, Lines]:
    """Read the text of one YAML file; ``None`` for an empty one.

    Raises:
        ConfigError: with every mistake that can be found, and its line.
    """
    _refuse_odd_text(text, file)
    node = _composed(text, file)
    reader = _Reader(file)
    value = reader.value(node, ()) if node is not None else None
    if reader.problems:
        raise ConfigError(reader.problems, file=file)
    return value, reader.lines


def _refuse_odd_text(text: str, file: str) -> None:
    if odd := _UNPRINTABLE.search(text):
        name = "a NUL character" if odd[0] == "\x00" else f"the character U+{ord(odd[0]):04X}"
        raise _single(f"{name} cannot stand in YAML. Remove it.", file, text.count("\n", 0, odd.start()))
    if old := _OLD_VERSION.search(text):
        raise _single("only YAML 1.2 is read. Remove the '%YAML' line.", file, text.count("\n", 0, old.start()))


def _composed(text: str, file: str) -> Node | None:
    try:
        return cast("Node | None", _yaml().compose(text))
    except MarkedYAMLError as error:
        said = f"{error.context or ''} {error.problem or ''}".strip()
        opened = error.context_mark if _OPENED.search(said) else None
        mark = opened or error.problem_mark or error.context_mark
        raise _single(_sentence(said), file, mark.line if mark else 0) from None
    except (YAMLError, ValueError) as error:
        raise _single(_sentence(str(error)), file, 0) from None


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = MAX_DEPTH
    yaml.composer.warn_double_anchors = False  # YAML lets a later anchor take a name over
    return yaml


def _sentence(said: str) -> str:
    for pattern, sentence in _SYNTAX:
        if found := re.search(pattern, said):
            return found.expand(sentence)
    return f"this is not YAML: {said.splitlines()[0] if said else 'it cannot be read'}."


def _single(message: str, file: str, line: int) -> ConfigError:
    return ConfigError([Problem(message, where=f"{file}:{line + 1}")], file=file)


class _Reader:
    """Turns the parser's nodes into plain values, noting lines and mistakes on the way."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: Lines = {}
        self.problems: list[Problem] = []
        self._left = MAX_VALUES
        self._construct: Callable[[Node], Any] = _yaml().constructor.construct_object

    def value(self, node: Node, path: Path) -> Any:
        self._spend(1, node)
        if len(path) > MAX_DEPTH:
            self._problem(f"values are nested deeper than {MAX_DEPTH} levels.", node)
        elif _kind(node) not in _KINDS[type(node)]:
            self._problem(f"the tag '{node.tag}' is not read. Remove it.", node, path)
        elif isinstance(node, ScalarNode):
            return self._scalar(node, path)
        elif isinstance(node, SequenceNode):
            return [self._child(item, item, (*path, index)) for index, item in enumerate(node.value)]
        else:
            pairs = self._pairs(node, path, frozenset())
            return {key: self._child(written, value, (*path, key)) for key, (written, value) in pairs.items()}
        return None

    def _child(self, key: Node, value: Node, path: Path) -> Any:
        self.lines[tuple(map(str, path))] = self._where(key)
        return self.value(value, path)

    def _pairs(self, node: Node, path: Path, inside: frozenset[int]) -> _Pairs:
        """The mapping's keys with their nodes; its own win over merged ones, earlier merges over later ones."""
        self._spend(len(node.value), node)
        own: _Pairs = {}
        merged: _Pairs = {}
        for written, value in node.value:
            if _kind(written) == "merge":
                merged = {**self._merge(value, path, inside | {id(node)}), **merged}
                continue
            key = self._key(written, path)
            if key in own:
                first = own[key][0].start_mark.line + 1
                self._problem(f"{key!r} stands here twice, first in line {first}.", written, (*path, key))
            own[key] = (written, value)
        return {**merged, **own}

    def _merge(self, node: Node, path: Path, inside: frozenset[int]) -> _Pairs:
        merged: _Pairs = {}
        for part in node.value if isinstance(node, SequenceNode) else [node]:
            if isinstance(part, MappingNode) and id(part) not in inside:
                merged = {**self._pairs(part, path, inside), **merged}
            else:
                self._problem("'<<' takes a mapping, as in '<<: *defaults'.", node, path)
        return merged

    def _key(self, node: Node, path: Path) -> Any:
        if isinstance(node, ScalarNode) and node.value and _kind(node) != "null":
            return self._scalar(node, path)
        hint = " Put a text that begins with '{{' in quotes." if isinstance(node, MappingNode) else ""
        self._problem(f"a key is a text.{hint}", node, path)
        return ""

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        kind = _kind(node)
        if kind == "timestamp":
            return _moment(node.value)
        if kind not in {"null", "bool", "int", "float"}:
            return node.value
        try:
            return self._construct(node)
        except (ValueError, KeyError, IndexError):
            self._problem(f"{node.value[:40]!r} is not {'an' if kind == 'int' else 'a'} {kind}.", node, path)
            return None

    def _spend(self, amount: int, node: Node) -> None:
        self._left -= amount
        if self._left < 0:
            self._problem(f"the file stands for more than {MAX_VALUES:,} values. Use fewer aliases ('*name').", node)
            raise ConfigError(self.problems, file=self.file)

    def _problem(self, message: str, node: Node, path: Path = ()) -> None:
        self.problems.append(Problem(message, path, self._where(node)))

    def _where(self, node: Node) -> str:
        return f"{self.file}:{node.start_mark.line + 1}"


def _kind(node: Node) -> str:
    return str(node.tag).removeprefix(_TAG)


def _moment(text: str) -> dt.date | dt.datetime | str:
    """An ISO date or time as what it is; a text where it is neither, so that the key it is for can say so."""
    for read_as in (dt.date.fromisoformat, dt.datetime.fromisoformat):
        try:
            return read_as(text)
        except ValueError:
            continue
    return text
