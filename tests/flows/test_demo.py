from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from flows import _demo
from transforms._errors import LockgateError

pytestmark = pytest.mark.postgres

# The whole table of 1,000 customers in one number: another machine or version that makes other rows shows here.
DIGEST = "2047e1477e68d98f8895e177dd9fe7f4"


def one(uri, statement):
    with psycopg.connect(uri) as connection:
        return connection.execute(statement).fetchone()[0]


@pytest.fixture(scope="module")
def customers(postgres_server):
    """The demo as `make run` makes it; tests only read it."""
    uri = postgres_server.create("demo_to_read")
    assert _demo.create(uri)
    return uri


@pytest.mark.parametrize(
    ("what", "statement", "expected"),
    [
        ("rows", "SELECT count(*) FROM customers", _demo.ROWS),
        ("null ids", "SELECT count(*) FROM customers WHERE customer_id IS NULL", _demo.NULL_IDS),
        (
            "pairs of ids",
            "SELECT count(*) FROM customers a JOIN customers b USING (customer_id, status) WHERE a.ctid < b.ctid",
            _demo.DUPLICATE_PAIRS,
        ),
        (
            "ids in all",
            "SELECT count(DISTINCT customer_id) FROM customers",
            _demo.ROWS - _demo.NULL_IDS - _demo.DUPLICATE_PAIRS,
        ),
        (
            "malformed emails",
            r"SELECT count(*) FROM customers WHERE email !~ '^[a-z.-]+\d+@example\.(com|org|net)$'",
            _demo.MALFORMED_EMAILS,
        ),
        (
            "flawed rows that are not active",
            r"SELECT count(*) FROM customers WHERE (customer_id IS NULL OR email !~ '\d+@\w') AND status <> 'active'",
            0,
        ),
        (
            "rows with two flaws",
            r"SELECT count(*) FROM customers WHERE customer_id IS NULL AND email !~ '\d+@\w'",
            0,
        ),
        ("made before the first day", f"SELECT count(*) FROM customers WHERE created_at < '{_demo.FIRST_DAY}'", 0),
        ("last day", "SELECT max(created_at) FROM customers", _demo.LAST_DAY),
        ("last change", "SELECT max((updated_at AT TIME ZONE 'UTC')::date) FROM customers", _demo.LAST_DAY),
        ("changed before made", "SELECT count(*) FROM customers WHERE updated_at < created_at", 0),
        ("countries", "SELECT count(DISTINCT country) FROM customers", 11),
        ("percent active", "SELECT round(avg((status = 'active')::int) * 100) FROM customers", 80),
    ],
)
def test_what_a_run_will_find(customers, what, statement, expected):
    assert one(customers, statement) == expected, what


@pytest.mark.parametrize("name", ["Zoë Walker", "Łukasz Żak", "王芳", "Aoife O'Brien"])
def test_names_are_of_this_world(customers, name):
    with psycopg.connect(customers) as connection:
        email = connection.execute(
            "SELECT email FROM customers WHERE name = %s AND email IS NOT NULL LIMIT 1", [name]
        ).fetchone()[0]

    assert email.isascii()


def test_the_same_rows_everywhere(database):
    _demo.create(database, 1_000)

    assert one(database, "SELECT md5(string_agg(c::text, '|' ORDER BY updated_at, name)) FROM customers AS c") == DIGEST


def test_a_second_call_changes_nothing(database):
    assert _demo.create(database, 1_000)
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE customers SET name = 'kept' WHERE customer_id = 1")

    assert not _demo.create(database, 1_000)
    assert one(database, "SELECT name FROM customers WHERE customer_id = 1") == "kept"


def test_another_size_replaces_it(database):
    assert _demo.create(database, 1_000)
    assert _demo.create(database, 2_000)

    assert one(database, "SELECT count(*) FROM customers") == 2_000


def test_calls_at_once_make_it_once(database):
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda _: _demo.create(database, 1_000), range(3)))

    assert sorted(made) == [False, False, True]


def test_a_failure_half_way_leaves_nothing(database):
    with pytest.raises(psycopg.errors.QueryCanceled):
        _demo.create(f"{database}&options=-c%20statement_timeout%3D200", 5_000_000)

    assert one(database, "SELECT to_regclass('customers')") is None


def test_somebody_elses_table_is_not_touched(database, connect):
    connect().execute("CREATE TABLE customers AS SELECT 1 AS theirs")
    with pytest.raises(LockgateError, match="not the demo's"):
        _demo.create(database)

    assert one(database, "SELECT theirs FROM customers") == 1


def test_too_few_rows_are_refused(database):
    with pytest.raises(LockgateError, match="at least 1,000 customers"):
        _demo.create(database, 999)
