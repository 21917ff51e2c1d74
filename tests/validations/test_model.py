"""A Pandera model is a part of the contract: what it declares is held, row by row and as a whole."""

# ruff: noqa: E501, N805 - messages stand in one piece, and Pandera passes the class to its checks

from __future__ import annotations

import doctest
import sys
from datetime import date

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandera.api.dataframe.model_components import parser
from pandera.errors import SchemaErrors

from validations._contract import Contract
from validations._errors import BrokenContractError, ContractError, ModelError
from validations._model import load_model
from validations.schemas.customers import Customers

CUSTOMERS = pl.DataFrame(
    {
        "customer_id": [1, 2, 2, None, -5],
        "name": ["Ada", "", "Cy", "Di", "Ed"],
        "email": ["a@b.co", None, "nope", "d@e.fg", None],
        "status": ["active", "closed", "gone", "closed", None],
        "created_at": [date(2024, 1, 1)] * 5,
    }
)


def planned(model, frame=CUSTOMERS, rules=()):
    return Contract.plan(rules, frame.schema, model)


def test_a_model_contributes_nulls_checks_and_keys():
    assert planned(Customers).labels == (
        "Customers.customer_id not_null",
        "Customers.customer_id greater_than",
        "Customers.name not_null",
        "Customers.name str_length",
        "Customers.email str_matches",
        "Customers.status not_null",
        "Customers.status isin",
        "Customers.created_at not_null",
        "Customers closed customers keep no address",
        "Customers.customer_id unique",
    )


def test_a_model_judges_rows():
    verdict = planned(Customers).judge(CUSTOMERS)
    assert verdict.positions.to_list() == [1, 2, 3, 4]
    assert verdict.reasons.to_list() == [
        ["Customers.name str_length"],
        ["Customers.email str_matches", "Customers.status isin"],
        ["Customers.customer_id not_null", "Customers closed customers keep no address"],
        ["Customers.customer_id greater_than", "Customers.status not_null"],
    ]


def test_pandera_says_the_same_of_the_whole_contract():
    with pytest.raises(BrokenContractError) as broken:
        planned(Customers).validate(CUSTOMERS.lazy())
    in_batches = {label: count for label, count in planned(Customers).judge(CUSTOMERS).counts.items() if count}
    assert broken.value.counts == in_batches | {"Customers.customer_id unique": 2}


def test_what_the_rules_promise_is_not_asked_twice(bound):
    rules = [bound("not_null", "customer_id"), bound("unique", "customer_id")]
    labels = planned(Customers, rules=rules).labels
    assert "Customers.customer_id not_null" not in labels
    assert "Customers.customer_id unique" not in labels
    warning = [bound("not_null", "customer_id", on_violation="warn")]
    assert "Customers.customer_id not_null" in planned(Customers, rules=warning).labels


class Measured(pa.DataFrameModel):
    key: int
    part: int
    value: float = pa.Field(nullable=True, in_range={"min_value": 0, "max_value": 9})
    strict: float = pa.Field(ge=1)
    note: str = pa.Field(nullable=True, str_startswith="n", raise_warning=True)
    x_1: int = pa.Field(alias="x_.", regex=True, gt=0)

    class Config:
        unique = ("key", "part")

    @pa.check("part", element_wise=True)
    def even(cls, part: int) -> bool:
        return part % 2 == 0

    @pa.check("value", ignore_na=False)
    def small(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key) < 7)

    @pa.dataframe_check
    def sums(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col("key") >= 0, pl.col("part") >= 0)


ROW = st.tuples(
    st.integers(-1, 3),
    st.integers(-1, 3),
    st.none() | st.sampled_from([0.0, 6.5, 8.0, 11.0, float("nan")]),
    st.none() | st.sampled_from([0.5, 1.0, float("nan")]),
    st.none() | st.sampled_from(["n", "m"]),
    st.none() | st.integers(-1, 2),
    st.none() | st.integers(-1, 2),
)
COLUMNS = {
    "key": pl.Int64, "part": pl.Int64, "value": pl.Float64, "strict": pl.Float64, "note": pl.String, "x_a": pl.Int64,
    "x_b": pl.Int64,
}  # fmt: skip


@given(st.lists(ROW, max_size=10))
@settings(deadline=None, max_examples=60)
@pytest.mark.filterwarnings("ignore::pandera.errors.SchemaWarning")
def test_judge_rejects_the_rows_that_the_model_itself_reports(drawn):
    frame = pl.DataFrame(drawn, schema=COLUMNS, orient="row")
    contract = planned(Measured, frame)
    verdict = contract.judge(frame)
    rows, keys = reported(Measured, frame)
    assert set(verdict.positions) == rows
    assert set(contract.set_rules[0].violations(frame.lazy()).collect()["row"]) == keys


def reported(model: type[pa.DataFrameModel], frame: pl.DataFrame) -> tuple[set[int], set[int]]:
    """Positions that Pandera, asked alone, reports for checks of rows, and for keys."""
    rows, keys = set(), set()
    try:
        model.validate(frame, lazy=True)
    except SchemaErrors as errors:
        for error in errors.schema_errors:
            output = error.check_output["check_output"]
            (keys if "unique" in str(error.check) else rows).update((~output).arg_true())
    return rows, keys


def test_a_check_that_warns_in_the_model_warns_in_the_contract():
    contract = planned(Measured, pl.DataFrame(schema=COLUMNS))
    assert [line["rule"] for line in contract.summary({}) if line["on_violation"] == "warn"] == [
        "Measured.note str_startswith"
    ]
    assert contract.set_rules[0].label == "Measured.key, part unique"


