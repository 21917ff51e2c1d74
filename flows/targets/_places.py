"""Where a file target's file is, and the one step that replaces it: a rename, an exchange of folders, or a put.

A place also tells whether a load got there: a rename keeps the file's inode, the files of a folder
are named after their run, an object carries its run in its metadata. That is the proof that the
journal keeps of a load that is about to be published.
"""

from __future__ import annotations

import errno
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from flows._errors import RefusedError
from flows._storage import Store
from flows.targets import _refusals
from flows.targets._durable import Lock, Turn, exchange, safe, sync
from flows.targets._journal import FOLDER, Journal, Proof

PART = "{part}"
_EFFECTIVE = os.access in os.supports_effective_ids


class Place(ABC):
    """Where one target's rows are.

    Attributes:
        journal: the system files beside it.
    """

    journal: Journal

    def __init__(self, store: Store) -> None:
        self.store = store
        self.side = store.side

    @abstractmethod
    def enter(self, run_id: str, turn: Turn) -> None:
        """Keep other runs out, as far as that can be done, and remove what killed ones left.

        Raises:
            TargetBusyError: another run is at it.
        """

    @abstractmethod
    def staging(self, scratch: Path) -> Path:
        """A folder from which `publish` is a rename, where there is one; otherwise `scratch`."""

    @abstractmethod
    def old(self, scratch: Path) -> Path | None:
        """A file of this machine with rows that are there now: all of them, or some that tell what they are like."""

    @abstractmethod
    def proof(self, built: Path, run_id: str) -> Proof:
        """What will be true of the place, and of no other load, once `built` is published."""

    @abstractmethod
    def has(self, proof: Proof) -> bool:
        """Whether it is true; a proof of nothing always is."""

    @abstractmethod
    def rows(self, count: Callable[[Path], int]) -> int:
        """How many rows are there, where `count` counts those of a file; 0 where nobody can say."""

    @abstractmethod
    def publish(self, built: Path, run_id: str, *, adds: bool, rows: int | None) -> None:
        """Let `built` be what is there, in one step.

        Args:
            built: a file, or a folder of part files; see `staging`.
            run_id: of the run.
            adds: whether it has the rows that `old` had; then those must still be the ones that are there.
            rows: how many will be there, where that is known.

        Raises:
            TargetBusyError: somebody else wrote there meanwhile.
        """

    @property
    @abstractmethod
    def exists(self) -> bool:
        """Whether anything is there by now."""

    @abstractmethod
    def leave(self) -> None:
        """Remove what is staged, and let others in; safe to call twice."""

    @abstractmethod
    def check(self) -> None:
        """Confirm that a run could publish there.

        Raises:
            LoadError: it could not.
        """

    def changed(self) -> Exception:
        """What to say when somebody else wrote there meanwhile."""
        return self.side.error("busy", "it was written by somebody else while the run was under way. Run again.")


class _Local(Place):
    """A place on a disk of this machine."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.path = Path(os.path.realpath(store.path))  # a link stays, and what it names is replaced
        self.journal = Journal(store, self.path.name, self.has, str(self.path.parent))
        self._system = self.path.parent / FOLDER
        self._staged = self._system / "staged" / safe(self.path.name)
        self._run: Path | None = None
        self._lock: Lock | None = None

    def enter(self, run_id: str, turn: Turn) -> None:
        """Lock a file in the system folder; the lock dies with the process."""
        with self.store.mapped():
            self._require_kind()
            try:
                self._lock = Lock(self._system / "locks" / safe(self.path.name), turn)
            except BlockingIOError as error:
                raise _refusals.busy(repr(error.strerror), turn.patience_seconds, self.side) from None
            self._run = self._staged / run_id
        try:
            self.journal.clear()
            with self.store.mapped():
                shutil.rmtree(self._staged, ignore_errors=True)
                self._run.mkdir(parents=True)
        except BaseException:
            self.leave()
            raise

    def staging(self, scratch: Path) -> Path:  # noqa: ARG002 - the signature of every place
        """A folder of the run, on the same disk."""
        assert self._run is not None  # noqa: S101 - entered
        return self._run

    @property
    def exists(self) -> bool:
        """Whether the path is there."""
        return self.path.exists()

    def leave(self) -> None:
        """Remove the run's folder, and unlock."""
        if self._run is not None:
            shutil.rmtree(self._run, ignore_errors=True)
            with suppress(OSError):
                self._run.parent.rmdir()
                self._run.parent.parent.rmdir()
            self._run = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def check(self) -> None:
        """Look for a folder that may be written."""
        with self.store.mapped():
            self._require_kind()
            folder = next(folder for folder in self.path.parents if folder.exists())
            if not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
            if not os.access(folder, os.W_OK | os.X_OK, effective_ids=_EFFECTIVE):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    @abstractmethod
    def _require_kind(self) -> None: ...


