"""Records that are no rows: kept with file, line and reason, and nothing beside them is lost."""

# ruff: noqa: E501 - a case stands on its line

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flows import pipeline
from flows._config import load
from flows.sources._base import Extract, Malformed, Pushdown
from flows.sources._blocks import blocks
from flows.sources._brought import Piece
from flows.sources._csv import Csv
from flows.sources.file import File
from validations._errors import TooManyRejectedError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scan(path: str | list[str], **keys: object) -> Extract:
    return File.model_validate({"type": "file", "path": path, **keys}).scan("orders")


def read(text: str | bytes, path: str = "a.csv", **keys: object) -> list[Any]:
    """Rows as tuples, broken records as (line, text, reason), in the order in which they come."""
    Path(path).write_bytes(text.encode() if isinstance(text, str) else text)
    return told(scan(path, **keys))


def told(extract: Extract, ask: Pushdown = Pushdown()) -> list[Any]:  # noqa: B008 - frozen
    found: list[Any] = []
    for batch in extract.read(ask):
        if isinstance(batch, Malformed):
            values = [json.loads(value) for value in batch.values]
            found += [
                [value.get("line", value.get("record")), value["text"], reason.removeprefix("malformed: ")]
                for value, reason in zip(values, batch.reasons, strict=True)
            ]
        else:
            found += batch.rows()
    return found


CSV = {
    "too many fields": ("a,b\n1,2\n3,4,5\n6,7\n", {}, [(1, 2), [3, "3,4,5", "3 fields, 2 wanted"], (6, 7)]),
    "too few fields": ("a,b\n1,2\n3\n6,7\n", {}, [(1, 2), [3, "3", "1 field, 2 wanted"], (6, 7)]),
    "the first record": ("a,b\n1\n6,7\n", {}, [[2, "1", "1 field, 2 wanted"], (6, 7)]),
    "the last record": ("a,b\n6,7\n1", {}, [(6, 7), [3, "1", "1 field, 2 wanted"]]),
    "a short record of two lines": (
        'a,b\n1,2\n"3\n4"\n6,7\n', {}, [(1, 2), [3, '"3\n4"', "1 field, 2 wanted"], (6, 7)],
    ),
    "an open quote": ('a,b\n1,2\n3,"4\n6,7\n', {}, [(1, 2), [3, '3,"4', "a quote is not closed"], (6, 7)]),
    "a quote that ends too early": ('a,b\n1,2\n3,"4"5\n6,7\n', {}, [(1, 2), [3, '3,"4"5', "the quotes are broken"], (6, 7)]),
    "bytes that are no text": (b"a,b\n1,2\n3,\xff4\n6,7\n", {}, [(1, 2), [3, "3,\ufffd4", "the text is not UTF-8"], (6, 7)]),
    "bytes that the encoding does not know": (
        b"a,b\n1,\xe9\n3,\x81\n6,7\n", {"encoding": "cp1252"},
        [(1, "é"), [3, "3,\ufffd", "the text is not cp1252"], (6, "7")],
    ),
    "a value of another type": (
        "a,b\n1,x\n3.5,y\n6,z\n", {"dtypes": {"a": "int"}},
        [(1, "x"), [3, "3.5,y", "column 'a': '3.5' is not Int32"], (6, "z")],
    ),
    "values of another type, behind a text of two lines": (
        'a,b\n1,"x\ny"\nq,y\n6,z\nw,q\n', {"dtypes": {"a": "int"}},
        [(1, "x\ny"), [4, "q,y", "column 'a': 'q' is not Int32"], (6, "z"), [6, "w,q", "column 'a': 'w' is not Int32"]],
    ),
    "both": (
        "a,b\nq,1\n1\n2,2\nw,3\n3,3,3\n4,4\n", {"dtypes": {"a": "int"}},
        [
            [2, "q,1", "column 'a': 'q' is not Int32"], [3, "1", "1 field, 2 wanted"], (2, 2),
            [5, "w,3", "column 'a': 'w' is not Int32"], [6, "3,3,3", "3 fields, 2 wanted"], (4, 4),
        ],
    ),
    "none but broken ones": ("a,b\n1\n2\n", {}, [[2, "1", "1 field, 2 wanted"], [3, "2", "1 field, 2 wanted"]]),
    "padded": ("a,b\n1\n2,3,4\n", {"ragged_rows": "pad"}, [(1, None), [3, "2,3,4", "3 fields, 2 wanted"]]),
    "truncated": ("a,b\n1\n2,3,4\n", {"ragged_rows": "truncate"}, [[2, "1", "1 field, 2 wanted"], (2, 3)]),
    "behind a preamble and a comment": (
        "made today\n\na,b\nkg,m\n#1,2\n3\n6,7\n", {"skip_rows": 1, "skip_rows_after_header": 1, "comment_prefix": "#"},
        [[6, "3", "1 field, 2 wanted"], (6, 7)],
    ),
    "without a header": ("1,2\n3\n", {"has_header": False}, [(1, 2), [2, "3", "1 field, 2 wanted"]]),
    "with an escape": ('a,b\n1,"x\\"\n2,"y\\""\n', {"escape_char": "\\"}, [[2, '1,"x\\"', "a quote is not closed"], (2, 'y"')]),
    "with zeros in it": ("a,b\n1,2,\0\n", {}, [[2, "1,2,\ufffd", "3 fields, 2 wanted"]]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "keys", "found"), CSV.values(), ids=CSV)
