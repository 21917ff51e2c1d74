"""SQLite as a source: what a declared type promises, what a value may do to it, and one view of a file."""

import datetime as dt
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from itertools import takewhile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from flows._errors import (
    ExtractError,
    SourceBusyError,
    SourceMissingError,
    SourcePermissionError,
    SourceTypeError,
    SourceUnreachableError,
)
from flows.sources import _snapshots
from flows.sources._base import Extract, Pushdown
from flows.sources.database import Database

COLUMN = pl.col
Scan = Callable[..., Extract]


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "shop ü%20.db"


@pytest.fixture
def run(file) -> Callable[..., None]:
    def execute(*statements: str) -> None:
        with closing(sqlite3.connect(file)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    return execute


@pytest.fixture
def scan(file) -> Scan:
    return lambda query=None, **keys: opened(file, query, **keys)


def opened(file: Path, query: str | None = None, **keys: Any) -> Extract:
    return Database.model_validate({"connection_string": f"sqlite:///{file}", "query": query} | keys).scan("shop")


def numbers(rows: int) -> str:
    """A query of `i`, from 1 to `rows`."""
    return f"(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {rows}) SELECT i FROM n)"


def read(extract: Extract, ask: Pushdown = Pushdown()) -> pl.DataFrame:  # noqa: B008 - frozen
    names = ask.columns if ask.columns is not None else tuple(extract.schema)
    empty = pl.DataFrame(schema={name: extract.schema[name] for name in names})
    return pl.concat([empty, *extract.read(ask)])


# ------------------------------------------------------------------ types

TYPES: list[tuple[str, list[Any], pl.DataType, list[Any]]] = [
    ("INTEGER", [2**63 - 1, -(2**63), None], pl.Int64(), [2**63 - 1, -(2**63), None]),
    ("BIGINT", ["12", 1], pl.Int64(), [12, 1]),
    ("REAL", [0.1, 5, float("inf"), float("-inf"), float("nan")], pl.Float64(),
     [0.1, 5.0, float("inf"), float("-inf"), None]),
    ("DOUBLE PRECISION", [1e308, 5e-324], pl.Float64(), [1e308, 5e-324]),
    ("TEXT", ["a\0b", "größe ☃", "", None, "007"], pl.String(), ["a\0b", "größe ☃", "", None, "007"]),
    ("VARCHAR(3)", ["longer", 5], pl.String(), ["longer", "5"]),
    ("JSON", ['{"a": 1}'], pl.String(), ['{"a": 1}']),
    ("BLOB", [b"\xff\0", b"", None], pl.Binary(), [b"\xff\0", b"", None]),
    ("BOOLEAN", [0, 1, None], pl.Boolean(), [False, True, None]),
    ("DATE", ["2024-02-29", "0001-01-01", "9999-12-31"], pl.Date(), [dt.date(2024, 2, 29), dt.date.min, dt.date.max]),
    ("TIME", ["10:00:00", "23:59:59.999999"], pl.Time(), [dt.time(10), dt.time(23, 59, 59, 999_999)]),
    ("DATETIME", ["2024-01-01 10:00:00.000001", "2024-01-01T10:00:00", "2024-01-01 10:00", "2024-01-01"],
     pl.Datetime("us"),
     [dt.datetime(2024, 1, 1, 10, 0, 0, 1), *[dt.datetime(2024, 1, 1, 10)] * 2, dt.datetime(2024, 1, 1)]),
    ("TIMESTAMP WITH TIME ZONE", ["2024-01-01T10:00:00+02:00", "2024-01-01 10:00:00Z", "2024-01-01 10:00:00"],
     pl.Datetime("us", "UTC"),
     [dt.datetime(2024, 1, 1, hour, tzinfo=dt.UTC) for hour in (8, 10, 10)]),
    ("DECIMAL(12,2)", ["1.50", 2, 0.1, -9999999999.99, None], pl.Decimal(12, 2),
     [Decimal("1.50"), Decimal("2.00"), Decimal("0.10"), Decimal("-9999999999.99"), None]),
    ("DECIMAL_TEXT(38,4)", ["1234567890123456789012345678901234.5678"], pl.Decimal(38, 4),
     [Decimal("1234567890123456789012345678901234.5678")]),
    ("NUMERIC", [1, 2], pl.Int64(), [1, 2]),
    ("NUMERIC", [1, 2.5], pl.Float64(), [1.0, 2.5]),
    ("", ["a", None], pl.String(), ["a", None]),
    ("", [None, None], pl.String(), [None, None]),
    ("", [b"a"], pl.Binary(), [b"a"]),
]  # fmt: skip


@pytest.mark.parametrize(("declared", "values", "dtype", "wanted"), TYPES, ids=[f"{t[0]} {t[1]}" for t in TYPES])
def test_a_column_is_what_it_is_declared_as(file, scan, declared, values, dtype, wanted):
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"CREATE TABLE t (c {declared})")
        connection.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])

    for extract in (scan(schema={"table": "t"}), scan("SELECT c FROM t")):
        assert extract.schema["c"] == dtype
        assert read(extract)["c"].to_list() == wanted
        assert extract.warnings == ()


