"""The JSON Schema for editors: what loads passes it, and typical mistakes do not."""

import copy
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from flows._json_schema import json_schema
from flows.alerts._base import alerts
from flows.sources._base import sources
from flows.targets._base import targets
from transforms._transform import transforms
from validations._rule import rules

GUIDE = YAML(typ="safe", pure=True).load(Path(__file__).parents[1] / "messages" / "guide.yaml")
CUSTOMERS = GUIDE["pipelines"]["customer_data_etl"]


@pytest.fixture(scope="module")
def schema():
    return json_schema()


@pytest.fixture(scope="module")
def validator(schema):
    return Draft202012Validator(schema)


def changed(path, value):
    """The guide's first pipeline with one value set; None removes it."""
    document = {"pipelines": {"customer_data_etl": copy.deepcopy(CUSTOMERS)}}
    *above, last = path
    place = document["pipelines"]["customer_data_etl"]
    for part in above:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return document


def test_it_is_a_json_schema(schema):
    Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema


def test_the_guides_pipelines_pass(validator):
    validator.validate(GUIDE)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schedule",), {"interval": "1h", "timezone": "Europe/Berlin"}),
        (("schedule",), {"interval": 3600}),
        (("error_handling", "max_retries"), "${RETRIES}"),
        (("error_handling", "retry_delay"), "30s"),
        (("error_handling", "strategy"), "${STRATEGY:-fail}"),
        (("type",), "elt"),
        (("source", "rules"), [{"type": "not_null", "field": "customer_id"}]),
        (("quality_rules", 0, "field"), ["customer_id"]),
        (("quality_rules", 0), {"type": "accepted_values", "field": "a", "parameters": {"values": ["x"]}}),
        (("transformations", 0, "name"), "only active ones"),
        (("transformations", 0, "parameters"), {"where": "status = 'active'"}),
        (("schema",), "validations.schemas.customers:Customers"),
        (("monitoring", "alerts"), [{"type": "webhook", "url": "${HOOK}"}]),
        (("transformations",), None),
    ],
)
def test_what_loads_passes(path, value, validator):
    validator.validate(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("type",), "bach"),
        (("tpye",), "batch"),
        (("target",), None),
        (("source",), None),
        (("targets",), {"a": {"type": "stream", "connection_string": "x", "topic": "x"}}),
        (("source", "type"), "databse"),
        (("source", "conection_string"), "x"),
        (("source", "connection_string"), None),
        (("source", "connection_string"), 5),
        (("source", "rules"), [{"type": "not_nul"}]),
        (("target", "tabel_name"), "x"),
        (("target", "table_name"), None),
        (("transformations", 0, "type"), "filtre"),
        (("transformations", 0, "parameters", "wher"), "x"),
        (("transformations", 1, "parameters"), None),
        (("transformations", 1, "parameters", "expressions", 0, "formla"), "x"),
        (("transformations",), {"type": "filter"}),
        (("quality_rules", 0, "type"), "not_nul"),
        (("quality_rules", 0, "severity"), "warning"),
        (("quality_rules", 2, "parameters", "formt"), "x"),
        (("monitoring", "alerts", 0, "recipients"), "data-team@company.com"),
        (("monitoring", "alerts", 1, "chanel"), "x"),
        (("error_handling", "max_retries"), "three"),
        (("error_handling", "retry_delay"), "5 parsecs"),
        (("error_handling", "max_failed_ratio"), 5),
        (("schedule",), {"corn": "0 2 * * *"}),
        (("schedule",), 5),
    ],
)
def test_a_typical_mistake_does_not(path, value, validator):
    assert not validator.is_valid(changed(path, value))


@pytest.mark.parametrize("document", [{}, {"pipelines": {}}, {"pipelines": []}, {**GUIDE, "pipeline": {}}])
def test_a_file_without_pipelines_does_not(document, validator):
    assert not validator.is_valid(document)


def test_a_place_for_anchors_passes(validator):
    validator.validate({**GUIDE, "x-defaults": {"anything": 1}})


@pytest.mark.parametrize(
    "registry",
    [transforms, sources, targets, rules, alerts],
    ids=["transforms", "sources", "targets", "rules", "alerts"],
)
def test_it_knows_everything_that_is_registered(registry, schema):
    text = json.dumps(schema)

    assert registry.names()
    for name in registry.names():
        assert f'"if": {{"properties": {{"type": {{"const": "{name}"}}}}}}' in text


def test_editors_can_show_what_a_step_does(schema):
    descriptions = [definition.get("description", "") for definition in schema["$defs"].values()]

    assert any(description.startswith("Keep the rows that meet a condition.") for description in descriptions)
