"""Each file once, folders that are columns, and the file's name: what a source knows of its files."""

# ruff: noqa: E501 - messages in one piece

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows import pipeline
from flows._config import Pipeline, load
from flows._errors import ExtractError, SourceMissingError, SourceTypeError
from flows._secrets import Secret
from flows._storage import Store
from flows.sources._base import Context, Extract, Pushdown
from flows.sources.file import File
from validations._errors import BrokenContractError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(files: dict[str, str | pl.DataFrame]) -> None:
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            Path(name).write_text(content)
        else:
            content.write_parquet(name)


def scan(path: str | list[str], state: Any = None, **keys: object) -> Extract:
    return File.model_validate({"type": "file", "path": path, **keys}).scan("orders", Context(state=lambda: state))


def read(extract: Extract, ask: Pushdown = Pushdown()) -> pl.DataFrame:  # noqa: B008 - frozen
    names = ask.columns if ask.columns is not None else tuple(extract.schema)
    empty = pl.DataFrame(schema={name: extract.schema[name] for name in names})
    return pl.concat([empty, *extract.read(ask)])


# ------------------------------------------------------------------ each file once


def once(path: str | list[str], state: Any = None, **keys: object) -> tuple[pl.DataFrame, Any]:
    """The rows of the new files, and the state after them, as a target would give it back."""
    extract = scan(path, state, only_new=True, **keys)
    rows = read(extract)
    assert extract.state is not None
    return rows, json.loads(json.dumps(extract.state()))


def test_a_file_is_read_once():
    write({"1.csv": "x\n1\n", "2.csv": "x\n2\n"})
    first, state = once("*.csv")
    none, again = once("*.csv", state)
    write({"3.csv": "x\n3\n"})
    third, _state = once("*.csv", again)

    assert (first["x"].to_list(), none["x"].to_list(), third["x"].to_list()) == ([1, 2], [], [3])
    assert none.schema == first.schema
    assert state == again


def test_a_name_is_known_from_whatever_folder_it_is_looked_at(folder, monkeypatch):
    write({"in/1.csv": "x\n1\n"})
    _first, state = once("in/*.csv")
    monkeypatch.chdir(folder / "in")

    assert once("*.csv", state)[0].is_empty()


def test_a_file_that_changed_is_new_again():
    write({"1.csv": "x\n1\n"})
    _rows, state = once("1.csv")
    write({"1.csv": "x\n1\n2\n"})
    longer, state = once("1.csv", state)
    os.utime("1.csv", ns=(1, 1))
    touched, _state = once("1.csv", state)

    assert longer["x"].to_list() == touched["x"].to_list() == [1, 2]


def test_a_file_that_was_moved_away_is_not_missed_and_not_forgotten():
    write({"1.csv": "x\n1\n"})
    status = Path("1.csv").stat()
    _rows, state = once("*.csv")
    Path("1.csv").unlink()
    gone, state = once("*.csv", state)
    write({"1.csv": "x\n1\n"})
    os.utime("1.csv", ns=(status.st_atime_ns, status.st_mtime_ns))
    back, _state = once("*.csv", state)

    assert (gone.height, back.height) == (0, 0)
    assert gone.schema == {"x": pl.Int64}


def test_the_first_run_needs_a_file():
    with pytest.raises(SourceMissingError, match=r"no file matches '\*\.csv'"):
        once("*.csv")


@pytest.mark.parametrize(
    ("before", "after", "dtype", "value"),
    [
        ("00123", "5", pl.String, "5"),
        ("1.5", "2", pl.Float64, 2.0),
        ("1", "", pl.Int64, None),
        ("2024-01-31", "", pl.Date, None),
        ("1", "2.5", pl.Float64, 2.5),
    ],
)
def test_a_column_keeps_the_type_it_had_where_the_new_values_are_of_it(before, after, dtype, value):
    write({"1.csv": f"x,y\n{before},1\n"})
    _rows, state = once("*.csv")
    write({"2.csv": f"x,y\n{after},1\n"})
    rows, _state = once("*.csv", state)

    assert rows.schema["x"] == dtype
    assert rows["x"].to_list() == [value]


