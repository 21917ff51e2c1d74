"""Runs in a real Prefect server, looked at through its API, the way its UI does."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from dataclasses import dataclass
from dataclasses import fields as fields_of
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

import httpx
import polars as pl
import psycopg
import pytest

from flows import _config
from flows._errors import SourceMissingError, TargetBusyError, rendered
from flows._ledger import Rows
from flows._report import Silent
from flows._server import PrefectServerError
from transforms._errors import LockgateError
from validations._errors import TooManyRejectedError

pytestmark = [pytest.mark.prefect, pytest.mark.postgres]

PASSWORD = "tr0ub4dor-and-3"

YAML = """
pipelines:
  {name}:
    type: batch
    tags: [tested]
    source: {{type: database, connection_string: "${{PEOPLE_URL}}", schema: {{table: {table}}}}}
    target:
      type: database
      connection_string: "${{PEOPLE_URL}}"
      table_name: loaded
      write_mode: overwrite
      primary_key: id
      lock_timeout_seconds: 1
    quality_rules:
      - {{type: email, field: email}}
      - {{type: unique, field: id}}
    error_handling: {{strategy: retry, max_retries: 2, retry_delay: 0.2, max_failed_ratio: {ratio}}}
"""


@dataclass
class Api:
    """Prefect's API, asked until the answer is there: Prefect sends logs and task runs in the background."""

    client: httpx.Client

    def until(self, found, is_there):
        deadline = time.monotonic() + 30
        while not is_there(answer := found()):
            assert time.monotonic() < deadline, answer
            time.sleep(0.2)
        return answer

    def asked(self, kind, **query):
        return self.client.post(f"/{kind}/filter", json=query).raise_for_status().json()

    def run(self, url):
        return self.client.get(f"/flow_runs/{url.rpartition('/')[2]}").raise_for_status().json()

    def newest(self, pipeline):
        """The newest run of a pipeline."""
        return self.asked("flow_runs", flows={"name": {"any_": [pipeline.name]}}, sort="EXPECTED_START_TIME_DESC")[0]

    def task_runs(self, run, last="load"):
        """The task runs of a flow run by name, once the one called `last` is over."""

        def found():
            return {task["name"]: task for task in self.asked("task_runs", flow_runs={"id": {"any_": [run["id"]]}})}

        return self.until(found, lambda tasks: last in tasks and tasks[last]["state_type"] in {"COMPLETED", "FAILED"})

    def artifacts(self, run):
        """The data and the description of a flow run's artifacts, by the last word of their keys."""
        found = self.asked("artifacts", flow_runs={"id": {"any_": [run["id"]]}})
        return {
            artifact["key"].rpartition("-")[2]: (json.loads(artifact["data"]), artifact["description"])
            for artifact in found
        }

    def logs(self, run, wanted):
        """The log of a flow run, once it has a line with `wanted`."""
        query = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "sort": "TIMESTAMP_ASC"}
        return self.until(
            lambda: self.asked("logs", **query), lambda logs: any(wanted in log["message"] for log in logs)
        )

    def everything(self):
        """All that the server keeps, as one text."""
        texts = [json.dumps(self.asked(kind)) for kind in ("flows", "flow_runs", "task_runs", "logs", "artifacts")]
        for run in self.asked("flow_runs"):
            states = self.client.get("/flow_run_states/", params={"flow_run_id": run["id"]})
            texts.append(states.raise_for_status().text)
        page = self.asked("events", limit=50)
        while page:
            texts.append(json.dumps(page["events"]))
            following = page["next_page"]
            page = following and self.client.get(following).raise_for_status().json()
        return "\n".join(texts)


@pytest.fixture
def api(prefect_server, prefect_setting):
    prefect_setting("PREFECT_API_URL", prefect_server)
    with httpx.Client(base_url=prefect_server) as client:
        yield Api(client)


@pytest.fixture
def people(database, connect, tmp_path, monkeypatch):
    """Makes the pipeline: 100 people, two of them with a bad address; when one is read the server's log says so."""
    connect().execute(
        "CREATE FUNCTION noted(i int) RETURNS bigint LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE LOG 'row % of % was read', i, current_database(); RETURN i; END $$;"
        "CREATE TABLE people AS SELECT i AS id, "
        f"CASE i WHEN 17 THEN '**{PASSWORD}**' WHEN 18 THEN repeat('x', 5000) ELSE 'p' || i || '@example.com' END "
        "AS email FROM generate_series(1, 100) i;"
        "CREATE VIEW counted_people AS SELECT id, email, noted(id) AS ticket FROM people;"
        "CREATE TABLE loaded (id int PRIMARY KEY, email text, ticket bigint); INSERT INTO loaded VALUES (0, '', 0);"
    )
    name = urlsplit(database).path[1:]  # of its own, because the server is shared
    monkeypatch.setenv("PEOPLE_URL", database.replace("postgres@", f"postgres:{PASSWORD}@"))

    def make(table="counted_people", ratio=0.05):
        file = tmp_path / "people.yaml"
        file.write_text(YAML.format(name=name, table=table, ratio=ratio))
        return _config.load(file).pipeline(name)

    return make


