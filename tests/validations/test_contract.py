"""A contract parts rows, keeps them all, and says what it found; Pandera says the same."""

# ruff: noqa: E501 - messages stand in one piece

from __future__ import annotations

import subprocess
import sys

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandera.config import ValidationDepth, config_context
from pandera.errors import SchemaErrors, SchemaWarning
from polars.testing import assert_frame_equal

from transforms._errors import UnknownColumnError
from validations._contract import BoundRule, Contract
from validations._errors import BrokenContractError, ContractError, RuleError, TooManyRejectedError, percent
from validations._rule import rules
from validations._verdict import hold_ratio

ROWS = pl.DataFrame(
    {
        "id": [1, 2, 2, None, 5],
        "email": ["a@b.co", "nope", None, "neither", "e@f.gh"],
        "age": [17, 18, 19, 20, 200],
    }
)


@pytest.fixture
def contract(bound):
    return Contract.plan(
        [
            bound("not_null", "id", on_violation="fail"),
            bound("email", "email"),
            bound("between", "age", min=18, on_violation="warn"),
            bound("between", "age", max=100),
            bound("unique", "id"),
            bound("row_count", min=1, on_violation="fail"),
        ],
        ROWS.schema,
    )


def test_every_row_is_in_one_frame_with_its_reasons(contract):
    verdict = contract.judge(ROWS)
    assert_frame_equal(verdict.accepted, ROWS[[0, 2]])
    assert_frame_equal(verdict.rejected, ROWS[[1, 3, 4]])
    assert verdict.positions.to_list() == [1, 3, 4]
    assert verdict.positions.dtype == pl.UInt32
    assert verdict.reasons.to_list() == [["email email"], ["id not_null", "email email"], ["age between #2"]]
    assert verdict.counts == {"id not_null": 1, "email email": 2, "age between": 1, "age between #2": 1}
    assert verdict.failed == ("id not_null",)


def test_a_row_that_only_breaks_warnings_is_accepted(contract):
    verdict = contract.judge(ROWS[:1])
    assert_frame_equal(verdict.accepted, ROWS[:1])
    assert verdict.counts["age between"] == 1


@pytest.mark.parametrize("rows", [ROWS[:0], ROWS[2:3]], ids=["no rows", "good rows"])
def test_where_nothing_is_bad_the_shape_is_the_same(contract, rows):
    good, bad = contract.judge(rows), contract.judge(ROWS)
    assert_frame_equal(good.accepted, rows)
    assert good.rejected.schema == bad.rejected.schema
    assert (good.positions.dtype, good.positions.name) == (bad.positions.dtype, bad.positions.name)
    assert (good.reasons.dtype, good.reasons.name) == (bad.reasons.dtype, bad.reasons.name)
    assert good.counts.keys() == bad.counts.keys()
    assert good.failed == ()


def test_batches_give_what_the_whole_gives(contract):
    whole = contract.judge(ROWS)
    parts = [contract.judge(batch) for batch in ROWS.iter_slices(2)]
    assert_frame_equal(pl.concat(part.rejected for part in parts), whole.rejected)
    assert pl.concat(part.reasons for part in parts).to_list() == whole.reasons.to_list()


def test_columns_that_the_contract_does_not_know_travel_along(contract):
    rows = ROWS.with_columns(more=pl.lit("x"))
    assert contract.judge(rows).rejected.columns == ["id", "email", "age", "more"]


def test_a_contract_without_rules_accepts_everything():
    verdict = Contract.plan([], ROWS.schema).judge(ROWS)
    assert_frame_equal(verdict.accepted, ROWS)
    assert verdict.counts == {}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS.drop("age"), "the contract was planned for 'age' as Int64, and in these rows it is missing."),
        (
            ROWS.with_columns(pl.col("age").cast(pl.String)),
            "the contract was planned for 'age' as Int64, and in these rows it is String.",
        ),
    ],
    ids=["missing", "another dtype"],
)
def test_rows_of_other_columns_are_refused(contract, rows, message):
    for refuse in (contract.judge, lambda frame: contract.validate(frame.lazy())):
        with pytest.raises(ContractError) as refused:
            refuse(rows)
        assert str(refused.value) == message


def test_a_formula_that_fails_on_a_row_is_named(bound):
    rows = pl.DataFrame({"text": ["1", "x"]})
    contract = Contract.plan([bound("not_null", "text"), bound("expression", formula="text::int > 0")], rows.schema)
    with pytest.raises(ContractError, match=r"^expression\(formula='text::int > 0'\) cannot run on these rows: "):
        contract.judge(rows)


def test_the_summary_is_a_line_for_each_check(contract):
    counts = contract.judge(ROWS).counts | {"id unique": 2}
    assert contract.summary(counts) == [
        {"rule": "id not_null", "on_violation": "fail", "violations": 1, "passed": False},
        {"rule": "email email", "on_violation": "quarantine", "violations": 2, "passed": False},
        {"rule": "age between", "on_violation": "warn", "violations": 1, "passed": False},
        {"rule": "age between #2", "on_violation": "quarantine", "violations": 1, "passed": False},
        {"rule": "id unique", "on_violation": "quarantine", "violations": 2, "passed": False},
        {"rule": "row_count(min=1)", "on_violation": "fail", "violations": 0, "passed": True},
    ]
    assert contract.labels == tuple(line["rule"] for line in contract.summary({}))


