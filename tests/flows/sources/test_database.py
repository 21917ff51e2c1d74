"""The PostgreSQL source against a real server: what is pushed into SQL, what a query's parameters become, every type."""

# ruff: noqa: E501 - moments without a zone, messages in one piece

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from psycopg import sql

from flows._errors import (
    ExtractError,
    SourceAuthenticationError,
    SourceMissingError,
    SourceTypeError,
    SourceUnreachableError,
)
from flows._postgres import Column
from flows._types import PgType
from flows.sources._base import Extract, Pushdown
from flows.sources._pushdown import to_sql
from flows.sources._scan_of_postgres import _column
from flows.sources.database import Database

pytestmark = pytest.mark.postgres

Scan = Callable[..., Extract]
Run = Callable[..., Any]
COLUMN = pl.col


@pytest.fixture
def run(connect) -> Run:
    """Runs a statement in a database of this test alone."""
    return connect().execute


@pytest.fixture
def scan(database) -> Scan:
    """Opens a query, or with ``schema`` a table, of a database of this test alone."""
    return lambda query=None, **keys: opened(database, query, **keys)


@pytest.fixture(scope="module")
def shared(postgres_server) -> Iterator[str]:
    """The URI of a database that all tests of this module read, and none writes."""
    name = f"sources_{uuid.uuid4().hex}"
    uri = postgres_server.create(name)
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(EVERY_KIND)
        connection.execute("CREATE TYPE mood AS ENUM ('sad', 'glad')")
        connection.execute("CREATE DOMAIN gloom AS mood CHECK (VALUE = 'sad')")
        connection.execute("CREATE DOMAIN price AS numeric(8, 2)")
        connection.execute("CREATE TYPE pair AS (a int, b text)")
        connection.cursor().executemany(f"INSERT INTO t VALUES ({', '.join(['%s'] * len(ROWS[0]))})", ROWS)
    yield uri
    with psycopg.connect(postgres_server.uri(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def look(shared) -> Scan:
    """Opens a query, or with ``schema`` a table, of the database that all tests read."""
    return lambda query=None, **keys: opened(shared, query, **keys)


def opened(address: str, query: str | None, **keys: Any) -> Extract:
    return Database.model_validate({"connection_string": address, "query": query} | keys).scan("crm")


def read(extract: Extract, ask: Pushdown = Pushdown()) -> pl.DataFrame:  # noqa: B008 - frozen
    names = ask.columns if ask.columns is not None else tuple(extract.schema)
    empty = pl.DataFrame(schema={name: extract.schema[name] for name in names})
    return pl.concat([empty, *extract.read(ask)])


def watched(extract: Extract) -> tuple[pl.LazyFrame, list[Pushdown]]:
    """The source's frame, and what Polars asks of it."""
    asked: list[Pushdown] = []

    def spy(ask: Pushdown):
        asked.append(ask)
        return extract.read(ask)

    return replace(extract, read=spy).frame, asked


# ------------------------------------------------------------------ pushdown

EVERY_KIND = """
CREATE TABLE t (
    id int PRIMARY KEY, i2 int2, i8 int8, f8 float8, f4 float4, n numeric(12, 2), u numeric, b bool,
    s text, v varchar(20), c char(6), d date, ts timestamp, tz timestamptz, tags int[], j jsonb
)
"""


@pytest.mark.parametrize(
    ("predicate", "pushed"),
    [
        (COLUMN("id") == 5, '"id" = 5'),
        (COLUMN("id") != 5, '"id" <> 5'),
        (COLUMN("i8") > -5, '"i8" > -5'),
        (COLUMN("id") > 1.5, None),
        (COLUMN("f8") <= 1.5, '"f8" <= 1.5'),
        (COLUMN("f8").eq(float("nan")), None),
        (COLUMN("f4") > 1.5, None),
        (COLUMN("n") >= Decimal("1.50"), '"n" >= 1.50'),
        (COLUMN("b"), '"b"'),
        (~COLUMN("b"), 'NOT ("b")'),
        (COLUMN("b").eq(COLUMN("b").lt(True)), None),
        (COLUMN("s") == "active", "\"s\" = 'active'"),
        (COLUMN("s") != "it's 100% \\", "\"s\" <> E'it''s 100% \\\\'"),
        (COLUMN("s") > "a", None),
        (COLUMN("s").is_between(pl.lit("a"), pl.lit("b")), None),
        (COLUMN("s").str.starts_with("a"), None),
        (COLUMN("s") == "a\0b", None),
        (COLUMN("v").is_in(["a", "b"]), "\"v\" IN ('a', 'b')"),
        (COLUMN("c") == "a", None),
        (COLUMN("c").is_null(), '"c" IS NULL'),
        (COLUMN("d") < dt.date(2024, 2, 29), "\"d\" < '2024-02-29'::date"),
        (COLUMN("ts") < dt.datetime(2024, 1, 1, 1, 2, 3, 4), "\"ts\" < '2024-01-01 01:02:03.000004'::timestamp"),
        (COLUMN("tz") >= dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "\"tz\" >= '2024-01-01 00:00:00+00:00'::timestamptz"),
        (COLUMN("id").is_in([1, None, 2]), '"id" IN (1, 2)'),
        (~COLUMN("id").is_in([1, None, 2]), 'NOT ("id" IN (1, 2))'),
        (COLUMN("id").is_in([]), None),
        (COLUMN("id").is_in([1], nulls_equal=True), None),
        (COLUMN("id").eq_missing(1), None),
        (COLUMN("id").is_between(1, 3), '"id" BETWEEN 1 AND 3'),
        (COLUMN("id").is_between(1, 3, closed="left"), None),
        (COLUMN("s").is_not_null(), '"s" IS NOT NULL'),
        (COLUMN("j").is_null(), '"j" IS NULL'),
        (COLUMN("id") == COLUMN("i8"), None),
        (COLUMN("id") + 1 == 5, None),
        ((COLUMN("id") > 1) & (COLUMN("s") > "a"), '"id" > 1'),
        ((COLUMN("id") > 1) | (COLUMN("s") > "a"), None),
        ((COLUMN("id") > 1) | (COLUMN("s") == "a"), '("id" > 1 OR "s" = \'a\')'),
        (~((COLUMN("id") > 1) & (COLUMN("s") > "a")), None),
    ],
    ids=str,
)
def test_the_part_of_a_filter_that_sql_answers_alike_is_pushed(look, predicate, pushed):
    extract = look("SELECT * FROM t")
    frame, asked = watched(extract)
    frame.filter(predicate).select("id").collect()
    (ask,) = asked

    assert extract.pushed(ask) == pushed
    assert (f" WHERE {pushed}" in extract.describe(ask)) if pushed else ("WHERE" not in extract.describe(ask))


ROWS = [
    (1, 1, 1, 1.5, 1.5, "1.50", "1.5", True, "a", "a", "a", "2024-01-01", "2024-01-01 10:00", "2024-01-01 10:00+00"),
    (2, -1, -(2**63), -0.0, 0.0, "-0.01", "0", False, "A", "A ", "A ", "0001-01-01", "0001-01-01", "0001-01-02 00:00+00"),
    (3, 0, 2**63 - 1, float("nan"), float("nan"), "0", "1.500", None, "", "", "", "9999-12-31", "9999-12-31 23:59:59.999999", "2024-07-01 00:00+02"),
    (4, None, None, float("inf"), 3e38, None, None, None, None, None, None, None, None, None),
    (5, 32767, 0, float("-inf"), -1.0, "9999999999.99", "0.001", True, "a ", "it's", "it's", "2024-02-29", "2024-01-01 10:00:00.000001", "2024-01-01 09:59:59.999999+00"),
    (6, 7, 7, 5e-324, 0.1, "0.10", "100", False, "100%\\_'\"", "%", "é", "1970-01-01", "1970-01-01", "1970-01-01 00:00+00"),
    (7, 7, 7, 0.1, 0.1, "0.10", "-3", True, "é", "e\u0301", "é", "1969-12-31", "1969-12-31 23:59:59", "1969-12-31 23:59:59+00"),
]  # fmt: skip

_DATES = [dt.date(2024, 1, 1), dt.date(2024, 2, 29), dt.date(1, 1, 1), dt.date(9999, 12, 31)]
_MOMENTS = [dt.datetime(2024, 1, 1, 10), dt.datetime(2024, 1, 1, 10, 0, 0, 1), dt.datetime(1969, 12, 31, 23, 59, 59)]
VALUES: dict[str, list[Any]] = {
    "id": [0, 1, 4, 7, -(2**31), 2**31 - 1],
    "i2": [-1, 0, 7, 32767],
    "i8": [-(2**63), -1, 0, 7, 2**63 - 1],
    "f8": [0.0, -0.0, 1.5, 0.1, float("nan"), float("inf"), float("-inf"), 5e-324],
    "f4": [0.1, 1.5, float("nan")],
    "n": [Decimal("0.10"), Decimal("1.50"), Decimal("-0.01"), Decimal(0), Decimal("9999999999.99")],
    "u": [Decimal("1.5"), Decimal("0.001"), Decimal(-3), Decimal(100)],
    "b": [True, False],
    "s": ["a", "A", "", "a ", "é", "e\u0301", "100%\\_'\"", "x\0y"],
    "v": ["a", "A ", "A", "it's", "%", ""],
    "c": ["a", "a     ", "A", "A     ", ""],
    "d": _DATES,
    "ts": _MOMENTS,
    "tz": [moment.replace(tzinfo=dt.UTC) for moment in _MOMENTS],
}


@st.composite
def comparisons(draw: st.DrawFn) -> pl.Expr:
    name = draw(st.sampled_from(list(VALUES)))
    value = st.sampled_from(VALUES[name])
    column = COLUMN(name)
    kind = draw(st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge", "is_in", "between", "null", "not_null"]))
    match kind:
        case "is_in":
            # all values given one dtype: a list of mixed ones is no list in Polars
            items = draw(st.lists(st.none() | value, max_size=4))
            return (
                column.is_in(items, nulls_equal=draw(st.booleans()))
                if any(i is not None for i in items)
                else column.is_null()
            )
        case "between":
            return column.is_between(
                pl.lit(draw(value)), pl.lit(draw(value)), closed=draw(st.sampled_from(["both", "left", "none"]))
            )
        case "null":
            return column.is_null()
        case "not_null":
            return column.is_not_null()
    return getattr(column, kind)(draw(value))


predicates = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        inner.map(lambda part: ~part),
        st.tuples(inner, inner).map(lambda parts: parts[0] & parts[1]),
        st.tuples(inner, inner).map(lambda parts: parts[0] | parts[1]),
    ),
    max_leaves=4,
)


def test_pushed_sql_never_leaves_out_a_row_for_which_the_filter_is_true(shared, look):
    extract = look("SELECT * FROM t")
    everything = read(extract)
    asked: list[Pushdown] = []
    pushed: list[str] = []

    def in_memory(ask: Pushdown) -> Iterator[pl.DataFrame]:
        asked.append(ask)
        yield everything

    frame = replace(extract, read=in_memory).frame

    with psycopg.connect(shared, autocommit=True) as connection:

        @settings(max_examples=600, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
        @given(predicate=predicates)
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


@pytest.mark.parametrize(("exact_text", "pushed"), [(True, '"id" = 1 AND "s" = \'a\''), (False, '"id" = 1')])
def test_a_text_is_compared_by_the_server_only_where_equal_texts_are_equal_bytes(exact_text, pushed):
    types = {"s": PgType("text", "text"), "id": PgType("int4", "int4")}
    columns = {name: _column(Column(name, pg), exact_text=exact_text).compared for name, pg in types.items()}

    assert to_sql((COLUMN("s") == "a") & (COLUMN("id") == 1), columns) == pushed


def test_a_row_with_a_null_in_it_is_neither_null_nor_without(run, scan):
    run("CREATE TYPE pair AS (a int, b text)")
    run(
        "CREATE TABLE t AS SELECT * FROM (VALUES (1, (1, NULL)::pair), (2, (NULL, NULL)::pair), (3, NULL)) AS v (id, p)"
    )
    frame = scan("SELECT * FROM t").frame

    assert frame.filter(COLUMN("p").is_not_null()).collect()["id"].to_list() == [1, 2]
    assert frame.filter(COLUMN("p").is_null()).collect()["id"].to_list() == [3]


def test_a_limit_counts_before_the_filter(run, scan):
    run("CREATE TABLE t AS SELECT generate_series(1, 100) AS id")
    extract = scan("SELECT * FROM t ORDER BY id")

    assert extract.describe(Pushdown(limit=3)).endswith(" LIMIT 3")
    assert read(extract, Pushdown(limit=3))["id"].to_list() == [1, 2, 3]
    assert read(extract, Pushdown(None, COLUMN("id") > 2, 3))["id"].to_list() == [3]
    assert extract.frame.head(3).filter(COLUMN("id") > 2).collect()["id"].to_list() == [3]
    assert extract.frame.filter(COLUMN("id") > 2).head(3).collect()["id"].to_list() == [3, 4, 5]


# ------------------------------------------------------------------ parameters


@pytest.mark.parametrize(
    ("query", "parameters", "value"),
    [
        ("SELECT :x AS v", {"x": "it's"}, "it's"),
        ("SELECT :x::text AS v", {"x": 5}, "5"),
        ("SELECT 10 -:x AS v", {"x": -5}, 15),
        ("SELECT $1::text || $2::text AS v", {"a": "p", "b": "q"}, "pq"),
        ("SELECT :b || :a || :b AS v", {"a": "1", "b": "2"}, "212"),
        ("SELECT (:x)::int AS v", {"x": "7"}, 7),
        ("SELECT ':x' || :x AS v", {"x": "y"}, ":xy"),
        ("SELECT $$ :x $$ || :x AS v", {"x": "y"}, " :x y"),
        ("SELECT $t$ :x $1 $t$ || :x AS v", {"x": "y"}, " :x $1 y"),
        ("SELECT E'\\':x' || :x AS v", {"x": "y"}, "':xy"),
        ('SELECT v AS v FROM (SELECT :x AS v) AS "a:x"', {"x": "y"}, "y"),
        ("SELECT :x AS v -- not :y", {"x": "z"}, "z"),
        ("SELECT /* :y $1 */ :x AS v", {"x": "z"}, "z"),
        ("SELECT :x AS v;", {"x": "z"}, "z"),
        ("SELECT :x AS v; -- the end ;", {"x": "z"}, "z"),
        ("SELECT :x\nAS v", {"x": "a\nb"}, "a\nb"),
        ("SELECT :from || :to AS v", {"from": "a", "to": "b"}, "ab"),
        ("SELECT :x AS v", {"x": "'; DROP TABLE t; --"}, "'; DROP TABLE t; --"),
        ("SELECT :x AS v", {"x": "\\'; SELECT 1; --"}, "\\'; SELECT 1; --"),
        ("SELECT :x AS v", {"x": ":x $1 %s {} %"}, ":x $1 %s {} %"),
        ("SELECT '100%' || :x AS v", {"x": ""}, "100%"),
        ("SELECT :x AS v", {"x": dt.date(2024, 2, 29)}, dt.date(2024, 2, 29)),
        ("SELECT :x AS v", {"x": True}, True),
        ("SELECT :x::int AS v", {"x": None}, None),
        ("SELECT 2 = ANY(:x) AS v", {"x": [1, 2]}, True),
        ("SELECT (ARRAY[1, 2, 3])[1:2] AS v", {}, [1, 2]),
        ("SELECT '{\"a\": 1}'::jsonb ? 'a' AS v", {}, True),
    ],
)  # fmt: skip
def test_a_parameter_is_a_value_and_nothing_else_is_a_parameter(look, query, parameters, value):
    assert read(look(query, parameters=parameters))["v"].to_list() == [value]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12))
