from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import adbc_driver_sqlite.dbapi
import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from flows._errors import TargetTypeError
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.sources._base import Pushdown
from flows.sources.database import Database as Source
from flows.targets.database import Database

Trip = Callable[..., pl.DataFrame]
UTC = pl.Datetime("us", "UTC")
LAST = datetime(9999, 12, 31, 23, 59, 59, 999999)
NOON = datetime(2024, 2, 29, 12, 0, 0, 123456)


def sent(kind: str, folder: Path, frame: pl.DataFrame, *ddl: str, **keys: Any) -> str:
    """Load a frame into table t of a database; returns the URL."""
    url = f"{kind}:///{folder}/trip.{kind}"
    if ddl:
        execute(kind, folder, *ddl)
    target = Database.model_validate({"connection_string": url, "table_name": "t"} | keys)
    record = RunRecord.start("test", "t", "1")
    with target.open(record, frame.schema) as chamber:
        chamber.stage(frame)
        record.rows.read, record.staged = frame.height, chamber.seal()
        chamber.publish(record, Quarantine(folder / record.run_id))
    return url


def execute(kind: str, folder: Path, *statements: str) -> list[tuple[Any, ...]]:
    if kind == "duckdb":
        with closing(duckdb.connect(str(folder / "trip.duckdb"))) as connection:
            return [connection.execute(statement).fetchall() for statement in statements][-1]
    with closing(adbc_driver_sqlite.dbapi.connect(str(folder / "trip.sqlite"), autocommit=True)) as connection:
        found: list[tuple[Any, ...]] = []
        for statement in statements:
            with closing(connection.cursor()) as cursor:
                cursor.execute(statement)
                found = cursor.fetchall()
        return found


def returned(url: str) -> pl.DataFrame:
    """Read table t by our own source."""
    options = Source.model_validate({"type": "database", "connection_string": url, "schema": {"table": "t"}})
    extract = options.scan("back")
    batches = [batch for batch in extract.read(Pushdown()) if isinstance(batch, pl.DataFrame)]
    return pl.concat([pl.DataFrame(schema=extract.schema), *batches])


#: Dtype, values, what DuckDB and SQLite make of it; None where it is refused by name.
BORDER: list[tuple[pl.DataType, list[Any], str | None, str | None]] = [
    (pl.Int8(), [-128, 127], "TINYINT", "INTEGER"),
    (pl.Int16(), [-(2**15), 2**15 - 1], "SMALLINT", "INTEGER"),
    (pl.Int32(), [-(2**31), 2**31 - 1], "INTEGER", "INTEGER"),
    (pl.Int64(), [-(2**63), 2**63 - 1], "BIGINT", "INTEGER"),
    (pl.UInt8(), [0, 255], "UTINYINT", "INTEGER"),
    (pl.UInt16(), [0, 2**16 - 1], "USMALLINT", "INTEGER"),
    (pl.UInt32(), [0, 2**32 - 1], "UINTEGER", "INTEGER"),
    (pl.UInt64(), [0, 2**63 - 1], "UBIGINT", "INTEGER"),
    (pl.Int128(), [-(2**63), 5], "HUGEINT", "INTEGER"),
    (pl.Float32(), [1.5, 2**-149, float("inf")], "FLOAT", "REAL"),
    (pl.Float64(), [0.1, 5e-324, 1.7e308, float("-inf"), 2.0**60], "DOUBLE", "REAL"),
    (pl.Boolean(), [True, False], "BOOLEAN", "BOOLEAN"),
    (pl.String(), ["", "1.10", "ä\n☃", "0x", "NULL", "a'b"], "VARCHAR", "TEXT"),
    (pl.Categorical(), ["a", "b"], "VARCHAR", "TEXT"),
    (pl.Enum(["b", "a"]), ["a", "b"], "VARCHAR", "TEXT"),
    (pl.Binary(), [b"", b"\0\xff"], "BLOB", "BLOB"),
    (pl.Decimal(4, 2), ["1.10", "-99.99"], "DECIMAL(4,2)", "DECIMAL_TEXT(4,2)"),
    (pl.Decimal(38, 10), ["1" * 28 + ".1", "-0.0000000001"], "DECIMAL(38,10)", "DECIMAL_TEXT(38,10)"),
    (pl.Date(), [date(1, 1, 1), date(9999, 12, 31), date(1969, 12, 31)], "DATE", "DATE"),
    (pl.Time(), [time(0), time(23, 59, 59, 999999)], "TIME", "TIME"),
    (pl.Datetime("ms"), [NOON.replace(microsecond=5000)], "TIMESTAMP_MS", "TIMESTAMP"),
    (pl.Datetime("us"), [NOON, datetime(1, 1, 1), LAST], "TIMESTAMP", "TIMESTAMP"),
    (pl.Datetime("ns"), [NOON], "TIMESTAMP_NS", "TIMESTAMP"),
    (UTC, [NOON], "TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ"),
    (pl.Datetime("us", "Asia/Tokyo"), [NOON], "TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ"),
    (pl.Duration("us"), [timedelta(days=400, microseconds=1), timedelta(-1)], "INTERVAL", None),
    (pl.List(pl.Int8()), [[1, None], []], "TINYINT[]", None),
    (pl.Array(pl.String(), 2), [["a", None]], "VARCHAR[2]", None),
    (pl.Struct({"x y": pl.Int64(), "l": pl.List(pl.Date())}), [{"x y": 1, "l": [date(2024, 1, 1)]}],
     'STRUCT("x y" BIGINT, l DATE[])', None),
    (pl.Null(), [], "VARCHAR", "TEXT"),
    (pl.List(pl.Duration()), [], None, None),
    (pl.Object(), [], None, None),
]  # fmt: skip
MOST_VALUES = 1 + max(len(values) for _dtype, values, *_types in BORDER)


