"""The type border, in both directions, against a real PostgreSQL: what survives, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
from polars.testing import assert_frame_equal

from flows._errors import LoadError
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.sources._base import Pushdown
from flows.sources.database import Database as Source
from flows.targets.database import Database as Target

pytestmark = pytest.mark.postgres
Connect = Callable[[], psycopg.Connection]


def published(uri: str, frame: pl.DataFrame, folder: Path) -> None:
    target = Target.model_validate({"connection_string": uri, "table_name": "t"})
    record = RunRecord.start("types", "t", "1")
    with target.open(record, frame.schema) as chamber:
        chamber.stage(frame)
        record.rows.read, record.staged = frame.height, chamber.seal()
        chamber.publish(record, Quarantine(folder))


def read(uri: str) -> pl.DataFrame:
    extract = Source.model_validate({"connection_string": uri, "schema": {"table": "t"}}).scan("s")
    return pl.concat([pl.DataFrame(schema=extract.schema), *extract.read(Pushdown())])


SAME: dict[str, tuple[pl.DataType, list[Any]]] = {
    "Int16": (pl.Int16(), [-(2**15), 0, 2**15 - 1]),
    "Int32": (pl.Int32(), [-(2**31), 0, 2**31 - 1]),
    "Int64": (pl.Int64(), [-(2**63), 0, 2**63 - 1]),
    "Float32": (pl.Float32(), [1.5, float("nan"), float("-inf")]),
    "Float64": (pl.Float64(), [0.1, -0.0, float("nan"), float("inf"), 5e-324, 1.7976931348623157e308]),
    "Decimal": (pl.Decimal(38, 10), [Decimal("1234567890123456789012345678.0123456789"), Decimal("-0.0000000001")]),
    "money": (pl.Decimal(12, 2), [Decimal("0.00"), Decimal("-9999999999.99")]),
    "String": (pl.String(), ["", "a'b\\c\td\ne", "王芳 Zoë 😀", "x" * 1_000_000, "NULL", "\\N"]),
    "Boolean": (pl.Boolean(), [True, False]),
    "Binary": (pl.Binary(), [b"", b"\x00\xff\\"]),
    "Date": (pl.Date(), [date(1, 1, 1), date(1970, 1, 1), date(9999, 12, 31)]),
    "Time": (pl.Time(), [time(0), time(23, 59, 59, 999999)]),
    "Datetime": (pl.Datetime("us"), [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)]),
    "Datetime UTC": (
        pl.Datetime("us", "UTC"),
        [datetime(1900, 1, 1, tzinfo=UTC), datetime(2024, 3, 31, 1, 30, tzinfo=UTC)],
    ),
    "List of Int64": (pl.List(pl.Int64()), [[], [1, None, -1]]),
    "List of String": (pl.List(pl.String()), [["a,b", '"', None, ""], []]),
    "List of Date": (pl.List(pl.Date()), [[date(2024, 2, 29)]]),
}


@pytest.mark.parametrize(("dtype", "values"), SAME.values(), ids=SAME)
def test_a_column_comes_back_as_it_went(dtype: pl.DataType, values: list[Any], database: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"n": range(len(values) + 1), "x": pl.Series([*values, None], dtype=dtype)})

    published(database, frame, tmp_path)

    assert_frame_equal(read(database).sort("n"), frame, check_exact=True)


WIDER: dict[str, tuple[pl.Series, str, list[Any]]] = {
    "Int8": (pl.Series([-128, None], dtype=pl.Int8), "smallint", [-128, None]),
    "UInt8": (pl.Series([255], dtype=pl.UInt8), "smallint", [255]),
    "UInt16": (pl.Series([65535], dtype=pl.UInt16), "integer", [65535]),
    "UInt32": (pl.Series([2**32 - 1], dtype=pl.UInt32), "bigint", [2**32 - 1]),
    "UInt64": (pl.Series([2**64 - 1], dtype=pl.UInt64), "numeric(20,0)", [Decimal(2**64 - 1)]),
    "Int128": (pl.Series([10**37], dtype=pl.Int128), "numeric(38,0)", [Decimal(10**37)]),
    "Categorical": (pl.Series(["a"], dtype=pl.Categorical), "text", ["a"]),
    "Enum": (pl.Series(["a"], dtype=pl.Enum(["a"])), "text", ["a"]),
    "Berlin": (
        pl.Series([datetime(2024, 7, 1, 12)]).dt.replace_time_zone("Europe/Berlin"),
        "timestamp with time zone",
        [datetime(2024, 7, 1, 10, tzinfo=UTC)],
    ),
    "Duration": (pl.Series([timedelta(days=2, microseconds=5)]), "interval", [timedelta(days=2, microseconds=5)]),
    "Struct": (pl.Series([{"a": 1, "b": None}]), "jsonb", [{"a": 1, "b": None}]),
    "Null": (pl.Series([None, None]), "text", [None, None]),
}


@pytest.mark.parametrize(("series", "made", "values"), WIDER.values(), ids=WIDER)
def test_a_column_is_made_wide_enough(
    series: pl.Series, made: str, values: list[Any], database: str, connect: Connect, tmp_path: Path
) -> None:
    published(database, pl.DataFrame({"x": series}), tmp_path)

    connection = connect()
    kind = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'x'"
    assert connection.execute(kind).fetchone() == (made,)
    assert [value for (value,) in connection.execute("SELECT x FROM t")] == values


INTO: list[tuple[pl.Series, str, str]] = [
    (pl.Series([7], dtype=pl.Int64), "int4", "7"),
    (pl.Series([7], dtype=pl.Int32), "int8", "7"),
    (pl.Series([7], dtype=pl.Int64), "numeric(5,2)", "7.00"),
    (pl.Series([7], dtype=pl.Int32), "float8", "7"),
    (pl.Series([1.5], dtype=pl.Float32), "float8", "1.5"),
    (pl.Series([Decimal("1.50")], dtype=pl.Decimal(12, 2)), "numeric", "1.50"),
    (pl.Series([Decimal("1.5")], dtype=pl.Decimal(12, 1)), "numeric(12,3)", "1.500"),
    (pl.Series(["a"]), "varchar(3)", "a"),
    (pl.Series(["a"]), "char(3)", "a  "),
    (pl.Series(["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]), "uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    (pl.Series(['{"b": 1, "a": [null]}']), "json", '{"b": 1, "a": [null]}'),
    (pl.Series(['{"b":1,"a":[null]}']), "jsonb", '{"a": [null], "b": 1}'),
    (pl.Series(["10.0.0.1"]), "inet", "10.0.0.1"),
    (pl.Series(["[1,5)"]), "int4range", "[1,5)"),
    (pl.Series(["1 mon 2 days"]), "interval", "1 mon 2 days"),
    (pl.Series([["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]]), "uuid[]", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"),
    (pl.Series([date(2024, 1, 2)]), "timestamp", "2024-01-02 00:00:00"),
    (pl.Series([None]), "int4", None),
    (pl.Series([None]), "numeric(3,1)", None),
    (pl.Series([None]), "uuid", None),
    (pl.Series([None]), "inet", None),
    (pl.Series([None]), "money", None),
    (pl.Series([None]), "oid", None),
    (pl.Series([Decimal("1.5")], dtype=pl.Decimal(3, 1)), "money", "$1.50"),
    (pl.Series([1000], dtype=pl.Datetime("ns")), "timestamp", "1970-01-01 00:00:00.000001"),
    (pl.Series([1], dtype=pl.Datetime("ms")), "timestamp(3)", "1970-01-01 00:00:00.001"),
    (pl.Series([1500], dtype=pl.Int64), "numeric(5,-2)", "1500"),
    (pl.Series([7], dtype=pl.Int64), "oid", "7"),
    (pl.Series([{"a": 1}, None], dtype=pl.Struct({"a": pl.Int64})).slice(1), "jsonb", None),
    (pl.Series([[{"a": 1}]]), "jsonb", '[{"a": 1}]'),
    (pl.Series([[[1], [2, None]]]), "json", "[[1],[2,null]]"),
    (pl.Series([["ab", None]]), "varchar(3)[]", "{ab,NULL}"),
    (pl.Series([[time(1, 2, 3, 4), None]]), "time[]", "{01:02:03.000004,NULL}"),
    (pl.Series([[b"\x00\xff", None]]), "bytea[]", '{"\\\\x00ff",NULL}'),
    (pl.Series([[timedelta(days=1), None]]), "interval[]", "{24:00:00,NULL}"),
    (pl.Series([[True, None]]), "bool[]", "{t,NULL}"),
    (pl.Series([[{"a": 1}, None]]), "jsonb[]", '{"{\\"a\\": 1}",NULL}'),
]


@pytest.mark.parametrize(("series", "kind", "text"), INTO, ids=[f"{s.dtype} into {kind}" for s, kind, _text in INTO])
def test_a_column_goes_into_a_type_that_holds_it(
    series: pl.Series, kind: str, text: str | None, database: str, connect: Connect, tmp_path: Path
) -> None:
    connection = connect()
    connection.execute(f"CREATE TABLE t (x {kind})")

    published(database, pl.DataFrame({"x": series}), tmp_path)

    with connection.cursor(binary=False) as cursor:
        assert cursor.execute("SELECT CASE WHEN x IS NOT NULL THEN format('%s', x) END FROM t").fetchone() == (text,)


REFUSED: list[tuple[pl.Series, str, str]] = [
    (pl.Series([1], dtype=pl.Int64), "float8", "Int64 does not fit float8 without loss"),
    (pl.Series([0.1]), "float4", "Float64 does not fit float4"),
    (pl.Series([0.1]), "numeric(12,2)", "Float64 does not fit numeric(12,2)"),
    (pl.Series([0.1]), "int4", "Float64 does not fit int4"),
    (
        pl.Series([Decimal("1.555")], dtype=pl.Decimal(12, 3)),
        "numeric(12,2)",
        "Decimal(12, 3) does not fit numeric(12,2)",
    ),
    (pl.Series([Decimal("1.5")], dtype=pl.Decimal(12, 1)), "float8", "Decimal(12, 1) does not fit float8"),
    (pl.Series(["1"]), "int4", "String does not fit int4"),
    (pl.Series(["2024-01-01"]), "date", "String does not fit date"),
    (pl.Series([1]), "text", "Int64 does not fit text"),
    (pl.Series([datetime(2024, 1, 1)]), "timestamptz", "Say which time zone it is in"),
    (pl.Series([datetime(2024, 1, 1, tzinfo=UTC)]), "timestamp", "Say which time zone it is in"),
    (
        pl.Series([1], dtype=pl.Datetime("ns")),
        "timestamp",
        "column 'x': '1970-01-01 00:00:00.000000001' would",
    ),
    (pl.Series([999], dtype=pl.Time), "time", "column 'x': '00:00:00.000000999' would be another value in time"),
    (pl.Series([1], dtype=pl.Duration("ns")), "interval", "column 'x': '1 ns' would be another value in interval"),
    (
        pl.Series([datetime(2024, 1, 1, 0, 0, 0, 1)]),
        "timestamp(3)",
        "column 'x': '2024-01-01 00:00:00.000001'",
    ),
    (pl.Series([time(0, 0, 0, 1)]), "time(0)", "column 'x': '00:00:00.000001000' would be another value in time(0)"),
    (
        pl.Series(["1 day 00:00:00.5"]),
        "interval(0)",
        "column 'x': '1 day 00:00:00.5' would be another",
    ),
    (pl.Series([150]), "numeric(5,-2)", "column 'x': '150' would be another value in numeric(5,-2)"),
    (pl.Series(["1.5"]), "numeric(40,0)", "column 'x': '1.5' would be another value in numeric(40,0)"),
    (pl.Series(["10110"]), "bit(3)", "column 'x': '10110' would be another value in bit(3)"),
    (pl.Series([["abcd"]]), "varchar(3)[]", "column 'x': '{abcd}' would be another value in"),
    (pl.Series([["n" * 64]]), "name[]", "would be another value in name[]"),
    (pl.Series(["ab"]), '"char"', "column 'x': 'ab' would be another value in"),
    (pl.Series([[datetime(2024, 1, 1, 0, 0, 0, 1)]]), "timestamp(3)[]", "column 'x': "),
    (pl.Series(["abcd"]), "varchar(3)", "column 'x': value too long for type character varying(3)"),
    (pl.Series([Decimal("1.555")], dtype=pl.Decimal(4, 3)), "money", "Decimal(4, 3) does not fit money without loss"),
    (
        pl.Series([-(2**31)], dtype=pl.Int32).cast(pl.Date),
        "date",
        "column 'x': '-2147483648 days from 1970' would be",
    ),
    (pl.Series([-(2**63)], dtype=pl.Int64).cast(pl.Datetime("us")), "timestamp", "would be another value in timestamp"),
    (pl.Series([2**62], dtype=pl.Int64).cast(pl.Datetime("ms")), "timestamp", "would be another value in timestamp"),
    (pl.Series([2**62], dtype=pl.Int64).cast(pl.Duration("ms")), "interval", "would be another value in interval"),
    (pl.Series([{"a": float("nan")}]), "jsonb", "column 'x': '{a: nan}' would be another value in jsonb"),
    (pl.Series([[{"a": [float("inf")]}]]), "json", "would be another value in json"),
    (pl.Series([{"a": b"x"}]), "jsonb", "column 'x': Struct({'a': Binary}) does not fit jsonb"),
    (pl.Series([["1"]]), "int4[]", "column 'x': List(String) does not fit int4[] without loss"),
    (pl.Series([True]), "int4", "Boolean does not fit int4"),
    (pl.Series([40_000]), "int2", "40000"),
    (pl.Series([12345], dtype=pl.Int32), "numeric(4,0)", "numeric field overflow"),
    (pl.Series(["nonsense"]), "uuid", "column 'x' does not fit uuid"),
    (pl.Series(["not in it"]), "mood", "invalid input value for enum mood"),
    (
        pl.Series(["a\0b"]),
        "text",
        "column 'x': invalid byte sequence for encoding \"UTF8\": 0x00 (PostgreSQL's",
    ),
    (pl.Series([{"a": "\0"}]), "jsonb", "PostgreSQL's texts hold no NUL character"),
]


@pytest.mark.parametrize(
    ("series", "kind", "word"), REFUSED, ids=[f"{s.dtype} into {kind}" for s, kind, _word in REFUSED]
)
def test_what_would_lose_something_is_refused(
    series: pl.Series, kind: str, word: str, database: str, connect: Connect, tmp_path: Path
) -> None:
    connection = connect()
    connection.execute("CREATE TYPE mood AS ENUM ('good')")
    connection.execute(f"CREATE TABLE t (x {kind})")

    with pytest.raises(LoadError) as refused:
        published(database, pl.DataFrame({"x": series}), tmp_path)

    assert word in str(refused.value)
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