class LocalFile(_Local):
    """One file, replaced by a rename."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._seen: Proof | None = None

    def old(self, scratch: Path) -> Path | None:  # noqa: ARG002 - it is here already
        """The file itself."""
        self._seen = self._identity(self.path)
        return self.path if self._seen is not None else None

    def proof(self, built: Path, run_id: str) -> Proof:  # noqa: ARG002 - the file tells itself
        """A rename keeps the inode, the size and the time of the last change."""
        with self.store.mapped():
            if self.path.exists():
                built.chmod(self.path.stat().st_mode & 0o7777)
            sync(built)
            return self._identity(built) or {}

    def has(self, proof: Proof) -> bool:
        """Whether the file is that one."""
        with self.store.mapped():
            return not proof or self._identity(self.path) == proof

    def rows(self, count: Callable[[Path], int]) -> int:
        """Those of the file."""
        return count(self.path) if self.path.exists() else 0

    def publish(self, built: Path, run_id: str, *, adds: bool, rows: int | None) -> None:  # noqa: ARG002 - the signature of every place
        """Rename."""
        with self.store.mapped():
            if adds and self._identity(self.path) != self._seen:
                raise self.changed()
            built.replace(self.path)
            sync(self.path.parent)

    def _identity(self, path: Path) -> Proof | None:
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        return {"inode": found.st_ino, "bytes": found.st_size, "modified_ns": found.st_mtime_ns}

    def _require_kind(self) -> None:
        if self.path.is_dir():
            raise self.side.error("other", "it is a folder. End the path with '/' to write part files into it.")
        if self.path.exists() and not self.path.is_file():
            raise self.side.error("other", "it is neither a file nor a folder. Name another path.")


class LocalFolder(_Local):
    """A folder of part files, exchanged for another one in one step.

    Args:
        pattern: the names of its files, with ``{part}`` in them.
    """

    def __init__(self, store: Store, pattern: str) -> None:
        super().__init__(store)
        self._before, _part, self._after = pattern.partition(PART)

    def name(self, run_id: str, number: int) -> str:
        """The name of a run's part file: parts sort as they were written, and no other run has the same."""
        return f"{self._before}{number:05}-{run_id}{self._after}"

    def parts(self) -> Iterator[Path]:
        """The part files that are there, in the order written.

        Raises:
            RefusedError: there is something else, which would be lost.
        """
        for file in sorted(self.path.iterdir()) if self.path.exists() else ():
            if not (file.name.startswith(self._before) and file.name.endswith(self._after) and file.is_file()):
                raise RefusedError(
                    f"{self.side.label}: the folder has {file.name!r} in it, which is no part file, and publishing "
                    "replaces the whole folder. Move it, or name another folder.",
                    guard="foreign_files",
                )
            yield file

    def old(self, scratch: Path) -> Path | None:  # noqa: ARG002 - it is here already
        """The newest part."""
        with self.store.mapped():
            return max(self.parts(), default=None)

    def proof(self, built: Path, run_id: str) -> Proof:
        """A part of the run is in the folder."""
        with self.store.mapped():
            for file in built.iterdir():
                sync(file)
            sync(built)
        return {"run": run_id}

    def has(self, proof: Proof) -> bool:
        """Whether one is."""
        with self.store.mapped():
            names = [file.name for file in self.path.iterdir()] if self.path.is_dir() else []
        return not proof or any(name.endswith(f"-{proof['run']}{self._after}") for name in names)

    def rows(self, count: Callable[[Path], int]) -> int:
        """Those of all parts."""
        return sum(map(count, self.parts()))

    def publish(self, built: Path, run_id: str, *, adds: bool, rows: int | None) -> None:  # noqa: ARG002 - the signature of every place
        """Exchange the folders; a folder that is not there yet appears."""
        with self.store.mapped():
            others = {file.name for file in self.parts()} - {file.name for file in built.iterdir()}
            if adds and others:
                raise self.changed()
            try:
                if self.path.exists():
                    built.chmod(self.path.stat().st_mode & 0o7777)
                    exchange(built, self.path)
                else:
                    built.replace(self.path)
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
                raise self.side.error(
                    "other",
                    "this disk cannot exchange two folders in one step, so readers could see half a load. Write one "
                    "file, or use a target of type 'data_lake'.",
                ) from error
            sync(self.path.parent)

    def _require_kind(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise self.side.error("other", "it is a file, and the path asks for a folder of part files.")
        next(self.parts(), None)