def test_fields_of_json_that_were_there_before_are_there_again():
    write({"1.ndjson": '{"a":1,"b":{"c":"x"}}\n'})
    _rows, state = once("*.ndjson")
    write({"2.ndjson": '{"a":null,"d":2}\n'})
    rows, _state = once("*.ndjson", state)

    assert rows.schema == {"a": pl.Int64, "b": pl.Struct({"c": pl.String}), "d": pl.Int64}


def test_a_file_that_changes_while_it_is_read_stops_the_run():
    write({"1.csv": "x\n1\n"})
    extract = scan("1.csv", only_new=True)
    write({"1.csv": "x\n1\n2\n"})

    with pytest.raises(ExtractError) as caught:
        read(extract)

    assert str(caught.value) == (
        "source 'orders': '1.csv' changed while it was read. Write files under another name and rename them when they are whole; then run again."
    )


def test_a_state_that_is_none_is_told():
    write({"1.csv": "x\n1\n"})

    with pytest.raises(ExtractError, match="what the target keeps of this source is no list of files"):
        once("1.csv", {"files": 3})


def test_each_file_of_s3_is_read_once(s3):
    store = Store(s3.url, {key: Secret(value) for key, value in s3.options.items()})
    store.fs.pipe(f"{store.path}/in/1.csv", b"x\n1\n")
    keys = {"path": f"{s3.url}/in/*.csv", "storage_options": s3.options}
    first, state = once(**keys)
    store.fs.pipe(f"{store.path}/in/2.csv", b"x\n2\n")
    second, state = once(**keys, state=state)
    store.fs.pipe(f"{store.path}/in/1.csv", b"x\n9\n")
    changed, state = once(**keys, state=state)

    assert [rows["x"].to_list() for rows in (first, second, changed)] == [[1], [2], [9]]
    assert once(**keys, state=state)[0].is_empty()
    assert s3.options["secret"] not in json.dumps(state)


def load_of(**source: Any) -> Pipeline:
    source = {"type": "file", "path": "in/*.csv", "only_new": True} | source
    target = {"type": "file", "path": "out/", "format": "csv", "write_mode": "append"}
    rules = [{"type": "not_null", "field": "x", "on_violation": "fail"}]
    Path("p.yaml").write_text(
        json.dumps({"pipelines": {"p": {"type": "batch", "source": source, "target": target, "quality_rules": rules}}})
    )
    return load(Path("p.yaml")).pipeline("p")


def published() -> list[str]:
    return sorted(line for file in Path("out").glob("*.csv") for line in file.read_text().splitlines()[1:])


def test_runs_read_each_file_once_and_a_failed_run_forgets_none():
    write({"in/1.csv": "x,y\n1,a\n"})
    assert pipeline.run(load_of()).rows.written == 1
    write({"in/2.csv": "x,y\n2,b\n,c\n"})
    with pytest.raises(BrokenContractError):
        pipeline.run(load_of())
    write({"in/2.csv": "x,y\n2,b\n"})

    assert pipeline.run(load_of()).rows.written == 1
    nothing = pipeline.run(load_of())

    assert (nothing.rows.read, nothing.rows.written) == (0, 0)
    assert published() == ["1,a", "2,b"]


# ------------------------------------------------------------------ folders that are columns


def sales() -> None:
    write(
        {
            f"s/year={year}/month={month:02}/{name}.parquet": pl.DataFrame({"id": [year * 100 + month]})
            for year in (2023, 2024)
            for month in (1, 12)
            for name in ("a",)
        }
    )


def test_folders_are_columns_with_the_type_of_all_their_values():
    sales()

    extract = scan("s/**/*.parquet", hive_partitioning=True)

    assert extract.schema == {"id": pl.Int64, "year": pl.Int64, "month": pl.String}
    assert read(extract).rows() == [
        (202301, 2023, "01"), (202312, 2023, "12"), (202401, 2024, "01"), (202412, 2024, "12"),
    ]  # fmt: skip
    assert read(extract, Pushdown(("month", "id"), None, 2)).rows() == [("01", 202301), ("12", 202312)]
    assert read(extract, Pushdown(("year",))).rows() == [(2023,), (2023,), (2024,), (2024,)]
    assert scan("s/**/*.parquet").schema == {"id": pl.Int64}


