"""From Polars to PostgreSQL: how every column is cast, staged and published, or why it does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import polars as pl

from flows._reading import reading
from flows._survival import has_json, json_text, survives
from flows._types import EXACT_DIGITS, LIST_ITEMS, READ_AS_IS, UTC, PgType

_CENTS = 2  # decimals of money
Cast = Callable[[pl.Expr], pl.Expr]


@dataclass(frozen=True)
class Writing:
    """How one column is written.

    Attributes:
        cast: to the dtype whose wire form is exactly `staged`.
        staged: SQL type of the staging column.
        wire: the name that the binary encoder must announce for it, a guard against a wrong twin.
        publish: SQL that turns the staged column, ``{}``, into the target's type.
        survives: whether a value is the same after the cast and in the target; None where every one is.
        loses: SQL for whether publishing makes the staged column, ``{}``, another value; None where it cannot.
    """

    cast: Cast
    staged: str
    wire: str
    publish: str = "{}"
    survives: Cast | None = None
    loses: str | None = None


class DoesNotFit(Exception):  # noqa: N818 - a verdict, turned into a LoadError that names the column
    """A dtype cannot go into a PostgreSQL type without loss; the text says what would work."""


def _same(column: pl.Expr) -> pl.Expr:
    return column


def _to(dtype: pl.DataType) -> Cast:
    return lambda column: column.cast(dtype)


def _moment_cast(dtype: pl.Datetime | pl.Duration, pg: PgType) -> Cast | None:
    if isinstance(dtype, pl.Duration):
        return _counted(dtype, pl.Duration("us")) if pg.name == "interval" and not pg.plain else None
    if pg.name == "timestamptz":
        return _counted(dtype, UTC) if dtype.time_zone else None
    return _counted(dtype, pl.Datetime("us")) if pg.name == "timestamp" and not dtype.time_zone else None


def _counted(dtype: pl.Datetime | pl.Duration, microseconds: pl.DataType) -> Cast:
    """From the number that a moment or a span is: Polars' own cast panics for some that only numbers know."""
    if dtype == microseconds:
        return _same
    if dtype.time_unit == "ns":
        return lambda column: (column.to_physical() // 1000).cast(microseconds)
    scale = 1000 if dtype.time_unit == "ms" else 1
    return lambda column: (column.to_physical() * scale).cast(microseconds)


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
_JSON = {"json", "jsonb"}
_MOMENTS = {"timestamp", "timestamptz", "interval"}
#: Items whose arrays have a binary form that the encoder writes and the server takes.
_BINARY_ITEMS = (LIST_ITEMS | {"numeric"}) - {"varchar", "bpchar"}
#: Types whose modifier makes the server round or cut a value that is cast to them.
_CUT_BY_MODIFIER = {"numeric", "bit", "varbit", "varchar", "bpchar", "time", "timetz", "timestamp", "timestamptz",
                    "interval"}  # fmt: skip
#: Types that the server cuts a text to, whatever the modifier.
_CUT = {"name", "char"}


def writing(dtype: pl.DataType, pg: PgType) -> Writing:
    """How a column of `dtype` is written into a PostgreSQL column of type `pg`.

    Casts that cannot lose anything happen here; a value that does not survive its cast fails the run when it
    is met. What would round, truncate or guess is refused.

    Raises:
        DoesNotFit: there is no such way.
    """
    if pg.is_array:
        return _list_writing(dtype, pg)
    cast = _cast(dtype, pg)
    if cast is not None:
        return Writing(cast, pg.text, _WIRE[pg.name], survives=survives(dtype, pg))
    if pg.name == "money" and (dtype.is_integer() or (isinstance(dtype, pl.Decimal) and dtype.scale <= _CENTS)):
        rounds = "{}::money::numeric IS DISTINCT FROM {}"
        return Writing(_to(pl.Decimal(EXACT_DIGITS, _CENTS)), "numeric", "NUMERIC", "{}::money", loses=rounds)
    if pg.name == "oid" and dtype.is_integer():
        return Writing(_to(pl.Int64()), "int8", "INT8", "{}::oid")
    has_words = dtype == pl.String() and reading(pg).dtype == pl.String() and pg.name not in READ_AS_IS
    if has_words or dtype == pl.Null():
        return _parsed(_to(pl.String()), pg)
    raise DoesNotFit(_advice(dtype, pg))


def _parsed(cast: Cast, pg: PgType, survives: Cast | None = None) -> Writing:
    """Write texts, of which the server makes its own type, and say whether it cut one."""
    staged = "text[]" if pg.is_array else "text"
    loses = None
    if pg.name in _CUT:
        loses = f"{{}}::{pg.text}::{staged} IS DISTINCT FROM {{}}"
    elif pg.plain and pg.name in _CUT_BY_MODIFIER:
        loses = f"{{}}::{pg.plain} IS DISTINCT FROM {{}}::{pg.text}"
    made = pg.text if pg.text != "bit" or pg.plain else '"bit"'  # bit alone is one bit
    return Writing(cast, staged, staged.upper(), f"{{}}::{made}", survives, loses)


def _cast(dtype: pl.DataType, pg: PgType) -> Cast | None:  # noqa: PLR0911 - one line a family of types
    base = dtype.base_type()
    if dtype == pl.Null():
        return _to(_null_twin(pg)) if pg.name in _WIRE else None
    if pg.name in _INTEGERS:
        return _to(_INTEGERS[pg.name]) if dtype.is_integer() else None
    if pg.name in _FLOATS:
        fits = dtype.is_float() and (pg.name == "float8" or base != pl.Float64)
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
    if pg.name in _MOMENTS and isinstance(dtype, pl.Datetime | pl.Duration):
        return _moment_cast(dtype, pg)
    if pg.name == "timestamp" and base == pl.Date:
        return _to(pl.Datetime("us"))
    twins = {"bool": pl.Boolean, "bytea": pl.Binary, "date": pl.Date, "time": pl.Time}
    return _same if twins.get(pg.name) == base else None


def _null_twin(pg: PgType) -> pl.DataType:
    special: dict[str, pl.DataType] = {"numeric": pl.Decimal(38, 0), "uuid": pl.Binary(), "interval": pl.Duration("us")}
    return special.get(pg.name) or READ_AS_IS.get(pg.name) or pl.String()


def _numeric_cast(dtype: pl.DataType, pg: PgType) -> Cast | None:
    if dtype.is_integer():
        return _to(pl.Decimal(EXACT_DIGITS, 0))
    if isinstance(dtype, pl.Decimal) and (pg.scale is None or dtype.scale <= max(pg.scale, 0)):
        return _same
    return None


def _text_cast(dtype: pl.DataType, pg: PgType) -> Cast | None:
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return _to(pl.String())
    if pg.name in _JSON and dtype.is_nested() and has_json(dtype):
        return lambda column: json_text(column, dtype)
    return _same if dtype == pl.String() else None


def _list_writing(dtype: pl.DataType, pg: PgType) -> Writing:
    item = replace(pg, is_array=False, text=pg.text.removesuffix("[]"), plain=pg.plain.removesuffix("[]"))
    inner = dtype.inner if isinstance(dtype, pl.List) else None
    if not isinstance(inner, pl.DataType):
        raise DoesNotFit(_advice(dtype, pg))
    each = survives(inner, item)
    all_survive = None if each is None else lambda column: column.list.eval(each(pl.element())).list.all()
    cast = _cast(inner, item)
    if cast is not None and pg.name in _BINARY_ITEMS:
        return Writing(lambda column: column.list.eval(cast(pl.element())), pg.text, f"{_WIRE[pg.name]}[]",
                       survives=all_survive)  # fmt: skip
    words = _item_words(inner, item)
    if words is None:
        raise DoesNotFit(_advice(dtype, pg))
    return _parsed(lambda column: column.list.eval(words(pl.element())), pg, all_survive)


def _item_words(inner: pl.DataType, item: PgType) -> Cast | None:
    """Items in words that the server reads, for arrays whose binary form the encoder does not write."""
    if item.name in _TEXTS:
        return _text_cast(inner, item) or (_to(pl.String()) if inner == pl.Null() else None)
    if _cast(inner, item) is None:
        has_words = inner in (pl.String(), pl.Null()) and reading(replace(item, is_array=True)).warning
        return _to(pl.String()) if has_words or (item.name == "uuid" and inner == pl.String()) else None
    if item.name == "timestamptz":
        return lambda one: one.cast(UTC).dt.to_string("%Y-%m-%d %H:%M:%S%.6f+00")
    if item.name == "time":
        return lambda one: one.dt.to_string("%H:%M:%S%.6f")
    if item.name == "interval":
        return lambda one: one.cast(pl.Duration("us")).to_physical().cast(pl.String) + pl.lit(" microseconds")
    return lambda one: pl.lit("\\x") + one.bin.encode("hex") if item.name == "bytea" else one.cast(pl.String)


def _advice(dtype: pl.DataType, pg: PgType) -> str:
    wanted = reading(pg).dtype
    hint = f"Cast it with a 'map' step (cast: {{...: {_spelled(wanted)}}}) or change the column."
    if pg.name in {"timestamp", "timestamptz"} and isinstance(dtype, pl.Datetime):
        hint = "Say which time zone it is in with a 'normalize' step (timestamps), or change the column."
    return f"{_spelled(dtype)} does not fit {pg.text} without loss. {hint}"


def _spelled(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Decimal):
        return f"Decimal({dtype.precision}, {dtype.scale})"
    return str(dtype)


_DDL: dict[type[pl.DataType], str] = {
    pl.Int8: "int2", pl.Int16: "int2", pl.UInt8: "int2", pl.Int32: "int4", pl.UInt16: "int4", pl.UInt32: "int8",
    pl.Int64: "int8", pl.UInt64: "numeric(20,0)", pl.Int128: "numeric(38,0)", pl.UInt128: "numeric(38,0)",
    pl.Float16: "float4", pl.Float32: "float4",
    pl.Float64: "float8", pl.String: "text", pl.Categorical: "text", pl.Enum: "text", pl.Boolean: "bool",
    pl.Binary: "bytea", pl.Date: "date", pl.Time: "time", pl.Duration: "interval", pl.Null: "text",
}  # fmt: skip


def created_type(dtype: pl.DataType) -> PgType:
    """The PostgreSQL type of a column that a run creates for `dtype`.

    Raises:
        DoesNotFit: PostgreSQL has no such type.
    """
    if isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.DataType) and not dtype.inner.is_nested():
        item = created_type(dtype.inner)
        return PgType(item.name, f"{item.text}[]", is_array=True, precision=item.precision, scale=item.scale)
    if isinstance(dtype, pl.Decimal):
        return PgType("numeric", f"numeric({dtype.precision},{dtype.scale})", False, dtype.precision, dtype.scale)
    if isinstance(dtype, pl.Datetime):
        name = "timestamptz" if dtype.time_zone else "timestamp"
        return PgType(name, name)
    text = "jsonb" if isinstance(dtype, pl.List | pl.Struct) and has_json(dtype) else _DDL.get(dtype.base_type())
    if text is None:
        raise DoesNotFit(f"PostgreSQL has no type for {dtype}. Drop the column or cast it with a 'map' step.")
    name, _, size = text.partition("(")
    return PgType(name, text, False, int(size.split(",")[0]), 0) if size else PgType(name, text)