def test_a_record_of_csv_that_is_no_row_is_told_at_its_place(text, keys, found):
    assert read(text, **keys) == found


@pytest.mark.parametrize(("text", "keys", "found"), CSV.values(), ids=CSV)
def test_it_is_the_same_in_a_compressed_file(text, keys, found):
    packed = gzip.compress(text.encode() if isinstance(text, str) else text)

    assert read(packed, "a.csv.gz", **keys) == found


NDJSON = {
    "no json": ('{"a":1}\n{"a":\n{"a":3}\n', {}, [(1,), [2, '{"a":', "this is not JSON: Expecting value at character 6"], (3,)]),
    "two on a line": ('{"a":1}\n{"a":2}{"a":3}\n', {}, [(1,), [2, '{"a":2}{"a":3}', "this is not JSON: Extra data at character 8"]]),
    "no object": ('{"a":1}\n\n[2]\n3\n', {}, [(1,), [3, "[2]", "this is no JSON object"], [4, "3", "this is no JSON object"]]),
    "no text": (b'{"a":1}\n{"a":"\xff"}\n', {}, [(1,), [2, '{"a":"\ufffd"}', "the text is not UTF-8"]]),
    "no number": ('{"a":1}\n{"a":NaN}\n{"a":1e999}\n', {}, [(1,), [2, '{"a":NaN}', "'NaN' is not a number"], [3, '{"a":1e999}', "the number '1e999' is too large"]]),
    "a value of another type": (
        '{"a":"1"}\n\n{"a":"x"}\n{"a":{"b":1}}\n{"a":2}\n', {"dtypes": {"a": "int"}},
        [(1,), [3, '{"a":"x"}', "column 'a': 'x' is not Int32"], [4, '{"a":{"b":1}}', "column 'a': '{\"b\": 1}' is not Int32"], (2,)],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "keys", "found"), NDJSON.values(), ids=NDJSON)
def test_a_line_that_is_no_object_is_told_at_its_place(text, keys, found):
    assert read(text, "a.ndjson", **keys) == found


def test_a_value_in_a_json_array_has_a_number_instead_of_a_line():
    found = read('[{"a":"1"},{"a":"x"}]', "a.json", dtypes={"a": "int"})

    assert found == [(1,), [2, '{"a":"x"}', "column 'a': 'x' is not Int32"]]


def test_the_record_names_its_file_and_is_one_json_object():
    Path("a.csv").write_text("a,b\n1,2\n")
    Path("b.csv").write_text('a,b\n1,"é"x\n')

    (broken,) = [batch for batch in scan("*.csv").read(Pushdown()) if isinstance(batch, Malformed)]

    assert broken.values.to_list() == ['{"file": "b.csv", "line": 2, "text": "1,\\"é\\"x"}']
    assert broken.reasons.to_list() == ["malformed: the quotes are broken"]


def test_a_second_reading_gives_the_same_in_the_same_order():
    Path("a.csv").write_text("a,b\n" + "1,2\nx,2\n3\n" * 50)
    extract = scan("a.csv", dtypes={"a": "int"})

    assert told(extract) == told(extract)
    assert len(told(extract)) == 150


def test_a_limit_counts_rows_and_not_what_is_broken():
    Path("a.csv").write_text("a,b\nx,1\n1,2\n3\n3,4\n5,6\n")
    extract = scan("a.csv", dtypes={"a": "int"})

    assert [row for row in told(extract, Pushdown(limit=2)) if isinstance(row, tuple)] == [(1, 2), (3, 4)]


@pytest.mark.parametrize("rows", [3_000, 60_000])
def test_many_broken_records_lose_no_row_and_are_all_told(rows):
    lines = [f"{i},x" if i % 3 else f"{i}" for i in range(rows)]
    found = read("a,b\n" + "\n".join(lines) + "\n", batch_bytes=64_000)

    assert [row[0] for row in found if isinstance(row, tuple)] == [i for i in range(rows) if i % 3]
    assert [row[0] - 2 for row in found if isinstance(row, list)] == [i for i in range(rows) if not i % 3]


def test_a_quote_that_is_never_closed_costs_one_line_of_many():
    found = read('a,b\n1,"x\n' + "2,y\n" * 20_000)

    assert found[0] == [2, '1,"x', "a quote is not closed"]
    assert found[1:] == [(2, "y")] * 20_000


def test_types_are_inferred_from_the_good_records():
    found = read("a,b\n1,2\nn/a,n/a,n/a\n3,4.5\n")

    assert found == [(1, 2.0), [3, "n/a,n/a,n/a", "3 fields, 2 wanted"], (3, 4.5)]


