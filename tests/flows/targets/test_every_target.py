"""What every target promises, over the live registry: a new kind of target is held to it, or says here why not."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import polars as pl
import psycopg
import pytest
from pydantic import ValidationError

from flows._errors import (
    LoadError,
    RefusedError,
    TargetAuthenticationError,
    TargetBusyError,
    TargetPermissionError,
    TargetUnreachableError,
)
from flows._ledger import Guards, RunRecord
from flows._quarantine import KEPT, Quarantine
from flows._secrets import Secret
from flows._storage import Store
from flows.targets._base import Chamber, Published, Target, targets
from tests._python import Child
from tests._s3 import ENDPOINTS, PASSWORD, Bucket, refusing
from transforms._errors import LockgateError

pytestmark = pytest.mark.postgres

EXEMPT = {"stream": "cannot run in this version: opening it refuses"}
PIPELINE = "every"

FRAME = pl.DataFrame(
    {
        "id": [1, 2, 3],
        "name": ["Ada", 'größe ☃ 😀 "hi", it\'s\\', None],
        "amount": [1.5, None, -2e300],
        "ok": [True, False, None],
        "nothing": [None] * 3,
    },
    schema={"id": pl.Int64, "name": pl.String, "amount": pl.Float64, "ok": pl.Boolean, "nothing": pl.String},
)
MORE = FRAME.with_columns(pl.col("id") + 10)
BIG = pl.DataFrame({"id": range(3000), "name": [f"{n:>60}" for n in range(3000)]})

#: Loads a frame in a process of its own, and says how far it is.
CHILD = """
import duckdb, importlib, json, os, pkgutil, sqlite3, sys
import flows.targets
import polars as pl
from pathlib import Path
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.targets._base import targets
from transforms._errors import LockgateError
keys, file, folder, user = json.loads(sys.argv[1])
target = targets.get(keys["type"]).model_validate(keys)
record, frame = RunRecord.start("every", target.label, "1"), pl.read_ipc(file)
for module in pkgutil.iter_modules(flows.targets.__path__, "flows.targets."):
    importlib.import_module(module.name)  # another user may not read where Python is
if user is not None:
    os.seteuid(user)
try:
    with target.open(record, frame.schema, Path(folder)) as chamber:
        for batch in frame.iter_slices(500):
            chamber.stage(batch)
        record.rows.read, record.staged = frame.height, chamber.seal()
        print("publishing", flush=True)
        chamber.publish(record, Quarantine(Path(folder, "quarantine")))
    print("done", record.status, flush=True)
except LockgateError as error:
    print("error", type(error).__name__, error, flush=True)