def test_any_text_arrives_as_it_is(look, text):
    assert read(look("SELECT :x AS v", parameters={"x": text}))["v"].to_list() == [text]


@pytest.mark.parametrize(
    ("query", "parameters", "said"),
    [
        ("SELECT :statsu", {"status": 1}, "no value for the query's parameter 'statsu'. Did you mean 'status'? Known: status."),
        ("SELECT $2", {"a": 1}, "no value for the query's parameter '2'. Known: a."),
        ("SELECT 1", {"a": 1}, "the query has no parameter ':a'. Remove it, or use it."),
        ("SELECT :a", {"a": {"b": 1}}, "the parameter 'a' is a dict, which is no SQL value. Write a text, a number, a date or a list."),
        ("SELECT :a", {"a": "x\0y"}, "the parameter 'a' holds a zero byte, which PostgreSQL cannot keep. Remove it."),
        ("SELECT 1; SELECT :a", {"a": 1}, "the query has several statements. Leave one SELECT."),
        ("SELECT 'a", {}, "the query cannot be read: Error tokenizing 'SELECT ''. Check its quotes."),
    ],
)  # fmt: skip
def test_a_query_and_its_parameters_that_do_not_fit(look, query, parameters, said):
    with pytest.raises(ExtractError) as caught:
        look(query, parameters=parameters)

    assert str(caught.value) == f"source 'crm': {said}"


