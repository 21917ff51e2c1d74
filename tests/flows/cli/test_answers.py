"""What each verb answers, to people and to programs, and what it imports to do so."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TEXTS = ROOT / "tests" / "messages" / "cli"
GUIDE = ROOT / "tests" / "messages" / "guide.yaml"


def assert_text(name, answer):
    """The whole answer is that of the file; what differs from run to run stands as a word in angle brackets."""
    for pattern, word in (
        (r"\d{8}T\d{6}_[0-9a-f]{8}", "<run id>"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "<started>"),
        (r"\b\d+\.\d s", "<seconds> s"),
        (r"[\d,]+ rows/s", "<rate> rows/s"),
        (r"(?m) \d+\.\d(?=  |$)", " <seconds>"),
    ):
        answer = re.sub(pattern, word, answer)
    file = TEXTS / f"{name}.txt"
    if os.environ.get("WRITE_TEXTS"):
        file.write_text(answer)

    assert answer == file.read_text()


# --- offline ---


def test_list(here, flows):
    assert_text("list", flows("list")[0])
    (facts,) = json.loads(flows("list", "--json")[0])

    assert facts["name"] == "active_customers"
    assert facts["where"] == "pipelines.yaml:2"


def test_show_says_where_every_key_was_set_and_no_secret(here, monkeypatch, flows):
    variable = "LOCKGATE_PIPELINES__ACTIVE_CUSTOMERS__TARGET__CONNECTION_STRING"
    monkeypatch.setenv(variable, "postgresql://etl:hunter22@warehouse/analytics")

    answer, _ = flows("show", "active_customers")

    assert_text("show", answer)
    facts = json.loads(flows("show", "active_customers", "--json")[0])
    assert facts["pipeline"]["target"]["connection_string"] == "postgresql://etl:***@warehouse/analytics"


def test_validate_the_guides_pipelines(flows):
    answer, _ = flows("validate", "--config", GUIDE)

    assert answer == (
        "customer_data_etl is valid: batch, 2 steps, 3 rules.\n"
        "real_time_fraud_detection is valid: stream, 2 steps, 0 rules.\n"
    )


def test_validate_reaches_nothing(here, monkeypatch, flows):
    monkeypatch.delenv("SOURCE")
    monkeypatch.setenv("WAREHOUSE", "postgresql://nowhere.invalid/x")

    assert flows("validate", "active_customers")[0] == "active_customers is valid: batch, 2 steps, 3 rules.\n"


def test_schema_is_json(flows):
    assert json.loads(flows("schema")[0])["title"] == "Lockgate pipelines"


def test_the_configuration_that_is_taken(here, monkeypatch, flows):
    (here / "other.yaml").write_text((here / "pipelines.yaml").read_text().replace("active_customers", "others"))

    assert "others" in flows("list", "--config", "other.yaml")[0]
    monkeypatch.setenv("LOCKGATE_CONFIG", "other.yaml")
    assert "others" in flows("list")[0]
    monkeypatch.delenv("LOCKGATE_CONFIG")
    assert "active_customers" in flows("list")[0]
    (here / "pipelines.yaml").unlink()
    assert "customer_data_etl" in flows("list")[0]


# --- with a database ---


def test_plan_says_what_a_run_would_do_and_does_nothing(here, connect, flows):
    assert_text("plan", flows("plan", "active_customers")[0])
    facts = json.loads(flows("plan", "active_customers", "--json")[0])

    assert facts["sources"][0]["filtered_at_source"] == "\"status\" = 'active'"
    assert facts["columns"]["joined_year"].startswith("Decimal")
    assert (
        connect().execute("SELECT to_regclass('dim_customers'), to_regnamespace('lockgate')").fetchone() == (None,) * 2
    )


def test_preview(here, flows):
    assert_text("preview", flows("preview", "active_customers", "--limit", 2)[0])
    assert [json.loads(line) for line in flows("preview", "active_customers", "--json")[0].splitlines()[5:7]] == [
        {"id": 7, "email": "c7@example.com", "joined": "2020-01-08", "joined_year": "2020"},
        {"id": 9, "email": "c9@example.com", "joined": "2020-01-10", "joined_year": "2020"},
    ]


@pytest.mark.parametrize(("step", "columns", "rows"), [("0", 3, 20), ("1", 3, 15), ("filter", 3, 15), ("ages", 4, 15)])
def test_preview_after_a_step(here, step, columns, rows, flows):
    answer = flows("preview", "active_customers", "--step", step, "--limit", 100, "--json")[0]

    shown = [json.loads(line) for line in answer.splitlines()]
    assert (len(shown), len(shown[0])) == (rows, columns)


def test_preview_reads_no_more_than_it_shows(here, connect, flows):
    connect().execute("CREATE VIEW odd AS SELECT id, 1 / (18 - id) AS broken_later FROM customers")
    origin = ("--set", "source.schema={table: odd}", "--step", "0")

    assert len(flows("preview", "active_customers", *origin, "--limit", 2, "--json")[0].splitlines()) == 2
    assert "division by zero" in flows("preview", "active_customers", *origin, "--limit", 50, code=1)[1]


def test_a_run_for_people(here, connect, run):
    answer, progress = run()

    assert_text("run", answer)
    assert progress == "".join(f"active_customers: {stage}\n" for stage in ("extract", "transform", "validate", "load"))
    assert connect().execute("SELECT count(*) FROM dim_customers").fetchone() == (10,)


def test_a_run_for_programs(here, run):
    answer, progress = run("--json")

    record = json.loads(answer)
    assert progress == ""
    assert record["status"] == "published"
    assert record["rows"] == {
        "read": 15, "filtered": 0, "deduplicated": 0, "aggregated": 0, "expanded": 0, "quarantined": 5, "written": 10,
        "unchanged": 0,
    }  # fmt: skip
    assert record["error"] is None
    assert {"pipeline", "run_id", "seconds", "checks", "warnings"} <= record.keys()


def test_a_refused_run(here, run):
    answer, progress = run("--set", "error_handling.max_failed_ratio=0.1", code=1)

    assert_text("refused", answer + progress)


def test_a_run_that_would_remove_most_of_the_table(here, connect, run):
    run()
    connect().execute("DELETE FROM customers WHERE id IS NULL OR id NOT IN (9, 10, 11)")

    answer, progress = run(code=1)

    assert_text("shrinking", answer + progress)
    assert connect().execute("SELECT count(*) FROM dim_customers").fetchone() == (10,)
    run("--set", "guards.max_removed_ratio=0.9")
    connect().execute("TRUNCATE customers")
    assert "--allow-shrink" in run(code=1)[1]
    run("--allow-shrink")
    assert connect().execute("SELECT count(*) FROM dim_customers").fetchone() == (0,)


def test_the_quarantine_after_a_run(here, flows, run):
    assert flows("quarantine", "list", "active_customers")[0] == "active_customers: no rows in quarantine.\n"
    run()

    assert_text("quarantine_list", flows("quarantine", "list", "active_customers")[0])
    assert_text("quarantine_show", flows("quarantine", "show", "active_customers", "--row", 1)[0])
    listed = json.loads(flows("quarantine", "list", "active_customers", "--json")[0])
    assert listed["runs"][0]["rules"] == {"email email": 2, "id not_null": 1, "id unique": 2}
    assert [row["reasons"] for row in listed["rows"]].count(["email email"]) == 2


def test_a_suggested_command_names_the_configuration(here, run):
    (here / "pipelines.yaml").rename(here / "my pipelines.yaml")

    answer, _ = run("--config", "my pipelines.yaml")

    suggested = answer.strip().rpartition("See: python -m ")[2]
    assert suggested == "flows quarantine list active_customers --config 'my pipelines.yaml'"


def test_history(here, flows, run):
    assert "has not run yet" in flows("history", "active_customers")[0]
    run()
    run("--set", "source.schema.table=nothing", code=1)

    assert_text("history", flows("history", "active_customers")[0])
    newest, oldest = json.loads(flows("history", "active_customers", "--json")[0])
    assert (newest["status"], oldest["status"]) == ("failed", "published")
    assert len(json.loads(flows("history", "active_customers", "--limit", 1, "--json")[0])) == 1


JOINED = """\
pipelines:
  joined:
    type: batch
    sources:
      customers: {type: database, connection_string: "${SOURCE}", schema: {table: customers, columns: [id, status]}}
      states: {type: database, connection_string: "${SOURCE}", schema: {table: states}}
    target: {type: database, connection_string: "${WAREHOUSE}", table_name: joined}
    transformations:
      - {type: filter, parameters: {where: "id > 16"}}
      - {type: join, parameters: {source: states, on: status, columns: [label]}}
