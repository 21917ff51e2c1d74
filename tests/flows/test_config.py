"""The configuration: what loads, into what, and how values are set from outside."""

import copy
import os
import subprocess
import sys
import time
from functools import reduce
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from flows._config import load
from flows._errors import ConfigError
from flows._secrets import Secret

#: The two example pipelines of the guide that fixes the shape of the configuration, word for word.
GUIDE = Path(__file__).parents[1] / "messages" / "guide.yaml"

SMALL = """\
pipelines:
  orders:
    type: batch
    source:
      type: database
      connection_string: ${ORDERS_DB}
      schema: {table: orders}
    target:
      type: database
      connection_string: postgresql://me:hunter2@host/db
      table_name: orders
"""
STREAM = "{type: stream, connection_string: a, topic: b}"
MORE = """\
    transformations:
      - type: filter
        parameters:
          condition: {field: amount, operator: gt, value: 10}
    error_handling: {max_retries: 1}
"""


CONDITION = "TRANSFORMATIONS__0__PARAMETERS__CONDITION__VALUE"


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Loads a text as ``a.yaml``, with nothing in the environment but what is given."""
    monkeypatch.chdir(tmp_path)

    def load_text(text, environ=None, **overrides):
        Path("a.yaml").write_text(text)
        return load("a.yaml", environ=environ or {}, **overrides)

    return load_text


def mistake(call, *arguments, **options):
    """The mistakes, a line each, without the count."""
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **options)
    *lines, total = str(caught.value).splitlines()
    assert total.endswith("mistake in a.yaml." if len(lines) == 1 else "mistakes in a.yaml.")
    return "\n".join(lines)


# --- what loads ---


def test_the_guides_pipelines_load_word_for_word():
    configuration = load(GUIDE, environ={})

    customers, fraud = configuration.pipelines.values()
    assert (customers.name, customers.type) == ("customer_data_etl", "batch")
    assert (fraud.name, fraud.type) == ("real_time_fraud_detection", "stream")
    assert customers.schedule.cron == "0 2 * * *"
    assert str(customers.sources["source"].connection_string) == "postgresql://user:***@source-db:5432/source_db"
    assert customers.sources["source"].connection_string.reveal() == "postgresql://user:pass@source-db:5432/source_db"
    assert [step.name for step in customers.steps] == ["filter", "calculate"]
    assert [rule.label for rule in customers.rules] == [
        "customer_id not_null",
        "customer_id unique",
        "created_at date_format",
    ]
    assert customers.rules[2].parameters.format == "YYYY-MM-DD"
    assert [alert.type for alert in customers.monitoring.alerts] == ["email", "slack"]
    assert (customers.error_handling.strategy, customers.error_handling.retry_delay) == ("retry", 300)
    assert fraud.sources["source"].topic == "financial_transactions"
    assert fraud.steps[1].parameters.condition.value == 10_000
    assert fraud.monitoring.alerts[0].service_key == Secret("your-pagerduty-key")


def test_what_is_left_out_has_a_default(loaded):
    pipeline = loaded(SMALL).pipeline("orders")

    assert (pipeline.steps, pipeline.rules, pipeline.source_rules, pipeline.tags) == ((), (), (), ())
    assert (pipeline.schedule, pipeline.model, pipeline.description) == (None, None, None)
    handling = pipeline.error_handling
    assert (handling.strategy, handling.on_transform_error, handling.max_failed_ratio) == ("fail", "fail", 0.05)


def test_named_sources_keep_their_order(loaded):
    text = SMALL.replace("    source:", "    sources:\n     zebra:").replace(
        "    target:", "     ape: {type: database, connection_string: x, query: select 1}\n    target:"
    )

    assert list(loaded(text).pipeline("orders").sources) == ["zebra", "ape"]


def test_rules_of_a_source_are_not_the_sources_own(loaded):
    rules = "      rules:\n        - {type: not_null, field: id, on_violation: fail}\n    target:"
    pipeline = loaded(SMALL.replace("    target:", rules)).pipeline("orders")
    plain = loaded(SMALL).pipeline("orders")

    assert [(rule.label, rule.on_violation) for rule in pipeline.source_rules] == [("id not_null", "fail")]
    assert pipeline.sources == plain.sources
    assert type(pipeline.sources["source"]).__name__ == "Database"


@pytest.mark.parametrize(
    ("keys", "fields", "on_violation"),
    [
        ("{type: not_null, field: a}", ("a",), "quarantine"),
        ("{type: unique, field: [a, b]}", ("a", "b"), "quarantine"),
        ("{type: row_count, parameters: {min: 1}}", (), "quarantine"),
        ("{type: not_null, field: a, severity: warn}", ("a",), "warn"),
        ("{type: not_null, field: a, severity: error}", ("a",), "quarantine"),
        ("{type: not_null, field: a, on_violation: fail}", ("a",), "fail"),
        ("{type: accepted_values, field: a, parameters: {values: [x]}}", ("a",), "quarantine"),
    ],
)
def test_a_rule_knows_its_fields_and_what_becomes_of_a_violation(keys, fields, on_violation, loaded):
    (rule,) = loaded(f"{SMALL}    quality_rules: [{keys}]\n").pipeline("orders").rules

    assert (rule.position, rule.fields, rule.on_violation) == (0, fields, on_violation)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("300", 300),
        ("0.5", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("2d", 172_800),
        ("1w", 604_800),
        ("'45'", 45),
    ],
)
def test_a_span_of_time_is_seconds_or_a_text_with_a_unit(written, seconds, loaded):
    text = f"{SMALL}    error_handling: {{retry_delay: {written}}}\n    schedule: {{interval: {written}}}\n"
    pipeline = loaded(text).pipeline("orders")

    assert pipeline.error_handling.retry_delay == pipeline.schedule.interval == seconds


@pytest.mark.parametrize(
    "schedule",
    [
        "'0 2 * * *'",
        "'*/15 0-6,22 1,15 jan-mar mon-fri'",
        "'0 0 L * ?'",
        "'@daily'",
        "{cron: '0 2 * * 7', timezone: Europe/Berlin, catchup: all}",
        "{interval: 1h}",
        "{rrule: 'FREQ=WEEKLY;BYDAY=MO,WE;BYHOUR=2'}",
        '{rrule: "DTSTART:20260101T000000Z\\nRRULE:FREQ=DAILY;COUNT=3"}',
    ],
)  # fmt: skip
def test_a_schedule_of_any_kind_loads(schedule, loaded):
    assert loaded(f"{SMALL}    schedule: {schedule}\n").pipeline("orders").schedule


def test_a_pipeline_that_is_not_there_is_asked_for_in_vain(loaded):
    configuration = loaded(SMALL)

    with pytest.raises(
        ConfigError, match=r"^'order' is not a pipeline of a\.yaml\. Did you mean 'orders'\? Known: orders\.$"
    ):
        configuration.pipeline("order")


def test_a_path_of_a_pipeline_is_located(loaded):
    configuration = loaded(SMALL + MORE)
    pipeline = configuration.pipeline("orders")

    assert configuration.locate(("pipelines", "orders", "source")) == "a.yaml:4"
    assert pipeline.locate(("transformations", 0, "parameters", "condition", "value")) == "a.yaml:15"
    assert pipeline.locate(("transformations", 0, "parameters", "nowhere")) == "a.yaml:14"
    assert pipeline.locate(()) == "a.yaml:2"


def test_a_folder_is_one_configuration(tmp_path):
    (tmp_path / "a.yaml").write_text(SMALL)
    (tmp_path / "b.yaml").write_text(SMALL.replace("  orders:", "  returns:"))

    assert list(load(tmp_path, environ={}).pipelines) == ["orders", "returns"]


# --- values from outside ---


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [
        ("SOURCE__CONNECTION_STRING", "kafka://x", lambda p: p.sources["source"].connection_string.reveal()),
        ("Source__connection_string", "${HOME}", lambda p: p.sources["source"].connection_string.shown),
        ("TARGET__TABLE_NAME", "123", lambda p: p.target.table_name),
        ("TARGET__TABLE_NAME", "true", lambda p: p.target.table_name),
        ("SOURCE__SCHEMA__TABLE", "no", lambda p: p.sources["source"].table.table),
        ("DESCRIPTION", "2026-01-31", lambda p: p.description),
    ],
)
def test_a_variable_sets_a_text_as_it_is(variable, value, read, loaded):
    pipeline = loaded(SMALL + MORE, {f"LOCKGATE_PIPELINES__ORDERS__{variable}": value}).pipeline("orders")

    assert read(pipeline) == value


@pytest.mark.parametrize(
    ("variable", "value", "read", "expected"),
    [
        ("ERROR_HANDLING__MAX_RETRIES", "7", lambda p: p.error_handling.max_retries, 7),
        ("ERROR_HANDLING__RETRY_DELAY", "2m", lambda p: p.error_handling.retry_delay, 120),
        (CONDITION, "20", lambda p: p.steps[0].parameters.condition.value, 20),
        (CONDITION, "'20'", lambda p: p.steps[0].parameters.condition.value, "20"),
        ("TAGS", "[a, b]", lambda p: p.tags, ("a", "b")),
        ("SCHEDULE__CRON", "0 3 * * *", lambda p: p.schedule.cron, "0 3 * * *"),
        ("MONITORING__ALERTS", "[{type: slack, channel: '#a'}]", lambda p: p.monitoring.alerts[0].channel, "#a"),
        ("TYPE", "elt", lambda p: p.type, "elt"),
    ],
)  # fmt: skip
def test_a_variable_sets_any_other_value_as_yaml(variable, value, read, expected, loaded):
    pipeline = loaded(SMALL + MORE, {f"LOCKGATE_PIPELINES__ORDERS__{variable}": value}).pipeline("orders")

    assert read(pipeline) == expected


def test_a_type_is_set_before_the_keys_that_belong_to_it(loaded):
    environ = {
        "LOCKGATE_PIPELINES__ORDERS__SOURCE__TOPIC": "orders",
        "LOCKGATE_PIPELINES__ORDERS__SOURCE__TYPE": "stream",
    }
    text = SMALL.replace("      schema: {table: orders}\n", "")

    assert loaded(text, environ).pipeline("orders").sources["source"].topic == "orders"


@pytest.mark.parametrize("name", ["my-orders", "my_orders", "My_Orders"])
def test_names_are_matched_without_case_and_dashes(name, loaded):
    text = SMALL.replace("  orders:", f"  {name}:")
    configuration = loaded(text, {"LOCKGATE_PIPELINES__MY_ORDERS__TYPE": "elt"})

    assert configuration.pipeline(name).type == "elt"


@pytest.mark.parametrize("start", ["", "orders.", "pipelines.orders."])
def test_an_option_sets_a_value_and_wins_over_a_variable(start, loaded):
    environ = {"LOCKGATE_PIPELINES__ORDERS__ERROR_HANDLING__MAX_RETRIES": "8"}

    assert (
        loaded(SMALL, environ, overrides={f"{start}error_handling.max_retries": "9"})
        .pipeline("orders")
        .error_handling.max_retries
        == 9
    )


def test_an_option_reaches_into_a_list(loaded):
    overrides = {"transformations[0].parameters.condition.value": "30"}

    assert loaded(SMALL + MORE, overrides=overrides).pipeline("orders").steps[0].parameters.condition.value == 30


def test_an_option_needs_the_pipelines_name_where_there_are_several(loaded):
    text = SMALL + SMALL.removeprefix("pipelines:\n").replace("  orders:", "  returns:")

    said = mistake(loaded, text, overrides={"type": "elt"})
    assert said == "--set type: which pipeline? Write its name first. Known: orders, returns."
    assert loaded(text, overrides={"returns.type": "elt"}).pipeline("returns").type == "elt"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ORDER__TYPE", "'ORDER' matches nothing under 'pipelines'. Did you mean 'orders'? Known: orders."),
        ("ORDERS__MONITORING__X", "'X' matches nothing under 'monitoring'. Known: alerts."),
        ("ORDERS__TRANSFORMATIONS__5__TYPE", "'5' is not an item of 'transformations', which has 1, counted from 0."),
        ("ORDERS__TRANSFORMATIONS__A", "'A' is not an item of 'transformations', which has 1, counted from 0."),
        ("ORDERS__TYPE__X", "'X' matches nothing under 'type'. Known: none."),
        ("", "'' matches nothing under 'pipelines'. Known: orders."),
    ],
)  # fmt: skip
def test_a_variable_that_matches_nothing_is_a_mistake(name, message, loaded):
    variable = f"LOCKGATE_PIPELINES__{name}"

    assert mistake(loaded, SMALL + MORE, {variable: "x"}) == f"{variable}: {message}"


@pytest.mark.parametrize("key", ["", ".", "pipelines"])
def test_an_option_without_a_key_is_a_mistake(key, loaded):
    assert mistake(loaded, SMALL, overrides={key: "x"}).endswith(
        "no key is named. Write it like 'source.connection_string=...'."
    )


def test_a_mistake_in_a_value_from_outside_names_the_variable(loaded):
    environ = {
        "LOCKGATE_PIPELINES__ORDERS__ERROR_HANDLING__MAX_RETRIES": "many",
        "LOCKGATE_PIPELINES__ORDERS__MONITORING": "{alerts: [{type: pagerduty, servicekey: hunter2}]}",
    }

    assert mistake(loaded, SMALL, environ, overrides={"type": "bach"}) == (
        "--set type  type: 'bach' is not a type. Did you mean 'batch'? Known: batch, elt, hybrid, stream.\n"
        "LOCKGATE_PIPELINES__ORDERS__ERROR_HANDLING__MAX_RETRIES  error_handling.max_retries: "
        "'many' is not a whole number. Write it like 3.\n"
        "LOCKGATE_PIPELINES__ORDERS__MONITORING  monitoring.alerts[0].servicekey: "
        "'servicekey' is not a key here. Did you mean 'service_key'? Known: service_key, type."
    )


def test_other_variables_of_ours_are_left_alone(loaded):
    environ = {"LOCKGATE_CONFIG": "x", "LOCKGATE_HOME": "x", "LOCKGATE_LOG_LEVEL": "x", "LOCKGATE_PIPELINES": "x"}

    assert loaded(SMALL, environ).pipeline("orders")


# --- references ---


@pytest.mark.parametrize(
    ("written", "environ", "expected"),
    [
        ("${TABLE}", {"TABLE": "orders"}, "orders"),
        ("${TABLE}", {"TABLE": "12"}, "12"),
        ("${SCHEMA:-public}.${TABLE}", {"TABLE": "orders"}, "public.orders"),
        ("'{{ $TABLE }}'", {"TABLE": "orders"}, "orders"),
        ("$${TABLE}", {}, "${TABLE}"),
        ("'{{ table }}'", {}, "{{ table }}"),
        ("${TABLE}", {"TABLE": "${OTHER}"}, "${OTHER}"),
    ],
)
def test_a_reference_in_a_plain_text_is_resolved_as_it_loads(written, environ, expected, loaded):
    text = SMALL.replace("{table: orders}", f"{{table: '{written}'}}".replace("''", "'"))

    assert loaded(text, environ).pipeline("orders").sources["source"].table.table == expected


def test_a_reference_alone_is_read_as_yaml_where_no_text_is_wanted(loaded):
    text = SMALL + MORE.replace("value: 10", "value: '${LIMIT}'").replace(
        "max_retries: 1", "max_retries: '${RETRIES:-4}'"
    )
    pipeline = loaded(text, {"LIMIT": "20"}).pipeline("orders")

    assert pipeline.steps[0].parameters.condition.value == 20
    assert pipeline.error_handling.max_retries == 4


def test_a_secret_is_resolved_only_when_it_is_used(loaded, monkeypatch):
    secret = loaded(SMALL, {"ORDERS_DB": "early"}).pipeline("orders").sources["source"].connection_string
    monkeypatch.setenv("ORDERS_DB", "late")

    assert secret.shown == "${ORDERS_DB}"
    assert secret.reveal() == "late"


def test_a_type_by_reference_still_has_its_secrets(loaded):
    text = SMALL.replace("type: database", "type: ${KIND:-database}", 1)

    assert loaded(text).pipeline("orders").sources["source"].connection_string == Secret("${ORDERS_DB}")


def test_a_secret_behind_a_type_by_reference_is_not_shown(loaded):
    text = SMALL.replace("type: database", "type: ${KIND:-database}", 1).replace("${ORDERS_DB}", "[hunter2]")

    assert "hunter2" not in mistake(loaded, text)


# --- version ---


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        (lambda text: text + "# a comment\n", True),
        (lambda text: text.replace("{table: orders}", "\n        table: 'orders'"), True),
        (lambda text: text.replace("    type: batch\n", "") + "    type: batch\n", True),
        (lambda text: text.replace("hunter2", "hunter3"), True),
        (lambda text: f"{text}  other: {{type: elt, source: {STREAM}, target: {STREAM}}}\n", True),
        (lambda text: text.replace("host/db", "host2/db"), False),
        (lambda text: text.replace("table_name: orders", "table_name: orders2"), False),
        (lambda text: text + "    error_handling: {max_retries: 4}\n", False),
    ],
)  # fmt: skip
def test_the_version_changes_with_the_meaning(change, is_same, loaded):
    version = loaded(SMALL).pipeline("orders").version

    assert (loaded(change(SMALL)).pipeline("orders").version == version) is is_same
    assert len(version) == 12


def test_the_version_does_not_see_what_references_stand_for(loaded):
    text = SMALL.replace("{table: orders}", "{table: '${TABLE}'}")

    assert (
        loaded(text, {"TABLE": "a"}).pipeline("orders").version
        == loaded(text, {"TABLE": "b"}).pipeline("orders").version
    )


def test_the_version_sees_the_order_of_sources(loaded):
    text = f"pipelines:\n  a:\n    type: elt\n    target: {STREAM}\n    sources: {{%s: {STREAM}, %s: {STREAM}}}\n"
    one, other = (loaded(text % names).pipeline("a") for names in [("x", "y"), ("y", "x")])

    assert one.version != other.version


# --- laws ---


def test_loading_is_quick():
    load(GUIDE, environ={})  # imports what it names

    fastest = min(_seconds(lambda: load(GUIDE, environ={})) for _ in range(5))

    assert fastest < 0.05


def test_the_module_does_not_import_what_plans_do_not_need():
    heavy = "('prefect', 'pandera', 'psycopg', 'adbc_driver_postgresql', 'pyarrow', 'sqlglot', 'httpx')"
    code = f"import sys, flows._config, flows._json_schema; print([name for name in {heavy} if name in sys.modules])"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})

    assert found.stdout.strip() == "[]"


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


_VALUES = st.sampled_from(
    [
        *[
            None,
            True,
            0,
            -1,
            1.5,
            10**30,
            float("nan"),
            "",
            "x",
            "[",
            "\x85",
            "${",
            "${X}",
            "${X:-1}",
            "{{ prefect.x }}",
        ],
        *[[], [None], [[]], {}, {"a": None}, {1: 2}, {"type": "x"}, {"type": None}, {"type": ["filter"]}],
        *[{"type": "filter"}, {"type": "not_null"}, {"type": "database"}, {"<<": 1}],
    ]
)
_KEYS = st.sampled_from(["type", "x", "schema", "rules", "sources", "parameters", 5, ""])


def _places(value, path=()):
    """Every path in a value but its own."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _places(inner, (*path, key))