@pytest.mark.parametrize(
    ("declared", "value", "said"),
    [
        ("INTEGER", "'five'", "column 'c' holds 'five' (text), and is Int64."),
        ("INTEGER", "1.5", "column 'c' holds 1.5 (real), and is Int64."),
        ("INTEGER", "1e300", "column 'c' holds 1.0e+300 (real), and is Int64."),
        ("REAL", "x'00'", "column 'c' holds X'00' (blob), and is Float64."),
        ("TEXT", "x'00'", "column 'c' holds X'00' (blob), and is String."),
        ("BLOB", "'text'", "column 'c' holds 'text' (text), and is Binary."),
        ("BOOLEAN", "2", "column 'c' holds 2 (integer), and is Boolean."),
        ("BOOLEAN", "'true'", "column 'c' holds 'true' (text), and is Boolean."),
        ("DATE", "1704067200", "column 'c' holds 1704067200 (integer), and is Date."),
        ("DATE", "'01/02/2024'", "column 'c' holds '01/02/2024' (text), and is Date."),
        ("DATE", "'2024-02-30'", "column 'c' holds '2024-02-30', which is no Date."),
        ("DATETIME", "'2024-01-01 10:00:00+02:00'",
         "column 'c' holds '2024-01-01 10:00:00+02:00' (text), and is Datetime."),
        ("DATETIME", "'2024-01-01 10:00:00.0000001'",
         "column 'c' holds '2024-01-01 10:00:00.0000001', which is no Datetime."),
        ("DECIMAL(4,2)", "1.005", "column 'c' holds 1.005 (real), and is Decimal(4, 2)."),
        ("DECIMAL_TEXT(4,2)", "'1.005'", "column 'c' holds '1.005', which is no Decimal(4, 2)."),
        ("DECIMAL(4,2)", "123.0", "column 'c' holds '123', which is no Decimal(4, 2)."),
        ("DECIMAL(30,20)", "0.1234567890123456", "column 'c' holds 0.12345678901234"),
        ("TEXT", "CAST(x'ff41' AS TEXT)", "column 'c' holds a text that is not UTF-8."),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_stops_the_run_wherever_it_stands(run, scan, declared, value, said):
    fits = {"DATE": "'2024-01-01'", "DATETIME": "'2024-01-01 10:00:00'", "BLOB": "x'00'", "TEXT": "'a'"}.get(
        declared, "1"
    )
    run(
        f"CREATE TABLE t (c {declared})",
        f"INSERT INTO t SELECT {fits} FROM {numbers(3000)}",
        f"INSERT INTO t VALUES ({value})",
    )

    with pytest.raises(SourceTypeError) as caught:
        read(scan(schema={"table": "t"}))

    assert str(caught.value).startswith(f"source 'shop': {said}")


def test_a_column_that_is_null_for_thousands_of_rows_is_still_what_it_is(run, scan):
    run("CREATE TABLE t (i INTEGER, r REAL, s TEXT, b BLOB)")
    run(f"INSERT INTO t SELECT NULL, NULL, NULL, NULL FROM {numbers(5000)}", "INSERT INTO t VALUES (1, 2, 'x', x'61')")

    rows = read(scan(schema={"table": "t"}))

    assert rows.tail(1).row(0) == (1, 2.0, "x", b"a")
    assert rows.schema == {"i": pl.Int64, "r": pl.Float64, "s": pl.String, "b": pl.Binary}


def test_values_of_several_kinds_in_a_column_without_a_type_are_texts_with_a_warning(run, scan):
    run("CREATE TABLE t (c)", "INSERT INTO t VALUES (1), (0.1), ('x'), (NULL)")
    extract = scan(schema={"table": "t"})

    assert read(extract)["c"].to_list() == ["1", "0.1", "x", None]
    assert extract.warnings == ("shop.c holds values of several kinds and is read as text",)


def test_dtypes_say_what_a_column_is(run, scan):
    run(
        "CREATE TABLE t (code INTEGER, at DATETIME, price REAL, epoch TIMESTAMP)",
        "INSERT INTO t VALUES (7, '2024-01-01 10:00:00+02:00', 0.1, 1704067200), ('x7', NULL, NULL, NULL)",
    )
    dtypes = {"code": "text", "at": "timestamptz", "price": "decimal(8,3)", "epoch": "bigint"}

    rows = read(scan(schema={"table": "t"}, dtypes=dtypes))

    assert rows.row(0) == ("7", dt.datetime(2024, 1, 1, 8, tzinfo=dt.UTC), Decimal("0.100"), 1704067200)
    assert rows["code"].to_list() == ["7", "x7"]
    with pytest.raises(ExtractError, match=r"^source 'shop': no column 'cod'\. Did you mean 'code'\?"):
        scan(schema={"table": "t"}, dtypes={"cod": "text"})


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(10**11), 10**11), min_size=1, max_size=30))
@example([10**11, -1, 0, 115])
def test_a_decimal_that_was_stored_as_a_float_is_the_decimal(tmp_path_factory, cents):
    file = tmp_path_factory.mktemp("d") / "d.db"
    values = [Decimal(number) / 100 for number in cents]
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE t (c DECIMAL(14,2))")
        connection.executemany("INSERT INTO t VALUES (?)", [(float(value),) for value in values])

    assert read(opened(file, schema={"table": "t"}))["c"].to_list() == values


