"""What every source promises, over the live registry: a new kind of source is held to it, or says here why not."""

import datetime as dt
import gc
import json
import os
import sqlite3
import tempfile
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from decimal import Decimal
from itertools import takewhile
from pathlib import Path
from typing import Any

import duckdb
import fsspec.asyn
import polars as pl
import psycopg
import pytest
from click.testing import CliRunner
from polars.testing import assert_frame_equal
from psycopg import sql
from pydantic import ValidationError

from flows.__main__ import main
from flows._errors import ExtractError, SourceAuthenticationError, SourcePermissionError, SourceUnreachableError
from flows.sources._base import Extract, Pushdown, Source, sources

pytestmark = pytest.mark.postgres

EXEMPT = {"stream": "cannot run yet: its scan always refuses"}
PASSWORD = "hushhush"

FRAME = pl.DataFrame(
    {
        "id": [1, 2, 3, 4, 5],
        "name": ["Ada", "größe ☃", "it's", None, 'say "hi", 100%\\'],
        "amount": [Decimal("1.50"), None, Decimal("-0.01"), Decimal("9999999999.99"), Decimal("0.10")],
        "day": [dt.date(2024, 2, 29), dt.date(1, 1, 1), None, dt.date(9999, 12, 31), dt.date(1970, 1, 1)],
        "at": [dt.datetime(2024, 1, 1, 10, 0, 0, 1), None, *[dt.datetime(1969, 12, 31, 23, 59, 59)] * 3],
        "ok": [True, False, None, True, False],
        "nothing": [None] * 5,
    },
    schema={
        "id": pl.Int64, "name": pl.String, "amount": pl.Decimal(12, 2), "day": pl.Date,
        "at": pl.Datetime("us", "UTC"), "ok": pl.Boolean, "nothing": pl.String,
    },
)  # fmt: skip
SQL = {
    "Int64": "int8", "String": "text", "Decimal": "numeric(12,2)", "Date": "date", "Datetime": "timestamptz",
    "Boolean": "bool",
}  # fmt: skip
DECLARED = SQL | {"Int64": "bigint"}


class Place(ABC):
    """Somewhere that rows can be put, to be read by one kind of source."""

    kind: str
    longest_name = 300
    #: Whether connections are closed when Python collects what held them, and no sooner.
    closes_late = False

    @abstractmethod
    def holding(self, frame: pl.DataFrame) -> dict[str, Any]:
        """The keys of a source that reads `frame`."""

    @abstractmethod
    def breaking(self) -> dict[str, Any]:
        """The keys of a source that can be scanned, and whose rows cannot be read."""

    @abstractmethod
    def missing(self) -> dict[str, Any]:
        """The keys of a source of something that is not there."""

    @abstractmethod
    def forbidden(self) -> AbstractContextManager[dict[str, Any]]:
        """The keys of a source of something that may not be read while the block lasts."""

    def refused(self) -> dict[str, Any]:
        """The keys of a source with a login that its host does not know."""
        raise NotImplementedError

    def unreachable(self) -> dict[str, Any]:
        """The keys of a source on a host where nobody is."""
        raise NotImplementedError


@contextmanager
def unreadable(*paths: Path) -> Iterator[None]:
    """Nobody may read these files, and we are not root: root may read everything."""
    user = os.geteuid()
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(0)
        for folder in takewhile(lambda each: each != Path(tempfile.gettempdir()), path.parents):
            folder.chmod(0o755)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        for path, mode in modes.items():
            path.chmod(mode)


