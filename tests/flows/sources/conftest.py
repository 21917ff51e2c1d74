"""Places that sources read: an HTTP API on loopback that answers as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest


@dataclass(frozen=True)
class Asked:
    """A request that a server got."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes
    times: int

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What a server answers.

    Attributes:
        body: bytes as they are; anything else becomes JSON.
        promises: the Content-Length, where it is to be a lie: the connection ends after the body.
    """

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    promises: int | None = None

    @property
    def sent(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Answer = Callable[[Asked], Any]


class Web:
    """A server on loopback: `answers` by path, each a function of what was asked; all requests are in `asked`."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: dict[str, Answer] = {}
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                split = urlsplit(self.path)
                times = 1 + sum((split.path, split.query) == (one.path, one.headers["x-query"]) for one in web.asked)
                asked = Asked(
                    self.command, split.path, dict(parse_qsl(split.query, keep_blank_values=True)),
                    {**{name.lower(): value for name, value in self.headers.items()}, "x-query": split.query},
                    self.rfile.read(length), times,
                )  # fmt: skip
                web.asked.append(asked)
                found = web.answers.get(split.path, lambda _asked: Reply({"error": "no such thing"}, 404))(asked)
                reply = found if isinstance(found, Reply) else Reply(found)
                self.send_response(reply.status)
                headers = {"Content-Type": "application/json", **reply.headers}
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(reply.promises or len(reply.sent)))
                self.end_headers()
                self.wfile.write(reply.sent)
                self.close_connection = reply.promises is not None

            do_GET = do_POST = handle_one  # noqa: N815 - the names that http.server calls

            def log_message(self, *_: object) -> None:
                """Nothing."""

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:  # the client had enough
                    self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    reply = staticmethod(Reply)

    def pages(self, path: str, *pages: Any) -> None:
        """Answer ``path?page=N``, from 0, with the `pages`; with an empty list after the last."""
        self.answers[path] = lambda asked: (
            pages[int(asked.query["page"])] if int(asked.query["page"]) < len(pages) else []
        )

    @property
    def numbers(self) -> list[str]:
        """The pages that were asked for, in the order of their numbers."""
        return sorted((asked.query["page"] for asked in self.asked), key=int)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def webs() -> Iterator[Callable[[], Web]]:
    """Starts servers of one test."""
    started: list[Web] = []

    def start() -> Web:
        started.append(Web())
        return started[-1]

    yield start
    for web in started:
        web.close()


@pytest.fixture
def web(webs: Callable[[], Web]) -> Web:
    """A server of one test."""
    return webs()
