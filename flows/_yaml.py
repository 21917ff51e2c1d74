"""Reads the configuration's YAML files into plain values, and knows the line of each of them.

YAML 1.2: ``no`` and ``on`` are texts. Anchors and merges (``<<``) work; whatever could
surprise (a key given twice, a tag, a second document, an alias bomb) is a mistake with its line.
A whole ISO date or time is a date; any other scalar is a text, number, boolean or null.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

from flows._errors import ConfigError, Problem
from flows._nodes import Lines, values
from transforms._errors import Path

MAX_BYTES = 1_048_576
_UTF_16_32 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


@dataclass(frozen=True)
class Document:
    """The values of a file or folder.

    Attributes:
        data: plain dicts, lists and scalars; aliases written out, merges done.
        lines: ``file:line`` of every value, by its path with each part as text.
        file: the file or folder, as the user named it.
    """

    data: dict[str, Any]
    lines: Lines
    file: str

    def locate(self, path: Path) -> str:
        """Where `path` stands, or the nearest thing above it that is there: ``flows/customer_etl.yaml:21``."""
        for end in range(len(path), 0, -1):
            if found := self.lines.get(tuple(map(str, path[:end]))):
                return found
        return self.file


def read(path: str | File) -> Document:
    """Read a YAML file, or the ``*.yaml`` and ``*.yml`` files of a folder as one document.

    Raises:
        ConfigError: with every mistake of every file and its line.
    """
    documents: list[Document] = []
    problems: list[Problem] = []
    for file in _files(File(path)):
        try:
            documents.append(parse(_text(file), str(file)))
        except ConfigError as error:
            problems.extend(error.problems)
    merged = _merged(documents, str(path), problems)
    if problems:
        raise ConfigError(problems, file=str(path))
    return merged


def parse(text: str, file: str) -> Document:
    """Read the text of one YAML file.

    Raises:
        ConfigError: with every mistake that can be found, and its line.
    """
    data, lines = values(text, file)
    if not isinstance(data, dict):
        raise _single("a configuration begins with 'pipelines:' and the names of pipelines under it.", f"{file}:1")
    return Document(data, lines, file)


def scalar(text: str) -> Any:
    """Read one value as ``--set`` and variables give it; a text where it is not YAML."""
    try:
        return values(text, "")[0]
    except ConfigError:
        return text


def _files(path: File) -> Iterator[File]:
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix in {".yaml", ".yml"} and file.is_file())
        if not found:
            raise ConfigError(f"the folder '{path}' holds no *.yaml file. Name a file or folder with --config.")
        yield from found
    elif path.exists():
        yield path
    else:
        raise ConfigError(f"there is no file or folder '{path}'. Name one with --config.")


def _text(file: File) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise _single(f"the file cannot be read: {error.strerror}.", str(file)) from error
    if len(content) > MAX_BYTES:
        raise _single(f"the file is larger than {MAX_BYTES:,} bytes. Split it into a folder of files.", str(file))
    if content.startswith(_UTF_16_32):
        raise _single("the file is saved as UTF-16 or UTF-32. Save it as UTF-8.", f"{file}:1")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"byte 0x{content[error.start]:02x} is not UTF-8. Save the file as UTF-8."
        raise _single(message, f"{file}:{line}") from None


def _single(message: str, where: str) -> ConfigError:
    return ConfigError([Problem(message, where=where)], file=where.partition(":")[0])


def _merged(documents: list[Document], file: str, problems: list[Problem]) -> Document:
    """Every file's pipelines under one ``pipelines``; a name may be in one file only."""
    if len(documents) == 1:
        return documents[0]
    merged = Document({}, {}, file)
    for document in documents:
        pipelines = document.data.get("pipelines", {})
        if not isinstance(pipelines, dict):
            problems.append(Problem("'pipelines' is not a mapping.", ("pipelines",), document.locate(("pipelines",))))
            continue
        known = merged.data.get("pipelines", {})
        for name in (name for name in pipelines if name in known):
            path = ("pipelines", name)
            first = f"{name!r} is defined twice, first in {merged.locate(path)}."
            problems.append(Problem(first, path, document.locate(path)))
        merged.data.update({**document.data, "pipelines": {**known, **pipelines}})
        merged.lines.update(document.lines)
    return merged
