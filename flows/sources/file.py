"""Rows of local files: CSV, JSON and Parquet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

import polars as pl
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from flows._errors import ExtractError, SourceMissingError
from flows.sources import _files, _texts
from flows.sources._base import OUTSIDE, Context, Extract, Pushdown, Source, source
from flows.sources._csv import Csv, Encoding
from flows.sources._json import Json
from flows.sources._parquet import Parquet
from transforms._types import dtype_named
from transforms._words import counted, did_you_mean

Kind = Literal["csv", "ndjson", "json", "parquet"]

_SUFFIXES: dict[str, Kind] = {
    ".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "json", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_COMPRESSED = {".gz", ".zst"}
_ELSEWHERE = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_CSV_KEYS = ("delimiter", "quote_char", "has_header", "null_values", "encoding")


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _local(paths: tuple[str, ...]) -> tuple[str, ...]:
    if not paths or "" in paths:
        raise ValueError("a path is missing. Name a file, or several with a pattern: data/*.csv.")
    for path in paths:
        if remote := _ELSEWHERE.match(path):
            raise ValueError(f"files at '{remote[1]}://' cannot be read in this version. Name files of this machine.")
    return paths


def _one_byte(text: str) -> str:
    if len(text.encode()) != 1 or text in "\r\n":
        raise ValueError(f"{text!r} is not one ASCII character.")
    return text


def _text_type(name: str) -> str:
    _texts.require_readable(dtype_named(name))
    return name


Texts = Annotated[tuple[str, ...], BeforeValidator(_listed, json_schema_input_type=str | list[str])]
Paths = Annotated[Texts, AfterValidator(_local)]
Byte = Annotated[str, AfterValidator(_one_byte)]
TypeName = Annotated[str, AfterValidator(_text_type)]


@source
class File(Source):
    """Files of this machine: ``path`` is a name, a glob (``data/*.csv``, ``data/**/*.parquet``) or a list of them.

    A path is relative to the working directory; ``~`` is the home folder; a name that exists is that file,
    whatever brackets or stars it holds. The ``format`` (csv, ndjson, json, parquet) is told by the suffix, behind
    which ``.gz`` or ``.zst`` may stand. The files are one set of rows: they have the same columns, with one
    type each. ``columns`` are the columns that the pipeline *delivers*; a step may use any other.

    **csv** has ``delimiter``, ``quote_char`` (null for none), ``has_header`` (false: the columns are column_0,
    column_1, ...), ``null_values`` and ``encoding`` (utf8, utf8-lossy). A column has the type in ``dtypes``, or
    one that *every* value in every file is written as: true/false, Int64, Float64, dates and timestamps in ISO 8601.
    So 00123 stays a text, and so do +49, 12E4, 01/02/2024 and numbers of more than 18 digits. An empty field
    is null, ``""`` an empty text. Decimals are Float64 unless ``dtypes`` says ``numeric(p, s)``, which is exact.

    **ndjson** and **json** have ``dtypes`` too. A field that a row lacks is null; a field that is a number here
    and a text there is a text; objects stay structs. A ``.json`` array is read whole: use lines for large data.

    **parquet** brings its types, and leaves row groups out that a filter does not want.

    Attributes:
        batch_bytes: how much is read at a time.

    Out: the columns of the files, in the order of the first one; rows file by file, in the order listed, matches of
    a glob by name. A timestamp without a zone that is declared timestamptz is in UTC.
    """

    type: Literal["file"] = "file"
    path: Paths
    format: Kind | None = None
    columns: tuple[str, ...] | None = None
    dtypes: Annotated[dict[str, TypeName], Field(default_factory=dict)]
    delimiter: Byte = ","
    quote_char: Byte | None = '"'
    has_header: bool = True
    null_values: Texts = ()
    encoding: Encoding = "utf8"
    batch_bytes: Annotated[int, Field(ge=64_000, le=256_000_000)] = 4_000_000

    @model_validator(mode="after")
    def _one_format(self) -> Self:
        kind = self.kind
        if kind != "csv" and (wrong := [key for key in _CSV_KEYS if key in self.model_fields_set]):
            raise ValueError(f"{wrong[0]!r} belongs to format csv, and this is {kind}. Remove it.")
        if kind == "parquet" and self.dtypes:
            raise ValueError("a parquet file brings its types. Remove 'dtypes', and cast with a 'map' step.")
        if self.quote_char == self.delimiter:
            raise ValueError(f"'delimiter' and 'quote_char' are both {self.delimiter!r}. Change one of them.")
        return self

    @property
    def declared(self) -> tuple[str, ...] | None:
        """``columns``, where they are given."""
        return self.columns

    @property
    def kind(self) -> Kind:
        """The format, as given or as the suffixes tell.

        Raises:
            ValueError: they do not tell one.
        """
        if self.format is not None:
            return self.format
        kinds = {_kind_of(path) for path in self.path}
        if len(kinds) > 1 or None in kinds:
            raise ValueError(f"the suffix of 'path' tells no single format. Set 'format': {', '.join(_KINDS)}.")
        (kind,) = kinds
        assert kind is not None  # noqa: S101 - ruled out above
        return kind

    def scan(self, name: str, context: Context = OUTSIDE) -> Extract:  # noqa: ARG002 - reads again what it is asked for
        """Find the files and learn their columns; the types of texts are inferred from every row.

        Raises:
            ExtractError: a file is missing, cannot be read, or does not fit the others.
        """
        with _labelled(name):
            files = _files.matching(self.path)
            format_ = self._format()
            with format_.mapped(files):
                schema = format_.schema(files)
            for column in self.declared or ():
                if column not in schema:
                    raise SourceMissingError(f"no column {column!r}.{did_you_mean(column, schema, word='Present')}")
        return _Scan(self, name, files, format_, schema).extract()

    def check(self) -> None:
        """Find the files and learn their columns.

        Raises:
            ExtractError: `scan` would not work.
        """
        self.scan("source")

    def _format(self) -> _files.Format:
        dtypes: Mapping[str, pl.DataType] = {column: dtype_named(name) for column, name in self.dtypes.items()}
        if self.kind == "csv":
            return Csv(dtypes, self.delimiter, self.quote_char, self.has_header, self.null_values, self.encoding)
        if self.kind == "parquet":
            return Parquet()
        return Json(dtypes, lines=True if self.kind == "ndjson" else None)


class _Scan:
    """The files that were found, and the rows they give."""

    def __init__(self, options: File, name: str, files: list[Path], format_: _files.Format, schema: pl.Schema) -> None:
        self.options = options
        self.name = name
        self.files = files
        self.format = format_
        self.schema = schema

    def extract(self) -> Extract:
        return Extract(self.name, self.schema, self.read, self.describe, self.pushed, self.options.declared)

    def pushed(self, pushdown: Pushdown) -> str | None:
        """The predicate, where the format leaves rows out while reading."""
        predicate = self._asked(pushdown).predicate
        return None if predicate is None else " ".join(str(predicate).split())

    def describe(self, pushdown: Pushdown) -> str:
        """Which files and what of them, in one line."""
        names = ", ".join(pushdown.columns if pushdown.columns is not None else self.schema)
        where = f" where {pushed}" if (pushed := self.pushed(pushdown)) else ""
        limit = f" limit {pushdown.limit}" if pushdown.limit is not None else ""
        files = counted(len(self.files), "file")
        return f"{self.options.kind} {', '.join(map(repr, self.options.path))} ({files}): {names}{where}{limit}"

    def read(self, pushdown: Pushdown) -> Iterator[pl.DataFrame]:
        """Stream the rows, one file after the other, in batches of about ``batch_bytes``."""
        yield from _files.resized(self._rows(pushdown), self.options.batch_bytes)

    def _rows(self, pushdown: Pushdown) -> Iterator[pl.DataFrame]:
        ask = self._asked(pushdown)
        for file in self.files:
            if ask.limit == 0:
                return
            with _labelled(self.name), self.format.mapped([file]):
                for batch in self.format.rows(file, self.schema, ask):
                    yield batch
                    if ask.limit is not None:
                        ask = replace(ask, limit=ask.limit - batch.height)

    def _asked(self, pushdown: Pushdown) -> Pushdown:
        """What the format can do of it; a limit counts before a predicate, so only one of them is used."""
        columns = pushdown.columns if pushdown.columns is not None else tuple(self.schema)
        pushes = self.format.pushes_predicates and pushdown.limit is None
        return Pushdown(columns, pushdown.predicate if pushes else None, pushdown.limit)


_KINDS = tuple(dict.fromkeys(_SUFFIXES.values()))


def _kind_of(path: str) -> Kind | None:
    name = Path(path)
    if name.suffix in _COMPRESSED:
        name = name.with_suffix("")
    return _SUFFIXES.get(name.suffix.lower())


@contextmanager
def _labelled(name: str) -> Iterator[None]:
    """Say in an error which source it is about."""
    try:
        yield
    except ExtractError as error:
        raise type(error)(f"source {name!r}: {error.message}", source=name) from error.__cause__