"""


@pytest.fixture
def joined(here, connect):
    """A pipeline with a join, whose second source has a column that nobody wants."""
    connect().execute("CREATE TABLE states AS SELECT * FROM (VALUES ('active', 'yes', 1)) AS s (status, label, odd)")
    (here / "joined.yaml").write_text(JOINED)
    return ["joined", "--config", "joined.yaml"]


def test_plan_of_several_sources(joined, flows):
    facts = json.loads(flows("plan", *joined, "--json")[0])

    assert [source["reads"] for source in facts["sources"]] == [
        'SELECT "id" AS "id", "status" AS "status" FROM (SELECT * FROM "customers") AS q WHERE "id" > 16',
        'SELECT "status" AS "status", "label" AS "label" FROM (SELECT * FROM "states") AS q',
    ]
    assert [step["runs"] for step in facts["steps"]] == ["row by row, in batches", "over the whole set"]
    assert flows("plan", *joined)[0].startswith("source customers\n")


def test_preview_of_a_step_that_needs_the_whole_set(joined, flows):
    rows = [json.loads(line) for line in flows("preview", *joined, "--json")[0].splitlines()]

    assert sorted(row["id"] for row in rows) == [17, 18, 19]
    assert {row["label"] for row in rows} == {"yes"}


def test_a_run_that_takes_long_says_how_far_it_is(here, run, monkeypatch):
    monkeypatch.setattr("flows._cli._terminal._EVERY_SECONDS", 0)

    assert re.search(r"^active_customers: 15 rows read, [\d,]+ rows/s$", run()[1], re.MULTILINE)


def test_warnings_are_for_people_and_for_programs(here, run):
    rules = ("--set", "quality_rules[1].on_violation=warn")

    answer, said = run(*rules)

    assert "active_customers: warning: email email: 2 rows broke this rule, which only warns.\n" in said
    assert "2 violations  only a warning" in answer
    record = json.loads(run(*rules, "--json")[0])
    assert record["warnings"] == ["email email: 2 rows broke this rule, which only warns."]


# --- the process ---

FORBIDDEN = ("prefect", "pandera", "fastapi")
OFFLINE_FORBIDDEN = (*FORBIDDEN, "pyarrow", "adbc_driver_postgresql", "rich", "httpx", "pgpq")
PROBE = """
import sys
from flows.__main__ import main
try:
    main(sys.argv[2:])
