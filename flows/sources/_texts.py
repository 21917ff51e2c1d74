"""Texts that stand for values: which type a column of them has, and the values themselves, exactly.

Polars' own reader guesses whether 01/02 is January or February, cuts decimals off and takes '007' for
a number. Here a type is inferred only if every text of the column is written as that type is, and
a text that is not a value of its column's type is never made one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from transforms._types import BOOLEAN_WORDS, TIMESTAMP, TIMESTAMPTZ, kind

_SAMPLED_ROWS = 1_000
_MOMENT = r"^\d{4}-\d\d-\d\d[ T](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?"
_FINER_THAN_MICROSECONDS = r"\.\d{6}\d*[1-9]"
_LONGEST_MOMENT = 26  # 2024-01-01T10:00:00.123456: a longer one may be finer
_BLANKS = " \t\n\r\f\v"
_SHOWN_CHARACTERS = 60
_READABLE = {"boolean", "integer", "real", "numeric", "text", "date", "time", "timestamp", "timestamptz"}
_NUMBERS = {"integer", "real", "numeric"}
Reader = Callable[[pl.Expr], pl.Expr]


def _parsed(form: str) -> Reader:
    return lambda text: text.str.to_datetime(form, time_unit="us", strict=False)


def _plain_moment(form: str) -> Reader:
    return lambda text: _parsed(form)(text.str.replace("T", " ", literal=True))


def _as_date(text: pl.Expr) -> pl.Expr:
    return text.str.to_date("%Y-%m-%d", strict=False)


@dataclass(frozen=True)
class _Form:
    """How texts of a type are written: a pattern, and a reader that gives null for 2024-02-31."""

    dtype: pl.DataType
    pattern: str
    read: Reader | None = None

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
    _Form(TIMESTAMP, _MOMENT + "$", _plain_moment("%Y-%m-%d %H:%M:%S%.f")),
    _Form(TIMESTAMPTZ, _MOMENT + r"(?:Z|[+-]\d\d(?::?\d\d)?)$", _plain_moment("%Y-%m-%d %H:%M:%S%.f%#z")),
)
_ANY = tuple(range(len(_FORMS)))


@dataclass(frozen=True)
class Fits:
    """What the texts of one column of one file can be.

    Attributes:
        forms: those that all of them fit.
        filled: whether there is any.
    """

    forms: tuple[int, ...] = _ANY
    filled: bool = False


def narrowed(found: Mapping[str, Fits], rows: pl.DataFrame, *, decimal_comma: bool = False) -> dict[str, Fits]:
    """What columns can be after `rows` were seen, too."""
    for part in (rows.head(_SAMPLED_ROWS), rows) if rows.height > _SAMPLED_ROWS else (rows,):
        tests = [pl.col(name).count().alias(f"filled {name}") for name in found]
        tests += [
            _FORMS[form]
            .fits(_with_point(pl.col(name), _FORMS[form].dtype, decimal_comma))
            .all()
            .alias(f"{form} {name}")
            for name, fit in found.items()
            for form in fit.forms
        ]
        held = part.select(tests).row(0, named=True) if tests else {}
        found = {
            name: Fits(
                tuple(form for form in fit.forms if held[f"{form} {name}"]),
                filled=fit.filled or held[f"filled {name}"] > 0,
            )
            for name, fit in found.items()
        }
    return dict(found)


def inferred(looks: Iterable[Mapping[str, Fits]], name: str, known: pl.DataType | None = None) -> pl.DataType:
    """The type that all texts of a column have, in every file; text where there is none.

    Boolean, Int64, Float64, Date and timestamps in ISO 8601 are found. The type it had in files that were
    read before is kept where the new texts are of it too.
    """
    columns = [look[name] for look in looks if name in look]
    forms = [form for form in _ANY if all(form in column.forms for column in columns)]
    filled = any(column.filled for column in columns)
    if known is not None and (known == pl.String() or not filled or known in [_FORMS[form].dtype for form in forms]):
        return known
    return _FORMS[forms[0]].dtype if forms and filled else pl.String()


@dataclass(frozen=True)
class Unfit:
    """A text that is not a value of its column's type.

    Attributes:
        row: its place in the batch, from 0.
        column, text, dtype: which text of which column does not fit what.
    """

    row: int
    column: str
    text: str
    dtype: pl.DataType

    def __str__(self) -> str:
        shown = self.text if len(self.text) <= _SHOWN_CHARACTERS else f"{self.text[:_SHOWN_CHARACTERS]}..."
        return f"column {self.column!r}: {shown!r} is not {self.dtype}"


def require_readable(dtype: pl.DataType) -> None:
    """Confirm that texts can be read as `dtype`.

    Raises:
        ValueError: they cannot.
    """
    if kind(dtype) not in _READABLE or isinstance(dtype, pl.Categorical | pl.Enum):
        raise ValueError(f"a text cannot be read as {dtype}. Read it as text, and calculate it in a step.")


def typed(
    batch: pl.DataFrame, dtypes: Mapping[str, pl.DataType], *, decimal_comma: bool = False
) -> tuple[pl.DataFrame, tuple[Unfit, ...]]:
    """The batch with its texts as values of `dtypes`, exactly, without the rows of which one does not fit.

    Columns of other types stay as they are. Of an unfit row the first such text is told.
    """
    texts = {name: dtypes[name] for name, dtype in batch.schema.items() if dtype == pl.String() != dtypes[name]}
    point = {name: _with_point(pl.col(name), dtype, decimal_comma) for name, dtype in texts.items()}
    quick = batch.with_columns(_quick(point[name], dtype, batch[name]).alias(name) for name, dtype in texts.items())
    slow = [name for name, dtype in texts.items() if _lost(batch, quick, name) or _may_be_beyond(batch[name], dtype)]
    if not slow:
        return quick, ()
    result = quick.with_columns(batch.select(_lenient(point[name], texts[name]).alias(name) for name in slow))
    unfit: dict[int, Unfit] = {}
    for name in slow:
        if _lost(batch, result, name):
            lost = (result[name].is_null() & batch[name].is_not_null()).arg_true().to_list()
            unfit |= {row: Unfit(row, name, batch[name][row], texts[name]) for row in lost if row not in unfit}
    if not unfit:
        return result, ()
    keep = pl.int_range(batch.height, eager=True).is_in(list(unfit)).not_()
    return result.filter(keep), tuple(unfit[row] for row in sorted(unfit))


def _lost(texts: pl.DataFrame, values: pl.DataFrame, name: str) -> bool:
    return values[name].null_count() != texts[name].null_count()


def _with_point(text: pl.Expr, dtype: pl.DataType, decimal_comma: bool) -> pl.Expr:
    """A number with the comma as a point; a point would be a thousands separator, and is none of ours."""
    if not decimal_comma or kind(dtype) not in _NUMBERS:
        return text
    return text.str.replace_many([".", ","], ["?", "."])


def _quick(text: pl.Expr, dtype: pl.DataType, texts: pl.Series) -> pl.Expr:
    """Values of texts written as most files write them, and alike; null for the others."""
    match kind(dtype):
        case "date":
            return _as_date(text)
        case "timestamp":
            between = "T" if texts.head(_SAMPLED_ROWS).str.contains("T", literal=True).any() else " "
            return _parsed(f"%Y-%m-%d{between}%H:%M:%S%.f")(text)
        case "integer" | "real":
            return text.cast(dtype, strict=False)
    return _lenient(text, dtype)


def _lenient(text: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Values of texts, as PostgreSQL's casts read them; null for what is none."""
    plain = text.str.strip_chars(_BLANKS)
    match kind(dtype):
        case "boolean":
            value = plain.str.to_lowercase().replace_strict(BOOLEAN_WORDS, default=None, return_dtype=pl.Boolean)
        case "date":
            value = _as_date(plain)
        case "time":
            value = plain.str.to_time("%H:%M:%S%.f", strict=False)
        case "timestamp" | "timestamptz":
            value = _moment(plain.str.replace("T", " ", literal=True), zoned=kind(dtype) == "timestamptz")
        case _:
            value = plain.cast(dtype, strict=False)
    beyond = _beyond(dtype)
    return value if beyond is None else pl.when(text.str.contains(beyond).not_()).then(value)


def _moment(plain: pl.Expr, *, zoned: bool) -> pl.Expr:
    found = [_parsed(form)(plain) for form in ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")]
    if zoned:
        with_zone = _parsed("%Y-%m-%d %H:%M:%S%.f%#z")(plain)
        found = [with_zone, *(naive.dt.replace_time_zone("UTC") for naive in found)]
    return pl.coalesce(found)


def _beyond(dtype: pl.DataType) -> str | None:
    """A pattern of digits that `dtype` would cut off or round away."""
    if isinstance(dtype, pl.Decimal):
        return rf"\.\d{{{dtype.scale}}}\d*[1-9]|[eE]"
    return _FINER_THAN_MICROSECONDS if isinstance(dtype, pl.Datetime) else None


def _may_be_beyond(texts: pl.Series, dtype: pl.DataType) -> bool:
    """Whether a quick reading may have cut digits off."""
    if kind(dtype) != "timestamp":
        return False
    longest = texts.str.len_bytes().max()
    return isinstance(longest, int) and longest > _LONGEST_MOMENT
