"""What bad input gets: one line, an exit code, no secret, an untouched target, and a record of what started.

`tests/messages/cli/mistakes.txt` holds them all: what is set, and the line it is answered with.
"""

import json
import os
import re
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

SECRET = "hunter22"
FILE = Path(__file__).parents[2] / "messages" / "cli" / "mistakes.txt"
CODES = {"config": 2, "failed": 1, "refused": 1}
CASES = [
    (kind, mistake, line.strip())
    for kind, section in re.findall(r"(?ms)^# (\w+).*?\n\n(.*?)(?=^# |\Z)", FILE.read_text())
    for mistake, line in (case.split("\n", 1) for case in section.strip().split("\n\n"))
]


@pytest.fixture
def mistaken(here, connect, flows, run):
    """Runs the pipeline with a mistake in it, over the table of an earlier run; returns the one line of stderr."""
    run()
    dim = "SELECT * FROM dim_customers ORDER BY id"
    before = connect().execute(dim).fetchall()

    def history():
        return json.loads(flows("history", "active_customers", "--json")[0])

    def call(*options, kind):
        earlier = len(history())
        answer, said = run(*options, "--json", code=CODES[kind])
        record = json.loads(answer)
        runs = history()

        assert said.count("\n") == 1
        assert SECRET not in answer + said + json.dumps(runs)
        assert connect().execute(dim).fetchall() == before
        assert record["status"] == ("refused" if kind == "refused" else "failed")
        assert record["error"]["message"] in said
        ends = [(each["run_id"], each["status"], each["error"]["message"]) for each in runs[: len(runs) - earlier]]
        assert ends == ([] if kind == "config" else [(record["run_id"], kind, record["error"]["message"])])
        return said.rstrip("\n")

    return call


@pytest.mark.parametrize(("kind", "mistake", "line"), CASES)
def test_a_mistake(mistaken, kind, mistake, line):
    options = [option for text in mistake.split("; ") for option in ("--set", text)]

    said = without_catalogues(mistaken(*options, kind=kind))

    if os.environ.get("WRITE_TEXTS"):
        FILE.write_text(FILE.read_text().replace(f"\n{mistake}\n    {line}\n", f"\n{mistake}\n    {said}\n"))
    else:
        assert said == line


def without_catalogues(line):
    """A new transform must not need a new text."""
    return re.sub(r"Known: .*\.$", "Known: ...", line)


def test_a_wrong_password(mistaken, here, connect, database, postgres_server, monkeypatch, flows):
    user = f"locked_{database.partition('/test_')[2][:8]}"
    connect().execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'the right one'").format(sql.Identifier(user)))
    hba = postgres_server.data / "pg_hba.conf"
    hba.write_text(f"local all {user} scram-sha-256\n{hba.read_text()}")
    connect().execute("SELECT pg_reload_conf()")
    monkeypatch.setenv("SOURCE", database.replace("postgres@", f"{user}:{SECRET}@"))

    line = mistaken(kind="failed")

    assert re.fullmatch(
        rf"pipelines.yaml:6: source 'source': \$\{{SOURCE\}}: (connection failed: .*)?password "
        rf'authentication failed for user "{user}"\. Check the user and the password\.',
        line,
    )


def test_a_warehouse_that_does_not_answer(here, run, flows, monkeypatch):
    monkeypatch.setenv("WAREHOUSE", f"postgresql://etl:{SECRET}@127.0.0.1:1/x")

    answer, said = run("--json", code=1)

    assert re.fullmatch(
        r"pipelines.yaml:12: target dim_customers: \$\{WAREHOUSE\}: connection failed: .* Connection refused\. "
        r"Check the host, the port and that the server is up; then run again\.\n",
        said,
    )
    assert json.loads(answer)["error"]["type"] == "TargetUnreachableError"
    assert SECRET not in answer + said
    assert flows("history", "active_customers", code=1)[1].count("\n") == 1


def test_a_variable_that_is_not_set(here, run, monkeypatch):
    monkeypatch.delenv("SOURCE")

    assert "SOURCE" in run(code=2)[1].splitlines()[-1]


def test_a_column_that_does_not_fit_the_table(here, connect, run):
    connect().execute("CREATE TABLE dim_customers (id bigint PRIMARY KEY, email int, joined date, joined_year int)")

    line = run("--json", code=1)[1]

    assert line == (
        "pipelines.yaml:12: target dim_customers: column 'email': String does not fit int4 without loss. "
        "Cast it with a 'map' step (cast: {...: Int32}) or change the column.\n"
    )
    assert connect().execute("SELECT count(*) FROM dim_customers").fetchone() == (0,)


