"""Brings names, texts, numbers and timestamps to one form."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Literal
from zoneinfo import available_timezones

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator

from transforms._errors import ParameterError, Path, UnknownColumnError
from transforms._transform import Parameters, transform
from transforms._types import kind, shown


class Text(BaseModel):
    """What to do to text columns, in this order.

    Attributes:
        fields: the columns; all text columns when left out.
        unicode: the Unicode normal form, NFC or NFKC.
        collapse_whitespace: every run of whitespace becomes one blank.
        trim: whitespace at both ends goes.
        case: lower, upper, or title (a capital after every character that is no letter).
        empty_as_null: a text that is empty at the end becomes null.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fields: list[str] | None = Field(default=None, min_length=1)
    unicode: Literal["NFC", "NFKC"] | None = None
    collapse_whitespace: bool = False
    trim: bool = False
    case: Literal["lower", "upper", "title"] | None = None
    empty_as_null: bool = False


class Number(BaseModel):
    """How to scale a number column.

    Attributes:
        field: the column.
        method: min_max maps the smallest to 0 and the largest to 1; z_score subtracts the mean and divides by the
            standard deviation; robust subtracts the median and divides by the interquartile range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str
    method: Literal["min_max", "z_score", "robust"]


class Timestamp(BaseModel):
    """How to bring a timestamp column to UTC.

    Attributes:
        field: the column.
        time_zone: what a column without a time zone is in: "Europe/Berlin". Needed for those, and only for those.
        ambiguous: what to do with the hour that occurs twice when clocks are set back.
        non_existent: what to do with the hour that clocks jump over.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str
    time_zone: str | None = None
    ambiguous: Literal["raise", "earliest", "latest", "null"] = "raise"
    non_existent: Literal["raise", "null"] = "raise"

    @field_validator("time_zone")
    @classmethod
    def _known(cls, zone: str | None) -> str | None:
        if zone is not None and zone not in available_timezones():
            raise ValueError(f"{zone!r} is not a time zone. Write a name such as 'Europe/Berlin' or 'UTC'.")
        return zone


def _is_row_local(parameters: Parameters) -> bool:
    return not getattr(parameters, "numbers", None)


@transform(row_local=_is_row_local)
def normalize(
    frame: pl.LazyFrame,
    *,
    flatten: bool = False,
    names: Literal["snake_case"] | None = None,
    text: list[Text] | None = None,
    numbers: list[Number] | None = None,
    timestamps: list[Timestamp] | None = None,
) -> pl.LazyFrame:
    """Bring names, texts, numbers and timestamps to one form, in this order; fields are named as after `names`.

    In: the columns named; text, number and timestamp columns.
    Out: the same rows in the same order, the same columns but for `flatten` and `names`. Scaled numbers are Float64,
        timestamps are in UTC. Row-local, unless numbers are scaled.

    Args:
        flatten: a struct's fields become columns of their own, ``a.b`` becomes ``a_b``, at every depth.
        names: column names in snake_case: "CustomerID" becomes customer_id.
        text: what to do to which text columns.
        numbers: how to scale which number columns, over all rows.
        timestamps: how to bring which timestamp columns to UTC.

    Nulls: stay null, and do not count in a scale. The fields of a null struct are null.

    Raises:
        UnknownColumnError: a field is not there.
        ParameterError: a field is of another type, two columns would have one name, or a time zone is missing.
        polars.exceptions.PolarsError: at run, for a time that clocks showed twice or never, unless allowed.

    Source: min_max, z_score and robust as scikit-learn's MinMaxScaler, StandardScaler (population standard deviation)
        and RobustScaler (linear quantiles) define them; a column without spread is divided by 1, so it becomes 0.

    >>> frame = pl.LazyFrame({"City Name": [" Rome ", None], "Age": [20, 40]})
    >>> scaled = Number(field="age", method="min_max")
    >>> normalize(frame, names="snake_case", text=[Text(trim=True)], numbers=[scaled]).collect().rows(named=True)
    [{'city_name': 'Rome', 'age': 0.0}, {'city_name': None, 'age': 1.0}]
    """
    if flatten:
        frame = _flat(frame)
    if names == "snake_case":
        frame = _renamed(frame)
    schema = frame.collect_schema()
    for position, rule in enumerate(text or ()):
        fields = _text_fields(rule, schema, ("text", position, "fields"))
        frame = frame.with_columns(_cleaned(pl.col(field), rule) for field in fields)
    scaled = [_scaled(each, schema, ("numbers", position, "field")) for position, each in enumerate(numbers or ())]
    placed = [_in_utc(each, schema, ("timestamps", position)) for position, each in enumerate(timestamps or ())]
    return frame.with_columns(*scaled, *placed) if scaled or placed else frame


