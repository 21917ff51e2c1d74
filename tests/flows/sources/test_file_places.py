"""Files of other places: the same rows as from a disk, and clear words where a place cannot be had."""

# ruff: noqa: E501 - messages in one piece

from __future__ import annotations

import asyncio
import gzip
import http.server
import io
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import fsspec
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

from flows._errors import (
    ExtractError,
    SourceAuthenticationError,
    SourceMissingError,
    SourcePermissionError,
    SourceUnreachableError,
)
from flows._secrets import Secret
from flows._storage import Store
from flows.sources._base import Context, Extract, Pushdown
from flows.sources.file import File

PASSWORD = "hush-and-hush"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scan(path: str | list[str], context: Context = Context(), **keys: object) -> Extract:  # noqa: B008 - frozen
    return File.model_validate({"type": "file", "path": path, **keys}).scan("orders", context)


def read(extract: Extract, ask: Pushdown = Pushdown()) -> pl.DataFrame:  # noqa: B008 - frozen
    names = ask.columns if ask.columns is not None else tuple(extract.schema)
    empty = pl.DataFrame(schema={name: extract.schema[name] for name in names})
    return pl.concat([empty, *extract.read(ask)])


FRAME = pl.DataFrame({"id": range(2_000), "größe": [f"n{i} ☃" if i % 7 else None for i in range(2_000)]})


def content(name: str) -> bytes:
    """What a file of that name holds: rows 0 to 999 in the first one, the others in the second."""
    rows = FRAME.head(1_000) if "1." in name else FRAME.tail(1_000)
    buffer = io.BytesIO()
    kind = name.split(".", 1)[1]
    if kind == "parquet":
        rows.write_parquet(buffer, row_group_size=100)
    elif kind == "arrow":
        rows.write_ipc(buffer)
    elif kind.startswith("csv"):
        rows.write_csv(buffer)
    else:
        rows.write_ndjson(buffer)
    data = buffer.getvalue()
    if kind.endswith(".gz"):
        return gzip.compress(data)
    if kind.endswith(".zst"):
        return pa.compress(data, "zstd", asbytes=True)
    if kind.endswith(".zip"):
        return zipped({"in/rows.csv": data})
    return data


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


KINDS = ["csv", "csv.gz", "csv.zst", "csv.zip", "ndjson", "ndjson.gz", "parquet", "arrow"]
FILES = {f"{number}.{kind}": content(f"{number}.{kind}") for kind in KINDS for number in (1, 2)}


# ------------------------------------------------------------------ the places