class InDatabase(Place):
    kind = "database"
    longest_name = 63

    def __init__(self, uri: str) -> None:
        self.uri = uri.replace("postgres@", f"postgres:{PASSWORD}@", 1)

    def holding(self, frame: pl.DataFrame) -> dict[str, Any]:
        columns = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(SQL[str(dtype.base_type())]))
            for name, dtype in frame.schema.items()
        )
        with psycopg.connect(self.uri, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS held")
            cursor.execute(sql.SQL("CREATE TABLE held ({})").format(columns))
            with cursor.copy("COPY held FROM STDIN") as copy:
                for row in frame.iter_rows():
                    copy.write_row(row)
        return {"connection_string": self.uri, "schema": {"table": "held"}}

    def breaking(self) -> dict[str, Any]:
        return {"connection_string": self.uri, "query": "SELECT i, 1 / (5 - i) AS v FROM generate_series(1, 9) AS i"}

    def missing(self) -> dict[str, Any]:
        return {"connection_string": self.uri, "schema": {"table": "nowhere"}}

    @contextmanager
    def forbidden(self) -> Iterator[dict[str, Any]]:
        role = f"role_{uuid.uuid4().hex}"
        keys = self.holding(FRAME)
        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
            try:
                yield keys | {"connection_string": self.uri.replace("postgres:", f"{role}:", 1)}
            finally:
                connection.execute(f"DROP ROLE {role}")

    def refused(self) -> dict[str, Any]:
        return self.holding(FRAME) | {"connection_string": self.uri.replace("postgres:", "nobody:", 1)}

    def unreachable(self) -> dict[str, Any]:
        return self.missing() | {"connection_string": f"postgresql://ada:{PASSWORD}@127.0.0.1:9/shop"}


class InSqlite(Place):
    kind = "database"
    types = SQL | {"Decimal": "DECIMAL(12,2)", "Datetime": "TIMESTAMPTZ", "Boolean": "BOOLEAN"}

    def __init__(self, folder: Path) -> None:
        self.file = folder / "held.db"
        self.keys = {"connection_string": f"sqlite:///{self.file}"}

    def holding(self, frame: pl.DataFrame) -> dict[str, Any]:
        columns = ", ".join(
            f"{double_quoted(name)} {self.types[str(dtype.base_type())]}" for name, dtype in frame.schema.items()
        )
        texts = frame.with_columns(
            pl.col(pl.Decimal, pl.Date).cast(pl.String), pl.col(pl.Datetime).dt.to_string("%Y-%m-%d %H:%M:%S%.6f%:z")
        )
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.execute("DROP TABLE IF EXISTS held")
            connection.execute(f"CREATE TABLE held ({columns})")
            marks = ", ".join("?" * frame.width)
            connection.executemany(f"INSERT INTO held VALUES ({marks})", texts.rows())
        return self.keys | {"schema": {"table": "held"}}

    def breaking(self) -> dict[str, Any]:
        keys = self.holding(pl.DataFrame({"id": range(9)}))
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.execute("INSERT INTO held VALUES ('five')")
        return keys

    def missing(self) -> dict[str, Any]:
        self.holding(FRAME)
        return self.keys | {"schema": {"table": "nowhere"}}

    @contextmanager
    def forbidden(self) -> Iterator[dict[str, Any]]:
        keys = self.holding(FRAME)
        with unreadable(self.file):
            yield keys


class InDuckdb(Place):
    kind = "database"

    def __init__(self, folder: Path) -> None:
        self.file = folder / "held.duckdb"
        self.keys = {"connection_string": f"duckdb:///{self.file}"}

    def holding(self, frame: pl.DataFrame) -> dict[str, Any]:
        columns = ", ".join(
            f"{double_quoted(name)} {SQL[str(dtype.base_type())]}" for name, dtype in frame.schema.items()
        )
        with closing(duckdb.connect(self.file)) as connection:
            connection.register("frame", frame.to_arrow())
            connection.execute(f"CREATE OR REPLACE TABLE held ({columns})")
            connection.execute("INSERT INTO held SELECT * FROM frame")
        return self.keys | {"schema": {"table": "held"}}

    def breaking(self) -> dict[str, Any]:
        self.holding(FRAME)
        return self.keys | {"query": "SELECT i, CAST(if(i = 5, 'five', '0') AS INT) AS v FROM range(9) AS t (i)"}

    def missing(self) -> dict[str, Any]:
        self.holding(FRAME)
        return self.keys | {"schema": {"table": "nowhere"}}

    @contextmanager
    def forbidden(self) -> Iterator[dict[str, Any]]:
        keys = self.holding(FRAME)
        with unreadable(self.file):
            yield keys


def double_quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class InFile(Place):
    kind = "file"

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder, self.suffix = folder, suffix
        self.path = folder / f"held.{suffix}"

    def holding(self, frame: pl.DataFrame) -> dict[str, Any]:
        dtypes = {name: DECLARED[str(dtype.base_type())] for name, dtype in frame.schema.items()}
        plain = frame.with_columns(
            pl.col(pl.Decimal).cast(pl.String), pl.col(pl.Datetime).dt.to_string("%Y-%m-%d %H:%M:%S%.6f%:z")
        )
        match self.suffix:
            case "csv":
                plain.write_csv(self.path)
            case "ndjson":
                plain.write_ndjson(self.path)
            case "json":
                plain.write_json(self.path)
            case "parquet":
                frame.write_parquet(self.path)
                return {"path": str(self.path)}
            case "ipc":
                frame.write_ipc(self.path, compression="lz4")
                return {"path": str(self.path)}
        return {"path": str(self.path), "dtypes": dtypes}

    def breaking(self) -> dict[str, Any]:
        keys = self.holding(pl.DataFrame({"id": ["1", "x"] * 5000}))
        if self.suffix in {"csv", "ndjson", "json"}:
            return keys | {"dtypes": {"id": "bigint"}, "on_malformed": "fail"}
        data = bytearray(self.path.read_bytes())
        # The first page of rows; what the columns are stands elsewhere.
        start = 4 if self.suffix == "parquet" else data.find(b"\xff\xff\xff\xff", 16) + 8
        data[start : start + 56] = b"\xff" * 56
        self.path.write_bytes(data)
        return keys

    def missing(self) -> dict[str, Any]:
        return {"path": str(self.folder / f"nowhere.{self.suffix}")}

    @contextmanager
    def forbidden(self) -> Iterator[dict[str, Any]]:
        keys = self.holding(FRAME)
        with unreadable(self.path):
            yield keys


class OnTheWeb(InFile):
    """A file behind a login."""

    closes_late = True

    def __init__(self, folder: Path, web: Any) -> None:
        super().__init__(folder, "csv")
        self.web = web
        self.allowed = True
        fsspec.asyn.get_loop()  # one thread of fsspec, and its sockets, stay as long as the process

    def holding(self, frame: pl.DataFrame) -> dict[str, Any]:
        keys = super().holding(frame)
        self.web.answers["/held.csv"] = self._answer
        return keys | self._keys("held")

    def _answer(self, asked: Any) -> Any:
        if asked.headers.get("authorization") != f"Bearer {PASSWORD}":
            return self.web.reply(b"", 401)
        return self.web.reply(self.path.read_bytes()) if self.allowed else self.web.reply(b"", 403)

    def _keys(self, name: str) -> dict[str, Any]:
        return {"path": f"{self.web.url}/{name}.csv", "storage_options": {"token": PASSWORD}}

    def missing(self) -> dict[str, Any]:
        return self._keys("nowhere")

    @contextmanager
    def forbidden(self) -> Iterator[dict[str, Any]]:
        keys = self.holding(FRAME)
        self.allowed = False
        yield keys

    def refused(self) -> dict[str, Any]:
        return self.holding(FRAME) | {"storage_options": {"token": f"not-{PASSWORD}"}}

    def unreachable(self) -> dict[str, Any]:
        return self.missing() | {"path": "http://127.0.0.1:9/held.csv"}


class InDelta(InFile):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "delta")

    def holding(self, frame: pl.DataFrame) -> dict[str, Any]:
        frame.write_delta(self.path, mode="overwrite", delta_write_options={"schema_mode": "overwrite"})
        return {"path": str(self.path), "format": "delta"}

    def breaking(self) -> dict[str, Any]:
        keys = self.holding(pl.DataFrame({"id": ["1", "x"] * 5000}))
        for file in self.path.glob("*.parquet"):
            data = bytearray(file.read_bytes())
            data[4:60] = b"\xff" * 56
            file.write_bytes(data)
        return keys

    def missing(self) -> dict[str, Any]:
        return super().missing() | {"format": "delta"}

    @contextmanager
    def forbidden(self) -> Iterator[dict[str, Any]]:
        keys = self.holding(FRAME)
        with unreadable(*self.path.glob("_delta_log/*.json")):
            yield keys