def test_set_rules_know_their_key(bound):
    contract = Contract.plan([bound("unique", "id", columns=["age"]), bound("unique", columns=["email"])], ROWS.schema)
    assert [rule.fields for rule in contract.set_rules] == [("id", "age"), ("email",)]
    assert contract.labels == ("id unique", "unique(columns=('email',))")


@pytest.mark.parametrize(
    ("name", "fields", "parameters", "error", "message"),
    [
        ("not_null", ["emial"], {}, UnknownColumnError, ".field: no column 'emial' at this step. Did you mean 'email'? Present: age, email, id."),
        ("unique", ["id", "agee"], {}, UnknownColumnError, ".field: no column 'agee' at this step. Did you mean 'age'? Present: age, email, id."),
        ("unique", ["id"], {"columns": ["agee"]}, UnknownColumnError, ".parameters: no column 'agee' at this step. Did you mean 'age'? Present: age, email, id."),
        ("unique", [], {}, RuleError, ".field: unique needs the columns of a key, each once."),
        ("unique", ["id"], {"columns": ["id"]}, RuleError, ".field: unique needs the columns of a key, each once."),
        ("not_null", [], {}, RuleError, ".field: not_null is about one field; write a rule for each."),
        ("not_null", ["id", "age"], {}, RuleError, ".field: not_null is about one field; write a rule for each."),
        ("row_count", ["id"], {"min": 1}, RuleError, ".field: row_count takes no field."),
        ("row_count", [], {}, RuleError, ".parameters: row_count needs 'min' or 'max'."),
        ("expression", [], {"formula": "1 = 1"}, RuleError, ".parameters: the rule names no column, so it says nothing about a row."),
        ("expression", [], {"formula": "sum(age) > 1"}, RuleError, ".parameters.formula: 'sum(age) > 1' looks at more than one row."),
        ("expression", [], {"formula": "agee > 1"}, UnknownColumnError, ".parameters.formula: no column 'agee' at this step. Did you mean 'age'? Present: age, email, id."),
    ],
)  # fmt: skip
def test_a_rule_that_does_not_fit_is_named_with_its_place(bound, name, *, fields, parameters, error, message):
    with pytest.raises(error) as refused:
        Contract.plan([bound("not_null", "id"), bound(name, *fields, position=1, **parameters)], ROWS.schema)
    assert str(refused.value) == f"quality_rules[1]{message}"


def test_pandera_looks_at_the_rows_of_a_lazy_frame(contract):
    with pytest.warns(SchemaWarning, match="age between"), pytest.raises(BrokenContractError) as broken:
        contract.validate(ROWS.lazy())
    assert isinstance(broken.value.__cause__, SchemaErrors)
    assert broken.value.counts == {"id not_null": 1, "email email": 2, "age between #2": 1, "id unique": 2}
    assert str(broken.value) == (
        "the rows broke 4 checks of the contract (email email: 2, id unique: 2, age between #2: 1, id not_null: 1)."
    )


def test_one_bad_row_is_found_even_where_the_environment_turns_pandera_off(bound):
    rows = pl.DataFrame({"id": [*range(100), None]})
    contract = Contract.plan([bound("not_null", "id")], rows.schema)
    with config_context(validation_enabled=False, validation_depth=ValidationDepth.SCHEMA_ONLY):
        contract.validate(rows[:-1].lazy())
        with pytest.raises(BrokenContractError, match="id not_null: 1"):
            contract.validate(rows.lazy())


def test_validate_returns_the_rows_and_reads_their_source_once(bound):
    reads = []
    source = ROWS[:1].lazy().map_batches(lambda batch: reads.append(1) or batch)
    validated = Contract.plan([bound("not_null", "id"), bound("email", "email")], ROWS.schema).validate(source)
    assert_frame_equal(validated.collect(), ROWS[:1])
    assert len(reads) == 1


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_pandera_counts_rows_beside_other_checks(bound, rows):
    frame = ROWS[:rows]
    contract = Contract.plan([bound("row_count", min=5), bound("email", "email")], frame.schema)
    with pytest.raises(BrokenContractError) as broken:
        contract.validate(frame.lazy())
    assert broken.value.counts == {"row_count(min=5)": 1} | ({"email email": 1} if rows == 3 else {})


KINDS = [
    pl.Int128, pl.UInt128, pl.Float16, pl.Decimal(10, 2), pl.Datetime("us", "UTC"), pl.Duration, pl.Time, pl.Binary,
    pl.Enum(["a"]), pl.Categorical, pl.List(pl.Int8), pl.Array(pl.Int8, 2), pl.Struct({"a": pl.Int8}), pl.Null,
]  # fmt: skip