# ------------------------------------------------------------------ types

TEXTS = pl.List(pl.String())
TYPES: list[tuple[str, pl.DataType, list[Any]]] = [
    ("'-32768'::int2", pl.Int16(), [-32768]),
    ("'2147483647'::int4", pl.Int32(), [2147483647]),
    ("'-9223372036854775808'::int8", pl.Int64(), [-(2**63)]),
    ("true", pl.Boolean(), [True]),
    ("'1.5'::float4", pl.Float32(), [1.5]),
    ("'-Infinity'::float8", pl.Float64(), [float("-inf")]),
    ("5e-324::float8", pl.Float64(), [5e-324]),
    ("'123.45'::numeric(12,2)", pl.Decimal(12, 2), [Decimal("123.45")]),
    ("'-99999999999999999999999999999999.999999'::numeric(38,6)", pl.Decimal(38, 6), [Decimal("-99999999999999999999999999999999.999999")]),
    ("'7'::numeric(5)", pl.Decimal(5, 0), [Decimal(7)]),
    ("'0.00012'::numeric(2,5)", pl.Decimal(5, 5), [Decimal("0.00012")]),
    ("'12300'::numeric(3,-2)", pl.Decimal(5, 0), [Decimal(12300)]),
    ("'1.5'::numeric(50,2)", pl.String(), ["1.50"]),
    ("'1.5'::numeric", pl.Decimal(38, 1), [Decimal("1.5")]),
    ("NULL::numeric", pl.Decimal(38, 0), [None]),
    ("'1.50'::money", pl.Decimal(19, 2), [Decimal("1.50")]),
    ("'a''b\\'::text", pl.String(), ["a'b\\"]),
    ("'é☃𝄞'::varchar(5)", pl.String(), ["é☃𝄞"]),
    ("'x'::char(5)", pl.String(), ["x    "]),
    ("'x'::name", pl.String(), ["x"]),
    ("'x'::\"char\"", pl.String(), ["x"]),
    ("'\\x00ff41'::bytea", pl.Binary(), [b"\x00\xffA"]),
    ("'0001-01-01'::date", pl.Date(), [dt.date(1, 1, 1)]),
    ("'9999-12-31'::date", pl.Date(), [dt.date(9999, 12, 31)]),
    ("'23:59:59.999999'::time", pl.Time(), [dt.time(23, 59, 59, 999999)]),
    ("'10:00+02'::timetz", pl.String(), ["10:00:00+02"]),
    ("'2024-01-01 10:00:00.000001'::timestamp", pl.Datetime("us"), [dt.datetime(2024, 1, 1, 10, 0, 0, 1)]),
    ("'1969-12-31 23:59:59.999999'::timestamp", pl.Datetime("us"), [dt.datetime(1969, 12, 31, 23, 59, 59, 999999)]),
    ("'2024-07-01 10:00+02'::timestamptz", pl.Datetime("us", "UTC"), [dt.datetime(2024, 7, 1, 8, tzinfo=dt.UTC)]),
    ("'1 month 2 days 03:04:05.5'::interval", pl.String(), ["1 mon 2 days 03:04:05.5"]),
    ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", pl.String(), ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
    ("'{\"a\":  1}'::json", pl.String(), ['{"a":  1}']),
    ("'{\"a\":  1}'::jsonb", pl.String(), ['{"a": 1}']),
    ("'sad'::mood", pl.String(), ["sad"]),
    ("'sad'::gloom", pl.String(), ["sad"]),
    ("'12.5'::price", pl.Decimal(8, 2), [Decimal("12.50")]),
    ("'1.2.3.4'::inet", pl.String(), ["1.2.3.4"]),
    ("'[1,3)'::int4range", pl.String(), ["[1,3)"]),
    ("'(1,2)'::point", pl.String(), ["(1,2)"]),
    ("'b a'::tsvector", pl.String(), ["'a' 'b'"]),
    ("B'101'", pl.String(), ["101"]),
    ("'4294967295'::oid", pl.Int64(), [4294967295]),
    ("ROW(1, 'x')::pair", pl.String(), ["(1,x)"]),
    ("NULL", pl.String(), [None]),
    ("'{a,NULL,\"b c\"}'::text[]", TEXTS, [["a", None, "b c"]]),
    ("'{}'::text[]", TEXTS, [[]]),
    ("NULL::text[]", TEXTS, [None]),
    ("'{1,NULL}'::int4[]", pl.List(pl.Int32()), [[1, None]]),
    ("'{t,f}'::bool[]", pl.List(pl.Boolean()), [[True, False]]),
    ("'{1.5,NaN}'::float8[]", pl.List(pl.Float64()), [pytest.approx([1.5, float("nan")], nan_ok=True)]),
    ("'{2024-02-29}'::date[]", pl.List(pl.Date()), [[dt.date(2024, 2, 29)]]),
    ("'{2024-01-01 10:00}'::timestamp[]", pl.List(pl.Datetime("us")), [[dt.datetime(2024, 1, 1, 10)]]),
    ("'{1.50,NaN}'::numeric(5,2)[]", TEXTS, [["1.50", "NaN"]]),
    ("'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'::uuid[]", TEXTS, [["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]]),
    ("'{sad}'::mood[]", TEXTS, [["sad"]]),
]  # fmt: skip
WARNED = {
    "timetz", "interval", "inet", "int4range", "point", "tsvector", "bit", "pair", "numeric(5,2)[]", "uuid[]", "mood[]",
    "numeric(50,2)",
}  # fmt: skip


@pytest.mark.parametrize(("expression", "dtype", "values"), TYPES, ids=[row[0] for row in TYPES])
def test_every_type_is_read_value_for_value(look, expression, dtype, values):
    extract = look(f"SELECT {expression} AS v")

    assert extract.schema == {"v": dtype}
    assert read(extract).schema == {"v": dtype}
    assert read(extract)["v"].to_list() == values
    named = {warning.removeprefix("crm.v is ").partition(" and is ")[0] for warning in extract.warnings}
    assert named <= WARNED
    assert all(warning.startswith("crm.v is ") for warning in extract.warnings)


def test_a_type_without_a_twin_is_said(look):
    assert look("SELECT '1 day'::interval AS v").warnings == ("crm.v is interval and is read as text",)
    assert look("SELECT '{1.5}'::numeric[] AS v").warnings == ("crm.v is numeric[] and is read as a list of texts",)
    assert look("SELECT '{}'::jsonb AS v, 1.5::numeric AS n").warnings == ()


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("'NaN'::numeric(5,2)", "NaN"),
        ("'NaN'::numeric", "NaN"),
        ("'-Infinity'::numeric", "-Infinity"),
        ("repeat('9', 39)::numeric", "9" * 39),
    ],
)
def test_a_number_without_an_exact_decimal_is_refused_by_name(look, expression, text):
    with pytest.raises(SourceTypeError) as caught:
        read(look(f"SELECT 1.5::numeric(2,1) AS id, {expression} AS v"))

    assert str(caught.value) == (
        f"source 'crm': column 'v': '{text}' has no exact Decimal (38 digits, no NaN). Cast it in a query."
    )


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("'infinity'::date", "holds 'infinity' or a year after 294246, which no calculation would survive. Read it with a query: nullif(\"v\", 'infinity')."),
        ("'-infinity'::timestamp", "holds 'infinity' or a year after 294246, which no calculation would survive. Read it with a query: nullif(\"v\", 'infinity')."),
        ("'infinity'::timestamptz", "holds 'infinity' or a year after 294246, which no calculation would survive. Read it with a query: nullif(\"v\", 'infinity')."),
        ("'{2024-01-01,infinity}'::date[]", "holds 'infinity' or a year after 294246, which no calculation would survive. Read it with a query: array_remove(\"v\", 'infinity')."),
        ("'{-infinity}'::timestamp[]", "holds 'infinity' or a year after 294246, which no calculation would survive. Read it with a query: array_remove(\"v\", 'infinity')."),
        ("'294276-12-31'::timestamp", "holds 'infinity' or a year after 294246, which no calculation would survive. Read it with a query: nullif(\"v\", 'infinity')."),
        ("'24:00'::time", "holds '24:00', which is the next day's. Read it with a query: nullif(\"v\", '24:00')."),
    ],
)  # fmt: skip
def test_a_date_or_time_that_only_postgresql_has_is_refused_by_name(look, expression, said):
    with pytest.raises(SourceTypeError) as caught:
        read(look(f"SELECT 1 AS id, {expression} AS v"))

    assert str(caught.value) == f"source 'crm': column 'v' {said}"


