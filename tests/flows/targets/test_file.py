"""The file target: every format and mode, on this machine and on S3; what is refused, and who sees what when."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from flows.__main__ import main
from flows._config import load
from flows._errors import (
    LedgerError,
    LoadError,
    RefusedError,
    TargetBusyError,
    TargetMissingError,
    TargetPermissionError,
    TargetTypeError,
    TargetUnreachableError,
)
from flows._ledger import Guards, RunRecord
from flows._quarantine import Quarantine
from flows.sources._base import Pushdown
from flows.sources.file import File as FileSource
from flows.targets._base import Published
from flows.targets._durable import Turn
from flows.targets.file import File
from tests._python import Child
from validations._checks import SetRule
from validations.rules.unique import unique

ROWS = pl.DataFrame(
    {
        "id": [1, 2, 3],
        "name": ['Zoë, "the" 山田', "", None],
        "lines": ["a\nb", "c\rd", " e "],
        "paid": [True, None, False],
        "amount": [1.5, None, -2e300],
        "day": [dt.date(2024, 1, 31), None, dt.date(1, 1, 1)],
        "at": [dt.datetime(2024, 1, 31, 23, 59, 59, 123456), None, dt.datetime(1969, 12, 31)],
    }
)
MORE = ROWS.with_columns(pl.col("id") + 10)

FILES = ["o.csv", "o.csv.gz", "o.csv.zst", "o.ndjson", "o.jsonl.gz", "o.ndjson.zst", "o.parquet", "o.arrow"]
FOLDERS = [
    "parts/o-{part}.csv",
    "parts/{part}.csv.gz",
    "parts/{part}.ndjson",
    "parts/{part}.parquet",
    "parts/x{part}.ipc",
]


class Loads:
    """Loads frames into a file with no more than the target itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def target(self, path: str, **keys: Any) -> File:
        place = path if "://" in path else f"{self.folder}/{path}"
        return File.model_validate({"path": place, "write_mode": "overwrite"} | keys)

    def load(self, target: File, *frames: pl.DataFrame, record: RunRecord | None = None) -> Published:
        record = record or self.record(target)
        record.rows.read = sum(frame.height for frame in frames)
        with target.open(record, frames[0].schema, self.folder / "work" / record.run_id) as chamber:
            for frame in frames:
                chamber.stage(frame)
            record.staged = chamber.seal()
            return chamber.publish(record, Quarantine(self.folder / "quarantine" / record.run_id))

    def record(self, target: File, pipeline: str = "p") -> RunRecord:
        return RunRecord.start(pipeline, target.label, "1")

    def rows(self, path: str) -> pl.DataFrame:
        """What is in a file, or a folder, by Polars alone."""
        place = self.folder / path
        if place.parent.name != "parts":
            return _read(place)
        return pl.concat(_read(file) for file in sorted(place.parent.iterdir()))


def _read(file: Path) -> pl.DataFrame:
    if ".csv" in file.suffixes:
        return pl.read_csv(file, schema=ROWS.schema, glob=False)
    if file.suffix in {".gz", ".zst"} or file.suffix in {".ndjson", ".jsonl"}:
        return pl.read_ndjson(file, schema=ROWS.schema)
    return pl.read_parquet(file, glob=False) if file.suffix == ".parquet" else pl.read_ipc(file)


@pytest.fixture
def loads(tmp_path: Path) -> Loads:
    return Loads(tmp_path)


# --- formats and modes ---


@pytest.mark.parametrize("path", [*FILES, *FOLDERS])
def test_rows_are_there_as_they_were(loads: Loads, path: str) -> None:
    target = loads.target(path)

    first = loads.load(target, MORE)
    second = loads.load(target, ROWS[:1], ROWS[1:])

    assert (first.inserted, first.how, second.inserted, second.how) == (3, "created", 3, "replaced")
    assert_frame_equal(loads.rows(path), ROWS)


@pytest.mark.parametrize("path", [*FILES, *FOLDERS])
def test_appended_rows_come_behind_those_that_are_there(loads: Loads, path: str) -> None:
    target = loads.target(path, write_mode="append")

    loads.load(target, ROWS)
    published = loads.load(target, MORE.select(reversed(MORE.columns)))

    assert (published.inserted, published.how) == (3, "appended")
    assert_frame_equal(loads.rows(path), pl.concat([ROWS, MORE]))


@pytest.mark.parametrize("path", [*FILES, *FOLDERS])
def test_an_empty_overwrite_is_refused_unless_that_is_meant(loads: Loads, path: str) -> None:
    target = loads.target(path)
    loads.load(target, ROWS)

    with pytest.raises(RefusedError, match="the load is empty, and overwriting with it would leave no rows"):
        loads.load(target, ROWS[:0])
    assert_frame_equal(loads.rows(path), ROWS)

    loads.load(loads.target(path, allow_empty=True), ROWS[:0])
    assert_frame_equal(loads.rows(path), ROWS[:0])