def test_a_filter_on_folders_leaves_files_unopened():
    sales()
    extract = scan("s/**/*.parquet", hive_partitioning=True, dtypes={"month": "int"})
    for file in Path("s/year=2023").rglob("*.parquet"):
        file.unlink()
    wanted = (pl.col("year") == 2024) & (pl.col("id") > 0) & (pl.col("month") < 6)

    assert extract.frame.filter(wanted).collect().rows() == [(202401, 2024, 1)]
    assert extract.pushed(Pushdown(None, pl.col("year") == 2024)) == '[(col("year")) == (dyn int: 2024)]'
    with pytest.raises(ExtractError, match="any more"):
        read(extract)


def test_a_condition_over_folders_and_rows_opens_them_all():
    sales()
    extract = scan("s/**/*.parquet", hive_partitioning=True)
    either = (pl.col("year") == 2024) | (pl.col("id") == 202301)

    assert extract.frame.filter(either).collect()["id"].to_list() == [202301, 202401, 202412]
    assert extract.frame.head(1).filter(pl.col("year") == 2024).collect().is_empty()


def test_values_of_folders_are_decoded_and_the_default_one_is_null():
    write({"t/name=a%20b%2Fc/1.csv": "x\n1\n", "t/name=__HIVE_DEFAULT_PARTITION__/1.csv": "x\n2\n"})

    rows = read(scan("t/*/*.csv", hive_partitioning=True)).sort("x")

    assert rows.rows() == [(1, "a b/c"), (2, None)]


def test_a_folder_of_s3_is_a_column_too(s3):
    store = Store(s3.url, {key: Secret(value) for key, value in s3.options.items()})
    store.fs.pipe(f"{store.path}/day=2024-01-31/1.csv", b"x\n1\n")

    extract = scan(f"{s3.url}/*/*.csv", hive_partitioning=True, storage_options=s3.options)

    assert extract.schema == {"x": pl.Int64, "day": pl.Date}


def test_the_folder_knows_better_than_the_file():
    write({"year=2024/1.csv": "x,year\n1,1999\n"})

    assert read(scan("*/1.csv", hive_partitioning=True)).rows() == [(1, 2024)]


@pytest.mark.parametrize(
    ("files", "keys", "kind", "said"),
    [
        (["a=1/1.csv", "2.csv"], {}, SourceMissingError, "'2.csv' lies in no folder 'a=...', as others do. Give all files the same folders."),
        (["a=x/1.csv"], {"dtypes": {"a": "int"}}, SourceTypeError, "'a=x/1.csv': column 'a': 'x' is not Int32. Declare another type in 'dtypes'."),
    ],
)  # fmt: skip
def test_folders_that_do_not_fit(files, keys, kind, said):
    write(dict.fromkeys(files, "x\n1\n"))

    with pytest.raises(kind) as caught:
        scan(sorted(files, reverse=True), hive_partitioning=True, **keys)

    assert str(caught.value) == f"source 'orders': {said}"


def test_a_declared_type_without_its_folder_is_told():
    sales()

    with pytest.raises(ExtractError) as caught:
        scan("s/**/*.parquet", hive_partitioning=True, dtypes={"day": "int"})

    assert str(caught.value) == "source 'orders': no folder 'day=...', which 'dtypes' has. Remove it there."


# ------------------------------------------------------------------ the file's name


@pytest.mark.parametrize(("asked", "name"), [(True, "_lockgate_source_file"), ("from", "from")])
def test_the_name_of_the_file_is_a_column_on_request(asked, name):
    write({"in/1.csv": "x\n1\n", "in/ü 2.csv": "x\n2\n"})

    extract = scan("in/*.csv", source_file_column=asked)

    assert extract.schema == {"x": pl.Int64, name: pl.String}
    assert read(extract).rows() == [(1, "in/1.csv"), (2, "in/ü 2.csv")]
    assert extract.frame.filter(pl.col(name).str.ends_with("2.csv")).collect()["x"].to_list() == [2]
    assert extract.frame.select(pl.len()).collect().item() == 2


def test_a_column_of_the_file_with_that_name_is_told():
    write({"1.csv": "x,y\n1,2\n"})

    with pytest.raises(ExtractError) as caught:
        scan("1.csv", source_file_column="y")

    assert str(caught.value) == (
        "source 'orders': the files have a column 'y' themselves. Give 'source_file_column' another name."
    )
