"""Whole runs from SQLite and DuckDB into PostgreSQL, from two databases at once, and from a driver nobody knows."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import psycopg
import pytest

from flows import pipeline
from flows._config import Pipeline, load
from flows._errors import ConfigError, ExtractError, SourceTypeError
from flows.sources._base import Pushdown
from flows.sources.database import Database

pytestmark = pytest.mark.postgres
Connect = Callable[[], psycopg.Connection]

COLUMN = pl.col
ORDERS = [
    (1, "ada", "10.50", "2024-01-01", True),
    (2, "bob", "0.10", "2024-01-02", False),
    (2, "bob", "7.00", "2024-01-03", True),  # its id is there twice
    (3, "cyd", "99999999.99", "2024-02-29", True),
    (4, "ada", "1.00", "2024-03-01", True),
]


@pytest.fixture
def sqlite_file(tmp_path) -> Path:
    file = tmp_path / "shop.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(
            "CREATE TABLE orders (id INTEGER, customer TEXT, amount DECIMAL(10,2), day DATE, paid BOOLEAN)"
        )
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", ORDERS)
    return file


@pytest.fixture
def duckdb_file(tmp_path) -> Path:
    file = tmp_path / "crm.duckdb"
    with closing(duckdb.connect(file)) as connection:
        connection.execute("CREATE TABLE customers (name VARCHAR, country VARCHAR, since TIMESTAMPTZ, score HUGEINT)")
        connection.execute(
            "INSERT INTO customers VALUES ('ada', 'GB', TIMESTAMPTZ '2020-01-01 00:00:00+00', 10), "
            "('bob', 'US', TIMESTAMPTZ '2021-01-01 00:00:00+02', 20), ('cyd', 'GB', NULL, NULL)"
        )
    return file


@pytest.fixture
def configured(database, tmp_path) -> Callable[..., Pipeline]:
    """Makes pipelines into table `t` of this test's database; keyword arguments are YAML keys."""

    def make(**keys: Any) -> Pipeline:
        target = {"type": "database", "connection_string": database, "table_name": "t", "write_mode": "overwrite"}
        file = tmp_path / "p.yaml"
        file.write_text(json.dumps({"pipelines": {"p": {"type": "batch", "target": target} | keys}}))
        return load(file).pipeline("p")

    return make


def orders(file: Path, **keys: Any) -> dict[str, Any]:
    return {"type": "database", "connection_string": f"sqlite:///{file}", "schema": {"table": "orders"}} | keys


def customers(file: Path) -> dict[str, Any]:
    return {"type": "database", "connection_string": f"duckdb:///{file}", "schema": {"table": "customers"}}


@pytest.mark.parametrize("keys", [{}, {"split_on": "id", "splits": 3}], ids=["whole", "ranges"])
def test_from_sqlite_with_rows_that_are_looked_up_again(configured, connect: Connect, sqlite_file, keys):
    record = pipeline.run(
        configured(
            source=orders(sqlite_file, **keys),
            transformations=[{"type": "filter", "parameters": {"where": "paid or id = 2"}}],
            quality_rules=[{"type": "unique", "field": "id"}],
            error_handling={"max_failed_ratio": 1},
        )
    )

    assert record.status == "published"
    assert record.rows.quarantined == 2  # which a second read of the source finds
    rows = connect().execute("SELECT id, amount, day, paid FROM t ORDER BY id").fetchall()
    assert rows == [
        (1, Decimal("10.50"), date(2024, 1, 1), True),
        (3, Decimal("99999999.99"), date(2024, 2, 29), True),
        (4, Decimal("1.00"), date(2024, 3, 1), True),
    ]


def test_a_join_of_two_databases(configured, connect: Connect, sqlite_file, duckdb_file):
    record = pipeline.run(
        configured(
            sources={"orders": orders(sqlite_file), "customers": customers(duckdb_file)},
            transformations=[
                {"type": "join", "parameters": {"source": "customers", "left_on": "customer", "right_on": "name"}},
                {
                    "type": "aggregate",
                    "parameters": {
                        "group_by": ["country"],
                        "aggregations": [{"field": "amount", "function": "sum", "alias": "total"}],
                    },
                },
            ],
        )
    )

    assert record.status == "published"
    rows = connect().execute("SELECT country, total FROM t ORDER BY country").fetchall()
    assert rows == [("GB", Decimal("100000011.49")), ("US", Decimal("7.10"))]


