"""From the options of a file source to the files of a run: which ones, which of them are new, and their columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from flows._errors import SourceMissingError
from flows._sides import Side
from flows._storage import Store
from flows.sources import _folders, _found
from flows.sources._avro import Avro
from flows.sources._base import Context, Pushdown
from flows.sources._brought import Brought
from flows.sources._csv import Csv
from flows.sources._delta import Delta
from flows.sources._excel import Excel
from flows.sources._file_kinds import CSV_KEYS, SUFFIXES, TABLES, TYPED, Kind
from flows.sources._file_scan import FileScan, labelled
from flows.sources._files import Format
from flows.sources._found import Found
from flows.sources._iceberg import Iceberg, metadata_of
from flows.sources._ipc import Ipc
from flows.sources._json import Json
from flows.sources._parquet import Parquet
from flows.sources._seen import Seen
from transforms._types import dtype_named
from transforms._words import counted, did_you_mean

if TYPE_CHECKING:
    from flows.sources.file import File

#: Columns that a file has as a whole, by the key that asks for them; called so, unless the key says otherwise.
_NAMES = {"source_file_column": "_lockgate_source_file", "modified_at_column": "_lockgate_modified_at"}


@dataclass(frozen=True)
class Opened:
    """The files of one source in one run.

    Attributes:
        scan: reads them.
        state: what to remember; None for nothing.
    """

    options: File
    scan: FileScan
    state: Callable[[], Any] | None

    def pushed(self, ask: Pushdown) -> str | None:
        """The predicate, where rows or files are left out while reading."""
        of_files, of_rows = _folders.parted(ask, tuple(self.scan.constants.schema))
        parts = [of_files, of_rows if self.scan.format.pushes_predicates else None]
        texts = [" ".join(str(part).split()) for part in parts if part is not None]
        return " & ".join(texts) or None

    def described(self, ask: Pushdown) -> str:
        """Which files and what of them, in one line."""
        names = ", ".join(ask.columns if ask.columns is not None else self.scan.whole_schema)
        where = f" where {pushed}" if (pushed := self.pushed(ask)) else ""
        limit = f" limit {ask.limit}" if ask.limit is not None else ""
        files = counted(len(self.scan.files), "new file" if self.options.only_new else "file")
        paths = ", ".join(repr(Store(path).shown) for path in self.options.path)
        return f"{self.options.kind} {paths} ({files}): {names}{where}{limit}"


def opened(options: File, name: str, context: Context) -> Opened:
    """Find the files and learn their columns.

    Raises:
        ExtractError: a file is missing, cannot be read, or does not fit the others.
    """
    with labelled(name):
        seen = Seen.parse(context.state()) if options.only_new else Seen()
        brought = Brought(context.folder)
        found = _found_by(options, seen)
        files = _with_members(found, options, brought)
        dtypes: dict[str, pl.DataType] = {column: dtype_named(kind) for column, kind in options.dtypes.items()}
        asked = {key: getattr(options, key) for key in _NAMES if getattr(options, key)}
        named = {key: _NAMES[key] if name is True else name for key, name in asked.items()}
        constants = _folders.constants(files, dtypes, seen.schema, hive=options.hive_partitioning, named=named)
        own = {name: dtype for name, dtype in dtypes.items() if name not in constants.schema}
        scan = FileScan(
            name=name,
            format=_format(options, own),
            files=files,
            brought=brought,
            constants=constants,
            quarantines=options.on_malformed == "quarantine",
            once=options.only_new or "modified_at_column" in named,
            batch_bytes=options.batch_bytes,
        )
        scan.learn(seen.schema, sample=context.sample)
        _require_delivered(options, scan.whole_schema)
    return Opened(options, scan, (lambda: seen.state(found, scan.whole_schema)) if options.only_new else None)


def _require_delivered(options: File, schema: pl.Schema) -> None:
    for delivered in options.declared or ():
        if delivered not in schema:
            raise SourceMissingError(f"no column {delivered!r}.{did_you_mean(delivered, schema, word='Present')}")


def _found_by(options: File, seen: Seen) -> list[Found]:
    """The files, archives and tables that the options name, but for those that were read."""
    if options.kind in TABLES:
        return [_table(options)]
    found = _found.matching(options.path, options.storage_options, may_be_none=bool(seen.files))
    return seen.new(found)


def _table(options: File) -> Found:
    store = Store(options.path[0], options.storage_options, Side("source", ""))
    path = str(Path(options.path[0].removeprefix("file://")).expanduser()) if store.is_local else store.path
    table = Found(store.shown, path, store)
    return table if options.kind == "delta" else metadata_of(table)


def _with_members(files: Sequence[Found], options: File, brought: Brought) -> list[Found]:
    """The files, and for an archive those in it."""
    suffixes = [suffix for suffix, kind in SUFFIXES.items() if kind == options.kind]
    expanded: list[Found] = []
    for file in files:
        if not file.path.lower().endswith(".zip"):
            expanded.append(file)
            continue
        with brought.archive(file) as archive:
            expanded += _found.members(file, archive, suffixes)
    return expanded


_FORMATS: Mapping[Kind, Callable[[File, Mapping[str, pl.DataType]], Format]] = {
    "csv": lambda file, dtypes: Csv(
        dtypes, has_header=file.has_header, **{key: getattr(file, key) for key in CSV_KEYS}
    ),
    "ndjson": lambda _file, dtypes: Json(dtypes, lines=True),
    "json": lambda _file, dtypes: Json(dtypes),
    "excel": lambda file, dtypes: Excel(dtypes, file.sheet, file.has_header),
    "parquet": lambda _file, _dtypes: Parquet(),
    "ipc": lambda _file, _dtypes: Ipc(),
    "avro": lambda _file, _dtypes: Avro(),
    "delta": lambda file, _dtypes: Delta(file.version),
    "iceberg": lambda file, _dtypes: Iceberg(file.version if isinstance(file.version, int) else None),
}


def _format(options: File, dtypes: Mapping[str, pl.DataType]) -> Format:
    if options.kind in TYPED and dtypes:
        raise SourceMissingError(f"no folder '{next(iter(dtypes))}=...', which 'dtypes' has. Remove it there.")
    return _FORMATS[options.kind](options, dtypes)
