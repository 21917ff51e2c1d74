"""What is true of every rule there is: held against the live registry, so that a new file is tested by being there."""

from __future__ import annotations

import doctest
import importlib
import math
import random
from datetime import date
from decimal import Decimal
from pathlib import Path

import polars as pl
import psycopg
import pytest
from psycopg import sql
from pydantic import ValidationError, create_model

import validations.rules
from transforms._errors import LockgateError, UnknownColumnError
from transforms._registry import UnknownNameError
from validations._checks import BoundRule, RowCheck, bind, row_by_row
from validations._contract import Contract
from validations._errors import RuleError
from validations._rule import Rule, rule, rules

#: Parameters that make sense for each rule on a column ``value`` of this dtype. A new rule belongs here.
EXAMPLES = {
    "between": (pl.Int64, {"min": 1}),
    "date_format": (pl.String, {"format": "YYYY-MM-DD"}),
    "email": (pl.String, {}),
    "expression": (pl.Int64, {"formula": "value > 1"}),
    "in_set": (pl.String, {"values": ["a"]}),
    "length_between": (pl.String, {"min": 1}),
    "matches": (pl.String, {"pattern": "a"}),
    "not_null": (pl.String, {}),
    "row_count": (pl.String, {"min": 1}),
    "unique": (pl.String, {}),
}
ROW_RULES = [name for name, kind in rules if kind.about == "row"]
SET_RULES = [name for name, kind in rules if kind.about == "set"]
every_rule = pytest.mark.parametrize("name", rules.names())
every_row_rule = pytest.mark.parametrize("name", ROW_RULES)
every_set_rule = pytest.mark.parametrize("name", SET_RULES)


@pytest.fixture
def checked(bound):
    def check(name, dtype=None):
        example, parameters = EXAMPLES[name]
        fields = () if rules.get(name).fields_wanted == (0, 0) else ("value",)
        return bind(bound(name, *fields, **parameters), pl.Schema({"value": dtype or example}))

    return check


def test_the_folder_is_the_catalogue():
    files = {path.stem for path in Path(validations.rules.__file__).parent.glob("[!_]*.py")}
    assert files == set(rules.names()) == set(EXAMPLES)


@every_rule
def test_its_documented_example_runs(name):
    results = doctest.testmod(importlib.import_module(f"validations.rules.{name}"))
    assert results.attempted
    assert not results.failed


@every_rule
def test_its_docstring_says_what_a_user_needs(name):
    kind = rules.get(name)
    words = kind.function.__doc__
    assert words.splitlines()[0].endswith(".")
    wanted = ["In:", "Nulls:", *(["Args:"] if kind.parameters.model_fields else [])]
    assert [section for section in wanted if section not in words] == []
    assert [parameter for parameter in kind.parameters.model_fields if f"{parameter}:" not in words] == []


@every_rule
def test_it_refuses_a_parameter_that_it_does_not_know(name):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        rules.get(name).parameters.model_validate(EXAMPLES[name][1] | {"no_such_parameter": 1})


@every_rule
def test_it_refuses_a_column_that_is_not_there(bound, name):
    fields = () if rules.get(name).fields_wanted == (0, 0) else ("valeu",)
    expected = LockgateError if fields == () else UnknownColumnError
    with pytest.raises(expected) as refused:
        bind(bound(name, *(fields or ("value",)), **EXAMPLES[name][1]), pl.Schema({"value": EXAMPLES[name][0]}))
    assert refused.value.path[:2] == ("quality_rules", 0)


@every_row_rule
def test_a_row_rule_is_a_boolean_about_each_row_alone(checked, name):
    check = checked(name)
    assert isinstance(check, RowCheck)
    nothing = pl.LazyFrame(schema={"value": EXAMPLES[name][0]}).select(check.good)
    assert nothing.collect_schema().dtypes() == [pl.Boolean]
    assert row_by_row(nothing)


