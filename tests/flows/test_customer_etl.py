"""The main example, as people start it: a process of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import psycopg
import pytest

from flows import _demo, _embedded

ROOT = Path(__file__).parents[2]
BROKEN = _demo.NULL_IDS + 2 * _demo.DUPLICATE_PAIRS + _demo.MALFORMED_EMAILS


def run(*arguments, **environment):
    command = [sys.executable, "-m", "flows.customer_etl", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)


@pytest.fixture
def embedded(tmp_path_factory, monkeypatch):
    """The embedded PostgreSQL of a home of its own, with nothing in it, removed after the test."""
    home = Path(os.environ["LOCKGATE_HOME"], tmp_path_factory.mktemp("home").name)  # in a folder that is open
    monkeypatch.setenv("LOCKGATE_HOME", str(home))
    server = _embedded.Server(_embedded.default_folder())
    yield server
    server.remove()


def test_it_imports_quickly():
    heavy = "('prefect', 'polars', 'psycopg', 'pandera')"
    code = f"import sys, flows.customer_etl; print([name for name in {heavy} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_cannot_be_understood_is_a_usage_error():
    done = run("--jsn")

    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean '--json'?" in done.stderr


@pytest.mark.postgres
def test_with_nothing_configured_it_runs_on_a_demo(embedded):
    first, second = (run("--json", "--no-prefect") for _ in range(2))

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "Made 100,000 customers up" in first.stderr
    assert "Made" not in second.stderr
    results = [json.loads(done.stdout) for done in (first, second)]
    for result in results:
        assert (result["status"], result["error"], result["url"]) == ("published", None, None)
        assert result["rows"]["quarantined"] == BROKEN
        assert result["rows"]["read"] == result["rows"]["written"] + BROKEN
    assert results[0]["rows"] == results[1]["rows"]
    with psycopg.connect(embedded.uri("source_db")) as source, psycopg.connect(embedded.uri("analytics")) as warehouse:
        (active,) = source.execute("SELECT count(*) FROM customers WHERE status = 'active'").fetchone()
        table = warehouse.execute(
            "SELECT count(*), count(DISTINCT customer_id), min(customer_lifetime_days) >= 0 FROM dim_customers"
        ).fetchone()
    assert active == results[0]["rows"]["read"]
    assert table == (active - BROKEN, active - BROKEN, True)


@pytest.mark.postgres
def test_people_are_told_where_to_look(embedded):
    done = run("--no-prefect")

    assert done.returncode == 0, done.stderr
    (line,) = re.findall(r"^See the table: +(.*)$", done.stdout, re.MULTILINE)
    looked = subprocess.run(shlex.split(line), capture_output=True, text=True, check=True)
    assert "customer_lifetime_days" in looked.stdout
    assert "(5 rows)" in looked.stdout
    assert done.stdout.endswith("Stop what was started:  make down\n")


@pytest.mark.postgres
def test_on_servers_that_are_configured_no_demo_is_made(database, connect):
    done = run("--no-prefect", LOCKGATE_SOURCE_URL=database, LOCKGATE_WAREHOUSE_URL=database)

    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert "flows/customer_etl.yaml:" in last
    assert "customers" in last
    assert connect().execute("SELECT to_regclass('customers')").fetchone() == (None,)


@pytest.mark.postgres
def test_it_runs_on_servers_that_are_configured(database, connect):
    _demo.create(database, rows=1000)
    done = run("--no-prefect", LOCKGATE_SOURCE_URL=database, LOCKGATE_WAREHOUSE_URL=database)

    # 40 flaws in so few rows are more than the example puts up with
    assert done.returncode == 1
    assert "quarantine" in done.stderr + done.stdout
    done = run(
        "--no-prefect",
        LOCKGATE_SOURCE_URL=database,
        LOCKGATE_WAREHOUSE_URL=database,
        LOCKGATE_PIPELINES__CUSTOMER_DATA_ETL__ERROR_HANDLING__MAX_FAILED_RATIO="0.2",
    )
    assert done.returncode == 0, done.stderr
    assert "See the table" not in done.stdout
    (rows,) = connect().execute("SELECT count(*) FROM dim_customers").fetchone()
    (active,) = connect().execute("SELECT count(*) FROM customers WHERE status = 'active'").fetchone()
    assert rows == active - BROKEN


@pytest.mark.postgres
@pytest.mark.prefect
def test_it_is_seen_in_prefect(embedded, prefect_server):
    done = run("--json", PREFECT_API_URL=prefect_server)

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    found = httpx.get(f"{prefect_server}/flow_runs/{result['url'].rpartition('/')[2]}").json()
    assert found["name"] == f"customer_data_etl {result['run_id']}"
    assert found["state_name"] == "Completed"
    assert "Flow run" not in done.stderr
