"""Files that killed runs left in a lake: staged, never committed, and known to no reader.

A run announces itself with a small file before it stages; one that ends takes it back. Whoever
finds the announcement of a run that cannot be alive removes what that run staged.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows.targets._journal import FOLDER
from flows.targets._lake import LakeTable
from transforms._errors import LockgateError

_FORGOTTEN = timedelta(days=2)


def announce(table: LakeTable, pipeline: str, run_id: str) -> None:
    """Say that a run stages files from now on.

    Raises:
        LoadError: nothing can be written there.
    """
    who = {"pipeline": pipeline, "host": socket.gethostname(), "pid": os.getpid()}
    text = json.dumps({**who, "at": datetime.now(UTC).isoformat()})
    with table.store.mapped():
        if table.store.is_local:  # on S3 it would make the bucket
            table.store.fs.makedirs(_folder(table), exist_ok=True)
        table.store.fs.pipe_file(f"{_folder(table)}/{run_id}.json", text.encode())


def withdraw(table: LakeTable, run_id: str) -> None:
    """Say that nothing is left of a run; a failure is left to the next one."""
    with suppress(LockgateError, FileNotFoundError), table.store.mapped():
        place = f"{_folder(table)}/{run_id}.json"
        if table.store.fs.exists(place):
            table.store.fs.rm_file(place)


def remove(table: LakeTable) -> None:
    """Remove what killed runs staged and did not commit, and what they intended; a failure is left to the next run.

    Args:
        table: at its newest version; files of that are safe, whatever became of the ledger.
    """
    with suppress(LockgateError), table.store.mapped():
        dead = {run_id: said for run_id, said in _announced(table).items() if not _may_live(said)}
        if not dead:
            return
        stay = {file.path for file in table.files}
        lost = []
        for run_id, said in dead.items():
            status = (table.journal.find(said["pipeline"], run_id) or {"status": None})["status"]
            if status is None:
                table.journal.forget(said["pipeline"], run_id)
            committed = table.committed(run_id) if status == "published" else ()
            if committed is not None:
                lost.append(run_id)
                stay.update(committed)
        for place in table.store.fs.find(table.store.path):
            path = place.removeprefix(f"{table.store.path}/")
            is_data = path not in stay and not path.startswith(f"{FOLDER}/")
            if (is_data and any(_belongs(path, run_id) for run_id in lost)) or _is_half(path, dead):
                _delete(table, path)
        for run_id in lost:
            _remove_empty(table, run_id)
        for run_id in dead:
            withdraw(table, run_id)


def _remove_empty(table: LakeTable, run_id: str) -> None:
    """Remove the folders that a run made for its files, and was killed before it had one."""
    own = table.folder(run_id)
    if table.store.is_local and own:
        for folder, _folders, _files in os.walk(Path(table.store.path, own), topdown=False):
            with suppress(OSError):  # not empty: a version that was committed
                Path(folder).rmdir()


def _belongs(path: str, run_id: str) -> bool:
    """Whether a run staged a file, or linked it into the folder of the version that it would have made."""
    *folders, name = path.split("/")
    return run_id in name or any(folder.removeprefix(".") == run_id for folder in folders)


def _is_half(path: str, dead: dict[str, dict[str, Any]]) -> bool:
    """Whether a file was still being written, under a hidden name, by one of the dead."""
    name = path.rpartition("/")[2]
    if not (name.startswith(".") and name.endswith(".new")):
        return False
    host = socket.gethostname()
    pids = [f".{said['pid']}-" for said in dead.values() if said["host"] == host]
    return any(mark in name for mark in (*dead, *pids))


def _delete(table: LakeTable, path: str) -> None:
    """Remove a file, and the folders of this machine that it leaves empty."""
    place = f"{table.store.path}/{path}"
    with suppress(FileNotFoundError):
        table.store.fs.rm_file(place)
    if table.store.is_local and not path.startswith(f"{FOLDER}/"):
        with suppress(OSError):  # not empty, or gone with the file
            for folder in list(Path(place).parents)[: path.count("/")]:
                folder.rmdir()


def _folder(table: LakeTable) -> str:
    return f"{table.store.path}/{FOLDER}/staging"


def _announced(table: LakeTable) -> dict[str, dict[str, Any]]:
    try:
        places = table.store.fs.ls(_folder(table), detail=False)
    except FileNotFoundError:
        return {}
    found = {}
    for place in places:
        name = place.rstrip("/").rpartition("/")[2]
        if name.endswith(".json"):
            with suppress(FileNotFoundError, ValueError):  # just gone, or not yet written
                found[name.removesuffix(".json")] = json.loads(table.store.fs.cat_file(place))
    return found


def _may_live(said: dict[str, Any]) -> bool:
    if said["host"] != socket.gethostname():
        return datetime.now(UTC) - datetime.fromisoformat(said["at"]) < _FORGOTTEN
    try:
        os.kill(said["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