def test_an_empty_source(mistaken, connect):
    connect().execute("DELETE FROM customers")

    assert mistaken(kind="refused") == (
        "pipelines.yaml:12: target dim_customers: the load is empty, and overwriting with it would leave no rows. "
        "Set target.allow_empty: true if that is meant, or run with --allow-shrink."
    )


def test_a_value_that_cannot_be_carried(mistaken, connect):
    connect().execute("UPDATE customers SET joined = 'infinity' WHERE id = 7")

    assert mistaken(kind="failed") == (
        "pipelines.yaml:6: source 'source': column 'joined' holds 'infinity' or a year after 294246, "
        "which no calculation would survive. "
        "Read it with a query: nullif(\"joined\", 'infinity')."
    )


def test_every_mistake_of_a_file_has_its_line(here, flows):
    file = here / "pipelines.yaml"
    file.write_text(file.read_text().replace("operator: eq", "operator: equals").replace("not_null", "notnull"))

    answer, said = flows("validate", "--json", code=2)

    assert [problem["where"] for problem in json.loads(answer)["error"]["problems"]] == [
        "pipelines.yaml:21",
        "pipelines.yaml:28",
    ]
    assert said.splitlines()[-1] == "2 mistakes in pipelines.yaml."


def test_yaml_that_cannot_be_read(here, run):
    file = here / "pipelines.yaml"
    file.write_text(file.read_text().replace("    source:", "   source:"))

    answer, said = run("--json", code=2)

    assert said.startswith("pipelines.yaml:6")
    assert said.count("\n") == 1
    assert json.loads(answer)["run_id"] is None


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("lst", "'lst' is not a verb. Did you mean 'list'? Known: ... See: python -m flows --help"),
        (
            "run active_customer --no-prefect",
            (
                "'active_customer' is not a pipeline of pipelines.yaml. "
                "Did you mean 'active_customers'? Known: active_customers."
            ),
        ),
        ("run", "run: NAME is missing. See: python -m flows run --help"),
        (
            "run active_customers --no-prefct",
            (
                "run: '--no-prefct' is not an option. Did you mean '--no-prefect'? "
                "Known: ... See: python -m flows run --help"
            ),
        ),
        (
            "run active_customers --set a",
            (
                "run: --set: 'a' is not KEY=VALUE. Write it like target.table_name=scratch. "
                "See: python -m flows run --help"
            ),
        ),
        ("list twice", "list: 'twice' is one argument too many. See: python -m flows list --help"),
        (
            "preview active_customers --limit none",
            "preview: --limit: 'none' is not a valid integer range. See: python -m flows preview --help",
        ),
        (
            "preview active_customers --step fliter",
            (
                "preview: --step: 'fliter' is no step of 'active_customers'. Did you mean 'filter'? "
                "Known: ... See: python -m flows preview --help"
            ),
        ),
        (
            "quarantine lst active_customers",
            "quarantine: 'lst' is not a verb. Did you mean 'list'? Known: ... See: python -m flows quarantine --help",
        ),
        ("list --config nowhere.yaml", "there is no file or folder 'nowhere.yaml'. Name one with --config."),
    ],
)
def test_a_command_that_cannot_be_understood(here, flows, arguments, line):
    answer, said = flows(*arguments.split(), code=2)

    assert answer == ""
    assert re.sub(r"Known: .*? See", "Known: ... See", said.rstrip("\n")) == line


def test_an_unexpected_error_is_one_line_until_somebody_asks(here, run, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError(f"postgresql://etl:{SECRET}@h/d")

    monkeypatch.setattr(
        "flows.sources._scan_of_postgres.columns_of", fail
    )  # the edge of our code, where a fault would be

    assert run("--json", code=1)[1] == (
        "active_customers: ZeroDivisionError: postgresql://etl:***@h/d. "
        "This is a fault of Lockgate or of a custom step. To see the traceback, add --verbose.\n"
    )
    monkeypatch.setenv("LOCKGATE_LOG_LEVEL", "debug")
    with pytest.raises(AssertionError, match="Traceback"):
        run("--json", code=1)


def test_a_target_is_not_asked_for_before_a_source_is_read(here, database, run):
    with psycopg.connect(database, autocommit=True) as connection:
        run("--set", "source.schema.table=custmers", code=1)

        assert connection.execute("SELECT to_regclass('dim_customers')").fetchone() == (None,)
