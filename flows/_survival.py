"""Which values are themselves after they crossed: what no dtype can say, looked at value by value."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from flows._types import FIRST_DAY, FIRST_MICROSECOND, PgType

_MOST = 2**63 - 1  # microseconds that 64 bits count
_DIGITS = {"ms": 3, "us": 6, "ns": 9}  # of a second
_SHOWN_DAYS = 700_000  # around 1970, that every calendar has
_LONGEST = 60  # characters of a value in a message
_KEPT = 6  # digits of a second that PostgreSQL keeps
Test = Callable[[pl.Expr], pl.Expr]


def survives(dtype: pl.DataType, pg: PgType) -> Test | None:
    """Whether a value of `dtype` is the same in a column of type `pg`, true or false; null has no opinion.

    None where every value is: what the cast or the server refuses by itself is not asked here.
    """
    if dtype == pl.Date():  # the server's binary dates would wrap around
        return lambda column: column.to_physical() >= FIRST_DAY
    if isinstance(dtype, pl.Datetime | pl.Duration):
        return _of_moments(dtype, pg)
    if dtype == pl.Time():
        step = 10 ** (_DIGITS["ns"] - _kept(pg))
        return lambda column: column.to_physical() % step == 0
    if pg.name == "numeric" and (pg.scale or 0) < 0 and (dtype.is_integer() or isinstance(dtype, pl.Decimal)):
        step = 10 ** -(pg.scale or 0)
        return lambda column: column.cast(pl.Int128) % step == 0
    if dtype.is_nested() and pg.name in {"json", "jsonb"}:
        return lambda column: has_only_json(column, dtype)
    return None


def _of_moments(dtype: pl.Datetime | pl.Duration, pg: PgType) -> Test:
    digits = _DIGITS[dtype.time_unit]
    first = _MOST if isinstance(dtype, pl.Duration) else -FIRST_MICROSECOND
    low, high = (-_in_unit(first, digits), _in_unit(_MOST, digits))
    step = 10 ** max(digits - _kept(pg), 0)

    def test(column: pl.Expr) -> pl.Expr:
        number = column.to_physical()
        within = number.is_between(low, high)
        return within & (number % step == 0) if step > 1 else within

    return test


def _in_unit(microseconds: int, digits: int) -> int:
    """So many microseconds in a unit of so many digits, no more than 64 bits count; never more than they were."""
    return int(min(_MOST, microseconds * 10**digits // 10**_KEPT))


def shown(value: pl.Series) -> str:
    """The one value of a series in words, as messages quote it; Python has no word for every moment of Polars."""
    return _quoted(_words(value))


def _words(value: pl.Series) -> str:
    if value.null_count():
        return "null"
    if isinstance(value.dtype, pl.List | pl.Array):
        items = value.item()
        return f"[{', '.join(_inner(items[n : n + 1]) for n in range(min(len(items), _LONGEST)))}]"
    if isinstance(value.dtype, pl.Struct):
        fields = value.struct.unnest().iter_columns()
        return f"{{{', '.join(f'{field.name}: {_inner(field)}' for field in fields)}}}"
    return _moment(value) if value.dtype.is_temporal() else str(value.item())


def _moment(value: pl.Series) -> str:
    dtype, number = value.dtype, value.to_physical()
    if isinstance(dtype, pl.Duration):
        return f"{number.item()} {dtype.time_unit}"
    if dtype == pl.Time():
        return str(value.dt.to_string("%H:%M:%S%.9f").item())
    unit = dtype.time_unit if isinstance(dtype, pl.Datetime) else "days"
    a_day = 86_400 * 10 ** _DIGITS[unit] if unit in _DIGITS else 1
    if abs(number.item()) > _SHOWN_DAYS * a_day:
        return f"{number.item()} {unit} from 1970"
    return str(value.dt.to_string("iso").item())


def _inner(value: pl.Series) -> str:
    """A value in a list or a struct: texts in quotes, so that their ends are seen."""
    return repr(value.item()) if isinstance(value.dtype, pl.String) and not value.null_count() else _words(value)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")


def _kept(pg: PgType) -> int:
    return _KEPT if pg.precision is None else pg.precision


def has_json(dtype: pl.DataType) -> bool:
    """Whether JSON can say values of `dtype`: bytes and objects have none."""
    if isinstance(dtype, pl.Struct):
        return all(has_json(_known(field.dtype)) for field in dtype.fields)
    if isinstance(dtype, pl.List | pl.Array):
        return has_json(_known(dtype.inner))
    return dtype not in (pl.Binary(), pl.Object())


def json_text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Each value of a nested column as JSON text; null where it is null."""
    if isinstance(dtype, pl.Struct):
        text = column.struct.json_encode()
    else:  # only structs can be encoded: '{"_":[1]}'
        text = pl.struct(column.alias("_")).struct.json_encode().str.slice(len('{"_":')).str.head(-1)
    return pl.when(column.is_not_null()).then(text)


def has_only_json(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Whether nothing in a value is NaN or infinite, which JSON would call null."""
    if dtype.is_float():
        return column.is_finite()
    if isinstance(dtype, pl.Struct):
        inner = [has_only_json(column.struct.field(field.name), _known(field.dtype)) for field in dtype.fields]
        return pl.all_horizontal(inner) if inner else pl.lit(value=True)
    if isinstance(dtype, pl.List | pl.Array):
        item = has_only_json(pl.element(), _known(dtype.inner))
        return (column.list if isinstance(dtype, pl.List) else column.arr.to_list().list).eval(item).list.all()
    return pl.lit(value=True)


def _known(dtype: object) -> pl.DataType:
    assert isinstance(dtype, pl.DataType)  # noqa: S101 - the schema of a frame has no classes in it
    return dtype


def sayable(column: pl.Expr, dtype: pl.DataType, *, numbers: bool) -> pl.Expr:
    """The column as JSON can say it: bytes in hex; and floats as texts, unless all of them are `numbers`."""
    if dtype == pl.Binary():
        return column.bin.encode("hex")
    if dtype.is_float():
        return column if numbers else column.cast(pl.String)
    if isinstance(dtype, pl.Struct):
        fields = [
            sayable(column.struct.field(field.name), _known(field.dtype), numbers=numbers).alias(field.name)
            for field in dtype.fields
        ]
        return pl.when(column.is_not_null()).then(pl.struct(fields)) if fields else column
    if isinstance(dtype, pl.List | pl.Array):
        items = column.list if isinstance(dtype, pl.List) else column.arr.to_list().list
        return items.eval(sayable(pl.element(), _known(dtype.inner), numbers=numbers))
    return column