except SystemExit as end:
    assert not end.code, end.code
print(*sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1].split(","))), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("verb", "forbidden"),
    [
        ("list", OFFLINE_FORBIDDEN),
        ("show active_customers", OFFLINE_FORBIDDEN),
        ("validate", OFFLINE_FORBIDDEN),
        ("schema", OFFLINE_FORBIDDEN),
        ("plan active_customers", FORBIDDEN),
        ("preview active_customers", FORBIDDEN),
        ("history active_customers", FORBIDDEN),
        ("quarantine list active_customers", FORBIDDEN),
        ("run active_customers --no-prefect --json", FORBIDDEN),
    ],
)
def test_a_verb_imports_only_what_it_needs(here, verb, forbidden):
    probe = [sys.executable, "-c", PROBE, ",".join(forbidden), *verb.split()]
    result = subprocess.run(probe, capture_output=True, text=True, check=False, env=process_environment())

    assert (result.returncode, result.stderr.strip()) == (0, "")


def process_environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def test_an_interrupted_run_says_so_in_one_line(here, connect, flows, run):
    run()
    connect().execute("CREATE VIEW slow AS SELECT customers.* FROM customers, pg_sleep(60)")
    command = [sys.executable, "-m", "flows", "run", "active_customers", "--no-prefect"]
    options = ["--set", "source.schema.table=slow"]
    with subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=process_environment()
    ) as process:
        while process.stderr.readline() != "active_customers: validate\n":
            assert process.poll() is None
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        answer, said = process.communicate(timeout=20)

    assert (process.returncode, answer) == (130, "")
    assert said == "active_customers: interrupted. Nothing was published.\n"
    assert connect().execute("SELECT count(*) FROM dim_customers").fetchone() == (10,)
    newest = json.loads(flows("history", "active_customers", "--json")[0])[0]
    assert (newest["status"], newest["error"]["message"]) == ("failed", "interrupted")


