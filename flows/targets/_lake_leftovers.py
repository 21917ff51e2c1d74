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
    """Remove what killed runs staged, unless it was committed; a failure is left to the next run.

    Args:
        table: at its newest version; files of that are safe, whatever became of the ledger.
    """
    with suppress(LockgateError), table.store.mapped():
        dead = {run_id: said for run_id, said in _announced(table).items() if not _may_live(said)}
        lost = [run_id for run_id, said in dead.items() if not _was_published(table, run_id, said)]
        known = {f"{table.store.path}/{file.path}" for file in table.files}
        for place in table.store.fs.find(table.store.path) if lost else ():
            name = place.rpartition("/")[2]
            if f"/{FOLDER}/" not in place and place not in known and any(run_id in name for run_id in lost):
                table.store.fs.rm_file(place)
        for run_id in dead:
            withdraw(table, run_id)


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


def _was_published(table: LakeTable, run_id: str, said: dict[str, Any]) -> bool:
    record = table.journal.find(said["pipeline"], run_id)
    return record is not None and record["status"] in {"published", "unchanged"}
