"""Which files a configuration means: on a disk of this machine, on S3, on a server, or inside a zip."""

from __future__ import annotations

import glob
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import Any

from flows._errors import ExtractError, SourceMissingError, SourcePermissionError
from flows._secrets import Secret
from flows._sides import Side
from flows._storage import Store
from transforms._words import did_you_mean

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STAMPS = ("ETag", "mtime", "LastModified", "Last-Modified", "created")


@dataclass(frozen=True)
class Found:
    """A file that a configuration means.

    Attributes:
        name: as people know it: ``data/a.csv``, ``s3://bucket/a.csv``, ``a.zip/b.csv``.
        path: as its store says it.
        store: where it is.
        size: in bytes; None where the place does not say.
        stamp: changes when the file does: its ETag, or when it was modified; empty where the place does not say.
        member: which file in this zip; None where it is no zip.
        modified: when it was, in UTC; None where the place does not say.
    """

    name: str
    path: str
    store: Store
    size: int | None = None
    stamp: str = ""
    member: str | None = None
    modified: datetime | None = None

    @property
    def is_local(self) -> bool:
        """Whether its bytes can be read where they are."""
        return self.store.is_local and self.member is None

    @property
    def key(self) -> str:
        """A name that stays the same from whatever folder it is looked at."""
        return str(Path(self.path).absolute()) if self.store.is_local else self.name


def matching(patterns: Sequence[str], options: Mapping[str, Secret], *, may_be_none: bool = False) -> list[Found]:
    """The files that `patterns` mean: in the order listed, matches of one pattern by name, each file once.

    A name that exists is that file, whatever glob characters it holds.

    Args:
        patterns: paths and URLs, which may hold ``*``, ``?``, ``[...]`` and ``**``.
        options: how to get into the places.
        may_be_none: whether a pattern with glob characters may match nothing.

    Raises:
        SourceMissingError: a pattern means no file.
        ExtractError: one is a folder, or may not be read; a place cannot be reached.
    """
    found: dict[str, Found] = {}
    for pattern in patterns:
        store = Store(pattern, options, Side("source", ""))
        matches = _on_this_machine(pattern, store) if store.is_local else _elsewhere(pattern, store)
        for file in matches:
            found.setdefault(file.key, file)
        if not matches and not (may_be_none and glob.has_magic(pattern)):
            where = f" It was looked for in {str(Path.cwd())!r}." if store.is_local else ""
            raise SourceMissingError(f"no file matches {store.shown!r}.{where}")
    return list(found.values())


def members(archive: Found, path: Path, suffixes: Sequence[str]) -> list[Found]:
    """The files of a zip, whose bytes are at `path`: those with one of `suffixes`, or all where none has.

    Raises:
        ExtractError: it is no zip, or has no file.
    """
    with unzipped(archive.name, path) as zipped:
        inside = [one for one in zipped.infolist() if not one.is_dir() and not _is_hidden(one.filename)]
    wanted = [one for one in inside if one.filename.lower().endswith(tuple(suffixes))] or inside
    if not wanted:
        raise ExtractError(f"{archive.name!r} is a zip without a file in it.")
    return [
        replace(archive, name=f"{archive.name}/{one.filename}", member=one.filename)
        for one in sorted(wanted, key=lambda one: one.filename)
    ]