@pytest.mark.parametrize("colour", [True, False])
def test_progress_on_a_terminal_is_not_in_the_result(here, colour):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flows", "run", "active_customers", "--no-prefect"]
    environment = process_environment(TERM="xterm", **({} if colour else {"NO_COLOR": "1"}))
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE, text=True, env=environment) as process:
        os.close(theirs)
        shown = read_all(ours)
        answer, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "active_customers: load" in shown
    assert (re.search(r"\x1b\[3\dm", shown) is not None) == colour
    assert answer.startswith("active_customers: published")
    assert "\x1b" not in answer


def read_all(terminal):
    """What was written to a terminal; Linux ends it with an error."""
    shown = b""
    try:
        while part := os.read(terminal, 65_536):
            shown += part
    except OSError:
        pass
    finally:
        os.close(terminal)
    return shown.decode()


# --- what is remembered ---


@pytest.fixture
def growing(here):
    """The pipeline of the folder, with a cursor."""
    file = here / "pipelines.yaml"
    text = file.read_text().replace("write_mode: overwrite", "write_mode: append")
    keys = "incremental: {cursor_field: id, on_cursor_value_missing: exclude}"
    file.write_text(text.replace("    quality_rules:", f"    {keys}\n    quality_rules:"))


def test_what_is_remembered_is_shown_set_and_forgotten(growing, flows, run):
    assert flows("state", "show", "active_customers")[0] == (
        "active_customers: nothing is remembered; the next run begins at the beginning.\n"
    )
    run()

    assert_text("state_show", flows("state", "show", "active_customers")[0])
    shown = json.loads(flows("state", "show", "active_customers", "--json")[0])
    assert (shown["source"]["cursor_field"], shown["source"]["cursor"]) == ("id", 19)
    answer = flows("state", "set", "active_customers", "--cursor", "16", "--source", "source")[0]
    assert answer == "active_customers: the next run begins at id = 16.\n"
    planned = json.loads(flows("plan", "active_customers", "--json")[0])
    assert planned["sources"][0]["filtered_at_source"] == "id >= 16 AND id <= 20 AND \"status\" = 'active'"
    assert flows("state", "clear", "active_customers")[0] == "active_customers: forgotten: source.\n"
    assert flows("state", "clear", "active_customers")[0] == "active_customers: nothing was remembered.\n"
    assert json.loads(flows("state", "show", "active_customers", "--json")[0]) == {}


def test_full_refresh_replaces_the_rows(growing, connect, run):
    run()

    record = json.loads(run("--json", "--full-refresh")[0])

    assert record["rows"]["written"] == 10
    assert connect().execute("SELECT count(*) FROM dim_customers").fetchone() == (10,)
    assert json.loads(run("--json")[0])["rows"]["written"] == 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("set", "active_customers", "--cursor", "soon"), "--cursor: 'soon' is not a whole number. 'id' is Int64."),
        (("set", "active_customers", "--cursor", "1", "--source", "sauce"), "Did you mean 'source'?"),
        (("set", "active_customers"), "state set: cursor is missing."),
        (("clear", "active_customers", "--source", "sauce"), "nothing is remembered of 'sauce'."),
    ],
)
def test_state_says_what_it_cannot_do(growing, flows, command, said):
    assert said in flows("state", *command, code=2)[1]


def test_a_pipeline_without_a_cursor_has_none_to_set(here, flows):
    said = flows("state", "set", "active_customers", "--cursor", "1", code=2)[1]

    assert "'active_customers' has no 'incremental', and so no cursor." in said
