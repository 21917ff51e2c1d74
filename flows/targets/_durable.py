"""Names and renames on a disk of this machine: what becomes visible does so whole, and stays after a power cut."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

_LONGEST_NAME = 120
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
#: How often a run that waits for another one looks.
POLL_SECONDS = 0.1


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
    hidden = place.with_name(f".{place.name[:_LONGEST_NAME]}.{os.getpid()}-{secrets.token_hex(4)}.new")
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


@dataclass(frozen=True)
class Turn:
    """A run that wants to be the only one.

    Attributes:
        who: its pipeline and its id, for the others.
        patience_seconds: how long it waits for another one to end.
    """

    who: str
    patience_seconds: float = 0


class Lock:
    """An exclusive lock on a file, which the system lets go of when the process dies.

    Args:
        place: of the file, which says who has the lock.
        turn: whose turn it shall be.

    Raises:
        BlockingIOError: somebody else has it; `strerror` says who.
    """

    def __init__(self, place: Path, turn: Turn) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        self._file = place.open("a+b")
        try:
            self._wait(turn.patience_seconds)
            self._file.truncate(0)
            self._file.write(turn.who.encode())
            self._file.flush()
        except BaseException:
            self._file.close()
            raise

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    self._file.seek(0)
                    who = self._file.read().decode("utf-8", "replace") or "nobody knows which"
                    raise BlockingIOError(errno.EAGAIN, who) from None
            time.sleep(min(POLL_SECONDS, max(deadline - time.monotonic(), 0)))

    def release(self) -> None:
        """Let go; safe to call twice."""
        if not self._file.closed:
            self._file.truncate(0)
        self._file.close()


def exchange(new: Path, old: Path) -> None:
    """Let two folders change names in one step: nobody finds neither, or both.

    Raises:
        OSError: with errno ENOTSUP where the system or its file system cannot do that.
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # not Linux
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), str(old)) from None
    if renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        number = errno.ENOTSUP if number in {errno.EINVAL, errno.ENOSYS} else number
        raise OSError(number, os.strerror(number), str(old))