# ------------------------------------------------------------------ tables and queries


def test_every_kind_of_table_is_read(run, scan):
    run(
        "CREATE TABLE plain (id INTEGER PRIMARY KEY, twice INTEGER GENERATED ALWAYS AS (id * 2))",
        "CREATE TABLE strict_ (id INTEGER PRIMARY KEY, a ANY) STRICT",
        "CREATE TABLE keyed (id TEXT PRIMARY KEY) WITHOUT ROWID",
        "CREATE VIEW seen AS SELECT id, twice + 1 AS more FROM plain",
        "INSERT INTO plain (id) VALUES (1), (2)",
        "INSERT INTO strict_ VALUES (1, 'x')",
        "INSERT INTO keyed VALUES ('b'), ('a')",
    )

    assert read(scan(schema={"table": "plain"})).rows() == [(1, 2), (2, 4)]
    assert read(scan(schema={"table": "strict_"})).rows() == [(1, "x")]
    assert read(scan(schema={"table": "main.KEYED"})).rows() == [("a",), ("b",)]
    assert read(scan(schema={"table": "seen"})).rows() == [(1, 3), (2, 5)]


@pytest.mark.parametrize("name", ["Größe ☃", 'with "quotes"', "select", "a.b", "{x}", "it's", "n" * 300])
def test_any_name_that_a_table_can_have(run, scan, name):
    quoted = '"' + name.replace('"', '""') + '"'
    run(f"CREATE TABLE {quoted} (id INTEGER)", f"INSERT INTO {quoted} VALUES (1)")

    assert read(scan(schema={"table": quoted}, split_on="rowid")).rows() == [(1,)]


