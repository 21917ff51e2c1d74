"""``run --resume``: another run, on another machine too, goes on from what one had landed."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from flows.__main__ import main
from tests._python import Child

CONFIG = """
pipelines:
  items:
    type: batch
    source:
      type: api
      url: {url}/items
      pagination: {{type: page_number}}
      max_retries: 0
      concurrency: 1
    target: {{type: file, path: {folder}/items.parquet, write_mode: {mode}}}
  others:
    type: batch
    source: {{type: file, path: {folder}/*.txt, format: csv}}
    target: {{type: file, path: {folder}/others.csv, write_mode: overwrite, allow_empty: true}}
"""
CHILD = """
import sys
from flows import pipeline
from flows._config import load
from flows._report import Silent
class Loud(Silent):
    def began(self, record): print(record.run_id, flush=True)
pipeline.run(load(sys.argv[1]).pipeline("items"), reporter=Loud())
"""
LARGE = "x" * 900_000  # a page of it is on disk after nine others


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Becomes a machine with nothing on it but what all machines share."""

    def become(name):
        monkeypatch.setenv("LOCKGATE_HOME", str(tmp_path / name))

    become("one")
    monkeypatch.setenv("LOCKGATE_WORKSPACE", str(tmp_path / "shared"))
    (tmp_path / "rows.txt").write_text("n\n1\n")
    return become


@pytest.fixture
def config(web, tmp_path):
    def write(mode="append"):
        file = tmp_path / "pipelines.yaml"
        file.write_text(CONFIG.format(url=web.url, folder=tmp_path, mode=mode))
        return file

    return write


def run(file, *options, name="items", code=0):
    result = CliRunner().invoke(main, ["run", name, "--config", str(file), "--no-prefect", "--json", *options])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return (json.loads(result.stdout) if result.stdout else None), result.stderr


def breaks_at(web, limit, body=""):
    web.pages("/items", *([{"id": number, "body": body}] for number in range(12)))
    whole = web.answers["/items"]
    web.answers["/items"] = lambda asked: whole(asked) if int(asked.query["page"]) < limit else web.reply({}, 500)


def left(tmp_path):
    return sorted(path.name for home in ("one", "two") for path in (tmp_path / home / "runs").glob("*"))


@pytest.mark.parametrize("shared", [True, False], ids=["elsewhere", "here"])
def test_pages_that_landed_are_not_asked_for_again(shared, web, machine, config, tmp_path, monkeypatch):
    file = config()
    if not shared:
        monkeypatch.delenv("LOCKGATE_WORKSPACE")
    breaks_at(web, 7)
    failed, _ = run(file, code=1)
    assert failed["warnings"] == [
        f"what had landed is kept. To go on from there: run items --resume {failed['run_id']}"
    ]
    web.asked.clear()
    breaks_at(web, 99)
    if shared:
        machine("two")

    record, _ = run(file, "--resume", failed["run_id"])

    assert (record["status"], record["rows"]["written"], record["resumes"]) == ("published", 12, failed["run_id"])
    assert record["run_id"] != failed["run_id"]
    assert web.numbers == [str(number) for number in range(7, 13)]
    assert pl.read_parquet(tmp_path / "items.parquet")["id"].to_list() == list(range(12))
    assert not [name for name in left(tmp_path) if record["run_id"] in name]
    assert not list((tmp_path / "shared").glob("*"))


def test_a_killed_run_is_resumed_elsewhere(web, machine, config, tmp_path):
    file = config()
    breaks_at(web, 99, LARGE)
    whole = web.answers["/items"]

    def slow(asked):
        if int(asked.query["page"]) == 11:
            time.sleep(60)
        return whole(asked)

    web.answers["/items"] = slow
    with Child(CHILD, str(file)) as child:
        run_id = child.stdout.readline().strip()
        deadline = time.monotonic() + 30
        while not list((tmp_path / "shared").rglob("*.parquet")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    web.answers["/items"] = whole
    web.asked.clear()
    machine("two")

    record, _ = run(file, "--resume", run_id)

    assert record["rows"]["written"] == 12
    assert "0" not in web.numbers
    assert "11" in web.numbers


def test_a_run_that_fails_again_hands_on_what_both_had_landed(web, machine, config):
    file = config()
    breaks_at(web, 4)
    first, _ = run(file, code=1)
    breaks_at(web, 8)
    second, _ = run(file, "--resume", first["run_id"], code=1)
    breaks_at(web, 99)
    web.asked.clear()

    record, _ = run(file, "--resume", second["run_id"])

    assert record["rows"]["written"] == 12
    assert web.numbers[0] == "8"


def test_a_run_that_was_published_has_nothing_left(web, machine, config, tmp_path):
    file = config()
    breaks_at(web, 99)
    done, _ = run(file)

    record, _ = run(file, "--resume", done["run_id"])

    assert record["run_id"] == done["run_id"]
    assert pl.read_parquet(tmp_path / "items.parquet").height == 12


def test_the_next_run_that_does_not_resume_cleans_up(web, machine, config, tmp_path, monkeypatch):
    file = config("overwrite")
    monkeypatch.delenv("LOCKGATE_WORKSPACE")
    breaks_at(web, 7)
    failed, _ = run(file, code=1)
    run(file, name="others")
    assert left(tmp_path) == [f"{failed['run_id']}.ended"]  # another pipeline's run leaves it alone
    breaks_at(web, 99)

    run(file)

    assert not left(tmp_path)
    _, said = run(file, "--resume", failed["run_id"], code=2)
    assert f"nothing of a run '{failed['run_id']}' is left on this machine. It was published," in said


@pytest.mark.parametrize("shared", [True, False])
def test_a_run_of_another_pipeline_is_not_resumed(shared, web, machine, config, monkeypatch, tmp_path):
    file = config()
    if not shared:
        monkeypatch.delenv("LOCKGATE_WORKSPACE")
    breaks_at(web, 7)
    failed, _ = run(file, code=1)

    _, said = run(file, "--resume", failed["run_id"], name="others", code=2)

    assert f"run '{failed['run_id']}' is one of 'items', not of 'others'." in said


def test_a_run_that_is_under_way_is_not_resumed(web, machine, config, monkeypatch, tmp_path):
    file = config()
    monkeypatch.delenv("LOCKGATE_WORKSPACE")
    breaks_at(web, 99)
    whole = web.answers["/items"]
    web.answers["/items"] = lambda asked: time.sleep(1) or whole(asked)
    with Child(CHILD, str(file)) as child:
        run_id = child.stdout.readline().strip()
        while not list(Path(tmp_path, "one", "runs").glob(f"{run_id}*/run.json")):
            time.sleep(0.01)

        _, said = run(file, "--resume", run_id, code=2)

        child.kill()
    assert f"run '{run_id}' is still under way, in process {child.pid}. Wait for it, or end it." in said


def test_a_workspace_on_s3(web, machine, config, s3, monkeypatch):
    file = config()
    monkeypatch.setenv("LOCKGATE_WORKSPACE", f"{s3.url}/work")
    for name, option in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(name, s3.options[option])
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.options["endpoint_url"])
    breaks_at(web, 7)
    failed, _ = run(file, code=1)
    breaks_at(web, 99)
    web.asked.clear()
    machine("two")

    record, _ = run(file, "--resume", failed["run_id"])

    assert record["rows"]["written"] == 12
    assert web.numbers[0] == "7"


def test_a_workspace_that_nobody_answers_for_is_told(web, machine, config, monkeypatch):
    monkeypatch.setenv("LOCKGATE_WORKSPACE", "s3://nowhere/work")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    breaks_at(web, 99)

    _, said = run(config(), code=1)

    assert "LOCKGATE_WORKSPACE" in said
    assert "hush-hush" not in said


@pytest.mark.postgres
def test_a_retry_of_load_reads_nothing_again(web, tmp_path, database, connect):
    breaks_at(web, 99)
    connect().execute("CREATE TABLE items (id bigint PRIMARY KEY, body text)")
    target = {"type": "database", "connection_string": database, "table_name": "items", "write_mode": "upsert"}
    pipelines = {
        "items": {
            "type": "batch",
            "source": {"type": "api", "url": f"{web.url}/items", "pagination": {"type": "page_number"}},
            "target": target | {"primary_key": ["id"], "lock_timeout_seconds": 1},
            "error_handling": {"strategy": "retry", "max_retries": 5, "retry_delay": 0},
        }
    }
    file = tmp_path / "retried.yaml"
    file.write_text(json.dumps({"pipelines": pipelines}))
    held, watching = connect(), connect()

    held.execute("BEGIN")
    held.execute("LOCK TABLE items IN SHARE ROW EXCLUSIVE MODE")
    with Child(CHILD, str(file)) as child:
        waited = set()
        deadline = time.monotonic() + 60
        while len(waited) < 2:  # it waits, gives up, and comes again
            assert child.poll() is None
            assert time.monotonic() < deadline
            waited |= set(watching.execute("SELECT waitstart FROM pg_locks WHERE waitstart IS NOT NULL").fetchall())
            time.sleep(0.02)
        held.execute("ROLLBACK")
        _, errors = child.communicate()

    assert child.returncode == 0, errors
    assert len(web.numbers) == len(set(web.numbers)) >= 13
    assert watching.execute("SELECT count(*) FROM items").fetchone() == (12,)


@pytest.mark.parametrize("run_id", ["*", "../precious", "20260131T235959_*", ""])
def test_only_the_id_of_a_run_names_what_is_taken_over(run_id, web, machine, config, tmp_path):
    breaks_at(web, 99)
    precious = tmp_path / "one" / "precious.txt"
    (precious / "sources").mkdir(parents=True)

    _, said = run(config(), "--resume", run_id, code=2)

    assert f"{run_id!r} is not the id of a run. Write it as 'history' shows it" in said
    assert precious.exists()
