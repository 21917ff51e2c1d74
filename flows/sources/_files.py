"""Local files: which ones a configuration means, how their bytes are opened, and what a format must know.

A format reads one file at a time, so that every error can name its file, and rows come file by file
in an order that does not change from run to run.
"""

from __future__ import annotations

import glob
import gzip
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, ClassVar, cast

import polars as pl

from flows._errors import ExtractError, SourceMissingError, SourcePermissionError, SourceTypeError
from flows.sources._base import Pushdown
from transforms._words import did_you_mean

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Format(ABC):
    """How files of one format are read; all of them together are one set of rows."""

    #: Whether rows that a predicate does not want are left out while reading.
    pushes_predicates: ClassVar[bool] = False

    @abstractmethod
    def schema(self, files: Sequence[Path]) -> pl.Schema:
        """The columns that all files have.

        Raises:
            ExtractError: they do not agree, or one cannot be read.
        """

    @abstractmethod
    def rows(self, file: Path, schema: pl.Schema, ask: Pushdown) -> Iterator[pl.DataFrame]:
        """Stream the rows of one file; `ask` names its columns."""

    @abstractmethod
    def require_whole(self, file: Path) -> None:
        """Look for the place where the file is wrong, after Polars said that one is.

        Raises:
            ExtractError: it was found; the message names the place.
        """

    @contextmanager
    def mapped(self, files: Sequence[Path]) -> Iterator[None]:
        """Turn what Polars says about one of `files` into our errors, once."""
        try:
            yield
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            try:
                for file in files:
                    self.require_whole(file)
            except ExtractError as found:
                raise found from error
            named = ", ".join(repr(str(file)) for file in files[:3])
            raise ExtractError(f"{named} cannot be read: {first_line(error)}.") from error
        except (OSError, EOFError) as error:
            raise unreadable(files[0], error) from error


def matching(patterns: Sequence[str]) -> list[Path]:
    """The files that `patterns` mean: in the order listed, matches of one pattern by name, each file once.

    A name that exists is that file, whatever glob characters it holds.

    Raises:
        SourceMissingError: a pattern means no file.
        ExtractError: one is a folder, or may not be read.
    """
    files = list(dict.fromkeys(file for pattern in patterns for file in _matches(pattern)))
    for file in files:
        _require_readable(file)
    return files


def _matches(pattern: str) -> list[Path]:
    path = os.path.expanduser(pattern)  # noqa: PTH111 - a text: Path would change 'a//b', and raises for '~nobody'
    if os.path.lexists(path):
        return [Path(path)]
    found = sorted(Path(match) for match in glob.glob(path, recursive=True))  # noqa: PTH207 - absolute and relative
    files = [match for match in found if match.is_file()]
    if files:
        return files
    if glob.has_magic(path):
        raise SourceMissingError(f"no file matches {pattern!r}. It was looked for in {str(Path.cwd())!r}.")
    folder = Path(path).parent
    if not folder.is_dir():
        raise SourceMissingError(f"there is no folder {str(folder)!r}. It was looked for in {str(Path.cwd())!r}.")
    beside = [entry.name for entry in folder.iterdir() if entry.is_file() and entry.suffix == Path(path).suffix]
    raise SourceMissingError(f"there is no file {pattern!r}.{did_you_mean(Path(path).name, beside, word='Present')}")


def _require_readable(file: Path) -> None:
    with readable(file):
        if not file.is_file():
            advice = f"Write {str(file / '*')!r}." if file.is_dir() else "Name a regular file."
            raise ExtractError(f"{str(file)!r} is {'a folder' if file.is_dir() else 'not a file'}. {advice}")
        file.open("rb").close()


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Turn what the system says about a file into our errors, once."""
    try:
        yield
    except (OSError, EOFError) as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: OSError | EOFError) -> ExtractError:
    """What the system says about a file, in our words."""
    if isinstance(error, FileNotFoundError):
        return SourceMissingError(f"there is no file {str(file)!r} any more.")
    if isinstance(error, PermissionError):
        return SourcePermissionError(f"{str(file)!r} may not be read. Grant it, or use another user.")
    reason = getattr(error, "strerror", None) or first_line(error)
    return ExtractError(f"{str(file)!r} cannot be read: {reason}. Is it a whole file?")


def opened(file: Path) -> IO[bytes]:
    """The bytes of a file, uncompressed."""
    with file.open("rb") as start:
        magic = start.read(4)
    if magic.startswith(_GZIP):
        return cast(IO[bytes], gzip.open(file))
    if magic == _ZSTD:
        import pyarrow as pa  # noqa: PLC0415 - 0.1 s that only such files need

        return io.BufferedReader(pa.input_stream(str(file), compression="zstd"))
    return file.open("rb")


def is_empty(file: Path) -> bool:
    """Whether there is nothing but white space at the start of a file."""
    with readable(file), opened(file) as stream:
        return not stream.read(4096).strip()


def streamed(frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Run a plan in the streaming engine, as its batches are asked for; a consumer that stops ends it."""
    yield from frame.collect_batches(engine="streaming", lazy=True)


def resized(frames: Iterable[pl.DataFrame], batch_bytes: int) -> Iterator[pl.DataFrame]:
    """The same rows in batches of about `batch_bytes`."""
    waiting: list[pl.DataFrame] = []
    held = 0
    for frame in frames:
        size = int(frame.estimated_size())
        rows = max(1, frame.height * batch_bytes // max(size, 1))
        for part in frame.iter_slices(rows) if frame.height > rows else [frame]:
            waiting.append(part)
            held += size * part.height // max(frame.height, 1)
            if held >= batch_bytes:
                yield pl.concat(waiting)
                waiting, held = [], 0
    if any(frame.height for frame in waiting):
        yield pl.concat(waiting)


def require_same_columns(columns: Mapping[Path, Iterable[str]]) -> None:
    """Confirm that files have the same columns; their order may differ.

    Raises:
        SourceMissingError: a file lacks a column that another one has.
    """
    for file, names in columns.items():
        for other, known in columns.items():
            if missing := [name for name in known if name not in set(names)]:
                raise SourceMissingError(
                    f"{str(file)!r} has no column {missing[0]!r}, which {str(other)!r} has. "
                    "Read them as two sources, or give them the same columns."
                )


def require_same_types(schemas: Mapping[Path, pl.Schema]) -> None:
    """Confirm that columns have one type in all files.

    Raises:
        SourceTypeError: one has not.
    """
    (first, known), *others = schemas.items()
    for file, schema in others:
        for name, dtype in schema.items():
            if name in known and known[name] != dtype:
                raise SourceTypeError(
                    f"column {name!r} is {known[name]} in {str(first)!r} and {dtype} in {str(file)!r}. "
                    "Write the files with one type, or read them as two sources."
                )


def require_declared(dtypes: Mapping[str, object], present: Iterable[str]) -> None:
    """Confirm that every column of ``dtypes`` is there.

    Raises:
        SourceMissingError: one is not; with did-you-mean.
    """
    names = list(present)
    for name in dtypes:
        if name not in names:
            hint = did_you_mean(name, names, word="Present")
            raise SourceMissingError(f"no column {name!r}, which 'dtypes' has.{hint}")


def first_line(error: BaseException) -> str:
    """What a foreign error says, as one line."""
    return " ".join(str(error).split("\n", maxsplit=1)[0].split()).rstrip(".")
