"""Files on disk, as a data engineer meets them; each message stands here in one piece."""

# ruff: noqa: E501 - moments without a zone, messages in one piece

import datetime as dt
import gzip
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import takewhile
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from flows._errors import ExtractError, SourceMissingError, SourcePermissionError, SourceTypeError
from flows.sources._base import Extract, Pushdown
from flows.sources.file import File

INT, TEXT, REAL, BOOL, DATE = pl.Int64, pl.String, pl.Float64, pl.Boolean, pl.Date
MOMENT, INSTANT = pl.Datetime("us"), pl.Datetime("us", "UTC")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(files: dict[str, str | bytes | pl.DataFrame]) -> None:
    for name, content in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pl.DataFrame):
            content.write_parquet(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def scan(path: str | list[str], **keys: object) -> Extract:
    return File.model_validate({"type": "file", "path": path, **keys}).scan("orders")


def read(path: str | list[str], ask: Pushdown = Pushdown(), **keys: object) -> pl.DataFrame:  # noqa: B008 - frozen
    extract = scan(path, **keys)
    names = ask.columns if ask.columns is not None else tuple(extract.schema)
    empty = pl.DataFrame(schema={name: extract.schema[name] for name in names})
    return pl.concat([empty, *extract.read(ask)])


def csv(text: str | bytes, **keys: object) -> pl.DataFrame:
    write({"a.csv": text})
    return read("a.csv", **keys)


# ------------------------------------------------------------------ types of CSV columns


@pytest.mark.parametrize(
    ("texts", "dtype", "values"),
    [
        (["1", "-20", "0"], INT, [1, -20, 0]),
        (["1", "", "3"], INT, [1, None, 3]),
        (["123456789012345678"], INT, [123456789012345678]),
        (["1234567890123456789"], TEXT, ["1234567890123456789"]),
        (["00123", "123"], TEXT, ["00123", "123"]),
        (["123", "00123"], TEXT, ["123", "00123"]),
        (["+49", "1"], TEXT, ["+49", "1"]),
        ([" 1", "2"], TEXT, [" 1", "2"]),
        (["1", "2.5"], REAL, [1.0, 2.5]),
        (["1e-05", "1.5E10", "-0.25"], REAL, [1e-05, 1.5e10, -0.25]),
        (["12E4", "7"], TEXT, ["12E4", "7"]),
        (["00.5"], TEXT, ["00.5"]),
        (["1,5"], TEXT, ["1,5"]),
        (["NaN", "1.5"], TEXT, ["NaN", "1.5"]),
        (["true", "False", "TRUE"], BOOL, [True, False, True]),
        (["yes", "no"], TEXT, ["yes", "no"]),
        (["0", "1"], INT, [0, 1]),
        (["2024-02-29", "0001-01-01"], DATE, [dt.date(2024, 2, 29), dt.date(1, 1, 1)]),
        (["2024-02-29", "2024-02-30"], TEXT, ["2024-02-29", "2024-02-30"]),
        (["", "2024-02-29"], DATE, [None, dt.date(2024, 2, 29)]),
        (["01/02/2024"], TEXT, ["01/02/2024"]),
        (
            ["2024-01-01 10:00:00", "2024-01-01T10:00:00.25"],
            MOMENT,
            [dt.datetime(2024, 1, 1, 10), dt.datetime(2024, 1, 1, 10, 0, 0, 250000)],
        ),
        (["2024-01-01 10:00:00.1234567"], TEXT, ["2024-01-01 10:00:00.1234567"]),
        (["2024-01-01 24:00:00"], TEXT, ["2024-01-01 24:00:00"]),
        (
            ["2024-01-01T10:00:00Z", "2024-01-01 10:00:00+02:00"],
            INSTANT,
            [dt.datetime(2024, 1, 1, 10, tzinfo=dt.UTC), dt.datetime(2024, 1, 1, 8, tzinfo=dt.UTC)],
        ),
        (["2024-01-01 10:00:00", "2024-01-01 10:00:00Z"], TEXT, ["2024-01-01 10:00:00", "2024-01-01 10:00:00Z"]),
        (["", ""], TEXT, [None, None]),
        (["10:30:00"], TEXT, ["10:30:00"]),
    ],
    ids=str,
)
def test_a_column_has_a_type_only_if_every_value_is_written_as_that_type(texts, dtype, values):
    frame = csv("id,x\n" + "".join(f'{i},"{text}"\n' if text else f"{i},\n" for i, text in enumerate(texts)))

    assert frame.schema["x"] == dtype
    assert frame["x"].to_list() == values


def test_the_last_row_of_the_last_file_decides_too():
    write({"1.csv": "x\n" + "1\n" * 20_000, "2.csv": "x\n" + "2\n" * 20_000 + "n/a\n"})

    frame = read("*.csv")

    assert frame.schema == {"x": TEXT}
    assert frame.height == 40_001


@pytest.mark.parametrize(
    ("text", "declared", "value"),
    [
        ("00123", "text", "00123"),
        ("007", "int", 7),
        ("9223372036854775807", "bigint", 2**63 - 1),
        ("1.10", "numeric(10, 2)", Decimal("1.10")),
        ("1.1000", "numeric(10, 2)", Decimal("1.10")),
        (
            "1234567890123456789012345678901234.5678",
            "numeric(38, 4)",
            Decimal("1234567890123456789012345678901234.5678"),
        ),
        ("t", "boolean", True),
        ("no", "boolean", False),
        ("NaN", "float", pytest.approx(float("nan"), nan_ok=True)),
        ("2024-02-29", "date", dt.date(2024, 2, 29)),
        ("2024-01-01", "timestamp", dt.datetime(2024, 1, 1)),
        ("2024-01-01 10:00:00.5", "timestamp", dt.datetime(2024, 1, 1, 10, 0, 0, 500000)),
        ("2024-01-01 10:00:00", "timestamptz", dt.datetime(2024, 1, 1, 10, tzinfo=dt.UTC)),
        ("2024-01-01 10:00:00-0330", "timestamptz", dt.datetime(2024, 1, 1, 13, 30, tzinfo=dt.UTC)),
        ("10:30:00.5", "time", dt.time(10, 30, 0, 500000)),
        ("", "int", None),
        ("n/a", "int", None),
    ],
)
def test_a_declared_type_is_read_exactly(text, declared, value):
    frame = csv(f"x,y\n{text},1\n", dtypes={"x": declared}, null_values=["n/a"])

    assert frame["x"].to_list() == [value]


@pytest.mark.parametrize(
    ("text", "declared", "said"),
    [
        ("abc", "int", "'abc' is not Int32"),
        ("1.5", "bigint", "'1.5' is not Int64"),
        ("2147483648", "int", "'2147483648' is not Int32"),
        ("1.005", "numeric(10, 2)", "'1.005' is not Decimal(precision=10, scale=2)"),
        ("123456789.5", "numeric(10, 2)", "'123456789.5' is not Decimal(precision=10, scale=2)"),
        ("maybe", "boolean", "'maybe' is not Boolean"),
        ("01/02/2024", "date", "'01/02/2024' is not Date"),
        ("2024-02-30", "date", "'2024-02-30' is not Date"),
        ("2024-01-01 10:00:00+02:00", "timestamp", "'2024-01-01 10:00:00+02:00' is not Datetime(time_unit='us', time_zone=None)"),
        ("2024-01-01 10:00:00.1234567", "timestamp", "'2024-01-01 10:00:00.1234567' is not Datetime(time_unit='us', time_zone=None)"),
        ('""', "int", "'' is not Int32"),
    ],
)  # fmt: skip
def test_a_value_that_is_not_of_the_declared_type_stops_the_read_at_its_line(text, declared, said):
    write({"a.csv": f'y,x\n"two\nlines",\n1,\n2,{text}\n3,\n'})
    extract = scan("a.csv", dtypes={"x": declared}, on_malformed="fail")

    with pytest.raises(SourceTypeError) as caught:
        list(extract.read(Pushdown()))

    assert str(caught.value) == (
        f"source 'orders': 'a.csv' line 5: column 'x': {said}. Mend the record, or let it go to quarantine with on_malformed: quarantine."
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "i": st.none() | st.integers(-(10**17), 10**17),
                "f": st.none() | st.floats(allow_nan=False, allow_infinity=False),
                "t": st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
                "b": st.none() | st.booleans(),
                "d": st.none() | st.dates(),
                "m": st.none() | st.datetimes(),
            }
        ),
        max_size=8,
    )
)
def test_what_polars_writes_is_read_back_with_the_types_declared(rows):
    schema = {"i": INT, "f": REAL, "t": TEXT, "b": BOOL, "d": DATE, "m": MOMENT, "end": INT}
    frame = pl.DataFrame([{**row, "end": 1} for row in rows], schema=schema)
    frame.write_csv("a.csv", quote_style="non_numeric")

    declared = {
        "i": "bigint",
        "f": "float",
        "t": "text",
        "b": "boolean",
        "d": "date",
        "m": "timestamp",
        "end": "bigint",
    }

    assert_frame_equal(read("a.csv", dtypes=declared), frame)


