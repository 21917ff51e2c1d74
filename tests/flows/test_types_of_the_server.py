"""Every type that the server knows: PostgreSQL -> Polars -> PostgreSQL, and what is refused on the way."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import psycopg
import pytest
from psycopg import sql

from flows._embedded import Server
from flows._errors import SourceTypeError
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.sources._base import Pushdown
from flows.sources.database import Database as Source
from flows.targets.database import Database as Target

pytestmark = pytest.mark.postgres
TEXT, UTC = pl.String(), pl.Datetime("us", "UTC")

#: What a server keeps for itself and gives no column a value of: its catalogue's own statistics and trees.
INTERNAL = {
    "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary", "pg_dependencies", "pg_mcv_list", "pg_ndistinct",
    "pg_node_tree", "gtsvector",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A type, its values in the server's words, and how it crosses.

    Attributes:
        values: those that survive both ways.
        dtype: what it becomes; `String` unless it has a twin.
        warns: whether people are told that it is read as text.
        item: what an item of its array becomes.
        refused: values that stop the run, with what is said.
        compare: SQL for what has to be equal, with ``{}`` for the column.
    """

    values: tuple[str, ...]
    dtype: pl.DataType = TEXT
    warns: bool = True
    item: pl.DataType | None = None
    refused: tuple[tuple[str, str], ...] = ()
    compare: str = "format('%s', {})"


#: Each item of an array in the server's words; the array's own text would also show how it is quoted.
ITEMS = (
    "ARRAY(SELECT CASE WHEN {0}[k] IS DISTINCT FROM NULL THEN format('%s', {0}[k]) END "
    "FROM generate_subscripts({0}, 1) AS k)"
)


def exact(*values: str, dtype: pl.DataType, item: bool = True, refused: tuple[tuple[str, str], ...] = ()) -> Case:
    return Case(values, dtype, warns=False, item=dtype if item else None, refused=refused)


def text(*values: str, warns: bool = True, item: bool = False) -> Case:
    return Case(values, warns=warns, item=TEXT if item else None)


NO_INFINITY = (
    ("infinity", "column 'x' holds 'infinity' or a year after 294246"),
    ("-infinity", "column 'x' holds 'infinity'"),
)
FLOATS = ("0", "-0", "1.5", "NaN", "Infinity", "-Infinity")
LATE = ("294276-12-31", "column 'x' holds 'infinity' or a year after 294246")
MIDNIGHT = ("24:00:00", "column 'x' holds '24:00'")
NOT_A_NUMBER = tuple(
    (value, f"column 'x': '{value}' has no exact Decimal") for value in ("NaN", "Infinity", "-Infinity")
)

