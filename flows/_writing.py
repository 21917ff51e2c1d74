"""From Polars to PostgreSQL: how every column is cast, staged and published, or why it does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from flows._reading import reading
from flows._types import EXACT_DIGITS, LIST_ITEMS, READ_AS_IS, UTC, PgType


@dataclass(frozen=True)
class Writing:
    """How one column is written.

    Attributes:
        cast: to the dtype whose wire form is exactly `staged`.
        staged: SQL type of the staging column.
        publish: SQL that turns the staged column, ``{}``, into the target's type.
        wire: the name that the binary encoder must announce for it, a guard against a wrong twin.
    """

    cast: Callable[[pl.Expr], pl.Expr]
    staged: str
    wire: str
    publish: str = "{}"


class DoesNotFit(Exception):  # noqa: N818 - a verdict, turned into a LoadError that names the column
    """A dtype cannot go into a PostgreSQL type without loss; the text says what would work."""


def _same(column: pl.Expr) -> pl.Expr:
    return column


def _to(dtype: pl.DataType) -> Callable[[pl.Expr], pl.Expr]:
    return lambda column: column.cast(dtype)


def _uuid_bytes(column: pl.Expr) -> pl.Expr:
    return column.str.replace_all("-", "", literal=True).str.decode("hex", strict=True)


_INTEGERS: dict[str, pl.DataType] = {"int2": pl.Int16(), "int4": pl.Int32(), "int8": pl.Int64()}
_FLOATS: dict[str, pl.DataType] = {"float4": pl.Float32(), "float8": pl.Float64()}
_WIRE = {
    "int2": "INT2", "int4": "INT4", "int8": "INT8", "float4": "FLOAT4", "float8": "FLOAT8", "numeric": "NUMERIC",
    "bool": "BOOL", "text": "TEXT", "varchar": "TEXT", "bpchar": "TEXT", "name": "TEXT", "enum": "TEXT",
    "citext": "TEXT", "json": "TEXT", "jsonb": "JSONB", "uuid": "BYTEA", "bytea": "BYTEA", "date": "DATE",
    "time": "TIME", "timestamp": "TIMESTAMP", "timestamptz": "TIMESTAMP", "interval": "INTERVAL",
}  # fmt: skip
_TEXTS = {"text", "varchar", "bpchar", "name", "enum", "citext", "json", "jsonb"}


def writing(dtype: pl.DataType, pg: PgType) -> Writing:
    """How a column of `dtype` is written into a PostgreSQL column of type `pg`.

    Casts that cannot lose anything happen here; a narrowing that a value does not survive fails the
    run when it meets the value. What would round, truncate or guess is refused.

    Raises:
        DoesNotFit: there is no such way.
    """
    if pg.is_array:
        return _list_writing(dtype, pg)
    cast = _cast(dtype, pg)
    if cast is not None:
        return Writing(cast, pg.text, _WIRE[pg.name])
    if dtype == pl.String() and pg.name not in READ_AS_IS and pg.name != "numeric":
        return Writing(_same, "text", "TEXT", publish=f"{{}}::{pg.text}")  # the server parses its own text form
    raise DoesNotFit(_advice(dtype, pg))


def _cast(dtype: pl.DataType, pg: PgType) -> Callable[[pl.Expr], pl.Expr] | None:  # noqa: PLR0911 - one line a family of types
    base = dtype.base_type()
    if dtype == pl.Null():
        return _to(_null_twin(pg)) if pg.name in _WIRE else None
    if pg.name in _INTEGERS:
        return _to(_INTEGERS[pg.name]) if dtype.is_integer() else None
    if pg.name in _FLOATS:
        fits = dtype.is_float() and (pg.name == "float8" or base == pl.Float32)
        small = base in (pl.Int8, pl.Int16, pl.UInt8, pl.UInt16) or (
            base in (pl.Int32, pl.UInt32) and pg.name == "float8"
        )
        return _to(_FLOATS[pg.name]) if fits or small else None
    if pg.name == "numeric":
        return _numeric_cast(dtype, pg)
    if pg.name in _TEXTS:
        return _text_cast(dtype, pg)
    if pg.name == "uuid":
        return _uuid_bytes if base == pl.String else _same if base == pl.Binary else None
    if pg.name == "timestamptz":
        return _to(UTC) if isinstance(dtype, pl.Datetime) and dtype.time_zone and dtype.time_unit != "ns" else None
    if pg.name == "timestamp":
        naive = isinstance(dtype, pl.Datetime) and not dtype.time_zone and dtype.time_unit != "ns"
        return _to(pl.Datetime("us")) if naive or base == pl.Date else None
    if pg.name == "interval":
        return _to(pl.Duration("us")) if isinstance(dtype, pl.Duration) and dtype.time_unit != "ns" else None
    twins = {"bool": pl.Boolean, "bytea": pl.Binary, "date": pl.Date, "time": pl.Time}
    return _same if twins.get(pg.name) == base else None


def _null_twin(pg: PgType) -> pl.DataType:
    special: dict[str, pl.DataType] = {"numeric": pl.Decimal(38, 0), "uuid": pl.Binary(), "interval": pl.Duration("us")}
    return special.get(pg.name) or READ_AS_IS.get(pg.name) or pl.String()


def _numeric_cast(dtype: pl.DataType, pg: PgType) -> Callable[[pl.Expr], pl.Expr] | None:
    if dtype.is_integer():
        return _to(pl.Decimal(EXACT_DIGITS, 0))
    if isinstance(dtype, pl.Decimal) and (pg.scale is None or dtype.scale <= pg.scale):
        return _same
    return None


def _text_cast(dtype: pl.DataType, pg: PgType) -> Callable[[pl.Expr], pl.Expr] | None:
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return _to(pl.String())
    if isinstance(dtype, pl.Struct) and pg.name in {"json", "jsonb"}:
        return lambda column: column.struct.json_encode()
    return _same if dtype == pl.String() else None


def _list_writing(dtype: pl.DataType, pg: PgType) -> Writing:
    item = PgType(pg.name, pg.text.removesuffix("[]"), precision=pg.precision, scale=pg.scale)
    inner = dtype.inner if isinstance(dtype, pl.List) else None
    if isinstance(inner, pl.DataType) and pg.name in _WIRE and pg.name not in {"timestamptz", "jsonb", "uuid", "time"}:
        cast = _cast(inner, item)
        if cast is not None and pg.name in LIST_ITEMS | {"numeric"}:
            return Writing(lambda column: column.list.eval(cast(pl.element())), pg.text, f"{_WIRE[pg.name]}[]")
    if inner == pl.String():
        return Writing(_same, "text[]", "TEXT[]", publish=f"{{}}::{pg.text}")
    raise DoesNotFit(_advice(dtype, pg))


def _advice(dtype: pl.DataType, pg: PgType) -> str:
    wanted = reading(pg).dtype
    hint = f"Cast it with a 'map' step (cast: {{...: {_spelled(wanted)}}}) or change the column."
    if pg.name in {"timestamp", "timestamptz"} and isinstance(dtype, pl.Datetime):
        if dtype.time_unit == "ns":
            hint = "PostgreSQL keeps microseconds: cast it with a 'map' step, or change the column."
        else:
            hint = "Say which time zone it is in with a 'normalize' step (timestamps), or change the column."
    return f"{_spelled(dtype)} does not fit {pg.text} without loss. {hint}"


def _spelled(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Decimal):
        return f"Decimal({dtype.precision}, {dtype.scale})"
    return str(dtype)


_DDL: dict[type[pl.DataType], str] = {
    pl.Int8: "int2", pl.Int16: "int2", pl.UInt8: "int2", pl.Int32: "int4", pl.UInt16: "int4", pl.UInt32: "int8",
    pl.Int64: "int8", pl.UInt64: "numeric(20,0)", pl.Int128: "numeric(39,0)", pl.Float32: "float4",
    pl.Float64: "float8", pl.String: "text", pl.Categorical: "text", pl.Enum: "text", pl.Boolean: "bool",
    pl.Binary: "bytea", pl.Date: "date", pl.Time: "time", pl.Duration: "interval", pl.Struct: "jsonb", pl.Null: "text",
}  # fmt: skip


def created_type(dtype: pl.DataType) -> PgType:
    """The PostgreSQL type of a column that a run creates for `dtype`.

    Raises:
        DoesNotFit: PostgreSQL has no such type.
    """
    if isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.DataType) and not isinstance(dtype.inner, pl.List):
        item = created_type(dtype.inner)
        return PgType(item.name, f"{item.text}[]", is_array=True, precision=item.precision, scale=item.scale)
    if isinstance(dtype, pl.Decimal):
        return PgType("numeric", f"numeric({dtype.precision},{dtype.scale})", False, dtype.precision, dtype.scale)
    if isinstance(dtype, pl.Datetime):
        name = "timestamptz" if dtype.time_zone else "timestamp"
        return PgType(name, name)
    text = _DDL.get(dtype.base_type())
    if text is None:
        raise DoesNotFit(f"PostgreSQL has no type for {dtype}. Drop the column or cast it with a 'map' step.")
    name, _, size = text.partition("(")
    return PgType(name, text, False, int(size.split(",")[0]), 0) if size else PgType(name, text)
