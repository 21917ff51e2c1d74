"""Tables of a lake, in both formats, on disks and on a real S3 endpoint."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from flows import pipeline
from flows._config import load as configured
from flows._errors import (
    LoadError,
    RefusedError,
    TargetAuthenticationError,
    TargetBusyError,
    TargetTypeError,
    TargetUnreachableError,
)
from flows._ledger import Guards, RunRecord
from flows._quarantine import Quarantine
from flows.targets._base import Published
from flows.targets.data_lake import DataLake
from tests._python import Child
from tests._s3 import ENDPOINTS

FORMATS = ("delta", "parquet")
DAY = date(2024, 1, 1)
FRAME = pl.DataFrame(
    {"id": [1, 2, 3, 4], "day": [DAY, DAY, DAY + timedelta(1), DAY + timedelta(1)], "v": ["a", "b", "c", None]}
)
BY_ID: dict[str, Any] = {"write_mode": "upsert", "primary_key": ["id"]}


class Lake:
    """One table, and how somebody who is not us reads it."""

    def __init__(self, path: str, format_: str, folder: Path, options: dict[str, str] | None = None) -> None:
        self.path, self.format, self.folder, self.options = path, format_, folder, options or {}

    def target(self, **keys: Any) -> DataLake:
        given_ = {"path": self.path, "format": self.format, "storage_options": self.options}
        return DataLake.model_validate(given_ | keys)

    def load(self, *frames: pl.DataFrame, record: RunRecord | None = None, **keys: Any) -> Published:
        target = self.target(**keys)
        record = record or RunRecord.start("p", target.label, "1")
        record.rows.read = sum(frame.height for frame in frames)
        with target.open(record, frames[0].schema) as chamber:
            for frame in frames:
                chamber.stage(frame)
            record.staged = chamber.seal()
            return chamber.publish(record, Quarantine(self.folder / record.run_id))

    @property
    def object_store(self) -> dict[str, str]:
        return self.target()._store.object_store()

    def read(self) -> pl.DataFrame:
        if self.format == "delta":
            return pl.scan_delta(self.path, storage_options=self.object_store).collect()
        table = self.target()._table
        table.load()
        assert table.schema is not None
        root = self.path if self.options else str(Path(self.path))
        frames = [
            pl.read_parquet(f"{root}/{file.path}", storage_options=self.object_store or None, hive_partitioning=False)
            .with_columns(pl.lit(value, table.schema[name]).alias(name) for name, value in file.partition.items())
            .select(name for name in table.schema)
            for file in table.files
        ]
        return pl.concat([table.schema.to_frame(), *frames])

    def rows(self, by: str = "id") -> list[dict[str, Any]]:
        return self.read().sort(by).to_dicts()

    def files(self) -> set[str]:
        """Every Parquet file that lies there."""
        store = self.target()._store
        return {name for name in store.fs.find(store.path) if name.endswith(".parquet")}


@pytest.fixture(params=FORMATS)
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), request.param, tmp_path)


@pytest.fixture(params=[f"{place} {format_}" for place in ("local", *ENDPOINTS) for format_ in FORMATS])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    place, format_ = request.param.split()
    if place == "local":
        return Lake(str(tmp_path / "lake"), format_, tmp_path)
    bucket = request.getfixturevalue("s3_at")(place)
    return Lake(f"{bucket.url}/a/lake", format_, tmp_path, bucket.options)


# --- write modes ---


def test_rows_are_appended(anywhere: Lake) -> None:
    assert anywhere.load(FRAME, partition_by="day").how == "created"
    assert anywhere.load(FRAME.with_columns(pl.col("id") + 10)) == Published(4, how="appended")

    assert [row["id"] for row in anywhere.rows()] == [1, 2, 3, 4, 11, 12, 13, 14]


def test_an_overwrite_leaves_only_its_rows(anywhere: Lake) -> None:
    anywhere.load(FRAME, partition_by="day")
    published = anywhere.load(FRAME.head(1), write_mode="overwrite")

    assert (published.inserted, published.deleted) == (1, 4)
    assert anywhere.rows() == FRAME.head(1).to_dicts()


def test_a_dynamic_overwrite_replaces_the_partitions_that_arrive(anywhere: Lake) -> None:
    anywhere.load(FRAME, partition_by="day")
    new = FRAME.head(1).with_columns(v=pl.lit("new"))
    published = anywhere.load(new, write_mode="overwrite", partition_overwrite="dynamic")

    assert (published.inserted, published.deleted) == (1, 2)
    assert anywhere.rows() == [*new.to_dicts(), *FRAME.tail(2).to_dicts()]


def test_a_dynamic_overwrite_is_guarded_within_the_partitions_that_arrive(anywhere: Lake) -> None:
    anywhere.load(FRAME, partition_by="day")
    keys: dict[str, Any] = {"write_mode": "overwrite", "partition_overwrite": "dynamic"}

    def guarded(ratio: float) -> RunRecord:
        record = RunRecord.start("p", anywhere.target().label, "1")
        record.guards = Guards(ratio)
        return record

    with pytest.raises(RefusedError, match=r"remove 1 of 2 rows \(50 %\)"):
        anywhere.load(FRAME.head(1), record=guarded(0.4), **keys)
    assert anywhere.rows() == FRAME.to_dicts()
    assert anywhere.load(FRAME.head(1), record=guarded(0.5), **keys).deleted == 2


def test_an_upsert_counts_what_it_does(anywhere: Lake) -> None:
    anywhere.load(FRAME, partition_by="day", **BY_ID)
    new = FRAME.with_columns(id=pl.col("id") + 1, v=pl.Series(["b", "C", None, "new"]), day=pl.lit(DAY))
    published = anywhere.load(new, **BY_ID)

    assert (published.inserted, published.updated, published.unchanged) == (1, 2, 1)
    assert anywhere.rows() == [*FRAME.head(1).to_dicts(), *new.to_dicts()]


def test_an_upsert_of_equal_rows_commits_nothing(anywhere: Lake) -> None:
    anywhere.load(FRAME, partition_by="day", **BY_ID)
    before = anywhere.files()
    published = anywhere.load(FRAME, **BY_ID)

    assert (published.changed, published.unchanged) == (False, 4)
    assert anywhere.files() == before
    assert [run["status"] for run in anywhere.target().history("p", 9)] == ["unchanged", "published"]


def test_rows_are_replaced_by_key(anywhere: Lake) -> None:
    anywhere.load(FRAME, partition_by="day")
    lines = pl.DataFrame({"id": [1, 1, 9], "day": [DAY] * 3, "v": ["x", "y", "z"]})
    published = anywhere.load(lines, write_mode="delete_insert", delete_key="id")

    assert (published.inserted, published.deleted) == (3, 1)
    assert sorted(row["v"] or "" for row in anywhere.rows()) == ["", "b", "c", "x", "y", "z"]


@pytest.mark.parametrize("ends", [{}, {"from": 2, "to": 4}])
def test_rows_are_replaced_by_range(lake: Lake, ends: dict[str, int]) -> None:
    lake.load(FRAME)
    new = pl.DataFrame({"id": [2, 3], "day": [DAY] * 2, "v": ["x", "y"]})
    published = lake.load(new, write_mode="delete_insert", delete_range={"column": "id"} | ends)

    assert (published.inserted, published.deleted) == (2, 2)
    assert [row["v"] for row in lake.rows()] == ["a", "x", "y", None]


def test_a_row_outside_of_the_range_is_refused(lake: Lake) -> None:
    lake.load(FRAME)
    with pytest.raises(RefusedError, match="2 rows of the load are outside of it"):
        lake.load(FRAME, write_mode="delete_insert", delete_range={"column": "id", "from": 2, "to": 4})

    assert lake.read().height == 4


def test_history_is_kept(anywhere: Lake) -> None:
    keys: dict[str, Any] = {"write_mode": "scd2", "primary_key": "id"}
    starts = []
    for values in (["a", "b"], ["a", "c"], ["a", "c"]):
        record = RunRecord.start("p", anywhere.path, "1")
        starts.append(record.started_at)
        published = anywhere.load(pl.DataFrame({"id": [1, 2], "v": values}), record=record, **keys)
    assert (published.inserted, published.unchanged, published.closed) == (0, 2, 0)
    gone = RunRecord.start("p", anywhere.path, "1")
    published = anywhere.load(
        pl.DataFrame({"id": [2], "v": ["c"]}), record=gone, scd2={"hard_deletes": "close"}, **keys
    )

    assert (published.unchanged, published.closed) == (1, 1)
    assert anywhere.read().sort("id", "valid_from").rows() == [
        (1, "a", starts[0], gone.started_at, False),
        (2, "b", starts[0], starts[1], False),
        (2, "c", starts[1], None, True),
    ]


def test_history_does_not_change_the_past(lake: Lake) -> None:
    keys: dict[str, Any] = {"write_mode": "scd2", "primary_key": "id", "scd2": {"effective_at": "day"}}
    lake.load(pl.DataFrame({"id": [1], "day": [DAY], "v": ["a"]}), **keys)
    with pytest.raises(RefusedError, match="1 row would change the past"):
        lake.load(pl.DataFrame({"id": [1], "day": [DAY - timedelta(1)], "v": ["b"]}), **keys)


ROWS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["a", "b", None])), max_size=6, unique_by=lambda r: r[0])


@pytest.mark.parametrize("format_", FORMATS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(loads=st.lists(st.tuples(st.sampled_from(["append", "overwrite", "upsert", "delete_insert"]), ROWS), max_size=5))
def test_any_loads_leave_what_a_dictionary_would(
    format_: str, tmp_path: Path, loads: list[tuple[str, list[tuple[int, str | None]]]]
) -> None:
    lake = Lake(str(tmp_path / uuid.uuid4().hex), format_, tmp_path)
    expected: list[tuple[int, str | None]] = []
    lake.load(pl.DataFrame(schema={"id": pl.Int64, "v": pl.String, "p": pl.Int64}), partition_by="p")
    for mode, given_ in loads:
        rows, new = given_, {key for key, _value in given_}
        if mode == "append":
            taken = {key for key, _value in expected}
            rows = [row for row in given_ if row[0] not in taken]
        frame = pl.DataFrame(rows, schema={"id": pl.Int64, "v": pl.String}, orient="row")
        kept = [] if mode == "overwrite" else [row for row in expected if mode == "append" or row[0] not in new]
        expected = kept + rows
        keys = {} if mode in {"append", "overwrite"} else {"primary_key": ["id"]}
        keys |= {"allow_empty": True} if mode == "overwrite" else {}
        published = lake.load(frame.with_columns(p=pl.col("id") % 2), write_mode=mode, **keys)
        assert published.inserted + published.updated + published.unchanged == len(rows)

    assert lake.read().sort("id").select("id", "v").rows() == sorted(expected, key=lambda row: row[0])


# --- guards ---


def test_an_empty_overwrite_is_refused(lake: Lake) -> None:
    lake.load(FRAME)
    with pytest.raises(RefusedError, match="the load is empty"):
        lake.load(FRAME.head(0), write_mode="overwrite")
    lake.load(FRAME.head(0), write_mode="overwrite", allow_empty=True)

    assert lake.read().height == 0


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (FRAME.with_columns(id=pl.lit(1)), "several rows share a key"),
        (FRAME.with_columns(id=pl.lit(None, pl.Int64)), "a row has no key"),
    ],
)
@pytest.mark.parametrize("mode", ["upsert", "scd2"])
def test_keys_are_held_to_be_keys(lake: Lake, mode: str, frame: pl.DataFrame, match: str) -> None:
    with pytest.raises(LoadError, match=match):
        lake.load(frame, write_mode=mode, primary_key="id")

    assert lake.files() == set()


def test_options_that_mean_nothing_together_are_refused() -> None:
    for keys, match in [
        ({"partition_overwrite": "dynamic"}, "'partition_overwrite' is for write_mode: overwrite"),
        (
            {"schema_contract": "evolve"},
            r"types of a lake's columns do not change.*schema_contract: \{columns: evolve\}",
        ),
        ({"versions_kept": 3}, "'versions_kept' is for format: parquet"),
        ({"path": "s3://b/p", "concurrent_runs": "wait"}, "nothing locks a table in S3"),
        ({"path": "sftp://host/x"}, "cannot be committed to"),
        ({"path": "s3://bucket"}, "a prefix of its own"),
        ({"storage_options": {"keys": "x"}}, "not a storage option"),
    ]:
        with pytest.raises(ValidationError, match=match):
            DataLake.model_validate({"path": "lake"} | keys)


# --- columns ---


def test_columns_are_added_refused_or_left_out(lake: Lake) -> None:
    lake.load(FRAME, **BY_ID)
    wide = FRAME.with_columns(more=pl.lit(1.5)).tail(1)
    with pytest.raises(LoadError, match=r"the table has no column 'more'\. .*schema_contract: \{columns: evolve\}"):
        lake.load(wide, **BY_ID)
    assert lake.load(wide, schema_contract={"columns": "discard"}, **BY_ID).unchanged == 1
    assert lake.target(schema_contract={"columns": "evolve"}, **BY_ID).plan(wide.schema) == [
        "add column more Float64",
        f"merge into {lake.path} by (id), equal rows are left alone, in one commit",
    ]
    assert lake.load(wide, schema_contract={"columns": "evolve"}, **BY_ID).updated == 1

    assert [row["more"] for row in lake.rows()] == [None, None, None, 1.5]


def test_a_column_that_does_not_fit_is_refused_by_name(lake: Lake) -> None:
    lake.load(FRAME)
    with pytest.raises(TargetTypeError, match="column 'id': String does not fit Int64 without loss"):
        lake.load(FRAME.with_columns(id=pl.lit("x")))
    with pytest.raises(LoadError, match="the table has a column 'v' of type String, and the pipeline delivers none"):
        lake.load(FRAME.drop("v"), **BY_ID)
    with pytest.raises(TargetTypeError, match="column 'id': '18446744073709551615' would be another value in Int64"):
        lake.load(FRAME.with_columns(id=pl.lit(2**64 - 1, pl.UInt64)))
    with pytest.raises(LoadError, match="the table that is there is not partitioned"):
        lake.load(FRAME, partition_by="day")

    assert lake.rows() == FRAME.to_dicts()


def test_rows_whose_values_do_not_fit_go_to_quarantine(lake: Lake, tmp_path: Path) -> None:
    lake.load(pl.DataFrame({"id": [0], "n": [7], "p": ["a"]}, schema_overrides={"n": pl.Int16}), partition_by="p")
    (tmp_path / "in.csv").write_text('id,n,p\n1,8,a\n2,99999,b\n3,,\n4,-99999,""\n5,9,""\n')
    keys = {
        "type": "batch",
        "source": {"type": "file", "path": str(tmp_path / "in.csv"), "dtypes": {"id": "bigint", "n": "bigint"}},
        "target": {
            "type": "data_lake", "path": lake.path, "format": lake.format,
            "schema_contract": {"data_type": "quarantine"},
        },
        "error_handling": {"max_failed_ratio": 1},
    }  # fmt: skip
    file = tmp_path / "p.yaml"
    file.write_text(json.dumps({"pipelines": {"p": keys}}))
    made = configured(file).pipeline("p")
    told_apart = lake.format == "parquet"
    assert "rows whose 'n' does not fit Int16 go to quarantine" in made.target.plan(
        pl.Schema({"id": pl.Int64, "n": pl.Int64, "p": pl.String})
    )

    record = pipeline.run(made)

    fits = [(0, 7, "a"), (1, 8, "a"), (3, None, None), *([(5, 9, "")] if told_apart else [])]
    assert lake.read().sort("id").rows() == fits
    assert (record.status, record.rows.written) == ("published", len(fits) - 1)
    reasons = {row["values"]["id"]: row["reasons"] for row in made.target.quarantined("p", None, 9)}
    wide, empty = "data_type: n does not fit Int16", "data_type: p does not fit String"
    assert reasons == ({2: [wide], 4: [wide]} if told_apart else {2: [wide], 4: [wide, empty], 5: [empty]})


def test_a_column_that_is_not_delivered_is_null(lake: Lake) -> None:
    lake.load(FRAME)
    lake.load(FRAME.drop("v").tail(1).with_columns(id=pl.lit(9)))

    assert [row["v"] for row in lake.rows()] == ["a", "b", "c", None, None]


def test_delta_has_no_type_for_some_columns(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"), "delta", tmp_path)
    for dtype in (pl.Time, pl.Duration, pl.UInt64, pl.Null, pl.Int128, pl.List(pl.Duration)):
        with pytest.raises(TargetTypeError, match=r"column 'x' is .*, and Delta Lake has no type for that"):
            lake.load(pl.DataFrame({"x": [None]}, schema={"x": dtype}))

    assert lake.files() == set()


TYPES = pl.DataFrame(
    {
        "id": [1, 2],
        "i8": pl.Series([-128, None], dtype=pl.Int8),
        "u32": pl.Series([2**32 - 1, 0], dtype=pl.UInt32),
        "f32": pl.Series([1.5, float("nan")], dtype=pl.Float32),
        "f64": [float("-inf"), -0.0],
        "ok": [True, None],
        "text": ["größe ☃ 😀", " "],
        "bytes": [b"\x00\xff", None],
        "price": pl.Series([Decimal("-12345678901234567.89"), None], dtype=pl.Decimal(38, 2)),
        "day": [date(1, 1, 1), date(9999, 12, 31)],
        "naive": pl.Series([datetime(1900, 1, 1, 1, 2, 3, 4), None], dtype=pl.Datetime("us")),
        "zoned": pl.Series([datetime(2024, 1, 1, tzinfo=UTC), None], dtype=pl.Datetime("ms", "UTC")),
        "list": [[1, None], None],
        "struct": [{"a": 1, "b": ["x"]}, {"a": None, "b": None}],
        "kind": pl.Series(["a", None], dtype=pl.Enum(["a", "b"])),
        "nothing": pl.Series([None, None], dtype=pl.String),
        "ü" * 150: [1, 2],
        'select "x" %2F': [1, 2],
    }
)


@pytest.mark.parametrize("keys", [{}, {"partition_by": "text"}], ids=["whole", "partitioned"])
def test_values_come_back_as_they_were(lake: Lake, keys: dict[str, Any]) -> None:
    lake.load(TYPES, **keys, **BY_ID)
    again = lake.load(TYPES, **BY_ID)

    found = lake.read().sort("id")
    assert_frame_equal(found.cast(dict(TYPES.schema)).select(TYPES.columns), TYPES, check_exact=True)
    assert again.unchanged == 2


@pytest.mark.parametrize(
    "values",
    [
        ["a/b", "*", None, "größe ☃", "a=b", "%2F", "..", " x "],
        [1, -(2**62), None, 0, 5, 6, 7, 8],
        [True, False, None] * 2,
    ],
    ids=["texts", "numbers", "booleans"],
)
def test_partitions_may_be_called_anything(anywhere: Lake, values: list[Any]) -> None:
    frame = pl.DataFrame({"id": range(len(values)), "p": values})
    anywhere.load(frame, partition_by="p", **BY_ID)
    assert anywhere.load(frame, **BY_ID).unchanged == len(values)
    changed = frame.with_columns(p=pl.lit(values[0]))
    anywhere.load(changed, **BY_ID)

    assert anywhere.read().sort("id").equals(changed.cast({"id": pl.Int64}))


def test_a_delta_table_cannot_tell_an_empty_text_from_a_null(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"), "delta", tmp_path)
    with pytest.raises(TargetTypeError, match="column 'p': '' would be null"):
        lake.load(pl.DataFrame({"id": [1], "p": [""]}), partition_by="p")


# --- all or nothing ---


def test_a_retry_of_a_published_run_publishes_nothing(anywhere: Lake) -> None:
    record = RunRecord.start("p", anywhere.path, "1")
    target = anywhere.target()
    record.rows.read = 4
    with target.open(record, FRAME.schema) as chamber:
        chamber.stage(FRAME)
        record.staged = chamber.seal()
        for _attempt in range(2):
            published = chamber.publish(record, Quarantine(anywhere.folder / "q"))

    assert (published.inserted, anywhere.read().height) == (4, 4)
    assert len(target.history("p", 9)) == 1


def test_what_is_not_published_leaves_no_file(anywhere: Lake) -> None:
    target = anywhere.target(partition_by="day")
    with target.open(RunRecord.start("p", anywhere.path, "1"), FRAME.schema) as chamber:
        chamber.stage(FRAME)
        chamber.seal()

    assert anywhere.files() == set()


def test_of_writers_at_once_each_wins_or_is_told_to_run_again(anywhere: Lake) -> None:
    anywhere.load(FRAME.head(0))
    gate = threading.Barrier(4)
    won: list[int] = []
    told: list[BaseException] = []

    def write(number: int) -> None:
        frame = FRAME.with_columns(id=pl.col("id") + number * 100)
        target = anywhere.target()
        record = RunRecord.start(f"p{number}", target.label, "1")
        record.rows.read = frame.height
        with target.open(record, frame.schema) as chamber:
            chamber.stage(frame)
            record.staged = chamber.seal()
            gate.wait()
            try:
                chamber.publish(record, Quarantine(anywhere.folder / record.run_id))
                won.append(number)
            except TargetBusyError as error:
                told.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) + len(told) == 4
    assert won
    assert sorted({row["id"] // 100 for row in anywhere.rows()}) == sorted(won)
    assert anywhere.read().height == 4 * len(won)


def test_readers_see_one_version_whole(lake: Lake) -> None:
    size = 50
    frame = pl.DataFrame({"id": range(size), "p": [n % 5 for n in range(size)], "n": [0] * size})
    lake.load(frame, partition_by="p")
    seen: set[tuple[int, ...]] = set()
    done = threading.Event()
    failures: list[BaseException] = []

    def look() -> None:
        try:
            while not done.is_set():
                rows = lake.read()
                seen.add((rows.height, rows["n"].n_unique()))
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 16):
        lake.load(frame.with_columns(n=pl.lit(number, pl.Int64)), write_mode="overwrite", **_kept(lake))
    done.set()
    for reader in readers:
        reader.join()

    assert failures == []
    assert seen == {(size, 1)}


def _kept(lake: Lake) -> dict[str, Any]:
    return {"versions_kept": 20} if lake.format == "parquet" else {}


CHILD = """
import json, sys
import polars as pl
from pathlib import Path
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.targets.data_lake import DataLake
keys, folder, first = json.loads(sys.argv[1])
for number in range(first, first + 1000):
    frame = pl.DataFrame({"id": range(40), "p": [n % 4 for n in range(40)], "n": [number] * 40})
    target = DataLake.model_validate(keys)
    record = RunRecord.start("p", target.label, "1")
    record.rows.read = 40
    print("begin", number, flush=True)
    with target.open(record, frame.schema) as chamber:
        chamber.stage(frame)
        record.staged = chamber.seal()
        chamber.publish(record, Quarantine(Path(folder, record.run_id)))
    print("done", number, flush=True)