@every_row_rule
def test_a_row_rule_has_no_opinion_on_null_unless_it_is_about_nulls(checked, name):
    nulls = pl.DataFrame({"value": [None, None]}, schema={"value": EXAMPLES[name][0]})
    said = nulls.select(checked(name).good).to_series()
    assert said.to_list() == ([False, False] if name == "not_null" else [None, None])


@every_row_rule
@pytest.mark.parametrize("rows", [0, 3])
def test_a_row_rule_takes_a_column_of_nothing_but_nulls(bound, name, rows):
    if name == "expression":
        pytest.skip("a formula's types are the business of the formula")
    frame = pl.DataFrame({"value": pl.Series([None] * rows, dtype=pl.Null)})
    verdict = Contract.plan([bound(name, "value", **EXAMPLES[name][1])], frame.schema).judge(frame)
    assert verdict.rejected.height == (rows if name == "not_null" else 0)
    assert verdict.accepted.height + verdict.rejected.height == rows


@every_set_rule
@pytest.mark.parametrize("values", [[], [None, None]], ids=["empty", "all null"])
def test_a_set_rule_takes_a_set_with_nothing_in_it(checked, name, values):
    rule = checked(name)
    frame = pl.LazyFrame({"value": values}, schema={"value": EXAMPLES[name][0]})
    if rule.blames_rows:
        assert rule.violations(frame).collect().height == 0
    else:
        good, observed = rule.verdict(frame).collect().row(0)
        assert good is bool(values)
        assert observed == f"{len(values)} rows"


@every_set_rule
def test_a_set_rule_gives_only_what_it_has(checked, name):
    rule = checked(name)
    frame = pl.LazyFrame(schema={"value": pl.String})
    asks = (
        [lambda: rule.verdict_sql("t"), lambda: rule.verdict(frame)]
        if rule.blames_rows
        else [lambda: rule.violations_sql("t", "r"), lambda: rule.violations(frame)]
    )
    for ask in asks:
        with pytest.raises(TypeError, match=rule.label.replace("(", r"\(").replace(")", r"\)")):
            ask()


def test_names_from_dbt_are_understood():
    assert [rules.get(name).name for name in sorted(rules.aliases)] == ["between", "in_set", "matches", "unique"]


def test_a_rule_that_is_not_there_is_refused_with_a_hint():
    with pytest.raises(UnknownNameError) as refused:
        rules.get("not_nul")
    known = "between, date_format, email, expression, in_set, length_between, matches, not_null, row_count, unique"
    assert str(refused.value) == f"'not_nul' is not a rule. Did you mean 'not_null'? Known: {known}."


NOTHING = create_model("nothing")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda column: column > column.mean(), "the rule looks at more than one row."),
        (lambda column: column.cum_sum() > 1, "the rule looks at more than one row."),
        (lambda column: column.max() > 1, "the rule looks at more than one row."),
        (lambda column: column + 1, "the rule gives Int64, and not true or false."),
        (lambda column: pl.lit(True), "the rule names no column, so it says nothing about a row."),
    ],
    ids=["window", "running", "aggregate", "number", "constant"],
)
def test_a_row_rule_that_batches_would_get_wrong_is_refused(function, message):
    foreign = Rule("foreign", function, NOTHING, "row", (), (pl.Expr,))
    with pytest.raises(RuleError) as refused:
        bind(BoundRule(0, foreign, ("value",), NOTHING()), pl.Schema({"value": pl.Int64}))
    assert str(refused.value) == f"quality_rules[0].parameters: {message}"


def test_a_rule_with_an_argument_that_nothing_fills_is_refused():
    def strange(column: pl.Expr, other: int) -> pl.Expr:
        return column > other

    with pytest.raises(RuleError, match="nothing can be filled in for its argument 'other'"):
        rule()(strange)


HOSTILE = 'select "Ω'


