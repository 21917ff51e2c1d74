"""DuckDB as a source: its types, its texts' collations, and a file that nobody else writes meanwhile."""

import datetime as dt
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from flows._errors import ExtractError, SourceBusyError, SourceMissingError, SourceTypeError
from flows.sources import _snapshots
from flows.sources._base import Extract, Pushdown
from flows.sources.database import Database

COLUMN = pl.col
Scan = Callable[..., Extract]
US, UTC = pl.Datetime("us"), pl.Datetime("us", "UTC")


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "shop ü.duckdb"


@pytest.fixture
def run(file) -> Callable[..., None]:
    def execute(*statements: str) -> None:
        with closing(duckdb.connect(file)) as connection:
            for statement in statements:
                connection.execute(statement)

    return execute


@pytest.fixture
def scan(file, run) -> Scan:
    run()  # the file is there
    return lambda query=None, **keys: opened(file, query, **keys)


def opened(file: Path, query: str | None = None, **keys: Any) -> Extract:
    return Database.model_validate({"connection_string": f"duckdb:///{file}", "query": query} | keys).scan("shop")


def read(extract: Extract, ask: Pushdown = Pushdown()) -> pl.DataFrame:  # noqa: B008 - frozen
    names = ask.columns if ask.columns is not None else tuple(extract.schema)
    empty = pl.DataFrame(schema={name: extract.schema[name] for name in names})
    return pl.concat([empty, *extract.read(ask)])


TYPES: list[tuple[str, pl.DataType, Any]] = [
    ("'-128'::TINYINT", pl.Int8(), -128),
    ("'18446744073709551615'::UBIGINT", pl.UInt64(), 2**64 - 1),
    ("'99999999999999999999999999999999999999'::HUGEINT", pl.Decimal(38, 0), Decimal(10**38 - 1)),
    ("sum(5)", pl.Decimal(38, 0), Decimal(5)),
    ("'7'::UHUGEINT", pl.Decimal(38, 0), Decimal(7)),
    ("'1.50'::DECIMAL(12, 2)", pl.Decimal(12, 2), Decimal("1.50")),
    ("'inf'::FLOAT", pl.Float32(), float("inf")),
    ("0.1::DOUBLE", pl.Float64(), 0.1),
    ("true", pl.Boolean(), True),
    ("'größe ☃'", pl.String(), "größe ☃"),
    ("'x'::ENUM ('x', 'y')", pl.String(), "x"),
    ("uuid '4f9b66f6-03de-4346-ab8d-63482655cf1c'", pl.String(), "4f9b66f6-03de-4346-ab8d-63482655cf1c"),
    ("'{\"a\": 1}'::JSON", pl.String(), '{"a": 1}'),
    ("'\\xFF\\x00'::BLOB", pl.Binary(), b"\xff\0"),
    ("DATE '2024-02-29'", pl.Date(), dt.date(2024, 2, 29)),
    ("TIME '23:59:59.999999'", pl.Time(), dt.time(23, 59, 59, 999_999)),
    ("TIMESTAMP '2024-01-01 00:00:00.000001'", US, dt.datetime(2024, 1, 1, 0, 0, 0, 1)),
    ("TIMESTAMP_S '2024-01-01 00:00:01'", US, dt.datetime(2024, 1, 1, 0, 0, 1)),
    ("TIMESTAMP_MS '2024-01-01 00:00:00.001'", US, dt.datetime(2024, 1, 1, 0, 0, 0, 1000)),
    ("TIMESTAMPTZ '2024-01-01 00:00:00+02'", UTC, dt.datetime(2023, 12, 31, 22, tzinfo=dt.UTC)),
    ("[1, NULL]", pl.List(pl.Int32()), [1, None]),
    ("array_value(1::FLOAT, 2)", pl.List(pl.Float32()), [1.0, 2.0]),
    ("[uuid '4f9b66f6-03de-4346-ab8d-63482655cf1c']", pl.List(pl.String()), ["4f9b66f6-03de-4346-ab8d-63482655cf1c"]),
    ("{'a': 1, 'b \"c': TIMESTAMPTZ '2024-01-01 00:00:00+00'}", pl.Struct({"a": pl.Int32(), 'b "c': UTC}),
     {"a": 1, 'b "c': dt.datetime(2024, 1, 1, tzinfo=dt.UTC)}),
    ("MAP {'a': 1::HUGEINT}", pl.List(pl.Struct({"key": pl.String(), "value": pl.Decimal(38, 0)})),
     [{"key": "a", "value": Decimal(1)}]),
    ("NULL", pl.String(), None),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "dtype", "value"), TYPES, ids=[t[0] for t in TYPES])
