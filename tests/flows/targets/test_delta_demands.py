"""Delta tables that somebody else made, with demands of their own, and names that Delta Lake does not take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, Field, Schema, write_deltalake
from deltalake.schema import ArrayType, PrimitiveType, StructType

from flows._errors import LoadError, TargetMissingError, TargetPermissionError, TargetTypeError
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.targets._base import Published
from flows.targets.data_lake import DataLake

ROWS = pl.DataFrame({"id": [1, 2], "v": ["a", None]})


def _load(path: Path, frame: pl.DataFrame, **keys: Any) -> Published:
    target = DataLake.model_validate({"path": str(path), **keys})
    record = RunRecord.start("p", target.label, "1")
    record.rows.read = frame.height
    with target.open(record, frame.schema) as chamber:
        chamber.stage(frame)
        record.staged = chamber.seal()
        return chamber.publish(record, Quarantine(path.parent / record.run_id))


def _files(path: Path) -> list[Path]:
    return list(path.rglob("*.parquet"))


def test_a_column_that_takes_no_null_gets_none(tmp_path: Path) -> None:
    path = tmp_path / "lake"
    DeltaTable.create(path, Schema([Field("id", "long", nullable=False), Field("v", "string", nullable=False)]))
    with pytest.raises(LoadError, match="a row has no 'v', and the table's column takes no null"):
        _load(path, ROWS)
    with pytest.raises(TargetMissingError, match="column 'v' of type String takes no null, and the pipeline delivers"):
        _load(path, ROWS.select("id"))

    assert _files(path) == []
    assert _load(path, ROWS.fill_null("b")).inserted == 2
    assert pl.read_delta(str(path)).sort("id").rows() == [(1, "a"), (2, "b")]


def test_a_constraint_that_nobody_would_check_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lake"
    write_deltalake(path, ROWS.to_arrow())
    DeltaTable(path).alter.add_constraint({"positive": "id > 0"})
    with pytest.raises(LoadError, match=r"has a constraint \(positive: id > 0\), which Lockgate does not check"):
        _load(path, ROWS.with_columns(id=pl.lit(-1)))

    assert pl.read_delta(str(path))["id"].sort().to_list() == [1, 2]


@pytest.mark.parametrize(
    ("columns", "configuration", "error", "match"),
    [
        (
            [Field("id", "long"), Field("v", "string", metadata={"delta.generationExpression": "cast(id as string)"})],
            {},
            TargetTypeError,
            "column 'v' of the Delta table has a generated value",
        ),
        (
            [Field("id", "long"), Field("v", StructType([Field("a", "long", nullable=False)]))],
            {},
            TargetTypeError,
            "column 'v' of the Delta table has a nested value that must not be null",
        ),
        (
            [Field("id", "long"), Field("v", ArrayType(PrimitiveType("long"), contains_null=False))],
            {},
            TargetTypeError,
            "column 'v' of the Delta table has a nested value that must not be null",
        ),
        (
            [Field("id", "long"), Field("v", "string")],
            {"delta.columnMapping.mode": "name", "delta.minReaderVersion": "2", "delta.minWriterVersion": "5"},
            TargetTypeError,
            "the Delta table uses 'columnMapping', which Lockgate cannot keep",
        ),
        (
            [Field("id", "long"), Field("v", "string")],
            {"delta.appendOnly": "true"},
            TargetPermissionError,
            "the Delta table takes no changes",
        ),
    ],
    ids=["generated", "struct", "list", "column mapping", "append only"],
)
def test_a_demand_that_cannot_be_kept_is_refused(
    tmp_path: Path, columns: list[Field], configuration: dict[str, str | None], error: type[LoadError], match: str
) -> None:
    path = tmp_path / "lake"
    DeltaTable.create(path, Schema(columns), configuration=configuration)
    with pytest.raises(error, match=match):
        _load(path, ROWS)

    assert _files(path) == []


def test_rows_of_other_writers_are_merged_with_ours(tmp_path: Path) -> None:
    path = tmp_path / "lake"
    theirs = pl.DataFrame(
        {"id": [1, 2, 3], "p": ["x y", "ü/%", None], "n": [[1], [2], None]},
        schema={"id": pl.Int32, "p": pl.String, "n": pl.List(pl.Int64)},
    )
    write_deltalake(path, theirs.to_arrow(), partition_by=["p"])
    changed = theirs.with_columns(n=pl.Series([[1], [7], None], dtype=pl.List(pl.Int64)))
    published = _load(path, changed, write_mode="upsert", primary_key=["id"])

    assert (published.updated, published.unchanged) == (1, 2)
    assert pl.read_delta(str(path)).sort("id").rows() == changed.rows()


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (pl.DataFrame({"id": [1], "ID": [2]}), "columns 'id' and 'ID' have the same name for Delta Lake"),
        (pl.DataFrame({"id": [1], "s": [{"a": 1, "A": 2}]}), "columns 'a' and 'A' have the same name for Delta Lake"),
        (pl.DataFrame({"id": [1], "l": [[{"a": 1, "A": 2}]]}), "columns 'a' and 'A' have the same name for Delta Lake"),
        (pl.DataFrame({"id": [1], "": [2]}), "a column has no name"),
    ],
    ids=["columns", "fields", "fields of items", "none"],
)
def test_names_that_delta_lake_does_not_take_are_refused(tmp_path: Path, frame: pl.DataFrame, match: str) -> None:
    path = tmp_path / "lake"
    with pytest.raises(TargetTypeError, match=match):
        _load(path, frame)

    assert _files(path) == []


def test_a_new_column_is_not_called_like_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "lake"
    _load(path, ROWS)
    with pytest.raises(TargetTypeError, match="columns 'v' and 'V' have the same name for Delta Lake"):
        _load(path, ROWS.rename({"v": "V"}), schema_contract={"columns": "evolve"})


def test_a_path_that_the_library_would_read_as_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "per%41cent"
    with pytest.raises(LoadError, match=r"per%41cent' has a '%' in it, and the library of Delta Lake would write to"):
        _load(path, ROWS)

    assert not (tmp_path / "perAcent").exists()
    assert _files(path) == []


@pytest.mark.parametrize("format_", ["delta", "parquet"])
def test_dates_that_python_does_not_know_are_written(tmp_path: Path, format_: str) -> None:
    path = tmp_path / "lake"
    frame = pl.DataFrame({"id": [1, 2], "day": [2**30, -(2**30)], "at": [2**62, -(2**62)]}).with_columns(
        pl.col("day").cast(pl.Int32).cast(pl.Date), pl.col("at").cast(pl.Datetime("us"))
    )
    _load(path, frame, format=format_)
    found = pl.concat([pl.read_parquet(file) for file in _files(path)])

    assert found.sort("id").equals(frame)