# ------------------------------------------------------------------ how CSV files are written


@pytest.mark.parametrize(
    ("text", "keys", "rows"),
    [
        ("a;b\n1;x,y\n", {"delimiter": ";"}, [(1, "x,y")]),
        ("a\tb\n1\tx\n", {"delimiter": "\t"}, [(1, "x")]),
        ("a,b\n1,'x,y'\n", {"quote_char": "'"}, [(1, "x,y")]),
        ('a,b\n1,5" disk\n', {"quote_char": None}, [(1, '5" disk')]),
        ("1,x\n2,y\n", {"has_header": False}, [(1, "x"), (2, "y")]),
        ("a,b\n-,n/a\n1,x\n", {"null_values": ["-", "n/a"]}, [(None, None), (1, "x")]),
        ("a,b\n-,x\n", {"null_values": "-"}, [(None, "x")]),
        ('a,b\n1,""\n2,\n', {}, [(1, ""), (2, None)]),
        ('a,b\n1,""\n', {"null_values": [""]}, [(1, None)]),
        ('a,b\r\n1,"x\r\ny"\r\n', {}, [(1, "x\r\ny")]),
        ('a,b\n1,"say ""x"", y"\n', {}, [(1, 'say "x", y')]),
        (b"\xef\xbb\xbfa,b\n1,x\n", {}, [(1, "x")]),
        (b"a,b\n1,\xff\n", {"encoding": "utf8-lossy"}, [(1, "\ufffd")]),
        ("a,b\n1,x", {}, [(1, "x")]),
        ("a\n1\n\n3\n", {}, [(1,), (None,), (3,)]),
        ("\n\na,b\n1,x\n", {}, [(1, "x")]),
        ('a,b\n"1\n",\n2,\n', {}, [("1\n", None), ("2", None)]),
        ("a,b\n1,2\n\n3,4\n\n", {}, [(1, 2), (3, 4)]),
        ('a,b\n1,5" disk\n2,"x"\n', {}, [(1, '5" disk'), (2, "x")]),
        ('a,b\n1,"say "hi" now"\n', {}, [(1, "say hi now")]),
        (
            'a,b\n1,"say \\"hi\\", now"\n2,x\\,y\n3,\n4,"\\\\"\n',
            {"escape_char": "\\"},
            [(1, 'say "hi", now'), (2, "x,y"), (3, None), (4, "\\")],
        ),
        ('a,b\n1,"x\\\ny"\n2,z\n', {"escape_char": "\\"}, [(1, "x\ny"), (2, "z")]),
        ("a|b~1|x~2|y~", {"delimiter": "|", "eol_char": "~"}, [(1, "x"), (2, "y")]),
        ("a,b\r1,x\r2,y\r", {"eol_char": "\r"}, [(1, "x"), (2, "y")]),
        ("made by 'x\n\n1\na,b\n1,x\n", {"skip_rows": 3}, [(1, "x")]),
        ("a,b\nkg,m\n1,2\n", {"skip_rows_after_header": 1}, [(1, 2)]),
        ("#x\na,b\n#1,x\n2,y\n# end\n", {"comment_prefix": "#"}, [(2, "y")]),
        ("a;b\n1,5;-0,25\n2;3\n", {"delimiter": ";", "decimal_comma": True}, [(1.5, -0.25), (2.0, 3.0)]),
        (
            "a;b\n1,50;x\n",
            {"delimiter": ";", "decimal_comma": True, "dtypes": {"a": "numeric(9, 2)"}},
            [(Decimal("1.50"), "x")],
        ),
        ("a;b\n1.5;1\n", {"delimiter": ";", "decimal_comma": True}, [("1.5", 1)]),
        ("a,b\n1\n2,3,4\n5,6\n", {"ragged_rows": "fit"}, [(1, None), (2, 3), (5, 6)]),
        ("a,b\n1\n5,6\n", {"ragged_rows": "pad"}, [(1, None), (5, 6)]),
        ("a,b\n2,3,4\n5,6\n", {"ragged_rows": "truncate"}, [(2, 3), (5, 6)]),
        ("1,x\n", {"has_header": False, "column_names": ["n", "t"]}, [(1, "x")]),
        ("a,b\né,x\n".encode("latin-1"), {"encoding": "latin-1"}, [("é", "x")]),
        ("a,b\n€,x\n".encode("cp1252"), {"encoding": "cp1252"}, [("€", "x")]),
        ("a,b\n☃,x\n".encode("utf-16"), {"encoding": "utf-16"}, [("☃", "x")]),
        ("a,b\n日本,x\n".encode("shift-jis"), {"encoding": "shift_jis"}, [("日本", "x")]),
        ("\ufeffa,b\n1,x\n".encode("utf-16-le"), {"encoding": "utf-16-le"}, [(1, "x")]),
    ],
)
def test_a_dialect_of_csv(text, keys, rows):
    assert csv(text, **keys).rows() == rows