def test_every_type_arrives_exactly(run, scan, expression, dtype, value):
    run(f"CREATE TABLE t AS SELECT {expression} AS c UNION ALL SELECT NULL")

    for extract in (scan(schema={"table": "t"}), scan(f"SELECT {expression} AS c UNION ALL SELECT NULL")):
        rows = read(extract)
        assert rows.schema["c"] == extract.schema["c"] == dtype
        assert rows["c"].to_list() == [value, None]
        assert extract.warnings == ()


def test_nanoseconds_are_kept(scan):
    rows = read(scan("SELECT TIMESTAMP_NS '2024-01-01 00:00:00.123456789' AS c"))

    assert rows.schema["c"] == pl.Datetime("ns")
    assert rows["c"].dt.nanosecond().to_list() == [123_456_789]


@pytest.mark.parametrize(
    ("expression", "text", "told"),
    [
        ("INTERVAL 1 MONTH", "1 month", "is INTERVAL and is read as text"),
        ("'101'::BIT", "101", "is BIT and is read as text"),
        ("'12:00:00+02'::TIMETZ", "12:00:00+02", "is TIME WITH TIME ZONE and is read as text"),
        ("union_value(k := 1)", "1", "is UNION and is read as text"),
        ("[INTERVAL 1 DAY]", ["1 day"], "is INTERVAL[], of which INTERVAL is read as text"),
    ],
)
def test_what_has_no_twin_is_a_text_with_a_warning(scan, expression, text, told):
    extract = scan(f"SELECT {expression} AS c")

    assert read(extract)["c"].to_list() == [text]
    assert extract.warnings == (f"shop.c {told}",)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("'infinity'::DATE", "column 'c' holds 'infinity' or a year after 262142"),
        ("'-infinity'::TIMESTAMP", "column 'c' holds 'infinity' or a year after 262142"),
        ("[{'d': 'infinity'::TIMESTAMPTZ}]", "column 'c' holds 'infinity' or a year after 262142"),
        ("TIME '24:00:00'", "column 'c' holds '24:00:00', which is the next day's."),
        ("'170141183460469231731687303715884105727'::HUGEINT", "Could not cast value 1701411834604692317"),
    ],
)
def test_what_polars_cannot_hold_stops_the_run(scan, expression, said):
    extract = scan(f"SELECT {expression} AS c")

    with pytest.raises(ExtractError) as caught:
        read(extract)

    assert str(caught.value).startswith(f"source 'shop': {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("query", "parameters", "value"),
    [
        ("SELECT :x AS v", {"x": "it's"}, "it's"),
        ("SELECT :x AS v", {"x": dt.date(2024, 2, 29)}, dt.date(2024, 2, 29)),
        ("SELECT :x AS v", {"x": [1, 2]}, [1, 2]),
        ("SELECT {'a': :x}.a AS v", {"x": 1}, 1),
        ("SELECT {'a':y, 'b': :x} AS v FROM (SELECT 7 AS y)", {"x": 1}, {"a": 7, "b": 1}),
        ("SELECT [1, 2, 3][1:2] AS v", {}, [1, 2]),
        ("SELECT $1::VARCHAR || 'x' AS v", {"x": 5}, "5x"),
    ],
)
def test_a_parameter_is_a_value_and_a_colon_may_be_none(scan, query, parameters, value):
    assert read(scan(query, parameters=parameters))["v"].to_list() == [value]