class InApi(Place):
    kind = "api"

    def __init__(self, web: Any) -> None:
        self.web = web

    def holding(self, frame: pl.DataFrame) -> dict[str, Any]:
        plain = frame.with_columns(
            pl.col(pl.Decimal).cast(pl.String), pl.col(pl.Datetime).dt.to_string("%Y-%m-%d %H:%M:%S%.6f%:z")
        )
        pages = [self.web.reply(page.write_json().encode()) for page in plain.iter_slices(max(1, frame.height // 3))]
        self.web.pages("/held", *pages)
        dtypes = {name: DECLARED[str(dtype.base_type())] for name, dtype in frame.schema.items()}
        return self._keys("held") | {"dtypes": dtypes}

    def breaking(self) -> dict[str, Any]:
        return self.holding(pl.DataFrame({"id": ["1", "x"] * 5000})) | {"dtypes": {"id": "bigint"}}

    def missing(self) -> dict[str, Any]:
        return self._keys("nowhere")

    @contextmanager
    def forbidden(self) -> Iterator[dict[str, Any]]:
        self.web.answers["/held"] = lambda _: self.web.reply({"said": f"not for {PASSWORD}"}, 403)
        yield self._keys("held")

    def refused(self) -> dict[str, Any]:
        self.web.answers["/held"] = lambda _: self.web.reply({"said": f"who is {PASSWORD}?"}, 401)
        return self._keys("held")

    def unreachable(self) -> dict[str, Any]:
        return self._keys("held") | {"url": "http://127.0.0.1:9", "max_retries": 0}

    def _keys(self, path: str) -> dict[str, Any]:
        return {
            "url": self.web.url, "path": path, "pagination": {"type": "page_number"},
            "authentication": {"type": "bearer", "token": PASSWORD},
        }  # fmt: skip


PLACES = [
    "api",
    "database",
    "database sqlite",
    "database duckdb",
    "file csv",
    "file ndjson",
    "file json",
    "file parquet",
    "file ipc",
    "file delta",
    "file web",
]
#: Those that are reached over a network, with a login.
REMOTE = ["api", "database", "file web"]


@pytest.fixture(params=PLACES)
def place(request, tmp_path) -> Place:
    match request.param.split(" "):
        case ["file", suffix]:
            return _of_files(suffix, request, tmp_path)
        case ["api"]:
            return InApi(request.getfixturevalue("web"))
        case ["database"]:
            return InDatabase(request.getfixturevalue("database"))
        case ["database", "sqlite"]:
            return InSqlite(tmp_path)
        case ["database", "duckdb"]:
            return InDuckdb(tmp_path)
    raise AssertionError(request.param)


def _of_files(suffix: str, request: Any, folder: Path) -> Place:
    match suffix:
        case "web":
            return OnTheWeb(folder, request.getfixturevalue("web"))
        case "delta":
            return InDelta(folder)
    return InFile(folder, suffix)


def source(place: Place, keys: dict[str, Any]) -> Source:
    return sources.get(place.kind).model_validate({"type": place.kind, **keys})


def scan(place: Place, frame: pl.DataFrame = FRAME, **keys: Any) -> Extract:
    return source(place, place.holding(frame) | keys).scan("input")


def read(extract: Extract, ask: Pushdown = Pushdown()) -> pl.DataFrame:  # noqa: B008 - frozen
    names = ask.columns if ask.columns is not None else tuple(extract.schema)
    empty = pl.DataFrame(schema={name: extract.schema[name] for name in names})
    return pl.concat([empty, *extract.read(ask)])


def test_every_kind_is_held_to_it():
    assert {name.partition(" ")[0] for name in PLACES} | set(EXEMPT) == set(sources.names())


def test_the_schema_is_what_read_gives(place):
    extract = scan(place)

    assert extract.schema == FRAME.schema
    for batch in extract.read(Pushdown()):
        assert batch.schema == extract.schema
    assert_frame_equal(read(extract), FRAME)


@pytest.mark.parametrize("columns", [("id",), ("day", "id"), ("nothing",), tuple(reversed(FRAME.columns))], ids=str)
def test_only_the_columns_asked_for_come_in_that_order(place, columns):
    assert_frame_equal(read(scan(place), Pushdown(columns)), FRAME.select(columns))


@pytest.mark.parametrize(
    "predicate",
    [
        pl.col("id") > 2,
        pl.col("id").is_in([1, 5]),
        pl.col("name") == "it's",
        pl.col("name") != "it's",
        pl.col("name") > "a",
        pl.col("amount") >= Decimal("0.10"),
        pl.col("day") < dt.date(1970, 1, 2),
        pl.col("at") >= dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        pl.col("ok"),
        ~pl.col("ok"),
        pl.col("nothing").is_null(),
        pl.col("nothing") == "x",
        (pl.col("ok") & (pl.col("id") > 1)) | pl.col("name").is_null(),
        pl.col("name").str.len_chars() + pl.col("id") > 5,
    ],
    ids=str,
)
def test_no_row_is_lost_for_which_a_predicate_is_true(place, predicate):
    extract = scan(place)
    wanted = FRAME.filter(predicate)

    arrived = read(extract, Pushdown(None, predicate))

    assert set(wanted["id"]) <= set(arrived["id"]) <= set(FRAME["id"])
    assert_frame_equal(arrived.filter(predicate), wanted)
    assert_frame_equal(extract.frame.filter(predicate).collect(), wanted)


@pytest.mark.parametrize("limit", [0, 1, 3, 5, 100])
def test_a_limit_is_exact_and_counts_before_a_predicate(place, limit):
    extract = scan(place)
    later = pl.col("id") > 1

    assert_frame_equal(read(extract, Pushdown(limit=limit)), FRAME.head(limit))
    assert_frame_equal(read(extract, Pushdown(None, later, limit)).filter(later), FRAME.head(limit).filter(later))
    assert_frame_equal(extract.frame.head(limit).filter(later).collect(), FRAME.head(limit).filter(later))
    assert_frame_equal(extract.frame.filter(later).head(limit).collect(), FRAME.filter(later).head(limit))


def test_reading_twice_gives_the_same(place):
    extract = scan(place)

    assert_frame_equal(read(extract), read(extract))
    assert_frame_equal(read(extract, Pushdown(("id",))), read(extract).select("id"))


def test_no_rows_have_their_columns(place):
    extract = scan(place, FRAME.clear())

    assert extract.schema == FRAME.schema
    assert read(extract).is_empty()
    assert_frame_equal(extract.frame.collect(), FRAME.clear())


NAMES = ["Größe ☃", 'with "quotes"', "with space", "select", "a.b", "1", "%s", "{x}", "a'b", "back\\slash", "a,b;c\td"]


def test_any_name_that_a_column_can_have(place):
    frame = pl.DataFrame({name: [str(i), None] for i, name in enumerate([*NAMES, "n" * place.longest_name])})
    extract = scan(place, frame)

    assert_frame_equal(read(extract), frame)
    for name in frame.columns:
        assert_frame_equal(
            extract.frame.filter(pl.col(name).is_not_null()).select(name).collect(), frame.select(name).head(1)
        )


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_the_frame_is_what_read_gives(place, engine):
    frame = scan(place).frame

    assert isinstance(frame, pl.LazyFrame)
    assert_frame_equal(frame.collect(engine=engine), FRAME)
    assert_frame_equal(frame.select("ok", "id").collect(engine=engine), FRAME.select("ok", "id"))
    assert frame.select(pl.len()).collect(engine=engine).item() == FRAME.height
    grouped = frame.group_by("ok").agg(pl.col("id").sum()).sort("ok").collect(engine=engine)
    assert_frame_equal(grouped, FRAME.group_by("ok").agg(pl.col("id").sum()).sort("ok"))


def test_columns_are_delivered_and_the_others_can_be_used(place):
    keys = place.holding(FRAME)
    named = (
        {"schema": {"table": "held", "columns": ["name", "id"]}} if "schema" in keys else {"columns": ["name", "id"]}
    )
    made = source(place, keys | named)

    assert made.declared == made.scan("input").delivers == ("name", "id")
    assert made.scan("input").schema == FRAME.schema


def test_a_delivered_column_that_is_not_there_is_an_error(place):
    keys = place.holding(FRAME)
    named = {"schema": {"table": "held", "columns": ["nam"]}} if "schema" in keys else {"columns": ["nam"]}

    with pytest.raises(
        ExtractError, match=r"^source 'input': no column 'nam'\. Did you mean 'name'\? Present: amount,"
    ):
        source(place, keys | named).scan("input")


def test_scan_reads_no_row_and_what_read_meets_is_ours(place):
    extract = source(place, place.breaking()).scan("input")

    with pytest.raises(ExtractError) as caught:
        read(extract)

    is_one_line_without_secrets(caught.value)


def test_an_error_under_the_frame_is_kept_for_whoever_runs_it(place):
    extract = source(place, place.breaking()).scan("input")

    with pytest.raises(Exception):  # noqa: B017 - Polars shows it as an error of its own
        extract.frame.collect()

    is_one_line_without_secrets(extract.failures[0])


def test_what_is_not_there_is_said_by_scan_and_by_check(place):
    made = source(place, place.missing())

    for reach in (made.check, lambda: made.scan("input")):
        with pytest.raises(ExtractError) as caught:
            reach()
        is_one_line_without_secrets(caught.value)


@pytest.mark.parametrize("place", REMOTE, indirect=True)
def test_a_login_that_is_not_known_is_said_to_be_that(place):
    made = source(place, place.refused())

    for reach in (made.check, lambda: made.scan("input")):
        with pytest.raises(SourceAuthenticationError) as caught:
            reach()
        is_one_line_without_secrets(caught.value)
        assert not caught.value.retryable


@pytest.mark.parametrize("place", REMOTE, indirect=True)
def test_a_host_where_nobody_is_is_said_to_be_that_and_may_be_tried_again(place):
    made = source(place, place.unreachable())

    for reach in (made.check, lambda: made.scan("input")):
        with pytest.raises(SourceUnreachableError) as caught:
            reach()
        is_one_line_without_secrets(caught.value)
        assert caught.value.retryable


def test_what_may_not_be_read_is_said_to_be_that(place):
    source(place, place.holding(FRAME)).check()  # imports what root alone may

    with place.forbidden() as keys, pytest.raises(SourcePermissionError) as caught:
        source(place, keys).check()

    is_one_line_without_secrets(caught.value)
    assert not caught.value.retryable


VERBS = [("validate",), ("show",), ("plan",), ("preview",), ("run", "--no-prefect", "--verbose"),
         ("run", "--no-prefect", "--json"), ("history",)]  # fmt: skip


def test_a_run_can_be_repeated_and_no_verb_shows_a_secret(place, tmp_path, monkeypatch):
    flows = commands(place.holding(FRAME) | {"type": place.kind}, tmp_path, monkeypatch)

    for number, (verb, *options) in enumerate(VERBS):
        done = flows(verb, *options)
        assert done.exit_code == 0, done.output
        if verb == "run":
            assert_frame_equal(pl.read_parquet(tmp_path / "there" / "out.parquet"), FRAME)
            said = done.stdout if number == len(VERBS) - 2 else "{}"
            assert json.loads(said).get("rows", {"read": 5})["read"] == 5
    for file in (file for folder in ("there", "home") for file in (tmp_path / folder).rglob("*") if file.is_file()):
        assert PASSWORD.encode() not in file.read_bytes(), file


@pytest.mark.parametrize("place", REMOTE, indirect=True)
@pytest.mark.parametrize("trouble", ["refused", "unreachable", "missing"])
def test_no_verb_that_fails_shows_a_secret(place, trouble, tmp_path, monkeypatch):
    flows = commands(getattr(place, trouble)() | {"type": place.kind}, tmp_path, monkeypatch)

    for verb, *options in VERBS:
        done = flows(verb, *options)
        assert done.exit_code == (0 if verb in {"validate", "show", "history"} else 1), done.output
    for file in (file for file in (tmp_path / "home").rglob("*") if file.is_file()):
        assert PASSWORD.encode() not in file.read_bytes(), file


def commands(keys: dict[str, Any], folder: Path, monkeypatch: Any) -> Callable[..., Any]:
    """Runs verbs on a pipeline with this source, and looks for the secret in what they say."""
    target = {"type": "file", "path": str(folder / "there" / "out.parquet"), "write_mode": "overwrite"}
    pipeline = {"type": "batch", "source": keys, "target": target}
    (folder / "p.yaml").write_text(json.dumps({"pipelines": {"p": pipeline}}))
    monkeypatch.setenv("LOCKGATE_HOME", str(folder / "home"))
    monkeypatch.setenv("LOCKGATE_LOG_LEVEL", "WARNING")  # --verbose sets it, and is undone with the test

    def call(verb: str, *options: str) -> Any:
        done = CliRunner().invoke(main, [verb, "p", *options, "--config", str(folder / "p.yaml")])
        assert PASSWORD not in done.output
        return done

    return call


def is_one_line_without_secrets(error: BaseException) -> None:
    assert isinstance(error, ExtractError)
    assert str(error).startswith("source '")
    assert "\n" not in str(error)
    assert PASSWORD not in str(error)
    assert str(error).endswith(".")


def test_check_says_nothing_where_scan_works(place):
    source(place, place.holding(FRAME)).check()


def test_describe_is_one_line_without_secrets(place):
    extract = scan(place)
    ask = Pushdown(("id",), pl.col("id") > 1, 3)

    for text in (extract.describe(Pushdown()), extract.describe(ask)):
        assert "\n" not in text
        assert PASSWORD not in text
    assert extract.pushed(Pushdown()) is None
    assert PASSWORD not in repr(source(place, place.holding(FRAME)))


def test_the_options_are_frozen_and_unknown_keys_refused(place):
    keys = place.holding(FRAME)

    with pytest.raises(ValidationError, match="frozen"):
        source(place, keys).type = "other"
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        source(place, keys | {"colums": ["id"]})


def open_things() -> set[str]:
    """Files and connections that this process holds open; pipes and the like are others'."""
    found = set()
    for number in Path("/proc/self/fd").iterdir():
        try:
            target = str(number.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:") or "held." in target:
            found.add(target)
    return found


def our_threads() -> set[threading.Thread]:
    """Threads that Python started; those of Polars stay, and look like Python's once they have called it."""
    return {thread for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)}


def eventually_closed(before: set[str], place: Place) -> bool:
    deadline = time.monotonic() + 10
    while open_things() - before and time.monotonic() < deadline:
        if place.closes_late:
            gc.collect()
        time.sleep(0.02)
    return not open_things() - before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's list of open files")
def test_a_reader_that_is_closed_early_leaves_nothing_open(place):
    frame = pl.DataFrame({"id": range(60_000), "name": ["x" * 40] * 60_000})
    keys = place.holding(frame)
    before, threads = open_things(), our_threads()

    def abandoned() -> Iterator[pl.DataFrame]:
        return source(place, keys | {"batch_bytes": 64_000}).scan("input").read(Pushdown())

    batches = abandoned()
    assert next(batches).height < frame.height
    batches.close()
    assert eventually_closed(before, place)

    batches = abandoned()
    next(batches)
    del batches
    assert eventually_closed(before, place)

    never_started = abandoned()
    del never_started
    assert eventually_closed(before, place)

    assert source(place, keys).scan("input").frame.head(1).collect().height == 1
    assert eventually_closed(before, place)
    assert our_threads() <= threads
