"""A Prefect server to run flows with: the one that is configured, or a local one that we start.

`ensure` answers with the addresses of a server that is up. It starts one in the background
only where neither Prefect's settings name a server nor one answers at Prefect's usual
port. It keeps its runs where Prefect always does (``PREFECT_HOME``). By hand:

    python -m flows._server up
    python -m flows._server status
    python -m flows._server down            stops the server that we started, and no other

The server inherits a locked file from us: while the lock is held it is alive, and the file
says where it listens. A lock cannot go stale, as a pid file does. Nothing here imports
Prefect, which takes seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click
from dotenv import dotenv_values

from flows._home import home
from transforms._errors import LockgateError

START_SECONDS = 120  # a first start migrates a new database: some 10 seconds, more on a busy machine
STOP_SECONDS = 15
ANSWER_SECONDS = 5

#: Says nothing to anybody but its log.
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "PYTHONUNBUFFERED": "1",
}


class PrefectServerError(LockgateError):
    """There is no Prefect server to run with; the message says what to do."""


@dataclass(frozen=True)
class Server:
    """Where a Prefect server is to be found.

    Attributes:
        api: what ``PREFECT_API_URL`` has to be, for this process and its children.
    """

    api: str

    @property
    def ui(self) -> str:
        """Where a person looks at it."""
        if own := os.environ.get("PREFECT_UI_URL"):
            return own
        cloud = self.api.replace("https://api.prefect.cloud/api", "https://app.prefect.cloud")
        if cloud != self.api:
            return cloud.replace("/accounts/", "/account/").replace("/workspaces/", "/workspace/")
        return self.api.removesuffix("/").removesuffix("/api")


def ensure() -> Server:
    """A Prefect server that is up: the configured one, else a local one, which is started if need be.

    A start is announced on stderr.

    Raises:
        PrefectServerError: the configured server cannot be reached, or a local one does not start.
    """
    configured = _configured()
    if configured is None:
        return _local()
    api, where = configured
    if not _answers(api):
        raise PrefectServerError(
            f"no Prefect server answers at {api!r}, the PREFECT_API_URL of {where}. "
            "Start that server, or remove the setting to use a local one."
        )
    return Server(api)


def stop() -> bool:
    """Stop the server that we started; returns whether there was one."""
    with _state_file() as file:
        if _lock(file):
            return False
        deadline = time.monotonic() + STOP_SECONDS
        while not _lock(file):
            late = time.monotonic() > deadline
            if "group" in (state := _read(file)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(state["group"], signal.SIGKILL if late else signal.SIGTERM)
            time.sleep(0.2)
    return True


def _local() -> Server:
    usual = Server(f"http://127.0.0.1:{_usual_port()}/api")
    with _state_file() as file:
        if _lock(file):
            if _is_healthy(usual.api):
                return usual
            _spawn(file)
    # Ours or another process's start: whoever made it, the server alone holds the lock now.
    return _await_start()


def _spawn(file: IO[str]) -> None:
    """Start a server that outlives us and takes over the lock on `file`."""
    port = _free_port()
    api = f"http://127.0.0.1:{port}/api"
    click.echo(f"Starting a local Prefect server at {Server(api).ui} ...", err=True)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with _log().open("w") as log:
        shell = subprocess.Popen(  # noqa: S603 - the shell's only work is to leave the server to the system
            ["/bin/sh", "-c", '"$@" &', "sh", *command],
            cwd=home(),
            env={**os.environ, **QUIET, "PREFECT_SERVER_API_PORT": str(port)},  # the UI goes by the setting
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[file.fileno()],
        )
    file.truncate(0)
    file.write(json.dumps({"api": api, "group": shell.pid}))
    file.flush()
    shell.wait()


def _await_start() -> Server:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with _state_file() as file:
            if _lock(file):
                words = "\n  ".join(_log().read_text(errors="replace").strip().splitlines()[-12:])
                raise PrefectServerError(f"the local Prefect server did not start. Its log {_log()} ends:\n  {words}")
            state = _read(file)
        if "api" in state and _is_healthy(state["api"]):
            return Server(state["api"])
        time.sleep(0.1)
    raise PrefectServerError(
        f"the local Prefect server does not answer after {START_SECONDS} seconds. See its log: {_log()}. "
        "Stop it with: python -m flows._server down."
    )


def _state_file() -> IO[str]:
    return (home() / "prefect-server.json").open("a+")


def _log() -> Path:
    return home() / "prefect-server.log"


def _lock(file: IO[str]) -> bool:
    """Take the lock, if no server and no start of one holds it; closing the file lets go."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: IO[str]) -> Mapping[str, Any]:
    """What the server's starter wrote; nothing while it is writing."""
    file.seek(0)
    try:
        state: Mapping[str, Any] = json.loads(file.read())
    except ValueError:
        return {}
    return state


def _usual_port() -> int:
    return int(os.environ.get("PREFECT_SERVER_API_PORT") or 4200)


def _free_port() -> int:
    """Prefect's usual port, or another one where that is taken."""
    for port in (_usual_port(), 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise PrefectServerError("no port of 127.0.0.1 can be opened for a local Prefect server.")


def _is_healthy(api: str) -> bool:
    """Whether a local Prefect server is up; another program's answer does not count."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{api}/health", timeout=ANSWER_SECONDS) as answer:
            return bool(answer.read(100).strip() == b"true")
    except (OSError, ValueError):
        return False


def _answers(api: str) -> bool:
    """Whether anything answers there; whether it lets us in is Prefect's to find out, with its own credentials."""
    try:
        urllib.request.urlopen(f"{api.removesuffix('/')}/health", timeout=ANSWER_SECONDS).close()  # noqa: S310 - a setting
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, ValueError):
        return False
    return True


def _configured() -> tuple[str, str] | None:
    """The API that Prefect's settings name, in Prefect's own order, and the place that names it."""
    return next(((str(api), where) for api, where in _settings() if api), None)


def _settings() -> Iterator[tuple[object, str]]:
    yield os.environ.get("PREFECT_API_URL"), "the environment"
    yield dotenv_values(".env").get("PREFECT_API_URL"), ".env"
    yield _toml(Path("prefect.toml"), "api", "url"), "prefect.toml"
    yield _toml(Path("pyproject.toml"), "tool", "prefect", "api", "url"), "pyproject.toml"
    prefect_home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or prefect_home / "profiles.toml")
    active = os.environ.get("PREFECT_PROFILE") or _toml(profiles, "active")
    yield _toml(profiles, "profiles", str(active), "PREFECT_API_URL"), f"profile {active!r} in {profiles}"


def _toml(file: Path, *keys: str) -> object:
    try:
        value: Any = tomllib.loads(file.read_text())
    except (OSError, ValueError):
        return None  # Prefect itself says so when it cannot read its own settings
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def main(arguments: list[str]) -> None:
    """Do what the command line asks, and say it in one line."""
    match arguments:
        case ["up"]:
            click.echo(f"The Prefect server is up: {ensure().ui}")
        case ["down"]:
            click.echo("Stopped the local Prefect server." if stop() else "No local Prefect server of ours was up.")
        case ["status"]:
            with _state_file() as file:
                mine = {} if _lock(file) else _read(file)
            click.echo(f"Our local Prefect server is {'up: ' + Server(mine['api']).ui if mine else 'down'}.")
        case _:
            sys.exit("usage: python -m flows._server up|down|status")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LockgateError as error:
        sys.exit(str(error))
