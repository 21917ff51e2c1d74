"""Walks a parsed SQL expression and gives every part its Polars expression and its type.

Each kind of part has one function, registered with `node` together with the parts it
understands; a part that nobody registered, or one that carries more than its function understands, is
refused. So what is not known to mean the same in PostgreSQL never reaches Polars.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import polars as pl
from sqlglot import exp

from transforms._errors import FormulaError, UnknownColumnError
from transforms._types import DIGITS, Kind, kind
from transforms._values import Value, convert
from transforms._words import did_you_mean

Node = exp.Expr
Handler = Callable[["Scope", Node], Value]

_HANDLERS: dict[type[Node], tuple[Handler, frozenset[str]]] = {}
_CALLED: set[str] = set()
#: Marks of the parser that change nothing in what PostgreSQL's text says.
_MARKS = frozenset({"safe", "coalesce", "big_int", "ignore_nulls", "single_replace", "typed"})
#: What cannot fail on any row, so that it may be computed where its result is not wanted.
_HARMLESS = (
    exp.Column, exp.Identifier, exp.Literal, exp.Boolean, exp.Null, exp.Paren, exp.And, exp.Or, exp.Not, exp.Is,
    exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.In, exp.Between, exp.Like, exp.ILike, exp.Case, exp.If,
    exp.Coalesce, exp.Nullif, exp.Lower, exp.Upper, exp.Trim, exp.Length, exp.CurrentDate, exp.CurrentTimestamp,
)  # fmt: skip

#: Integers as PostgreSQL has them: its smallest is Int16, and none is unsigned.
_SIGNED: dict[type[pl.DataType], pl.DataType] = {
    pl.Int8: pl.Int16(), pl.UInt8: pl.Int16(), pl.UInt16: pl.Int32(), pl.UInt32: pl.Int64(),
    pl.UInt64: pl.Decimal(DIGITS, 0), pl.Int128: pl.Decimal(DIGITS, 0), pl.UInt128: pl.Decimal(DIGITS, 0),
    pl.Categorical: pl.String(), pl.Enum: pl.String(),
}  # fmt: skip


def node(*kinds: type[Node], parts: str = "this expression", called: str = "") -> Callable[[Handler], Handler]:
    """Register the function for some kinds of node.

    Args:
        kinds: of the parser's nodes.
        parts: the arguments of the node that the function understands.
        called: the names under which users write it.
    """

    def register(handler: Handler) -> Handler:
        for each in kinds:
            _HANDLERS[each] = (handler, frozenset(parts.split()))
        _CALLED.update(called.split())
        return handler

    return register


@dataclass(frozen=True)
class Scope:
    """The columns an expression may name, and the rows it is wanted for.

    Attributes:
        guard: true for the rows whose result is wanted: ``CASE WHEN b <> 0 THEN a / b END`` must not fail
            where b is 0, though Polars computes all branches for all rows. None is all rows.
    """

    schema: pl.Schema
    guard: pl.Expr | None = None
    _known: dict[int, Value] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, part: Node) -> Value:
        """Translate one part.

        Raises:
            FormulaError: it is not understood, or its types do not fit.
            UnknownColumnError: it names a column that is not there.
        """
        if id(part) in self._known:
            return self._known[id(part)]
        if type(part) not in _HANDLERS:
            raise refusal(part)
        handler, parts = _HANDLERS[type(part)]
        for name, given in part.args.items():
            if given and name not in parts | _MARKS:
                raise _surplus(part, name)
        value = self._known[id(part)] = replace(handler(self, part), sql=text(part))
        return value

    def column(self, name: str, *, quoted: bool) -> Value:
        """A column; unquoted names mean the lower-case column if there is one, as in PostgreSQL."""
        folded = name if quoted else name.lower()
        found = folded if folded in self.schema else name
        if found not in self.schema:
            raise UnknownColumnError(name, self.schema)
        dtype = self.schema[found]
        expr = pl.col(found)
        if type(dtype) in _SIGNED:
            dtype = _SIGNED[type(dtype)]
            expr = expr.cast(dtype)
        if isinstance(dtype, pl.Datetime) and dtype.time_zone not in {None, "UTC"}:
            dtype = pl.Datetime(dtype.time_unit, "UTC")
            expr = expr.dt.convert_time_zone("UTC")
        return Value(expr if self.guard is None else pl.when(self.guard).then(expr), dtype)

    def typed(self, expr: pl.Expr) -> Value:
        """`expr` with the type that Polars plans for it."""
        return Value(expr, pl.LazyFrame(schema=self.schema).select(expr.alias("x")).collect_schema()["x"])

    def where(self, rows: pl.Expr) -> Scope:
        """The same columns, for rows where `rows` is true only."""
        return Scope(self.schema, rows if self.guard is None else self.guard & rows)

    def only(self, rows: pl.Expr | None, part: Node) -> Value:
        """Translate a part whose result is wanted for some rows only."""
        return self(part) if rows is None or is_harmless(part) else self.where(rows)(part)

    def of(self, part: Node, *kinds: Kind) -> Value:
        """Translate a part that must be of one of these kinds; a string literal becomes the first that it can be.

        Raises:
            FormulaError: it is of another kind.
        """
        value = self(part)
        if value.kind == "unknown":
            return replace(convert(value, _DEFAULTS[kinds[0]]), sql=value.sql)
        if value.kind in kinds:
            return value
        if "real" in kinds and value.kind in {"integer", "numeric"}:
            return convert(value, pl.Float64())
        wanted = {"real": "a number", "integer": "an integer", "boolean": "true or false"}.get(kinds[0], kinds[0])
        raise FormulaError(f"{text(part)!r} is {value.called}, and {wanted} is needed in {text(part.parent)!r}.")

    def whole(self, part: Node) -> int:
        """A part that must be a whole number written in the formula."""
        value = self(part)
        if not isinstance(value.constant, int) or isinstance(value.constant, bool):
            raise FormulaError(f"{text(part)!r} must be a whole number written in the formula.")
        return value.constant

    def written(self, part: Node) -> str:
        """A part that must be a text written in the formula."""
        value = self(part)
        if not isinstance(value.constant, str):
            raise FormulaError(f"{text(part)!r} must be a text written in the formula, in single quotes.")
        return value.constant


_DEFAULTS: dict[Kind, pl.DataType] = {
    "boolean": pl.Boolean(), "integer": pl.Int32(), "numeric": pl.Decimal(DIGITS, 0), "real": pl.Float64(),
    "text": pl.String(), "date": pl.Date(), "timestamp": pl.Datetime("us"), "timestamptz": pl.Datetime("us", "UTC"),
    "time": pl.Time(), "interval": pl.Duration("us"),
}  # fmt: skip


def is_harmless(part: Node) -> bool:
    """Whether no row can make this part fail, so that it may be computed where its result is not wanted."""
    return all(isinstance(each, _HARMLESS) for each in part.walk())


def text(part: Node | None) -> str:
    """A part as SQL text, for messages."""
    return (
        part.sql(dialect="postgres", comments=False, normalize_functions="lower") if part is not None else "the formula"
    )


def _surplus(part: Node, name: str) -> FormulaError:
    """The error for a part that carries more than its function understands."""
    if isinstance(part, exp.Column):
        return FormulaError(f"{text(part)!r}: a formula names columns without a table. Write {part.name}.")
    if isinstance(part.args[name], exp.Query | exp.Subquery):
        return refusal(part.args[name])
    return FormulaError(f"{text(part)!r} is not understood because of its {name.replace('_', ' ')}. Leave that out.")


def functions() -> list[str]:
    """Every function a formula may call, as PostgreSQL names it."""
    return sorted(_CALLED)


def refusal(part: Node) -> FormulaError:
    """The error for a part that nobody registered."""
    what = repr(text(part))
    if isinstance(part, exp.Query | exp.Subquery | exp.Exists):
        return FormulaError(
            f"{what} is a query, and a formula is one expression over the columns of a row. Use the join transform."
        )
    if isinstance(part, exp.AggFunc):
        return FormulaError(
            f"{what} needs many rows, and a formula sees one. "
            "Use the aggregate transform, or a window: ... OVER (PARTITION BY ...)."
        )
    if isinstance(part, exp.Anonymous | exp.Func) and not isinstance(part, exp.Connector | exp.Binary):
        name = part.name.lower() if isinstance(part, exp.Anonymous) else part.sql_name().lower()
        return FormulaError(f"{name!r} is not a function that a formula can call.{did_you_mean(name, functions())}")
    return FormulaError(f"{what} is not understood. A formula is one SQL expression over the columns of a row.")


def is_number(value: Value) -> bool:
    """Whether PostgreSQL calculates with values of this type."""
    return kind(value.dtype) in {"integer", "numeric", "real"}
