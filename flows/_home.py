"""Where Lockgate keeps what it needs on this machine, outside of every repository."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


def home() -> Path:
    """The folder named by ``LOCKGATE_HOME``, or the user's data folder; made where it is missing."""
    named = os.environ.get("LOCKGATE_HOME")
    folder = Path(named).expanduser().absolute() if named else platformdirs.user_data_path("lockgate")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file at `path`; the system lets go of it when the process dies."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