"""


class Waived(Exception):  # noqa: N818 - not an error of ours: a promise that a kind cannot be held to
    """Says why a kind cannot be held to a promise."""


class Place(ABC):
    """Somewhere that one kind of target writes, as its readers and its administrator know it.

    Attributes:
        kind: of target.
        appends_only: why rows cannot be replaced there; None where they can.
        longest_name: of a column, in bytes, above which the kind refuses; None where there is no end.
        publishes_rows_one_by_one: why a load is not visible in one step; None where it is.
        waived: promises that cannot be shown here, each with the reason.
        takes_the_first_to_publish: whether nothing is locked, and the run that publishes first wins.
        publishing_seconds: about how long a small load is published.
    """

    kind: str
    appends_only: str | None = None
    longest_name: int | None = None
    publishes_rows_one_by_one: str | None = None
    waived: ClassVar[dict[str, str]] = {}
    takes_the_first_to_publish: ClassVar[bool] = False
    publishing_seconds: ClassVar[float] = 0.03

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open = ExitStack()

    @abstractmethod
    def keys(self) -> dict[str, Any]:
        """The keys of a target that replaces the rows, where the kind can."""

    @abstractmethod
    def rows(self, schema: pl.Schema) -> list[dict[str, Any]] | None:
        """What a reader sees, by id; None where there is nothing."""

    @abstractmethod
    def everything(self) -> object:
        """All that is there, system tables and staged rows included, to be compared."""

    def unreachable(self) -> dict[str, Any]:
        """The keys of a target where nobody answers."""
        raise Waived(self.waived["unreachable"])

    def wrong_credentials(self) -> dict[str, Any]:
        """The keys of a target with credentials that are not known there."""
        raise Waived(self.waived["wrong_credentials"])

    @contextmanager
    def forbidden(self) -> Iterator[tuple[dict[str, Any], int | None]]:
        """The keys of a target that may not be written; and the user to become, where that is what forbids it."""
        raise Waived(self.waived["forbidden"])
        yield

    def limits(self) -> Callable[[], None]:
        """Makes the process that calls it run out of space soon."""
        raise Waived(self.waived["full"])


class InDatabase(Place):
    kind = "database"
    longest_name = 63
    waived: ClassVar[dict[str, str]] = {
        "full": "the throwaway server's disk is everybody's; class 53 of SQLSTATE is mapped for all of PostgreSQL"
    }

    def __init__(self, folder: Path, uri: str, kind: str = "database") -> None:
        super().__init__(folder)
        self.kind = kind
        self.uri = uri
        self.shown = uri.replace("postgres@", f"postgres:{PASSWORD}@", 1)

    def keys(self) -> dict[str, Any]:
        return {"connection_string": self.shown, "table_name": "held", "write_mode": "overwrite"}

    def rows(self, schema: pl.Schema) -> list[dict[str, Any]] | None:
        with psycopg.connect(self.uri) as connection:
            if connection.execute("SELECT to_regclass('held')").fetchone() == (None,):
                return None
            cursor = connection.execute("SELECT * FROM held ORDER BY id")
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def everything(self) -> object:
        with psycopg.connect(self.uri) as connection:
            tables = connection.execute(
                "SELECT oid, relname, relfilenode FROM pg_class WHERE relnamespace NOT IN "
                "('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace) ORDER BY 1"
            ).fetchall()
            return tables, self.rows(FRAME.schema)

    def unreachable(self) -> dict[str, Any]:
        return self.keys() | {"connection_string": f"postgresql://u:{PASSWORD}@127.0.0.1:1/x"}

    def wrong_credentials(self) -> dict[str, Any]:
        return self.keys() | {"connection_string": self.shown.replace("postgres:", "nobody_there:", 1)}

    @contextmanager
    def forbidden(self) -> Iterator[tuple[dict[str, Any], int | None]]:
        role = f"reader_{uuid.uuid4().hex}"
        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {role} LOGIN")
            try:
                yield self.keys() | {"connection_string": self.uri.replace("postgres@", f"{role}:{PASSWORD}@", 1)}, None
            finally:
                connection.execute(f"DROP ROLE {role}")


class InOneFile(Place):
    """A database in a file of this machine."""

    waived: ClassVar[dict[str, str]] = {
        "unreachable": "a disk of this machine does not go away",
        "wrong_credentials": "a disk of this machine asks for none",
    }

    def __init__(self, folder: Path, engine: str) -> None:
        super().__init__(folder)
        self.kind, self.engine = "database", engine
        self.home = folder / "held"
        self.home.mkdir()
        self.path = self.home / f"held.{engine}"

    def keys(self) -> dict[str, Any]:
        return {
            "connection_string": f"{self.engine}:///{self.path}",
            "table_name": "held",
            "write_mode": "overwrite",
            "lock_timeout_seconds": 2,
        }

    def rows(self, schema: pl.Schema) -> list[dict[str, Any]] | None:
        if not self.path.exists():
            return None
        with closing(self._connected()) as connection:
            try:
                cursor = connection.execute("SELECT * FROM held ORDER BY id")
            except (sqlite3.OperationalError, duckdb.CatalogException) as absent:
                if not re.search("no such table|does not exist", str(absent)):
                    raise
                return None
            names = [column[0] for column in cursor.description]
            frame = pl.DataFrame(cursor.fetchall(), schema=names, orient="row", infer_schema_length=None)
        return frame.cast({name: dtype for name, dtype in schema.items() if name in names}).to_dicts()

    def _connected(self) -> Any:
        if self.engine == "sqlite":
            # One who may only read cannot roll back what a killed writer left, and is refused rather than misled.
            return sqlite3.connect(f"file:{self.path}?mode=rw", uri=True)
        return duckdb.connect(str(self.path), read_only=True)

    def everything(self) -> object:
        if not self.path.exists():
            return sorted(self.home.rglob("*"))
        catalogue = "sqlite_master" if self.engine == "sqlite" else "duckdb_tables()"
        with closing(self._connected()) as connection:
            tables = connection.execute(f"SELECT sql FROM {catalogue} ORDER BY 1").fetchall()
        return tables, self.rows(FRAME.schema)

    @contextmanager
    def forbidden(self) -> Iterator[tuple[dict[str, Any], int | None]]:
        if os.geteuid() != 0:
            self.home.chmod(0o500)
        try:
            yield self.keys(), 65534 if os.geteuid() == 0 else None
        finally:
            self.home.chmod(0o755)

    def limits(self) -> Callable[[], None]:
        return small_files


def small_files() -> None:
    """No file may become larger than this, from now on, in this process."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


