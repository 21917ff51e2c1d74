"""The run's workspace: a folder for what one run keeps on disk while it lasts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows._home import home


@contextmanager
def workspace(run_id: str) -> Iterator[Path]:
    """Make the folder of this run, and remove it at the end; first remove those of runs that died.

    The folder is private to its owner: rows of the source may lie in it.
    """
    runs = home() / "runs"
    runs.mkdir(exist_ok=True, mode=0o700)
    for left in runs.iterdir():
        if not _is_alive(left.name.rpartition(".")[2]):
            shutil.rmtree(left, ignore_errors=True)
    folder = runs / f"{run_id}.{os.getpid()}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True