@pytest.mark.parametrize("kind", ["int4", "text", "date", "numeric"])
def test_an_array_of_two_dimensions_is_refused(look, kind):
    item = "2024-01-01" if kind == "date" else "1"

    with pytest.raises(SourceTypeError, match=r"\"column 'v' holds an array of more than one dimension"):
        read(look(f"SELECT '{{{{{item}}},{{{item}}}}}'::{kind}[] AS v"))


def test_a_decimal_that_came_later_with_more_decimals_stops_the_read(run, scan):
    run("CREATE TABLE t (v numeric)")
    run("INSERT INTO t VALUES (1.5)")
    extract = scan("SELECT * FROM t")
    run("INSERT INTO t VALUES (1.25)")

    with pytest.raises(
        SourceTypeError,
        match=r"column 'v': 1\.25 was not there when the run began, and has more decimals\. Run again\.",
    ):
        read(extract)


# ------------------------------------------------------------------ names

NAMES = [
    "Customer", 'with "quotes"', "with space", "select", "user", "größe ☃", "a.b", "1", "%s", "a'b", "{x}", ":x", "$1", "\\",
    "n" * 63, "é" * 31,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_name_that_a_table_and_a_column_can_have(connect, scan, name):
    table = sql.Identifier(name, name)
    connect().execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    connect().execute(sql.SQL("CREATE TABLE {} ({} int, other text)").format(table, sql.Identifier(name)))
    connect().execute(sql.SQL("INSERT INTO {} VALUES (1, 'a'), (2, 'b'), (NULL, 'c')").format(table))
    quoted = '"' + name.replace('"', '""') + '"'

    extract = scan(schema={"table": f"{quoted}.{quoted}", "columns": [name]})

    assert list(extract.schema) == [name, "other"]
    assert extract.delivers == (name,)
    assert extract.frame.filter(COLUMN(name) > 1).select(name).collect().to_dicts() == [{name: 2}]
    assert extract.frame.filter(COLUMN(name) > 1).select("other").collect().to_dicts() == [{"other": "b"}]


# ------------------------------------------------------------------ errors, and what a source leaves behind


def test_two_columns_of_one_name_are_refused(look):
    with pytest.raises(ExtractError) as caught:
        look("SELECT 1 AS a, 2 AS b, 3 AS a")

    assert (
        str(caught.value)
        == "source 'crm': two columns of the query are called 'a'. Give one of them another name with AS."
    )


@pytest.mark.parametrize(
    ("keys", "kind", "said"),
    [
        ({"query": "SELECT * FROM nowhere"}, SourceMissingError, 'relation "nowhere" does not exist. Check the name, and the schema it is in.'),
        ({"query": "SELECT nope FROM pg_class"}, SourceMissingError, 'column "nope" does not exist. Check the name, and the schema it is in.'),
        ({"query": "SELECT FROM WHERE"}, ExtractError, 'syntax error at or near "WHERE". Check the query.'),
        ({"schema": {"table": "pg_class", "columns": ["relnam"]}}, SourceMissingError, "no column 'relnam'. Did you mean 'relname'? Present: "),
        ({"schema": {"table": 'a"."b'}}, SourceMissingError, ""),
        ({"schema": {"table": "a..b"}}, SourceMissingError, "'a..b' is not the name of a table. Write 'table' or 'schema.table'."),
    ],
)  # fmt: skip
def test_what_is_not_there(look, keys, kind, said):
    with pytest.raises(ExtractError) as caught:
        look(**keys)

    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"source 'crm': {said}")
    assert "\n" not in str(caught.value)