@dataclass
class Web:
    """A web server on loopback.

    Attributes:
        heads: headers of each request.
    """

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)
    login: str | None = None
    heads: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def web_server() -> Iterator[Web]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            web.heads.append(dict(self.headers))
            status = 200 if path in web.files else 302 if path in web.moved else web.broken.get(path, 404)
            if web.login is not None and self.headers.get("Authorization") != web.login:
                status = 401
            data = web.files.get(path, b"") if status == 200 else b""
            self.send_response(status)
            if status == 302:
                self.send_header("Location", web.moved[path])
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web = Web(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield web
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as made:
        yield made


@pytest.fixture
def sftp(tmp_path):
    """Address, options and folder of an SSH server that knows one user."""
    asyncssh = pytest.importorskip("asyncssh")
    pytest.importorskip("paramiko")
    root = tmp_path / "sftp-root"
    root.mkdir()
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    found: list[int] = []

    connections = []

    class Users(asyncssh.SSHServer):
        def connection_made(self, connection: object) -> None:
            connections.append(connection)

        def begin_auth(self, _username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == ("ada", PASSWORD)

    async def serve() -> None:
        server = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Users, server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(root)),
        )  # fmt: skip
        found.append(server.get_port())
        ready.set()
        await stop.wait()
        server.close()
        for connection in connections:
            connection.abort()
        await asyncio.gather(*(connection.wait_closed() for connection in connections))
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(20)
    yield f"sftp://127.0.0.1:{found[0]}", {"username": "ada", "password": PASSWORD}, root
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture(params=["local", "file://", "memory", "s3", "sftp"])
def place(request, folder):
    """A URL below which `FILES` are, and how to get in."""
    if request.param in {"local", "file://"}:
        for name, data in FILES.items():
            Path(name).write_bytes(data)
        yield f"file://{folder}" if request.param == "file://" else str(folder), {}
        return
    if request.param == "sftp":
        url, options, root = request.getfixturevalue("sftp")
        (root / "in").mkdir()
        for name, data in FILES.items():
            (root / "in" / name).write_bytes(data)
        yield f"{url}/in", options
        return
    if request.param == "s3":
        bucket = request.getfixturevalue("s3")
        url, options = f"{bucket.url}/in", bucket.options
    else:
        url, options = f"memory://{folder.name}", {}
    store = Store(url, {key: Secret(value) for key, value in options.items()})
    for name, data in FILES.items():
        store.fs.pipe(f"{store.path}/{name}", data)
    yield url, options
    if request.param == "memory":
        fsspec.filesystem("memory").rm(store.path, recursive=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_gives_the_same_rows_wherever_it_is(place, kind):
    url, options = place
    extract = scan(f"{url}/*.{kind}", storage_options=options)

    assert_frame_equal(read(extract), FRAME)
    assert_frame_equal(read(extract), FRAME)
    assert_frame_equal(read(extract, Pushdown(("größe",), None, 1_001)), FRAME.select("größe").head(1_001))
    assert_frame_equal(extract.frame.filter(pl.col("id") > 1_500).collect(), FRAME.filter(pl.col("id") > 1_500))
    assert_frame_equal(read(scan(f"{url}/2.{kind}", storage_options=options)), FRAME.tail(1_000))


def test_what_is_not_there_is_told(place):
    url, options = place

    with pytest.raises(SourceMissingError) as caught:
        scan(f"{url}/nowhere.csv", storage_options=options)
    assert "nowhere.csv" in str(caught.value)
    with pytest.raises(SourceMissingError, match="no file matches"):
        scan(f"{url}/nowhere*.csv", storage_options=options)


def test_what_was_brought_is_gone_with_the_run(s3, folder):
    store = Store(s3.url, {key: Secret(value) for key, value in s3.options.items()})
    store.fs.pipe(f"{store.path}/1.csv", FILES["1.csv"])
    extract = scan(f"{s3.url}/1.csv", Context(folder=folder / "run"), storage_options=s3.options)

    read(extract)
    assert [file.stat().st_size for file in (folder / "run").rglob("*") if file.is_file()] == [len(FILES["1.csv"])]
    del extract
    assert [file for file in (folder / "run").rglob("*") if file.is_file()] == []


def test_a_look_at_many_files_brings_only_the_first(s3, folder):
    store = Store(s3.url, {key: Secret(value) for key, value in s3.options.items()})
    store.fs.pipe(f"{store.path}/1.csv", b"a\n1\n")
    store.fs.pipe(f"{store.path}/2.csv", b"a\n2\n")

    extract = scan(f"{s3.url}/*.csv", Context(folder=folder / "run", sample=True), storage_options=s3.options)

    assert len([file for file in (folder / "run").rglob("*") if file.is_file()]) == 1
    assert read(extract)["a"].to_list() == [1, 2]


def test_parquet_on_s3_is_not_brought(s3, folder):
    store = Store(s3.url, {key: Secret(value) for key, value in s3.options.items()})
    store.fs.pipe(f"{store.path}/1.parquet", FILES["1.parquet"])
    extract = scan(f"{s3.url}/1.parquet", Context(folder=folder / "run"), storage_options=s3.options)

    assert read(extract, Pushdown(("id",), pl.col("id") >= 990))["id"].to_list() == list(range(990, 1_000))
    assert not (folder / "run").exists()


def test_a_delta_table_on_s3(s3):
    pytest.importorskip("deltalake")
    options = {
        "aws_" + {"key": "access_key_id", "secret": "secret_access_key"}.get(k, k): v for k, v in s3.options.items()
    }
    FRAME.write_delta(f"{s3.url}/t", storage_options=options | {"aws_allow_http": "true"})

    assert_frame_equal(read(scan(f"{s3.url}/t", format="delta", storage_options=s3.options)).sort("id"), FRAME)


def test_an_iceberg_table_on_s3(s3, folder):
    pytest.importorskip("pyiceberg")
    from pyiceberg.catalog.sql import SqlCatalog  # noqa: PLC0415 - slow to import

    keys = {"key": "access-key-id", "secret": "secret-access-key", "endpoint_url": "endpoint", "region": "region"}
    login = {f"s3.{keys[name]}": value for name, value in s3.options.items()}
    catalog = SqlCatalog("c", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"{s3.url}/w", **login)
    catalog.create_namespace("n")
    rows = FRAME.to_arrow()
    table = catalog.create_table("n.t", schema=rows.schema)
    table.append(rows)
    extract = scan(table.location(), format="iceberg", storage_options=s3.options)
    catalog.close()

    assert_frame_equal(read(extract).sort("id"), FRAME)
    assert extract.frame.filter(pl.col("id") > 1_500).collect().height == 499


# ------------------------------------------------------------------ zip


def test_the_files_of_a_zip_are_read_by_name():
    Path("a.zip").write_bytes(
        zipped({"b/2.csv": b"x\n2\n", "1.csv": b"x\n1\n", "read.me": b"?", "__MACOSX/1.csv": b"?", ".hidden.csv": b"?"})
    )

    extract = scan("a.zip", format="csv", source_file_column="f")

    assert read(extract).rows() == [(1, "a.zip/1.csv"), (2, "a.zip/b/2.csv")]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no zip", "'a.csv.zip' is not a whole zip file."),
        (zipped({}), "'a.csv.zip' is a zip without a file in it."),
        (zipped({"a.csv": b"x\n" + b"1\n" * 99})[:-30], "'a.csv.zip' is not a whole zip file."),
    ],
    ids=["none", "empty", "cut off"],
)
def test_a_zip_that_is_none(data, said):
    Path("a.csv.zip").write_bytes(data)

    with pytest.raises(ExtractError) as caught:
        scan("a.csv.zip")

    assert str(caught.value) == f"source 'orders': {said}"


