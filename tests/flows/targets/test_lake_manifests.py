"""Tables of Parquet files under manifests: commits, readers that know nothing but files, and crashes."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.dataset as pa_dataset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from flows._errors import LoadError, TargetBusyError, TargetMissingError, TargetTypeError
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows._secrets import Secret
from flows._sides import Side
from flows._storage import Store
from flows.targets._lake import Change
from flows.targets._lake_manifests import ManifestTable
from flows.targets._manifest import Manifest, comes_back
from flows.targets._staged import StagedFile, StagedFiles
from tests._python import Child
from tests._s3 import ENDPOINTS

SIDE = Side("target", "target t")
NESTED = pl.Struct({"a": pl.List(pl.Struct({"b": pl.Decimal(5, 1), "c": pl.Enum(["x", "y"])})), "n": pl.Null()})
VALUES: dict[str, tuple[pl.DataType, Any]] = {
    "huge": (pl.Int128(), 2**100), "uhuge": (pl.UInt128(), 2**127 + 1), "u": (pl.UInt64(), 2**64 - 1),
    "half": (pl.Float16(), 0.5), "f": (pl.Float64(), float("inf")), "time": (pl.Time(), dt.time(1, 2, 3, 4)),
    "took": (pl.Duration("us"), dt.timedelta(microseconds=5)), "took_ns": (pl.Duration("ns"), dt.timedelta(days=1)),
    "cat": (pl.Categorical(), "c"), "enum": (pl.Enum(["b", "a"]), "a"), "none": (pl.Null(), None),
    "cents": (pl.Decimal(38, 2), Decimal("12345678901234567890.12")), "raw": (pl.Binary(), b"\0\xff"),
    "at": (pl.Datetime("us", "Europe/Berlin"), dt.datetime(2024, 1, 1, tzinfo=dt.UTC)),
    "at_ns": (pl.Datetime("ns"), dt.datetime(2024, 1, 1)), "day": (pl.Date(), dt.date(1, 1, 1)),
    "deep": (NESTED, {"a": [{"b": Decimal("1.5"), "c": "y"}], "n": None}),
    "grid": (pl.Array(pl.Int8(), (1, 2)), [[1, 2]]), "ü 'x'\"": (pl.List(pl.List(pl.String())), [["", None]]),
}  # fmt: skip
EVERYTHING = pl.DataFrame(
    {name: [value, None] for name, (_dtype, value) in VALUES.items()},
    schema={name: dtype for name, (dtype, _value) in VALUES.items()},
)


@pytest.fixture(params=["here", *ENDPOINTS])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A place on this machine, or in a bucket."""
    if request.param != "here":
        bucket = request.getfixturevalue("s3_at")(request.param)
        return Store(f"{bucket.url}/lake/t", {name: Secret(text) for name, text in bucket.options.items()}, SIDE)
    return Store(str(tmp_path / "a b=1" / "t"), {}, SIDE)


@pytest.fixture
def here(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "t"), {}, SIDE)


_made: list[StagedFiles] = []


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    """Lets go of what a test staged, where it is."""
    yield
    while _made:
        _made.pop().release()


def loaded(store: Store, versions_kept: int = 2) -> ManifestTable:
    table = ManifestTable(store, versions_kept)
    table.load()
    return table


def record_of(run_id: str | None = None) -> RunRecord:
    record = RunRecord.start("p", "t", "1")
    record.run_id = run_id or record.run_id
    return record


def staged(table: ManifestTable, run_id: str, rows: pl.DataFrame, by: tuple[str, ...] = ()) -> StagedFiles:
    name = f"part-{run_id}"
    files = StagedFiles(table.store, rows.schema, folder=table.folder(run_id), name=name, partition_by=by)
    _made.append(files)
    files.write(rows)
    files.seal()
    return files