ROWS = """
CREATE TABLE t (id INT, i UBIGINT, h HUGEINT, f DOUBLE, n DECIMAL(12, 2), s VARCHAR, c VARCHAR COLLATE NOCASE, b BOOL,
                d DATE, z TIMESTAMPTZ);
INSERT INTO t VALUES
    (1, 0, -5, 'nan', 1.50, 'a', 'a', true, '2024-01-01', '2024-01-01 00:00:00+00'),
    (2, 18446744073709551615, 5, 'inf', -0.01, 'A', 'A', false, '0001-01-01', '2024-01-01 00:00:00.000001+00'),
    (3, 5, 0, '-0.0', 9999999999.99, 'ä ', 'ä', NULL, '9999-12-31', '1969-12-31 23:59:59+00'),
    (4, NULL, NULL, NULL, NULL, NULL, NULL, true, NULL, NULL),
    (5, 7, 1, 0.1, 0, '', '', false, '1970-01-01', '2024-06-01 00:00:00+00');
"""


@pytest.mark.parametrize(
    ("predicate", "pushed"),
    [
        (COLUMN("i") > 5, '"i" > 5'),
        (COLUMN("h") < 5, '"h" < 5'),
        (COLUMN("id") + 1 > 5, None),
        (COLUMN("f") > 0.1, "\"f\" > CAST('0.1' AS DOUBLE)"),
        (COLUMN("f") >= 0.0, "\"f\" >= CAST('0.0' AS DOUBLE)"),
        (COLUMN("n") >= Decimal("-0.01"), '"n" >= -0.01'),
        (COLUMN("s") > "A", "\"s\" COLLATE POSIX > 'A'"),
        (COLUMN("c") != "a", "\"c\" COLLATE POSIX <> 'a'"),
        (COLUMN("c").is_in(["A", "ä"]), "\"c\" COLLATE POSIX IN ('A', 'ä')"),
        (COLUMN("d") <= dt.date(1970, 1, 1), "\"d\" <= DATE '1970-01-01'"),
        (COLUMN("z") > dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
         "\"z\" > TIMESTAMP WITH TIME ZONE '2024-01-01 00:00:00+00:00'"),
        (~COLUMN("b"), 'NOT ("b")'),
    ],
    ids=str,
)  # fmt: skip
def test_a_filter_is_pushed_where_it_means_the_same(run, scan, predicate, pushed):
    run(ROWS)
    extract = scan(schema={"table": "t"})
    asked: list[Pushdown] = []

    def spy(ask: Pushdown) -> Iterator[pl.DataFrame]:
        asked.append(ask)
        return extract.read(ask)

    found = replace(extract, read=spy).frame.filter(predicate).collect()

    assert found["id"].to_list() == read(extract).filter(predicate)["id"].to_list()
    assert [extract.pushed(ask) for ask in asked] == [pushed]


def test_nan_is_the_greatest_on_both_sides(run, scan):
    run(ROWS)
    extract = scan(schema={"table": "t"})

    for predicate in (COLUMN("f") > 1e300, COLUMN("f") <= 0.1, COLUMN("f") != 0.1, COLUMN("f").is_between(0.0, 1.0)):
        assert (
            extract.frame.filter(predicate).collect()["id"].to_list() == read(extract).filter(predicate)["id"].to_list()
        )


def test_texts_without_a_collation_are_compared_as_they_are(run, scan):
    run("CREATE TABLE t (s VARCHAR)", "INSERT INTO t VALUES ('a'), ('A')")
    ask = Pushdown(None, COLUMN("s") == "a")

    assert scan(schema={"table": "t"}).pushed(ask) == "\"s\" = 'a'"
    assert scan("SELECT s COLLATE NOCASE AS s FROM t").pushed(ask) == "\"s\" COLLATE POSIX = 'a'"
    assert read(scan("SELECT s COLLATE NOCASE AS s FROM t"), ask)["s"].to_list() == ["a"]