@pytest.mark.parametrize("path", [*FILES, *FOLDERS])
def test_an_empty_append_leaves_the_file_alone(loads: Loads, path: str) -> None:
    target = loads.target(path, write_mode="append")
    loads.load(target, ROWS)
    before = _identities(loads.folder)
    record = loads.record(target)
    record.state = {"source": {"seen": 7}}

    published = loads.load(target, ROWS[:0], record=record)

    assert (published.changed, record.status, published.how) == (False, "unchanged", "nothing to append")
    assert _identities(loads.folder) == before
    assert target.state("p") == {"source": {"seen": 7}}


def _identities(folder: Path) -> dict[str, int]:
    return {
        str(file): file.stat().st_ino for file in folder.rglob("*") if file.is_file() and "_lockgate" not in str(file)
    }


@pytest.mark.parametrize("path", ["o.csv", "o.csv.gz", "o.ndjson", "o.parquet"])
def test_our_own_source_reads_what_was_written(loads: Loads, path: str) -> None:
    rows = ROWS.with_columns(
        price=pl.Series([Decimal("1.50"), None, Decimal("-9999999999.99")], dtype=pl.Decimal(12, 2))
    )
    rows = rows.with_columns(nothing=pl.lit(None, pl.String), amount=pl.col("amount").fill_null(0))
    loads.load(loads.target(path), rows)

    declared = {"dtypes": {"price": "numeric(12,2)", "at": "timestamp", "day": "date"}} if path != "o.parquet" else {}
    extract = FileSource.model_validate({"path": str(loads.folder / path)} | declared).scan("s")

    assert_frame_equal(pl.concat(extract.read(Pushdown())), rows)


@pytest.mark.parametrize("path", ["parts/{part}.csv", "parts/{part}.parquet", "parts/{part}.ndjson"])
def test_parts_end_when_they_are_large_enough(loads: Loads, path: str) -> None:
    rows = pl.DataFrame({"id": range(400_000)}).with_columns(text=pl.col("id").hash().cast(pl.String))
    batches = [rows[first : first + 5_000] for first in range(0, rows.height, 5_000)]

    loads.load(loads.target(path, target_file_bytes=200_000), *batches)

    files = sorted((loads.folder / "parts").iterdir())
    read = pl.concat(pl.read_csv(file) if file.suffix == ".csv" else pl.read_parquet(file) if file.suffix == ".parquet"
                     else pl.read_ndjson(file) for file in files)  # fmt: skip
    assert len(files) > 2
    assert all(150_000 < file.stat().st_size < 2_000_000 for file in files[:-1])  # some rows are still on their way
    assert_frame_equal(read.cast(dict(rows.schema)), rows)


def test_a_folder_named_alone_gets_parts_of_the_format(loads: Loads) -> None:
    loads.load(loads.target("parts/", format="parquet"), ROWS)

    (file,) = (loads.folder / "parts").iterdir()
    assert file.name.startswith("part-")
    assert_frame_equal(pl.read_parquet(file), ROWS)


def test_a_parquet_file_is_renamed_and_not_written_again(loads: Loads) -> None:
    target = loads.target("o.parquet")
    record = loads.record(target)
    record.rows.read = 3
    with target.open(record, ROWS.schema, loads.folder / "work") as chamber:
        chamber.stage(ROWS)
        record.staged = chamber.seal()
        (staged,) = (file for file in (loads.folder / "_lockgate" / "staged").rglob("*") if file.is_file())
        inode = staged.stat().st_ino
        chamber.publish(record, Quarantine(loads.folder / "quarantine"))

    assert (loads.folder / "o.parquet").stat().st_ino == inode


def test_csv_has_a_dialect(loads: Loads) -> None:
    rows = pl.DataFrame({"a": ["x;y", None, "NULL", "it's"], "b": [1, None, 2, 3]})
    target = loads.target("o.csv", delimiter=";", quote_char="'", has_header=False, null_value="NULL")

    loads.load(target, rows)

    assert (loads.folder / "o.csv").read_text() == "'x;y';1\nNULL;NULL\n'NULL';2\n'it''s';3\n"


def test_a_file_that_ends_without_a_newline_gets_one_before_more_rows(loads: Loads) -> None:
    (loads.folder / "o.csv").write_text("b,a\n1,x")

    loads.load(loads.target("o.csv", write_mode="append"), pl.DataFrame({"a": ["y"], "b": [2]}))

    assert (loads.folder / "o.csv").read_text() == "b,a\n1,x\n2,y\n"


def test_a_link_stays_a_link_and_a_file_keeps_its_mode(loads: Loads) -> None:
    (loads.folder / "real").mkdir()
    file = loads.folder / "real" / "o.csv"
    file.write_text("old")
    file.chmod(0o640)
    (loads.folder / "o.csv").symlink_to(file)

    loads.load(loads.target("o.csv"), ROWS)

    assert (loads.folder / "o.csv").is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert_frame_equal(loads.rows("real/o.csv"), ROWS)