def series(dtype: pl.DataType, values: list[Any]) -> pl.Series:
    if isinstance(dtype, pl.Decimal):
        return pl.Series("x", values, pl.String()).cast(dtype)
    return pl.Series("x", values, dtype)


def taken_for(kind: str) -> list[str | None]:
    """What a kind of database makes of each dtype of the border."""
    return [in_duckdb if kind == "duckdb" else in_sqlite for _dtype, _values, in_duckdb, in_sqlite in BORDER]


@pytest.mark.parametrize("kind", ["duckdb", "sqlite"])
def test_every_dtype_crosses_whole(kind: str, tmp_path: Path) -> None:
    fitting = [(case, type_) for case, type_ in zip(BORDER, taken_for(kind), strict=True) if type_]
    columns = {
        str(dtype): series(dtype, [*values, *[None] * (MOST_VALUES - len(values))])
        for (dtype, values, *_types), _type in fitting
    }
    frame = pl.DataFrame({"id": range(MOST_VALUES)} | columns)

    url = sent(kind, tmp_path, frame)

    catalogue = "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 't'"
    if kind == "sqlite":
        catalogue = "SELECT name, type FROM pragma_table_info('t')"
    types = dict(execute(kind, tmp_path, catalogue))
    del types["id"]
    assert types == {str(dtype): type_ for (dtype, *_rest), type_ in fitting}
    durations = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Duration)]
    for name in durations:  # our source reads an interval as text
        there = execute(kind, tmp_path, f'SELECT "{name}" FROM t ORDER BY id')
        assert [value for (value,) in there] == frame[name].to_list()
    back = returned(url).sort("id").drop(durations)
    sent_there = frame.drop(durations)
    assert_frame_equal(back.cast(dict(sent_there.schema)), sent_there)  # type: ignore[arg-type] # as below


@pytest.mark.parametrize("kind", ["duckdb", "sqlite"])
def test_a_dtype_that_a_database_has_not_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    refused = [case for case, type_ in zip(BORDER, taken_for(kind), strict=True) if type_ is None]
    assert len(refused) > 1
    for dtype, *_rest in refused:
        frame = pl.DataFrame({"id": [1], "x": series(dtype, [None])})
        with pytest.raises(TargetTypeError, match=r"target t: column 'x': (DuckDB|SQLite) has no type for"):
            sent(kind, tmp_path, frame)