def sets():
    """Columns of sets, by what is special about them."""
    chance = random.Random(20240229)
    yield "no rows", {"id": pl.Series([], dtype=pl.Int64)}
    yield "one row", {"id": pl.Series([1])}
    yield "only nulls", {"id": pl.Series([None, None], dtype=pl.Int64)}
    yield "integers", {"id": pl.Series([chance.choice([None, *range(80)]) for _ in range(100)])}
    yield "distinct", {"id": pl.Series(range(100))}
    yield "texts", {HOSTILE: pl.Series(["a", "A", "a ", "a", "", "", None, "é", "e\u0301"])}
    yield "floats", {"id": pl.Series([0.0, -0.0, math.nan, math.nan, math.inf, 1.5, None])}
    yield "decimals", {"id": pl.Series([Decimal("1.10"), Decimal("1.1"), Decimal("1.11")])}
    yield "dates", {"id": pl.Series([date(2024, 2, 29), date(2024, 2, 29), date(1, 1, 1), None])}
    yield "booleans", {"id": pl.Series([True, False, True, None])}
    yield "binary", {"id": pl.Series([b"\x00", b"\x00", b"", None])}
    pairs = [(chance.choice([None, *"abc"]), chance.choice([None, 1, 2, 3])) for _ in range(40)]
    yield "pairs", {"id": pl.Series([a for a, _ in pairs]), HOSTILE: pl.Series([b for _, b in pairs])}


SETS = dict(sets())
TYPES = {
    pl.Int64: "bigint",
    pl.String: "text",
    pl.Float64: "float8",
    pl.Date: "date",
    pl.Boolean: "boolean",
    pl.Binary: "bytea",
    pl.Decimal: "numeric(38, 2)",
}


@pytest.mark.postgres
@pytest.mark.parametrize("kind", SETS)
def test_unique_says_the_same_in_sql_and_in_polars(bound, connect, kind):
    frame = pl.DataFrame(SETS[kind])
    rule = bind(bound("unique", *frame.columns), frame.schema)
    with_id = stage(connect(), frame)
    in_sql = connect().execute(rule.violations_sql(with_id, '"row id"')).fetchall()
    in_polars = rule.violations(frame.lazy()).collect()["row"].to_list()
    assert sorted(row for (row,) in in_sql) == in_polars
    assert bool(in_polars) is (kind not in {"no rows", "one row", "only nulls", "distinct"})


@pytest.mark.postgres
@pytest.mark.parametrize("rows", [0, 1, 2, 1000, 1001])
@pytest.mark.parametrize("limits", [{"min": 1}, {"min": 2, "max": 1000}, {"max": 0}], ids=str)
def test_row_count_says_the_same_in_sql_and_in_polars(bound, connect, rows, limits):
    frame = pl.DataFrame({"id": range(rows)}, schema={"id": pl.Int64})
    rule = bind(bound("row_count", **limits), frame.schema)
    with_id = stage(connect(), frame)
    in_sql = connect().execute(rule.verdict_sql(with_id)).fetchall()
    assert in_sql == rule.verdict(frame.lazy()).collect().rows()
    assert in_sql[0][0] is (limits.get("min", 0) <= rows <= limits.get("max", rows))


def stage(connection: psycopg.Connection, frame: pl.DataFrame) -> str:
    """A table with the frame's rows and a column ``row id``; returns its quoted name."""
    table = sql.Identifier('my "staging"', "set 1")
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(TYPES[type(dtype)]))
        for name, dtype in frame.schema.items()
    ]
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier('my "staging"')))
    listed = sql.SQL(", ").join([sql.SQL('"row id" bigint'), *columns])
    connection.execute(sql.SQL("CREATE TABLE {} ({})").format(table, listed))
    with connection.cursor() as cursor:
        values = sql.SQL(", ").join([sql.Placeholder()] * (frame.width + 1))
        cursor.executemany(
            sql.SQL("INSERT INTO {} VALUES ({})").format(table, values), frame.with_row_index("row id").rows()
        )
    return table.as_string(connection)


def test_every_registered_set_rule_is_held_against_postgresql():
    assert {"unique", "row_count"} == set(SET_RULES)
