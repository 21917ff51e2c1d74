"""The API target against real servers: what arrives, what is refused, and what a broken load leaves for the next."""

from __future__ import annotations

import datetime as dt
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from flows.__main__ import main
from flows._errors import (
    LoadError,
    RefusedError,
    TargetAuthenticationError,
    TargetBusyError,
    TargetMissingError,
    TargetTypeError,
    TargetUnreachableError,
)
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.targets._base import Published
from flows.targets.api import Api

ROWS = pl.DataFrame({"id": range(10), "name": [f"n{i}" for i in range(10)]})

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]


class Receiver:
    """A server that takes rows; `answer` says what it makes of a call, and None that it accepts it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict[str, str], Any]] = []
        self.rows: list[Any] = []
        self.seen: set[str] = set()
        self.answer: Callable[[Any], Answer | None] = lambda _body: None
        receiver, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def take(self) -> None:
                text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = json.loads(text) if text else None
                with lock:
                    receiver.calls.append((self.command, self.path, dict(self.headers), body))
                    answer = receiver.answer(body) or receiver.accept(self.headers, body)
                status, json_, *headers = answer
                reply = json.dumps(json_).encode()
                self.send_response(status)
                for name, value in (headers[0] if headers else {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            do_POST = do_PUT = do_PATCH = do_OPTIONS = take  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def accept(self, headers: Any, body: Any) -> Answer:
        """Take the rows, once for each key."""
        key = headers.get("Idempotency-Key")
        if key is None or key not in self.seen:
            self.rows += body if isinstance(body, list) else []
            self.seen.add(key or "")
        return 200, {"ok": True}

    @property
    def ids(self) -> list[int]:
        return sorted(row["id"] for row in self.rows)

    @property
    def keys(self) -> list[str]:
        return [headers["Idempotency-Key"] for _method, _path, headers, _body in self.calls]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.close()


class Loads:
    """Makes targets at the receiver, and loads frames with no more than the target itself."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    def target(self, **keys: Any) -> Api:
        quick = {"retry_delay_seconds": 0.01, "max_retries": 2, "batch_rows": 3, "max_failed_ratio": 1}
        return Api.model_validate({"url": self.url, "state_folder": str(self.folder / "state")} | quick | keys)

    def load(self, target: Api, *frames: pl.DataFrame, record: RunRecord | None = None) -> Published:
        record = record or self.record(target)
        record.rows.read = sum(frame.height for frame in frames)
        self.quarantine = Quarantine(self.folder / "quarantine" / record.run_id)
        with target.open(record, frames[0].schema, self.folder / "work" / record.run_id) as chamber:
            for frame in frames:
                chamber.stage(frame)
            record.staged = chamber.seal()
            return chamber.publish(record, self.quarantine)

    def record(self, target: Api) -> RunRecord:
        return RunRecord.start("p", target.label, "1")


@pytest.fixture
def loads(tmp_path: Path, receiver: Receiver) -> Loads:
    return Loads(tmp_path, receiver.url)


# --- what arrives ---


def test_rows_arrive_in_batches(loads: Loads, receiver: Receiver) -> None:
    target = loads.target(concurrency=1)
    record = loads.record(target)

    published = loads.load(target, ROWS[:4], ROWS[4:], record=record)

    assert [len(body) for _method, _path, _headers, body in receiver.calls] == [3, 3, 3, 1]
    assert receiver.rows == ROWS.to_dicts()
    assert {(method, headers["Content-Type"]) for method, _path, headers, _body in receiver.calls} == {
        ("POST", "application/json")
    }
    assert (published.inserted, published.how, record.status) == (10, "sent", "published")
    assert [run["run_id"] for run in target.history("p", 9)] == [record.run_id]


