from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
from pydantic import ValidationError

from flows import pipeline
from flows._config import load as load_config
from flows._errors import LoadError, RefusedError, TargetMissingError
from flows.targets._base import Published
from flows.targets.database import Database

pytestmark = pytest.mark.postgres
Make = Callable[..., Database]
Load = Callable[..., Published]
Connect = Callable[[], psycopg.Connection]

LINES = "CREATE TABLE t (customer text, line bigint); INSERT INTO t VALUES ('a', 1), ('a', 2), ('b', 1), ('c', 1)"
DAYS = (
    "CREATE TABLE t (day date, n bigint); INSERT INTO t SELECT '2024-01-01'::date + g, g FROM generate_series(0, 9) g"
)
SPAN = {"column": "day"}
MONTH = {"column": "day", "from": "2024-01-03", "to": "2024-01-06"}


def lines(*rows: tuple[str | None, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"customer": pl.String, "line": pl.Int64}, orient="row")


def days(*rows: tuple[int | None, int]) -> pl.DataFrame:
    dated = [(None if day is None else date(2024, 1, day), n) for day, n in rows]
    return pl.DataFrame(dated, schema={"day": pl.Date, "n": pl.Int64}, orient="row")


def rows(connection: psycopg.Connection, query: str = "SELECT * FROM t ORDER BY 1, 2") -> list[tuple]:
    return connection.execute(query).fetchall()


@pytest.fixture
def by_key(target: Make) -> Callable[..., Database]:
    return lambda **keys: target(write_mode="delete_insert", **({"delete_key": "customer"} | keys))


@pytest.fixture
def by_range(target: Make) -> Callable[..., Database]:
    return lambda delete_range, **keys: target(write_mode="delete+insert", delete_range=delete_range, **keys)


def test_rows_that_share_a_key_with_the_load_are_replaced(by_key: Make, load: Load, connect: Connect) -> None:
    connection = connect()
    connection.execute(LINES)

    published = load(by_key(), lines(("a", 7), ("d", 1)))

    assert published == Published(2, deleted=2, how="deleted and inserted")
    assert rows(connection) == [("a", 7), ("b", 1), ("c", 1), ("d", 1)]


def test_the_same_load_again_gives_the_same_table(by_key: Make, load: Load, connect: Connect) -> None:
    connect().execute(LINES)
    frame = lines(("a", 7), ("a", 8))
    load(by_key(), frame)
    before = rows(connect())

    assert load(by_key(), frame) == Published(2, deleted=2, how="deleted and inserted")
    assert rows(connect()) == before


def test_the_primary_key_is_the_delete_key_where_none_is_given(target: Make, load: Load, connect: Connect) -> None:
    connect().execute("CREATE TABLE t (customer text PRIMARY KEY, line bigint); INSERT INTO t VALUES ('a', 1)")

    assert load(target(write_mode="delete_insert", primary_key="customer"), lines(("a", 2), ("b", 1))).deleted == 1


def test_several_columns_can_be_the_key(by_key: Make, load: Load, connect: Connect) -> None:
    connect().execute(LINES)

    assert load(by_key(delete_key=["customer", "line"]), lines(("a", 2), ("a", 3))).deleted == 1


def test_a_load_without_rows_deletes_none(by_key: Make, load: Load, connect: Connect) -> None:
    connect().execute(LINES)

    assert load(by_key(), lines()) == Published(0, how="deleted and inserted")
    assert len(rows(connect())) == 4


def test_a_row_without_a_key_is_refused(by_key: Make, load: Load, connect: Connect) -> None:
    connect().execute(LINES)

    with pytest.raises(LoadError, match=r"a row has no key \('customer' is null\). Add a 'not_null' rule"):
        load(by_key(), lines((None, 1)))


def test_the_range_that_a_load_spans_is_replaced(by_range: Make, load: Load, connect: Connect) -> None:
    connect().execute(DAYS)

    published = load(by_range(SPAN), days((3, 100), (5, 100)))
    assert published == Published(2, deleted=3, how="deleted and inserted", removed=1, before=10)
    assert [n for _day, n in rows(connect())] == [0, 1, 100, 100, 5, 6, 7, 8, 9]
    assert load(by_range(SPAN), days()).deleted == 0


def test_a_given_range_is_replaced_up_to_its_end(by_range: Make, load: Load, connect: Connect) -> None:
    connect().execute(DAYS)

    for deleted in (3, 1):
        assert load(by_range(MONTH), days((4, 100))).deleted == deleted
    assert [n for _day, n in rows(connect())] == [0, 1, 100, 5, 6, 7, 8, 9]