def _flat(frame: pl.LazyFrame) -> pl.LazyFrame:
    schema = frame.collect_schema()
    columns = [each for name, dtype in schema.items() for each in _leaves(pl.col(name), name, dtype)]
    _refuse_twins([(name, origin) for name, origin, _ in columns], ("flatten",))
    return frame.select(expr.alias(name) for name, _, expr in columns)


def _leaves(expr: pl.Expr, name: str, dtype: pl.DataType, origin: str = "") -> Iterator[tuple[str, str, pl.Expr]]:
    """The columns that a struct becomes: their names, where they come from, and their expressions."""
    origin = origin or name
    if not isinstance(dtype, pl.Struct):
        yield name, origin, expr
        return
    for field in dtype.fields:
        inner = expr.struct.field(field.name)
        yield from _leaves(inner, f"{name}_{field.name}", field.dtype, f"{origin}.{field.name}")  # type: ignore[arg-type]


def _renamed(frame: pl.LazyFrame) -> pl.LazyFrame:
    names = {name: _snake_case(name) for name in frame.collect_schema()}
    _refuse_twins([(new, old) for old, new in names.items()], ("names",))
    return frame.rename(names)


def _snake_case(name: str) -> str:
    parted = re.sub(r"(?<=[^\W_])(?=[A-Z][a-z])|(?<=[a-z0-9])(?=[A-Z])", "_", name)
    snake = re.sub(r"[\W_]+", "_", parted).strip("_").lower()
    if not snake:
        raise ParameterError(f"the column name {name!r} has no letter in it. Rename it first.", path=("names",))
    return snake


def _refuse_twins(names: Iterable[tuple[str, str]], path: Path) -> None:
    origins: dict[str, str] = {}
    for name, origin in names:
        if name in origins:
            raise ParameterError(
                f"{origins[name]!r} and {origin!r} would both be called {name!r}. Rename one with the map transform.",
                path=path,
            )
        origins[name] = origin


def _text_fields(rule: Text, schema: pl.Schema, path: Path) -> list[str]:
    if rule.fields is None:
        return [name for name, dtype in schema.items() if dtype == pl.String]
    for position, field in enumerate(rule.fields):
        if field not in schema:
            raise UnknownColumnError(field, schema, path=(*path, position))
        if schema[field] != pl.String:
            raise ParameterError(f"{field!r} is {shown(schema[field])}, not text.", path=(*path, position))
    return rule.fields


_CASES: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "lower": lambda text: text.str.to_lowercase(),
    "upper": lambda text: text.str.to_uppercase(),
    "title": lambda text: text.str.to_titlecase(),
}


def _cleaned(text: pl.Expr, rule: Text) -> pl.Expr:
    if rule.unicode:
        text = text.str.normalize(rule.unicode)
    if rule.collapse_whitespace:
        text = text.str.replace_all(r"\s+", " ")
    if rule.trim:
        text = text.str.strip_chars()
    if rule.case:
        text = _CASES[rule.case](text)
    return pl.when(text != "").then(text) if rule.empty_as_null else text


_SCALES: dict[str, Callable[[pl.Expr], tuple[pl.Expr, pl.Expr]]] = {
    "min_max": lambda x: (x.min(), x.max() - x.min()),
    "z_score": lambda x: (x.mean(), x.std(ddof=0)),
    "robust": lambda x: (x.median(), x.quantile(0.75, "linear") - x.quantile(0.25, "linear")),
}


def _scaled(rule: Number, schema: pl.Schema, path: Path) -> pl.Expr:
    if rule.field not in schema:
        raise UnknownColumnError(rule.field, schema, path=path)
    if not schema[rule.field].is_numeric():
        raise ParameterError(f"{rule.field!r} is {shown(schema[rule.field])}, not a number.", path=path)
    column = pl.col(rule.field).cast(pl.Float64)
    centre, spread = _SCALES[rule.method](column)
    return (column - centre) / pl.when(spread == 0).then(1.0).otherwise(spread)


def _in_utc(rule: Timestamp, schema: pl.Schema, path: Path) -> pl.Expr:
    if rule.field not in schema:
        raise UnknownColumnError(rule.field, schema, path=(*path, "field"))
    dtype, column = schema[rule.field], pl.col(rule.field)
    if kind(dtype) == "timestamptz":
        if rule.time_zone is not None:
            raise ParameterError(
                f"{rule.field!r} has a time zone: {shown(dtype)}. Leave this out.", path=(*path, "time_zone")
            )
        return column.dt.convert_time_zone("UTC")
    if kind(dtype) != "timestamp":
        raise ParameterError(f"{rule.field!r} is {shown(dtype)}, not a timestamp.", path=(*path, "field"))
    if rule.time_zone is None:
        raise ParameterError(f"{rule.field!r} has no time zone. Say which it is in.", path=(*path, "time_zone"))
    placed = column.dt.replace_time_zone(rule.time_zone, ambiguous=rule.ambiguous, non_existent=rule.non_existent)
    return placed.dt.convert_time_zone("UTC")