class InFile(Place):
    kind = "file"
    waived: ClassVar[dict[str, str]] = {
        "unreachable": "a disk of this machine does not go away",
        "wrong_credentials": "a disk of this machine asks for none",
    }

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder)
        self.home = folder / "held"
        self.home.mkdir()
        self.name = name

    def keys(self) -> dict[str, Any]:
        return {"path": f"{self.home}/{self.name}", "write_mode": "overwrite"}

    def rows(self, schema: pl.Schema) -> list[dict[str, Any]] | None:
        pattern = self.name.replace("{part}", "*")
        found = sorted(path for path in self.home.glob(pattern) if path.is_file())
        if not found:
            return None
        readers: dict[str, Callable[[Path], pl.DataFrame]] = {
            ".csv": lambda path: self._csv(path, schema),
            ".ndjson": lambda path: pl.read_ndjson(path, schema=schema),
            ".parquet": pl.read_parquet,
            ".arrow": pl.read_ipc,
        }
        frames = [readers[path.suffix](path) for path in found]
        return pl.concat(frames).sort("id").to_dicts()

    @staticmethod
    def _csv(path: Path, schema: pl.Schema) -> pl.DataFrame:
        with path.open(encoding="utf-8", newline="") as lines:
            header = next(csv.reader(lines))  # Polars does not take the quotes off names
        present = {name: schema.get(name) or pl.String() for name in header}
        return pl.read_csv(path, has_header=False, skip_rows=1, schema=present)

    def everything(self) -> object:
        return {path: path.read_bytes() if path.is_file() else None for path in sorted(self.home.rglob("*"))}

    @contextmanager
    def forbidden(self) -> Iterator[tuple[dict[str, Any], int | None]]:
        if os.geteuid() != 0:
            self.home.chmod(0o500)
        try:
            yield self.keys(), 65534 if os.geteuid() == 0 else None
        finally:
            self.home.chmod(0o755)

    def limits(self) -> Callable[[], None]:
        return small_files


class InLake(InFile):
    kind = "data_lake"
    takes_the_first_to_publish = True

    def keys(self) -> dict[str, Any]:
        return {"path": f"{self.home}/lake", "format": self.name, "write_mode": "overwrite"}

    def rows(self, schema: pl.Schema) -> list[dict[str, Any]] | None:
        if self.name == "delta":
            if not (self.home / "lake" / "_delta_log").exists():
                return None
            return pl.read_delta(f"{self.home}/lake").sort("id").to_dicts()
        current = self.home / "lake" / "current"
        if current.exists():
            files = sorted(current.resolve().rglob("*.parquet"))
        else:  # a copy of what is on S3, where there are no links
            manifests = sorted((self.home / "lake" / "_lockgate" / "manifests").glob("*.json"))
            if not manifests:
                return None
            files = [self.home / "lake" / file["path"] for file in json.loads(manifests[-1].read_text())["files"]]
        return pl.concat([pl.read_parquet(file) for file in files]).sort("id").to_dicts() if files else []


