"""A file, or a folder of part files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import polars as pl
from pydantic import AfterValidator, Field, model_validator

from flows._ledger import RunRecord
from flows._quarantine import Marks, Quarantine, Status
from flows._sides import Side
from flows._storage import StorageOptions, Store, require_known, scheme_of
from flows.targets._base import Chamber, Target, target
from flows.targets._modes import AddOrReplace, ConcurrentRuns

if TYPE_CHECKING:
    from flows.targets._file_chamber import Wish
    from flows.targets._formats import Format
    from flows.targets._places import Place

Kind = Literal["csv", "ndjson", "parquet", "ipc"]

_SUFFIXES: dict[str, Kind] = {
    ".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet", ".pq": "parquet",
    ".ipc": "ipc", ".arrow": "ipc", ".feather": "ipc",
}  # fmt: skip
_COMPRESSED: dict[str, Literal["gzip", "zstd"]] = {".gz": "gzip", ".zst": "zstd"}
_CSV_KEYS = ("delimiter", "quote_char", "has_header", "null_value")
_PART = "{part}"


def _one_byte(text: str) -> str:
    if len(text.encode()) != 1 or text in "\r\n":
        raise ValueError(f"{text!r} is not one ASCII character.")
    return text


Byte = Annotated[str, AfterValidator(_one_byte)]


@target
class File(Target):
    """One file, or a folder of part files, that readers see whole or not at all.

    ``path`` is a name or an ``s3://bucket/key``; ``~`` is the home folder. The ``format`` (csv, ndjson, parquet, ipc)
    is told by the suffix; behind ``.csv`` and ``.ndjson`` may stand ``.gz`` or ``.zst``. A path that ends in ``/``, or
    whose name has ``{part}`` in it (``out/orders-{part}.csv.gz``), is a folder of part files of about
    ``target_file_bytes`` each, and of nothing else; ``{part}`` is the run and a number. Folders of this machine only:
    on S3 a target of type ``data_lake`` does that.

    ``overwrite`` (or ``replace``) makes the rows the only ones; a load without rows is refused, unless ``allow_empty``.
    ``append`` adds them: a folder gets further parts, a single file is written again with old and new rows. The
    columns then are those that are there, in any order.

    A file is replaced by one rename, a folder by one exchange of two folders, an object by one put: who opens it
    meanwhile reads the old rows or the new ones. One run at a time writes there; on S3, where nothing can be locked,
    the second of two runs that overlap ends with an error and can run again. Beside the file, in ``_lockgate/``, the
    ledger, the quarantine and the state are kept.

    **csv** has ``delimiter``, ``quote_char``, ``has_header`` and ``null_value``: what a null is written as. It is
    empty unless given, and an empty text is ``""``. Dates and timestamps are in ISO 8601. **csv** cannot carry lists,
    structs, binary and durations; **ndjson** no binary, durations, NaN and infinity. Such columns are refused by name,
    and before a row is read where their type says so.

    Attributes:
        path: of the file, or of the folder.
        format: where the suffix does not tell.
        write_mode: what becomes of the rows that are there.
        target_file_bytes: how large a part file should be; the size on disk, so a part ends soon after it.
        allow_empty: whether an ``overwrite`` may leave no rows.
        concurrent_runs: what a run does that finds another one there, on a disk of this machine: `refuse` ends it with
            an error that is worth a retry, `wait` waits for ``lock_timeout_seconds``. The lock dies with the run.
        lock_timeout_seconds: how long it waits.
        storage_options: how to get into S3: ``key``, ``secret``, ``endpoint_url``, ``region``; what is not given comes
            from the environment.
    """

    type: Literal["file"] = "file"
    path: Annotated[str, Field(min_length=1)]
    format: Kind | None = None
    write_mode: AddOrReplace = "append"
    delimiter: Byte = ","
    quote_char: Byte = '"'
    has_header: bool = True
    null_value: str = ""
    target_file_bytes: Annotated[int, Field(ge=1_000)] = 128_000_000
    allow_empty: bool = False
    concurrent_runs: ConcurrentRuns = "refuse"
    lock_timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    storage_options: Annotated[StorageOptions, Field(default_factory=dict)]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        kind = self.kind
        if kind != "csv" and (wrong := [key for key in _CSV_KEYS if key in self.model_fields_set]):
            raise ValueError(f"{wrong[0]!r} belongs to format csv, and this is {kind}. Remove it.")
        if self.quote_char == self.delimiter:
            raise ValueError(f"'delimiter' and 'quote_char' are both {self.delimiter!r}. Change one of them.")
        if any(byte in self.null_value for byte in (self.delimiter, self.quote_char, "\r", "\n")):
            raise ValueError("'null_value' has a character in it that means something else in csv. Choose another.")
        if kind in {"parquet", "ipc"} and self._compression is not None:
            raise ValueError(f"a file of format {kind} is compressed inside. Remove '.gz' or '.zst' from 'path'.")
        return self._placed()

    def _placed(self) -> Self:
        scheme = scheme_of(self.path)
        if scheme not in {"file", "s3"}:
            raise ValueError(
                f"nothing at '{scheme}://' can be replaced in one step. Write to this machine, or to 's3://'."
            )
        if scheme == "s3" and self.concurrent_runs == "wait":
            raise ValueError("nothing locks an object in S3, so no run can wait for another. Remove 'concurrent_runs'.")
        require_known(self.storage_options, scheme)
        folder, _slash, name = self.path.rpartition("/")
        if _PART in folder:
            raise ValueError("'{part}' belongs into the file's name, behind the last '/'.")
        if scheme == "s3" and self.is_folder:
            raise ValueError("part files on S3 cannot be replaced in one step. Use a target of type 'data_lake'.")
        if self.is_folder and not folder.strip("/."):
            raise ValueError("part files need a folder of their own: 'orders/{part}.csv'.")
        if scheme == "s3" and not (folder.partition("://")[2] and name):
            raise ValueError("an object in S3 is 's3://bucket/key'.")
        return self

    @property
    def is_folder(self) -> bool:
        """Whether part files are asked for."""
        return self.path.endswith("/") or _PART in self.path.rpartition("/")[2]

    @property
    def kind(self) -> Kind:
        """The format, as given or as the suffix tells.

        Raises:
            ValueError: it does not.
        """
        name = PurePosixPath(self.path)
        suffix = PurePosixPath(name.stem).suffix if name.suffix in _COMPRESSED else name.suffix
        told = self.format or (None if self.path.endswith("/") else _SUFFIXES.get(suffix.lower()))
        if told is None:
            raise ValueError(f"the suffix of 'path' tells no format. Set 'format': {', '.join(Kind.__args__)}.")  # type: ignore[attr-defined] # Literal has them
        return told

    @property
    def _compression(self) -> Literal["gzip", "zstd"] | None:
        return None if self.path.endswith("/") else _COMPRESSED.get(PurePosixPath(self.path).suffix)

    @property
    def label(self) -> str:
        """The path, as the configuration has it."""
        return self.path

    def open(self, record: RunRecord, schema: pl.Schema, folder: Path | None = None) -> Chamber:
        """Lock the place against other runs, and stage beside it, or in `folder`."""
        from flows.targets._file_chamber import FileChamber  # noqa: PLC0415 - only runs stage

        return FileChamber(self._place, self._wish, record, schema, folder)

    def plan(self, schema: pl.Schema) -> list[str]:
        """Say what publishing rows of `schema` would do.

        Raises:
            TargetTypeError: the format cannot carry a column.
        """
        place = self._place
        self._format.require(schema, place.side)
        whole = f"part files of about {self.target_file_bytes:,} bytes" if self.is_folder else "one file"
        if not place.exists:
            return [f"write {self.path} ({self.kind}, {whole})"]
        if self.write_mode == "overwrite":
            return [f"replace {self.path} ({self.kind}, {whole}) in one step"]
        how = "adding part files" if self.is_folder else "writing old and new rows into a new file"
        return [f"append to {self.path} ({self.kind}), {how}, in one step"]

    def check(self) -> None:
        """Confirm that a run could write there."""
        self._place.check()

    def record(self, record: RunRecord, quarantine: Quarantine | None) -> None:
        """Keep the record of a run that published nothing."""
        self._place.journal.keep(record, quarantine)

    def state(self, pipeline: str) -> dict[str, Any]:
        """What the sources of `pipeline` had remembered."""
        return self._place.journal.state(pipeline)

    def remember(self, pipeline: str, state: Mapping[str, Any]) -> None:
        """Let `state` be what the sources of `pipeline` had remembered."""
        self._place.journal.remember(pipeline, state)

    def history(self, pipeline: str, limit: int) -> list[dict[str, Any]]:
        """The newest runs of `pipeline`, newest first."""
        return self._place.journal.history(pipeline, limit)

    def kept(self, pipeline: str, run_id: str | None = None, status: Status | None = None) -> Iterator[pl.DataFrame]:
        """Quarantined rows, a frame at a time."""
        return self._place.journal.kept(pipeline, run_id, status)

    def kept_counts(self, pipeline: str) -> list[dict[str, Any]]:
        """How many rows of each run are kept, by their status."""
        return self._place.journal.kept_counts(pipeline)

    def discard(self, pipeline: str, marks: Marks) -> int:
        """Mark waiting rows as discarded."""
        return self._place.journal.discard(pipeline, marks)

    @property
    def _wish(self) -> Wish:
        from flows.targets._file_chamber import Wish  # noqa: PLC0415 - as above

        patience = self.lock_timeout_seconds if self.concurrent_runs == "wait" else 0
        return Wish(self._format, self.write_mode == "append", self.allow_empty, self.target_file_bytes, patience)

    @property
    def _format(self) -> Format:
        from flows.targets import _formats  # noqa: PLC0415 - as above

        if self.kind == "parquet":
            return _formats.Parquet()
        if self.kind == "ipc":
            return _formats.Ipc()
        compression = self._compression or "uncompressed"
        if self.kind == "ndjson":
            return _formats.Ndjson(compression)
        return _formats.Csv(compression, self.delimiter, self.quote_char, self.has_header, self.null_value)

    @property
    def _place(self) -> Place:
        from flows.targets import _objects, _places  # noqa: PLC0415 - fsspec takes time that only runs have

        if scheme_of(self.path) == "s3":
            return _objects.S3Object(self._store)
        if self.is_folder:
            name = self.path.rpartition("/")[2]
            return _places.LocalFolder(self._store, name or f"part-{_PART}{_suffix(self.kind)}")
        return _places.LocalFile(self._store)

    @cached_property
    def _store(self) -> Store:
        """Where the file is, or the folder; kept, because its connections are."""
        url = self.path.rpartition("/")[0] + "/" if self.is_folder else self.path
        return Store(url, self.storage_options, Side("target", f"target {self.path}"))


def _suffix(kind: Kind) -> str:
    return next(suffix for suffix, one in _SUFFIXES.items() if one == kind)