@contextmanager
def unzipped(name: str, path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip, open; what is wrong with it is said in our words.

    Raises:
        ExtractError: it is no zip, is cut off, or is locked.
    """
    try:
        with zipfile.ZipFile(path) as zipped:
            yield zipped
    except (zipfile.BadZipFile, EOFError) as error:
        raise ExtractError(f"{name!r} is not a whole zip file.") from error
    except (RuntimeError, NotImplementedError) as error:
        raise ExtractError(f"{name!r} cannot be read: {error}. Write it without a password.") from error


def stamped(file: Found) -> Found:
    """The file as its place says it is now.

    Raises:
        ExtractError: it is not there any more.
    """
    if file.store.is_local:
        return _local(file.name, file.store, Path(file.path), file.member)
    with file.store.mapped():
        return _described(file, file.store.fs.info(file.path))


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _on_this_machine(pattern: str, store: Store) -> list[Found]:
    plain = pattern.removeprefix("file://")
    path = os.path.expanduser(plain)  # noqa: PTH111 - a text: Path would change 'a//b', and raises for '~nobody'
    if os.path.lexists(path):
        return [_local(str(Path(path)), store, Path(path))]
    matches = sorted(Path(match) for match in glob.glob(path, recursive=True))  # noqa: PTH207 - absolute and relative
    files = [match for match in matches if match.is_file()]
    if not files and not glob.has_magic(path):
        raise _missing_here(pattern, Path(path))
    return [_local(str(file), store, file) for file in files]


def _missing_here(pattern: str, path: Path) -> SourceMissingError:
    folder = path.parent
    if not folder.is_dir():
        return SourceMissingError(f"there is no folder {str(folder)!r}. It was looked for in {str(Path.cwd())!r}.")
    beside = [entry.name for entry in folder.iterdir() if entry.is_file() and entry.suffix == path.suffix]
    return SourceMissingError(f"there is no file {pattern!r}.{did_you_mean(path.name, beside, word='Present')}")


def _local(name: str, store: Store, file: Path, member: str | None = None) -> Found:
    with readable(name):
        if not file.is_file():
            advice = f"Write {str(file / '*')!r}." if file.is_dir() else "Name a regular file."
            raise ExtractError(f"{name!r} is {'a folder' if file.is_dir() else 'not a file'}. {advice}")
        file.open("rb").close()
        status = file.stat()
    modified = _EPOCH + timedelta(microseconds=status.st_mtime_ns // 1_000)
    return Found(name, str(file), store, status.st_size, str(status.st_mtime_ns), member, modified)


def _elsewhere(pattern: str, store: Store) -> list[Found]:
    with store.mapped():
        if not glob.has_magic(pattern.partition("?")[0] if store.scheme == "http" else pattern):
            return [_described(Found(store.shown, store.path, store), store.fs.info(store.path))]
        matches: dict[str, dict[str, Any]] = store.fs.glob(store.path, detail=True)
        files = {path: facts for path, facts in matches.items() if facts["type"] == "file"}
        named = {path: Found(_url(store, path), path, store) for path in sorted(files)}
        return [
            _described(file, files[path] if _has_stamp(files[path]) else store.fs.info(path))
            for path, file in named.items()
        ]


def _has_stamp(facts: Mapping[str, Any]) -> bool:
    return any(facts.get(name) for name in _STAMPS)


def _url(store: Store, path: str) -> str:
    if store.scheme == "http":
        return path
    scheme, _, rest = store.url.partition("://")
    host = rest.partition("/")[0] if store.scheme == "sftp" else ""
    return f"{scheme}://{host}{path if host else path.lstrip('/')}"


def _described(file: Found, facts: Mapping[str, Any]) -> Found:
    if facts["type"] != "file":
        raise ExtractError(f"{file.name!r} is a folder. Write {file.name.rstrip('/') + '/*'!r}.")
    stamp = next((facts[name] for name in _STAMPS if facts.get(name)), "")
    moment = next((facts[name] for name in _STAMPS[1:] if facts.get(name)), None)
    return replace(file, size=facts.get("size"), stamp=str(stamp).strip('"'), modified=_moment(moment))


def _moment(stamp: object) -> datetime | None:
    """A moment as a place says it: seconds since 1970, a text of HTTP, or what it is already."""
    if isinstance(stamp, str):
        try:
            stamp = parsedate_to_datetime(stamp)
        except ValueError:
            return None
    if isinstance(stamp, int | float):
        return _EPOCH + timedelta(seconds=stamp)
    if not isinstance(stamp, datetime):
        return None
    return stamp.astimezone(UTC) if stamp.tzinfo else stamp.replace(tzinfo=UTC)


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn what the system says about a file of this machine into our errors, once."""
    try:
        yield
    except (OSError, EOFError) as error:
        raise unreadable(name, error) from error


def unreadable(name: str, error: OSError | EOFError) -> ExtractError:
    """What the system says about a file, in our words."""
    if isinstance(error, FileNotFoundError):
        return SourceMissingError(f"there is no file {name!r} any more.")
    if isinstance(error, PermissionError):
        return SourcePermissionError(f"{name!r} may not be read. Grant it, or use another user.")
    reason = getattr(error, "strerror", None) or " ".join(str(error).split("\n", maxsplit=1)[0].split()).rstrip(".")
    return ExtractError(f"{name!r} cannot be read: {reason}. Is it a whole file?")