def commit(
    table: ManifestTable,
    rows: pl.DataFrame,
    by: tuple[str, ...] = (),
    *,
    replaces: bool = False,
    run_id: str | None = None,
) -> RunRecord:
    """Commits rows to the version that was loaded, as a run does it; the table is loaded again."""
    record = record_of(run_id)
    files = staged(table, record.run_id, rows, by)
    change = Change(tuple(files.files), table.files if replaces else (), rows.schema)
    table.commit(change, record, by)
    files.release()
    table.load()
    return record


def rows_of(table: ManifestTable) -> pl.DataFrame:
    """What the manifest's list of files has, with the values that the manifest itself tells."""
    assert table.schema is not None
    reader = StagedFiles(table.store, table.schema, partition_by=table.partition_by)
    _made.append(reader)
    return reader.frame(table.files).collect()


def ids(*values: int) -> pl.DataFrame:
    return pl.DataFrame({"id": list(values)})


def places(store: Store, below: str = "") -> list[str]:
    top = f"{store.path}/{below}".rstrip("/")
    return sorted(place.removeprefix(f"{store.path}/") for place in store.fs.find(top))


# --- commits ---


def test_there_is_no_table_before_the_first_commit(store: Store) -> None:
    table = loaded(store)

    assert (table.exists, table.schema, table.files, table.partition_by) == (False, None, (), ())
    assert not table.has({"run": "r", "version": 0})


def test_every_dtype_comes_back(store: Store) -> None:
    table = loaded(store)
    assert table.carried(EVERYTHING.schema) == EVERYTHING.schema

    commit(table, EVERYTHING)

    again = loaded(store)
    assert again.schema == EVERYTHING.schema
    assert again.files == table.files
    assert_frame_equal(rows_of(again), EVERYTHING)


@pytest.mark.parametrize(
    "dtype", [pl.Object(), pl.List(pl.Object()), pl.Struct({"o": pl.Object()}), pl.Struct([]), pl.Array(pl.Int8(), 0)]
)
def test_what_parquet_cannot_carry_is_refused_by_name(here: Store, dtype: pl.DataType) -> None:
    with pytest.raises(TargetTypeError) as caught:
        loaded(here).carried(pl.Schema({"id": pl.Int64(), "odd": dtype}))

    assert str(caught.value) == (
        f"target t: column 'odd' is {dtype}, and parquet cannot carry that. Turn it into another type with a "
        "'calculate' or 'map' step, or drop it."
    )


LEAVES = st.sampled_from([dtype for dtype, _value in VALUES.values()])


@settings(max_examples=30, deadline=None)
@given(
    st.recursive(
        LEAVES,
        lambda inner: (
            st.builds(pl.List, inner)
            | st.builds(pl.Array, inner, st.integers(1, 3))
            | st.dictionaries(st.text(max_size=3), inner, min_size=1, max_size=3).map(pl.Struct)
        ),
        max_leaves=5,
    )
)
def test_a_manifest_tells_every_dtype_exactly(dtype: pl.DataType) -> None:
    schema = pl.Schema({"c": dtype, "ü/'": pl.Int8()})
    manifest = Manifest(7, "r", "p", "2024-01-01T00:00:00+00:00", schema, (), ())

    assert Manifest.of(7, manifest.as_bytes()) == manifest
    assert comes_back(dtype)


def test_values_of_partitions_come_back_as_they_were(store: Store) -> None:
    rows = pl.DataFrame(
        {
            "id": range(6),
            "text": [None, "", "a/b", "ü=%20", "a\\'b\"", "null"],
            "day": [dt.date(2024, 1, 31), None, dt.date(1, 1, 1), None, None, None],
            "cents": [Decimal("1.50"), None, Decimal("-0.01"), None, None, None],
            "yes": [True, False, None, None, None, None],
            "n": pl.Series([None, 2**63, 0, 1, 2, 3], dtype=pl.UInt64),
        },
        schema_overrides={"cents": pl.Decimal(20, 2)},
    )
    by = ("text", "day", "cents", "yes", "n")
    table = loaded(store)

    commit(table, rows, by)

    again = loaded(store)
    assert again.partition_by == by
    assert_frame_equal(rows_of(again).sort("id"), rows)
    commit(again, rows.with_columns(id=pl.col("id") + 6), by)
    assert_frame_equal(rows_of(loaded(store)).sort("id").head(6), rows)


