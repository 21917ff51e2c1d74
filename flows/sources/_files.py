"""What a format of files must know, and what all formats share.

A format reads one file at a time, so that every error can name its file, and rows come file by file
in an order that does not change from run to run.
"""

from __future__ import annotations

import gzip
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, ClassVar, cast

import polars as pl

from flows._errors import ExtractError, SourceMissingError, SourceTypeError
from flows.sources._base import Batch, Malformed, Pushdown
from flows.sources._broken import STOPPED, Read
from flows.sources._brought import Piece
from flows.sources._found import readable, unreadable
from transforms._words import did_you_mean

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Format(ABC):
    """How files of one format are read; all of them together are one set of rows."""

    #: Whether rows that a predicate does not want are left out while reading.
    pushes_predicates: ClassVar[bool] = False
    #: Kinds of places from which Polars reads itself; files of all other places are brought here first.
    read_in_place: ClassVar[frozenset[str]] = frozenset({"file"})
    #: Whether a path names a table, which is a folder.
    is_table: ClassVar[bool] = False

    @abstractmethod
    def look(self, piece: Piece) -> Any:
        """What a file tells about its columns; None where it tells nothing.

        Raises:
            ExtractError: it cannot be read.
        """

    @abstractmethod
    def agreed(self, looks: Mapping[str, Any], known: pl.Schema | None) -> pl.Schema:
        """The columns that all files have, by what each file, by its name, told; `known` is from files read before.

        Raises:
            ExtractError: they do not agree.
        """

    @abstractmethod
    def rows(self, piece: Piece, schema: pl.Schema, ask: Pushdown) -> Iterator[Read]:
        """Stream the rows of one file; `ask` names its columns.

        A format that has types to check may give more rows than the limit.
        """

    def require_whole(self, piece: Piece) -> None:
        """Look for the place where the file is wrong, after Polars said that one is.

        Raises:
            ExtractError: it was found; the message names the place.
        """
        del piece

    @contextmanager
    def mapped(self, piece: Piece) -> Iterator[None]:
        """Turn what Polars says about a file into our errors, once."""
        try:
            yield
        except STOPPED as error:
            try:
                self.require_whole(piece)
            except ExtractError as found:
                raise found from error
            raise ExtractError(f"{piece.name!r} cannot be read: {first_line(error)}.") from error
        except (OSError, EOFError) as error:
            raise unreadable(piece.name, error) from error


def is_compressed(magic: bytes) -> bool:
    """Whether a file that begins so is gzip or zstd."""
    return magic.startswith(_GZIP) or magic == _ZSTD


def opened(file: Path) -> IO[bytes]:
    """The bytes of a file, uncompressed."""
    with file.open("rb") as start:
        magic = start.read(4)
    if not is_compressed(magic):
        return file.open("rb")
    if magic.startswith(_GZIP):
        return cast(IO[bytes], gzip.open(file))
    import pyarrow as pa  # noqa: PLC0415 - 0.1 s that only such files need

    return io.BufferedReader(pa.input_stream(str(file), compression="zstd"))


def is_empty(piece: Piece) -> bool:
    """Whether there is nothing but white space at the start of a file."""
    with readable(piece.name), opened(piece.file) as stream:
        return not stream.read(4096).strip()