# ------------------------------------------------------------------ the web


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_web_gives_the_same_rows(web, name):
    web.files = {f"/{name}": FILES[name]}

    found = read(scan(f"{web.url}/{name}"))

    assert_frame_equal(found, FRAME.head(1_000) if name.startswith("1") else FRAME.tail(1_000))


@pytest.mark.parametrize(
    ("options", "login"),
    [
        ({"username": "ada", "password": PASSWORD}, "Basic YWRhOmh1c2gtYW5kLWh1c2g="),
        ({"token": PASSWORD}, f"Bearer {PASSWORD}"),
    ],
)
def test_keys_are_sent_to_the_server_and_to_no_other(web, options, login):
    web.files, web.login = {"/1.csv": FILES["1.csv"]}, login
    assert read(scan(f"{web.url}/1.csv", storage_options=options)).height == 1_000

    with web_server() as other:
        other.files = {"/1.csv": FILES["1.csv"]}
        web.files, web.moved = {}, {"/1.csv": f"{other.url}/1.csv"}
        assert read(scan(f"{web.url}/1.csv", storage_options=options)).height == 1_000
        assert other.heads
        assert [head for head in other.heads if "Authorization" in head] == []


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/1.csv"])
def test_a_server_leads_nobody_to_another_kind_of_place(web, to):
    web.moved = {"/1.csv": to}

    with pytest.raises(ExtractError):
        read(scan(f"{web.url}/1.csv"))


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (401, SourceAuthenticationError, "the server answers 401 Unauthorized. Check the keys in 'storage_options', or in the environment."),
        (403, SourcePermissionError, "the server answers 403 Forbidden. Grant it, or use another user."),
        (404, SourceMissingError, "the server answers 404 Not Found. Check the name."),
        (503, SourceUnreachableError, "the server answers 503 Service Unavailable. Check the address, and that the server is up; then run again."),
    ],
)  # fmt: skip
def test_what_a_server_refuses_is_told_without_the_query(web, status, kind, said):
    web.broken = {"/1.csv": status}

    with pytest.raises(ExtractError) as caught:
        scan(f"{web.url}/1.csv?signature={PASSWORD}")

    assert str(caught.value) == f"source 'orders': '{web.url}/1.csv': {said}"
    assert type(caught.value) is kind