@pytest.mark.parametrize("path", FILES)
def test_names_of_300_characters_and_columns_of_nulls_are_carried(loads: Loads, path: str) -> None:
    name = "ü" * 300
    rows = pl.DataFrame({name: ["x", "y"], "null": pl.Series([None, None], dtype=pl.String)})
    target = loads.target(path)
    record = loads.record(target, pipeline=name)

    loads.load(target, rows, record=record)

    (found,) = target.history(name, 5)
    assert found["pipeline"] == name
    file = loads.folder / path
    read = pl.read_csv(file) if ".csv" in file.suffixes else None
    if read is None:
        lines = file.suffix in {".ndjson", ".gz", ".zst"}
        read = (
            pl.read_ndjson(file) if lines else pl.read_parquet(file) if file.suffix == ".parquet" else pl.read_ipc(file)
        )
    assert_frame_equal(read.cast({"null": pl.String}), rows)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.none() | texts, st.none() | st.integers(-9, 9)), min_size=1, max_size=6))
def test_any_text_survives_csv_for_us_and_for_others(loads: Loads, rows: list[tuple[str | None, int | None]]) -> None:
    frame = pl.DataFrame(rows, schema={"text": pl.String, "number": pl.Int64}, orient="row")

    loads.load(loads.target("o.csv"), frame)

    place = loads.folder / "o.csv"
    source = FileSource.model_validate({"path": str(place), "dtypes": {"text": "text", "number": "bigint"}})
    assert_frame_equal(pl.concat(source.scan("s").read(Pushdown())), frame)
    others = list(csv.reader(io.StringIO(place.read_bytes().decode(), newline="")))
    assert others[1:] == [[text or "", "" if number is None else str(number)] for text, number in rows]


# --- what is refused ---


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("o.csv", pl.Series([[1]])),
        ("o.csv", pl.Series([{"a": 1}])),
        ("o.csv", pl.Series([[1]], dtype=pl.Array(pl.Int64, 1))),
        ("o.csv", pl.Series([b"x"])),
        ("o.csv", pl.Series([dt.timedelta(1)])),
        ("o.ndjson", pl.Series([{"a": [b"x"]}])),
        ("o.ndjson", pl.Series([dt.timedelta(1)])),
        ("o.parquet", pl.Series([object()], dtype=pl.Object)),
        ("o.arrow", pl.Series([object()], dtype=pl.Object)),
    ],
)
def test_a_column_that_the_format_cannot_carry_is_named_before_anything_is_written(
    loads: Loads, path: str, value: pl.Series
) -> None:
    rows = pl.DataFrame({"id": [1], "bad": value})

    with pytest.raises(TargetTypeError, match=r"column 'bad' is .*, and \w+ cannot carry that"):
        loads.load(loads.target(path), rows)
    with pytest.raises(TargetTypeError, match="column 'bad'"):
        loads.target(path).plan(rows.schema)

    assert list(loads.folder.iterdir()) == []


@pytest.mark.parametrize(
    "value",
    [
        pl.Series([1.0, float("nan")]),
        pl.Series([float("inf"), None]),
        pl.Series([[1.0], [float("nan")]]),
        pl.Series([None, {"a": {"b": [float("-inf")]}}]),
    ],
)
def test_ndjson_refuses_what_would_become_null(loads: Loads, value: pl.Series) -> None:
    with pytest.raises(TargetTypeError, match="column 'x' has NaN or infinity, and ndjson cannot carry that"):
        loads.load(loads.target("o.ndjson"), pl.DataFrame({"x": value}))
    assert not (loads.folder / "o.ndjson").exists()


def test_ndjson_takes_nested_numbers_and_nulls(loads: Loads) -> None:
    rows = pl.DataFrame({"x": [{"a": [1.5, None]}, None], "y": [[1.0], None]})

    loads.load(loads.target("o.ndjson"), rows)

    lines = [json.loads(line) for line in (loads.folder / "o.ndjson").read_text().splitlines()]
    assert lines == [{"x": {"a": [1.5, None]}, "y": [1.0]}, {"x": None, "y": None}]


@pytest.mark.parametrize("path", ["o.csv", "o.parquet", "parts/{part}.csv"])
def test_appending_other_columns_is_refused(loads: Loads, path: str) -> None:
    loads.load(loads.target(path), pl.DataFrame({"id": [1], "name": ["x"]}))
    target = loads.target(path, write_mode="append")

    with pytest.raises(TargetTypeError, match=r"column 'nam' is not in the file that is there\. Did you mean 'name'"):
        loads.load(target, pl.DataFrame({"id": [1], "nam": ["x"]}))
    with pytest.raises(TargetTypeError, match="the file that is there has a column 'name', and the load has none"):
        loads.load(target, pl.DataFrame({"id": [1]}))


def test_appending_another_type_to_parquet_is_refused(loads: Loads) -> None:
    loads.load(loads.target("o.parquet"), pl.DataFrame({"id": [1]}))

    with pytest.raises(TargetTypeError, match="column 'id' is String, and Int64 in the file that is there"):
        loads.load(loads.target("o.parquet", write_mode="append"), pl.DataFrame({"id": ["1"]}))


