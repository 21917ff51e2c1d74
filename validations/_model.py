"""A Pandera model of a table, as checks of rows and of the whole set.

What Pandera can say from columns alone it says here, on a frame without rows. What it can
only say from rows becomes checks that run batch by batch; a model that would change rows, or
whose checks look at more than one row, is refused by name, because batches would get it wrong.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

import pandera.polars as pa
import polars as pl
from pandera.api.polars.types import PolarsData
from pandera.backends.polars.checks import PolarsCheckBackend
from pandera.config import ValidationDepth, config_context
from pandera.constants import CHECK_OUTPUT_KEY
from pandera.errors import SchemaError, SchemaErrorReason, SchemaErrors, SchemaInitError

from transforms._errors import LockgateError
from transforms._words import did_you_mean
from validations._checks import BoundRule, OnViolation, RowCheck, SetRule, row_by_row
from validations._checks import bind as bind_rule
from validations._errors import ContractError, ModelError
from validations._rule import rules

Model = type[pa.DataFrameModel]


def load_model(reference: str) -> Model:
    """The Pandera model that ``package.module:Class`` names.

    Raises:
        ModelError: there is no such module or class, or it is something else.
    """
    module_name, colon, name = reference.partition(":")
    if not (module_name and colon and name):
        raise ModelError(reference, ["write it as package.module:Class, like validations.schemas.customers:Customers."])
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ModelError(reference, [f"cannot be imported: {error}. Is it installed, or on PYTHONPATH?"]) from error
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, pa.DataFrameModel)):
        models = [
            key for key, value in vars(module).items() if isinstance(value, type) and value is not pa.DataFrameModel
        ]
        known = [key for key in models if issubclass(getattr(module, key), pa.DataFrameModel)]
        raise ModelError(reference, [f"{name!r} is not a Pandera model for Polars.{did_you_mean(name, known)}"])
    return found


def bind(model: Model, schema: pl.Schema, promised: Collection[str] = ()) -> list[RowCheck | SetRule]:
    """Hold a model against the columns it will see.

    Args:
        model: the model.
        schema: the columns to be judged.
        promised: labels of rules; what one of these says is left out.

    Raises:
        ModelError: it does not fit, changes rows, or looks at more than one row.
    """
    declared = _schema_of(model)
    _refuse_changes(model, declared)
    _hold_columns(model, declared, schema)
    checks: list[RowCheck | SetRule] = []
    for name, column in _columns_of(declared, schema):
        if not column.nullable and (f"{name} not_null" not in promised or schema[name].is_float()):
            checks.append(_not_null(model, name, schema[name]))
        checks += [_row_check(model, check, name, schema) for check in column.checks]
        if column.unique:
            checks.append(_unique(model, (name,), schema))
    checks += [_row_check(model, check, None, schema) for check in declared.checks]
    checks += [_unique(model, key, schema) for key in _keys(declared)]
    own = f"{model.__name__}."
    return [check for check in checks if not (isinstance(check, SetRule) and check.label.removeprefix(own) in promised)]


def _schema_of(model: Model) -> pa.DataFrameSchema:
    """The schema that a model describes.

    Raises:
        ModelError: Pandera cannot make one of it.
    """
    try:
        return model.to_schema()
    except SchemaInitError as error:
        raise ModelError(model.__name__, [f"{_first_line(error)}."]) from error


def _columns_of(declared: pa.DataFrameSchema, schema: pl.Schema) -> Iterator[tuple[str, pa.Column]]:
    """Each column of `schema` that the model describes, by its name or by a pattern; a name goes first."""
    for name, column in declared.columns.items():
        if not column.regex:
            names = [name] if name in schema else []
        else:
            matched = schema.to_frame().select(pl.col(column.selector)).columns
            names = [match for match in matched if match not in declared.columns]
        yield from ((each, column) for each in names)


def _check_label(model: Model, check: pa.Check, field: str | None) -> str:
    """What people call a check of a model: ``Customers.email str_matches``."""
    return f"{model.__name__}.{field} {check.name}" if field else f"{model.__name__} {check.name}"


def _not_null(model: Model, name: str, dtype: pl.DataType) -> RowCheck:
    column = pl.col(name)
    # Pandera's not-nullable columns hold no NaN either.
    there = column.is_not_null() & column.is_not_nan() if dtype.is_float() else column.is_not_null()
    return RowCheck(f"{model.__name__}.{name} not_null", "quarantine", name, there)


def _row_check(model: Model, check: pa.Check, field: str | None, schema: pl.Schema) -> RowCheck:
    try:
        _try(check, field, schema.to_frame().lazy())
    except Exception as error:
        raise ModelError(model.__name__, [f"check {check.name!r} cannot be used: {_first_line(error)}."]) from error
    action: OnViolation = "warn" if check.raise_warning else "quarantine"
    return RowCheck(_check_label(model, check, field), action, field, _result(check, field))


def _try(check: pa.Check, field: str | None, nothing: pl.LazyFrame) -> None:
    """Run a check on no rows, and see that it judges each row by itself."""
    check(nothing, field)  # also looks up the built-in ones again, which a model may have done too early
    if not check.element_wise:
        said = PolarsCheckBackend(check).check_fn(PolarsData(nothing, field or "*"))
        if not (isinstance(said, pl.LazyFrame) and row_by_row(said)):
            raise ContractError(
                "it looks at more than one row, and rows are judged in batches. "
                "Say it with a quality rule about the whole set (unique, row_count), or leave it out"
            )
    _result(check, field)(nothing).collect()


def _result(check: pa.Check, field: str | None) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    """Pandera's own result of a check, a row for a row."""
    backend = PolarsCheckBackend(check)
    output = pl.col(CHECK_OUTPUT_KEY)

    def good(frame: pl.LazyFrame) -> pl.LazyFrame:
        result: pl.LazyFrame = backend.apply(PolarsData(frame, field or "*"))
        return result if check.ignore_na else result.select(output.fill_null(value=False))

    return good


