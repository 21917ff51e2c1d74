"""The contract as Pandera sees it, and what Pandera says about rows, in our words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import pandera.polars as pa
import polars as pl
from pandera.api.polars.types import PolarsData
from pandera.config import ValidationDepth, config_context
from pandera.errors import SchemaError, SchemaErrorReason, SchemaErrors

from validations._checks import RowCheck, SetRule
from validations._errors import BrokenContractError, ContractError
from validations._rule import Offenders

#: Dtypes that Pandera 0.35 does not take for what they are; the contract has compared them before it asks.
_UNKNOWN: Final = (pl.Int128, pl.UInt128, pl.Float16)


def compiled(columns: pl.Schema, row_checks: Sequence[RowCheck], set_rules: Sequence[SetRule]) -> pa.DataFrameSchema:
    """One Pandera schema that says all that a contract says; its checks are named by their labels."""
    schema = pa.DataFrameSchema({name: _column(dtype) for name, dtype in columns.items()})
    for check in row_checks:
        _add(schema, check, check.field, _rows(check))
    for rule in set_rules:
        # A claim is nobody's in particular; but Pandera cannot report one beside others unless it has a column.
        field = rule.fields[0] if rule.blames_rows else next(iter(columns), None)
        _add(schema, rule, field, _offenders(rule.says) if isinstance(rule.says, Offenders) else _claim(rule))
    return schema


def validate(schema: pa.DataFrameSchema, rows: pl.LazyFrame) -> None:
    """Have Pandera check rows against the schema of a contract.

    Raises:
        BrokenContractError: rows broke it.
        ContractError: a check cannot run on these rows.
    """
    try:
        # Left alone, Pandera looks at no row of a lazy frame, and at nothing at all where the environment says so.
        with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA):
            schema.validate(rows, lazy=True)
    except SchemaErrors as errors:
        for error in errors.schema_errors:
            if error.reason_code is SchemaErrorReason.CHECK_ERROR:
                raise ContractError(f"{error.check.name} cannot run on these rows: {error}.") from errors
        raise BrokenContractError({_label(error): _violations(error) for error in errors.schema_errors}) from errors


def _column(dtype: pl.DataType) -> pa.Column:
    return pa.Column(None if dtype in _UNKNOWN else dtype, nullable=True)


def _add(
    schema: pa.DataFrameSchema,
    check: RowCheck | SetRule,
    field: str | None,
    function: Callable[[PolarsData], pl.LazyFrame],
) -> None:
    holder = schema if field is None else schema.columns[field]
    warns = check.on_violation == "warn"
    holder.checks.append(pa.Check(function, name=check.label, error=check.label, raise_warning=warns))


def _rows(check: RowCheck) -> Callable[[PolarsData], pl.LazyFrame]:
    good = check.good
    if isinstance(good, pl.Expr):
        return lambda data: data.lazyframe.select(good)
    return lambda data: good(data.lazyframe)


def _offenders(says: Offenders) -> Callable[[PolarsData], pl.LazyFrame]:
    return lambda data: data.lazyframe.select(says.at_fault.not_())


def _claim(rule: SetRule) -> Callable[[PolarsData], pl.LazyFrame]:
    return lambda data: rule.verdict(data.lazyframe).select("good")


def _label(error: SchemaError) -> str:
    return str(getattr(error.check, "name", error.check))


def _violations(error: SchemaError) -> int:
    return error.failure_cases.height if isinstance(error.failure_cases, pl.DataFrame) else 1