def test_rows_outside_of_the_range_are_refused(by_range: Make, load: Load, connect: Connect) -> None:
    connect().execute(DAYS)

    with pytest.raises(RefusedError) as refused:
        load(by_range(MONTH), days((5, 100), (6, 100)))

    assert str(refused.value) == (
        "target t: delete_range replaces rows whose day is from 2024-01-03 on and before 2024-01-06, and 1 row of the "
        "load is outside of it. Filter such rows with a 'filter' step, or let a rule send them to quarantine."
    )
    with pytest.raises(RefusedError, match="1 row of the load has no value there"):
        load(by_range(SPAN), days((5, 100), (None, 100)))
    assert len(rows(connect())) == 10


def test_an_empty_load_empties_a_given_range_only_where_it_may(by_range: Make, load: Load, connect: Connect) -> None:
    connect().execute(DAYS)

    with pytest.raises(RefusedError, match=r"the load is empty.*Set target.allow_empty: true"):
        load(by_range(MONTH), days())
    assert load(by_range(MONTH, allow_empty=True), days()).deleted == 3


def test_a_missing_table_is_made(by_key: Make, load: Load, connect: Connect) -> None:
    assert load(by_key(), lines(("a", 1), ("a", 1))) == Published(2, how="created")
    assert len(rows(connect())) == 2


def test_rows_that_others_point_at_stay(target: Make, load: Load, connect: Connect) -> None:
    connection = connect()
    connection.execute(
        "CREATE TABLE t (customer text, line bigint PRIMARY KEY); INSERT INTO t VALUES ('a', 1), ('a', 2)"
    )
    connection.execute("CREATE TABLE child (line bigint REFERENCES t ON DELETE CASCADE); INSERT INTO child VALUES (1)")

    published = load(target(write_mode="delete_insert", delete_key="customer"), lines(("a", 1), ("a", 3)))

    assert published == Published(1, 0, 1, 1, "merged in place")
    assert rows(connection) == [("a", 1), ("a", 3)]
    assert rows(connection, "SELECT * FROM child") == [(1,)]


def test_a_column_that_the_load_does_not_have_is_named(by_key: Make, load: Load, connect: Connect) -> None:
    connect().execute(LINES)

    with pytest.raises(TargetMissingError, match=r"delete_key names no column 'custome'. Did you mean 'customer'\?"):
        load(by_key(delete_key="custome"), lines(("a", 1)))


def test_it_must_be_said_which_rows_are_replaced(target: Make) -> None:
    with pytest.raises(ValidationError, match="delete_insert needs to know which rows it replaces"):
        target(write_mode="delete_insert")


def test_readers_never_see_the_gap(by_key: Make, load: Load, connect: Connect) -> None:
    load(by_key(), lines(*(("a", n) for n in range(1000))))
    reader = connect()
    seen: set[tuple[int, int]] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.update(reader.execute("SELECT count(*), count(DISTINCT line / 10000) FROM t").fetchall())

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for round_ in range(8):
            load(by_key(), lines(*(("a", n + 10_000 * round_) for n in range(1000))))
    finally:
        done.set()
        thread.join()

    assert seen == {(1000, 1)}


CONFIG = """
pipelines:
  lines:
    type: batch
    source: {{type: database, connection_string: "{uri}", schema: {{table: source}}}}
    target: {{type: database, connection_string: "{uri}", table_name: t, write_mode: delete+insert, {how}}}
"""


@pytest.mark.parametrize(
    ("how", "plan", "left"),
    [
        ("delete_key: customer", "rows whose (customer) the load has", 2),
        ("delete_range: {column: line, from: 1, to: 2}", "rows whose line is from 1 on and before 2", 1),
        ("delete_range: {column: line}", "rows whose line is in the range that the load spans", 1),
    ],
)
def test_from_yaml(how: str, plan: str, left: int, database: str, connect: Connect, tmp_path: Path) -> None:
    connection = connect()
    connection.execute(LINES)
    connection.execute("CREATE TABLE source AS SELECT 'a' AS customer, 1::bigint AS line")
    config = tmp_path / "lines.yaml"
    config.write_text(CONFIG.format(uri=database, how=how))
    configured = load_config(config).pipeline("lines")

    schema = pl.Schema({"customer": pl.String(), "line": pl.Int64()})
    assert configured.target.plan(schema) == [f'replace in "public"."t" {plan}']
    for _again in range(2):
        record: Any = pipeline.run(configured)
        assert (record.status, record.rows.written) == ("published", 1)
        assert len(rows(connection)) == left + 1