"""


@pytest.mark.parametrize("mode", [{"write_mode": "overwrite"}, BY_ID], ids=["overwrite", "upsert"])
def test_killed_at_any_moment_a_load_is_there_whole_or_not_at_all(lake: Lake, mode: dict[str, Any]) -> None:
    keys = {"path": lake.path, "format": lake.format, "partition_by": "p", **mode}
    number = 0
    for delay in (0.05, 0.11, 0.17, 0.23):
        asked = json.dumps([keys, str(lake.folder), number])
        with Child(CHILD, asked) as child:
            assert child.stdout.readline().split() == ["begin", str(number)]
            time.sleep(delay * random.uniform(0.5, 3))
            child.send_signal(signal.SIGKILL)
            said = [line.split() for line in child.stdout if line.endswith("\n")]
        done = max([number - 1, *(int(n) for word, n in said if word == "done")])
        rows = lake.read() if lake.target()._store.fs.exists(lake.path) and _is_there(lake) else None
        number = done + 1
        if rows is None:
            continue
        (value,) = rows["n"].unique()
        assert value in {done, done + 1}
        assert rows["id"].sort().to_list() == list(range(40))
        published = [run for run in lake.target().history("p", 2000) if run["status"] == "published"]
        assert len(published) == value + 1
        number = value + 1
    lake.load(pl.DataFrame({"id": [0], "p": [0], "n": [number]}), write_mode="overwrite")

    lost = {name for name in lake.files() if "/_lockgate/" not in name} - _known(lake)
    assert lost == set()


def _is_there(lake: Lake) -> bool:
    table = lake.target()._table
    table.load()
    return table.exists


def _known(lake: Lake) -> set[str]:
    """Files of any version that is still known."""
    if lake.format == "parquet":
        texts = Path(lake.path, "_lockgate", "manifests").glob("*.json")
        return {f"{lake.path}/{file['path']}" for text in texts for file in json.loads(text.read_text())["files"]}
    texts = Path(lake.path, "_delta_log").glob("*.json")
    actions = [json.loads(line) for text in texts for line in text.read_text().splitlines()]
    return {f"{lake.path}/{action['add']['path'].replace('%3D', '=')}" for action in actions if "add" in action}


# --- reaching it ---


@pytest.mark.parametrize("format_", FORMATS)
def test_keys_that_s3_refuses_are_told_and_not_shown(
    refused: tuple[dict[str, str], type[LoadError]], format_: str, tmp_path: Path
) -> None:
    options, kind = refused
    lake = Lake("s3://bucket/x", format_, tmp_path, options)
    for attempt in (lake.target().check, lambda: lake.load(FRAME)):
        with pytest.raises(kind) as caught:
            attempt()
        assert not caught.value.retryable
        assert "hush-s3-secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["part.parquet", "*.parquet"])
def test_files_that_s3_refuses_to_polars_are_told(
    refused: tuple[dict[str, str], type[LoadError]], name: str, tmp_path: Path
) -> None:
    options, kind = refused
    store = Lake("s3://bucket/x", "parquet", tmp_path, options).target()._store

    with pytest.raises(kind), store.mapped():
        pl.scan_parquet(f"s3://bucket/x/{name}", storage_options=store.object_store()).collect()


def test_an_endpoint_that_is_not_there_is_told_and_no_key_shown(s3: Any, tmp_path: Path) -> None:
    for format_ in FORMATS:
        options = s3.options | {"endpoint_url": "http://127.0.0.1:1"}
        lake = Lake(f"{s3.url}/x", format_, tmp_path, options)
        with pytest.raises(TargetUnreachableError) as caught:
            lake.load(FRAME)

        assert s3.options["secret"] not in str(caught.value)
        assert s3.options["secret"] not in repr(lake.target())


def test_a_missing_bucket_is_told(s3: Any, tmp_path: Path) -> None:
    for format_ in FORMATS:
        lake = Lake("s3://no-such-bucket-here/x", format_, tmp_path, s3.options)
        with pytest.raises(LoadError) as caught:
            lake.target().check()

        assert not isinstance(caught.value, TargetAuthenticationError | TargetBusyError)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_a_folder_that_may_not_be_written_is_told(lake: Lake) -> None:
    Path(lake.path).mkdir(mode=0o555)
    lake.folder.chmod(0o755)
    code = (
        "import os, sys; from flows.targets.data_lake import DataLake; import flows.targets._lake_fit, polars\n"
        "import flows.targets._lake_delta, flows.targets._lake_manifests, deltalake, pyarrow\n"
        "import fsspec.implementations.local\n"
        "from flows._errors import TargetPermissionError\n"
        f"target = DataLake.model_validate({{'path': {lake.path!r}, 'format': {lake.format!r}}})\n"
        "os.seteuid(65534)\n"
        "try: target.check()\n"
        "except TargetPermissionError: print('told')\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (output.stdout, output.stderr) == ("told\n", "")


# --- whole pipelines ---


def test_a_pipeline_loads_a_lake(anywhere: Lake, tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text(
        "id,day,amount\n1,2024-01-01,2.5\n2,2024-01-02,x\n3,2024-01-02,4\n3,2024-01-02,5\n"
    )
    target = {"type": "data_lake", "path": anywhere.path, "format": anywhere.format, "partition_by": ["day"]}
    keys = {
        "type": "batch",
        "source": {
            "type": "file",
            "path": str(tmp_path / "orders.csv"),
            "dtypes": {"amount": "float8", "id": "bigint"},
        },
        "target": target | {"write_mode": "upsert", "primary_key": ["id"], "storage_options": anywhere.options},
        "quality_rules": [{"type": "unique", "field": "id"}],
        "error_handling": {"max_failed_ratio": 1},
    }
    file = tmp_path / "p.yaml"
    file.write_text(json.dumps({"pipelines": {"orders": keys}}))
    made = configured(file).pipeline("orders")

    first, second = pipeline.run(made), pipeline.run(made)

    assert (first.rows.read, first.rows.written, first.rows.quarantined) == (4, 1, 3)
    assert (second.status, second.rows.unchanged) == ("unchanged", 1)
    assert anywhere.rows() == [{"id": 1, "day": DAY, "amount": 2.5}]
    reasons = {row["reasons"][0] for row in made.target.quarantined("orders", first.run_id, 9)}
    assert len(reasons) == 2
    assert "id unique" in reasons
    assert [run["status"] for run in made.target.history("orders", 9)] == ["unchanged", "published"]


def test_independent_readers_agree(tmp_path: Path) -> None:
    script = """