class InBucket(Place):
    """Objects of S3, looked at in copies on this machine."""

    takes_the_first_to_publish = True
    publishing_seconds = 0.3
    waived: ClassVar[dict[str, str]] = {
        "full": "the disk is the endpoint's, which answers with an error like any other"
    }

    def __init__(self, folder: Path, bucket: Bucket, here: InFile) -> None:
        super().__init__(folder)
        self.kind, self.bucket, self.here = here.kind, bucket, here
        self.store = Store(bucket.url, {name: Secret(text) for name, text in bucket.options.items()})

    def keys(self) -> dict[str, Any]:
        there = str(self.here.keys()["path"]).replace(str(self.here.home), f"{self.bucket.url}/a")
        return self.here.keys() | {"path": there, "storage_options": self.bucket.options}

    def rows(self, schema: pl.Schema) -> list[dict[str, Any]] | None:
        shutil.rmtree(self.here.home)
        self.here.home.mkdir()
        for key, content in self.everything().items():
            copy = self.here.home / key.removeprefix("a/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
        return self.here.rows(schema)

    def everything(self) -> dict[str, bytes]:
        found = self.store.fs.find(self.bucket.name)
        return {key.removeprefix(f"{self.bucket.name}/"): self.store.fs.cat_file(key) for key in sorted(found)}

    def unreachable(self) -> dict[str, Any]:
        return self._at({"endpoint_url": "http://127.0.0.1:1"})

    def wrong_credentials(self) -> dict[str, Any]:
        return self._at(self.open.enter_context(refusing("InvalidAccessKeyId")))

    @contextmanager
    def forbidden(self) -> Iterator[tuple[dict[str, Any], int | None]]:
        with refusing("AccessDenied") as options:
            yield self._at(options), None

    def _at(self, options: dict[str, str]) -> dict[str, Any]:
        return self.keys() | {"storage_options": self.bucket.options | options}


class InApi(Place):
    kind = "api"
    appends_only = "an API takes rows, and gives none back to be replaced"
    publishes_rows_one_by_one = (
        "an API has no transaction: each answer is written down, and the next run sends the rest"
    )
    waived: ClassVar[dict[str, str]] = {
        "full": "a server's disk is its own; what it answers then (507) is an error like any other of it"
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.received: dict[str, list[dict[str, Any]]] = {}
        self.status = 200
        place = self

        class Handler(BaseHTTPRequestHandler):
            def take(self) -> None:
                text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if place.status == 200 and self.command == "POST":
                    place.received.setdefault(self.headers["Idempotency-Key"], json.loads(text))
                self.send_response(place.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_OPTIONS = do_HEAD = do_GET = take  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def keys(self) -> dict[str, Any]:
        return {
            "url": f"http://127.0.0.1:{self.server.server_address[1]}/rows",
            "authentication": {"type": "bearer", "token": PASSWORD},
            "state_folder": str(self.folder / "state"),
            "batch_rows": 100,
            "max_retries": 1,
            "retry_delay_seconds": 0.01,
        }

    def rows(self, schema: pl.Schema) -> list[dict[str, Any]] | None:
        found = [row for rows in self.received.values() for row in rows]
        return sorted(found, key=lambda row: row["id"]) if found else None

    def everything(self) -> object:
        return dict(self.received)

    def unreachable(self) -> dict[str, Any]:
        return self.keys() | {"url": "http://127.0.0.1:1/rows"}

    def wrong_credentials(self) -> dict[str, Any]:
        self.status = 401
        return self.keys()

    @contextmanager
    def forbidden(self) -> Iterator[tuple[dict[str, Any], int | None]]:
        self.status = 403
        yield self.keys(), None


FILES = ["file held.csv", "file held.ndjson", "file held.parquet", "file held.arrow", "file part-{part}.parquet"]
LAKES = ["data_lake delta", "data_lake parquet"]
BUCKETS = [
    f"{kind} {name} {endpoint}"
    for endpoint in ENDPOINTS
    for kind, name in (("file", "held.csv"), ("data_lake", "delta"), ("data_lake", "parquet"))
]
#: What is not held on S3 once more, because it takes time and what decides it is the same code as on a disk.
SAME_ON_S3 = {
    "test_a_run_waits_for_another_where_that_is_asked_for": "nothing can be locked there, and the key is refused",
    "test_a_run_that_finds_another_one_says_which": "nothing can be locked there, and the key is refused",
    "test_the_lock_of_a_run_that_was_killed_is_nobodys": "nothing can be locked there, and the key is refused",
    "test_a_load_replaces_what_was_there": "test_file.py and test_data_lake.py show it in every format and write mode",
    "test_an_empty_load_empties_nothing_unless_that_is_meant": "refused before anything is published",
    "test_any_name_that_a_column_can_have": "a matter of the format",
    "test_a_name_that_is_too_long_is_refused_and_not_cut": "a matter of the format",
    "test_publishing_twice_publishes_once": "a matter of the journal, as in test_the_same_run_publishes_once",
    "test_a_run_is_recorded_whatever_its_error_says": "a matter of the ledger's JSON",
    "test_options_are_frozen_and_unknown_ones_refused": "no place is asked",
}
PLACES = ["database", "database sqlite", "database duckdb", "data_warehouse", *FILES, *LAKES, *BUCKETS, "api"]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    tmp_path.chmod(0o755)
    kind, name, endpoint = (*request.param.split(), "", "")[:3]
    if endpoint:
        if (reason := SAME_ON_S3.get(request.node.originalname)) is not None:
            pytest.skip(reason)
        bucket = request.getfixturevalue("s3_at")(endpoint)
        on_s3 = InBucket(tmp_path, bucket, (InFile if kind == "file" else InLake)(tmp_path, name))
        with on_s3.open:
            yield on_s3
    elif kind == "database" and name:
        yield InOneFile(tmp_path, name)
    elif kind in {"database", "data_warehouse"}:
        yield InDatabase(tmp_path, request.getfixturevalue("database"), kind)
    elif kind == "file":
        yield InFile(tmp_path, name)
    elif kind == "data_lake":
        yield InLake(tmp_path, name)
    else:
        api = InApi(tmp_path)
        yield api
        api.server.shutdown()
        api.server.server_close()


def made(place: Place, keys: dict[str, Any] | None = None) -> Target:
    return targets.get(place.kind).model_validate({"type": place.kind} | (place.keys() if keys is None else keys))


def staged(place: Place, target: Target, frame: pl.DataFrame, record: RunRecord) -> Chamber:
    record.rows.read = frame.height + record.rows.quarantined
    chamber = target.open(record, frame.schema, place.folder / "work" / record.run_id)
    try:
        chamber.stage(frame)
        record.staged = chamber.seal()
    except BaseException:
        chamber.discard()
        raise
    return chamber


def load(
    place: Place, frame: pl.DataFrame, *, target: Target | None = None, record: RunRecord | None = None
) -> Published:
    target = target or made(place)
    record = record or RunRecord.start(PIPELINE, target.label, "1")
    with staged(place, target, frame, record) as chamber:
        return chamber.publish(record, Quarantine(place.folder / "quarantine" / record.run_id))


def waived(act: Callable[[], Any]) -> Any:
    """What `act` gives; the test is skipped, with the reason, where the kind cannot be held to it."""
    try:
        return act()
    except Waived as reason:
        pytest.skip(str(reason))


def child(
    place: Place, frame: pl.DataFrame, *, keys: dict[str, Any] | None = None, user: int | None = None, **popen: Any
) -> subprocess.Popen[str] | Child:
    file, work = place.folder / "frame.arrow", place.folder / "child"
    frame.write_ipc(file)
    work.mkdir(exist_ok=True)
    work.chmod(0o777)
    asked = json.dumps([{"type": place.kind} | (keys or place.keys()), str(file), str(work), user])
    if not popen and user is None:
        return Child(CHILD, asked)
    command = (sys.executable, "-c", CHILD, asked)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **popen)


def is_ours_and_says_no_secret(error: BaseException) -> None:
    assert isinstance(error, LockgateError)
    assert PASSWORD not in str(error)
    assert "\n" not in str(error)
    assert str(error).endswith(".")


def test_every_kind_is_held_to_it() -> None:
    assert {name.partition(" ")[0] for name in PLACES} | set(EXEMPT) == set(targets.names())


def test_what_is_loaded_is_what_readers_see(place: Place) -> None:
    made(place).check()
    published = load(place, FRAME)

    assert place.rows(FRAME.schema) == FRAME.to_dicts()
    assert (published.inserted, published.updated, published.unchanged) == (3, 0, 0)


def test_a_load_replaces_what_was_there(place: Place) -> None:
    if place.appends_only:
        pytest.skip(place.appends_only)
    load(place, FRAME)
    load(place, MORE)

    assert place.rows(FRAME.schema) == MORE.to_dicts()


def test_an_empty_load_empties_nothing_unless_that_is_meant(place: Place) -> None:
    load(place, FRAME)
    before = place.rows(FRAME.schema)

    if place.appends_only:
        assert not load(place, FRAME.clear()).changed
    else:
        with pytest.raises(RefusedError, match="allow_empty") as refused:
            load(place, FRAME.clear())
        is_ours_and_says_no_secret(refused.value)
    assert place.rows(FRAME.schema) == before
    if not place.appends_only:
        load(place, FRAME.clear(), target=made(place, place.keys() | {"allow_empty": True}))
        assert not place.rows(FRAME.schema)


SOME = pl.DataFrame({"id": range(10), "part": [n // 5 for n in range(10)]})


def guarded(place: Place, target: Target, **limits: Any) -> RunRecord:
    record = RunRecord.start(PIPELINE, target.label, "1")
    record.guards = Guards(**limits)
    return record


def test_an_empty_load_is_allowed_for_one_run(place: Place) -> None:
    if place.appends_only:
        pytest.skip(place.appends_only)
    load(place, FRAME)

    load(place, FRAME.clear(), record=guarded(place, made(place), allows_empty=True))

    assert not place.rows(FRAME.schema)


def test_an_overwrite_that_would_remove_too_much_is_refused_with_the_numbers(place: Place) -> None:
    if place.appends_only:
        pytest.skip(place.appends_only)
    load(place, SOME)
    target = made(place)

    with pytest.raises(RefusedError) as refused:
        load(place, SOME.head(4), record=guarded(place, target, max_removed_ratio=0.5))

    is_ours_and_says_no_secret(refused.value)
    assert str(refused.value) == (
        f"target {target.label}: the load would remove 6 of 10 rows (60 %), more than guards.max_removed_ratio: 0.5 "
        "allows. Nothing was published. Look whether the source is whole; if that is meant, run with --allow-shrink, "
        "or raise the ratio."
    )
    assert (refused.value.guard, refused.value.observed, refused.value.allowed) == ("max_removed_ratio", 0.6, 0.5)
    assert place.rows(SOME.schema) == SOME.to_dicts()
    load(place, SOME.head(5), record=guarded(place, target, max_removed_ratio=0.5))
    assert place.rows(SOME.schema) == SOME.head(5).to_dicts()


def test_a_part_that_is_replaced_by_far_less_is_refused(place: Place) -> None:
    if place.kind in {"file", "api"}:
        pytest.skip("a file or an API is replaced as a whole, or not at all")
    load(place, SOME)
    target = made(place, place.keys() | {"write_mode": "delete_insert", "delete_key": ["part"]})

    with pytest.raises(RefusedError, match=r"remove 4 of 10 rows \(40 %\)"):
        load(place, SOME.head(1), target=target, record=guarded(place, target, max_removed_ratio=0.3))

    assert place.rows(SOME.schema) == SOME.to_dicts()
    load(place, SOME.head(1), target=target, record=guarded(place, target, max_removed_ratio=0.4))
    assert place.rows(SOME.schema) == SOME[[0, *range(5, 10)]].to_dicts()


def test_versions_that_would_be_closed_for_good_are_counted(place: Place) -> None:
    if place.kind in {"file", "api"}:
        pytest.skip("a file or an API keeps no versions")
    keys = {"write_mode": "scd2", "primary_key": ["id"], "scd2": {"hard_deletes": "close"}}
    target = made(place, place.keys() | keys)
    load(place, SOME, target=target)
    changed = SOME.tail(4).with_columns(part=pl.lit(7, pl.Int64))

    with pytest.raises(RefusedError, match=r"remove 6 of 10 rows \(60 %\)"):
        load(place, changed, target=target, record=guarded(place, target, max_removed_ratio=0.5))

    published = load(place, changed, target=target, record=guarded(place, target, max_removed_ratio=0.6))
    assert (published.closed, published.inserted) == (10, 4)


NAMES = ["Größe ☃", 'with "quotes"', "with space", "select", "a.b", "1", "%s", "{x}", "a'b", "back\\slash", "a,b;c\td"]


def test_any_name_that_a_column_can_have(place: Place) -> None:
    frame = pl.DataFrame({"id": [1, 2]}).with_columns(
        pl.Series(name, [str(n), None]) for n, name in enumerate([*NAMES, "n" * (place.longest_name or 300)])
    )

    load(place, frame)

    assert place.rows(frame.schema) == frame.to_dicts()


def test_a_name_that_is_too_long_is_refused_and_not_cut(place: Place) -> None:
    if place.longest_name is None:
        pytest.skip("a name of 300 characters is as good as any: see the test before")
    frame = pl.DataFrame({"id": [1], "n" * 300: ["x"]})

    with pytest.raises(LoadError, match="nnn") as refused:
        load(place, frame)

    is_ours_and_says_no_secret(refused.value)
    assert place.rows(frame.schema) is None


def test_a_table_whose_name_is_too_long_is_refused_and_not_cut(database: str, tmp_path: Path) -> None:
    place = InDatabase(tmp_path, database)
    target = made(place, place.keys() | {"table_name": "t" * 64})

    with pytest.raises(LoadError, match="is longer than the 63 bytes of a name in PostgreSQL"):
        load(place, FRAME, target=target)


def test_the_same_run_publishes_once(place: Place) -> None:
    record = RunRecord.start(PIPELINE, made(place).label, "1")
    load(place, FRAME, record=record)
    before = place.rows(FRAME.schema)

    target = made(place)
    again = RunRecord(PIPELINE, target.label, "1", record.run_id, record.started_at)
    load(place, FRAME, target=target, record=again)

    assert place.rows(FRAME.schema) == before
    assert again.status == record.status == "published"
    assert len(target.history(PIPELINE, 9)) == 1


def test_publishing_twice_publishes_once(place: Place) -> None:
    target = made(place)
    record = RunRecord.start(PIPELINE, target.label, "1")
    quarantine = Quarantine(place.folder / "quarantine")
    with staged(place, target, FRAME, record) as chamber:
        chamber.publish(record, quarantine)
        chamber.publish(record, quarantine)

    assert place.rows(FRAME.schema) == FRAME.to_dicts()
    assert (record.status, record.rows.written + record.rows.unchanged) == ("published", 3)


def test_nothing_is_seen_before_it_is_published_and_nothing_is_left_of_what_is_not(place: Place) -> None:
    load(place, FRAME)
    before = place.everything()

    target = made(place)
    with staged(place, target, MORE, RunRecord.start(PIPELINE, target.label, "1")):
        assert place.rows(FRAME.schema) == FRAME.to_dicts()

    assert place.everything() == before


def test_killed_while_it_publishes(place: Place) -> None:
    load(place, FRAME)
    wanted = FRAME.select("id", "name") if place.appends_only else None
    replaced = BIG.with_columns(pl.col("id") + 100)

    with child(place, replaced) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "publishing\n", line + process.stdout.read()
        time.sleep(random.uniform(0, place.publishing_seconds))
        process.send_signal(signal.SIGKILL)

    found = place.rows(FRAME.schema if place.rows(replaced.schema) is None else replaced.schema) or []
    if not place.publishes_rows_one_by_one:
        assert [row["id"] for row in found] in (FRAME["id"].to_list(), replaced["id"].to_list())
    with child(place, replaced) as process:
        output = process.communicate(timeout=60)[0]
    assert output.splitlines()[-1] in {"done published", "done unchanged"}, output
    expected = [*(wanted["id"] if wanted is not None else ()), *replaced["id"]]
    assert [row["id"] for row in place.rows(replaced.schema) or []] == expected
    assert {run["status"] for run in made(place).history(PIPELINE, 9)} <= {"published", "unchanged"}


def test_nobody_answers(place: Place) -> None:
    target = made(place, waived(place.unreachable))

    for attempt in (target.check, lambda: load(place, FRAME, target=target)):
        with pytest.raises(TargetUnreachableError) as failed:
            attempt()
        assert failed.value.retryable
        is_ours_and_says_no_secret(failed.value)


def test_credentials_that_are_not_known(place: Place) -> None:
    target = made(place, waived(place.wrong_credentials))

    with pytest.raises(TargetAuthenticationError) as failed:
        load(place, FRAME, target=target)

    assert not failed.value.retryable
    is_ours_and_says_no_secret(failed.value)


def test_what_may_not_be_written(place: Place) -> None:
    with place.forbidden() as (keys, user), child(place, FRAME, keys=keys, user=user) as process:
        output = process.communicate(timeout=60)[0]

    said = output.splitlines()[-1]
    assert said.startswith(f"error {TargetPermissionError.__name__} target "), output
    assert PASSWORD not in output
    assert place.rows(FRAME.schema) is None


def test_no_space_left(place: Place) -> None:
    limits = waived(place.limits)
    load(place, FRAME)
    noise = pl.DataFrame({"id": range(9000), "name": [random.randbytes(20).hex() for _ in range(9000)]})

    with child(place, noise, preexec_fn=limits) as process:
        output = process.communicate(timeout=60)[0]

    assert output.splitlines()[-1].startswith("error LoadError target "), output
    assert place.rows(FRAME.schema) == FRAME.to_dicts()
    load(place, MORE)
    assert place.rows(FRAME.schema) == MORE.to_dicts()


def test_of_two_runs_at_once_one_wins_and_the_other_can_run_again(place: Place) -> None:
    target = made(place)
    first = RunRecord.start(PIPELINE, target.label, "1")
    with staged(place, target, FRAME, first) as chamber:
        if place.takes_the_first_to_publish:
            load(place, MORE)
            with pytest.raises(LoadError) as busy:
                chamber.publish(first, Quarantine(place.folder / "quarantine"))
        else:
            with pytest.raises(LoadError) as busy:
                load(place, MORE)
            chamber.publish(first, Quarantine(place.folder / "quarantine"))
    assert busy.value.retryable
    is_ours_and_says_no_secret(busy.value)
    assert place.rows(FRAME.schema) == (MORE if place.takes_the_first_to_publish else FRAME).to_dicts()

    load(place, MORE)

    assert (place.rows(FRAME.schema) or [])[-3:] == MORE.to_dicts()


@contextmanager
def in_a_while(act: Callable[[], object]) -> Iterator[None]:
    """Does something in a thread, half a second from now; waits for it at the end."""
    timer = threading.Timer(0.5, act)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_a_run_waits_for_another_where_that_is_asked_for(place: Place) -> None:
    if place.kind == "api":
        pytest.skip("an API has a run of each pipeline at a time, and no key for it")
    target = made(place, place.keys() | {"concurrent_runs": "wait", "lock_timeout_seconds": 30})
    load(place, FRAME)
    first = RunRecord.start("first", target.label, "1")
    chamber = staged(place, target, FRAME, first)

    def publish() -> None:
        with chamber:
            chamber.publish(first, Quarantine(place.folder / "quarantine" / first.run_id))

    with in_a_while(publish):
        load(place, MORE, target=target)

    assert first.status == "published"
    assert place.rows(MORE.schema) == MORE.to_dicts()


@pytest.mark.parametrize(("concurrent_runs", "said"), [("refuse", "set target.concurrent_runs"), ("wait", " in 1 s")])
def test_a_run_that_finds_another_one_says_which(place: Place, concurrent_runs: str, said: str) -> None:
    if place.kind == "api":
        pytest.skip("an API has a run of each pipeline at a time, and no key for it")
    target = made(place, place.keys() | {"concurrent_runs": concurrent_runs, "lock_timeout_seconds": 1})
    first = RunRecord.start("first", target.label, "1")

    with staged(place, target, FRAME, first):
        with pytest.raises(
            TargetBusyError, match=rf"another run is loading it \('[^']*first {first.run_id}'\)"
        ) as busy:
            load(place, MORE, target=target)
        assert said in str(busy.value)
        is_ours_and_says_no_secret(busy.value)

    assert load(place, MORE, target=target).inserted == 3


def test_the_lock_of_a_run_that_was_killed_is_nobodys(place: Place) -> None:
    if place.kind == "api":
        pytest.skip("an API has a run of each pipeline at a time, and no key for it")
    keys = place.keys() | {"concurrent_runs": "refuse"}
    with child(place, BIG, keys=keys) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)

    load(place, MORE, target=made(place, keys))

    assert place.rows(MORE.schema) == MORE.to_dicts()


def test_what_a_run_did_can_be_asked_afterwards(place: Place) -> None:
    target = made(place)
    assert (target.history(PIPELINE, 9), target.quarantined(PIPELINE, None, 9), target.state(PIPELINE)) == ([], [], {})

    record = RunRecord.start(PIPELINE, target.label, "1")
    record.state = {"source": {"seen": ["ä.csv"], "until": 5}}
    record.rows.quarantined = record.rejected_as_read = 1
    quarantine = Quarantine(place.folder / "quarantine")
    quarantine.add(FRAME.head(1), pl.Series([3]), pl.Series([["id unique", "name not_null"]]))
    with staged(place, target, FRAME, record) as chamber:
        chamber.publish(record, quarantine)
    refused = RunRecord.start(PIPELINE, target.label, "1")
    refused.error = {"type": "RefusedError", "message": "no"}
    refused.finish("refused")
    target.record(refused, None)

    later = made(place)
    assert [run["run_id"] for run in later.history(PIPELINE, 1)] == [refused.run_id]
    assert [(run["run_id"], run["status"]) for run in later.history(PIPELINE, 9)] == [
        (refused.run_id, "refused"),
        (record.run_id, "published"),
    ]
    assert later.history(PIPELINE, 9)[1]["rows"] == record.as_json()["rows"]
    for run_id in (None, record.run_id):
        (row,) = later.quarantined(PIPELINE, run_id, 9)
        assert (row["run_id"], row["row"], row["stage"]) == (record.run_id, 3, "read")
        assert row["values"] == json.loads(json.dumps(FRAME.row(0, named=True)))
        assert row["reasons"] == ["id unique", "name not_null"]
    assert later.state(PIPELINE) == record.state
    assert (later.history("other", 9), later.quarantined("other", None, 9), later.state("other")) == ([], [], {})


def keeping(place: Place, rows: int, **facts: Any) -> RunRecord:
    """A published run that quarantined so many rows; the value of each is its number."""
    target = made(place)
    record = RunRecord.start(PIPELINE, target.label, "v7")
    for name, value in facts.items():
        setattr(record, name, value)
    quarantine = Quarantine(place.folder / "kept" / record.run_id)
    quarantine.add(pl.DataFrame({"n": range(rows)}), pl.Series(range(5, 5 + rows)), pl.Series([["n not_null"]] * rows))
    record.rows.quarantined = record.rejected_as_read = rows
    with staged(place, target, FRAME, record) as chamber:
        chamber.publish(record, quarantine)
    return record


def statuses(place: Place, run_id: str) -> list[str]:
    return [row["status"] for row in made(place).quarantined(PIPELINE, run_id, 99)]


def test_quarantined_rows_are_kept_with_what_became_of_them(place: Place) -> None:
    first = keeping(place, 3)
    target = made(place)
    (frame,) = target.kept(PIPELINE)
    assert frame.schema == pl.Schema(KEPT)
    assert [json.loads(values)["n"] for values in frame["values"]] == [0, 1, 2]
    assert frame.select("number", "row", "config_version", "resolved_at", "resolved_by").rows() == [
        (number, number + 5, "v7", None, None) for number in range(3)
    ]
    assert frame["quarantined_at"].str.starts_with(f"{first.started_at:%Y-%m-%d}").all()

    assert target.discard(PIPELINE, {first.run_id: [1]}) == 1
    assert target.discard(PIPELINE, {first.run_id: [1], "nobody": [0]}) == 0
    replay = keeping(place, 1, replays={first.run_id: [0]})

    assert statuses(place, first.run_id) == ["replayed", "discarded", "waiting"]
    assert [row["resolved_by"] for row in made(place).quarantined(PIPELINE, first.run_id, 9)] == [
        replay.run_id,
        None,
        None,
    ]
    assert all(row["resolved_at"] for row in made(place).quarantined(PIPELINE, first.run_id, 2))
    assert [row["number"] for row in made(place).quarantined(PIPELINE, first.run_id, 9, "waiting")] == [2]
    assert {
        run["run_id"]: (run["waiting"], run["replayed"], run["discarded"]) for run in target.kept_counts(PIPELINE)
    } == {
        replay.run_id: (1, 0, 0),
        first.run_id: (1, 1, 1),
    }
    assert sum(frame.height for frame in target.kept(PIPELINE, status="waiting")) == 2
    assert (list(target.kept("other")), target.kept_counts("other"), target.discard("other", {})) == ([], [], 0)


def test_a_row_that_is_not_waiting_any_more_is_not_published_again(place: Place) -> None:
    first = keeping(place, 2)
    keeping(place, 0, replays={first.run_id: [1]})
    before = place.rows(FRAME.schema)
    if place.publishes_rows_one_by_one:
        pytest.skip(place.publishes_rows_one_by_one)

    with pytest.raises(LoadError, match="ceased to wait in quarantine") as refused:
        keeping(place, 0, replays={first.run_id: [0, 1]})

    assert refused.value.retryable
    assert place.rows(FRAME.schema) == before
    assert statuses(place, first.run_id) == ["waiting", "replayed"]


def test_what_was_kept_for_long_enough_is_forgotten(place: Place) -> None:
    first = keeping(place, 3)
    later = datetime.now(UTC) + timedelta(seconds=2)  # the names of files tell seconds

    second = keeping(place, 2, forgets_before=later)

    assert second.forgotten == 3
    assert made(place).history(PIPELINE, 9)[0]["forgotten"] == 3
    assert (statuses(place, first.run_id), len(statuses(place, second.run_id))) == ([], 2)
    assert made(place).discard(PIPELINE, {first.run_id: [0]}) == 0


def test_a_run_is_recorded_whatever_its_error_says(place: Place) -> None:
    target = made(place)
    record = RunRecord.start(PIPELINE, target.label, "1")
    record.error = {"type": "LoadError", "message": "not a number: 'a\0b' \ud800 \\u0000"}
    record.finish("failed")

    target.record(record, None)

    (run,) = target.history(PIPELINE, 9)
    assert run["status"] == "failed"
    assert run["error"]["message"].startswith("not a number: 'a")
    assert run["error"]["message"].endswith(" \\u0000")


def test_a_plan_says_something_and_changes_nothing(place: Place) -> None:
    target = made(place)
    for _ in range(2):
        before = place.everything()
        lines = target.plan(FRAME.schema)

        assert lines
        assert all(PASSWORD not in line for line in lines)
        assert place.everything() == before
        load(place, FRAME)


def test_no_secret_is_shown(place: Place) -> None:
    target = made(place)
    load(place, FRAME, target=target)

    shown = [repr(target), str(target), target.label, target.described, json.dumps(target.history(PIPELINE, 9))]
    shown += [path.read_text(errors="replace") for path in place.folder.rglob("*") if path.is_file()]

    assert [text for text in shown if PASSWORD in text] == []


def test_options_are_frozen_and_unknown_ones_refused(place: Place) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        made(place).type = "other"
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        made(place, place.keys() | {"write_mood": "append"})
