"""The tree of errors, and how one is shown to people and to programs."""

import json
import pickle
import re

import pytest

from flows import _errors
from flows._errors import (
    ConfigError,
    LedgerError,
    Problem,
    RefusedError,
    SecretError,
    SourceMissingError,
    TargetBusyError,
    as_json,
    rendered,
)
from transforms._errors import LockgateError, UnknownColumnError

DRAWN = re.findall(r"^ {4}([│ ]*)(?:├── |└── )?(\w+Error)\b(.*)$", _errors.__doc__, re.MULTILINE)
OURS = {name for name, kind in vars(_errors).items() if isinstance(kind, type) and issubclass(kind, LockgateError)}


def test_the_tree_that_is_drawn_is_the_tree_that_is():
    drawn = {name for _indent, name, _rest in DRAWN}

    assert drawn == OURS | {"TransformError"}


@pytest.mark.parametrize(("indent", "name", "rest"), [row for row in DRAWN if row[1] in OURS])
def test_an_error_stands_where_it_is_drawn(indent, name, rest):
    kind = getattr(_errors, name)
    depth = len(indent) // 4 + (name != "LockgateError")

    assert len([base for base in kind.__mro__ if issubclass(base, LockgateError)]) - 1 == depth
    assert kind.retryable == ("retryable" in rest)
    assert kind.__doc__


def test_an_error_in_the_configuration_ends_with_another_code_than_one_of_a_run():
    assert ConfigError("x").exit_code == SecretError("${X}", "x").exit_code == 2
    assert SourceMissingError("x").exit_code == RefusedError("x").exit_code == 1


def locate(path):
    return f"flows/customer_etl.yaml:{20 + len(path)}"


@pytest.mark.parametrize(
    ("error", "where", "text"),
    [
        (
            UnknownColumnError("amout", ["id", "amount", "paid_at"], path=("field",)).under(
                "transformations", 2, "parameters"
            ),
            locate,
            (
                "flows/customer_etl.yaml:24  transformations[2].parameters.field: no column 'amout' at this step. "
                "Did you mean 'amount'? Present: amount, id, paid_at."
            ),
        ),
        (
            UnknownColumnError("amout", [], path=("field",)),
            None,
            "field: no column 'amout' at this step. Present: none.",
        ),
        (
            TargetBusyError("dim: another run holds the lock."),
            locate,
            "flows/customer_etl.yaml:21: dim: another run holds the lock.",
        ),
        (TargetBusyError("dim: another run holds the lock."), None, "dim: another run holds the lock."),
        (
            SecretError("${DB}", "'${DB}' is not set.", path=("source", "connection_string")),
            locate,
            "flows/customer_etl.yaml:22  source.connection_string: '${DB}' is not set.",
        ),
        (ConfigError("there is no file 'x'."), locate, "there is no file 'x'."),
        (
            ConfigError([Problem("'x' is not a type.", ("pipelines", "a", "type"), "a.yaml:3")], file="a.yaml"),
            locate,
            "a.yaml:3  type: 'x' is not a type.",
        ),
        (
            ConfigError([Problem("one", ("pipelines", "a"), "a.yaml:3"), Problem("two")]),
            None,
            "a.yaml:3  pipelines.a: one\ntwo\n2 mistakes in the configuration.",
        ),
    ],
)  # fmt: skip
def test_an_error_for_the_terminal(error, where, text):
    assert rendered(error, where) == text


def test_an_error_for_programs():
    error = UnknownColumnError("a", ["b"], path=("transformations", 0))

    assert as_json(error, locate) == {
        "type": "UnknownColumnError",
        "message": "no column 'a' at this step. Present: b.",
        "where": "flows/customer_etl.yaml:22",
        "path": "transformations[0]",
        "retryable": False,
    }
    assert as_json(TargetBusyError("busy")) == {
        "type": "TargetBusyError",
        "message": "busy",
        "where": None,
        "path": None,
        "retryable": True,
    }


def test_every_mistake_of_a_configuration_is_there_for_programs():
    error = ConfigError([Problem("one", ("pipelines", "a", "type"), "a.yaml:3"), Problem("two")], file="a.yaml")

    facts = json.loads(json.dumps(as_json(error)))

    assert facts["problems"] == [
        {"message": "one", "where": "a.yaml:3", "path": "type"},
        {"message": "two", "where": None, "path": None},
    ]


def test_errors_keep_their_facts():
    refused = RefusedError("too many", guard="max_failed_ratio", observed=0.2, allowed=0.05)
    ledger = LedgerError("one row is missing", counts={"read": 2, "written": 1})

    assert (refused.guard, refused.observed, refused.allowed) == ("max_failed_ratio", 0.2, 0.05)
    assert ledger.counts == {"read": 2, "written": 1}
    assert SourceMissingError("x", source="orders").source == "orders"
    assert TargetBusyError("x", target="dim").target == "dim"


@pytest.mark.parametrize("name", sorted(OURS - {"LockgateError"}))
def test_an_error_survives_the_way_to_another_process(name):
    kind = getattr(_errors, name)
    error = kind("${X}", "cannot be resolved") if kind is SecretError else kind("something happened")

    copy = pickle.loads(pickle.dumps(error.under("source", "type")))

    assert (type(copy), str(copy), vars(copy)) == (kind, str(error), vars(error))