import sys, duckdb, polars as pl, pyarrow.dataset as ds
from deltalake import DeltaTable
path, rows = sys.argv[1], []
files = DeltaTable(path).file_uris()
query = f"SELECT count(*), sum(id) FROM read_parquet({files!r}, hive_partitioning = true)"
rows.append(duckdb.sql(query).fetchall()[0])
table = DeltaTable(path).to_pyarrow_table()
rows.append((table.num_rows, sum(table['id'].to_pylist())))
frame = pl.scan_delta(path).filter(pl.col('id') > 0).collect()
rows.append((frame.height, frame['id'].sum()))
print(rows, flush=True)
import os; os._exit(0)  # pyarrow's threads and DuckDB's do not always part in peace
"""
    lake = Lake(str(tmp_path / "lake"), "delta", tmp_path)
    lake.load(FRAME, partition_by="day", **BY_ID)
    lake.load(FRAME.with_columns(v=pl.lit("x")), **BY_ID)
    output = subprocess.run([sys.executable, "-c", script, lake.path], capture_output=True, text=True, check=True)

    assert output.stdout == "[(4, 10), (4, 10), (4, 10)]\n"


@pytest.mark.parametrize("format_", FORMATS)
def test_independent_readers_agree_on_s3(format_: str, s3: Any, tmp_path: Path) -> None:
    script = """