def test_columns_without_a_header_are_numbered():
    assert csv("1,x\n", has_header=False).columns == ["column_0", "column_1"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize(("name", "text"), [("a.csv", "x\n1\n"), ("a.ndjson", '{"x":1}\n'), ("a.json", '[{"x":1}]')])
def test_compressed_files_are_read_as_the_others(name, text, suffix):
    packed = gzip.compress(text.encode()) if suffix == ".gz" else pa.compress(text.encode(), "zstd", asbytes=True)
    write({name + suffix: packed})

    assert read(name + suffix).rows() == [(1,)]


# ------------------------------------------------------------------ JSON


@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonl", "a.json"])
def test_objects_stay_structs_and_a_field_that_a_row_lacks_is_null(name):
    lines = ['{"id":1,"at":{"x":1,"y":"q"},"tags":["a"]}', '{"late":2.5,"id":2,"at":null}']
    write({name: "\n".join(lines) if name != "a.json" else f"[{', '.join(lines)}]"})

    frame = read(name)

    assert frame.schema == {
        "id": INT, "at": pl.Struct({"x": INT, "y": TEXT}), "tags": pl.List(TEXT), "late": REAL,
    }  # fmt: skip
    assert frame.rows() == [(1, {"x": 1, "y": "q"}, ["a"], None), (2, None, None, 2.5)]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('{"a":1}\n\n{"a":2}\n', [(1,), (2,)]),
        ('{"a":1}', [(1,)]),
        ('{\n  "a": 1\n}', [(1,)]),
        ('[\n{"a":1},\n{"a":2}\n]', [(1,), (2,)]),
    ],
)
def test_a_json_file_holds_an_array_an_object_or_lines(text, rows):
    write({"a.json": text})

    assert read("a.json").rows() == rows


