"""The formats that files have: by which suffix each is told, and which options belong to it."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

from flows._storage import scheme_of

Kind = Literal["csv", "ndjson", "json", "parquet", "ipc", "avro", "excel", "delta", "iceberg"]

SUFFIXES: dict[str, Kind] = {
    ".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "json", ".parquet": "parquet", ".pq": "parquet",
    ".ipc": "ipc", ".arrow": "ipc", ".feather": "ipc", ".avro": "avro", ".xlsx": "excel", ".xls": "excel",
    ".xlsb": "excel", ".ods": "excel",
}  # fmt: skip
WRAPPED = {".gz", ".zst", ".zip"}
TABLES = {"delta", "iceberg"}
KINDS: tuple[Kind, ...] = (*dict.fromkeys(SUFFIXES.values()), "delta", "iceberg")
#: Formats that say the types of their columns themselves.
TYPED = {"parquet", "ipc", "avro", *TABLES}
#: Options of CSV alone, called the same in `Csv`.
CSV_KEYS = (
    "delimiter", "quote_char", "escape_char", "eol_char", "column_names", "skip_rows", "skip_rows_after_header",
    "comment_prefix", "null_values", "decimal_comma", "ragged_rows", "encoding",
)  # fmt: skip
BELONGS: dict[str, tuple[Kind, ...]] = {
    **dict.fromkeys(CSV_KEYS, ("csv",)),
    "has_header": ("csv", "excel"),
    "sheet": ("excel",),
    "version": ("delta", "iceberg"),
    "on_malformed": ("csv", "ndjson", "json", "excel"),
}  # fmt: skip


def kind_of(path: str) -> Kind | None:
    """The format that a suffix tells; None where it tells none."""
    name = PurePosixPath(path.partition("?")[0] if scheme_of(path) == "http" else path)
    if name.suffix.lower() in WRAPPED:
        name = name.with_suffix("")
    return SUFFIXES.get(name.suffix.lower())