def test_batches_can_be_under_way_together(loads: Loads, receiver: Receiver) -> None:
    meeting = threading.Barrier(3, timeout=10)

    class Slow(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            meeting.wait()  # breaks, and with it the call, unless three are here
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    url = f"http://127.0.0.1:{server.server_address[1]}"
    published = loads.load(loads.target(url=url, concurrency=3, batch_rows=1, max_retries=0), ROWS[:9])
    server.shutdown()
    server.server_close()

    assert published.inserted == 9


def test_values_are_json_as_people_expect_it(loads: Loads, receiver: Receiver) -> None:
    rows = pl.DataFrame(
        {
            "text": ['ü "quoted" \n', ""],
            "null": pl.Series([None, None], dtype=pl.String),
            "price": pl.Series([Decimal("1.50"), None], dtype=pl.Decimal(10, 2)),
            "day": [dt.date(2024, 1, 31), None],
            "at": [dt.datetime(2024, 1, 31, 23, 59, 59, 1), None],
            "there": pl.Series([dt.datetime(2024, 7, 1, 12), None]).dt.replace_time_zone("Europe/Berlin"),
            "big": [2**62, None],
            "nested": [{"a": [1, None]}, None],
            "x" * 300: [True, None],
        }
    )

    loads.load(loads.target(), rows)

    first, second = receiver.rows
    assert first == {
        "text": 'ü "quoted" \n', "null": None, "price": "1.50", "day": "2024-01-31", "at": "2024-01-31T23:59:59.000001",
        "there": "2024-07-01T12:00:00.000000+02:00", "big": 2**62, "nested": {"a": [1, None]}, "x" * 300: True,
    }  # fmt: skip
    assert second == dict.fromkeys(rows.columns) | {"text": ""}


@pytest.mark.parametrize(
    ("keys", "path", "body"),
    [
        ({"body": {"items": "rows", "n": 1}}, "/", {"items": [{"id": 0, "name": "n0"}], "n": 1}),
        ({"body": {"in": {"of": "us", "all": "rows"}}}, "/", {"in": {"of": "us", "all": [{"id": 0, "name": "n0"}]}}),
        ({"body": "row", "batch_rows": 1}, "/", {"id": 0, "name": "n0"}),
        ({"body": {"order": "row"}, "batch_rows": 1}, "/", {"order": {"id": 0, "name": "n0"}}),
        (
            {"body": "row", "batch_rows": 1, "path": "/o/{name}/{id}?x=1", "method": "PUT"},
            "/o/n0/0?x=1",
            {"id": 0, "name": "n0"},
        ),
    ],
)  # fmt: skip
def test_the_body_has_the_shape_that_is_asked_for(
    loads: Loads, receiver: Receiver, keys: dict[str, Any], path: str, body: Any
) -> None:
    keys = {"url": loads.url + keys.pop("path", "/")} | keys

    loads.load(loads.target(**keys), ROWS[:1])

    ((method, called, _headers, sent),) = receiver.calls
    assert (method, called, sent) == (keys.get("method", "POST"), path, body)


def test_a_column_in_the_url_must_be_there(loads: Loads) -> None:
    target = loads.target(url=f"{loads.url}/{{nam}}", batch_rows=1)

    with pytest.raises(
        TargetMissingError, match=r"'url' has \{nam\} in it, and there is no such column. Did you mean 'name'"
    ):
        loads.load(target, ROWS)


def test_nothing_is_sent_for_no_rows(loads: Loads, receiver: Receiver) -> None:
    target = loads.target()
    record = loads.record(target)
    record.state = {"s": 1}

    published = loads.load(target, ROWS[:0], record=record)

    assert (receiver.calls, published.changed, record.status) == ([], False, "unchanged")
    assert target.state("p") == {"s": 1}


@pytest.mark.parametrize(
    "value", [pl.Series([b"x"]), pl.Series([dt.timedelta(1)]), pl.Series([float("nan")]), pl.Series([[float("inf")]])]
)
def test_what_json_cannot_carry_is_refused_by_column(loads: Loads, receiver: Receiver, value: pl.Series) -> None:
    with pytest.raises(TargetTypeError, match="column 'bad'"):
        loads.load(loads.target(), pl.DataFrame({"bad": value}))
    assert receiver.calls == []


# --- credentials ---


def test_credentials_go_along_and_are_shown_nowhere(loads: Loads, receiver: Receiver, capfd: Any) -> None:
    secrets = {"authentication": {"type": "bearer", "token": "hush-token"}, "headers": {"X-Tenant": "hush-tenant"}}
    target = loads.target(**secrets, url=f"{loads.url}/?key=hush-key")
    loads.load(target, ROWS[:1])
    receiver.answer = lambda _body: (500, {"you sent": "hush-token"})

    with pytest.raises(LoadError) as caught:
        loads.load(target, ROWS[:1])

    sent = receiver.calls[0][2]
    assert (sent["Authorization"], sent["X-Tenant"]) == ("Bearer hush-token", "hush-tenant")
    said = f"{caught.value}{target!r}{target.label}{target.plan(ROWS.schema)}{capfd.readouterr()}"
    kept = b"".join(file.read_bytes() for file in (loads.folder / "state").iterdir())
    assert "hush" not in said
    assert b"hush" not in kept


@pytest.mark.parametrize(("status", "kind"), [(401, TargetAuthenticationError), (404, TargetMissingError)])
def test_an_api_that_takes_nothing_fails_the_run(
    loads: Loads, receiver: Receiver, status: int, kind: type[LoadError]
) -> None:
    receiver.answer = lambda _body: (status, {"error": "no"})

    with pytest.raises(kind, match=f'was answered with {status} .*: \'{{"error": "no"}}\''):
        loads.load(loads.target(concurrency=1), ROWS)
    assert len(receiver.calls) == 1


def test_check_asks_without_sending(loads: Loads, receiver: Receiver) -> None:
    receiver.answer = lambda _body: (405, None)
    loads.target().check()
    assert [call[0] for call in receiver.calls] == ["OPTIONS"]

    receiver.answer = lambda _body: (403, None)
    with pytest.raises(LoadError, match="403"):
        loads.target().check()
    with pytest.raises(TargetUnreachableError, match="nobody answers"):
        loads.target(url="http://127.0.0.1:9/").check()


# --- refusals ---


def test_a_refused_batch_is_halved_down_to_the_rows_at_fault(loads: Loads, receiver: Receiver) -> None:
    def answer(body: Any) -> Answer | None:
        bad = [row["id"] for row in body if row["id"] in {2, 7}]
        return (422, {"message": f"no such customer {bad[0]}"}) if bad else None

    receiver.answer = answer
    target = loads.target(batch_rows=8)
    record = loads.record(target)

    published = loads.load(target, ROWS, record=record)

    assert receiver.ids == [0, 1, 3, 4, 5, 6, 8, 9]
    assert (published.inserted, record.staged, record.rows.quarantined) == (8, 8, 2)
    rows = target.quarantined("p", record.run_id, 9)
    assert [(row["values"]["id"], row["stage"], row["reasons"]) for row in rows] == [
        (2, "transformed", ['refused with 422: {"message": "no such customer 2"}']),
        (7, "transformed", ['refused with 422: {"message": "no such customer 7"}']),
    ]  # fmt: skip


def test_an_answer_may_name_the_rows_that_it_refuses(loads: Loads, receiver: Receiver) -> None:
    def answer(body: Any) -> Answer:
        bad = [place for place, row in enumerate(body) if row["id"] % 4 == 0]
        receiver.rows += [row for place, row in enumerate(body) if place not in bad]
        return 207, {"errors": [{"at": {"position": place}, "why": f"place {place} is taken"} for place in bad]}

    receiver.answer = answer
    target = loads.target(rejections={"path": "errors[*]", "index": "at.position", "reason": "why"})

    published = loads.load(target, ROWS)

    assert published.inserted == 7
    assert receiver.ids == [1, 2, 3, 5, 6, 7, 9]
    assert [(row["values"]["id"], row["reasons"]) for row in target.quarantined("p", None, 9)] == [
        (0, ["refused: place 0 is taken"]),
        (4, ["refused: place 1 is taken"]),
        (8, ["refused: place 2 is taken"]),
    ]


def test_an_answer_that_refuses_rows_that_were_not_sent_is_no_answer(loads: Loads, receiver: Receiver) -> None:
    receiver.answer = lambda _body: (200, {"errors": [{"index": 3}]})

    with pytest.raises(
        LoadError, match=r"refuses row 3 of a batch of 3. Check 'rejections.path' and 'rejections.index'"
    ):
        loads.load(loads.target(rejections={"path": "errors[*]"}), ROWS[:3])


def test_too_many_refusals_end_the_load_and_what_was_accepted_is_not_sent_again(
    loads: Loads, receiver: Receiver
) -> None:
    receiver.answer = lambda body: (400, {"error": "even"}) if any(row["id"] % 2 == 0 for row in body) else None
    target = loads.target(concurrency=1, max_failed_ratio=0.2)
    record = loads.record(target)

    with pytest.raises(RefusedError) as caught:
        loads.load(target, ROWS, record=record)

    assert str(caught.value) == (
        f"target {loads.url}: the API refused 3 of 10 rows, more than target.max_failed_ratio 0.2 allows (such as: "
        'refused with 400: {"error": "even"}). Of 10 rows, 2 had been accepted: the next run sends only the others.'
    )
    assert loads.quarantine.rows == 3
    assert receiver.ids == [1, 3]
    target.record(record, loads.quarantine)
    assert len(target.quarantined("p", None, 9)) == 3

    receiver.answer = lambda _body: None
    assert loads.load(target, ROWS).unchanged == 2
    assert receiver.ids == list(range(10))


# --- loads that break off ---


def test_passing_failures_are_tried_again_with_the_same_key(loads: Loads, receiver: Receiver) -> None:
    answers = iter([(503, None), (429, None, {"Retry-After": "0"}), None])
    receiver.answer = lambda _body: next(answers)

    assert loads.load(loads.target(), ROWS[:3]).inserted == 3
    assert len(receiver.calls) == 3
    assert len(set(receiver.keys)) == 1


def test_a_rerun_sends_only_the_rest(loads: Loads, receiver: Receiver) -> None:
    receiver.answer = lambda body: (500, None) if any(row["id"] == 4 for row in body) else None
    target = loads.target(concurrency=1)
    twice = pl.concat([ROWS, ROWS[:1]])

    with pytest.raises(
        LoadError, match=r"500 .* Of 11 rows, 3 had been accepted: the next run sends only the others\.$"
    ):
        loads.load(target, twice)
    failed = receiver.keys[-1]
    receiver.answer = lambda _body: None
    receiver.calls.clear()
    record = loads.record(target)
    published = loads.load(target, twice, record=record)

    assert receiver.keys[0] == failed, "the API would know the batch whose answer was lost"
    assert (published.inserted, published.unchanged) == (8, 3)
    assert receiver.ids == [0, *range(10)], "a row that is there twice is sent twice"
    assert record.rows.written + record.rows.unchanged == 11


def test_a_rerun_in_another_order_sends_no_row_twice(loads: Loads, receiver: Receiver) -> None:
    receiver.answer = lambda body: (500, None) if any(row["id"] == 4 for row in body) else None
    target = loads.target(concurrency=1)
    with pytest.raises(LoadError):
        loads.load(target, ROWS)
    receiver.answer = lambda _body: None

    loads.load(target, ROWS.reverse())

    assert receiver.ids == list(range(10))


def test_a_load_after_one_that_was_done_is_a_new_one(loads: Loads, receiver: Receiver) -> None:
    target = loads.target()

    first, second = loads.load(target, ROWS), loads.load(target, ROWS)

    assert (first.inserted, second.inserted) == (10, 10)
    assert receiver.ids == sorted([*range(10), *range(10)])


def test_a_load_that_is_tried_again_in_its_run_is_sent_once(loads: Loads, receiver: Receiver) -> None:
    failing = [True]
    receiver.answer = lambda body: (500, None) if failing[0] and body[0]["id"] == 3 else None
    target = loads.target(concurrency=1, max_retries=0)
    record = loads.record(target)
    record.rows.read = 10
    quarantine = Quarantine(loads.folder / "quarantine")
    with target.open(record, ROWS.schema, loads.folder / "work") as chamber:
        chamber.stage(ROWS)
        record.staged = chamber.seal()
        with pytest.raises(LoadError):
            chamber.publish(record, quarantine)
        failing[0] = False
        published = chamber.publish(record, quarantine)
        again = chamber.publish(record, quarantine)

    assert (published.inserted, published.unchanged, again.inserted) == (10, 0, 10)
    assert receiver.ids == list(range(10))


CHILD = """
import sys
import polars as pl
from pathlib import Path
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.targets.api import Api
url, folder = sys.argv[1:]
target = Api(url=url, state_folder=folder + "/state", batch_rows=3, concurrency=2)
record = RunRecord.start("p", target.label, "1")
rows = pl.DataFrame({"id": range(300)})
record.rows.read = 300
with target.open(record, rows.schema) as chamber:
    chamber.stage(rows)
    record.staged = chamber.seal()
    chamber.publish(record, Quarantine(Path(folder, "q")))
print(record.rows.written, record.rows.unchanged)
"""


@pytest.mark.parametrize("calls", [1, 40])
def test_killed_while_sending_no_row_is_lost_or_doubled(loads: Loads, receiver: Receiver, calls: int) -> None:
    receiver.answer = lambda _body: time.sleep(0.005)
    command = [sys.executable, "-c", CHILD, loads.url, str(loads.folder)]
    with subprocess.Popen(command) as child:
        deadline = time.monotonic() + 30
        while len(receiver.calls) < calls and time.monotonic() < deadline:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
    assert len(receiver.calls) < 100
    receiver.answer = lambda _body: None

    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    assert receiver.ids == list(range(300))
    written, unchanged = map(int, done.stdout.split())
    assert written + unchanged == 300
    assert unchanged >= 3 * (calls - 2)


def test_two_runs_of_a_pipeline_do_not_send_at_once(loads: Loads) -> None:
    target = loads.target()

    with (
        target.open(loads.record(target), ROWS.schema, loads.folder / "a"),
        pytest.raises(TargetBusyError, match="another run of this pipeline is sending there"),
    ):
        loads.load(target, ROWS)


def test_a_state_folder_that_cannot_be_is_told(loads: Loads) -> None:
    (loads.folder / "file").write_text("")

    with pytest.raises(
        LoadError, match=r"nothing can be kept in '.*/file/state': Not a directory. Set 'state_folder'\."
    ):
        loads.load(loads.target(state_folder=str(loads.folder / "file" / "state")), ROWS)


# --- the configuration ---


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"body": {"a": 1}}, "'body' says 'rows' once, where the rows go"),
        ({"body": {"a": "rows", "b": "rows"}}, "'body' says 'rows' once, where the rows go"),
        ({"body": "row"}, "a 'body' with 'row' in it has room for one. Set 'batch_rows: 1'"),
        ({"url": "http://h/{id}"}, "a 'url' with a column in it is that of one row. Set 'batch_rows: 1'."),
        ({"url": "ftp://h/"}, "the URL does not begin with http:// or https:// and a host"),
        ({"url": "http://u:p@h/"}, "the URL holds a user or password"),
        ({"method": "GET"}, "Input should be 'POST', 'PUT' or 'PATCH'"),
        ({"rejections": {"path": "a["}}, "is not a JSONPath"),
        ({"authentication": {"type": "bearer", "token": "t"}, "headers": {"authorization": "x"}}, "Remove one of"),
    ],
)  # fmt: skip
def test_a_configuration_that_means_nothing_is_a_mistake(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        Api.model_validate({"url": "http://127.0.0.1/"} | keys)
    assert said in str(caught.value)


def test_a_whole_pipeline_sends_what_passed_its_checks(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.csv").write_text("id,name\n1,a\n2,\n3,c\n3,d\n4,e\n5,f\n6,g\n7,h\n8,i\n9,j\n")
    rules = [{"type": "not_null", "field": "name"}, {"type": "unique", "field": "id"}]
    pipeline = {
        "type": "batch",
        "source": {"type": "file", "path": str(tmp_path / "in.csv")},
        "target": {
            "type": "api",
            "url": receiver.url,
            "state_folder": str(tmp_path / "state"),
            "max_failed_ratio": 0.5,
        },
        "quality_rules": rules,
        "error_handling": {"max_failed_ratio": 0.5},
    }
    (tmp_path / "p.yaml").write_text(json.dumps({"pipelines": {"p": pipeline}}))
    receiver.answer = lambda body: (422, {"why": "five"}) if any(row["id"] == 5 for row in body) else None
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(main, ["run", "p", "--no-prefect", "--json", "--config", "p.yaml"])

    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["status"], found["published"]) == ("published", "sent")
    assert (found["rows"]["read"], found["rows"]["written"], found["rows"]["quarantined"]) == (10, 6, 4)
    assert receiver.ids == [1, 4, 6, 7, 8, 9]
    listed = CliRunner().invoke(main, ["quarantine", "list", "p", "--json", "--config", "p.yaml"])
    assert listed.stdout.count("run_id") == 4 or "refused with 422" in listed.stdout