def test_a_folder_with_other_files_in_it_is_left_alone(loads: Loads) -> None:
    (loads.folder / "parts").mkdir()
    (loads.folder / "parts" / "notes.txt").write_text("mine")

    with pytest.raises(RefusedError, match=r"the folder has 'notes\.txt' in it, which is no part file"):
        loads.load(loads.target("parts/{part}.csv"), ROWS)

    assert (loads.folder / "parts" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"path": "o.txt"}, "the suffix of 'path' tells no format. Set 'format': csv, ndjson, parquet, ipc."),
        ({"path": "o/"}, "the suffix of 'path' tells no format."),
        (
            {"path": "o.parquet.gz"},
            "a file of format parquet is compressed inside. Remove '.gz' or '.zst' from 'path'.",
        ),
        ({"path": "o.parquet", "delimiter": ";"}, "'delimiter' belongs to format csv, and this is parquet. Remove it."),
        ({"path": "o.csv", "delimiter": "''"}, "\"''\" is not one ASCII character."),
        (
            {"path": "o.csv", "null_value": "a,b"},
            "'null_value' has a character in it that means something else in csv.",
        ),
        ({"path": "sftp://h/o.csv"}, "nothing at 'sftp://' can be replaced in one step."),
        (
            {"path": "s3://b/p/", "format": "csv"},
            "part files on S3 cannot be replaced in one step. Use a target of type",
        ),
        ({"path": "s3://b/o.csv", "concurrent_runs": "wait"}, "nothing locks an object in S3"),
        ({"path": "s3://b.csv"}, "an object in S3 is 's3://bucket/key'."),
        ({"path": "{part}.csv"}, "part files need a folder of their own"),
        ({"path": "{part}/o.csv"}, "'{part}' belongs into the file's name, behind the last '/'."),
        ({"path": "o.csv", "storage_options": {"key": "k"}}, "'key' is not a storage option of 'file://'."),
        ({"path": "s3://b/o.csv", "storage_options": {"kay": "k"}}, "'kay' is not a storage option of 's3://'."),
        ({"path": "o.csv", "write_mode": "upsert"}, "Input should be 'append' or 'overwrite'"),
    ],
)
def test_a_configuration_that_means_nothing_is_a_mistake(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        File.model_validate(keys)
    assert said in str(caught.value)


@pytest.mark.parametrize("alias", ["replace", "full_refresh", "overwrite"])
def test_other_words_for_overwrite_are_known(alias: str) -> None:
    assert File.model_validate({"path": "o.csv", "write_mode": alias}).write_mode == "overwrite"


# --- the gate ---


@pytest.mark.parametrize("path", [*FILES, *FOLDERS])
def test_a_run_is_published_once_however_often_it_tries(loads: Loads, path: str) -> None:
    target = loads.target(path, write_mode="append")
    record = loads.record(target)

    loads.load(target, ROWS, record=record)
    again = loads.load(target, ROWS, record=record)

    assert again.inserted == 3
    assert_frame_equal(loads.rows(path), ROWS)
    assert len(target.history("p", 9)) == 1


@pytest.mark.parametrize("path", ["o.csv", "o.parquet", "parts/{part}.parquet"])
def test_a_failed_run_leaves_nothing_but_the_lock(loads: Loads, path: str) -> None:
    target = loads.target(path)
    record = loads.record(target)
    record.rows.read = 99

    with target.open(record, ROWS.schema, loads.folder / "work") as chamber:
        chamber.stage(ROWS)
        record.staged = chamber.seal()
        with pytest.raises(LedgerError, match="the ledger does not balance"):
            chamber.publish(record, Quarantine(loads.folder / "quarantine"))

    assert [str(file.relative_to(loads.folder)) for file in loads.folder.rglob("*") if file.is_file()] == [
        f"_lockgate/locks/{Path(path.partition('/{')[0]).name}"
    ]
    assert target.history("p", 9) == []


@pytest.mark.parametrize("path", ["o.csv", "parts/{part}.csv"])
def test_the_second_of_two_writers_is_told_to_run_again(loads: Loads, path: str) -> None:
    target = loads.target(path)

    with target.open(loads.record(target), ROWS.schema):
        with pytest.raises(TargetBusyError, match="another run is loading it") as caught:
            loads.load(target, ROWS)
        assert caught.value.retryable

    loads.load(target, ROWS)
    assert_frame_equal(loads.rows(path), ROWS)


def test_an_append_does_not_undo_what_somebody_else_wrote_meanwhile(loads: Loads) -> None:
    target = loads.target("o.csv", write_mode="append")
    loads.load(target, ROWS)
    record = loads.record(target)
    record.rows.read = 3

    with target.open(record, MORE.schema) as chamber:
        chamber.stage(MORE)
        record.staged = chamber.seal()
        (loads.folder / "o.csv").write_text("another")
        with pytest.raises(TargetBusyError, match="it was written by somebody else while the run was under way"):
            chamber.publish(record, Quarantine(loads.folder / "quarantine"))

    assert (loads.folder / "o.csv").read_text() == "another"
    assert len(target.history("p", 9)) == 1


@pytest.mark.parametrize("path", ["o.csv", "o.parquet", "parts/{part}.parquet"])
def test_readers_see_the_old_rows_or_the_new_ones(loads: Loads, path: str) -> None:
    target = loads.target(path, target_file_bytes=1_000)
    loads.load(target, _numbered(0))
    done, seen, wrong = threading.Event(), set(), []

    def look() -> None:
        while not done.is_set():
            try:
                files = [loads.folder / path]
                if "parts" in path:
                    files = list((loads.folder / "parts").iterdir())
                found = pl.concat(pl.read_csv(f) if f.suffix == ".csv" else pl.read_parquet(f) for f in files)
            except FileNotFoundError:
                if "parts" not in path:
                    wrong.append("no file")
                continue  # a part of the load before, which is gone: the reader lists again
            load = found["load"].unique().to_list()
            seen.add(load[0])
            if len(load) != 1 or found.height != 5_000:
                wrong.append(str(found))

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 16):
        loads.load(target, *(_numbered(number)[first : first + 500] for first in range(0, 5_000, 500)))
    done.set()
    for reader in readers:
        reader.join()

    assert wrong == []
    assert len(seen) > 2


