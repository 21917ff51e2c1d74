"""What a lake's chamber does when the table changes under it, what it leaves alone, and what its folders are called."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable

from flows._errors import TargetBusyError, TargetTypeError
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.targets._base import Published
from flows.targets.data_lake import DataLake

ROWS = pl.DataFrame({"id": [1, 2], "v": ["a", "b"]})
BY_ID: dict[str, Any] = {"write_mode": "upsert", "primary_key": ["id"]}


def _load(keys: dict[str, Any], folder: Path, frame: pl.DataFrame) -> Published:
    target = DataLake.model_validate(keys)
    record = RunRecord.start("p", target.label, "1")
    record.rows.read = frame.height
    with target.open(record, frame.schema) as chamber:
        chamber.stage(frame)
        record.staged = chamber.seal()
        return chamber.publish(record, Quarantine(folder / record.run_id))


def _read(path: Path, format_: str) -> pl.DataFrame:
    if format_ == "delta":
        return pl.read_delta(str(path))
    return pl.concat([pl.read_parquet(file) for file in (path / "current").rglob("*.parquet")], how="diagonal")


@pytest.fixture(params=["delta", "parquet"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {"path": str(tmp_path / "lake"), "format": request.param}


@pytest.mark.parametrize(
    "mode", [BY_ID, {"write_mode": "delete_insert", "delete_key": ["id"]}], ids=["upsert", "delete_insert"]
)
def test_no_attempt_loses_a_column_that_came_meanwhile(
    keys: dict[str, Any], mode: dict[str, Any], tmp_path: Path
) -> None:
    _load(keys | mode, tmp_path, ROWS)
    target = DataLake.model_validate(keys | mode)
    record = RunRecord.start("p", target.label, "1")
    record.rows.read = 1
    with target.open(record, ROWS.schema) as chamber:
        chamber.stage(ROWS.head(1).with_columns(v=pl.lit("late")))
        record.staged = chamber.seal()
        _load(keys | mode | {"schema_contract": {"columns": "evolve"}}, tmp_path, ROWS.with_columns(w=pl.lit(7)))
        for _attempt in range(2):
            with pytest.raises(TargetBusyError, match="the table was changed while the run was under way"):
                chamber.publish(record, Quarantine(tmp_path / "q"))

    assert _read(tmp_path / "lake", keys["format"]).sort("id").rows() == [(1, "a", 7), (2, "b", 7)]


def test_the_next_attempt_is_made_for_the_rows_that_came_meanwhile(keys: dict[str, Any], tmp_path: Path) -> None:
    _load(keys | BY_ID, tmp_path, ROWS)
    target = DataLake.model_validate(keys | BY_ID)
    record = RunRecord.start("p", target.label, "1")
    record.rows.read = 2
    with target.open(record, ROWS.schema) as chamber:
        chamber.stage(ROWS.with_columns(v=pl.lit("late")))
        record.staged = chamber.seal()
        _load(keys | BY_ID, tmp_path, pl.DataFrame({"id": [2, 3], "v": ["late", "c"]}))
        with pytest.raises(TargetBusyError):
            chamber.publish(record, Quarantine(tmp_path / "q"))
        published = chamber.publish(record, Quarantine(tmp_path / "q"))

    assert (published.updated, published.unchanged) == (1, 1)
    assert _read(tmp_path / "lake", keys["format"]).sort("id").rows() == [(1, "late"), (2, "late"), (3, "c")]


def test_files_of_the_table_stay_whatever_became_of_the_ledger(keys: dict[str, Any], tmp_path: Path) -> None:
    _load(keys, tmp_path, ROWS)
    system = tmp_path / "lake" / "_lockgate"
    (entry,) = (system / "loads" / "p").iterdir()
    said = {"pipeline": "p", "host": socket.gethostname(), "pid": 2**22 + 1, "at": "2024-01-01T00:00:00+00:00"}
    (system / "staging" / entry.name).write_text(json.dumps(said))
    shutil.rmtree(system / "loads")
    _load(keys, tmp_path, ROWS)

    assert _read(tmp_path / "lake", keys["format"]).height == 4
    assert list((system / "staging").iterdir()) == []


@pytest.mark.parametrize("name", ["a b", "größe ☃", "a,b", "a'b", 'a"b`', "a:b", "(a)&b+c", "ü" * 60])
def test_every_reader_finds_partition_columns_by_their_names(keys: dict[str, Any], name: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": [1, 2, 3], name: ["x y", None, "p/q=%20ü"]})
    _load(keys | {"partition_by": [name]}, tmp_path, frame)
    path, current = str(tmp_path / "lake"), (tmp_path / "lake" / "current").resolve()
    if keys["format"] == "delta":
        found = [pl.read_delta(path), pl.from_arrow(DeltaTable(path).to_pyarrow_table())]
    else:
        duck = duckdb.sql(f"FROM read_parquet('{current}/**/*.parquet', hive_partitioning = true)")
        arrow = ds.dataset(current, partitioning="hive").to_table()
        found = [pl.read_parquet(f"{current}/", hive_partitioning=True), duck.pl(), pl.from_arrow(arrow)]

    for rows in found:
        assert isinstance(rows, pl.DataFrame)
        assert rows.select("id", name).sort("id").rows() == frame.rows()


def test_partition_columns_of_any_name_are_read_from_s3(s3: Any, tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": [1, 2, 3], "größe ☃, b": ["x y", None, "p/q=%20ü"]})
    keys = {"path": f"{s3.url}/lake", "storage_options": s3.options, "partition_by": ["größe ☃, b"]}
    _load(keys, tmp_path, frame)
    options = DataLake.model_validate(keys)._store.object_store()

    # Polars does not decode the name in the address that the library gives it for a file in S3.
    found = pl.from_arrow(DeltaTable(keys["path"], storage_options=options).to_pyarrow_table())

    assert isinstance(found, pl.DataFrame)
    assert found.sort("id").rows() == frame.rows()
    assert _load(keys | BY_ID, tmp_path, frame).unchanged == 3


@pytest.mark.parametrize("name", ["a/b", "a=b", "a%b", "{a}", "a\nb", "a*"])
def test_a_column_that_no_folder_can_be_called_by_is_refused(keys: dict[str, Any], name: str, tmp_path: Path) -> None:
    with pytest.raises(TargetTypeError) as caught:
        _load(keys | {"partition_by": [name]}, tmp_path, pl.DataFrame({"id": [1], name: ["x"]}))

    assert str(caught.value) == (
        f"target {keys['path']}: column {name!r} cannot be in partition_by: not every reader would find it by the "
        "name of its folder. Rename it with a 'map' step (rename: {...})."
    )


def test_nothing_is_left_of_a_killed_run_and_what_it_committed_stays(keys: dict[str, Any], tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
    root, dead, done = tmp_path / "lake", "20260101T000000_dead", RunRecord.start("p", "t", "1")
    done.rows.read = 2
    target = DataLake.model_validate(keys)
    with target.open(done, ROWS.schema) as chamber:
        chamber.stage(ROWS)
        done.staged = chamber.seal()
        chamber.publish(done, Quarantine(tmp_path / "q"))
    (committed,) = (path for path in root.rglob(f"part-{done.run_id}*") if "current" not in path.parts)
    _load(keys | {"write_mode": "overwrite"}, tmp_path, ROWS)  # the committed file is an older version's by now
    folder = "" if keys["format"] == "delta" else f"versions/{dead}/"
    left = [
        f"{folder}part-{dead}-00000.parquet",
        f"_lockgate/quarantine/p/{dead}.quarantine",
        f"_lockgate/quarantine/p/.{dead}.quarantine.{process.pid}-00c0ffee.new",
        f"_lockgate/state/.p.json.{process.pid}-00c0ffee.new",
        *([f"versions/{dead}/part-linked.parquet"] if folder else [f"kept0-{done.run_id}-00c0ffee-00000.parquet"]),
    ]
    for path in left:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    for run_id in (dead, done.run_id):
        said = {"pipeline": "p", "host": socket.gethostname(), "pid": process.pid, "at": "2026-01-01T00:00:00+00:00"}
        (root / "_lockgate" / "staging" / f"{run_id}.json").write_text(json.dumps(said))
    record = RunRecord("p", "t", "1", dead, done.started_at)
    proof = {"run": dead, "version": 9, "application": "lockgate:p", "number": 9}
    target._table.journal.intend(record, Quarantine(tmp_path / "q"), proof)

    _load(keys, tmp_path, ROWS)

    assert [path for path in left if (root / path).exists()] == []
    assert [path.name for path in root.rglob("*") if dead in path.name] == []
    assert list((root / "_lockgate" / "staging").iterdir()) == []
    assert committed.exists()


def test_an_empty_folder_of_a_killed_run_goes_too(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
    keys = {"path": str(tmp_path / "lake"), "format": "parquet"}
    _load(keys, tmp_path, ROWS)
    dead = RunRecord.start("p", "t", "1").run_id
    folder = tmp_path / "lake" / "versions" / dead / "p=1"  # it was killed before the first file was there
    folder.mkdir(parents=True)
    said = {"pipeline": "p", "host": socket.gethostname(), "pid": process.pid, "at": "2026-01-01T00:00:00+00:00"}
    (tmp_path / "lake" / "_lockgate" / "staging" / f"{dead}.json").write_text(json.dumps(said))

    _load(keys, tmp_path, ROWS)

    assert not folder.parent.exists()
    assert _read(tmp_path / "lake", "parquet").height == 4