@pytest.mark.parametrize("name", ["a.ndjson", "a.json"])
def test_objects_that_never_have_a_field_are_texts_because_no_target_has_such_a_type(name):
    lines = ['{"id":1,"m":{},"l":[{}],"s":{"in":{}}}', '{"id":2,"m":null,"l":[],"s":null}']
    write({name: "\n".join(lines) if name == "a.ndjson" else f"[{', '.join(lines)}]"})

    frame = read(name)

    assert frame.schema == {"id": INT, "m": TEXT, "l": pl.List(TEXT), "s": pl.Struct({"in": TEXT})}
    assert frame.rows() == [(1, "{}", ["{}"], {"in": "{}"}), (2, None, [], None)]
    frame.write_parquet("out.parquet")


@pytest.mark.parametrize("name", ["a.ndjson", "a.json"])
def test_a_field_of_any_shape_can_be_declared_as_text(name):
    lines = ['{"a":{"x":1},"b":1}', '{"a":[1,"ü"],"b":2.5}', '{"a":"t"}', '{"c":1,"a":true}', '{"a":null}']
    write({name: "\n".join(lines) if name == "a.ndjson" else f"[{', '.join(lines)}]"})

    frame = read(name, dtypes={"a": "text"})

    assert frame.schema == {"a": TEXT, "b": REAL, "c": INT}
    assert frame["a"].to_list() == ['{"x": 1}', '[1, "ü"]', "t", "true", None]


def test_the_last_line_decides_on_the_type_too():
    write({"a.ndjson": '{"a":1}\n' * 20_000 + '{"a":0.5}\n'})

    assert read("a.ndjson").schema == {"a": REAL}


def test_fields_of_several_files_are_put_together():
    write({"1.ndjson": '{"a":1,"n":null,"s":{"x":1}}\n', "2.ndjson": '{"b":"q","a":0.5,"s":{"y":1}}\n'})

    frame = read("*.ndjson")

    assert frame.schema == {"a": REAL, "n": TEXT, "s": pl.Struct({"x": INT, "y": INT}), "b": TEXT}
    assert frame.rows() == [(1.0, None, {"x": 1, "y": None}, None), (0.5, None, {"x": None, "y": 1}, "q")]


def test_declared_types_of_json():
    write({"a.ndjson": '{"d":"2024-01-31","n":1.10,"m":"2024-01-01T10:00:00Z","code":7,"i":3}\n'})
    declared = {"d": "date", "n": "numeric(10,2)", "m": "timestamptz", "code": "text", "later": "int"}

    frame = read("a.ndjson", dtypes=declared)

    assert frame.rows(named=True) == [
        {
            "d": dt.date(2024, 1, 31), "n": Decimal("1.10"), "m": dt.datetime(2024, 1, 1, 10, tzinfo=dt.UTC), "code": "7",
            "i": 3, "later": None,
        }
    ]  # fmt: skip


# ------------------------------------------------------------------ which files, in which order


def test_a_glob_gives_its_files_by_name_and_a_list_in_its_order():
    write({f"data/{name}.csv": f"x\n{name}\n" for name in (3, 10, 1, 2)} | {"data/.hidden.csv": "x\n0\n"})

    assert read("data/*.csv")["x"].to_list() == [1, 10, 2, 3]
    assert read(["data/3.csv", "data/1*.csv"])["x"].to_list() == [3, 1, 10]


def test_a_file_that_two_patterns_match_is_read_once():
    write({"a.csv": "x\n1\n", "b.csv": "x\n2\n"})

    assert read(["b.csv", "*.csv"])["x"].to_list() == [2, 1]


def test_two_stars_go_into_folders(folder):
    write({"d/a.csv": "x\n1\n", "d/e/f/a.csv": "x\n2\n", "d/e/b.json": "[]"})

    assert read("d/**/*.csv")["x"].to_list() == [1, 2]
    assert read(str(folder / "d" / "**" / "*.csv"))["x"].to_list() == [1, 2]


def test_the_tilde_is_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    write({"in/a.csv": "x\n1\n"})

    assert read("~/in/a.csv")["x"].to_list() == [1]