def test_a_query_is_sent_and_not_shown(web):
    web.files = {"/1.csv": b"x\n1\n"}
    extract = scan(f"{web.url}/1.csv?signature={PASSWORD}", source_file_column=True)

    assert read(extract).rows() == [(1, f"{web.url}/1.csv")]
    assert PASSWORD not in extract.describe(Pushdown())


# ------------------------------------------------------------------ nobody there, or the wrong keys


@pytest.mark.parametrize("scheme", ["s3", "http", "sftp"])
def test_a_place_where_nobody_is_is_told_soon(scheme):
    keys = {
        "s3": {"path": "s3://b/a.csv", "storage_options": {"key": "k", "secret": PASSWORD, "endpoint_url": "http://127.0.0.1:9", "region": "x"}},
        "http": {"path": "http://127.0.0.1:9/a.csv", "storage_options": {"token": PASSWORD}},
        "sftp": {"path": "sftp://127.0.0.1:9/a.csv", "storage_options": {"username": "ada", "password": PASSWORD}},
    }[scheme]  # fmt: skip
    started = time.monotonic()

    with pytest.raises(SourceUnreachableError) as caught:
        scan(**keys)

    assert time.monotonic() - started < 15
    assert str(caught.value).startswith(f"source 'orders': '{keys['path']}': ")
    assert PASSWORD not in repr(caught.value) + str(caught.value)


def test_a_delta_table_where_nobody_is_may_be_tried_again():
    keys = {"key": "k", "secret": PASSWORD, "endpoint_url": "http://127.0.0.1:9", "region": "x"}

    with pytest.raises(SourceUnreachableError) as caught:
        scan("s3://b/t", format="delta", storage_options=keys)

    assert str(caught.value).startswith("source 'orders': 's3://b/t': ")
    assert "Connection refused" in str(caught.value)
    assert str(caught.value).endswith("Check the address, and that the server is up; then run again.")
    assert PASSWORD not in str(caught.value)


def test_a_wrong_password_of_sftp(sftp):
    url, options, _root = sftp

    with pytest.raises(SourceAuthenticationError) as caught:
        scan(f"{url}/a.csv", storage_options=options | {"password": PASSWORD + "!"})

    assert str(caught.value) == (
        f"source 'orders': '{url}/a.csv': Authentication failed. Check the keys in 'storage_options', or in the environment."
    )


def test_a_bucket_that_is_not_there(s3):
    with pytest.raises(SourceMissingError) as caught:
        scan("s3://no-such-bucket-here/a.csv", storage_options=s3.options)

    assert s3.options["secret"] not in str(caught.value)


def test_a_file_of_s3_that_goes_away_between_scan_and_read(s3):
    store = Store(s3.url, {key: Secret(value) for key, value in s3.options.items()})
    extracts = []
    for name in ("1.csv", "1.parquet"):
        store.fs.pipe(f"{store.path}/{name}", FILES[name])
        dtypes = {"dtypes": {"id": "bigint", "größe": "text"}} if name == "1.csv" else {}
        extracts.append(scan(f"{s3.url}/{name}", storage_options=s3.options, **dtypes))
        store.fs.rm(f"{store.path}/{name}")

    with pytest.raises(ExtractError, match=r"^source 'orders': there is no file 's3://.*1\.parquet' any more\.$"):
        read(extracts[1])
