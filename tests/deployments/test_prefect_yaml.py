"""What is deployed: the file itself, and what Prefect makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from ruamel.yaml import YAML

from flows import _config, _embedded

ROOT = Path(__file__).parents[2]
FILE = "deployments/prefect.yaml"
DEPLOYMENTS = YAML(typ="safe").load(ROOT / FILE)["deployments"]


def test_every_deployment_is_named_after_its_file():
    for deployment in DEPLOYMENTS:
        file, _, function = deployment["entrypoint"].partition(":")
        assert (ROOT / file).is_file()
        assert deployment["name"] == function == Path(file).stem


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_a_deployment_runs_when_its_twin_says(deployment):
    twin = (ROOT / deployment["entrypoint"].partition(":")[0]).with_suffix(".yaml")
    (pipeline,) = _config.load(twin).pipelines.values()

    said = {"cron": pipeline.schedule.cron, "timezone": pipeline.schedule.timezone}
    assert deployment["schedules"] == [said]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_every_entrypoint_is_a_flow_without_parameters(deployment):
    code = (
        "from prefect.flows import load_flow_from_entrypoint as load;"
        f"found = load({deployment['entrypoint']!r}, use_placeholder_flow=False);"
        "print(found.name, found.parameters.properties)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    twin = (ROOT / deployment["entrypoint"].partition(":")[0]).with_suffix(".yaml")
    (name,) = _config.load(twin).pipelines
    assert done.stdout == f"{name} {{}}\n"


@pytest.fixture
def prefect(prefect_server):
    """Runs Prefect's command line in the root of the repository."""

    def start(*arguments, **options):
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        environment = os.environ | {"PREFECT_API_URL": prefect_server}
        return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **options)

    return start


def succeeded(process):
    out, _ = process.communicate()
    assert process.returncode == 0, out


def until(found, seconds=90):
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.3)
    return result


@pytest.mark.soak
@pytest.mark.prefect
@pytest.mark.postgres
def test_it_deploys_and_is_scheduled_and_a_worker_runs_it(prefect, prefect_server, tmp_path_factory, monkeypatch):
    home = Path(os.environ["LOCKGATE_HOME"], tmp_path_factory.mktemp("home").name)  # in a folder that is open
    monkeypatch.setenv("LOCKGATE_HOME", str(home))
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    succeeded(prefect("work-pool", "create", "lockgate", "--type", "process", **both))
    succeeded(prefect("deploy", "--all", "--prefect-file", FILE, **both))

    with httpx.Client(base_url=prefect_server) as api:
        name = "customer_data_etl/customer_etl"
        deployment = api.get(f"/deployments/name/{name}").raise_for_status().json()
        mine = {"deployments": {"id": {"any_": [deployment["id"]]}}}
        until(
            lambda: api.post(
                "/flow_runs/filter", json=mine | {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
            ).json()
        )

        asked = api.post(f"/deployments/{deployment['id']}/create_flow_run", json={}).raise_for_status().json()
        worker = prefect("worker", "start", "--pool", "lockgate", start_new_session=True, **both)
        try:
            run = until(
                lambda: (
                    (run := api.get(f"/flow_runs/{asked['id']}").json())["state_type"]
                    in {"COMPLETED", "FAILED", "CRASHED"}
                    and run
                ),
                seconds=180,
            )
        finally:
            os.killpg(worker.pid, signal.SIGTERM)
            out, _ = worker.communicate(timeout=60)
            _embedded.Server(_embedded.default_folder()).remove()
        assert run["state_type"] == "COMPLETED", out
        assert run["name"].startswith("customer_data_etl 2")
        assert run["state"]["message"].startswith("published: ")
        assert run["parameters"] == {}