@pytest.mark.parametrize(
    ("query", "parameters", "value"),
    [
        ("SELECT :x AS v", {"x": "it's"}, "it's"),
        ("SELECT :x AS v", {"x": 2**62}, 2**62),
        ("SELECT :x AS v", {"x": 0.1}, 0.1),
        ("SELECT :x AS v", {"x": dt.date(2024, 2, 29)}, "2024-02-29"),
        ("SELECT :x AS v", {"x": True}, 1),
        ("SELECT ':x' || $1 AS v; -- :y", {"x": "\\'; DROP TABLE t; --"}, ":x\\'; DROP TABLE t; --"),
    ],
)
def test_a_parameter_is_a_value(run, scan, query, parameters, value):
    run("CREATE TABLE t (id)")

    assert read(scan(query, parameters=parameters))["v"].to_list() == [value]


@pytest.mark.parametrize(
    ("query", "keys", "said"),
    [
        (None, {"schema": {"table": "custmers"}}, "no table 'custmers'. Did you mean 'customers'? Present: customers."),
        (None, {"schema": {"table": "public.customers"}}, "SQLite has no schema 'public'. Write 'table: customers'."),
        (None, {"schema": {"table": "customers"}, "split_on": "nam"},
         "no column 'nam'. Did you mean 'name'? Present: id, name."),
        (None, {"schema": {"table": "customers"}, "split_on": "name"},
         ("split_on 'name' is String, which has no even parts. "
          "Name a column of whole numbers, dates or timestamps; or, of a table, 'rowid'.")),
        ("SELECT * FROM custmers", {}, "no such table: custmers. Check the name."),
        ("SELECT 1 AS a, 2 AS a", {},
         "two columns of the query are called 'a'. Give one of them another name with AS."),
        ("DELETE FROM customers", {}, 'near "DELETE": syntax error. Check the query.'),
        ("SELECT :a AS a", {"parameters": {"a": b"x"}},
         "the parameter 'a' is a bytes, which is no SQL value. Write a text, a number or a date."),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_in_one_line(run, scan, query, keys, said):
    run("CREATE TABLE customers (id INTEGER, name TEXT)")

    with pytest.raises(ExtractError) as caught:
        scan(query, **keys)

    assert str(caught.value) == f"source 'shop': {said}"


# ------------------------------------------------------------------ pushdown

TEXTS = st.one_of(
    st.sampled_from(["a", "A", "a ", "", "ä", "123", "!23", "\U0001f600"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3),
)
ROWS = [
    (1, 5, 0.5, "a", "a", "a", 1, "2024-01-01"),
    (2, -(2**63), float("inf"), "A", "A", "A", 0, "0001-01-01"),
    (3, 2**63 - 1, -0.0, "ä", "123", "ä", None, "9999-12-31"),
    (4, None, None, None, None, None, 1, None),
    (5, 2**53 + 1, 2.0**53, "!23", "!23", "", 0, "1970-01-01"),
]


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("pushed") / "p.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, i BIGINT, r REAL, s TEXT, n STRING, f TEXT COLLATE NOCASE, "
            "b BOOLEAN, d DATE)"
        )
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?)", ROWS)
    return file


def comparisons(name: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[pl.Expr]:
    column = COLUMN(name)
    operators = [column.__eq__, column.__ne__, column.__lt__, column.__le__, column.__gt__, column.__ge__]
    return st.one_of(
        st.builds(lambda compare, value: compare(pl.lit(value)), st.sampled_from(operators), values),
        st.lists(values, max_size=3).map(column.is_in),
        st.tuples(values, values).map(lambda ends: column.is_between(*map(pl.lit, ends))),
        st.sampled_from([column.is_null(), column.is_not_null()]),
    )


LEAVES = st.one_of(
    comparisons("i", st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([5, 2**53, 2**53 + 1]))),
    comparisons("r", st.floats()),
    *(comparisons(name, TEXTS) for name in "sf"),
    comparisons("d", st.dates()),
    st.sampled_from([COLUMN("b"), ~COLUMN("b"), COLUMN("b").eq_missing(None)]),
)
PREDICATES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(lambda one: ~one),
        st.tuples(inner, inner).map(lambda two: two[0] & two[1]),
        st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
    ),
    max_leaves=4,
)  # fmt: skip


