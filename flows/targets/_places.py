"""Names and renames on a disk of this machine: what becomes visible does so whole, and stays after a power cut."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

_LONGEST_NAME = 120


def safe(name: str) -> str:
    """A file name for any name, the same for the same: ``a/b`` is ``a%2Fb``; a long one ends in a digest."""
    text = quote(name, safe="")
    if text in {".", ".."}:
        return text.replace(".", "%2E")
    if len(text) <= _LONGEST_NAME:
        return text
    return f"{text[: _LONGEST_NAME - 17]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


@contextmanager
def replacing(place: Path) -> Iterator[Path]:
    """A hidden file beside `place` that becomes it at the end of the block, or is removed if that fails."""
    place.parent.mkdir(parents=True, exist_ok=True)
    hidden = place.with_name(f".{place.name[:_LONGEST_NAME]}.{os.getpid()}.new")
    try:
        yield hidden
        sync(hidden)
        hidden.replace(place)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    sync(place.parent)


def sync(place: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a power cut."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