import json, sys, duckdb, polars as pl, pyarrow.dataset as ds, pyarrow.fs, s3fs
path, options, files = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
store = {
    "aws_access_key_id": options["key"], "aws_secret_access_key": options["secret"], "aws_region": options["region"],
    "aws_endpoint_url": options["endpoint_url"], "aws_allow_http": "true",
}
if not files:
    from deltalake import DeltaTable
    files = DeltaTable(path, storage_options=store).file_uris()
names, rows = [file.removeprefix("s3://") for file in files], []
duckdb.register_filesystem(s3fs.S3FileSystem(
    key=options["key"], secret=options["secret"], client_kwargs={"endpoint_url": options["endpoint_url"]}))
duckdb.sql("SET enable_progress_bar = false")
query = "SELECT count(*), sum(id), count(DISTINCT day) FROM read_parquet(?, hive_partitioning = true)"
rows.append(duckdb.execute(query, [["s3://" + name for name in names]]).fetchone())
filesystem = pyarrow.fs.S3FileSystem(
    access_key=options["key"], secret_key=options["secret"], region=options["region"],
    endpoint_override=options["endpoint_url"].removeprefix("http://"), scheme="http")
table = ds.dataset(names, filesystem=filesystem, partitioning="hive", format="parquet").to_table()
rows.append((table.num_rows, sum(table["id"].to_pylist()), len(set(table["day"].to_pylist()))))
frame = pl.read_parquet(["s3://" + name for name in names], storage_options=store, hive_partitioning=True)
rows.append((frame.height, frame["id"].sum(), frame["day"].n_unique()))
print(rows, flush=True)
import os; os._exit(0)  # their threads do not always part in peace
"""
    lake = Lake(f"{s3.url}/a/lake", format_, tmp_path, s3.options)
    lake.load(FRAME, partition_by="day", **BY_ID)
    lake.load(FRAME.head(1).with_columns(v=pl.lit("x")), **BY_ID)
    manifests = f"{lake.path}/_lockgate/manifests"
    store = lake.target()._store.fs
    newest = max(store.ls(manifests, detail=False)) if format_ == "parquet" else None
    listed = json.loads(store.cat_file(newest))["files"] if newest else []
    asked = [lake.path, json.dumps(s3.options), json.dumps([f"{lake.path}/{file['path']}" for file in listed])]
    done = subprocess.run([sys.executable, "-c", script, *asked], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("[(4, 10, 2), (4, 10, 2), (4, 10, 2)]\n", "")