def test_from_duckdb_on_the_command_line_without_a_word_too_many(database, tmp_path, connect: Connect, duckdb_file):
    target = {"type": "database", "connection_string": database, "table_name": "t", "write_mode": "overwrite"}
    config = {"pipelines": {"p": {"type": "batch", "source": customers(duckdb_file), "target": target}}}
    (tmp_path / "p.yaml").write_text(json.dumps(config))

    command = [
        sys.executable,
        "-m",
        "flows",
        "run",
        "p",
        "--config",
        str(tmp_path / "p.yaml"),
        "--no-prefect",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"]["written"] == 3
    assert "leaked" not in done.stderr
    assert "Traceback" not in done.stderr
    row = connect().execute("SELECT since, score FROM t WHERE name = 'bob'").fetchone()
    assert row is not None
    assert (row[0].isoformat(), row[1]) == ("2020-12-31T22:00:00+00:00", 20)


# ------------------------------------------------------------------ any ADBC driver

#: A driver of a scheme that the dialect table does not know: SQLite's, under another name.
TOY = """
import adbc_driver_sqlite.dbapi
def connect(uri):
    assert uri.startswith("toy://u:hushhush@"), uri
    return adbc_driver_sqlite.dbapi.connect("file:" + uri.partition("@host")[2] + "?mode=ro")
"""


@pytest.fixture
def toy(tmp_path, monkeypatch, sqlite_file) -> Iterator[str]:
    package = tmp_path / "packages" / "adbc_driver_toy"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "dbapi.py").write_text(TOY)
    monkeypatch.syspath_prepend(package.parent)
    yield f"toy://u:hushhush@host{sqlite_file}"
    for name in [name for name in sys.modules if name.startswith("adbc_driver_toy")]:
        del sys.modules[name]


def test_any_driver_is_reached_by_its_scheme(toy):
    source = Database.model_validate({"connection_string": toy, "query": "SELECT id, paid FROM orders"})
    extract = source.scan("toys")

    assert extract.schema == {"id": pl.Int64, "paid": pl.Int64}
    assert extract.frame.filter(COLUMN("id") > 2).collect()["id"].to_list() == [3, 4]
    assert extract.pushed(Pushdown(None, COLUMN("id") > 2)) is None
    assert extract.frame.head(2).collect().height == 2
    assert extract.warnings == ("toys: every read of toy has a view of its own; rows may change between two.",)


def test_a_column_that_is_another_type_than_it_was_stops_the_run(toy):
    source = Database.model_validate({"connection_string": toy, "schema": {"table": "orders"}})

    with pytest.raises(SourceTypeError, match=r"^source 'toys': column 'customer' is String, and was Int64 before\."):
        list(source.scan("toys").read(Pushdown()))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"query": "SELECT nope FROM orders"}, "no such column: nope"),
        ({"schema": {"table": "orders"}, "split_on": "id"}, "'split_on' needs one view for all ranges"),
        ({"schema": {"table": "orders"}, "dtypes": {"id": "text"}}, "'dtypes' is for SQLite."),
        ({"query": "SELECT :a", "parameters": {"a": [1]}}, "the parameter 'a' is a list, which is no SQL value."),
    ],
)
def test_what_a_driver_cannot_do_is_said_without_secrets(toy, keys, said):
    with pytest.raises(ExtractError) as caught:
        Database.model_validate({"connection_string": toy} | keys).scan("toys")

    assert str(caught.value).startswith("source 'toys': ")
    assert said in str(caught.value)
    assert "hushhush" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["snowflake", "mysql", "bigquery"])
def test_a_driver_that_is_missing_is_named(scheme):
    source = Database.model_validate({"connection_string": f"{scheme}://u:hushhush@h/d", "query": "SELECT 1"})

    with pytest.raises(ExtractError) as caught:
        source.check()

    said = f"source 'source': {scheme}://u:***@h/d needs an ADBC driver. Run: pip install adbc-driver-{scheme}."
    assert str(caught.value) == said


def test_a_type_of_dtypes_that_nobody_knows_is_a_mistake_in_the_configuration(configured, sqlite_file):
    with pytest.raises(ConfigError, match=r"dtypes\.id: 'nummer' is not a type"):
        configured(source=orders(sqlite_file, dtypes={"id": "nummer"}))
