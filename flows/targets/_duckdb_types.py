"""From Polars to DuckDB: the type of every column that is made, and how a column goes into one that is there.

Its types are close to those of Polars, so a column is staged in the very type that it is published in,
but for those that only one of the two knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
from duckdb.sqltypes import DuckDBPyType

from flows._writing import DoesNotFit
from flows.targets._engines import quote
from flows.targets._fitting import Change, Fit, both, castable, comes_back, known, to
from flows.targets._schema_contract import wider

_MICROSECONDS = pl.Duration("us")
_HUGE = (pl.Int128(), pl.UInt128())  # that Arrow does not know
_DIGITS = pl.Decimal(38, 0)
_CREATED: dict[Any, str] = {
    pl.Int8: "TINYINT", pl.Int16: "SMALLINT", pl.Int32: "INTEGER", pl.Int64: "BIGINT", pl.Int128: "HUGEINT",
    pl.UInt8: "UTINYINT", pl.UInt16: "USMALLINT", pl.UInt32: "UINTEGER", pl.UInt64: "UBIGINT", pl.UInt128: "UHUGEINT",
    pl.Float32: "FLOAT", pl.Float64: "DOUBLE", pl.Boolean: "BOOLEAN", pl.String: "VARCHAR", pl.Categorical: "VARCHAR",
    pl.Enum: "VARCHAR", pl.Binary: "BLOB", pl.Date: "DATE", pl.Time: "TIME", pl.Duration: "INTERVAL",
    pl.Null: "VARCHAR",
}  # fmt: skip
_NAIVE = {"us": "TIMESTAMP", "ms": "TIMESTAMP_MS", "ns": "TIMESTAMP_NS"}
#: Types by the word that the driver has for them; those that have parts are made of them.
_TWINS: dict[str, pl.DataType] = {
    "tinyint": pl.Int8(), "smallint": pl.Int16(), "integer": pl.Int32(), "bigint": pl.Int64(), "hugeint": pl.Int128(),
    "utinyint": pl.UInt8(), "usmallint": pl.UInt16(), "uinteger": pl.UInt32(), "ubigint": pl.UInt64(),
    "uhugeint": pl.UInt128(), "float": pl.Float32(), "double": pl.Float64(), "boolean": pl.Boolean(),
    "varchar": pl.String(), "blob": pl.Binary(), "date": pl.Date(), "time": pl.Time(), "time_ns": pl.Time(),
    "interval": _MICROSECONDS, "timestamp": pl.Datetime("us"), "timestamp_ms": pl.Datetime("ms"),
    "timestamp_ns": pl.Datetime("ns"), "timestamp with time zone": pl.Datetime("us", "UTC"),
}  # fmt: skip
#: Types that the database reads from texts, and writes as texts, without loss.
_PARSED = {"uuid", "enum", "bit", "bignum"}
#: Ends of time, which DuckDB calls infinity, in days or in units of a timestamp.
_LAST = {"date": 2**31 - 1, "moment": 2**63 - 1}
_STEP = 1_000  # nanoseconds of a microsecond
_ZONED = "TIMESTAMP WITH TIME ZONE"


def created(dtype: pl.DataType) -> str:
    """The type that holds exactly what the dtype holds; parts of a second below microseconds only in some."""
    if isinstance(dtype, pl.Decimal):
        return f"DECIMAL({dtype.precision},{dtype.scale})"
    if isinstance(dtype, pl.Datetime):
        return _ZONED if dtype.time_zone else _NAIVE[dtype.time_unit]
    if isinstance(dtype, pl.List | pl.Array | pl.Struct) and (nested := _nested(dtype)):
        return nested
    if (name := _CREATED.get(dtype.base_type())) is None:
        raise DoesNotFit(f"DuckDB has no type for {dtype}. Drop the column or cast it with a 'map' step.")
    return name


def _nested(dtype: pl.List | pl.Array | pl.Struct) -> str | None:
    if isinstance(dtype, pl.Struct):
        fields = ", ".join(f"{quote(field.name)} {_part(known(field.dtype))}" for field in dtype.fields)
        return f"STRUCT({fields})" if fields else None
    item = _part(known(dtype.inner))
    return f"{item}[{dtype.shape[0] or ''}]" if isinstance(dtype, pl.Array) else f"{item}[]"


def _part(dtype: pl.DataType) -> str:
    """The type of a part of a value, which only casts as a whole can change."""
    if dtype in _HUGE or isinstance(dtype, pl.Duration):
        raise DoesNotFit(f"DuckDB has no type for {dtype} inside of another. Cast it with a 'map' step.")
    return "TIME_NS" if dtype == pl.Time() else created(dtype)


def fit(dtype: pl.DataType, declared: str) -> Fit:
    """Through the twin of the type, where it has one; as a text that the database parses, where it has none."""
    twin, is_parsed = _twin(_type(declared)), False
    if twin is None and _is_parsed(declared):
        twin, is_parsed = pl.String(), True
    if twin is None or not castable(dtype, twin):
        raise DoesNotFit(
            f"{dtype} does not fit {declared} without loss. Cast it with a 'map' step, or change the column."
        )
    wire = _wire(twin)
    staged = created(wire)
    cast, back = to(wire), to(dtype)
    publish = "{}" if staged == declared else f"CAST({{}} AS {declared})"
    if isinstance(twin, pl.Duration):
        cast, back = (lambda c: c.cast(twin).to_physical()), (lambda c: c.cast(twin).cast(dtype))
        publish = "to_microseconds({})"
    survives = comes_back(dtype, _DIGITS if twin in _HUGE else twin)
    return Fit(staged, wire, cast, back, publish, both(survives, None if is_parsed else _bounded(dtype, declared)))


def grown(declared: str, dtype: pl.DataType) -> str | None:
    """Within its kind."""
    twin = _twin(_type(declared))
    wide = None if twin is None else wider(twin, dtype)
    return None if wide is None else created(wide)


def _type(declared: str) -> DuckDBPyType:
    return DuckDBPyType(declared)


def _is_parsed(declared: str) -> bool:
    return declared == "JSON" or _type(declared).id in _PARSED


def _twin(type_: DuckDBPyType, *, inside: bool = False) -> pl.DataType | None:
    """The dtype with the same values; None where there is none, or where only a way through texts is exact."""
    word = str(type_.id)
    if str(type_) == "JSON" or (inside and (word in {"time", "interval"} or _TWINS.get(word) in _HUGE)):
        return None
    if word == "decimal":
        parts = dict(type_.children)
        return pl.Decimal(int(str(parts["precision"])), int(str(parts["scale"])))
    if word not in {"list", "array", "struct"}:
        return _TWINS.get(word)
    return _nested_twin(word, type_.children)


def _nested_twin(word: str, children: Sequence[tuple[str, Any]]) -> pl.DataType | None:
    parts = {name: _twin(child, inside=True) for name, child in children if isinstance(child, DuckDBPyType)}
    fields = {name: dtype for name, dtype in parts.items() if dtype is not None}
    if len(fields) < len(parts):
        return None
    if word == "struct":
        return pl.Struct(fields)
    size = next((size for name, size in children if name == "size"), None)
    return pl.List(fields["child"]) if size is None else pl.Array(fields["child"], int(size))


def _wire(twin: pl.DataType) -> pl.DataType:
    """The dtype that Arrow, DuckDB and Polars all know."""
    if twin in _HUGE:
        return _DIGITS
    return pl.Int64() if isinstance(twin, pl.Duration) else twin


def _bounded(dtype: pl.DataType, declared: str) -> Change | None:
    """Whether a value is one that the type has, where its twin has more of them."""
    if dtype == pl.Time() and declared == "TIME":
        return lambda column: column.dt.nanosecond() % _STEP == 0
    if dtype == pl.Date() and declared == "DATE":
        return _within(_LAST["date"])
    return _within(_LAST["moment"]) if isinstance(dtype, pl.Datetime) else None


def _within(last: int) -> Callable[[pl.Expr], pl.Expr]:
    return lambda column: column.to_physical().is_between(-last, last, closed="none")