def run_in_prefect(pipeline, reporter=None):
    from flows._tasks import run_in_prefect as run  # noqa: PLC0415 - Prefect takes seconds to import

    return run(pipeline, reporter)


def test_a_run_from_end_to_end(api, prefect_server, people, connect, capfd):
    pipeline = people()
    record, url = run_in_prefect(pipeline)

    assert record.status == "published"
    assert url.startswith(prefect_server.removesuffix("/api") + "/runs/flow-run/")
    assert capfd.readouterr() == ("", "")
    assert connect().execute("SELECT count(*) FROM loaded").fetchone() == (98,)

    run = api.run(url)
    assert run["name"] == f"{pipeline.name} {record.run_id}"
    assert run["flow_version"] == record.config_version
    assert run["tags"] == ["tested"]
    assert run["parameters"] == {}
    assert (run["state_name"], run["state"]["message"]) == (
        "Completed",
        "published: 100 read, 98 written, 0 unchanged, 2 quarantined",
    )

    tasks = api.task_runs(run)
    assert sorted(tasks, key=lambda name: tasks[name]["start_time"]) == [
        "extract",
        "transform",
        "validate",
        "load",
    ]
    for task in tasks.values():
        assert (task["state_name"], task["run_count"]) == ("Completed", 1)
        assert task["empirical_policy"] | {"retries": 2, "retry_delay": [0.2, 0.4]} == task["empirical_policy"]
        assert task["cache_key"] is None
        assert task["state"]["data"] is None
    before = {name: [link["id"] for link in tasks[name]["task_inputs"]["wait_for"]] for name in ("transform", "load")}
    assert before == {"transform": [tasks["extract"]["id"]], "load": [tasks["validate"]["id"]]}

    artifacts = api.artifacts(run)
    assert set(artifacts) == {"ledger", "checks", "quarantine"}
    ledger = {row["ledger"]: row["rows"] for row in artifacts["ledger"][0]}
    assert ledger == {field.name: getattr(record.rows, field.name) for field in fields_of(Rows)}
    assert artifacts["checks"][0][0] == {
        "check": "`email email`",
        "passed": "no",
        "violations": 2,
        "on violation": "quarantine",
    }
    rows, said = artifacts["quarantine"]
    assert [(row["row"], row["broke"]) for row in rows] == [(16, "`email email`"), (17, "`email email`")]
    assert rows[0]["values"] == '`{"id": 17, "email": "*******", "ticket": 17}`'
    assert len(rows[1]["values"]) < 200
    assert said == f"`{pipeline.name}` to `loaded`, run `{record.run_id}`: published. The first 2 rows, as read."


def test_a_failed_run_says_why_in_one_line(api, people, connect, capfd):
    pipeline = people(table="peple")
    with pytest.raises(SourceMissingError) as caught:
        run_in_prefect(pipeline)

    assert capfd.readouterr() == ("", "")
    run = api.newest(pipeline)
    line = rendered(caught.value, pipeline.locate)
    assert "\n" not in line
    assert (run["state_name"], run["state"]["message"]) == ("Failed", line)
    tasks = api.task_runs(run, last="extract")
    assert {name: (task["state_name"], task["run_count"]) for name, task in tasks.items()} == {"extract": ("Failed", 1)}
    assert tasks["extract"]["state"]["message"] == line
    ((run_id, status),) = connect().execute("SELECT run_id, status FROM lockgate.loads").fetchall()
    assert (run["name"], status) == (f"{pipeline.name} {run_id}", "failed")
    assert connect().execute("SELECT id FROM loaded").fetchall() == [(0,)]
    logs = api.logs(run, "Finished in state Failed")
    assert not [log for log in logs if "Traceback" in log["message"] or "NoneType" in log["message"]]


def test_a_refused_run_shows_what_was_found(api, people, connect):
    pipeline = people(ratio=0.01)
    with pytest.raises(TooManyRejectedError):
        run_in_prefect(pipeline)

    run = api.newest(pipeline)
    assert run["state_name"] == "Failed"
    artifacts = api.artifacts(run)
    assert len(artifacts["quarantine"][0]) == 2
    assert ": refused." in artifacts["ledger"][1]
    assert connect().execute("SELECT id FROM loaded").fetchall() == [(0,)]


class LetsGo(Silent):
    """Ends the session that holds a lock when it hears of a retry."""

    def __init__(self, holder):
        self.holder = holder
        self.heard = []

    def warning(self, text):
        self.heard.append(text)
        self.holder.close()


def locked(database):
    holder = psycopg.connect(database)
    holder.execute("LOCK TABLE loaded IN SHARE MODE")
    return holder