def test_of_two_writers_one_wins_and_the_other_may_try_again(store: Store) -> None:
    first, second = loaded(store), loaded(store)
    commit(first, ids(1))
    late = loaded(store)
    commit(first, ids(2))

    for table, number in ((second, 0), (late, 1)):
        record = record_of()
        files = staged(table, record.run_id, ids(3))
        with pytest.raises(TargetBusyError) as caught:
            table.commit(Change(tuple(files.files), (), ids().schema), record, ())
        assert str(caught.value) == f"target t: another run committed version {number} first. Run again."
        assert caught.value.retryable
        assert not table.has(table.proof(record))
        files.remove()
        assert not places(store, f"versions/{record.run_id}")

    assert rows_of(loaded(store)).to_series().to_list() == [1, 2]


def test_many_writers_at_once_lose_no_commit(store: Store) -> None:
    commit(loaded(store), ids(0))
    won: list[int] = []
    told: list[bool] = []
    ready = threading.Barrier(4)

    def write(number: int) -> None:
        table = ManifestTable(Store(store.url, store.options, SIDE), 50)
        record = record_of()
        files = None
        for _attempt in range(4):
            table.load()
            files = files or staged(table, record.run_id, ids(number))
            ready.wait()
            try:
                table.commit(Change(tuple(files.files), (), ids().schema), record, ())
            except TargetBusyError:
                told.append(not table.has(table.proof(record)))
            else:
                won.append(number)
                told.append(table.has(table.proof(record)))
                ready.abort()
                return

    threads = [threading.Thread(target=lambda n=n: _quiet(write, n)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert all(told)
    assert sorted(rows_of(loaded(store)).to_series()) == sorted([0, *won])


def _quiet(write: Any, number: int) -> None:
    try:
        write(number)
    except threading.BrokenBarrierError:  # somebody won
        return


def test_a_run_whose_put_was_sent_twice_has_committed(store: Store) -> None:
    table = loaded(store)
    record = record_of()
    files = staged(table, record.run_id, ids(1))
    change = Change(tuple(files.files), (), ids().schema)
    manifest = table._next(change.added, change, record, ())
    table._create(manifest)

    table._create(manifest)

    assert table.has({"run": record.run_id, "version": 0})
    assert rows_of(loaded(store)).to_series().to_list() == [1]


def test_a_version_has_no_file_that_the_run_staged_and_left_out(here: Store) -> None:
    table = loaded(here)
    commit(table, pl.DataFrame({"id": [1], "k": ["z"]}), ("k",))
    record = record_of()
    files = staged(table, record.run_id, pl.DataFrame({"id": [2, 3], "k": ["a", "b"]}), ("k",))
    (one, other) = files.files

    table.commit(Change((one,), (), files.schema), record, ("k",))

    current = Path(here.path, "current")
    assert sorted(str(file.relative_to(current)) for file in current.rglob("*")) == [
        "k=a",
        f"k=a/part-{record.run_id}-00000.parquet",
        "k=z",
        f"k=z/{table.files[0].path.rpartition('/')[2]}",
    ]
    assert rows_of(loaded(here)).sort("id").rows() == [(1, "z"), (2, "a")]
    files.files = [other]
    files.remove()
    assert not Path(here.path, other.path).exists()


def test_files_that_were_left_out_come_back_when_the_commit_fails(here: Store) -> None:
    table = loaded(here)
    commit(table, pl.DataFrame({"id": [1], "k": ["z"]}), ("k",))
    record = record_of()
    files = staged(table, record.run_id, pl.DataFrame({"id": [2, 3], "k": ["a", "b"]}), ("k",))
    before = places(here, f"versions/{record.run_id}")
    Path(here.path, table.files[0].path).unlink()

    with pytest.raises(TargetMissingError, match="No such file or directory"):
        table.commit(Change(tuple(files.files[:1]), (), files.schema), record, ("k",))

    assert not table.has(table.proof(record))
    assert places(here, f"versions/{record.run_id}") == before
    assert not Path(here.path, f"versions/.{record.run_id}").exists()
    files.remove()


# --- readers that know nothing but files ---


@pytest.mark.parametrize("replaces", [False, True])
def test_readers_of_files_agree_on_the_newest_version(here: Store, *, replaces: bool) -> None:
    rows = pl.DataFrame({"id": range(40), "k": ["a/b", "ü %"] * 20, "day": [dt.date(2024, 1, 1)] * 40})
    table = loaded(here)
    commit(table, rows, ("k", "day"))
    more = rows.with_columns(id=pl.col("id") + 40)
    commit(table, more, ("k", "day"), replaces=replaces)
    expected = more if replaces else pl.concat([rows, more])
    current = f"{here.path}/current"
    listed = [f"{here.path}/{file.path}" for file in table.files]
    schema = {"k": pl.String, "day": pl.Date}

    read: dict[str, pl.DataFrame] = {
        "polars": pl.scan_parquet(f"{current}/**/*.parquet", hive_partitioning=True, hive_schema=schema).collect(),
        "polars, listed": pl.scan_parquet(listed, hive_partitioning=True, hive_schema=schema).collect(),
        "pyarrow": pl.DataFrame(pl.from_arrow(pa_dataset.dataset(current, partitioning="hive").to_table())),
        "pyarrow, listed": pl.DataFrame(
            pl.from_arrow(pa_dataset.dataset(listed, partitioning="hive", partition_base_dir=current).to_table())
        ),
    }
    with duckdb.connect() as connection:
        for name, files in (("duckdb", [f"{current}/**/*.parquet"]), ("duckdb, listed", listed)):
            answer = connection.execute("SELECT id, k, day FROM read_parquet(?, hive_partitioning = true)", [files])
            read[name] = pl.DataFrame(answer.fetchall(), schema=["id", "k", "day"], orient="row")

    for found in read.values():
        same = found.select("id", pl.col("k").cast(pl.String), pl.col("day").cast(pl.String).str.to_date())
        assert_frame_equal(same.sort("id"), expected.sort("id"))


def test_a_reader_who_resolves_the_link_sees_one_version_each_time(here: Store) -> None:
    table = loaded(here, versions_kept=12)
    commit(table, ids(0, 1))
    stop, seen, wrong = threading.Event(), set[int](), list[object]()

    def look() -> None:
        while not stop.is_set():
            folder = Path(here.path, "current").resolve()
            try:
                found = sorted(n for file in sorted(folder.rglob("*.parquet")) for n in pl.read_parquet(file)["id"])
            except BaseException as error:  # noqa: BLE001 - the test tells of it
                wrong.append(error)
                return
            commits = (len(found) - 2) // 3
            seen.add(commits)
            if found != list(range(2 + 3 * commits)):
                wrong.append(found)

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(30):
        first = 2 + number * 3
        if number % 3 == 2:  # every third one writes all rows again, in one file
            commit(table, ids(*range(first + 3)), replaces=True)
        else:
            commit(table, ids(first, first + 1, first + 2))
        table.tidy()
    stop.set()
    reader.join()

    assert not wrong
    assert len(seen) > 3
    assert len(list(Path(here.path, "versions").iterdir())) == 13


# --- afterwards ---


def test_a_link_that_a_crash_left_behind_is_mended(here: Store) -> None:
    table = loaded(here)
    old = commit(table, ids(1))
    new = commit(table, ids(2))
    link = Path(here.path, "current")
    link.unlink()
    link.symlink_to(f"versions/{old.run_id}")

    loaded(here)
    assert str(link.readlink()) == f"versions/{new.run_id}"
    link.unlink()
    loaded(here)
    assert str(link.readlink()) == f"versions/{new.run_id}"
    before = link.lstat().st_ino
    loaded(here)
    assert link.lstat().st_ino == before


def test_versions_to_be_kept_are_kept_and_others_go(store: Store) -> None:
    table = loaded(store, versions_kept=1)
    records, listed = [], []
    for number in range(5):
        records.append(commit(table, ids(number), replaces=number == 3))
        listed.append({file.path for file in table.files})
    alive = record_of()
    files = staged(table, alive.run_id, ids(9))
    killed = staged(table, "20200101T000000_dead", ids(9))
    strange = f"{store.path}/versions/mine/x.parquet"
    store.fs.makedirs(strange.rpartition("/")[0], exist_ok=True)
    store.fs.pipe_file(strange, b"")

    table.tidy()

    expected = listed[3] | listed[4] | {files.files[0].path, "versions/mine/x.parquet"}
    assert set(places(store, "versions")) == expected
    assert sorted(rows_of(loaded(store)).to_series()) == [3, 4]
    assert all(table.has({"run": record.run_id, "version": n}) for n, record in enumerate(records))
    if store.is_local:
        names = {folder.name for folder in Path(store.path, "versions").iterdir()}
        assert names == {records[3].run_id, records[4].run_id, alive.run_id, "mine"}
    for left in (files, killed):
        left.files = []
        left.remove()


def test_what_killed_runs_had_not_written_to_its_end_goes_after_a_week(here: Store) -> None:
    table = loaded(here)
    commit(table, ids(1))
    halves = [Path(here.path, "_lockgate", "manifests", f".{name}.new") for name in ("old", "new")]
    for half in halves:
        half.write_bytes(b"{")
    os.utime(halves[0], (time.time() - 8 * 86_400,) * 2)

    table.tidy()

    assert [half.exists() for half in halves] == [False, True]
    assert [file.rows for file in loaded(here).files] == [1]


def test_a_version_without_rows_is_an_empty_folder(here: Store) -> None:
    table = loaded(here, versions_kept=1)
    commit(table, ids(1))
    record = record_of()
    table.commit(Change((), table.files, ids().schema), record, ())
    table.load()
    table.tidy()

    assert table.exists
    assert table.files == ()
    assert list(Path(here.path, "current").resolve().iterdir()) == []
    commit(table, ids(2))
    commit(table, ids(3))
    table.tidy()
    assert not Path(here.path, "versions", record.run_id).exists()


def test_manifests_are_kept_while_a_load_that_is_not_filed_away_needs_them(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.targets._lake_manifests._MANIFESTS_KEPT", 2)
    table = loaded(store, versions_kept=1)
    proofs = [{"run": commit(table, ids(number)).run_id, "version": number} for number in range(6)]
    table.journal.intend(record_of(str(proofs[1]["run"])), Quarantine(tmp_path / "q"), proofs[1])

    table.tidy()

    assert [table.has(proof) for proof in proofs] == [False, True, False, False, True, True]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{", "Expecting property name"),
        (b'{"format":9}', "its format is 9, which this version of Lockgate does not know"),
        (b'{"format":1,"version":4}', "it tells of version 4"),
        (b"[]", "TypeError: list indices"),
        (b'{"format":1,"version":1}', "KeyError: 'arrow_schema'"),
        (b'{"format":1,"version":1,"arrow_schema":"AAAA"}', "OSError: failed to fill whole buffer"),
        (b'{"format":1,"version":1,"arrow_schema":"_"}', "Only base64 data is allowed"),
    ],
)
def test_a_damaged_manifest_is_named(store: Store, text: bytes, why: str) -> None:
    table = loaded(store)
    commit(table, ids(1))
    place = f"{store.path}/_lockgate/manifests/{1:020}.json"
    store.fs.pipe_file(place, text)

    with pytest.raises(LoadError) as caught:
        table.load()

    said = str(caught.value)
    assert said.startswith(f"target t: '{place}' is not what Lockgate wrote there: {why}")
    assert said.endswith("Restore that file, or remove it if the version before shall be the newest one.")
    store.fs.rm_file(place)
    assert rows_of(loaded(store)).to_series().to_list() == [1]


def test_a_path_out_of_the_table_is_no_file_of_it(here: Store) -> None:
    table = loaded(here)
    commit(table, ids(1))
    place = Path(here.path, "_lockgate", "manifests", f"{0:020}.json")
    said = json.loads(place.read_bytes())
    said["files"][0]["path"] = "versions/../../secret"
    place.write_text(json.dumps(said))

    with pytest.raises(LoadError, match=r"a file of the table cannot be at 'versions/\.\./\.\./secret'"):
        table.load()


def test_a_table_that_lost_its_manifests_is_not_taken_for_none(here: Store) -> None:
    table = loaded(here)
    commit(table, ids(1))
    (manifest,) = Path(here.path, "_lockgate", "manifests").iterdir()
    manifest.unlink()

    with pytest.raises(LoadError) as caught:
        table.load()

    assert str(caught.value) == (
        f"target t: '{here.path}/current' is there, but '{here.path}/_lockgate/manifests' has no manifest of what it "
        "leads to. Restore the manifests, or remove the folder to begin anew."
    )


def test_a_delta_table_is_not_written_into(store: Store) -> None:
    store.fs.makedirs(f"{store.path}/_delta_log", exist_ok=True)
    store.fs.pipe_file(f"{store.path}/_delta_log/00000000000000000000.json", b"{}")

    with pytest.raises(TargetTypeError, match=r"target t: there is a Delta table\. Use 'format: delta', or"):
        loaded(store)


def test_a_manifest_of_ten_thousand_files_is_quick() -> None:
    day = dt.date(2000, 1, 1)
    files = tuple(
        StagedFile(f"versions/r/day={day}/part-{n:05}.parquet", n, n, {"day": day + dt.timedelta(n)})
        for n in range(10_000)
    )
    schema = pl.Schema({"id": pl.Int64(), "day": pl.Date()})
    manifest = Manifest(1, "r", "p", "2024-01-01T00:00:00+00:00", schema, ("day",), files)

    started = time.process_time()
    again = Manifest.of(1, manifest.as_bytes())

    assert time.process_time() - started < 1
    assert again == manifest


KILLED = """
import sys, polars as pl
from flows._ledger import RunRecord
from flows._storage import Store
from flows.targets._lake import Change
from flows.targets._lake_manifests import ManifestTable
from flows.targets._staged import StagedFiles

table = ManifestTable(Store(sys.argv[1]), 2)
while True:
    table.load()
    record = RunRecord.start("p", "t", "1")
    rows = pl.DataFrame({"id": [0 if table.schema is None else sum(file.rows for file in table.files)]})
    files = StagedFiles(table.store, rows.schema, folder=table.folder(record.run_id), name=f"part-{record.run_id}")
    files.write(rows)
    files.seal()
    proof = table.proof(record)
    print("tries", proof["run"], proof["version"], flush=True)
    table.commit(Change(tuple(files.files), (), rows.schema), record, ())
    print("made", proof["run"], proof["version"], flush=True)
    files.release()
    table.tidy()
"""


def test_a_killed_run_leaves_a_version_that_was_committed(here: Store) -> None:
    chance = random.Random(7)
    for kill in range(5):
        process = Child(KILLED, here.path)
        assert process.stdout is not None
        for _line in range(1 + kill % 2):
            process.stdout.readline()
        time.sleep(chance.uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        said = [line.split() for line in process.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]

        table = loaded(here)
        found = sorted(rows_of(table).to_series())
        assert found == list(range(len(found)))
        current = Path(here.path, "current").resolve()
        assert sorted(n for file in current.rglob("*.parquet") for n in pl.read_parquet(file)["id"]) == found
        for word, run_id, version in said:
            is_there = table.has({"run": run_id, "version": int(version)})
            assert is_there == (int(version) < len(found))
            assert is_there or word == "tries"
        commit(table, ids(len(found)))
        table.tidy()
    assert len(found) > 5
