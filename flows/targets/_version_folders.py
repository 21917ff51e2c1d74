"""Versions of a table on a disk of this machine: each is a folder that is complete, and a link leads to the newest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from flows.targets._durable import sync
from flows.targets._manifest import VERSIONS
from flows.targets._staged import StagedFile

LINK = "current"
_SYNCED_ONE_BY_ONE = 256


def folder_of(path: str) -> str:
    """The version, by its run, that a file was staged for or was linked into."""
    return path.split("/")[1].removeprefix(".")


def moved(files: Iterable[StagedFile], run_id: str) -> list[StagedFile]:
    """Files of other versions, where they are in this one."""
    return [replace(file, path="/".join((VERSIONS, run_id, *file.path.split("/")[2:]))) for file in files]


@contextmanager
def completed(root: Path, run_id: str, added: Sequence[StagedFile], kept: Sequence[StagedFile]) -> Iterator[None]:
    """For the block, and for good if it succeeds: a version's folder has these files, and no others.

    Files that stay are linked into it. Others that the run staged, and that did not become part of the version,
    stand aside; they come back if the block fails.

    Raises:
        OSError: a file is not there, or cannot be linked.
    """
    folder, aside = root / VERSIONS / run_id, root / VERSIONS / f".{run_id}"
    folder.mkdir(parents=True, exist_ok=True)
    linked: list[Path] = []
    wanted = {root / file.path for file in added}
    strays = [file for file in _files(folder) if file not in wanted]
    try:
        _move(strays, folder, aside)
        for file, here in zip(kept, moved(kept, run_id), strict=True):
            place = root / here.path
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(root / file.path, place)
            linked.append(place)
        _settle_down([*wanted, *linked], wanted, folder)
        yield
    except BaseException:
        for place in linked:
            place.unlink(missing_ok=True)
        _move([aside / file.relative_to(folder) for file in strays], aside, folder)
        prune(folder)
        prune(aside)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    return [Path(at, name) for at, _folders, names in os.walk(folder) for name in names]


def _move(files: Iterable[Path], source: Path, target: Path) -> None:
    for file in files:
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # this is also how half of a move is undone
            file.replace(place)
            _rise(file.parent, source)


def _rise(folder: Path, top: Path) -> None:
    """Remove a folder that a file left empty, and those above it, but for `top`."""
    with suppress(OSError):  # not empty
        while folder != top:
            folder.rmdir()
            folder = folder.parent


def _settle_down(files: Iterable[Path], new: Iterable[Path], folder: Path) -> None:
    """Wait until the files, and their names, would survive a power cut."""
    places = {parent for file in files for parent in file.parents if folder in parent.parents} | set(new)
    if len(places) > _SYNCED_ONE_BY_ONE:
        os.sync()  # of thousands of partitions in one step, not each in its own
        return
    for place in places:
        sync(place)
    sync(folder)
    sync(folder.parent)


def prune(folder: Path) -> None:
    """Remove a folder, and those in it, as far as they are empty."""
    for at, _folders, _names in os.walk(folder, topdown=False):
        with suppress(OSError):  # not empty, or gone
            Path(at).rmdir()


def linked_to(root: Path) -> str | None:
    """Where the link leads to; None where there is no link.

    Raises:
        OSError: what is there is no link.
    """
    try:
        return str((root / LINK).readlink())
    except FileNotFoundError:
        return None


def lead_to(root: Path, run_id: str) -> None:
    """Let the link lead to a version, in one step.

    Raises:
        OSError: it cannot be written.
    """
    hidden = root / f".{LINK}.{run_id}.{os.getpid()}.new"
    hidden.unlink(missing_ok=True)
    hidden.symlink_to(f"{VERSIONS}/{run_id}")
    hidden.replace(root / LINK)
    sync(root)