CASES: dict[str, Case] = {
    "bool": exact("true", "false", dtype=pl.Boolean()),
    "int2": exact("-32768", "0", "32767", dtype=pl.Int16()),
    "int4": exact("-2147483648", "2147483647", dtype=pl.Int32()),
    "int8": exact("-9223372036854775808", "9223372036854775807", dtype=pl.Int64()),
    "float4": exact(*FLOATS, "1e-45", "3.4028235e+38", dtype=pl.Float32()),
    "float8": exact(*FLOATS, "5e-324", "1.7976931348623157e+308", "0.1", dtype=pl.Float64()),
    "numeric": Case(
        ("0", "1.50", "-0.000000000000000000001", "12345678901234567", "100"),
        pl.Decimal(38, 21), warns=False, refused=NOT_A_NUMBER, compare="trim_scale({})",
    ),
    "numeric(12,2)": Case(("0.00", "-9999999999.99", "1.50"), pl.Decimal(12, 2), warns=False, refused=NOT_A_NUMBER[:1]),
    "numeric(38,38)": Case(("0.00000000000000000000000000000000000001",), pl.Decimal(38, 38), warns=False),
    "numeric(3,5)": Case(("0.00999", "-0.00001"), pl.Decimal(5, 5), warns=False),
    "numeric(5,-2)": Case(("9999900", "-100", "0"), pl.Decimal(7, 0), warns=False, refused=NOT_A_NUMBER[:1]),
    "numeric(39,0)": text("9" * 39, "-1", "NaN"),
    "numeric(30,-20)": text("9" * 30 + "0" * 20, "0"),
    "numeric(1000,500)": text("0." + "0" * 499 + "1"),
    "money": Case(
        ("$0.00", "-$92,233,720,368,547,758.08", "$92,233,720,368,547,758.07"),
        pl.Decimal(19, 2), warns=False, compare="{}::numeric",
    ),
    "text": exact("", "Zoë 😀", "NULL", "\\N", 'a"b,c{}\t\n', dtype=TEXT),
    "varchar": exact("", "Zoë", dtype=TEXT),
    "varchar(3)": exact("abc", dtype=TEXT),
    "bpchar": exact("x  ", "", dtype=TEXT),
    "bpchar(5)": exact("x    ", "     ", dtype=TEXT),
    '"char"': text("x", "", "\\303", warns=False),
    "name": text("x", "n" * 63, warns=False),
    "bytea": Case(("\\x", "\\x00ff5c"), pl.Binary(), warns=False),
    "date": exact(
        "4713-01-01 BC", "0001-01-01", "2024-02-29", "9999-12-31", "10000-01-01", "5874897-12-31",
        dtype=pl.Date(), refused=NO_INFINITY,
    ),
    "time": Case(("00:00:00", "23:59:59.999999"), pl.Time(), warns=False, refused=(MIDNIGHT,)),
    "time(0)": Case(("23:59:59",), pl.Time(), warns=False),
    "timetz": text("00:00:00+15:59", "24:00:00-15:59", "12:00:00.000001+00"),
    "timestamp": exact(
        "4713-01-01 00:00:00 BC", "0001-01-01 00:00:00", "2024-02-29 23:59:59.999999", "10000-01-01 00:00:00",
        "294246-12-31 23:59:59", dtype=pl.Datetime("us"), refused=(*NO_INFINITY, LATE),
    ),
    "timestamp(0)": exact("2024-02-29 23:59:59", dtype=pl.Datetime("us")),
    "timestamptz": Case(
        ("4713-01-01 00:00:00+00 BC", "2024-03-31 01:30:00+00", "294246-12-31 23:59:59+00"),
        UTC, warns=False, refused=NO_INFINITY,
    ),
    "interval": text("00:00:00", "1 year 2 mons -3 days +04:05:06.000007", "-178000000 years", "infinity", "-infinity"),
    "interval day to second(0)": text("1 day 00:00:01"),
    "uuid": text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000", warns=False),
    "json": text('{"b": 1,  "a":[null]}', "null", '"\\u0000"', "1e400", warns=False),
    "jsonb": text('{"a": [null], "b": 1.50}', "null", '"x"', warns=False),
    "jsonpath": text('$."a"[*]?(@ > 1)'),
    "xml": text("<a>b</a>", "x"),
    "inet": text("10.0.0.1", "10.0.0.1/8", "::1/64"),
    "cidr": text("10.0.0.0/8", "2001:db8::/32"),
    "macaddr": text("08:00:2b:01:02:03"),
    "macaddr8": text("08:00:2b:01:02:03:04:05"),
    "bit": text("1"),
    "bit(3)": text("101"),
    "varbit": text("", "10110"),
    "varbit(5)": text("10110"),
    "point": text("(1.5,-2)", "(NaN,Infinity)"),
    "line": text("{1,2,3}"),
    "lseg": text("[(1,2),(3,4)]"),
    "box": text("(3,4),(1,2)"),
    "path": text("((1,2),(3,4))", "[(1,2),(3,4)]"),
    "polygon": text("((1,2),(3,4),(5,6))"),
    "circle": text("<(1,2),3>"),
    "tsvector": text("'a':1A 'b c':2", ""),
    "tsquery": text("'a' & !'b':*A", ""),
    "int4range": text("[1,5)", "empty", "(,)"),
    "int8range": text("[1,5)"),
    "numrange": text("(1.50,2]"),
    "daterange": text("[2024-01-01,infinity)"),
    "tsrange": text('["2024-01-01 00:00:00","2024-01-02 00:00:00")'),
    "tstzrange": text('["2024-01-01 00:00:00+00",)'),
    "int4multirange": text("{[1,3),[5,7)}", "{}"),
    "int8multirange": text("{[1,3)}"),
    "nummultirange": text("{[1.0,3)}"),
    "datemultirange": text("{[2024-01-01,2024-01-02)}"),
    "tsmultirange": text('{["2024-01-01 00:00:00","2024-01-02 00:00:00")}'),
    "tstzmultirange": text('{["2024-01-01 00:00:00+00",)}'),
    "oid": Case(("0", "4294967295"), pl.Int64(), warns=False),
    "regclass": text("pg_class"),
    "regcollation": text('"C"'),
    "regconfig": text("simple"),
    "regdictionary": text("simple"),
    "regnamespace": text("pg_catalog"),
    "regoper": text("pg_catalog.||/"),
    "regoperator": text("+(integer,integer)"),
    "regproc": text("now", "-"),
    "regprocedure": text("now()"),
    "regrole": text("postgres"),
    "regtype": text("integer", "timestamp with time zone"),
    "xid": text("0", "4294967295"),
    "xid8": text("18446744073709551615"),
    "cid": text("4294967295"),
    "tid": text("(0,1)"),
    "pg_lsn": text("16/B374D848"),
    "pg_snapshot": text("10:20:10,14,15"),
    "txid_snapshot": text("10:20:10,14,15"),
    "aclitem": text("postgres=r/postgres"),
    "refcursor": text("a cursor"),
    "int2vector": text("1 2 3", ""),
    "oidvector": text("1 2 3", ""),
    # made by people; see MADE
    "mood": text("so so", "good", warns=False),
    "pair": text('(1,"a b")', "(,)"),
    "email": text("a@b", warns=False),
    "price": Case(("1.50",), pl.Decimal(12, 2), warns=False),
    "few": Case(("{1,2}",), pl.List(pl.Int32()), warns=False),
    "floats": text("[1.5,2.5)"),
}  # fmt: skip
MADE = """
CREATE TYPE mood AS ENUM ('so so', 'good');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%');
CREATE DOMAIN price AS numeric(12,2) CHECK (VALUE >= 0);
CREATE DOMAIN few AS int[];
CREATE TYPE floats AS RANGE (subtype = float8);
"""