NAMES = [
    "with space",
    "[1]",
    "a*b?",
    "größe ☃",
    "n" * 240,
    "quote'\"",
    "percent%20",
    "{x}",
    "$HOME",
    "#1",
    "back\\slash",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", [".csv", ".ndjson", ".json", ".parquet"])
def test_any_name_that_a_file_can_have(name, suffix):
    contents = {".csv": "x\n1\n", ".ndjson": '{"x":1}\n', ".json": '[{"x":1}]', ".parquet": pl.DataFrame({"x": [1]})}
    write({f"{name}/{name}{suffix}": contents[suffix], f"{name}/1{suffix}": contents[suffix]})

    assert read(f"{name}/{name}{suffix}").rows() == [(1,)]


def test_a_path_of_more_than_300_characters():
    path = "/".join(["d" * 100] * 4) + "/a.csv"
    write({path: "x\n1\n"})

    assert read(path).rows() == [(1,)]


def test_columns_in_another_order_are_found_by_name():
    write({"1.csv": "a,b\n1,x\n", "2.csv": "b,a\ny,2\n"})
    write({"1.parquet": pl.DataFrame({"a": [1], "b": ["x"]}), "2.parquet": pl.DataFrame({"b": ["y"], "a": [2]})})

    assert read("*.csv").rows() == read("*.parquet").rows() == [(1, "x"), (2, "y")]


def test_many_small_files_come_in_few_batches():
    write({f"{i:03}.csv": f"x\n{i}\n" for i in range(200)})

    assert [batch.height for batch in scan("*.csv").read(Pushdown())] == [200]


def test_batches_have_the_size_asked_for():
    frame = pl.DataFrame({"x": range(400_000)})
    frame.write_csv("a.csv")
    frame.write_parquet("a.parquet")

    for path in ("a.csv", "a.parquet"):
        sizes = [batch.estimated_size() for batch in scan(path, batch_bytes=200_000).read(Pushdown())]
        assert sum(sizes) >= 3_200_000
        assert max(sizes) <= 400_000
        assert min(sizes[:-1]) >= 150_000


# ------------------------------------------------------------------ nothing in them


@pytest.mark.parametrize(
    ("files", "path", "keys", "schema"),
    [
        ({"a.csv": "x,y\n"}, "a.csv", {}, {"x": TEXT, "y": TEXT}),
        ({"a.csv": "x,y\n"}, "a.csv", {"dtypes": {"y": "date"}}, {"x": TEXT, "y": DATE}),
        ({"a.csv": ""}, "a.csv", {"dtypes": {"x": "int", "y": "date"}}, {"x": pl.Int32, "y": DATE}),
        ({"a.csv.gz": gzip.compress(b"")}, "a.csv.gz", {"dtypes": {"x": "text"}}, {"x": TEXT}),
        ({"a.json": "[]"}, "a.json", {"dtypes": {"x": "int"}}, {"x": pl.Int32}),
        ({"a.ndjson": ""}, "a.ndjson", {"dtypes": {"x": "int"}}, {"x": pl.Int32}),
        ({"a.parquet": pl.DataFrame(schema={"x": pl.Date})}, "a.parquet", {}, {"x": DATE}),
    ],
)
def test_no_rows_give_an_empty_frame_with_its_columns(files, path, keys, schema):
    write(files)

    assert_frame_equal(read(path, **keys), pl.DataFrame(schema=schema))


def test_an_empty_file_beside_others_has_no_rows():
    write({"1.csv": "", "2.csv": "x\n1\n", "1.ndjson": "", "2.ndjson": '{"x":1}\n'})

    assert read("*.csv").rows() == read("*.ndjson").rows() == [(1,)]


# ------------------------------------------------------------------ pushdown


def parquet(rows: int) -> None:
    pl.DataFrame({"id": range(rows), "name": [f"n{i}" for i in range(rows)]}).write_parquet(
        "a.parquet", row_group_size=100
    )


def test_only_parquet_leaves_rows_out_and_says_so():
    parquet(1000)
    write({"a.csv": "id,name\n1,a\n2,b\n"})
    ask = Pushdown(("id",), pl.col("id") >= 990)

    assert read("a.parquet", ask).height == 10
    assert scan("a.parquet").pushed(ask) == '[(col("id")) >= (dyn int: 990)]'
    assert read("a.csv", ask).height == 2
    assert scan("a.csv").pushed(ask) is None
    assert scan("a.parquet").pushed(Pushdown()) is None


def test_a_limit_counts_over_all_files_and_before_the_predicate():
    write({f"{i}.parquet": pl.DataFrame({"x": [i, i + 10, i + 20]}) for i in range(3)})
    extract = scan("*.parquet")
    limited = Pushdown(None, pl.col("x") >= 10, 4)

    assert extract.pushed(limited) is None
    assert read("*.parquet", limited)["x"].to_list() == [0, 10, 20, 1]
    assert extract.frame.head(4).filter(pl.col("x") >= 10).collect()["x"].to_list() == [10, 20]
    assert extract.frame.filter(pl.col("x") >= 10).head(3).collect()["x"].to_list() == [10, 20, 11]


def test_describe_is_one_line_that_says_all():
    parquet(3)
    write({"a.csv": "id,name\n1,a\n"})

    assert scan("*.csv").describe(Pushdown()) == "csv '*.csv' (1 file): id, name"
    assert scan(["a.parquet"]).describe(Pushdown(("id",), pl.col("id") > 1)) == (
        "parquet 'a.parquet' (1 file): id where [(col(\"id\")) > (dyn int: 1)]"
    )
    assert scan("a.csv").describe(Pushdown(("id",), pl.col("id") > 1, 5)) == "csv 'a.csv' (1 file): id limit 5"


def test_a_column_that_is_not_asked_for_may_be_unreadable():
    write({"a.csv": "x,y\n1,abc\n"})

    assert read("a.csv", Pushdown(("x",)), dtypes={"y": "int"}).rows() == [(1,)]


# ------------------------------------------------------------------ errors


def cut(frame: pl.DataFrame, end: int) -> bytes:
    frame.write_parquet("whole")
    return Path("whole").read_bytes()[:end]


ERRORS = {
    "no such file": (
        {"orders.csv": "x\n"},
        {"path": "order.csv"},
        SourceMissingError,
        "there is no file 'order.csv'. Did you mean 'orders.csv'? Present: orders.csv.",
    ),
    "no such folder": (
        {},
        {"path": "in/a.csv"},
        SourceMissingError,
        "there is no folder 'in'. It was looked for in '<here>'.",
    ),
    "no match": (
        {"a.csv": "x\n"},
        {"path": ["a.csv", "b*.csv"]},
        SourceMissingError,
        "no file matches 'b*.csv'. It was looked for in '<here>'.",
    ),
    "a folder": ({"in/a.csv": "x\n"}, {"path": "in", "format": "csv"}, ExtractError, "'in' is a folder. Write 'in/*'."),
    "empty csv": (
        {"a.csv": " \n"},
        {"path": "a.csv"},
        SourceMissingError,
        "'a.csv' is empty, so no column is known. Declare them in 'dtypes'.",
    ),
    "empty json": (
        {"a.json": "[]"},
        {"path": "a.json"},
        SourceMissingError,
        "'a.json' has no rows, so no column is known. Declare them in 'dtypes'.",
    ),
    "empty parquet": (
        {"a.parquet": ""},
        {"path": "a.parquet"},
        ExtractError,
        "'a.parquet' is not a whole Parquet file: it is cut off, or of another format.",
    ),
    "row too long": (
        {"a.csv": 'x,y\n"1\n1",2\n3,4,5\n'},
        {"path": "a.csv"},
        ExtractError,
        "'a.csv' line 4: 3 fields, 2 wanted. Mend the record, or let it go to quarantine with on_malformed: quarantine.",
    ),
    "row too short": (
        {"a.csv": "x;y;z\n1;2;\n3;4\n"},
        {"path": "a.csv", "delimiter": ";"},
        ExtractError,
        "'a.csv' line 3: 2 fields, 3 wanted. Mend the record, or let it go to quarantine with on_malformed: quarantine.",
    ),
    "row too short beside a text of two lines": (
        {"a.csv": 'x,y\n1,"a\n,b"\n3\n'},
        {"path": "a.csv"},
        ExtractError,
        "'a.csv' line 4: 1 field, 2 wanted. Mend the record, or let it go to quarantine with on_malformed: quarantine.",
    ),
    "open quote": (
        {"a.csv": 'x,y\n1,2\n3,"4\n5,6\n'},
        {"path": "a.csv"},
        ExtractError,
        "'a.csv' line 3: a quote is not closed. Mend the record, or let it go to quarantine with on_malformed: quarantine.",
    ),
    "quote inside": (
        {"a.csv": 'x,y\n1,"a"b\n'},
        {"path": "a.csv"},
        ExtractError,
        "'a.csv' line 2: the quotes are broken. Mend the record, or let it go to quarantine with on_malformed: quarantine.",
    ),
    "lines of an old system": (
        {"a.csv": "x,y\r1,2\r3,4\r"},
        {"path": "a.csv"},
        ExtractError,
        "'a.csv' line 1: the lines of this file end with '\\r'. Set 'eol_char': \"\\r\".",
    ),
    "no name twice": (
        {"a.csv": "x,,\n1,2,3\n"},
        {"path": "a.csv"},
        ExtractError,
        "'a.csv' has two columns ''. Give one of them another name.",
    ),
    "same name twice": (
        {"a.csv": "x,x\n1,2\n"},
        {"path": "a.csv"},
        ExtractError,
        "'a.csv' has two columns 'x'. Give one of them another name.",
    ),
    "other encoding": (
        {"a.csv": "x\na\né\n".encode("latin-1")},
        {"path": "a.csv"},
        ExtractError,
        "'a.csv' line 3: the text is not UTF-8. Mend the record, or let it go to quarantine with on_malformed: quarantine.",
    ),
    "cut off gzip": (
        {"a.csv.gz": gzip.compress(b"x\n1\n")[:-9]},
        {"path": "a.csv.gz"},
        ExtractError,
        "'a.csv.gz' cannot be read: Compressed file ended before the end-of-stream marker was reached. Is it a whole file?",
    ),
    "columns differ": (
        {"1.csv": "x,y\n1,2\n", "2.csv": "x\n1\n"},
        {"path": "*.csv"},
        SourceMissingError,
        "'2.csv' has no column 'y', which '1.csv' has. Read them as two sources, or give them the same columns.",
    ),
    "columns differ, the other way": (
        {"1.csv": "x\n1\n", "2.csv": "x,y\n1,2\n"},
        {"path": "*.csv"},
        SourceMissingError,
        "'1.csv' has no column 'y', which '2.csv' has. Read them as two sources, or give them the same columns.",
    ),
    "columns of parquet differ": (
        {"1.parquet": pl.DataFrame({"x": [1]}), "2.parquet": pl.DataFrame({"y": [1]})},
        {"path": "*.parquet"},
        SourceMissingError,
        "'1.parquet' has no column 'y', which '2.parquet' has. Read them as two sources, or give them the same columns.",
    ),
    "types of parquet differ": (
        {"1.parquet": pl.DataFrame({"x": [1]}), "2.parquet": pl.DataFrame({"x": [1.5]})},
        {"path": "*.parquet"},
        SourceTypeError,
        "column 'x' is Int64 in '1.parquet' and Float64 in '2.parquet'. Write the files with one type, or read them as two sources.",
    ),
    "types of json differ": (
        {"1.ndjson": '{"x":1}\n', "2.ndjson": '{"x":"1"}\n'},
        {"path": "*.ndjson"},
        SourceTypeError,
        "'x' is Int64 in '1.ndjson' and String in '2.ndjson'. Declare its type in 'dtypes'.",
    ),
    "shapes of json differ": (
        {"a.ndjson": '{"x":1}\n{"x":{"y":1}}\n'},
        {"path": "a.ndjson"},
        SourceTypeError,
        "'a.ndjson' line 2: 'x' is an object here and a plain value before.",
    ),
    "not json": (
        {"a.ndjson": '{"x":1}\n\n{"x":}\n'},
        {"path": "a.ndjson"},
        ExtractError,
        "'a.ndjson' line 3: this is not JSON: Expecting value at character 6. Mend the record, or let it go to quarantine with on_malformed: quarantine.",
    ),
    "not a json array": (
        {"a.json": '[{"x":1},\n {"x":2}'},
        {"path": "a.json"},
        ExtractError,
        "'a.json' line 2: this is not JSON: Expecting ',' delimiter at character 9.",
    ),
    "no object in json": (
        {"a.json": "[1, 2]"},
        {"path": "a.json"},
        ExtractError,
        "'a.json' record 1: every record must be an object, and 1 is not one.",
    ),
    "number of json too large": (
        {"a.ndjson": '{"x":1}\n{"x":1e999}\n'},
        {"path": "a.ndjson"},
        ExtractError,
        "'a.ndjson' line 2: the number '1e999' is too large. Mend the record, or let it go to quarantine with on_malformed: quarantine.",
    ),
    "json value of another type": (
        {"a.ndjson": '{"x":"1"}\n\n{"x":"one"}\n'},
        {"path": "a.ndjson", "dtypes": {"x": "int"}},
        SourceTypeError,
        "'a.ndjson' line 3: column 'x': 'one' is not Int32. Mend the record, or let it go to quarantine with on_malformed: quarantine.",
    ),
    "json number that is not exact": (
        {"a.ndjson": '{"x":12345678901234567.25}\n'},
        {"path": "a.ndjson", "dtypes": {"x": "numeric(30, 2)"}},
        SourceTypeError,
        "'a.ndjson': column 'x' has numbers with more than 15 digits, which JSON readers do not keep. Write them as texts, or declare float.",
    ),
    "cut off parquet": (
        {"a.parquet": cut},
        {"path": "a.parquet"},
        ExtractError,
        "'a.parquet' is not a whole Parquet file: it is cut off, or of another format.",
    ),
    "no such column": (
        {"a.csv": "id,name\n1,a\n"},
        {"path": "a.csv", "columns": ["id", "nam"]},
        SourceMissingError,
        "no column 'nam'. Did you mean 'name'? Present: id, name.",
    ),
    "no such column in dtypes": (
        {"a.csv": "id,name\n1,a\n"},
        {"path": "a.csv", "dtypes": {"nam": "text"}},
        SourceMissingError,
        "no column 'nam', which 'dtypes' has. Did you mean 'name'? Present: id, name.",
    ),
}


@pytest.mark.parametrize(("files", "keys", "kind", "said"), ERRORS.values(), ids=ERRORS)
def test_an_error_names_the_file_and_the_place(files, keys, kind, said, folder):
    write({n: cut(pl.DataFrame({"x": range(100)}), -30) if content is cut else content for n, content in files.items()})
    broken = {} if keys["path"].__class__ is list or "parquet" in keys["path"] else {"on_malformed": "fail"}

    with pytest.raises(ExtractError) as caught:
        read(**broken | keys)

    assert str(caught.value).replace(str(folder), "<here>") == f"source 'orders': {said}"
    assert type(caught.value) is kind
    assert caught.value.source == "orders"
    assert not caught.value.retryable


@contextmanager
def somebody_else() -> Iterator[None]:
    """Not root: root may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_file_that_may_not_be_read(folder):
    write({"a.csv": "x\n1\n"})
    Path("a.csv").chmod(0)
    for parent in takewhile(lambda each: each != Path(tempfile.gettempdir()), (folder, *folder.parents)):
        parent.chmod(0o755)

    with somebody_else(), pytest.raises(SourcePermissionError) as caught:
        scan("a.csv")

    assert str(caught.value) == "source 'orders': 'a.csv' may not be read. Grant it, or use another user."


def test_a_file_that_goes_away_between_scan_and_read():
    write({"a.csv": "x\n1\n", "b.parquet": pl.DataFrame({"x": [1]})})
    extracts = [scan("a.csv"), scan("b.parquet")]
    Path("a.csv").unlink()
    Path("b.parquet").unlink()

    for extract, name in zip(extracts, ["a.csv", "b.parquet"], strict=True):
        with pytest.raises(SourceMissingError, match=rf"source 'orders': there is no file '{name}' any more\."):
            list(extract.read(Pushdown()))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"path": ["a.csv", "https://user:pw@host/a.csv"]}, "a password stands in the URL. Put 'username' and 'password' into 'storage_options'."),
        ({"path": "s3://bucket/a.csv", "storage_options": {"kye": "x"}}, "'kye' is not a storage option of 's3://'. Did you mean 'key'? Known: anon, aws_access_key_id, aws_endpoint_url, aws_region, aws_secret_access_key, aws_session_token, aws_skip_signature, endpoint_url, key, region, secret, token."),
        ({"path": "a.csv", "storage_options": {"key": "x"}}, "'key' is not a storage option of 'file://'. It takes none."),
        ({"path": "a.csv", "encoding": "klingon"}, "'klingon' is no encoding of texts. Known are utf8, utf8-lossy, latin-1, cp1252, ..."),
        ({"path": "a.csv", "decimal_comma": True}, "with 'decimal_comma' the 'delimiter' cannot be ',' as well. Set it: ';'."),
        ({"path": "a.csv", "escape_char": "\\", "quote_char": None}, "'escape_char' needs a 'quote_char'. Give one."),
        ({"path": "a.csv", "escape_char": ","}, "'escape_char' is ',', which means something else already. Remove it."),
        ({"path": "a.csv", "sheet": 2}, "'sheet' belongs to format excel, and this is csv. Remove it."),
        ({"path": "a.parquet", "on_malformed": "fail"}, "'on_malformed' belongs to format csv, ndjson, json, excel, and this is parquet. Remove it."),
        ({"path": "t", "format": "delta", "only_new": True}, "'only_new' is for files, and delta is a table. Remove it."),
        ({"path": ["t", "u"], "format": "delta"}, "a table of format delta is one folder, of this machine or on S3."),
        ({"path": "https://h/t", "format": "iceberg"}, "a table of format iceberg is one folder, of this machine or on S3."),
        ({"path": "t", "format": "iceberg", "version": "2024-01-01T00:00:00"}, "'version' of an Iceberg table is the number of a snapshot."),
        ({"path": "data/*"}, "the suffix of 'path' tells no single format. Set 'format': csv, ndjson, json, parquet, ipc, avro, excel, delta, iceberg."),
        ({"path": ["a.csv", "a.json"]}, "the suffix of 'path' tells no single format. Set 'format': csv, ndjson, json, parquet, ipc, avro, excel, delta, iceberg."),
        ({"path": "a.json", "delimiter": ";"}, "'delimiter' belongs to format csv, and this is json. Remove it."),
        ({"path": "a.parquet", "has_header": True}, "'has_header' belongs to format csv, excel, and this is parquet. Remove it."),
        ({"path": "a.pq", "dtypes": {"x": "int"}}, "a parquet file brings its types. Remove 'dtypes', and cast with a 'map' step."),
        ({"path": "a.csv", "dtypes": {"x": "bytea"}}, "a text cannot be read as Binary. Read it as text, and calculate it in a step."),
        ({"path": "a.csv", "delimiter": ";;"}, "';;' is not one ASCII character."),
        ({"path": "a.csv", "delimiter": '"'}, "'delimiter' and 'quote_char' are both '\"'. Change one of them."),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_work_is_refused_before_a_file_is_touched(keys, said):
    with pytest.raises(ValidationError) as caught:
        File.model_validate({"type": "file", **keys})

    assert f"Value error, {said}" in [error["msg"] for error in caught.value.errors()]
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "CSV", "ndjson", "jsonl", "json", "parquet", "pq"])
def test_the_suffix_tells_the_format(suffix):
    kind = {"csv": "csv", "gz": "csv", "CSV": "csv", "jsonl": "ndjson", "pq": "parquet"}.get(
        suffix.split(".")[-1], suffix
    )

    assert File.model_validate({"path": f"a.b/*.{suffix}"}).kind == kind