def _numbered(load: int) -> pl.DataFrame:
    return pl.DataFrame({"id": range(5_000)}).with_columns(load=pl.lit(load), text=pl.col("id").hash().cast(pl.String))


@pytest.mark.parametrize("path", ["o.csv", "o.parquet", "parts/{part}.parquet", "parts/{part}.ndjson"])
def test_rows_that_a_rule_about_the_set_blames_are_taken_out(loads: Loads, path: str) -> None:
    target = loads.target(path)
    record = loads.record(target)
    rule = SetRule("id unique", "quarantine", ("id",), unique(("id",)))
    record.rows.read = 4
    with target.open(record, ROWS.schema, loads.folder / "work") as chamber:
        chamber.stage(ROWS)
        chamber.stage(ROWS[:1])
        assert chamber.seal() == 4
        (violation,) = chamber.audit([rule])
        taken = chamber.take(violation)
        record.staged, record.rows.quarantined = 2, 2
        quarantine = Quarantine(loads.folder / "quarantine")
        quarantine.add_texts(taken.values, pl.Series([["id unique"]] * 2))
        chamber.publish(record, quarantine)

    assert_frame_equal(loads.rows(path), ROWS[1:])
    assert taken.keys["id"].to_list() == [1, 1]
    rows = target.quarantined("p", None, 10)
    assert [(row["run_id"], row["values"]["id"], row["reasons"]) for row in rows] == [
        (record.run_id, 1, ["id unique"])
    ] * 2
    assert target.quarantined("p", "another", 10) == []


def test_what_sources_remember_comes_back_with_the_newest_load(loads: Loads) -> None:
    target = loads.target("o.csv")
    assert target.state("p") == {}
    for seen in (1, 2):
        record = loads.record(target)
        record.state = {"files": {"seen": seen}, f"only {seen}": True}
        loads.load(target, ROWS, record=record)

    assert target.state("p") == {"files": {"seen": 2}, "only 1": True, "only 2": True}
    assert target.state("another") == {}


def test_runs_that_published_nothing_are_in_the_history(loads: Loads) -> None:
    target = loads.target("o.csv")
    records = [loads.record(target) for _ in range(5)]
    for place, record in enumerate(records):
        record.started_at += dt.timedelta(seconds=place)
        record.finish("failed")
        target.record(record, None)

    assert [run["run_id"] for run in target.history("p", 3)] == [record.run_id for record in reversed(records[2:])]
    assert target.history("another", 3) == []


# --- crashes ---

#: Publishes, and dies of SIGKILL at the moment it is told.
CHILD = """
import os, signal, sys
from pathlib import Path
import polars as pl
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.targets import _journal, _places
from flows.targets.file import File
path, moment, number = sys.argv[1:]
def deadly(kind, name, when):
    real = getattr(kind, name)
    def struck(*args, **keys):
        if when == "before": os.kill(os.getpid(), signal.SIGKILL)
        real(*args, **keys)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(kind, name, struck)
when, _, where = moment.partition(" ")
if where == "intent": deadly(_journal.Journal, "intend", when)
if where == "gate": deadly(_places.LocalFile, "publish", when); deadly(_places.LocalFolder, "publish", when)
if where == "filing": deadly(_journal.Journal, "settle", when)
target = File(path=path, write_mode="append", target_file_bytes=1000)
record = RunRecord.start("p", target.label, "1")
print(record.run_id, flush=True)
rows = pl.DataFrame({"load": [int(number)] * 2000, "id": range(2000)})
record.state = {"s": int(number)}
record.rows.read = rows.height
with target.open(record, rows.schema) as chamber:
    for first in range(0, 2000, 500): chamber.stage(rows[first:first + 500])
    if where == "staging": os.kill(os.getpid(), signal.SIGKILL)
    record.staged = chamber.seal()
    if where == "seal": os.kill(os.getpid(), signal.SIGKILL)
    chamber.publish(record, Quarantine(Path(path).parent / "q"))
print("done", flush=True)
"""
MOMENTS = [
    "in staging",
    "after seal",
    "before intent",
    "after intent",
    "before gate",
    "after gate",
    "before filing",
    "after filing",
]