def _unique(model: Model, key: tuple[str, ...], schema: pl.Schema) -> RowCheck | SetRule:
    kind = rules.get("unique")
    rule = BoundRule(0, kind, key, kind.parameters())
    try:
        return replace(bind_rule(rule, schema), label=f"{model.__name__}.{rule.label}")
    except LockgateError as error:
        raise ModelError(model.__name__, [error.message]) from error


def _keys(declared: pa.DataFrameSchema) -> list[tuple[str, ...]]:
    """The keys of several columns: Pandera takes one list of names, or a list of such lists."""
    unique = declared.unique or []
    if unique and all(isinstance(part, str) for part in unique):
        return [tuple(unique)]
    return [tuple(part) for part in unique]


def _refuse_changes(model: Model, declared: pa.DataFrameSchema) -> None:
    """A contract only judges; Pandera would also cast, fill, add and drop."""
    columns = declared.columns.values()
    changes = {
        "coerce": declared.coerce or any(column.coerce for column in columns),
        "default": any(column.default is not None for column in columns),
        "add_missing_columns": declared.add_missing_columns,
        "strict = 'filter'": declared.strict == "filter",
        "drop_invalid_rows": declared.drop_invalid_rows or any(column.drop_invalid_rows for column in columns),
    }
    if found := [change for change, wanted in changes.items() if wanted]:
        words = [f"it changes rows ({', '.join(found)}), and a contract only judges them. Do that in a step before."]
        raise ModelError(model.__name__, words)


def _hold_columns(model: Model, declared: pa.DataFrameSchema, schema: pl.Schema) -> None:
    try:
        with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_ONLY):
            declared.validate(schema.to_frame(), lazy=True)
    except SchemaErrors as errors:
        raise ModelError(model.__name__, [_misfit(error, schema) for error in errors.schema_errors]) from errors


def _misfit(error: SchemaError, schema: pl.Schema) -> str:
    name = error.failure_cases
    match error.reason_code:
        case SchemaErrorReason.COLUMN_NOT_IN_DATAFRAME:
            return f"no column {name!r}.{did_you_mean(name, schema, word='Present')}"
        case SchemaErrorReason.COLUMN_NOT_IN_SCHEMA:
            return f"column {name!r} is not part of it, and it is strict."
        case SchemaErrorReason.COLUMN_NOT_ORDERED:
            return f"column {name!r} is not where its order says."
        case SchemaErrorReason.WRONG_DATATYPE:
            return f"it wants {error.schema.name!r} as {error.schema.dtype}, and it is {name}."
        case _:
            return f"{_first_line(error)}."


def _first_line(error: Exception) -> str:
    return str(error).split("\n", maxsplit=1)[0].rstrip(".")
