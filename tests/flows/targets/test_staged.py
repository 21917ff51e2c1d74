"""Staged Parquet files: partitions, sizes, whole-set rules, and memory that does not grow."""

from __future__ import annotations

import datetime as dt
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from flows._errors import LoadError
from flows._sides import Side
from flows._storage import Store
from flows.targets import _partitions, _staged
from flows.targets._partitions import NULL, Partitions, hive_folder
from flows.targets._sink import Sink
from flows.targets._staged import StagedFiles
from tests._s3 import ENDPOINTS
from validations._checks import SetRule
from validations.rules.row_count import row_count
from validations.rules.unique import unique

ROWS = pl.DataFrame(
    {
        "id": [1, 2, 3, 4, 1, 6, 7, 8],
        "name": ["a", None, "c", "", "a", "f", "g", "h"],
        "day": [dt.date(2024, 1, 1), None] * 4,
        "odd": ["x=1/ü %", "", None, "x=1/ü %"] * 2,
        "yes": [True, False, None, True] * 2,
        "at": [dt.datetime(2024, 1, 1, 12, 0, 0, 5), None] * 4,
    }
)
UNIQUE = SetRule("id unique", "quarantine", ("id",), unique(("id",)))


@pytest.fixture(params=["here", *ENDPOINTS])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A place on this machine, in a folder that looks like a partition; or in a bucket."""
    side = Side("target", "target t")
    if request.param != "here":
        bucket = request.getfixturevalue("s3_at")(request.param)
        from flows._secrets import Secret  # noqa: PLC0415 - only here

        return Store(f"{bucket.url}/a=b/c", {name: Secret(text) for name, text in bucket.options.items()}, side)
    return Store(str(tmp_path / "id=7" / "[x]"), {}, side)


_made: list[StagedFiles] = []


@pytest.fixture(autouse=True)
def removed() -> Iterator[None]:
    """Removes what a test staged."""
    yield
    while _made:
        _made.pop().remove()


def staged(store: Store, rows: pl.DataFrame = ROWS, size: int = 3, **keys: Any) -> StagedFiles:
    files = StagedFiles(store, rows.schema, **keys)
    _made.append(files)
    for batch in rows.iter_slices(size):
        files.write(batch)
    assert files.seal() == rows.height
    return files


def places(store: Store) -> list[str]:
    return sorted(place.removeprefix(f"{store.path}/") for place in store.fs.find(store.path))


def test_rows_come_back_in_the_order_staged(store: Store) -> None:
    files = staged(store, folder=".staged/run", name="run")

    assert_frame_equal(files.frame().collect(), ROWS)
    (file,) = files.files
    assert (file.path, file.rows, file.partition) == (".staged/run/run-00000.parquet", 8, {})
    assert store.fs.size(f"{store.path}/{file.path}") == file.bytes
    assert places(store) == [file.path]
    files.remove()
    assert not store.fs.exists(f"{store.path}/.staged")
    files.remove()


@pytest.mark.parametrize("by", [("day",), ("odd", "yes"), ("at",), ("id",)])
def test_partitions_are_folders_that_others_know(store: Store, by: tuple[str, ...]) -> None:
    files = staged(store, partition_by=by)

    keys = ["id", "name", "day"]
    assert_frame_equal(files.frame().collect().sort(keys), ROWS.sort(keys))
    assert len(files.files) == ROWS.select(by).unique().height
    for file in files.files:
        assert file.path.startswith(hive_folder(file.partition))
        one = files.frame([file]).collect()
        assert one.select(by).unique().rows(named=True) == [dict(file.partition)]
        assert one.height == file.rows
    files.remove()
    assert places(store) == []


def test_folders_are_named_after_values() -> None:
    partition = {
        "d": dt.date(2024, 1, 31),
        "t": dt.datetime(2024, 1, 31, 1),
        "b": True,
        "n": None,
        "s": "a/b=ü",
        "i": 7,
    }

    assert hive_folder(partition) == (f"d=2024-01-31/t=2024-01-31%2001%3A00%3A00/b=true/n={NULL}/s=a%2Fb%3D%C3%BC/i=7")


def test_polars_itself_reads_the_partitions(tmp_path: Path) -> None:
    rows = ROWS.select("id", "day", "odd")
    staged(Store(str(tmp_path)), rows, partition_by=("day", "odd"))

    hive = {"day": pl.Date, "odd": pl.String}
    read = pl.scan_parquet(tmp_path / "**/*.parquet", hive_partitioning=True, hive_schema=hive).collect()

    assert_frame_equal(read.sort("id", "day", "odd"), rows.sort("id", "day", "odd"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.none() | st.text("ab/=%é ", max_size=2), st.integers(0, 3)), min_size=1, max_size=30),
    size=st.integers(1, 7),
    held=st.sampled_from([1, 200, 10**9]),
)
def test_every_partition_has_its_rows_in_order(
    tmp_path: Path, rows: list[tuple[str | None, int]], size: int, held: int
) -> None:
    frame = pl.DataFrame(rows, schema={"k": pl.String, "n": pl.Int64}, orient="row").with_row_index("place")
    partitions = Partitions(["k", "n"], tmp_path / "scratch", held)
    for batch in frame.iter_slices(size):
        partitions.add(batch)

    found = {key: pl.concat(batches)["place"].to_list() for key, batches in partitions}
    partitions.clear()

    wanted: dict[tuple[str | None, int], list[int]] = {}
    for place, key in enumerate(rows):
        wanted.setdefault(key, []).append(place)
    assert found == wanted
    assert list((tmp_path / "scratch").glob("*")) == []


def test_rows_of_a_partition_stay_together_however_they_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_partitions, "_HELD_BYTES", 2_000)
    rows = pl.DataFrame({"id": range(1_000)}).with_columns(g=pl.col("id") % 7)

    files = StagedFiles(Store(str(tmp_path / "lake")), rows.schema, partition_by=["g"], scratch=tmp_path / "scratch")
    files._partitions = Partitions(["g"], tmp_path / "scratch", 2_000)  # several times to the disk
    for batch in rows.iter_slices(50):
        files.write(batch)
    files.seal()

    assert len(files.files) == 7
    assert_frame_equal(files.frame().collect(), rows.sort("g", "id"))


def test_files_end_when_they_are_large_enough(store: Store) -> None:
    rows = pl.DataFrame({"id": range(300_000)}).with_columns(text=pl.col("id").hash().cast(pl.String))

    files = staged(store, rows, 5_000, target_file_bytes=300_000)

    assert len(files.files) > 2
    assert all(200_000 < file.bytes < 1_500_000 for file in files.files[:-1])
    assert [Path(file.path).name for file in files.files] == [f"part-{n:05}.parquet" for n in range(len(files.files))]
    assert_frame_equal(files.frame().collect(), rows)


def test_footers_give_statistics(tmp_path: Path) -> None:
    (file,) = staged(Store(str(tmp_path)), ROWS.with_columns(nested=[[1]] * 8), statistics=True).files

    found = {name: (one.minimum, one.maximum, one.nulls) for name, one in file.statistics.items()}
    assert found == {
        "id": (1, 8, 0),
        "name": ("", "h", 1),
        "day": (dt.date(2024, 1, 1), dt.date(2024, 1, 1), 4),
        "odd": ("", "x=1/ü %", 2),
        "yes": (False, True, 2),
        "at": (dt.datetime(2024, 1, 1, 12, 0, 0, 5), dt.datetime(2024, 1, 1, 12, 0, 0, 5), 4),
    }


@pytest.mark.parametrize("keys", [{}, {"partition_by": ["odd"]}, {"target_file_bytes": 1}])
def test_blamed_rows_are_taken_out(store: Store, keys: dict[str, Any]) -> None:
    files = staged(store, **keys)
    before = {file.path: file for file in files.files}

    (violation,) = files.audit([UNIQUE])
    taken = files.take(violation)

    assert (violation.rows, violation.observed) == (2, "2 rows")
    assert taken.keys.to_dict(as_series=False) == {"id": [1, 1]}
    assert all('"id":1,"name":"a"' in text for text in taken.values)
    left = ROWS.filter(pl.col("id") != 1)
    assert_frame_equal(files.frame().collect().sort("id"), left.sort("id"))
    assert (files.rows, files.audit([UNIQUE])) == (6, [])
    assert places(store) == sorted(file.path for file in files.files)
    for file in files.files:
        assert files.frame([file]).collect().height == file.rows
        assert before.get(file.path, file) == file


def test_taking_every_row_leaves_no_file(store: Store) -> None:
    files = staged(store, pl.concat([ROWS, ROWS]))

    files.take(files.audit([UNIQUE])[0])

    assert (files.rows, files.files, places(store)) == (0, [], [])
    assert_frame_equal(files.frame().collect(), ROWS[:0])


def test_rules_about_the_set_as_a_whole_have_a_verdict(tmp_path: Path) -> None:
    rule = SetRule("row_count", "fail", (), row_count(min=9))

    (violation,) = staged(Store(str(tmp_path))).audit([rule])

    assert (violation.rows, "8" in violation.observed) == (0, True)


def test_keys_are_compared_share_by_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(7)
    rows = pl.DataFrame(
        {"a": [chance.choice([None, -0.0, 0.0, *range(300)]) for _ in range(1_000)]}, schema={"a": pl.Float64}
    ).with_columns(b=pl.Series([chance.choice("xyz") for _ in range(1_000)]).cast(pl.Categorical))
    for fields in (("a",), ("a", "b")):
        rule = SetRule("unique", "fail", fields, unique(fields))
        wanted = rule.violations(rows.lazy()).collect()["row"].to_list()
        files = staged(Store(str(tmp_path / "-".join(fields))), rows, 90)
        monkeypatch.setattr(_staged, "_ROWS_AT_ONCE", 70)

        assert files._blamed(rule).to_list() == wanted
        monkeypatch.undo()


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(str(tmp_path / "file"), {}, Side("target", "target t"))
    files = StagedFiles(store, ROWS.schema, scratch=tmp_path)

    with pytest.raises(LoadError, match=r"^target t: '.*/file': (File exists|Not a directory)"):
        files.write(ROWS)


def test_a_sink_gives_the_error_of_what_it_runs_to_who_feeds_it() -> None:
    def broken(frame: pl.LazyFrame) -> None:
        frame.head(1).collect()
        raise RuntimeError("no")

    sink = Sink(ROWS.schema, broken)
    with pytest.raises(RuntimeError, match="no"):  # noqa: PT012 - whichever call comes after the failure
        for _ in range(100):
            sink.put(ROWS)
        sink.close()


def test_an_abandoned_sink_ends(tmp_path: Path) -> None:
    sink = Sink(ROWS.schema, lambda frame: frame.sink_parquet(tmp_path / "x"))
    sink.put(ROWS)

    sink.abandon()

    assert not sink._thread.is_alive()


MEMORY = """
import sys
from resource import RUSAGE_SELF, getrusage
import polars as pl
from flows._storage import Store
from flows.targets._staged import StagedFiles
rows, by = int(sys.argv[2]), sys.argv[3:]
files = StagedFiles(Store(sys.argv[1]), pl.Schema({"id": pl.Int64, "text": pl.String, "g": pl.Int64}), partition_by=by)
for first in range(0, rows, 50_000):
    ids = pl.select(id=pl.int_range(first, first + 50_000))
    files.write(ids.with_columns(text=pl.col("id").hash().cast(pl.String), g=pl.col("id") % 50))
files.seal()
print(getrusage(RUSAGE_SELF).ru_maxrss // 1024, sum(file.bytes for file in files.files) // 1_000_000)
"""


@pytest.mark.parametrize("by", [[], ["g"]])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, by: list[str]) -> None:
    def peak(rows: int) -> list[int]:
        command = [sys.executable, "-c", MEMORY, str(tmp_path / str(rows)), str(rows), *by]
        return [int(text) for text in subprocess.check_output(command, text=True).split()]

    (few, _), (many, written) = peak(2_000_000), peak(5_000_000)

    assert many < few + 60, f"{few} MB for 2M rows, {many} MB for 5M, which are {written} MB of files"