def _child(path: str, moment: str, number: int) -> tuple[str, bool]:
    child = Child(CHILD, path, moment, str(number))
    output, errors = child.communicate()
    assert child.returncode in {0, -signal.SIGKILL}, errors
    return output.split()[0], output.endswith("done\n")


@pytest.mark.parametrize(
    ("path", "moments"),
    [("o.csv", MOMENTS), ("o.parquet", MOMENTS[-4:-2]), ("parts/{part}.parquet", MOMENTS[-4:-2])],
)
def test_killed_at_any_moment_data_and_ledger_tell_the_same(loads: Loads, path: str, moments: list[str]) -> None:
    target = loads.target(path, write_mode="append")
    there: list[int] = []
    for number, moment in enumerate(moments):
        run_id, done = _child(target.path, moment, number)
        assert not done
        published = _loads_in(loads.folder, path) != there
        assert published == (moment in {"after gate", "before filing", "after filing"})
        there += [number] if published else []
        assert _loads_in(loads.folder, path) == there
        assert (run_id in {run["run_id"] for run in target.history("p", 99)}) == published
        if there:
            assert target.state("p") == {"s": there[-1]}

    _run_id, done = _child(target.path, "never", 99)

    assert done
    assert _loads_in(loads.folder, path) == [*there, 99]
    assert [run["status"] for run in target.history("p", 99)] == ["published"] * len([*there, 99])
    left = {file.relative_to(loads.folder).parts[:2] for file in loads.folder.rglob("*") if file.is_file()}
    assert {parts[1] for parts in left if parts[0] == "_lockgate"} == {"locks", "loads", "state"}


def _loads_in(folder: Path, path: str) -> list[int]:
    place = folder / path
    files = sorted(place.parent.iterdir()) if place.parent.name == "parts" and place.parent.exists() else [place]
    found = [pl.read_csv(f) if f.suffix == ".csv" else pl.read_parquet(f) for f in files if f.exists()]
    if not found:
        return []
    counts = pl.concat(found).group_by("load").len().sort("load")
    assert set(counts["len"]) == {2_000}
    return counts["load"].to_list()


def test_a_disk_that_is_full_is_told_and_leaves_the_old_file(loads: Loads) -> None:
    target = loads.target("o.parquet", write_mode="overwrite")
    loads.load(target, ROWS)
    code = """
import sys, polars as pl
from flows._errors import LoadError
from flows._ledger import RunRecord
from flows.targets.file import File
target = File(path=sys.argv[1], write_mode="overwrite")
rows = pl.DataFrame({"id": range(400_000)}).with_columns(pl.col("id").hash())
try:
    with target.open(RunRecord.start("p", target.label, "1"), rows.schema) as chamber:
        for first in range(0, 400_000, 50_000): chamber.stage(rows[first:first + 50_000])
        chamber.seal()
except LoadError as error:
    print(error)
"""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = subprocess.run(
        [sys.executable, "-c", code, target.path], capture_output=True, text=True, check=True, preexec_fn=limited
    )

    assert "File too large" in done.stdout
    assert_frame_equal(loads.rows("o.parquet"), ROWS)
    assert not (loads.folder / "_lockgate" / "staged").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_folder_that_may_not_be_written_is_told(loads: Loads) -> None:
    code = """
import os, sys
from flows._errors import LoadError
from flows._ledger import RunRecord
from flows.targets.file import File
import polars as pl
target = File(path=sys.argv[1])
os.seteuid(65534)
for attempt in (target.check, lambda: target.open(RunRecord.start("p", "t", "1"), pl.Schema({"id": pl.Int64}))):
    try: attempt()
    except LoadError as error: print(type(error).__name__, error)
"""
    loads.folder.chmod(0o755)
    for parent in loads.folder.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    done = subprocess.run(
        [sys.executable, "-c", code, str(loads.folder / "o.csv")], capture_output=True, text=True, check=True
    )

    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{TargetPermissionError.__name__} target {loads.folder}/o.csv: ") for line in lines)
    assert all("Permission denied. Grant it, or use another user." in line for line in lines)


def test_a_path_through_a_file_is_told(loads: Loads) -> None:
    (loads.folder / "x").write_text("")

    with pytest.raises(LoadError, match=f"^target {loads.folder}/x/o.csv: '.*': Not a directory"):
        loads.target("x/o.csv").check()
    (loads.folder / "d").mkdir()
    with pytest.raises(LoadError, match=r"it is a folder\. End the path with '/' to write part files into it"):
        loads.target("d", format="csv").check()
    with pytest.raises(LoadError, match="it is a file, and the path asks for a folder of part files"):
        loads.target("x/", format="csv").check()


