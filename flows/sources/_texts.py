"""Texts that stand for values: which type a column of them has, and the values themselves, exactly.

Polars' own reader guesses whether 01/02 is January or February, cuts decimals off and takes '007' for
a number. Here a type is inferred only if every text of the column is written as that type is, and
conversion stops at the first text that is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from transforms._casts import cast
from transforms._errors import FormulaError
from transforms._types import TIMESTAMP, TIMESTAMPTZ, kind
from transforms._values import Value

_SAMPLED_ROWS = 1_000
_MOMENT = r"^\d{4}-\d\d-\d\d[ T](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?"
_FINER_THAN_MICROSECONDS = r"\.\d{6}\d*[1-9]"


def _parsed(form: str) -> Callable[[pl.Expr], pl.Expr]:
    return lambda text: text.str.replace("T", " ", literal=True).str.to_datetime(form, time_unit="us", strict=False)


def _as_date(text: pl.Expr) -> pl.Expr:
    return text.str.to_date("%Y-%m-%d", strict=False)


@dataclass(frozen=True)
class _Form:
    """How texts of a type are written: a pattern, and a reader that gives null for 2024-02-31."""

    dtype: pl.DataType
    pattern: str
    read: Callable[[pl.Expr], pl.Expr] | None = None

    def fits(self, text: pl.Expr) -> pl.Expr:
        written = text.str.contains(self.pattern)
        return written if self.read is None else written & (self.read(text).is_not_null() | text.is_null())


#: In the order of preference. A number has no leading zeros and no plus, so that codes stay texts; a whole
#: number has at most 18 digits; an exponent needs a point or a sign, so that '12E4' stays a text.
_FORMS = (
    _Form(pl.Boolean(), r"^(?:true|false|True|False|TRUE|FALSE)$"),
    _Form(pl.Int64(), r"^-?(?:0|[1-9]\d{0,17})$"),
    _Form(pl.Float64(), r"^-?(?:0|[1-9]\d{0,14})(?:(?:\.\d+)?|\.\d+[eE][+-]?\d{1,3}|[eE][+-]\d{1,3})$"),
    _Form(pl.Date(), r"^\d{4}-\d\d-\d\d$", _as_date),
    _Form(TIMESTAMP, _MOMENT + "$", _parsed("%Y-%m-%d %H:%M:%S%.f")),
    _Form(TIMESTAMPTZ, _MOMENT + r"(?:Z|[+-]\d\d(?::?\d\d)?)$", _parsed("%Y-%m-%d %H:%M:%S%.f%#z")),
)


def inferred(frames: Sequence[pl.LazyFrame], names: Sequence[str]) -> dict[str, pl.DataType]:
    """The type that all texts of each column have, over every row of every frame; text where there is none.

    Boolean, Int64, Float64, Date and timestamps in ISO 8601 are known; a column of nulls is text.
    """
    if not frames or not names:
        return {name: pl.String() for name in names}
    sample = frames[0].head(_SAMPLED_ROWS)
    left = _still_fitting([sample], {name: range(len(_FORMS)) for name in names})
    left = _still_fitting(frames, left)
    filled = _filled(frames, [name for name, forms in left.items() if len(forms) == len(_FORMS)])
    return {
        name: _FORMS[left[name][0]].dtype if left[name] and filled.get(name, True) else pl.String() for name in names
    }


def _still_fitting(frames: Sequence[pl.LazyFrame], candidates: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    left = dict(candidates)
    for frame in frames:
        tests = [
            _FORMS[form].fits(pl.col(name)).all().alias(f"{form} {name}")
            for name, forms in left.items()
            for form in forms
        ]
        if not tests:
            break
        held = frame.select(tests).collect(engine="streaming").row(0, named=True)
        left = {name: [form for form in forms if held[f"{form} {name}"]] for name, forms in left.items()}
    return left


def _filled(frames: Sequence[pl.LazyFrame], names: Sequence[str]) -> dict[str, bool]:
    """Whether columns that fit every form hold any text at all."""
    if not names:
        return {}
    counts = [frame.select(pl.col(names).count()).collect(engine="streaming").row(0) for frame in frames]
    return {name: any(count[index] for count in counts) for index, name in enumerate(names)}


class Unfit(Exception):  # noqa: N818 - a verdict, turned into a SourceTypeError that knows the line
    """A text is not a value of its column's type.

    Attributes:
        column, text, dtype: which text of which column does not fit what.
        row: its place in the batch, from 0.
    """

    def __init__(self, column: str, row: int, text: str, dtype: pl.DataType) -> None:
        self.column, self.row, self.text, self.dtype = column, row, text, dtype
        super().__init__(f"{text!r} is not {dtype}")


def require_readable(dtype: pl.DataType) -> None:
    """Confirm that texts can be read as `dtype`.

    Raises:
        ValueError: they cannot.
    """
    try:
        cast(Value(pl.col("text"), pl.String(), sql="text"), dtype)
    except FormulaError:
        raise ValueError(f"a text cannot be read as {dtype}. Read it as text, and calculate it in a step.") from None


def typed(batch: pl.DataFrame, dtypes: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The batch with its texts as values of `dtypes`, exactly; columns of other types stay as they are.

    Raises:
        Unfit: a text is not such a value.
    """
    columns = []
    for column in batch.iter_columns():
        dtype = dtypes[column.name]
        if column.dtype != pl.String() or dtype == pl.String():
            columns.append(column)
            continue
        try:
            columns.append(_converted(column, dtype))
        except pl.exceptions.PolarsError:
            row = _first_unfit(column, dtype)
            raise Unfit(column.name, row, column[row], dtype) from None
    return pl.DataFrame(columns)


def _first_unfit(column: pl.Series, dtype: pl.DataType) -> int:
    fitting, unfit = 0, column.len()
    while unfit - fitting > 1:
        middle = (fitting + unfit) // 2
        try:
            _converted(column[fitting:middle], dtype)
            fitting = middle
        except pl.exceptions.PolarsError:
            unfit = middle
    return fitting


def _converted(column: pl.Series, dtype: pl.DataType) -> pl.Series:
    expr = pl.col(column.name)
    if (beyond := _beyond(dtype)) is not None and column.str.contains(beyond).any():
        raise pl.exceptions.ComputeError("more digits than the type keeps")
    if kind(dtype) in {"timestamp", "timestamptz"} and (quick := _one_form(column, dtype)) is not None:
        return quick
    if isinstance(dtype, pl.Decimal):  # no digit can be lost any more, and a step's cast would keep fewer of them
        return column.str.strip_chars().cast(dtype, strict=True)
    value = cast(Value(expr, pl.String(), sql=column.name), dtype).expr
    return column.to_frame().select(value.alias(column.name)).to_series()


def _beyond(dtype: pl.DataType) -> str | None:
    """A pattern of digits that `dtype` would cut off or round away."""
    if isinstance(dtype, pl.Decimal):
        return rf"\.\d{{{dtype.scale}}}\d*[1-9]|[eE]"
    return _FINER_THAN_MICROSECONDS if isinstance(dtype, pl.Datetime) else None


def _one_form(column: pl.Series, dtype: pl.DataType) -> pl.Series | None:
    """Timestamps that are all written alike, several times quicker; None where they are not."""
    form = _FORMS[-1] if kind(dtype) == "timestamptz" else _FORMS[-2]
    read = form.read
    assert read is not None  # noqa: S101 - the forms of timestamps have a reader
    found = column.to_frame().select(read(pl.col(column.name))).to_series()
    return found if found.null_count() == column.null_count() else None
