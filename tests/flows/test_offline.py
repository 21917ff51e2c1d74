"""Planning without a source: what is certainly wrong is said, what only types can tell is not."""

import pytest

from flows._config import load
from flows._errors import rendered
from flows._offline import check

PIPELINE = """\
pipelines:
  orders:
    type: batch
    source:
      type: database
      connection_string: postgresql://nowhere.invalid/x
      schema: {{table: orders{columns}}}
    target: {{type: database, connection_string: postgresql://nowhere.invalid/x, table_name: t}}
    transformations: [{steps}]
    quality_rules: [{rules}]
"""

FILTER = "{type: filter, parameters: {condition: {field: status, operator: eq, value: paid}}}"
AGE = "{type: calculate, parameters: {expressions: [{field: age, formula: current_date - placed_on}]}}"


def formula(text, field="x"):
    return f'{{type: calculate, name: made, parameters: {{expressions: [{{field: {field}, formula: "{text}"}}]}}}}'


def checked(tmp_path, *, columns="id, customer, amount, placed_on", steps="", rules=""):
    listed = f", columns: [{columns}]" if columns else ""
    file = tmp_path / "orders.yaml"
    file.write_text(PIPELINE.format(columns=listed, steps=steps, rules=rules))
    pipeline = load(file, environ={}).pipeline("orders")
    found = check(pipeline)
    return [rendered(error) for error in found.mistakes], found.open_step


@pytest.mark.parametrize(
    ("steps", "rules"),
    [
        ("", ""),
        (f"{FILTER}, {AGE}", "{type: between, field: age, parameters: {min: 0}}"),
        (formula("amount * 2 + 1"), "{type: expression, parameters: {formula: x > 0}}"),
        (formula("upper(customer)"), "{type: matches, field: x, parameters: {pattern: ^A}}"),
        (formula("sum(amount) over (partition by customer)"), "{type: not_null, field: x}"),
    ],
)
def test_what_can_be_right_is_not_wrong(tmp_path, steps, rules):
    assert checked(tmp_path, steps=steps, rules=rules) == ([], None)


@pytest.mark.parametrize(
    ("steps", "rules", "mistake"),
    [
        (
            formula("amount * * 2"),
            "",
            "transformations[0].parameters.expressions[0].formula: 'amount * * 2' ",
        ),
        (
            formula("uper(customer)"),
            "",
            (
                "transformations[0].parameters.expressions[0].formula: 'uper' is not a function that a formula can "
                "call. Did you mean 'upper'?"
            ),
        ),
        (
            "",
            "{type: not_null, field: idd}",
            (
                "quality_rules[0].field: no column 'idd' at this step. Did you mean 'id'? "
                "Present: amount, customer, id, placed_on."
            ),
        ),
        (
            FILTER,
            "{type: not_null, field: status}",
            "quality_rules[0].field: no column 'status' at this step. Present: amount, customer, id, placed_on.",
        ),
        (
            "",
            "{type: expression, parameters: {formula: id + }}",
            "quality_rules[0].parameters.formula: 'id +' cannot be read as SQL",
        ),
    ],
)
def test_what_no_types_can_mend_is_a_mistake(tmp_path, steps, rules, mistake):
    (said,), _ = checked(tmp_path, steps=steps, rules=rules)

    assert said.startswith(mistake)


def test_a_column_that_nobody_declared_may_be_in_the_table(tmp_path):
    assert checked(tmp_path, columns=None, steps=f"{FILTER}, {AGE}", rules="{type: email, field: mail}") == ([], None)


def test_a_column_that_a_step_dropped_is_gone(tmp_path):
    dropped = "{type: map, parameters: {drop: [amount]}}"

    (said,), _ = checked(tmp_path, steps=f"{dropped}, {formula('amount + 1')}")

    assert said.startswith("transformations[1].parameters.expressions[0].formula: no column 'amount' at this step.")


def test_every_broken_rule_is_said(tmp_path):
    rules = "{type: not_null, field: a}, {type: unique, field: b}, {type: not_null, field: id}"

    assert len(checked(tmp_path, rules=rules)[0]) == 2


def test_where_only_the_source_knows_the_check_ends(tmp_path):
    mixed = formula("date_trunc('day', placed_on) + amount * interval '1 day'")

    mistakes, step = checked(tmp_path, steps=mixed, rules="{type: not_null, field: nothing}")

    assert (mistakes, step) == ([], "made")


def test_a_model_that_is_not_there(tmp_path):
    file = tmp_path / "orders.yaml"
    text = PIPELINE.format(columns="", steps="", rules="") + "    schema: validations.schemas.nothing:Nothing\n"
    file.write_text(text)

    (error,) = check(load(file, environ={}).pipeline("orders")).mistakes

    assert error.path == ("schema",)