@pytest.mark.parametrize(
    ("query", "keys", "kind", "said"),
    [
        (None, {"schema": {"table": "custmers"}}, SourceMissingError, "no table 'custmers'. Did you mean 'customers'?"),
        (None, {"schema": {"table": "customers"}, "split_on": "name"}, SourceTypeError,
         "split_on 'name' is String, which has no even parts."),
        ("SELECT * FROM custmers", {}, SourceMissingError,
         "Table with name custmers does not exist. Check the name, and the schema it is in."),
        ("SELECT 1 AS a, 2 AS a", {}, ExtractError, "two columns of the query are called 'a'."),
        ("SELECT 1 +", {}, ExtractError, 'syntax error at or near "+". Check the query.'),
        ("SELECT 1 AS a", {"dtypes": {"a": "text"}}, SourceTypeError, "DuckDB knows its types. Remove 'dtypes'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_in_one_line(run, scan, query, keys, kind, said):
    run("CREATE TABLE customers (id INTEGER, name TEXT)")

    with pytest.raises(kind) as caught:
        scan(query, **keys)

    assert str(caught.value).startswith(f"source 'shop': {said}")
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_not_looked_for_among_our_variables(scan):
    options = pl.DataFrame({"a": [1]})
    assert options.height == 1
    with pytest.raises(SourceMissingError, match="Table with name options does not exist"):
        scan("SELECT * FROM options")


def test_a_file_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(SourceMissingError, match="there is no such file"):
        opened(tmp_path / "nope.duckdb", "SELECT 1 AS a")
    (tmp_path / "x.duckdb").write_text("hello" * 5000)
    with pytest.raises(SourceMissingError, match=r"it is not a valid DuckDB database file\. Name a DuckDB database"):
        opened(tmp_path / "x.duckdb", "SELECT 1 AS a")
    assert [path.name for path in tmp_path.iterdir()] == ["x.duckdb"]


def test_the_package_is_named_where_it_is_missing(scan, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)

    with pytest.raises(ExtractError) as caught:
        scan("SELECT 1 AS a")

    assert str(caught.value) == "source 'shop': DuckDB needs a package. Run: pip install 'lockgate[duckdb]'."


_WRITER = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1])
connection.execute("INSERT INTO t VALUES (2)")
print("open", flush=True)
sys.stdin.read()
"""


def test_a_file_that_another_process_writes_is_busy(run, file, scan):
    run("CREATE TABLE t (id INTEGER)", "INSERT INTO t VALUES (1)")
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdout
    assert writer.stdout.readline() == b"open\n"

    with pytest.raises(SourceBusyError, match="Another program has the database open to write") as caught:
        opened(file, schema={"table": "t"})

    writer.communicate(b"")
    assert caught.value.retryable
    assert sorted(read(opened(file, schema={"table": "t"}))["id"]) == [1, 2]


def test_nobody_writes_while_a_run_reads(run, file):
    run("CREATE TABLE t (id INTEGER)", "INSERT INTO t VALUES (1)")

    with _snapshots.shared():
        extract = opened(file, schema={"table": "t"})
        assert read(extract)["id"].to_list() == [1]
        told = subprocess.run([sys.executable, "-c", _WRITER, str(file)], input=b"", capture_output=True, check=False)
        assert b"Could not set lock on file" in told.stderr
        assert read(extract)["id"].to_list() == [1]
        _snapshots.release()
        subprocess.run([sys.executable, "-c", _WRITER, str(file)], input=b"", capture_output=True, check=True)
        assert sorted(read(extract)["id"]) == [1, 2]


@pytest.mark.parametrize("name", ["Größe ☃", 'with "quotes"', "select", "a.b", "{x}", "it's", "n" * 300])
def test_any_name_that_a_table_can_have(run, scan, name):
    quoted = '"' + name.replace('"', '""') + '"'
    run(f"CREATE TABLE {quoted} (id INTEGER)", f"INSERT INTO {quoted} VALUES (1)")

    assert read(scan(schema={"table": quoted}, split_on="rowid")).rows() == [(1,)]


def test_tables_of_other_schemas_views_and_generated_columns(run, scan):
    run(
        "CREATE SCHEMA sales",
        "CREATE TABLE sales.orders (id INTEGER, twice INTEGER GENERATED ALWAYS AS (id * 2))",
        "INSERT INTO sales.orders VALUES (1)",
        "CREATE VIEW seen AS SELECT id + 1 AS more FROM sales.orders",
    )

    assert read(scan(schema={"table": "sales.orders"})).rows() == [(1, 2)]
    assert read(scan(schema={"table": "seen"})).rows() == [(2,)]


def test_random_rows_come_back(run, scan):
    wanted = [str(uuid.UUID(int=number)) for number in range(20_000)]
    run("CREATE TABLE t (u UUID)")
    run("INSERT INTO t SELECT printf('00000000-0000-0000-0000-%012x', i)::UUID FROM range(20000) AS r (i)")

    assert read(scan(schema={"table": "t"}, batch_bytes=64_000))["u"].to_list() == wanted