def test_check_and_plan_change_nothing(loads: Loads) -> None:
    target = loads.target("new/folder/o.csv", write_mode="append")
    target.check()

    assert target.plan(ROWS.schema) == [f"write {target.path} (csv, one file)"]
    assert list(loads.folder.iterdir()) == []
    loads.load(target, ROWS)
    assert target.plan(ROWS.schema) == [
        f"append to {target.path} (csv), writing old and new rows into a new file, in one step"
    ]


# --- whole pipelines ---


@pytest.mark.parametrize("path", ["out.csv.gz", "out.parquet", "parts/{part}.ndjson"])
def test_a_whole_pipeline_writes_what_passed_its_checks(
    loads: Loads, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (loads.folder / "in.csv").write_text("id,name\n1,a\n2,\n3,c\n3,d\n4,e\n5,f\n")
    pipeline = {
        "type": "batch",
        "source": {"type": "file", "path": str(loads.folder / "in.csv")},
        "target": {"type": "file", "path": str(loads.folder / path), "write_mode": "replace"},
        "transformations": [{"type": "filter", "parameters": {"where": "id <> 5"}}],
        "quality_rules": [{"type": "not_null", "field": "name"}, {"type": "unique", "field": "id"}],
        "error_handling": {"max_failed_ratio": 0.9},
    }
    monkeypatch.chdir(loads.folder)
    Path("p.yaml").write_text(json.dumps({"pipelines": {"p": pipeline}}))

    def call(*words: str) -> Any:
        result = CliRunner().invoke(main, [*words, "--json", "--config", "p.yaml"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    for how in ("created", "replaced"):
        found = call("run", "p", "--no-prefect")
        rows = {name: count for name, count in found["rows"].items() if count}
        assert (found["status"], found["published"]) == ("published", how)
        assert rows == {"read": 6, "filtered": 1, "quarantined": 3, "written": 2}

    files = [file for file in [*loads.folder.glob("out.*"), *loads.folder.glob("parts/*")] if file.is_file()]
    read = {".gz": pl.read_csv, ".parquet": pl.read_parquet, ".ndjson": pl.read_ndjson}[files[0].suffix]
    assert [read(file).rows() for file in files] == [[(1, "a"), (4, "e")]]
    target = load(Path("p.yaml")).pipeline("p").target
    assert len(target.history("p", 9)) == 2
    quarantined = target.quarantined("p", found["run_id"], 9)
    assert sorted((row["row"], row["values"]["id"]) for row in quarantined) == [(1, 2), (2, 3), (3, 3)]


# --- S3 ---


@pytest.fixture
def s3_target(s3: Any) -> Callable[..., File]:
    """Makes targets in this test's bucket."""

    def make(name: str, **keys: Any) -> File:
        options = s3.options | keys.pop("storage_options", {})
        return File.model_validate(
            {"path": f"{s3.url}/{name}", "write_mode": "overwrite", "storage_options": options} | keys
        )

    return make


def _object(target: File, folder: Path) -> Path:
    store = target._place.store
    copy = folder / Path(target.path).name
    store.fs.get_file(store.path, str(copy))
    return copy


@pytest.mark.parametrize("path", ["a/b/o.csv", "o.ndjson.gz", "a/o.parquet", "o.arrow"])
def test_objects_are_written_replaced_and_appended_to(
    loads: Loads, s3_target: Callable[..., File], tmp_path: Path, path: str
) -> None:
    target = s3_target(path)
    target.check()
    assert loads.load(target, MORE).how == "created"
    assert loads.load(target, ROWS).how == "replaced"
    record = loads.record(target)
    record.state = {"s": 1}
    adding = s3_target(path, write_mode="append")

    loads.load(adding, MORE, record=record)
    loads.load(adding, MORE, record=record)

    assert_frame_equal(_read(_object(target, tmp_path)), pl.concat([ROWS, MORE]))
    assert len(target.history("p", 9)) == 3
    assert target.state("p") == {"s": 1}


def test_of_two_runs_on_an_object_the_first_to_publish_wins(
    loads: Loads, s3_target: Callable[..., File], tmp_path: Path
) -> None:
    target = s3_target("o.parquet")
    for rows in (ROWS, MORE):
        first, second = loads.record(target), loads.record(target)
        first.rows.read = second.rows.read = 3
        with (
            target.open(first, ROWS.schema, tmp_path / first.run_id) as one,
            target.open(second, ROWS.schema, tmp_path / second.run_id) as other,
        ):
            one.stage(rows)
            other.stage(ROWS[:2])
            first.staged, second.staged = one.seal(), other.seal()
            second.rows.read = 2
            one.publish(first, Quarantine(tmp_path / "q"))
            with pytest.raises(TargetBusyError, match="written by somebody else while the run was under way"):
                other.publish(second, Quarantine(tmp_path / "q"))

        assert_frame_equal(_read(_object(target, tmp_path)), rows)
        assert first.run_id in {run["run_id"] for run in target.history("p", 9)}
        assert second.run_id not in {run["run_id"] for run in target.history("p", 9)}


def test_a_large_object_goes_in_parts_on_the_same_condition(
    loads: Loads, s3_target: Callable[..., File], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.targets._objects._PUT_BYTES", 6_000_000)  # S3 takes no smaller parts than 5 MB
    rows = pl.DataFrame({"id": range(1_500_000)}).with_columns(pl.col("id").hash())
    target = s3_target("o.parquet")
    record = loads.record(target)
    record.rows.read = rows.height

    with target.open(record, rows.schema, tmp_path / "one") as chamber:
        chamber.stage(rows)
        record.staged = chamber.seal()
        loads.load(target, ROWS)
        with pytest.raises(TargetBusyError):
            chamber.publish(record, Quarantine(tmp_path / "q"))
    assert_frame_equal(_read(_object(target, tmp_path)), ROWS)

    loads.load(target, rows)
    assert_frame_equal(_read(_object(target, tmp_path)), rows)


def test_a_put_whose_answer_was_lost_is_found_by_the_next_run(loads: Loads, s3_target: Callable[..., File]) -> None:
    target = s3_target("o.csv")
    place = target._place
    record = loads.record(target)
    record.state = {"s": "of the dead"}
    record.finish("published")
    place.enter(record.run_id, Turn("p"))
    built = loads.folder / "built"
    built.write_text("id\n1\n")
    place.journal.intend(record, Quarantine(loads.folder / "q"), place.proof(built, record.run_id))
    assert target.history("p", 9) == []
    place.publish(built, record.run_id, adds=False, rows=1)

    assert [run["run_id"] for run in target.history("p", 9)] == [record.run_id]
    assert target.state("p") == {"s": "of the dead"}
    loads.load(target, ROWS)
    assert len(target.history("p", 9)) == 2
    assert target.state("p") == {"s": "of the dead"}


def test_an_object_says_how_many_rows_an_overwrite_would_remove(loads: Loads, s3_target: Callable[..., File]) -> None:
    target = s3_target("o.csv")

    def guarded() -> RunRecord:
        record = loads.record(target)
        record.guards = Guards(0.5)
        return record

    loads.load(target, ROWS)
    with pytest.raises(RefusedError, match=r"remove 2 of 3 rows \(66\.67 %\)"):
        loads.load(target, ROWS[:1], record=guarded())
    assert loads.load(target, ROWS[:2], record=guarded()).inserted == 2
    loads.load(s3_target("o.csv", write_mode="append"), ROWS)
    assert loads.load(target, ROWS[:1], record=guarded()).inserted == 1  # appended to: nobody knows


@pytest.mark.parametrize(
    ("path", "text", "rows"),
    [
        ("o.csv", 'id,name\n1,"a\nb"\n2,c\n', 2),
        ("o.csv", "id,name\n1,a\n2,b", 2),
        ("o.csv", "id,name\n", 0),
        ("o.ndjson", '{"id": 1}\n{"id": 2}', 2),
        ("o.ndjson", "", 0),
    ],
)
def test_rows_of_a_file_are_counted(loads: Loads, path: str, text: str, rows: int) -> None:
    (loads.folder / path).write_text(text)

    assert loads.target(path)._format.rows(loads.folder / path) == rows


def test_a_file_of_another_format_is_replaced_with_a_warning(loads: Loads) -> None:
    target, record = loads.target("o.parquet"), loads.record(loads.target("o.parquet"))
    record.guards = Guards(0.5)
    (loads.folder / "o.parquet").write_text("not one")

    loads.load(target, ROWS, record=record)

    assert record.warnings == ["what is there is no parquet, so nobody can say how many rows are replaced."]
    assert_frame_equal(loads.rows("o.parquet"), ROWS)


def test_an_endpoint_that_is_not_there_is_told_without_the_keys(s3_target: Callable[..., File]) -> None:
    target = s3_target("o.csv", storage_options={"endpoint_url": "http://127.0.0.1:9"})

    with pytest.raises(TargetUnreachableError) as caught:
        target.check()

    assert str(caught.value).startswith(f"target {target.label}: '{target.label}': ")
    assert "hush-s3-secret" not in str(caught.value) + repr(target)


@pytest.mark.parametrize("write_mode", ["append", "overwrite"])
def test_keys_that_s3_refuses_are_told_and_not_shown(
    loads: Loads, refused: tuple[dict[str, str], type[LoadError]], write_mode: str
) -> None:
    options, kind = refused
    target = File.model_validate({"path": "s3://b/o.csv", "storage_options": options, "write_mode": write_mode})
    for attempt in (target.check, lambda: loads.load(target, ROWS), lambda: target.plan(ROWS.schema)):
        with pytest.raises(kind) as caught:
            attempt()
        assert not caught.value.retryable
        assert "hush-s3-secret" not in str(caught.value) + repr(target)


def test_a_bucket_that_is_not_there_is_told(loads: Loads, s3: Any) -> None:
    keys = {"path": "s3://nobody-made-this/o.csv", "storage_options": s3.options, "write_mode": "overwrite"}
    target = File.model_validate(keys)

    with pytest.raises(TargetMissingError, match=r"^target s3://nobody-made-this/o\.csv: "):
        loads.load(target, ROWS)
    with pytest.raises(TargetMissingError):
        target.check()
