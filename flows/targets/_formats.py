"""How files are written: CSV, NDJSON, Parquet and Arrow IPC, each with the types that it can carry."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import polars as pl

from flows._sides import Side
from flows.targets import _lines
from flows.targets._lines import Compression
from flows.targets._sink import os_errors
from transforms._words import did_you_mean

Kind = Literal["csv", "ndjson", "parquet", "ipc"]

_NESTED = (pl.List, pl.Array, pl.Struct)


@dataclass(frozen=True)
class Format(ABC):
    """A way to write rows into a file."""

    name: ClassVar[Kind]
    refused: ClassVar[tuple[type[pl.DataType], ...]]

    def require(self, schema: pl.Schema, side: Side) -> None:
        """Confirm that every column comes back from a file as it went in.

        Raises:
            TargetTypeError: one does not; it is named.
        """
        for column, dtype in schema.items():
            if not self.carries(dtype):
                raise side.error(
                    "type",
                    f"column {column!r} is {dtype}, and {self.name} cannot carry that. Turn it into another type with "
                    "a 'calculate' or 'map' step, or write 'parquet'.",
                )

    def carries(self, dtype: pl.DataType) -> bool:
        """Whether values of a dtype come back from a file as they went in."""
        return not any(isinstance(part, self.refused) for part in _parts(dtype))

    def fitted(self, rows: pl.DataFrame, side: Side) -> Format:  # noqa: ARG002 - most formats carry every value
        """The format in the way that carries these rows, too.

        Raises:
            TargetTypeError: there is none; the column is named.
        """
        return self

    @abstractmethod
    def sink(self, frame: pl.LazyFrame, file: Path) -> None:
        """Write rows into a new file of this machine.

        Raises:
            OSError: it cannot be written.
        """

    @abstractmethod
    def columns(self, file: Path) -> pl.Schema | None:
        """What rows that are appended to a file have to be; a null dtype is any, None is anything."""

    @abstractmethod
    def rows(self, file: Path) -> int:
        """How many rows a file has.

        Raises:
            PolarsError: it is of another format.
        """

    @abstractmethod
    def join(self, old: Path, frame: pl.LazyFrame, file: Path) -> None:
        """Write the rows of an old file, and then those of `frame`, into a new one."""

    def aligned(self, old: Path, schema: pl.Schema, side: Side) -> list[str]:
        """The columns of `schema` in the order that an old file has them.

        Raises:
            TargetTypeError: they are not the same columns, or one has another type.
        """
        theirs = self.columns(old)
        if theirs is None:
            return list(schema)
        for column in schema:
            if column not in theirs:
                hint = did_you_mean(column, theirs, word="Present")
                raise side.error("type", f"column {column!r} is not in the file that is there.{hint}")
        for column, dtype in theirs.items():
            if column not in schema:
                raise side.error("type", f"the file that is there has a column {column!r}, and the load has none.")
            if dtype not in (pl.Null(), schema[column]):
                raise side.error(
                    "type",
                    f"column {column!r} is {schema[column]}, and {dtype} in the file that is there. Cast it in a step.",
                )
        return list(theirs)


@dataclass(frozen=True)
class Columnar(Format):
    """A format that knows its columns and their types."""

    refused: ClassVar[tuple[type[pl.DataType], ...]] = (pl.Object, pl.Unknown)

    @abstractmethod
    def scan(self, file: Path) -> pl.LazyFrame:
        """The rows of a file."""

    def columns(self, file: Path) -> pl.Schema:
        """Names and dtypes."""
        return self.scan(file).collect_schema()

    def rows(self, file: Path) -> int:
        """Those that the file says it has."""
        return _height(self.scan(file))

    def join(self, old: Path, frame: pl.LazyFrame, file: Path) -> None:
        """Write all rows again."""
        self.sink(pl.concat([self.scan(old), frame]), file)


@dataclass(frozen=True)
class Parquet(Columnar):
    """Parquet, compressed with zstd."""

    name: ClassVar[Kind] = "parquet"

    def sink(self, frame: pl.LazyFrame, file: Path) -> None:
        """Write rows."""
        with os_errors():
            frame.sink_parquet(file, compression="zstd")

    def scan(self, file: Path) -> pl.LazyFrame:
        """The rows of a file."""
        return pl.scan_parquet(file, glob=False, hive_partitioning=False)


@dataclass(frozen=True)
class Ipc(Columnar):
    """The Arrow IPC file format, compressed with zstd."""

    name: ClassVar[Kind] = "ipc"

    def sink(self, frame: pl.LazyFrame, file: Path) -> None:
        """Write rows."""
        with os_errors():
            frame.sink_ipc(file, compression="zstd")

    def scan(self, file: Path) -> pl.LazyFrame:
        """The rows of a file."""
        return pl.scan_ipc(file, glob=False, hive_partitioning=False)


@dataclass(frozen=True)
class Lines(Format):
    """A format of lines of text; files of it can be laid end to end, compressed ones too."""

    compression: Compression = "uncompressed"

    def join(self, old: Path, frame: pl.LazyFrame, file: Path) -> None:
        """Copy the old bytes, and write the new rows behind them."""
        new = file.with_name(f"{file.name}.new")
        self._sink(frame, new, first=False)
        with file.open("wb") as whole:
            with old.open("rb") as part:
                shutil.copyfileobj(part, whole, _lines.BLOCK_BYTES)
            if not _lines.ends_line(old, self.compression):
                whole.write(_lines.packed(b"\n", self.compression))
            with new.open("rb") as part:
                shutil.copyfileobj(part, whole, _lines.BLOCK_BYTES)
        new.unlink()

    def sink(self, frame: pl.LazyFrame, file: Path) -> None:
        """Write rows."""
        self._sink(frame, file, first=True)

    @abstractmethod
    def _sink(self, frame: pl.LazyFrame, file: Path, *, first: bool) -> None: ...


@dataclass(frozen=True)
class Csv(Lines):
    """CSV by RFC 4180, but for the ends of lines; an empty field is null, ``""`` an empty text.

    Attributes:
        quoted: whether every text has quotes; otherwise those that need them.
    """

    name: ClassVar[Kind] = "csv"
    refused: ClassVar[tuple[type[pl.DataType], ...]] = (*_NESTED, pl.Binary, pl.Duration, pl.Object, pl.Unknown)
    delimiter: str = ","
    quote_char: str = '"'
    has_header: bool = True
    null_value: str = ""
    quoted: bool = False

    def fitted(self, rows: pl.DataFrame, side: Side) -> Csv:  # noqa: ARG002 - the signature of every format
        """With quotes around every text, once one of them could be mistaken for the end of a line or for a null."""
        texts = [name for name, dtype in rows.schema.items() if dtype in (pl.String, pl.Categorical, pl.Enum)]
        if self.quoted or not texts:
            return self
        each = [pl.col(name).cast(pl.String) for name in texts]
        odd = [text.str.contains("\r", literal=True).any() for text in each]
        if self.null_value:
            odd += [(text == self.null_value).any() for text in each]
        return replace(self, quoted=True) if rows.select(pl.any_horizontal(odd)).item() else self

    def columns(self, file: Path) -> pl.Schema | None:
        """The names of the first line; types are anything."""
        if not self.has_header:
            return None
        names = pl.scan_csv(
            file, separator=self.delimiter, quote_char=self.quote_char, infer_schema=False, glob=False, n_rows=0
        ).collect_schema()
        return pl.Schema(dict.fromkeys(names, pl.Null()))

    def rows(self, file: Path) -> int:
        """Those between the ends of lines that no quotes are around."""
        return _height(
            pl.scan_csv(
                file,
                separator=self.delimiter,
                quote_char=self.quote_char,
                has_header=self.has_header,
                infer_schema=False,
                truncate_ragged_lines=True,
                glob=False,
            )
        )

    def _sink(self, frame: pl.LazyFrame, file: Path, *, first: bool) -> None:
        with os_errors():
            frame.sink_csv(
                file,
                compression=self.compression,
                check_extension=False,
                include_header=self.has_header and first,
                separator=self.delimiter,
                quote_char=self.quote_char,
                null_value=self.null_value,
                quote_style="non_numeric" if self.quoted else "necessary",
            )


@dataclass(frozen=True)
class Ndjson(Lines):
    """A JSON object on each line; decimals, dates and times are texts, and every column is there in every line."""

    name: ClassVar[Kind] = "ndjson"
    refused: ClassVar[tuple[type[pl.DataType], ...]] = (pl.Binary, pl.Duration, pl.Object, pl.Unknown)

    def fitted(self, rows: pl.DataFrame, side: Side) -> Ndjson:
        """Confirm that every number is one: JSON has no NaN and no infinity, and Polars would write null."""
        checks = {
            name: finite for name, dtype in rows.schema.items() if (finite := _finite(pl.col(name), dtype)) is not None
        }
        if checks:
            good = rows.select(check.all().alias(name) for name, check in checks.items()).row(0, named=True)
            for column in (name for name, is_good in good.items() if is_good is False):
                raise side.error(
                    "type",
                    f"column {column!r} has NaN or infinity, and ndjson cannot carry that. Turn them into null with a "
                    "'calculate' step, or write 'parquet' or 'csv'.",
                )
        return self

    def columns(self, file: Path) -> None:
        """Anything."""

    def rows(self, file: Path) -> int:
        """Its lines; a text has none of their ends in it."""
        return _lines.lines(file, self.compression)

    def _sink(self, frame: pl.LazyFrame, file: Path, *, first: bool) -> None:  # noqa: ARG002 - there is no header
        with os_errors():
            frame.sink_ndjson(file, compression=self.compression, check_extension=False)


def _height(rows: pl.LazyFrame) -> int:
    rows_there: int = rows.select(pl.len()).collect(engine="streaming").item()
    return rows_there


def _parts(dtype: pl.DataType) -> Iterator[pl.DataType]:
    """A dtype, and those that it is made of."""
    yield dtype
    if isinstance(dtype, pl.List | pl.Array):
        yield from _parts(dtype.inner)  # type: ignore[arg-type] # a schema's dtypes are instances
    elif isinstance(dtype, pl.Struct):
        for field in dtype.fields:
            yield from _parts(field.dtype)  # type: ignore[arg-type] # as above


def _finite(value: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    """Whether every number in a value is finite; null has no opinion. None where there cannot be one that is not."""
    if dtype.is_float():
        return value.is_finite()
    if isinstance(dtype, pl.List | pl.Array):
        inner = _finite(pl.element(), dtype.inner)  # type: ignore[arg-type] # as above
        lists = value if isinstance(dtype, pl.List) else value.arr.to_list()
        return None if inner is None else lists.list.eval(inner).list.all()
    if isinstance(dtype, pl.Struct):
        fields = [_finite(value.struct.field(one.name), one.dtype) for one in dtype.fields]  # type: ignore[arg-type] # as above
        found = [field for field in fields if field is not None]
        return pl.all_horizontal(field.fill_null(value=True) for field in found) if found else None
    return None