def streamed(frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Run a plan in the streaming engine, as its batches are asked for; a consumer that stops ends it."""
    yield from frame.collect_batches(engine="streaming", lazy=True)


def resized(batches: Iterable[Batch], batch_bytes: int) -> Iterator[Batch]:
    """The same rows in batches of about `batch_bytes`; what is no row stays where it stands."""
    waiting: list[pl.DataFrame] = []
    held = 0
    for batch in batches:
        if isinstance(batch, Malformed):
            yield from [pl.concat(waiting)] if waiting else []
            waiting, held = [], 0
            yield batch
            continue
        size = int(batch.estimated_size())
        rows = max(1, batch.height * batch_bytes // max(size, 1))
        for part in batch.iter_slices(rows) if batch.height > rows else [batch]:
            waiting.append(part)
            held += size * part.height // max(batch.height, 1)
            if held >= batch_bytes:
                yield pl.concat(waiting)
                waiting, held = [], 0
    if any(frame.height for frame in waiting):
        yield pl.concat(waiting)


def asked(frame: pl.LazyFrame, ask: Pushdown) -> Iterator[Read]:
    """What `ask` wants of the rows of a frame whose types are right; a limit counts before a predicate."""
    if ask.limit is not None:
        frame = frame.head(ask.limit)
    if ask.predicate is not None:
        frame = frame.filter(ask.predicate)
    yield from map(Read, streamed(frame.select(list(ask.columns) if ask.columns is not None else pl.all())))


def require_same_columns(columns: Mapping[str, Iterable[str]]) -> None:
    """Confirm that files have the same columns; their order may differ.

    Raises:
        SourceMissingError: a file lacks a column that another one has.
    """
    (first, known), *others = ((file, list(names)) for file, names in columns.items())
    for file, names in others:
        for lacking, has, lacked in ((first, file, set(names) - set(known)), (file, first, set(known) - set(names))):
            if lacked:
                missing = next(name for name in [*known, *names] if name in lacked)
                raise SourceMissingError(
                    f"{lacking!r} has no column {missing!r}, which {has!r} has. "
                    "Read them as two sources, or give them the same columns."
                )


def require_same_types(schemas: Mapping[str, pl.Schema]) -> None:
    """Confirm that columns have one type in all files.

    Raises:
        SourceTypeError: one has not.
    """
    (first, known), *others = schemas.items()
    for file, schema in others:
        for name, dtype in schema.items():
            if name in known and known[name] != dtype:
                raise SourceTypeError(
                    f"column {name!r} is {known[name]} in {first!r} and {dtype} in {file!r}. "
                    "Write the files with one type, or read them as two sources."
                )


def same_schema(looks: Mapping[str, pl.Schema]) -> pl.Schema:
    """The schema that all files have, which say it themselves.

    Raises:
        ExtractError: they do not agree.
    """
    require_same_columns(looks)
    (first, known), *others = looks.items()
    found = {name: (first, dtype) for name, dtype in known.items()}
    for file, schema in others:
        for name, (holder, dtype) in found.items():
            common = _filled(dtype, schema[name])
            if common is None:
                require_same_types({holder: pl.Schema({name: dtype}), file: pl.Schema({name: schema[name]})})
            elif common != dtype:
                found[name] = (file, common)
    return pl.Schema({name: settled(dtype) for name, (_holder, dtype) in found.items()})


def settled(dtype: pl.DataType) -> pl.DataType:
    """A type that every target has: text where no row has a value, and for objects without a field."""
    if isinstance(dtype, pl.Struct) and dtype.fields:
        return pl.Struct({inner.name: settled(inner.dtype) for inner in dtype.fields})  # type: ignore[arg-type]  # Polars: class or instance
    if isinstance(dtype, pl.List):
        return pl.List(settled(dtype.inner))  # type: ignore[arg-type]  # Polars: class or instance
    return pl.String() if dtype in (pl.Null(), pl.Struct([])) else dtype


def fitted(frame: pl.LazyFrame, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """A file's frame with the type of all files for what has no value, and so no type, in this one."""
    casts = [
        pl.col(name).cast(schema[name])
        for name, dtype in frame.collect_schema().items()
        if dtype != schema[name] and settled(_filled(dtype, schema[name]) or dtype) == schema[name]
    ]
    return frame.with_columns(casts) if casts else frame


def _filled(dtype: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    """Two types as one, where they differ only in what has no value; None where they differ."""
    if pl.Null() in (dtype, other):
        return other if dtype == pl.Null() else dtype
    if isinstance(dtype, pl.List) and isinstance(other, pl.List):
        inner = _filled(dtype.inner, other.inner)  # type: ignore[arg-type]  # Polars: class or instance
        return None if inner is None else pl.List(inner)
    if isinstance(dtype, pl.Struct) and isinstance(other, pl.Struct):
        names = [inner.name for inner in dtype.fields]
        if names != [inner.name for inner in other.fields]:
            return None
        both = [_filled(a.dtype, b.dtype) for a, b in zip(dtype.fields, other.fields, strict=True)]  # type: ignore[arg-type]  # Polars: class or instance
        return None if None in both else pl.Struct(dict(zip(names, both, strict=True)))  # type: ignore[arg-type]  # Polars: class or instance
    return dtype if dtype == other else None


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
