from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from httpx_retries import Retry, RetryTransport

from flows._server import PrefectServerError, Server, ensure, main, stop


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
    """A home and a working directory of its own, and nobody at the usual port."""
    monkeypatch.setenv("LOCKGATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_SERVER_API_PORT", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def answering():
    """Starts a server on loopback that gives one answer to everything; returns its address."""
    running = []

    def start(status, body):
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Keep quiet."""

        server = HTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


PLACES = {
    "env": lambda path, url, monkeypatch: monkeypatch.setenv("PREFECT_API_URL", url),
    ".env": lambda path, url, _: (path / ".env").write_text(f"PREFECT_API_URL={url}\n"),
    "prefect.toml": lambda path, url, _: (path / "prefect.toml").write_text(f'[api]\nurl = "{url}"\n'),
    "pyproject.toml": lambda path, url, _: (path / "pyproject.toml").write_text(f'[tool.prefect.api]\nurl = "{url}"\n'),
    "profile": lambda path, url, _: (
        (path / "prefect").mkdir(),
        (path / "prefect" / "profiles.toml").write_text(
            f'active = "ours"\n[profiles.ours]\nPREFECT_API_URL = "{url}"\n[profiles.other]\n'
        ),
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_configured_server_is_used(place, answering, tmp_path, monkeypatch):
    url = f"{answering(200, b'true')}/api"
    PLACES[place](tmp_path, url, monkeypatch)

    assert ensure() == Server(url)
    assert not stop()


def test_settings_are_read_in_the_order_prefect_reads_them(answering, tmp_path, monkeypatch):
    urls = [f"{answering(200, b'true')}/api" for _ in PLACES]
    for put, url in reversed(list(zip(PLACES.values(), urls, strict=True))):
        put(tmp_path, url, monkeypatch)

        assert ensure() == Server(url)


def test_a_server_that_wants_credentials_is_left_to_prefect(answering, monkeypatch):
    url = f"{answering(401, b'who are you?')}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)

    assert ensure() == Server(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/api", "http://no-such-host.invalid/api", "nonsense"])
def test_a_configured_server_that_is_not_there_is_an_error(url, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", url)
    with pytest.raises(PrefectServerError) as error:
        ensure()

    assert str(error.value) == (
        f"no Prefect server answers at '{url}', the PREFECT_API_URL of the environment. "
        "Start that server, or remove the setting to use a local one."
    )


def test_a_server_at_the_usual_port_is_used_and_never_stopped(answering, monkeypatch):
    address = answering(200, b"true")
    monkeypatch.setenv("PREFECT_SERVER_API_PORT", address.rpartition(":")[2])

    assert ensure() == Server(f"{address}/api")
    assert not stop()
    assert ensure() == Server(f"{address}/api")


@pytest.mark.parametrize(
    ("api", "ui"),
    [
        ("http://127.0.0.1:4200/api", "http://127.0.0.1:4200"),
        ("https://prefect.example.com/team/api/", "https://prefect.example.com/team"),
        (
            "https://api.prefect.cloud/api/accounts/a-1/workspaces/w-2",
            "https://app.prefect.cloud/account/a-1/workspace/w-2",
        ),
    ],
)
def test_the_ui_of_an_api(api, ui):
    assert Server(api).ui == ui


def test_a_ui_of_its_own_address(monkeypatch):
    monkeypatch.setenv("PREFECT_UI_URL", "https://ui.example.com")

    assert Server("https://api.example.com/api").ui == "https://ui.example.com"


def test_status_and_down_with_nothing_started(capsys):
    main(["status"])
    main(["down"])

    assert capsys.readouterr().out.splitlines() == [
        "Our local Prefect server is down.",
        "No local Prefect server of ours was up.",
    ]


@pytest.mark.prefect
def test_a_server_that_cannot_start_shows_its_log(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "sqlite+aiosqlite:////no/such/folder/prefect.db")

    with pytest.raises(PrefectServerError, match=r"did not start. Its log .*prefect-server.log ends:[\s\S]*sqlite"):
        ensure()
    assert not stop()


@pytest.mark.prefect
def test_one_server_for_all_and_it_schedules_and_it_stops(answering, monkeypatch):
    taken = answering(200, b"hello").rpartition(":")[2]
    monkeypatch.setenv("PREFECT_SERVER_API_PORT", taken)
    try:
        command = [sys.executable, "-c", "from flows._server import ensure; print(ensure().api)"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        apis = {process.communicate()[0].strip() for process in both}

        assert len(apis) == 1
        api = apis.pop()
        assert taken not in api
        assert ensure() == Server(api)
        assert httpx.get(f"{api}/health").json() is True
        assert "<html" in httpx.get(Server(api).ui, follow_redirects=True).text
        assert httpx.get(f"{Server(api).ui}/ui-settings").json()["api_url"] == api
        assert_schedules(api)

        assert stop()
        assert not stop()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{api}/health")
    finally:
        stop()


def assert_schedules(api):
    """A deployment with a schedule gets scheduled runs: a mismatch of sqlalchemy would make none, and say nothing."""
    busy = Retry(total=10, backoff_factor=0.2, allowed_methods=["POST"])  # its SQLite is locked now and then: 503
    with httpx.Client(base_url=api, transport=RetryTransport(retry=busy)) as client:
        flow = client.post("/flows/", json={"name": "nightly"}).raise_for_status().json()["id"]
        schedule = {"interval": 3600, "anchor_date": datetime.now(UTC).isoformat()}
        deployment = {"name": "nightly", "flow_id": flow, "schedules": [{"schedule": schedule, "active": True}]}
        client.post("/deployments/", json=deployment).raise_for_status()
        wanted = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        deadline = time.monotonic() + 60
        while not client.post("/flow_runs/filter", json=wanted).raise_for_status().json():
            assert time.monotonic() < deadline, "no run was scheduled"
            time.sleep(0.2)
