"""What DuckDB's types become in Polars, and what of them may be compared there.

A type with parts is what its parts are: a list of uuids is a list of texts. What has no twin is read as text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
from duckdb.sqltypes import DuckDBPyType

from flows._dialects import DUCKDB
from flows.sources._pushdown import Compared
from flows.sources._scan import Column
from transforms._types import DIGITS, TIMESTAMP, TIMESTAMPTZ

_WHOLE = {
    "tinyint": pl.Int8(), "smallint": pl.Int16(), "integer": pl.Int32(), "bigint": pl.Int64(),
    "utinyint": pl.UInt8(), "usmallint": pl.UInt16(), "uinteger": pl.UInt32(), "ubigint": pl.UInt64(),
}  # fmt: skip
_AS_IT_IS: dict[str, pl.DataType] = {
    **_WHOLE, "float": pl.Float32(), "double": pl.Float64(), "boolean": pl.Boolean(), "blob": pl.Binary(),
    "date": pl.Date(), "time": pl.Time(), "time_ns": pl.Time(), "timestamp": TIMESTAMP,
    "timestamp_ns": pl.Datetime("ns"), "timestamp with time zone": TIMESTAMPTZ,
}  # fmt: skip
#: Read through a cast that loses nothing, or stops.
_CAST: dict[str, tuple[str, pl.DataType]] = {
    "hugeint": (f"DECIMAL({DIGITS}, 0)", pl.Decimal(DIGITS, 0)),
    "uhugeint": (f"DECIMAL({DIGITS}, 0)", pl.Decimal(DIGITS, 0)),
    "timestamp_s": ("TIMESTAMP", TIMESTAMP),
    "timestamp_ms": ("TIMESTAMP", TIMESTAMP),
    "varchar": ("VARCHAR", pl.String()),
    "uuid": ("VARCHAR", pl.String()),
    "enum": ("VARCHAR", pl.String()),
    "null": ("VARCHAR", pl.String()),
}
#: Days and moments that Polars can show; infinity is beyond them.
_LAST_YEAR = 262_142
_LAST_DAY = _LAST_YEAR * 365


@dataclass(frozen=True)
class Twin:
    """What a type becomes.

    Attributes:
        sql: the type that it is cast to.
        dtype: what that is in Polars.
        as_text: types in it that are read as text, for want of a twin.
    """

    sql: str
    dtype: pl.DataType
    as_text: tuple[str, ...] = ()


def twin(type_: DuckDBPyType) -> Twin:
    """What `type_` becomes, and its parts."""
    kind = type_.id
    if kind in _AS_IT_IS:
        return Twin(str(type_), _AS_IT_IS[kind])
    if kind in _CAST:
        return Twin(*_CAST[kind])
    if kind == "decimal":
        parts: dict[str, Any] = dict(type_.children)
        return Twin(str(type_), pl.Decimal(parts["precision"], parts["scale"]))
    if kind in {"list", "array"}:
        inside: dict[str, Any] = dict(type_.children)
        item = twin(inside["child"])
        return Twin(f"{item.sql}[]", pl.List(item.dtype), item.as_text)
    if kind == "struct":
        return _struct(dict(type_.children))
    return Twin("VARCHAR", pl.String(), (kind.upper(),))


def _struct(types: dict[str, Any]) -> Twin:
    parts = {name: twin(part) for name, part in types.items()}
    inside = ", ".join(f"{DUCKDB.quote(name)} {part.sql}" for name, part in parts.items())
    as_text = tuple(text for part in parts.values() for text in part.as_text)
    return Twin(f"STRUCT({inside})", pl.Struct({name: part.dtype for name, part in parts.items()}), as_text)


def column(name: str, type_: DuckDBPyType, *, is_binary: bool) -> Column:
    """How a column is read.

    Args:
        name: of the column.
        type_: its type.
        is_binary: whether texts are compared by their bytes, with no collation anywhere.
    """
    quoted = DUCKDB.quote(name)
    select = quoted
    if type_.id == "map":
        entries = twin(DuckDBPyType(f"STRUCT(key {type_.children[0][1]}, value {type_.children[1][1]})[]"))
        how, select = entries, f"map_entries({quoted})"
    else:
        how = twin(type_)
    if how.sql != str(type_):
        select = f"CAST({select} AS {how.sql})"
    return Column(select, how.dtype, _compared(quoted, type_, how, is_binary=is_binary), warning=_warning(type_, how))


def _warning(type_: DuckDBPyType, how: Twin) -> str | None:
    if not how.as_text:
        return None
    if how.dtype == pl.String():
        return f"is {how.as_text[0]} and is read as text"
    return f"is {type_}, of which {', '.join(dict.fromkeys(how.as_text))} is read as text"


def _compared(name: str, type_: DuckDBPyType, how: Twin, *, is_binary: bool) -> Compared:
    kind = type_.id
    if kind == "boolean":
        return Compared(name, "condition", _only(bool))
    if kind == "varchar":
        return Compared(name if is_binary else f"{name} COLLATE POSIX", "ordered", _only(str))
    if kind == "decimal":
        assert isinstance(how.dtype, pl.Decimal)  # noqa: S101 - its twin
        return Compared(name, "ordered", _decimal_like(how.dtype))
    return Compared(name, "ordered", _COMPARED[kind]) if kind in _COMPARED else Compared(name)


def _only(*kinds: type) -> Callable[[Any], str | None]:
    return lambda value: DUCKDB.literal(value) if type(value) in kinds else None


def _double(value: Any) -> str | None:
    return f"CAST('{value!r}' AS DOUBLE)" if type(value) is float else None


_COMPARED: dict[str, Callable[[Any], str | None]] = {
    **dict.fromkeys((*_WHOLE, "hugeint", "uhugeint"), _only(int, Decimal)),
    **dict.fromkeys(("timestamp", "timestamp_s", "timestamp_ms", "timestamp with time zone"), _only(datetime)),
    "date": _only(date),
    "double": _double,
}


def _decimal_like(dtype: pl.Decimal) -> Callable[[Any], str | None]:
    """Decimals that are compared as decimals: those of which column and value fit into one type."""

    def written(value: Any) -> str | None:
        if type(value) is not Decimal or not value.is_finite():
            return None
        text = f"{value:f}".lstrip("-")
        whole, _point, fraction = text.partition(".")
        digits = max(len(whole), (dtype.precision or DIGITS) - dtype.scale) + max(len(fraction), dtype.scale)
        return DUCKDB.literal(value) if digits <= DIGITS else None

    return written


def beyond(column: pl.Series) -> bool:
    """Whether a day or moment, at any depth, is 'infinity' or too far off for Polars to show."""
    dtype = column.dtype
    if isinstance(dtype, pl.List):
        return column.len() > 0 and beyond(column.explode())
    if isinstance(dtype, pl.Struct):
        return any(beyond(column.struct.field(part.name)) for part in dtype.fields)
    if not isinstance(dtype, pl.Date | pl.Datetime):
        return False
    last = _LAST_DAY
    if isinstance(dtype, pl.Datetime):
        last *= {"ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}[dtype.time_unit]
        last = min(last, 2**63 - 2)
    physical = column.to_physical()
    return bool(((physical > last) | (physical < -last)).any())
