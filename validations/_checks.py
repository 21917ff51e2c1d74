"""Rules bound to the columns of one pipeline: what is asked of each row, and of the whole set.

This module must stay free of Pandera; `_model` and `_pandera` are the two that know it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as attribute
from typing import Literal

import polars as pl

from transforms._errors import LockgateError, UnknownColumnError
from validations._errors import RuleError
from validations._rule import Claim, Kind, Offenders, Parameters, Rule, rules

OnViolation = Literal["quarantine", "fail", "warn"]

_LONGEST_LABEL = 80


@dataclass(frozen=True)
class BoundRule:
    """One quality rule of a pipeline: a registered rule with its fields and parameters.

    Attributes:
        position: its place in ``quality_rules``, from 0; errors name it.
        on_violation: what becomes of a broken rule: its rows go to quarantine, the load fails, or people
            are told (``severity: warn`` in YAML).
    """

    position: int
    kind: Rule
    fields: tuple[str, ...]
    parameters: Parameters
    on_violation: OnViolation = "quarantine"

    @property
    def label(self) -> str:
        """What people call it: ``customer_id unique``, ``row_count(min=1)``."""
        if self.fields:
            return f"{', '.join(self.fields)} {self.kind.name}"
        said = ", ".join(f"{name}={getattr(self.parameters, name)!r}" for name in self._set_by_user())
        label = f"{self.kind.name}({said})" if said else self.kind.name
        return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"

    def _set_by_user(self) -> list[str]:
        return [name for name in type(self.parameters).model_fields if name in self.parameters.model_fields_set]


@dataclass(frozen=True)
class RowCheck:
    """A check of single rows.

    Attributes:
        field: the column it is about, where it is about one.
        good: true for a good row, null for no opinion; or, for a check that only Pandera can run, a
            function from rows to one such column.
    """

    label: str
    on_violation: OnViolation
    field: str | None
    good: pl.Expr | Callable[[pl.LazyFrame], pl.LazyFrame] = attribute(compare=False)

    def broken(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Which rows break it: a Boolean column without nulls, under its label."""
        said = frame.select(self.good) if isinstance(self.good, pl.Expr) else self.good(frame)
        return said.select(violated(pl.first()).alias(self.label))