def test_load_is_tried_again_without_reading_again(api, people, database, connect, postgres_server):
    reporter = LetsGo(locked(database))

    record, url = run_in_prefect(people(), reporter)

    assert record.status == "published"
    log = (postgres_server.data / "log").read_text()
    assert len(re.findall(rf"row \d+ of {urlsplit(database).path[1:]} was read", log)) == 100
    assert connect().execute("SELECT count(*), count(DISTINCT id) FROM loaded").fetchone() == (98, 98)
    assert reporter.heard == record.warnings
    assert reporter.heard[0].startswith("load is tried again in about 0.2 s (retry 1 of 2): ")
    tasks = api.task_runs(api.run(url))
    assert {name: task["run_count"] for name, task in tasks.items()} == {
        "extract": 1,
        "transform": 1,
        "validate": 1,
        "load": 2,
    }
    logs = api.logs(api.run(url), "load is tried again")
    assert max(log["level"] for log in logs) < 40


def test_when_the_retries_are_spent_the_run_fails_with_the_last_error(api, people, database):
    holder = psycopg.connect(database)
    holder.execute("SELECT pg_advisory_lock(hashtextextended('lockgate: public.loaded', 0))")
    pipeline = people()
    with holder, pytest.raises(TargetBusyError):
        run_in_prefect(pipeline)

    run = api.newest(pipeline)
    assert run["state_name"] == "Failed"
    assert api.task_runs(run, last="validate")["validate"]["run_count"] == 3


class Breaks(Silent):
    """Raises an error, once a stage begins: what no code of ours foresees."""

    def __init__(self, stage, error):
        self.at = stage
        self.error = error

    def stage(self, name):
        if name == self.at:
            raise self.error


@pytest.mark.parametrize("kind", [RuntimeError, pl.exceptions.PanicException])
def test_a_foreign_error_fails_the_run_and_is_raised_as_it_is(api, people, connect, kind):
    error = kind(f"no password {PASSWORD}")
    pipeline = people()
    pipeline.target.connection_string.reveal()
    with pytest.raises(kind) as caught:
        run_in_prefect(pipeline, Breaks("validate", error))

    assert caught.value is error
    run = api.newest(pipeline)
    assert (run["state_name"], run["state"]["message"]) == ("Failed", f"{kind.__name__}: no password ***")
    assert api.task_runs(run, last="validate")["validate"]["run_count"] == 1
    assert connect().execute("SELECT id FROM loaded").fetchall() == [(0,)]


class Sleeps(Silent):
    """Takes long, once a stage begins."""

    def stage(self, name):
        if name == "validate":
            time.sleep(30)


def test_a_stage_that_does_not_end_is_given_up(api, people, connect, monkeypatch):
    from flows import _tasks  # noqa: PLC0415 - Prefect takes seconds to import

    monkeypatch.setitem(_tasks.TIMEOUTS, "validate", 1)
    pipeline = people()
    with pytest.raises(LockgateError, match=r"^validate was given up after 1 s. Nothing was published. "):
        run_in_prefect(pipeline, Sleeps())

    run = api.newest(pipeline)
    assert run["state_name"] == "Failed"
    task = api.task_runs(run, last="validate")["validate"]
    assert (task["state_name"], task["run_count"]) == ("TimedOut", 1)
    assert connect().execute("SELECT status FROM lockgate.loads").fetchall() == [("failed",)]


class Chatters(Silent):
    """Logs a secret, as somebody's own step might."""

    def stage(self, name):
        from prefect import get_run_logger  # noqa: PLC0415 - Prefect takes seconds to import

        if name != "validate":
            return  # what this process has not resolved yet, it does not know to be a secret
        try:
            int(PASSWORD)
        except ValueError:
            get_run_logger().exception("%s goes to %s", name, os.environ["PEOPLE_URL"])


def test_no_secret_is_kept_in_prefect(api, people):
    run_in_prefect(people(), Chatters())
    failing = people(table="peple")
    with pytest.raises(SourceMissingError):
        run_in_prefect(failing)
    api.logs(api.newest(failing), "Finished in state Failed")
    api.task_runs(api.newest(failing), last="extract")

    kept = api.everything()
    assert "validate goes to postgresql://postgres:***@" in kept
    assert "with base 10: '***'" in kept
    assert "-quarantine" in kept
    assert re.findall(f".{{0,100}}{PASSWORD}.{{0,100}}", kept) == []


def test_a_configured_server_that_is_not_there_is_said_so(people, prefect_setting):
    prefect_setting("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(PrefectServerError, match="no Prefect server answers"):
        run_in_prefect(people())
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:9/api"


def test_a_server_that_is_none_of_prefects_is_said_so(people, connect, prefect_setting):
    class Nonsense(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"true")

        do_POST = do_GET  # noqa: N815 - as the library calls it

        def log_message(self, *_):
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Nonsense) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        prefect_setting("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
        with pytest.raises(
            PrefectServerError, match=r"^Prefect failed: .* Run again, or without Prefect: --no-prefect.$"
        ):
            run_in_prefect(people())
        server.shutdown()
    assert connect().execute("SELECT id FROM loaded").fetchall() == [(0,)]