def test_an_error_while_reading_is_ours_too(look):
    extract = look("SELECT 1 / (5 - i) AS v FROM generate_series(1, 9) AS i")

    with pytest.raises(SourceTypeError) as caught:
        read(extract)

    assert str(caught.value) == "source 'crm': division by zero. Nothing was published."


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("postgresql://u:hushhush@127.0.0.1:1/db", SourceUnreachableError),
        ("postgresql://u:hushhush@host.invalid/db", SourceUnreachableError),
        ("not a connection string hushhush", SourceUnreachableError),
    ],
)
def test_a_server_that_cannot_be_reached(address, kind):
    source = Database.model_validate({"connection_string": address, "query": "SELECT 1"})

    with pytest.raises(kind) as caught:
        source.check()

    assert "hushhush" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_user_and_a_database_that_are_not_there(database):
    for address, kind in (
        (database.replace("postgres@", "nobody:hushhush@", 1), SourceAuthenticationError),
        (database.replace("/test_", "/nope_"), SourceMissingError),
    ):
        with pytest.raises(ExtractError) as caught:
            Database.model_validate({"connection_string": address, "query": "SELECT 1"}).scan("crm")
        assert type(caught.value) is kind


def test_batches_have_about_the_size_asked_for(look):
    extract = look("SELECT i, repeat('x', 92) AS t FROM generate_series(1, 20000) AS i", batch_bytes=100_000)

    sizes = [batch.height for batch in extract.read(Pushdown())]

    assert sum(sizes) == 20_000
    assert max(sizes) * 100 < 300_000


def test_the_whole_read_sees_one_snapshot(run, scan):
    run("CREATE TABLE t AS SELECT generate_series(1, 50000) AS id")
    extract = scan("SELECT * FROM t", batch_bytes=64_000)
    batches = extract.read(Pushdown())
    first = next(batches)
    run("DELETE FROM t")

    assert first.height + sum(batch.height for batch in batches) == 50_000