@dataclass(frozen=True)
class SetRule:
    """A check of the whole set, for whoever keeps the set: a database is asked in SQL, a file with Polars.

    Attributes:
        label: what people call it: ``customer_id unique``.
        fields: the columns it is about; none for a rule about the set as a whole.
    """

    label: str
    on_violation: OnViolation
    fields: tuple[str, ...]
    says: Offenders | Claim = attribute(compare=False)

    @property
    def blames_rows(self) -> bool:
        """Whether it names the rows at fault; otherwise it has one verdict on the set."""
        return isinstance(self.says, Offenders)

    @property
    def is_unique(self) -> bool:
        """Whether a unique index over `fields` proves that it holds."""
        return isinstance(self.says, Offenders) and self.says.is_unique

    @property
    def violated(self) -> pl.Expr:
        """Whether each row is at fault, over the whole set; only where `blames_rows`."""
        return self._offenders.at_fault

    def violations_sql(self, table: str, row_id: str) -> str:
        """A SELECT of the row ids at fault, in no order; only where `blames_rows`.

        Args:
            table: SQL text that names the table, quoted, with its schema where needed.
            row_id: SQL text that names the column to select.
        """
        return self._offenders.sql(table, row_id)

    def violations(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Positions of the rows at fault from 0, ascending, as a column ``row`` (UInt32); only where `blames_rows`."""
        at_fault = frame.select(self.violated.alias("at_fault")).with_row_index("row")
        return at_fault.filter("at_fault").select(pl.col("row").cast(pl.UInt32))

    def verdict_sql(self, table: str) -> str:
        """A SELECT of one row, whether the set is good and what was observed; only where not `blames_rows`.

        Args:
            table: SQL text that names the table, quoted, with its schema where needed.
        """
        return f"SELECT {self._claim.good_sql}, {self._claim.observed_sql} FROM {table}"

    def verdict(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """One row: ``good`` (Boolean) and ``observed`` (String); only where not `blames_rows`."""
        return frame.select(self._claim.good.alias("good"), self._claim.observed.alias("observed"))

    @property
    def _offenders(self) -> Offenders:
        if not isinstance(self.says, Offenders):
            raise TypeError(f"{self.label} blames no rows; ask for its verdict.")
        return self.says

    @property
    def _claim(self) -> Claim:
        if not isinstance(self.says, Claim):
            raise TypeError(f"{self.label} has no verdict on the set; ask for its violations.")
        return self.says


def bind(bound: BoundRule, schema: pl.Schema) -> RowCheck | SetRule:
    """Hold a rule against the columns it will see; nothing is computed.

    Raises:
        UnknownColumnError: it names a column that is not there.
        RuleError: it does not suit its column, or a parameter does not.
        TransformError: its formula cannot be understood.
    """
    try:
        return _bound(bound, schema)
    except LockgateError as error:
        raise error.under("quality_rules", bound.position) from error.__cause__


def unlike(checks: Sequence[RowCheck | SetRule]) -> list[RowCheck | SetRule]:
    """The same checks with labels that tell them apart: the second ``age between`` is ``age between #2``."""
    seen: dict[str, int] = {}
    told_apart = []
    for check in checks:
        seen[check.label] = seen.get(check.label, 0) + 1
        number = seen[check.label]
        told_apart.append(check if number == 1 else replace(check, label=f"{check.label} #{number}"))
    return told_apart


def violated(good: pl.Expr) -> pl.Expr:
    """True where a row is bad: false is bad, and null has no opinion."""
    return good.not_().fill_null(value=False)


def row_by_row(plan: pl.LazyFrame) -> bool:
    """Whether each row's result comes from that row alone, so that batches give the same as the whole.

    Polars is asked by way of its optimiser: it cuts rows off before a projection only where that
    changes nothing. (`Expr.meta.is_row_separable` of Polars 2.1 says yes to ``a > a.mean()``.)
    """
    lines = plan.slice(1, 2).explain().splitlines()
    return not any(line.lstrip().startswith("SLICE[") for line in lines) and plan.collect().height == 0


def _bound(bound: BoundRule, schema: pl.Schema) -> RowCheck | SetRule:
    kind, fields = bound.kind, bound.fields
    _hold_fields(kind, fields, schema)
    if kind.about == "set":
        says = kind.whole(fields, schema, bound.parameters)
        key = _roots(says.at_fault if isinstance(says, Offenders) else says.good)
        _hold_columns(kind, [name for name in key if name not in fields], schema, path=("parameters",))
        return SetRule(bound.label, bound.on_violation, tuple(key), says)
    good = kind.row(fields, schema, bound.parameters)
    _hold_expression(good, schema)
    return RowCheck(bound.label, bound.on_violation, fields[0] if len(fields) == 1 else None, good)


def _hold_fields(kind: Rule, fields: Sequence[str], schema: pl.Schema) -> None:
    least, most = kind.fields_wanted
    if not least <= len(fields) <= (len(fields) if most is None else most):
        wanted = "takes no field" if most == 0 else "is about one field; write a rule for each"
        raise RuleError(f"{kind.name} {wanted}.", path=("field",))
    _hold_columns(kind, fields, schema, path=("field",))


def _hold_columns(kind: Rule, names: Sequence[str], schema: pl.Schema, *, path: tuple[str, ...]) -> None:
    for name in names:
        if name not in schema:
            raise UnknownColumnError(name, schema, path=path)
        if not kind.accepts_dtype(schema[name]):
            raise RuleError(
                f"{kind.name} judges {_listed(kind.accepts)}, and {name!r} is {schema[name]}. Cast it in a step "
                f"before, or choose a rule for it: {', '.join(_suitable(schema[name]))}.",
                path=path,
            )


def _hold_expression(good: pl.Expr, schema: pl.Schema) -> None:
    nothing = schema.to_frame().lazy().select(good)
    try:
        (dtype,) = nothing.collect_schema().dtypes()
    except pl.exceptions.ColumnNotFoundError:
        missing = next(name for name in _roots(good) if name not in schema)
        raise UnknownColumnError(missing, schema, path=("parameters",)) from None
    except pl.exceptions.PolarsError as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise RuleError(f"the rule does not suit its columns: {reason}.", path=("parameters",)) from error
    if dtype not in (pl.Boolean, pl.Null):
        raise RuleError(f"the rule gives {dtype}, and not true or false.", path=("parameters",))
    if not _roots(good):
        raise RuleError("the rule names no column, so it says nothing about a row.", path=("parameters",))
    if not row_by_row(nothing):
        raise RuleError("the rule looks at more than one row.", path=("parameters",))


def _roots(expression: pl.Expr) -> list[str]:
    return list(dict.fromkeys(expression.meta.root_names()))


def _listed(kinds: Sequence[Kind]) -> str:
    return " and ".join(filter(None, [", ".join(kinds[:-1]), kinds[-1]]))


def _suitable(dtype: pl.DataType) -> list[str]:
    return [name for name, rule in rules if rule.accepts_dtype(dtype) and rule.fields_wanted[1] == 1]
