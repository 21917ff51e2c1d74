"""The run's workspace: a folder for what one run keeps on disk while it lasts.

What a source landed because it cannot be read twice (pages of an API) outlives a run that was not published, so
that another run can go on from there: ``run NAME --resume RUN``. The next run of the pipeline that does not resume
it removes it. With ``LOCKGATE_WORKSPACE``, a folder or URL that several machines reach, landed files are copied
there as they come, and any of those machines can resume.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows._errors import ConfigError
from flows._home import home
from flows._sides import Side
from flows._storage import Store
from transforms._errors import LockgateError

_RUN = re.compile(r"\d{8}T\d{6}_[0-9a-f]{8}")
_SOURCES = "sources"
_ABOUT = "run.json"
_ENDED = "ended"  # in place of the process that a folder belongs to
_FORGOTTEN_SECONDS = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Workspace:
    """The folder of one run on this machine, and its copy for others.

    Attributes:
        folder: private to its owner: rows of the source may lie in it.
        shared: what `LOCKGATE_WORKSPACE` names; None where nothing does.
        run_id: of the run.
    """

    folder: Path
    shared: Store | None
    run_id: str

    @property
    def has_landed(self) -> bool:
        """Whether another run could go on from something."""
        return _has_landed(self.folder)

    def landed(self, file: Path) -> None:
        """Let other machines have a file of the folder's ``sources``, which is whole and stays as it is.

        Raises:
            ExtractError: it cannot be copied.
        """
        if self.shared is not None:
            place = f"{_place(self.shared, self.run_id)}/{file.relative_to(self.folder).as_posix()}"
            with self.shared.mapped():
                self.shared.fs.makedirs(place.rpartition("/")[0], exist_ok=True)
                self.shared.fs.put_file(str(file), place)


@contextmanager
def workspace(run_id: str, pipeline: str, resumes: str | None = None) -> Iterator[Workspace]:
    """Make the folder of this run, and remove it at the end, but for what landed of a run that fails.

    Args:
        run_id: of the run.
        pipeline: its pipeline; what earlier runs of it left is removed.
        resumes: the run whose landed files this one takes over.

    Raises:
        ConfigError: nothing is known of the run that is to be resumed, or it is still under way.
        ExtractError: what ``LOCKGATE_WORKSPACE`` names cannot be reached.
    """
    runs = home() / "runs"
    runs.mkdir(exist_ok=True, mode=0o700)
    shared = _shared()
    folder = runs / f"{run_id}.{os.getpid()}"
    folder.mkdir(mode=0o700)
    try:
        if resumes is not None:
            _take_over(resumes, pipeline, runs, folder, shared)
        _remove_left(runs, pipeline)
        about = {"pipeline": pipeline, "run_id": run_id, "host": socket.gethostname(), "pid": os.getpid()}
        (folder / _ABOUT).write_text(json.dumps(about))
        made = Workspace(folder, shared, run_id)
        made.landed(folder / _ABOUT)
        for file in sorted((folder / _SOURCES).rglob("*")):
            if file.is_file():
                made.landed(file)
        yield made
    except BaseException:
        _keep_landed(folder, run_id)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    for done in filter(None, (run_id, resumes)):
        _forget(shared, done)


def _shared() -> Store | None:
    named = os.environ.get("LOCKGATE_WORKSPACE")
    return Store(named, side=Side("source", "LOCKGATE_WORKSPACE")) if named else None


def _place(shared: Store, run_id: str) -> str:
    return f"{shared.path}/{run_id}"


def _keep_landed(folder: Path, run_id: str) -> None:
    """Keep what another run can go on from, under a name that is nobody's any more."""
    kept = folder.with_name(f"{run_id}.{_ENDED}")
    if _has_landed(folder):
        folder.rename(kept)
        for left in kept.iterdir():
            if left.name not in {_SOURCES, _ABOUT}:
                shutil.rmtree(left, ignore_errors=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _forget(shared: Store | None, run_id: str) -> None:
    if shared is not None:
        with suppress(LockgateError, FileNotFoundError), shared.mapped():  # it was published; what stays is old news
            shared.fs.rm(_place(shared, run_id), recursive=True)


def _remove_left(runs: Path, pipeline: str) -> None:
    """Remove folders of runs that died, but for what another pipeline may still resume."""
    for left in runs.iterdir():
        if _is_alive(left.name.rpartition(".")[2]):
            continue
        about = _about(left)
        others = about.get("pipeline") not in {None, pipeline} and _has_landed(left)
        with suppress(FileNotFoundError):
            if not others or time.time() - left.stat().st_mtime > _FORGOTTEN_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _take_over(resumes: str, pipeline: str, runs: Path, folder: Path, shared: Store | None) -> None:
    """Move what a run landed here into `folder`, or fetch what it landed elsewhere."""
    if not _RUN.fullmatch(resumes):  # it becomes part of a path, which is removed afterwards
        raise ConfigError(
            f"{resumes!r} is not the id of a run. Write it as 'history' shows it: 20260131T235959_0123abcd."
        )
    for left in runs.glob(f"{resumes}.*"):
        process = left.name.rpartition(".")[2]
        _hold_of(_about(left), resumes, pipeline)
        if _is_alive(process):
            raise ConfigError(f"run {resumes!r} is still under way, in process {process}. Wait for it, or end it.")
        if (left / _SOURCES).exists():
            (left / _SOURCES).rename(folder / _SOURCES)
        shutil.rmtree(left, ignore_errors=True)
        return
    if shared is None or not _fetched(shared, resumes, pipeline, folder):
        where = f", nor in {shared.shown}" if shared else ""
        raise ConfigError(
            f"nothing of a run {resumes!r} is left on this machine{where}. It was published, it landed nothing, or a "
            "later run has cleaned up. Run again without --resume."
        )


def _fetched(shared: Store, resumes: str, pipeline: str, folder: Path) -> bool:
    place = _place(shared, resumes)
    with shared.mapped():
        if not shared.fs.exists(f"{place}/{_ABOUT}"):
            return False
        _hold_of(json.loads(shared.fs.cat_file(f"{place}/{_ABOUT}")), resumes, pipeline)
        for file in shared.fs.find(f"{place}/{_SOURCES}"):
            local = folder / Path(file).relative_to(place)
            local.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            shared.fs.get_file(file, str(local))
    return True


def _hold_of(about: dict[str, Any], resumes: str, pipeline: str) -> None:
    if about.get("pipeline") not in {None, pipeline}:
        raise ConfigError(f"run {resumes!r} is one of {about['pipeline']!r}, not of {pipeline!r}.")


def _about(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / _ABOUT).read_text()))
    except (OSError, ValueError):  # it died before it had written that
        return {}


def _has_landed(folder: Path) -> bool:
    return any(file.is_file() for file in (folder / _SOURCES).glob("*/pages/*.parquet"))


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True
