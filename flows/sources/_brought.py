"""Bytes of files, brought to this machine: one file at a time, and gone again when it was read.

What was brought to learn the types is kept for the reading while all of it is small, so that
most files travel once.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flows.sources._found import Found, readable, unzipped

_KEPT_BYTES = 500_000_000
Written = Callable[[Path], None]


@dataclass(frozen=True)
class Piece:
    """A file that a format can read.

    Attributes:
        path: where its bytes are: on this machine, or a URL that Polars reads itself.
        name: as people know it.
        options: how Polars gets in, where `path` is a URL.
    """

    path: str
    name: str
    options: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def file(self) -> Path:
        """The path, where it is on this machine."""
        return Path(self.path)


class Brought:
    """Files brought here, in a folder of their own.

    Args:
        folder: where that folder is made; None is the system's place for temporary files.
    """

    def __init__(self, folder: Path | None) -> None:
        self._parent = folder
        self._made: Path | None = None
        self._kept: dict[str, Path] = {}
        self._kept_bytes = 0
        self._count = 0

    @contextmanager
    def here(self, file: Found) -> Iterator[Piece]:
        """The file on this machine, until the block ends.

        Raises:
            ExtractError: it cannot be brought.
        """
        if file.is_local:
            yield Piece(file.path, file.name)
        elif file.member is None:
            with self.made(file.key, lambda to: _downloaded(file, to)) as path:
                yield Piece(str(path), file.name)
        else:
            with self.archive(file) as archive, self.made(file.name, lambda to: _extracted(file, archive, to)) as path:
                yield Piece(str(path), file.name)

    @contextmanager
    def archive(self, file: Found) -> Iterator[Path]:
        """A zip on this machine, until the block ends.

        Raises:
            ExtractError: it cannot be brought.
        """
        if file.store.is_local:
            yield Path(file.path)
        else:
            with self.made(f"archive {file.path}", lambda to: _downloaded(file, to)) as path:
                yield path

    @contextmanager
    def made(self, key: str, write: Written) -> Iterator[Path]:
        """A file that `write` writes, or wrote before under the same key; removed after, unless it can be kept."""
        if key in self._kept:
            yield self._kept[key]
            return
        path = self._next()
        try:
            write(path)
            size = path.stat().st_size
            if self._kept_bytes + size <= _KEPT_BYTES:
                self._kept[key] = path
                self._kept_bytes += size
            yield path
        finally:
            if key not in self._kept:
                path.unlink(missing_ok=True)

    def _next(self) -> Path:
        if self._made is None:
            if self._parent is not None:
                self._parent.mkdir(parents=True, exist_ok=True)
            self._made = Path(tempfile.mkdtemp(prefix="brought-", dir=self._parent))
            weakref.finalize(self, shutil.rmtree, self._made, ignore_errors=True)
        self._count += 1
        return self._made / f"{self._count:06}"


def _downloaded(file: Found, to: Path) -> None:
    with file.store.mapped():
        file.store.fs.get_file(file.path, str(to))


def _extracted(file: Found, archive: Path, to: Path) -> None:
    assert file.member is not None  # noqa: S101 - who calls knows that it is a zip
    with (
        readable(file.name),
        unzipped(file.name, archive) as zipped,
        zipped.open(file.member) as inside,
        to.open("wb") as out,
    ):
        shutil.copyfileobj(inside, out, 1_000_000)