TOKENS = ["x", ",", '"', "\n", '","', '"\n', "x,x\n", '\n"', '""', ",x\n", "\r\n", " ", "é"]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(TOKENS), max_size=9).map("".join))
@example(',"\n""')
@example('x"",x\n')
@example('"a"b"c",x\n1,2\n')
@example('x,"""')
def test_whatever_stands_in_a_file_every_line_of_it_is_in_a_row_or_told(text):
    """The law: Polars splits as we do, so no byte is lost, and none is read twice."""
    Path("a.csv").write_bytes(b"a,b\n" + text.encode())
    format_ = Csv(dict.fromkeys("ab", pl.String()))
    records = [record for record in format_.records(Piece("a.csv", "a.csv")) if not record.blank]

    found = told(scan("a.csv", dtypes={"a": "text", "b": "text"}))

    assert [[row[0], row[2]] for row in found if isinstance(row, list)] == [
        [record.line, record.problem] for record in records if record.problem
    ]
    rows = [row for row in found if isinstance(row, tuple)]
    wanted = [format_.dialect.fields(format_.dialect.body(record.raw)) for record in records if record.is_row]
    assert [[as_said(field) for field in fields] for fields in wanted] == [
        [bare(value) for value in row] for row in rows
    ]


@pytest.mark.parametrize("size", [3, 7, 50])
@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a,b\n1,x\n2,y\n3,z", {}),
        ('1,"x\n,y"\n2,"say ""hi""\n"\n3,\n', {"quote": b'"'}),
        ('1,"x\\"\ny"\n2,"\\\\"\n3,"z\n\n"\n', {"quote": b'"', "escape": b"\\"}),
        ("\ufeff# é\na;1;2", {"eol": b";", "skip_lines": 0}),
        ("one\ntwo\nthree\n", {"skip_lines": 2}),
        ("one\ntwo", {"skip_lines": 2}),
    ],
)
def test_blocks_end_where_records_do(text, keys, size):
    found = list(blocks(io.BytesIO(text.encode()), size=size, **keys))
    whole = b"".join(block.data for block in blocks(io.BytesIO(text.encode()), size=10_000, **keys))

    assert b"".join(block.data for block in found) == whole
    for block in found:
        before = whole[: whole.index(block.data)].count(keys.get("eol", b"\n"))
        assert block.line == 1 + keys.get("skip_lines", 0) + before
        plain = block.data.replace(b"\\\\", b"").replace(b'\\"', b"")
        assert plain.count(b'"') % 2 == 0


def test_rows_behind_a_broken_record_are_there_once_however_large_the_file_is():
    """Polars hands rows out that stand behind the place where it stops; a block is all or nothing."""
    lines = [f"{i},{'x' * 90}" for i in range(200_000)]
    lines[70_000] = '"a"b,2'
    lines[150_000] = "1,2,3"

    found = read("a,b\n" + "\n".join(lines) + "\n", dtypes={"a": "int", "b": "text"})

    assert [row[0] for row in found if isinstance(row, tuple)] == [
        i for i in range(200_000) if i not in {70_000, 150_000}
    ]
    assert [row for row in found if isinstance(row, list)] == [
        [70_002, '"a"b,2', "the quotes are broken"], [150_002, "1,2,3", "3 fields, 2 wanted"],
    ]  # fmt: skip


def as_said(field: bytes) -> str | None:
    """A field without its quotes; of a single quote in a quoted text nothing is left, and we do not count them."""
    return None if field == b"" else field.decode().replace('"', "")


def bare(value: str | None) -> str | None:
    return None if value is None else value.replace('"', "")


def config(**keys: Any) -> Path:
    source = {"type": "file", "path": "in/*.csv", "dtypes": {"id": "bigint"}} | keys.pop("source", {})
    target = {"type": "file", "path": "out.csv", "write_mode": "overwrite"}
    Path("p.yaml").write_text(
        json.dumps({"pipelines": {"p": {"type": "batch", "source": source, "target": target} | keys}})
    )
    return Path("p.yaml")


def test_a_whole_run_balances_and_keeps_what_was_broken():
    Path("in").mkdir()
    Path("in/1.csv").write_text("id,name\n1,a\nx,b\n3,c\n4\n5,e\n")
    Path("in/2.csv").write_text("id,name\n6,f\n")

    record = pipeline.run(load(config(error_handling={"max_failed_ratio": 0.5})).pipeline("p"))

    assert (record.rows.read, record.rows.written, record.rows.quarantined) == (6, 4, 2)
    assert Path("out.csv").read_text() == "id,name\n1,a\n3,c\n5,e\n6,f\n"
    (file,) = Path().glob("_lockgate/quarantine/p/*.quarantine")
    kept = pl.read_parquet(file)
    assert [json.loads(value)["line"] for value in kept["values"]] == [3, 5]
    assert kept["row"].to_list() == [1, 3]


def test_too_many_broken_records_refuse_the_load():
    Path("in").mkdir()
    Path("in/1.csv").write_text("id,name\n1,a\nx,b\n")

    with pytest.raises(TooManyRejectedError, match="malformed"):
        pipeline.run(load(config(error_handling={"max_failed_ratio": 0.4})).pipeline("p"))

    assert not Path("out.csv").exists()
