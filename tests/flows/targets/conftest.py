"""Loading a frame into a table with no more than the target itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows._errors import LoadError, TargetAuthenticationError, TargetPermissionError
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.targets._base import Published
from flows.targets.database import Database

Load = Callable[..., Published]

#: An S3 server that answers every call with one error, in a process of its own as Delta's library needs it.
REFUSING = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
body = f"<Error><Code>{sys.argv[1]}</Code><Message>{sys.argv[2]}</Message></Error>".encode()
class Handler(BaseHTTPRequestHandler):
    def refuse(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = refuse
    def log_message(self, *_): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
#: What S3 says of a refused call, by its code, and the error that a load ends with.
REFUSALS: dict[str, tuple[str, type[LoadError]]] = {
    "InvalidAccessKeyId": ("The Access Key Id you provided does not exist.", TargetAuthenticationError),
    "SignatureDoesNotMatch": ("The signature does not match.", TargetAuthenticationError),
    "ExpiredToken": ("The provided token has expired.", TargetAuthenticationError),
    "AccessDenied": ("Access Denied.", TargetPermissionError),
}


@pytest.fixture(params=REFUSALS)
def refused(request: pytest.FixtureRequest) -> Iterator[tuple[dict[str, str], type[LoadError]]]:
    """`storage_options` of an S3 that refuses every call, and the error that a load ends with there."""
    said, kind = REFUSALS[request.param]
    command = (sys.executable, "-c", REFUSING, request.param, said)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        yield {"key": "k", "secret": "hush-s3-secret", "region": "x", "endpoint_url": endpoint}, kind
        server.kill()


@pytest.fixture
def target(database: str) -> Callable[..., Database]:
    """Makes targets in this test's database; keyword arguments are YAML keys."""

    def make(**keys: Any) -> Database:
        return Database.model_validate({"connection_string": database, "table_name": "t"} | keys)

    return make


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Stages frames in a chamber of a target, and publishes them."""

    def publish(target: Database, *frames: pl.DataFrame, record: RunRecord | None = None) -> Published:
        record = record or RunRecord.start("test", target.label, "1")
        record.rows.read = sum(frame.height for frame in frames)
        with target.open(record, frames[0].schema) as chamber:
            for frame in frames:
                chamber.stage(frame)
            record.staged = chamber.seal()
            return chamber.publish(record, Quarantine(tmp_path / record.run_id))

    return publish
