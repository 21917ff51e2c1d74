"""Rows of files: where they are, how they are written, and what becomes of those that are none."""

from __future__ import annotations

import codecs
import re
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from flows._storage import StorageOptions, require_known, scheme_of
from flows.sources import _texts
from flows.sources._base import OUTSIDE, Context, Extract, Source, source
from flows.sources._csv_records import RaggedRows
from flows.sources._file_kinds import BELONGS, KINDS, TABLES, TYPED, Kind, kind_of
from transforms._types import dtype_named

_PASSWORD_IN_URL = re.compile(r"^[^/]*://[^/]*:[^/@]*@")


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _places(paths: tuple[str, ...]) -> tuple[str, ...]:
    if not paths or "" in paths:
        raise ValueError("a path is missing. Name a file, or several with a pattern: data/*.csv.")
    if any(_PASSWORD_IN_URL.match(path) for path in paths):
        raise ValueError("a password stands in the URL. Put 'username' and 'password' into 'storage_options'.")
    return paths


def _one_byte(text: str) -> str:
    if len(text.encode()) != 1 or text in "\r\n":
        raise ValueError(f"{text!r} is not one ASCII character.")
    return text


def _text_type(name: str) -> str:
    _texts.require_readable(dtype_named(name))
    return name


def _encoding(name: str) -> str:
    plain = name.lower().replace("_", "-")
    if plain in {"utf8", "utf-8", "utf8-lossy", "utf-8-lossy", "utf-8-sig"}:
        return "utf8-lossy" if plain.endswith("lossy") else "utf8"
    try:
        "".encode(name).decode(name)
        codecs.getincrementaldecoder(name)
    except LookupError:
        raise ValueError(
            f"{name!r} is no encoding of texts. Known are utf8, utf8-lossy, latin-1, cp1252, ..."
        ) from None
    return name


Texts = Annotated[tuple[str, ...], BeforeValidator(_listed, json_schema_input_type=str | list[str])]
Paths = Annotated[Texts, AfterValidator(_places)]
Byte = Annotated[str, AfterValidator(_one_byte)]
TypeName = Annotated[str, AfterValidator(_text_type)]
Lines = Annotated[int, Field(ge=0)]