#: Frames that do not fit because of one value, and what stands in the message.
UNFIT: list[tuple[str, pl.Series, str]] = [
    ("sqlite", pl.Series([1, 2**63], dtype=pl.UInt64), "'9223372036854775808' would be another value in INTEGER"),
    ("sqlite", pl.Series([1.0, float("nan")]), "'nan' would be another value in REAL"),
    ("sqlite", pl.Series([1], dtype=pl.Time), "'00:00:00.000000001' would be another value in TIME"),
    ("sqlite", pl.Series([1], dtype=pl.Datetime("ns")), "would be another value in TIMESTAMP"),
    ("sqlite", pl.Series([3_000_000], dtype=pl.Int32).cast(pl.Date), "would be another value in DATE"),
    ("duckdb", pl.Series([1], dtype=pl.Time), "'00:00:00.000000001' would be another value in TIME"),
    ("duckdb", pl.Series([1], dtype=pl.Datetime("ns", "UTC")), "would be another value in TIMESTAMP WITH TIME ZONE"),
    ("duckdb", pl.Series([2**31 - 1], dtype=pl.Int32).cast(pl.Date), "would be another value in DATE"),
    ("duckdb", pl.Series([2**63 - 1]).cast(pl.Datetime("us")), "would be another value in TIMESTAMP"),
    ("duckdb", pl.Series([[1]], dtype=pl.List(pl.Datetime("ns", "UTC"))), "'[1970-01-01 00:00:00.000000001+00:00]' "),
    ("duckdb", pl.Series([10**38], dtype=pl.Int128), "would be another value in HUGEINT"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "values", "said"), UNFIT)
def test_a_value_that_does_not_survive_is_named(kind: str, values: pl.Series, said: str, tmp_path: Path) -> None:
    with pytest.raises(TargetTypeError) as caught:
        sent(kind, tmp_path, values.alias("x").to_frame())

    assert str(caught.value).startswith("target t: column 'x': ")
    assert said in str(caught.value)
    assert str(caught.value).endswith(" Nothing was published.")