@settings(deadline=None)
@given(data=st.data())
def test_whatever_becomes_of_a_value_only_config_errors_come_out(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    yaml = YAML(typ="safe", pure=True)
    document = yaml.load(f"{SMALL}{MORE}    schedule: {{cron: '0 2 * * *', timezone: UTC}}\n")
    for _ in range(data.draw(st.integers(1, 3))):
        *above, last = data.draw(st.sampled_from([*_places(document)] or [("x",)]))
        place = reduce(lambda value, key: value[key], above, document)
        key = data.draw(st.just(last) | _KEYS) if isinstance(place, dict) else last
        place[key] = copy.deepcopy(data.draw(_VALUES))
    with file.open("w", encoding="utf-8", newline="") as opened:
        yaml.dump(document, opened)

    try:
        load(file, environ={"LOCKGATE_PIPELINES__ORDERS__TYPE": "batch"})
    except ConfigError as error:
        problems = error.problems
    else:
        problems = ()

    assert all(problem.where and "\n" not in problem.message for problem in problems)


_SECRET_PLACES = ["connection_string", "headers", "service_key", "url", "password"]


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_secret_is_in_no_message(data, tmp_path_factory):
    secret = "hunter2Zx"
    shapes = [
        secret,
        [secret],
        {"a": secret},
        f"postgresql://me:{secret}@h/d",
        f"postgresql://me:{secret}",
        f"{secret}${{",
    ]
    options = st.fixed_dictionaries(
        {"type": st.sampled_from(["database", "stream", "streem", "webhook", "pagerduty", 5, None])},
        optional={place: st.sampled_from(shapes) for place in _SECRET_PLACES},
    )
    pipeline = {
        "type": "batch",
        "source": data.draw(options),
        "target": data.draw(options),
        "monitoring": {"alerts": [data.draw(options)]},
    }
    file = tmp_path_factory.getbasetemp() / "secret.yaml"
    with file.open("w", encoding="utf-8") as opened:
        YAML(typ="safe", pure=True).dump({"pipelines": {"orders": pipeline}}, opened)

    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert secret not in str(caught.value)
    assert secret not in repr(caught.value.problems)
