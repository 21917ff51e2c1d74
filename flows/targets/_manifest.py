"""One version of a table of Parquet files: its columns, and the files that it is made of, as a JSON document."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import polars as pl

from flows.targets._formats import Parquet
from flows.targets._staged import StagedFile

#: The folder that every version's files are in.
VERSIONS = "versions"
_FORMAT = 1
#: What Polars raises for bytes that are no Arrow schema.
_UNREADABLE = (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException)
_AS_TEXT: dict[type[pl.DataType], Callable[[str], Any]] = {pl.Date: date.fromisoformat, pl.Decimal: Decimal}


@dataclass(frozen=True)
class Manifest:
    """A version of a table.

    Attributes:
        version: its number; the first one is 0.
        run_id, pipeline: who committed it.
        committed_at: when, as ISO 8601 with its offset.
        schema: columns and dtypes, partition columns included.
        partition_by: the partition columns.
        files: paths are below the table's folder.
    """

    version: int
    run_id: str
    pipeline: str
    committed_at: str
    schema: pl.Schema
    partition_by: tuple[str, ...]
    files: tuple[StagedFile, ...]

    def as_bytes(self) -> bytes:
        """The document; dates and decimals among the partitions' values are texts."""
        said = {
            "format": _FORMAT,
            "version": self.version,
            "run_id": self.run_id,
            "pipeline": self.pipeline,
            "committed_at": self.committed_at,
            "schema": [{"name": name, "dtype": str(dtype)} for name, dtype in self.schema.items()],
            "arrow_schema": _packed(self.schema),
            "partition_by": self.partition_by,
            "files": [_said(file) for file in self.files],
        }
        return json.dumps(said, ensure_ascii=False, separators=(",", ":"), default=str).encode()

    @classmethod
    def of(cls, version: int, text: bytes) -> Manifest:
        """The version that a document tells of, which has to be this one.

        Raises:
            ValueError: it is none of ours, or damaged; says why.
        """
        try:
            said = json.loads(text)
            _require(said, version)
            schema = _unpacked(said["arrow_schema"])
            typed = {name: _AS_TEXT.get(type(schema[name]), _same) for name in said["partition_by"]}
            files = tuple(_file(one, typed) for one in said["files"])
            who = (said["run_id"], said["pipeline"], said["committed_at"])
            return cls(version, *who, schema, tuple(said["partition_by"]), files)
        except (KeyError, TypeError, AttributeError, ArithmeticError, *_UNREADABLE) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


def comes_back(dtype: pl.DataType) -> bool:
    """Whether a column of this dtype comes back from a Parquet file, and from a manifest, as it went in."""
    if not Parquet().carries(dtype):  # trying would end the process
        return False
    rows = pl.DataFrame({"column": [None]}, schema={"column": dtype})
    file = io.BytesIO()
    try:
        rows.write_parquet(file)
        read = pl.read_parquet(io.BytesIO(file.getvalue()), hive_partitioning=False)
        return read.schema == rows.schema == _unpacked(_packed(rows.schema))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, TypeError):
        return False


def _packed(schema: pl.Schema) -> str:
    """Columns and dtypes as an Arrow IPC stream without rows: exact, and others can read it."""
    stream = io.BytesIO()
    schema.to_frame().write_ipc_stream(stream)
    return base64.b64encode(stream.getvalue()).decode()


def _unpacked(text: str) -> pl.Schema:
    return pl.read_ipc_stream(io.BytesIO(base64.b64decode(text, validate=True))).schema


def _require(said: dict[str, Any], version: int) -> None:
    if said["format"] != _FORMAT:
        raise ValueError(f"its format is {said['format']!r}, which this version of Lockgate does not know")
    if said["version"] != version:
        raise ValueError(f"it tells of version {said['version']!r}")


def _said(file: StagedFile) -> dict[str, Any]:
    return {"path": file.path, "rows": file.rows, "bytes": file.bytes, "partition": dict(file.partition)}


def _file(said: dict[str, Any], typed: dict[str, Callable[[Any], Any]]) -> StagedFile:
    parts = said["path"].split("/")
    if parts[0] != VERSIONS or len(parts) < 3 or ".." in parts:  # noqa: PLR2004 - the version's folder, and a file
        raise ValueError(f"a file of the table cannot be at {said['path']!r}")
    values = said["partition"]
    partition = {name: None if values[name] is None else of(values[name]) for name, of in typed.items()}
    return StagedFile(said["path"], said["rows"], said["bytes"], partition)


def _same(value: Any) -> Any:
    return value