#: A column that is there, what is sent, and what is then found there; or what is said, where it does not fit.
PRESENT: list[tuple[str, str, pl.Series, list[Any] | str]] = [
    ("sqlite", "NUMERIC(10,2)", series(pl.Decimal(10, 2), ["1.10", "99999999.99"]), [1.1, 99999999.99]),
    ("sqlite", "NUMERIC(20,2)", series(pl.Decimal(20, 2), ["1.10"]), "DECIMAL_TEXT(precision, scale)"),
    ("sqlite", "DECIMAL_TEXT(12,4)", series(pl.Decimal(10, 2), ["1.10"]), ["1.1000"]),
    ("sqlite", "DECIMAL_TEXT(5,1)", series(pl.Decimal(10, 2), ["1.10"]), "without loss"),
    ("sqlite", "TEXT", series(pl.Decimal(10, 2), ["1.10"]), ["1.10"]),
    ("sqlite", "", series(pl.Decimal(10, 2), ["1.10"]), ["1.10"]),
    ("sqlite", "", pl.Series([1, 2]), [1, 2]),
    ("sqlite", "NUMERIC", pl.Series(["1.10"]), "without loss. Parse it with a 'map' step"),
    ("sqlite", "DATETIME", pl.Series([date(2024, 1, 2)]), ["2024-01-02 00:00:00.000000"]),
    ("sqlite", "DATETIME", pl.Series([NOON]), ["2024-02-29 12:00:00.123456"]),
    ("sqlite", "DATETIME", pl.Series([NOON]).dt.replace_time_zone("UTC"), "does not fit DATETIME"),
    ("sqlite", "DATE", pl.Series([NOON]), "does not fit DATE"),
    ("sqlite", "TEXT", pl.Series([NOON]).dt.replace_time_zone("Asia/Tokyo"), ["2024-02-29 03:00:00.123456+00:00"]),
    ("sqlite", "INTEGER", pl.Series([NOON]), "does not fit INTEGER"),
    ("sqlite", "INTEGER", pl.Series([1.0]), "does not fit INTEGER"),
    ("sqlite", "INTEGER", pl.Series([True, None]), [1, None]),
    ("sqlite", "BOOLEAN", pl.Series([1]), "does not fit BOOLEAN"),
    ("sqlite", "REAL", pl.Series([1], dtype=pl.Int32), [1.0]),
    ("sqlite", "BLOB", pl.Series([b"1"]), [b"1"]),
    ("sqlite", "TEXT", pl.Series([b"1"]), "does not fit TEXT"),
    ("duckdb", "SMALLINT", pl.Series([1, -5]), [1, -5]),
    ("duckdb", "SMALLINT", pl.Series([70_000]), "'70000' would be another value in SMALLINT"),
    ("duckdb", "DOUBLE", pl.Series([1]), "Int64 does not fit DOUBLE"),
    ("duckdb", "DOUBLE", pl.Series([1], dtype=pl.Int32), [1.0]),
    ("duckdb", "DECIMAL(12,4)", series(pl.Decimal(10, 2), ["1.10"]), "1.1000"),
    ("duckdb", "DECIMAL(4,2)", series(pl.Decimal(10, 2), ["123.10"]), "'123.10' would be another value"),
    ("duckdb", "UUID", pl.Series(["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"]), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("duckdb", "UUID", pl.Series(["x"]), "UUID"),
    ("duckdb", "ENUM('a', 'b')", pl.Series(["b"]), ["b"]),
    ("duckdb", "ENUM('a', 'b')", pl.Series(["c"]), "enum"),
    ("duckdb", "JSON", pl.Series(['{"a":1}']), ['{"a":1}']),
    ("duckdb", "TIMESTAMP", pl.Series([date(2024, 1, 2)]), [datetime(2024, 1, 2)]),
    ("duckdb", "DATE", pl.Series([NOON]), "does not fit DATE"),
    ("duckdb", "VARCHAR", pl.Series([1]), "does not fit VARCHAR"),
    ("duckdb", "BIGINT[]", pl.Series([[1], [None]], dtype=pl.List(pl.Int8)), [[1], [None]]),
    ("duckdb", "MAP(VARCHAR, INTEGER)", pl.Series([[1]]), "does not fit MAP"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "declared", "values", "found"), PRESENT)
def test_a_column_that_is_there_takes_what_it_keeps(
    kind: str, declared: str, values: pl.Series, found: list[Any] | str, tmp_path: Path
) -> None:
    frame = values.alias("x").to_frame()
    ddl = f"CREATE TABLE t (x {declared})"
    try:
        sent(kind, tmp_path, frame, ddl)
        said = ""
    except TargetTypeError as error:
        said = str(error)

    there = [value for (value,) in execute(kind, tmp_path, "SELECT x FROM t")]
    if said:
        assert isinstance(found, str)
        assert found.casefold() in said.casefold()
        assert there == []
    else:
        assert there == found if isinstance(found, list) else list(map(str, there)) == [found]


def values_of(dtype: pl.DataType) -> st.SearchStrategy[Any]:
    """Any value that both sides of the border have."""
    if dtype.is_integer():
        return st.integers(*_ends(dtype))
    return _OTHERS[type(dtype)]


def _ends(dtype: pl.DataType) -> tuple[int, int]:
    bits = int(str(dtype).lstrip("UInt"))
    if dtype.is_unsigned_integer():
        return 0, 2 ** min(bits, 63) - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


_OTHERS: dict[Any, st.SearchStrategy[Any]] = {
    pl.Float32: st.floats(width=32, allow_nan=False),
    pl.Float64: st.floats(allow_nan=False),
    pl.Boolean: st.booleans(),
    pl.String: st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    pl.Binary: st.binary(),
    pl.Date: st.dates(),
    pl.Time: st.times(),
    pl.Datetime: st.datetimes(),
    pl.Decimal: st.decimals(min_value=-99, max_value=99, places=2).map(str),
}
SIMPLE = [
    pl.Int8(), pl.Int64(), pl.UInt32(), pl.UInt64(), pl.Float32(), pl.Float64(), pl.Boolean(), pl.String(), pl.Binary(),
    pl.Date(), pl.Time(), pl.Datetime("us"), UTC, pl.Decimal(4, 2),
]  # fmt: skip


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    height = draw(st.integers(0, 6))
    columns = [
        series(dtype, draw(st.lists(st.none() | values_of(dtype), min_size=height, max_size=height))).alias(
            f"{n} {dtype}"
        )
        for n, dtype in enumerate(draw(st.lists(st.sampled_from(SIMPLE), min_size=1, max_size=6)))
    ]
    return pl.DataFrame([pl.Series("id", range(height), pl.Int64()), *columns])


@pytest.mark.parametrize("kind", ["duckdb", "sqlite"])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frame=frames())
def test_any_frame_comes_back_as_it_was(kind: str, frame: pl.DataFrame, tmp_path: Path) -> None:
    for left in tmp_path.glob("trip.*"):
        left.unlink()

    back = returned(sent(kind, tmp_path, frame)).sort("id")

    assert_frame_equal(back.cast(dict(frame.schema)), frame)  # type: ignore[arg-type] # a dict of dtypes by name
