"""Frames of every dtype: Polars -> PostgreSQL -> Polars gives the same values, or the column is refused by name."""

from __future__ import annotations

import json
import math
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from flows._embedded import Server
from flows._errors import LoadError
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.sources._base import Pushdown
from flows.sources.database import Database as Source
from flows.targets.database import Database as Target

pytestmark = pytest.mark.postgres

FIRST_DAY, LAST_DAY = -2_440_588, 2_145_042_905  # 4714-11-24 BC, and 5874897-12-31
MICROSECONDS_A_DAY = 86_400_000_000


@dataclass(frozen=True)
class Kind:
    """A dtype, its values, and what is known of them from the two manuals alone.

    Attributes:
        values: as Python knows them; of a moment or a span its number, which Python knows further.
        survives: whether PostgreSQL holds the value.
        back: what it is when it comes back.
        reads: SQL for the column, with ``{}`` for its name.
    """

    dtype: pl.DataType
    values: st.SearchStrategy[Any]
    survives: Callable[[Any], bool] = lambda _value: True
    back: Callable[[Any], Any] = lambda value: value
    reads: str = "{}"

    def series(self, name: str, values: list[Any]) -> pl.Series:
        if self.dtype.is_temporal():
            physical = {pl.Date: pl.Int32}.get(self.dtype.base_type(), pl.Int64)
            return pl.Series(name, values, dtype=physical).cast(self.dtype)
        return pl.Series(name, values, dtype=self.dtype)


def integers(dtype: pl.DataType, bits: int, *, signed: bool = True) -> Kind:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return Kind(dtype, st.integers(low, high), survives=lambda value: abs(value) < 10**38)


