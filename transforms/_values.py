"""Expressions with the types that PostgreSQL gives them, and how it brings types together by itself.

`convert` is what happens to an integer beside a double, `unify` how several values come to one
type, `checked` how a value that PostgreSQL would refuse stops the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

import polars as pl

from transforms._errors import FormulaError
from transforms._types import DIGITS, TIMESTAMP, TIMESTAMPTZ, Kind, constant, kind, shown

#: Decimals kept where PostgreSQL's numeric has no limit, and in quotients.
DECIMALS = 18
QUOTIENT_DECIMALS = 16
HALF_AWAY: Literal["half_away_from_zero"] = "half_away_from_zero"

_NOT_CONSTANT: Any = object()


@dataclass(frozen=True)
class Value:
    """An expression, its type, and the text it came from.

    Attributes:
        constant: the Python value of a literal. A string literal has no type of its own yet: `dtype` is Null.
        months: of an interval literal; the rest of it is in `expr`.
    """

    expr: pl.Expr
    dtype: pl.DataType
    sql: str = ""
    constant: Any = _NOT_CONSTANT
    months: int = 0

    @property
    def kind(self) -> Kind:
        """The family of the type."""
        return kind(self.dtype)

    @property
    def is_constant(self) -> bool:
        """Whether the value is a literal."""
        return self.constant is not _NOT_CONSTANT

    @property
    def called(self) -> str:
        """The value's type in PostgreSQL's words."""
        return {"real": "double precision", "unknown": "null" if self.constant is None else "text"}.get(
            self.kind, shown(self.dtype) if self.kind == "other" else self.kind
        )


def literal(value: Any, dtype: pl.DataType) -> Value:
    """A literal of a known type."""
    exact = isinstance(dtype, pl.Decimal) and value is not None
    expr = pl.lit(_at_scale(value, dtype.scale), dtype=dtype) if exact else pl.lit(value, dtype=dtype)  # type: ignore[attr-defined]
    return Value(expr, dtype, constant=value)


def _at_scale(value: Any, scale: int) -> Decimal:
    return Decimal(value).quantize(Decimal(1).scaleb(-scale)) if abs(Decimal(value)) < Decimal(10) ** 20 else value


def number(value: int | Decimal) -> Value:
    """A number as PostgreSQL types a literal: integer, bigint or numeric."""
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return literal(value, pl.Int32() if -(2**31) <= value < 2**31 else pl.Int64())
    exact = Decimal(value)
    exponent = exact.as_tuple().exponent
    scale = max(0, -exponent) if isinstance(exponent, int) else 0
    if scale > DECIMALS or exact.adjusted() >= DIGITS - scale:
        raise FormulaError(f"'{value}' has too many digits. At most {DIGITS}, {DECIMALS} of them decimals.")
    return replace(literal(exact, pl.Decimal(DIGITS, scale)), constant=value)


def fail(bad: pl.Expr, message: str) -> pl.Expr:
    """Null, unless `bad` is true for any row: then the run stops with `message`.

    A strict cast carries the message, because Polars knows that it can fail and keeps it behind earlier filters.
    """
    return pl.when(bad).then(pl.lit(message)).otherwise(None).cast(pl.Int64, strict=True)


def checked(value: pl.Expr, bad: pl.Expr, message: str) -> pl.Expr:
    """`value`, unless `bad` is true for any row: then the run stops with `message`."""
    return pl.when(fail(bad, message).is_null()).then(value)


def convert(value: Value, dtype: pl.DataType) -> Value:
    """Bring a value to the type that its neighbours have, as PostgreSQL does by itself."""
    if value.dtype == dtype:
        return value
    if value.is_constant:
        try:
            known = None if value.constant is None else constant(value.constant, dtype)
        except ValueError as error:
            raise FormulaError(f"{error}, and it stands beside {_a(kind(dtype))}.") from None
        return replace(literal(known, dtype), sql=value.sql)
    source, target = value.kind, kind(dtype)
    expr = value.expr.cast(dtype) if source != target or target != "text" else value.expr
    if target == "timestamptz" and source in {"date", "timestamp"}:
        expr = value.expr.cast(TIMESTAMP).dt.replace_time_zone("UTC")
    return replace(value, expr=expr, dtype=dtype)


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def unify(values: Sequence[Value], purpose: str) -> tuple[list[Value], pl.DataType]:
    """Bring values to the one type that PostgreSQL would choose for them.

    Raises:
        FormulaError: there is none.
    """
    dtype = _common(values, purpose)
    return [convert(value, dtype) for value in values], dtype


def _common(values: Sequence[Value], purpose: str) -> pl.DataType:
    typed = [value for value in values if value.kind != "unknown"]
    kinds = {value.kind for value in typed}
    if not typed:
        return pl.String()
    if all(value.dtype == typed[0].dtype for value in typed):
        return typed[0].dtype
    for family, widest in _FAMILIES:
        if kinds <= family:
            return widest([value.dtype for value in typed])
    if len(kinds) == 1:
        return typed[0].dtype
    first, other = typed[0], next(value for value in typed if value.kind != typed[0].kind)
    are = f"{first.sql!r} is {first.called} and {other.sql!r} is {other.called}"
    raise FormulaError(f"{are}: they cannot be {purpose}. Cast one of them.")


def _widest_integer(dtypes: list[pl.DataType]) -> pl.DataType:
    return next(dtype for dtype in (pl.Int64(), pl.Int32(), pl.Int16()) if dtype in dtypes)


def _widest_numeric(dtypes: list[pl.DataType]) -> pl.DataType:
    return pl.Decimal(DIGITS, max(dtype.scale for dtype in dtypes if isinstance(dtype, pl.Decimal)))


#: The kinds that PostgreSQL brings together, narrowest family first, and to which type.
_FAMILIES: list[tuple[set[Kind], Callable[[list[pl.DataType]], pl.DataType]]] = [
    ({"integer"}, _widest_integer),
    ({"integer", "numeric"}, _widest_numeric),
    ({"integer", "numeric", "real"}, lambda _: pl.Float64()),
    ({"date", "timestamp"}, lambda _: TIMESTAMP),
    ({"date", "timestamp", "timestamptz"}, lambda _: TIMESTAMPTZ),
]