@source
class File(Source):
    """Files of this machine, of S3, or of a server: ``path`` is a name, a glob (``data/**/*.csv``) or a list of them.

    A path of this machine is relative to the working directory; ``~`` is the home folder; a name that exists is that
    file, whatever brackets or stars it holds. Others are URLs: ``s3://``, ``https://``, ``sftp://``, ``memory://``,
    with ``storage_options`` (``key``, ``secret``, ``endpoint_url``, ``region`` of S3; ``username``, ``password``,
    ``token`` of a web server; ``username``, ``password``, ``key_filename`` of sftp). They are brought here one at a
    time; of Parquet and tables on S3 only the parts that are wanted. The ``format`` is told by the suffix, behind
    which ``.gz``, ``.zst`` (texts) or ``.zip`` may stand. The files are one set of rows: they have the same columns,
    with one type each. ``columns`` are the columns that the pipeline *delivers*; a step may use any other.

    ```yaml
    source:
      type: file
      path: s3://sales/orders/year=*/*.csv.gz
      storage_options: {key: "${S3_KEY}", secret: "${S3_SECRET}"}
      dtypes: {order_id: bigint, amount: "numeric(12, 2)"}
      hive_partitioning: true
      only_new: true
    ```

    **csv** has ``delimiter``, ``quote_char`` (null for none), ``escape_char``, ``eol_char``, ``has_header`` (false:
    the columns are ``column_names``, or column_0, column_1, ...), ``skip_rows`` (lines before the header),
    ``skip_rows_after_header``, ``comment_prefix``, ``null_values``, ``decimal_comma``, ``encoding`` (utf8, utf8-lossy,
    or any other: it is written anew as UTF-8 first) and ``ragged_rows``: a row with too many or too few fields is
    ``malformed``; ``truncate`` drops the fields beyond the header, ``pad`` puts nulls for those that lack, ``fit``
    does both. A column has the type in ``dtypes``, or one that *every* value in every file is written as: true/false,
    Int64, Float64, dates and timestamps in ISO 8601. So 00123 stays a text, and so do +49, 12E4, 01/02/2024 and
    numbers of more than 18 digits. An empty field is null, ``""`` an empty text. Decimals are Float64 unless
    ``dtypes`` says ``numeric(p, s)``, which is exact. A quote in a quoted text that is not doubled is dropped, as
    PostgreSQL's COPY does; a blank line is no row.

    **ndjson** and **json** have ``dtypes`` too. A field that a row lacks is null; a field that is a number here
    and a text there is a text; objects stay structs, and are texts where none has a field. A field of many shapes is
    read if it is declared ``text``. A ``.json`` array is read whole: use lines for large data.

    **parquet**, **ipc** (Arrow, Feather) and **avro** bring their types; a column of nothing but nulls, which may have
    none, has that of the other files, or is text. Parquet leaves row groups out that a filter does not want; avro is
    read whole. **excel** reads a ``sheet`` (a name or a number from 1) whole.

    **delta** and **iceberg** are tables: ``path`` is one folder of this machine or on S3 (of Iceberg: or a metadata
    file; catalogues are not asked). ``version`` is the number of a version, of Delta also a moment, of Iceberg a
    snapshot; the newest one otherwise, the same for the whole run.

    A record that is no row (broken quotes, wrong number of fields, bytes that are no text, a line that is no JSON, a
    value that is not of its type in ``dtypes``) goes to quarantine with its file and line, and counts against
    ``max_failed_ratio``; with ``on_malformed: fail`` it stops the run.

    Attributes:
        hive_partitioning: whether folders ``key=value`` are columns. A filter on them leaves whole files out.
        only_new: whether files that were read by a run that published to this target are left out. A file whose size
            or modification (on S3: ETag) changed is new again, as a whole.
        source_file_column: a column with the name of the file; ``true`` calls it ``_lockgate_source_file``.
        modified_at_column: a column with the moment when the file was modified; ``true`` calls it
            ``_lockgate_modified_at``. As ``incremental.cursor_field``, it leaves older files out.
        on_malformed: whether a record that is no row goes to quarantine, or stops the run.
        batch_bytes: how much is read at a time.

    Out: the columns of the files, in the order of the first one, then those of folders and names; rows file by file, in
    the order listed, matches of a glob by name. A timestamp without a zone that is declared timestamptz is in UTC.
    """

    type: Literal["file"] = "file"
    path: Paths
    format: Kind | None = None
    storage_options: Annotated[StorageOptions, Field(default_factory=dict)]
    columns: tuple[str, ...] | None = None
    dtypes: Annotated[dict[str, TypeName], Field(default_factory=dict)]
    delimiter: Byte = ","
    quote_char: Byte | None = '"'
    escape_char: Byte | None = None
    eol_char: Annotated[str, Field(min_length=1, max_length=1, pattern=r"^[\x00-\x7f]$")] = "\n"
    has_header: bool = True
    column_names: tuple[str, ...] | None = None
    skip_rows: Lines = 0
    skip_rows_after_header: Lines = 0
    comment_prefix: Annotated[str, Field(min_length=1)] | None = None
    null_values: Texts = ()
    decimal_comma: bool = False
    ragged_rows: RaggedRows = "malformed"
    encoding: Annotated[str, AfterValidator(_encoding)] = "utf8"
    sheet: str | Annotated[int, Field(ge=1)] = 1
    version: int | datetime | None = None
    hive_partitioning: bool = False
    only_new: bool = False
    source_file_column: bool | str = False
    modified_at_column: bool | str = False
    on_malformed: Literal["quarantine", "fail"] = "quarantine"
    batch_bytes: Annotated[int, Field(ge=64_000, le=256_000_000)] = 4_000_000

    @model_validator(mode="after")
    def _one_format(self) -> Self:
        kind = self.kind
        for key, kinds in BELONGS.items():
            if key in self.model_fields_set and kind not in kinds:
                raise ValueError(f"{key!r} belongs to format {', '.join(kinds)}, and this is {kind}. Remove it.")
        if kind in TYPED and self.dtypes and not self.hive_partitioning:
            raise ValueError(f"a {kind} file brings its types. Remove 'dtypes', and cast with a 'map' step.")
        self._hold_dialect()
        if kind in TABLES:
            self._hold_table()
        for path in self.path:
            require_known(self.storage_options, scheme_of(path))
        return self

    def _hold_dialect(self) -> None:
        if self.quote_char == self.delimiter:
            raise ValueError(f"'delimiter' and 'quote_char' are both {self.delimiter!r}. Change one of them.")
        if self.escape_char is not None and self.quote_char is None:
            raise ValueError("'escape_char' needs a 'quote_char'. Give one.")
        if self.escape_char is not None and self.escape_char in {self.quote_char, self.delimiter}:
            raise ValueError(f"'escape_char' is {self.escape_char!r}, which means something else already. Remove it.")
        if self.decimal_comma and self.delimiter == ",":
            raise ValueError("with 'decimal_comma' the 'delimiter' cannot be ',' as well. Set it: ';'.")

    def _hold_table(self) -> None:
        if len(self.path) > 1 or scheme_of(self.path[0]) not in {"file", "s3"}:
            raise ValueError(f"a table of format {self.kind} is one folder, of this machine or on S3.")
        of_files = ("only_new", "hive_partitioning", "source_file_column", "modified_at_column")
        wrong = [key for key in of_files if getattr(self, key)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is for files, and {self.kind} is a table. Remove it.")
        if self.kind == "iceberg" and isinstance(self.version, datetime):
            raise ValueError("'version' of an Iceberg table is the number of a snapshot.")

    @property
    def declared(self) -> tuple[str, ...] | None:
        """``columns``, where they are given."""
        return self.columns

    @property
    def remembers(self) -> bool:
        """``only_new``."""
        return self.only_new

    @property
    def kind(self) -> Kind:
        """The format, as given or as the suffixes tell.

        Raises:
            ValueError: they do not tell one.
        """
        if self.format is not None:
            return self.format
        kinds = {kind_of(path) for path in self.path}
        if len(kinds) > 1 or None in kinds:
            raise ValueError(f"the suffix of 'path' tells no single format. Set 'format': {', '.join(KINDS)}.")
        (kind,) = kinds
        assert kind is not None  # noqa: S101 - ruled out above
        return kind

    def scan(self, name: str, context: Context = OUTSIDE) -> Extract:
        """Find the files and learn their columns; the types of texts are inferred from every row.

        Raises:
            ExtractError: a file is missing, cannot be read, or does not fit the others.
        """
        from flows.sources import _file_opening  # noqa: PLC0415 - what only a run needs

        found = _file_opening.opened(self, name, context)
        return Extract(
            name,
            found.scan.whole_schema,
            found.scan.read,
            found.described,
            found.pushed,
            self.declared,
            state=found.state,
        )

    def check(self) -> None:
        """Find the files and learn their columns.

        Raises:
            ExtractError: `scan` would not work.
        """
        self.scan("source", Context(sample=True))
