"""What a quality rule is: a plain function, and what its signature says about it.

``@rule`` registers a function that returns a boolean Polars expression about one row: true is
good, null has no opinion. ``@set_rule`` registers a function about the whole set, which says
the same twice: as a Polars expression and as SQL, because the set may stand in a database.
Either kind is named after its file, and its keyword-only arguments *are* its parameters.

What comes before them is filled in by annotation: ``pl.Expr`` is the field's column,
``pl.DataType`` its dtype, ``pl.Schema`` the columns of the row, ``tuple[str, ...]`` the fields.
This module must stay free of Pandera: commands that only list things import it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict, create_model

from transforms._registry import Registry
from validations._errors import RuleError

RowFunction = TypeVar("RowFunction", bound=Callable[..., pl.Expr])
SetFunction = TypeVar("SetFunction", bound=Callable[..., "Offenders | Claim"])
Parameters = BaseModel
Fields = tuple[str, ...]

#: Kinds of columns, in the words that errors use.
Kind = Literal["text", "number", "date", "time of day", "boolean", "category", "binary"]

_KINDS: dict[Kind, Callable[[pl.DataType], bool]] = {
    "text": lambda dtype: dtype == pl.String,
    "number": lambda dtype: dtype.is_numeric(),
    "date": lambda dtype: dtype in (pl.Date, pl.Datetime),
    "time of day": lambda dtype: dtype == pl.Time,
    "boolean": lambda dtype: dtype == pl.Boolean,
    "category": lambda dtype: dtype in (pl.Categorical, pl.Enum),
    "binary": lambda dtype: dtype == pl.Binary,
}


@dataclass(frozen=True)
class Offenders:
    """What a set rule says that blames rows.

    Attributes:
        at_fault: true for each row at fault, over the whole set.
        sql: from the table (SQL text) and the name of its row id (SQL text), a SELECT of the ids at fault.
        is_unique: whether a unique index over the fields proves that nobody is at fault.
    """

    at_fault: pl.Expr
    sql: Callable[[str, str], str]
    is_unique: bool = False


@dataclass(frozen=True)
class Claim:
    """What a set rule says about the set as a whole.

    Attributes:
        good: whether the claim holds, as an aggregate; `good_sql` is the same in SQL.
        observed: what was seen, as a text; `observed_sql` is the same in SQL.
    """

    good: pl.Expr
    observed: pl.Expr
    good_sql: str
    observed_sql: str


@dataclass(frozen=True)
class Rule:
    """A registered rule.

    Attributes:
        name: the name of its file, as users write it.
        function: the function itself; call it as a plain function.
        parameters: the pydantic model of its keyword-only arguments; unknown keys are refused.
        about: "row", or "set" for a rule that needs every row before it can say anything.
        accepts: the kinds of columns it can judge; empty is every kind.
        given: its leading arguments, by the annotation that fills them.
    """

    name: str
    function: Callable[..., Any]
    parameters: type[Parameters]
    about: Literal["row", "set"]
    accepts: tuple[Kind, ...]
    given: tuple[Any, ...]

    @property
    def fields_wanted(self) -> tuple[int, int | None]:
        """The least and the most fields that it takes; None is any number."""
        if pl.Expr in self.given or pl.DataType in self.given:
            return 1, 1
        return (0, None) if pl.Schema in self.given or Fields in self.given else (0, 0)

    def accepts_dtype(self, dtype: pl.DataType) -> bool:
        """Whether it can judge such a column; a column of nothing but nulls suits every rule."""
        return not self.accepts or dtype == pl.Null or any(_KINDS[kind](dtype) for kind in self.accepts)

    def row(self, fields: Sequence[str], schema: pl.Schema, parameters: Parameters) -> pl.Expr:
        """The expression that is true for a good row.

        Raises:
            RuleError: a parameter does not suit the column.
            TransformError: a formula cannot be understood.
        """
        if self.accepts and schema[fields[0]] == pl.Null:
            return pl.col(fields[0]).is_null()  # nothing there to have an opinion on
        expression: pl.Expr = self._call(fields, schema, parameters)
        return expression

    def whole(self, fields: Sequence[str], schema: pl.Schema, parameters: Parameters) -> Offenders | Claim:
        """What it says about the whole set.

        Raises:
            RuleError: a parameter does not suit the columns.
        """
        said: Offenders | Claim = self._call(fields, schema, parameters)
        return said

    def _call(self, fields: Sequence[str], schema: pl.Schema, parameters: Parameters) -> Any:
        filled: dict[Any, Any] = {pl.Schema: schema, Fields: tuple(fields)}
        if len(fields) == 1:
            filled |= {pl.Expr: pl.col(fields[0]), pl.DataType: schema[fields[0]]}
        arguments = {name: getattr(parameters, name) for name in type(parameters).model_fields}
        return self.function(*(filled[annotation] for annotation in self.given), **arguments)


class _Rules(Registry[Rule]):
    """The rules, which also answer to the names that dbt and its kin have for them."""

    aliases: typing.ClassVar = {
        "accepted_range": "between",
        "accepted_values": "in_set",
        "regex": "matches",
        "unique_combination_of_columns": "unique",
    }

    def get(self, name: str) -> Rule:
        return super().get(self.aliases.get(name, name))


rules = _Rules("rule", package="validations.rules")


def rule(*, accepts: tuple[Kind, ...] = ()) -> Callable[[RowFunction], RowFunction]:
    """Register a function that returns a boolean expression as the row rule named after its file.

    Args:
        accepts: the kinds of columns it can judge; empty is every kind.
    """

    def register(function: RowFunction) -> RowFunction:
        _register(function, "row", accepts)
        return function

    return register


def set_rule(*, accepts: tuple[Kind, ...] = ()) -> Callable[[SetFunction], SetFunction]:
    """Register a function that returns `Offenders` or a `Claim` as the set rule named after its file.

    Args:
        accepts: the kinds of columns it can judge; empty is every kind.
    """

    def register(function: SetFunction) -> SetFunction:
        _register(function, "set", accepts)
        return function

    return register


def quoted(identifier: str) -> str:
    """Quote a name for SQL: ``a"b`` is ``"a""b"``."""
    return '"' + identifier.replace('"', '""') + '"'


def _register(function: Callable[..., Any], about: Literal["row", "set"], accepts: tuple[Kind, ...]) -> None:
    name = function.__module__.rpartition(".")[2]
    hints = typing.get_type_hints(function, include_extras=True)
    given: list[Any] = []
    parameters: dict[str, Any] = {}
    for argument in inspect.signature(function).parameters.values():
        if argument.kind is inspect.Parameter.KEYWORD_ONLY:
            default = ... if argument.default is inspect.Parameter.empty else argument.default
            parameters[argument.name] = (hints[argument.name], default)
        elif hints[argument.name] in (pl.Expr, pl.DataType, pl.Schema, Fields):
            given.append(hints[argument.name])
        else:
            raise RuleError(f"rule {name!r}: nothing can be filled in for its argument {argument.name!r}.")
    model = create_model(f"{name}_parameters", __config__=ConfigDict(extra="forbid", frozen=True), **parameters)
    rules.register(name, Rule(name, function, model, about, accepts, tuple(given)))