def test_pushed_sql_never_leaves_out_a_row_for_which_the_filter_is_true(stored):
    extract = opened(stored, "SELECT id, i, r, s, f, b, d FROM t")
    everything = read(extract)
    asked: list[Pushdown] = []
    pushed: list[str] = []

    def in_memory(ask: Pushdown) -> Iterator[pl.DataFrame]:
        asked.append(ask)
        yield everything

    frame = replace(extract, read=in_memory).frame
    with closing(sqlite3.connect(stored)) as connection:

        @settings(max_examples=400, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
        @given(predicate=PREDICATES)
        def holds(predicate: pl.Expr) -> None:
            asked.clear()
            expected = everything.filter(predicate)
            assert_frame_equal(frame.filter(predicate).collect(), expected)
            for text in filter(None, map(extract.pushed, asked)):
                pushed.append(text)
                sent = {row[0] for row in connection.execute(f"SELECT id FROM t WHERE {text}")}
                assert set(expected["id"]) <= sent

        holds()

    assert len(pushed) > 100


def test_what_sqlite_compares_in_its_own_way_is_not_pushed(stored):
    extract = opened(stored, schema={"table": "t"})

    def pushed(predicate: pl.Expr) -> str | None:
        return extract.pushed(Pushdown(None, predicate))

    assert extract.schema["n"] == pl.String  # but numbers like 123 are numbers in it
    assert pushed(COLUMN("r") > 0.1) is None
    assert pushed(COLUMN("f") == "a") == "\"f\" COLLATE BINARY = 'a'"
    assert pushed(COLUMN("i") > 5) == '"i" > 5'
    assert pushed(COLUMN("d") >= dt.date(2024, 1, 1)) == "\"d\" COLLATE BINARY >= '2024-01-01'"
    assert pushed(COLUMN("b")) == '"b"'


# ------------------------------------------------------------------ one view


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_what_a_concurrent_writer_does_is_not_seen_by_a_run(run, file, scan, mode):
    run(f"PRAGMA journal_mode = {mode}", "CREATE TABLE t (id INTEGER)", "INSERT INTO t VALUES (1)")
    writer = "INSERT INTO t VALUES (2)"

    with _snapshots.shared():
        first, second = scan(schema={"table": "t"}), scan("SELECT count(*) AS n FROM t")
        assert read(first)["id"].to_list() == [1]
        if mode == "WAL":
            run(writer)
        else:
            told = subprocess.run([sys.executable, "-c", _WRITER, str(file)], capture_output=True, check=False)
            assert b"database is locked" in told.stderr
        assert read(first)["id"].to_list() == [1]
        assert read(second)["n"].to_list() == [1]
        assert read(scan(schema={"table": "t"}))["id"].to_list() == [1]
        _snapshots.release()
        if mode == "DELETE":
            run(writer)
        assert read(first)["id"].to_list() == [1, 2]


def test_a_writer_in_the_middle_of_a_read_changes_nothing_of_it(run, scan):
    rows = f"INSERT INTO t SELECT i, printf('%060d', i) FROM {numbers(50_000)}"
    run("PRAGMA journal_mode = WAL", "CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT)", rows)
    batches = scan(schema={"table": "t"}, batch_bytes=64_000).read(Pushdown(("id",)))
    ids = next(batches)["id"].to_list()

    run("DELETE FROM t WHERE id > 100", "UPDATE t SET id = id + 100000")

    for batch in batches:
        ids += batch["id"].to_list()
    assert ids == list(range(1, 50_001))


def test_a_view_that_is_released_under_a_reader_ends_with_it(run, scan):
    run("CREATE TABLE t (s TEXT)", f"INSERT INTO t SELECT printf('%01000d', 1) FROM {numbers(2000)}")
    with _snapshots.shared():
        batches = scan(schema={"table": "t"}, batch_bytes=64_000).read(Pushdown())
        found = next(batches).height
        _snapshots.release()
        assert found + sum(batch.height for batch in batches) == 2_000
    run("DROP TABLE t")  # nobody has it any more


def test_sides_of_a_join_read_at_the_same_time(run, scan):
    run("CREATE TABLE t (id INTEGER PRIMARY KEY)", f"INSERT INTO t SELECT i FROM {numbers(20_000)}")
    with _snapshots.shared():
        left, right = scan(schema={"table": "t"}), scan("SELECT id, id * 2 AS twice FROM t")
        joined = left.frame.join(right.frame, on="id").select(pl.len(), COLUMN("twice").sum())
        assert joined.collect(engine="streaming").row(0) == (20_000, 20_000 * 20_001)


# ------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("url", "kind", "said"),
    [
        ("sqlite:///nope.db", SourceMissingError, "sqlite:///nope.db: there is no such file, seen from '"),
        ("sqlite://", SourceMissingError, "'sqlite://' is a database in memory, which ends with the run."),
        ("sqlite:///:memory:", SourceMissingError,
         "'sqlite:///:memory:' is a database in memory, which ends with the run."),
        ("sqlite://host/x.db", SourceMissingError, "'host' stands where a host would. Write sqlite:///relative.db"),
        ("sqlite:///x.db?mode=rw", SourceMissingError, "no options are known behind '?'. Write sqlite:///x.db."),
        ("x.db", SourceUnreachableError, "***: it has no scheme. Write postgresql://..., sqlite:///file.db"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_there_is_an_error_and_is_not_made(tmp_path, monkeypatch, url, kind, said):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(kind) as caught:
        Database.model_validate({"connection_string": url, "query": "SELECT 1 AS a"}).check()

    assert str(caught.value).startswith(f"source 'source': {said}")
    assert list(tmp_path.iterdir()) == []


def test_a_path_is_relative_to_the_working_directory(run, tmp_path, file, monkeypatch):
    run("CREATE TABLE t (id INTEGER)")
    monkeypatch.chdir(tmp_path)

    for url in (f"sqlite:///{file.name}", f"sqlite+pysqlite:///{file}"):
        Database.model_validate({"connection_string": url, "schema": {"table": "t"}}).check()


def test_what_is_no_database_is_said(tmp_path):
    (tmp_path / "x.db").write_text("id,name\n1,Ada\n" * 500)

    with pytest.raises(SourceMissingError, match=r"^source 'shop': .*file is not a database\. Name a SQLite database"):
        opened(tmp_path / "x.db", schema={"table": "t"})


def test_a_database_that_is_locked_is_busy_and_worth_a_retry(run, file, scan, monkeypatch):
    monkeypatch.setattr("flows.sources._sqlite_view._BUSY_SECONDS", 0)
    run("CREATE TABLE t (id INTEGER)")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("BEGIN EXCLUSIVE")

        with pytest.raises(SourceBusyError, match=r"database is locked\. Another program is writing") as caught:
            scan(schema={"table": "t"})

    assert caught.value.retryable
    scan(schema={"table": "t"})


def test_a_lock_that_is_let_go_is_waited_for(run, file, scan):
    run("CREATE TABLE t (id INTEGER)")
    connection = sqlite3.connect(file, check_same_thread=False)
    connection.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.3, connection.rollback)
    timer.start()
    assert read(scan(schema={"table": "t"})).is_empty()
    timer.join()
    connection.close()


def test_a_file_that_may_not_be_read_is_a_matter_of_permission(run, file, tmp_path):
    run("CREATE TABLE t (id INTEGER)")
    file.chmod(0o000)
    for folder in takewhile(lambda each: each != Path(tempfile.gettempdir()), (tmp_path, *tmp_path.parents)):
        folder.chmod(0o755)
    told = subprocess.run([sys.executable, "-c", _AS_NOBODY, str(file)], capture_output=True, text=True, check=False)

    assert told.stdout.startswith(SourcePermissionError.__name__), told.stderr
    assert "this user may not read the file. Grant it." in told.stdout


_WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0)
connection.execute("INSERT INTO t VALUES (2)")
connection.commit()
"""
_AS_NOBODY = """
import os, sys
from flows.sources.database import Database
from flows.sources import _scan_of_sqlite
from flows._errors import ExtractError
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
try:
    Database.model_validate({"connection_string": f"sqlite:///{sys.argv[1]}", "schema": {"table": "t"}}).check()
except ExtractError as error:
    print(type(error).__name__, error)
"""