@pytest.fixture(scope="module")
def shared(postgres_server: Server) -> Iterator[str]:
    """One database for all types, for making one takes longer than a case; each case has a schema of its own."""
    name = f"types_{uuid.uuid4().hex}"
    uri = postgres_server.create(name)
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(MADE)
    yield uri
    with psycopg.connect(postgres_server.uri(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@dataclass(frozen=True)
class Home:
    """A schema of a case: its name, and a session that looks there."""

    uri: str
    schema: str
    session: psycopg.Connection


@pytest.fixture
def home(shared: str) -> Iterator[Home]:
    schema = f"s{uuid.uuid4().hex}"
    with psycopg.connect(shared, autocommit=True) as session:
        session.execute(f"CREATE SCHEMA {schema}; SET search_path = {schema}, public; SET TimeZone = 'UTC'")
        yield Home(shared, schema, session)


def held(session: psycopg.Connection, kind: str, values: tuple[str | None, ...]) -> None:
    session.execute(f"CREATE TABLE origin (n int PRIMARY KEY, x {kind})")
    with session.cursor() as cursor:
        cursor.executemany(f"INSERT INTO origin VALUES (%s, %s::text::{kind})", list(enumerate(values)))


def holdable(session: psycopg.Connection, kind: str, values: tuple[str, ...]) -> tuple[str, ...]:
    """The values; none of a type that this server was built without."""
    try:
        session.execute(f"SELECT %s::text::{kind}", (values[0],))
    except psycopg.errors.FeatureNotSupported:
        return ()
    return values


def read(home: Home) -> tuple[pl.DataFrame, tuple[str, ...]]:
    table = f"{home.schema}.origin"
    extract = Source.model_validate({"connection_string": home.uri, "schema": {"table": table}}).scan("s")
    frame = pl.concat([pl.DataFrame(schema=extract.schema), *extract.read(Pushdown())])
    return frame, extract.warnings


def published(home: Home, table: str, frame: pl.DataFrame, folder: Path) -> None:
    target = Target.model_validate({"connection_string": home.uri, "table_name": f"{home.schema}.{table}"})
    record = RunRecord.start("types", table, "1")
    with target.open(record, frame.schema) as chamber:
        chamber.stage(frame)
        record.rows.read, record.staged = frame.height, chamber.seal()
        chamber.publish(record, Quarantine(folder))


def crosses(home: Home, kind: str, compare: str, folder: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Read what `origin` holds, write it into a table of its type and into one that is made, and compare."""
    session = home.session
    frame, warnings = read(home)
    session.execute(f"CREATE TABLE twin (n int, x {kind})")
    for table in ("twin", "made"):
        published(home, table, frame, folder)
        column = compare.format("x")
        texts = f"SELECT n, CASE WHEN x IS DISTINCT FROM NULL THEN {column} END FROM "
        expected = session.execute(f"{texts} origin ORDER BY n").fetchall()
        assert session.execute(f"{texts} {table} ORDER BY n").fetchall() == expected, table
    return frame, warnings


def test_every_type_of_the_server_is_a_case(home: Home) -> None:
    known = home.session.execute(
        "SELECT typname FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typisdefined "
        "AND typtype NOT IN ('p', 'c') AND NOT EXISTS (SELECT FROM pg_type item WHERE item.typarray = pg_type.oid)"
    )

    names = {name for (name,) in known}
    assert names - INTERNAL == {case.strip('"') for case in CASES} & names
    assert names <= {case.strip('"') for case in CASES} | INTERNAL


@pytest.mark.parametrize("kind", CASES)
def test_a_type_crosses_whole_or_is_refused(kind: str, home: Home, tmp_path: Path) -> None:
    case, session = CASES[kind], home.session
    held(session, kind, (*holdable(session, kind, case.values), None))

    frame, warnings = crosses(home, kind, case.compare, tmp_path)

    assert frame.schema["x"] == case.dtype
    assert [warning for warning in warnings if "is read as text" in warning] == list(warnings)
    assert bool(warnings) == case.warns
    for value, said in case.refused:
        session.execute("TRUNCATE origin")
        session.execute(f"INSERT INTO origin VALUES (0, '{value}')")
        with pytest.raises(SourceTypeError) as refused:
            read(home)
        assert said in str(refused.value)


@pytest.mark.parametrize("kind", [kind for kind in CASES if kind != "few"])
def test_its_array_crosses_whole_or_is_refused(kind: str, home: Home, tmp_path: Path) -> None:
    case, session = CASES[kind], home.session
    session.execute(f"CREATE TABLE origin (n int PRIMARY KEY, x {kind}[])")
    with session.cursor() as cursor:
        for n, items in enumerate([[*holdable(session, kind, case.values), None], [], [None], None]):
            cursor.execute(f"INSERT INTO origin VALUES (%s, %s::text[]::{kind}[])", (n, items))

    frame, warnings = crosses(home, f"{kind}[]", ITEMS, tmp_path)

    assert frame.schema["x"] == pl.List(case.item or TEXT)
    assert bool(warnings) == (case.item is None)


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("int[]", "{{1,2},{3,4}}", "column 'x' holds an array of more than one dimension"),
        ("int[]", "[0:1]={1,2}", "or that does not begin at 1: [0:1]={1,2}"),
        ("numeric[]", "{{1.5}}", "column 'x' holds an array of more than one dimension"),
        ("inet[]", "[0:0]={10.0.0.1}", "column 'x' holds an array of more than one dimension"),
        ("date[]", "{infinity}", "column 'x' holds 'infinity'"),
        ("numeric", "1e100", "column 'x': '1"),
    ],
)
def test_a_value_without_a_twin_is_refused_by_the_name_of_its_column(
    kind: str, value: str, said: str, home: Home
) -> None:
    home.session.execute(f"CREATE TABLE origin (x {kind})")
    home.session.execute("INSERT INTO origin VALUES (%s)", (value,))

    with pytest.raises(SourceTypeError) as refused:
        read(home)

    assert said in str(refused.value)
