"""Servers that speak S3, each a process of its own, as delta-rs needs it: moto's, and MinIO where it is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

#: What the tests of S3 run against.
ENDPOINTS = ["moto", *filter(shutil.which, ["minio"])]
#: What S3 says beside the code of an error.
SAID = {
    "InvalidAccessKeyId": "The Access Key Id you provided does not exist.",
    "SignatureDoesNotMatch": "The signature does not match.",
    "ExpiredToken": "The provided token has expired.",
    "AccessDenied": "Access Denied.",
}
#: A server that answers every call with one error.
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
USER, PASSWORD, REGION = "testing", "hush-s3-secret", "eu-central-1"


@dataclass(frozen=True)
class Bucket:
    """An empty bucket of one test.

    Attributes:
        name: of the bucket.
        options: `storage_options` of a source or target that gets in.
    """

    name: str
    options: dict[str, str] = field(repr=False)

    @property
    def url(self) -> str:
        """``s3://bucket``."""
        return f"s3://{self.name}"


@contextmanager
def served(endpoint: str, folder: Path) -> Iterator[str]:
    """The address of a server that keeps what it has in `folder`, or in memory."""
    program = shutil.which({"moto": "moto_server"}.get(endpoint, endpoint))
    if program is None:
        need = "needs moto's S3 server: pip install 'lockgate[dev]'"
        pytest.fail(need) if os.environ.get("CI") == "true" else pytest.skip(need)
    port, console = _free_ports()
    command, keys = [program, "-H", "127.0.0.1", "-p", str(port)], {}
    if endpoint == "minio":
        addresses = ("--address", f"127.0.0.1:{port}", "--console-address", f"127.0.0.1:{console}")
        command = [program, "server", *addresses, str(folder / "data")]
        keys = {"MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": PASSWORD, "HOME": str(folder)}
    log = folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | keys)
    try:
        _await_port(port, server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def made_bucket(address: str) -> Bucket:
    """A new bucket of the server at that address."""
    import botocore.session  # noqa: PLC0415 - only tests of S3 pay for it

    name = f"bucket-{uuid.uuid4().hex}"
    client = botocore.session.Session().create_client(
        "s3", region_name=REGION, endpoint_url=address, aws_access_key_id=USER, aws_secret_access_key=PASSWORD
    )
    client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    client.close()
    return Bucket(name, {"key": USER, "secret": PASSWORD, "endpoint_url": address, "region": REGION})


@contextmanager
def refusing(code: str) -> Iterator[dict[str, str]]:
    """`storage_options` of a server that answers every call with 403, for the reason of that code."""
    command = (sys.executable, "-c", REFUSING, code, SAID[code])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = f"http://127.0.0.1:{int(server.stdout.readline())}"
            yield {"key": USER, "secret": PASSWORD, "endpoint_url": address, "region": REGION}
        finally:
            server.kill()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _await_port(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")