def test_a_model_that_does_not_fit_says_everything_at_once():
    frame = CUSTOMERS.rename({"email": "emial"}).with_columns(pl.col("created_at").cast(pl.String))
    with pytest.raises(ModelError) as refused:
        planned(Customers, frame)
    assert str(refused.value) == (
        "schema: Customers: no column 'email'. Did you mean 'emial'? "
        "Present: created_at, customer_id, emial, name, status. "
        "it wants 'created_at' as Date, and it is String."
    )
    assert len(refused.value.problems) == 2


class Strict(pa.DataFrameModel):
    b: int
    a: int

    class Config:
        strict = True
        ordered = True


def test_strictness_and_order_are_held_at_plan_time():
    with pytest.raises(ModelError, match="column 'c' is not part of it, and it is strict"):
        planned(Strict, pl.DataFrame({"b": [1], "a": [1], "c": [1]}))
    with pytest.raises(ModelError, match="column 'a' is not where its order says"):
        planned(Strict, pl.DataFrame({"a": [1], "b": [1]}))
    assert planned(Strict, pl.DataFrame({"b": [1], "a": [1]})).labels == ("Strict.b not_null", "Strict.a not_null")


class Coerces(pa.DataFrameModel):
    a: int = pa.Field(coerce=True, default=1)


class Filters(pa.DataFrameModel):
    a: int

    class Config:
        strict = "filter"
        add_missing_columns = True


class Parses(pa.DataFrameModel):
    a: int

    @parser("a")
    def parsed(cls, column):
        return column


class CountsValues(pa.DataFrameModel):
    a: int = pa.Field(unique_values_eq=[1, 2])


class Averages(pa.DataFrameModel):
    a: int

    @pa.check("a")
    def above_average(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key) >= pl.col(data.key).mean())


class Totals(pa.DataFrameModel):
    a: int

    @pa.dataframe_check
    def enough(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col("a").sum() > 1)


class Stumbles(pa.DataFrameModel):
    a: int

    @pa.check("a")
    def stumble(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col("no such column") > 1)


MORE_THAN_ONE = (
    "it looks at more than one row, and rows are judged in batches. "
    "Say it with a quality rule about the whole set (unique, row_count), or leave it out."
)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Coerces, "it changes rows (coerce, default), and a contract only judges them. Do that in a step before."),
        (Filters, "it changes rows (add_missing_columns, strict = 'filter'), and a contract only judges them. Do that in a step before."),
        (Parses, "user-defined parsers are not supported by the polars backend (see issue #2472)."),
        (CountsValues, f"check 'unique_values_eq' cannot be used: {MORE_THAN_ONE}"),
        (Averages, f"check 'above_average' cannot be used: {MORE_THAN_ONE}"),
        (Totals, f"check 'enough' cannot be used: {MORE_THAN_ONE}"),
    ],
)  # fmt: skip
def test_a_model_that_batches_would_get_wrong_is_refused_by_name(model, message):
    with pytest.raises(ModelError) as refused:
        planned(model, pl.DataFrame({"a": [1]}))
    assert str(refused.value) == f"schema: {model.__name__}: {message}"


class Shrinks(pa.DataFrameModel):
    a: int

    @pa.check("a")
    def some(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.filter(pl.col("a") > 1).select(pl.col("a") > 2)


class Divides(pa.DataFrameModel):
    a: int

    @pa.check("a", element_wise=True)
    def inverse(cls, a: int) -> bool:
        return 1 / a > 0


def test_a_check_that_does_not_answer_for_each_row_is_refused():
    with pytest.raises(ModelError, match="check 'some' cannot be used: it looks at more than one row"):
        planned(Shrinks, pl.DataFrame({"a": [1]}))


def test_a_check_that_fails_on_a_row_is_named():
    rows = pl.DataFrame({"a": [1, 0]})
    with pytest.raises(ContractError, match=r"^Divides.a inverse cannot run on these rows: .*ZeroDivisionError"):
        planned(Divides, rows).judge(rows)


def test_a_check_that_cannot_run_is_named():
    with pytest.raises(ModelError, match=r"^schema: Stumbles: check 'stumble' cannot be used: .*no such column"):
        planned(Stumbles, pl.DataFrame({"a": [1]}))


def test_a_model_is_named_by_module_and_class():
    assert load_model("validations.schemas.customers:Customers") is Customers


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("customers", "write it as package.module:Class, like validations.schemas.customers:Customers."),
        ("validations.schemas.customers:", "write it as package.module:Class, like validations.schemas.customers:Customers."),
        ("validations.schemas.custmers:Customers", "cannot be imported: No module named 'validations.schemas.custmers'. Is it installed, or on PYTHONPATH?"),
        ("validations.schemas.customers:Custommers", "'Custommers' is not a Pandera model for Polars. Did you mean 'Customers'? Known: Customers."),
        ("validations._contract:Contract", "'Contract' is not a Pandera model for Polars. Known: none."),
    ],
)  # fmt: skip
def test_a_reference_that_leads_nowhere_is_refused(reference, message):
    with pytest.raises(ModelError) as refused:
        load_model(reference)
    assert str(refused.value) == f"schema: {reference}: {message}"


def test_the_documented_example_of_customers_runs():
    results = doctest.testmod(sys.modules["validations.schemas.customers"])
    assert (results.attempted, results.failed) == (4, 0)