@pytest.mark.parametrize("dtype", KINDS, ids=str)
def test_pandera_takes_every_dtype(bound, dtype):
    nulls = pl.DataFrame({"value": [None, None]}, schema={"value": dtype})
    contract = Contract.plan([bound("not_null", "value")], nulls.schema)
    assert contract.judge(nulls).counts == {"value not_null": 2}
    contract.validate(nulls[:0].lazy())
    with pytest.raises(BrokenContractError, match="value not_null: 2"):
        contract.validate(nulls.lazy())


def bind(name, *fields, **parameters):
    kind = rules.get(name)
    return BoundRule(0, kind, fields, kind.parameters.model_validate(parameters))


AGREED = Contract.plan(
    [
        bind("not_null", "id"),
        bind("between", "id", min=0, max=8),
        bind("email", "text"),
        bind("length_between", "text", max=7),
        bind("matches", "text", pattern="^[a@]"),
        bind("in_set", "number", values=[0, 1.5]),
        bind("expression", formula="id > number"),
    ],
    pl.Schema({"id": pl.Int64, "text": pl.String, "number": pl.Float64}),
)
FRAMES = st.lists(
    st.tuples(
        st.none() | st.integers(-2, 10),
        st.none() | st.sampled_from(["", "a@b.co", "@b.co", "a@b", "ada@example.com"]),
        st.none() | st.sampled_from([0.0, 1.5, 9.0, float("nan"), float("inf")]),
    ),
    max_size=12,
)


@given(FRAMES)
@settings(deadline=None, max_examples=60)
def test_judge_rejects_the_rows_that_pandera_reports(drawn):
    frame = pl.DataFrame(drawn, schema=AGREED.columns, orient="row")
    verdict = AGREED.judge(frame)
    assert sorted(verdict.positions) == sorted(reported(AGREED.schema, frame))
    assert verdict.accepted.height + verdict.rejected.height == frame.height


def reported(schema: pa.DataFrameSchema, frame: pl.DataFrame) -> set[int]:
    """Positions of the rows that Pandera, asked alone, reports as failing."""
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        outputs = [error.check_output for error in errors.schema_errors]
        return {position for output in outputs for position in (~output.to_series()).arg_true()}
    return set()


@pytest.mark.parametrize(("rejected", "allowed"), [(0, 0.0), (500, 0.05), (499, 0.05), (10_000, 1.0)])
def test_as_many_rejected_rows_as_allowed_are_fine(rejected, allowed):
    hold_ratio("customers", rejected=rejected, judged=10_000, max_failed_ratio=allowed, counts={})


def test_no_rows_are_no_reason_to_refuse():
    hold_ratio("customers", rejected=0, judged=0, max_failed_ratio=0.0, counts={})


@pytest.mark.parametrize(("rejected", "allowed"), [(1, 0.0), (501, 0.05)])
def test_one_more_is_too_many(rejected, allowed):
    with pytest.raises(TooManyRejectedError):
        hold_ratio("customers", rejected=rejected, judged=10_000, max_failed_ratio=allowed, counts={"a": rejected})


def test_the_refusal_says_how_many_and_why():
    counts = {"name not_null": 0, "customer_id unique": 200, "email matches": 400}
    with pytest.raises(TooManyRejectedError) as refused:
        hold_ratio("customer_data_etl", rejected=600, judged=10_000, max_failed_ratio=0.05, counts=counts)
    assert str(refused.value) == (
        "customer_data_etl: 600 of 10,000 rows (6.0 %) broke the contract, more than max_failed_ratio 0.05 allows "
        "(email matches: 400, customer_id unique: 200). Nothing was loaded."
    )
    assert (refused.value.rejected, refused.value.judged, refused.value.max_failed_ratio) == (600, 10_000, 0.05)


@pytest.mark.parametrize(
    ("part", "whole", "written"),
    [
        (0, 5, "0.0 %"),
        (1, 3, "33.3 %"),
        (5, 5, "100.0 %"),
        (1, 1_000_000, "less than 0.1 %"),
        (999_999, 1_000_000, "more than 99.9 %"),
    ],
)
def test_a_share_is_never_rounded_to_nothing_or_to_all(part, whole, written):
    assert percent(part, whole) == written


LISTS_ONLY = "import sys, validations._contract, validations._rule as r; r.rules.names(); list(r.rules)"
WITHOUT_PANDAS = """
import sys
sys.modules["pandas"] = None  # an import of it fails
import polars as pl
from validations._contract import Contract
from validations._model import load_model
rows = pl.DataFrame(schema={"customer_id": pl.Int64, "name": pl.String, "email": pl.String, "status": pl.String,
                            "created_at": pl.Date})
contract = Contract.plan([], rows.schema, load_model("validations.schemas.customers:Customers"))
contract.judge(rows)
contract.validate(rows.lazy())
"""


@pytest.mark.parametrize(
    "program",
    [f"{LISTS_ONLY}; sys.exit('pandera' in sys.modules)", WITHOUT_PANDAS],
    ids=["listing imports no pandera", "judging needs no pandas"],
)
def test_imports(program):
    subprocess.run([sys.executable, "-c", program], check=True)