def moments(unit: str, zone: str | None) -> Kind:
    step = {"ms": 1000, "us": 1, "ns": 1}[unit]
    parts = 1000 if unit == "ns" else 1

    def survives(value: int) -> bool:
        microseconds = value * step // parts
        return value % parts == 0 and FIRST_DAY * MICROSECONDS_A_DAY <= microseconds < 2**63

    numbers = st.integers(-(2**63), 2**63 - 1)
    near = st.integers(-(10**12), 10**12).map(lambda number: number * parts)
    first = FIRST_DAY * MICROSECONDS_A_DAY // step
    edges = st.sampled_from([first - 1, first, first + 1, (2**63 - 1) // step, (2**63 - 1) // step + 1 - (step == 1)])
    values = numbers | near if unit == "ns" else numbers | near | edges
    return Kind(pl.Datetime(unit, zone), values, survives, lambda value: value * step // parts)


def spans(unit: str) -> Kind:
    step, parts = {"ms": (1000, 1), "us": (1, 1), "ns": (1, 1000)}[unit]
    return Kind(
        pl.Duration(unit),
        st.integers(-(2**63) + 1, 2**63 - 1) | st.integers(-(10**9), 10**9).map(lambda number: number * parts),
        lambda value: value % parts == 0 and abs(value * step // parts) < 2**63,
        lambda value: value * step // parts,
        "(extract(epoch FROM {}) * 1000000)::numeric(38,0)",
    )


def decimals(precision: int, scale: int) -> Kind:
    values = st.decimals(allow_nan=False, allow_infinity=False, places=scale).filter(
        lambda number: len(number.as_tuple().digits) <= precision and abs(number) < 10 ** (precision - scale)
    )
    return Kind(pl.Decimal(precision, scale), values)


def listed(kind: Kind) -> Kind:
    return Kind(
        pl.List(kind.dtype),
        st.lists(st.none() | kind.values, max_size=3),
        lambda items: all(item is None or kind.survives(item) for item in items),
    )


def without_zero(value: Any) -> bool:
    return "\\u0000" not in json.dumps(value)


def floats(dtype: pl.DataType, width: int) -> Kind:
    return Kind(dtype, st.floats(width=width))


TEXTS = st.text(max_size=5) | st.sampled_from(["", "\0", "a\0", "NULL", "\\N", "x" * 100_000, "😀"])
WORDS = st.sampled_from(["", "a", "ä b"])
FINITE = st.floats(allow_nan=False, allow_infinity=False)
NESTED = {"a": pl.Int64(), "b": pl.String(), "c": pl.List(pl.Float64())}
OBJECTS = st.fixed_dictionaries(
    {"a": st.none() | st.integers(-(2**63), 2**63 - 1), "b": st.none() | TEXTS, "c": st.none() | st.lists(FINITE)}
)
#: A year of this size has no JSON of its own.
STRUCTS = Kind(pl.Struct(NESTED), OBJECTS, without_zero, lambda value: value, "{}::text")

KINDS: dict[str, Kind] = {
    **{f"Int{bits}": integers(getattr(pl, f"Int{bits}")(), bits) for bits in (8, 16, 32, 64, 128)},
    **{f"UInt{bits}": integers(getattr(pl, f"UInt{bits}")(), bits, signed=False) for bits in (8, 16, 32, 64, 128)},
    "Float16": floats(pl.Float16(), 16),
    "Float32": floats(pl.Float32(), 32),
    "Float64": floats(pl.Float64(), 64),
    **{f"Decimal({p},{s})": decimals(p, s) for p, s in [(1, 0), (1, 1), (9, 4), (38, 0), (38, 20), (38, 38)]},
    "String": Kind(pl.String(), TEXTS, lambda value: "\0" not in value),
    "Categorical": Kind(pl.Categorical(), WORDS),
    "Enum": Kind(pl.Enum(["", "a", "ä b"]), WORDS),
    "Boolean": Kind(pl.Boolean(), st.booleans()),
    "Binary": Kind(pl.Binary(), st.binary(max_size=9)),
    "Date": Kind(
        pl.Date(),
        st.integers(-(2**31), 2**31 - 1) | st.integers(-800_000, 4_000_000)
        | st.sampled_from([FIRST_DAY - 1, FIRST_DAY, LAST_DAY, LAST_DAY + 1, -(2**31) + 10_957]),
        lambda value: FIRST_DAY <= value <= LAST_DAY,
    ),
    "Time": Kind(
        pl.Time(),
        st.integers(0, 86_400 * 10**9 - 1) | st.integers(0, 86_400 * 10**6 - 1).map(lambda number: number * 1000),
        lambda value: value % 1000 == 0,
    ),
    **{f"Datetime {u} {z}": moments(u, z) for u in ("ms", "us", "ns") for z in (None, "UTC", "Asia/Kathmandu")},
    **{f"Duration {u}": spans(u) for u in ("ms", "us", "ns")},
    "Struct": STRUCTS,
    "List of structs": Kind(
        pl.List(pl.Struct(NESTED)), st.lists(st.none() | OBJECTS, max_size=2), without_zero, reads="{}::text"
    ),
    "List of lists": Kind(
        pl.List(pl.List(pl.Int64)), st.lists(st.none() | st.lists(st.none() | st.integers(0, 9))), reads="{}::text"
    ),
    "Null": Kind(pl.Null(), st.none()),
    **{
        f"List of {name}": listed(kind)
        for name, kind in {
            "Int8": integers(pl.Int8(), 8),
            "Int64": integers(pl.Int64(), 64),
            "UInt16": integers(pl.UInt16(), 16, signed=False),
            "Float32": floats(pl.Float32(), 32),
            "Float64": floats(pl.Float64(), 64),
            "String": Kind(pl.String(), TEXTS, lambda value: "\0" not in value),
            "Boolean": Kind(pl.Boolean(), st.booleans()),
            "Enum": Kind(pl.Enum(["", "a", "ä b"]), WORDS),
        }.items()
    },
}  # fmt: skip
WHERE_TEXT_IS_READ = {"Struct", "List of structs", "List of lists"}


@pytest.fixture(scope="module")
def shared(postgres_server: Server) -> Iterator[str]:
    name = f"frames_{uuid.uuid4().hex}"
    yield postgres_server.create(name)
    with psycopg.connect(postgres_server.uri(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@st.composite
def columns(draw: st.DrawFn) -> list[tuple[str, list[Any]]]:
    height = draw(st.integers(0, 4))
    names = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6))
    return [(name, draw(st.lists(st.none() | KINDS[name].values, min_size=height, max_size=height))) for name in names]


def published(uri: str, table: str, frame: pl.DataFrame) -> None:
    target = Target.model_validate({"connection_string": uri, "table_name": table})
    record = RunRecord.start("types", table, "1")
    with tempfile.TemporaryDirectory() as folder, target.open(record, frame.schema) as chamber:
        chamber.stage(frame)
        record.rows.read, record.staged = frame.height, chamber.seal()
        chamber.publish(record, Quarantine(Path(folder)))


def come_back(uri: str, table: str, kinds: list[Kind]) -> list[list[Any]]:
    selected = ", ".join(kind.reads.format(f"c{place}") + f" AS c{place}" for place, kind in enumerate(kinds))
    query = f"SELECT {selected} FROM {table} ORDER BY n"
    extract = Source.model_validate({"connection_string": uri, "query": query}).scan("s")
    frame = pl.concat([pl.DataFrame(schema=extract.schema), *extract.read(Pushdown())])
    physical = [s.to_physical() if s.dtype.is_temporal() else s for s in frame]
    return [[value for value in series] for series in physical]  # noqa: C416 - lists of a list column are series


def same(found: Any, wanted: Any) -> bool:
    """Equal down to the sign of a zero; NaN is itself."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(same(found[name], wanted[name]) for name in wanted)
    if isinstance(wanted, float):
        if found is None:
            return False
        found = float(found)  # JSON may show it as an integer
        return (math.isnan(found) and math.isnan(wanted)) or (
            found == wanted and math.copysign(1, found) == math.copysign(1, wanted)
        )
    if isinstance(wanted, list):
        found = list(found)
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return bool(found == wanted)


def number(text: str) -> float:
    """As JSON has them in PostgreSQL: exact integers, other numbers without the sign of a zero."""
    return int(text) if text.lstrip("-").isdigit() and len(text) < 20 else float(text) + 0.0


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(columns())
def test_a_frame_comes_back_or_a_column_is_refused_by_name(shared: str, drawn: list[tuple[str, list[Any]]]) -> None:
    kinds = [KINDS[name] for name, _values in drawn]
    table = f"t{uuid.uuid4().hex}"
    height = len(drawn[0][1])
    frame = pl.DataFrame(
        [pl.Series("n", range(height), dtype=pl.Int64)]
        + [kind.series(f"c{k}", drawn[k][1]) for k, kind in enumerate(kinds)]
    )
    lost = {
        f"'c{place}'"
        for place, kind in enumerate(kinds)
        if not all(value is None or kind.survives(value) for value in drawn[place][1])
    }

    if lost:
        with pytest.raises(LoadError) as refused:
            published(shared, table, frame)
        assert any(f"column {name}" in str(refused.value) for name in lost), str(refused.value)
        with psycopg.connect(shared) as connection:
            assert connection.execute("SELECT to_regclass(%s)", (table,)).fetchone() == (None,)
        return

    published(shared, table, frame)
    back = come_back(shared, table, kinds)

    for place, (name, values) in enumerate(drawn):
        wanted = [None if value is None else kinds[place].back(value) for value in values]
        found = back[place]
        if name in WHERE_TEXT_IS_READ:  # of floats, which Python would read as the integers that they look like
            found = [None if text is None else json.loads(text, parse_int=number) for text in found]
            wanted = [None if value is None else json.loads(json.dumps(value), parse_float=number) for value in wanted]
        assert same(found, wanted), (name, found, wanted)


@pytest.mark.parametrize(
    "series",
    [
        pl.Series("gone", [object()], dtype=pl.Object),
        pl.Series("gone", [[1, 2]], dtype=pl.Array(pl.Int64, 2)),
        pl.Series("gone", [{"a": b"x"}]),
        pl.Series("gone", [[{"a": b"x"}]]),
    ],
    ids=lambda series: str(series.dtype),
)
def test_what_has_no_type_is_refused_before_a_row_is_staged(shared: str, series: pl.Series) -> None:
    target = Target.model_validate({"connection_string": shared, "table_name": "gone"})

    with pytest.raises(LoadError, match=r"^target gone: column 'gone': "):
        target.open(RunRecord.start("types", "gone", "1"), pl.DataFrame([series]).schema)
