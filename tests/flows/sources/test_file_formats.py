"""Formats that are no text: Arrow, Avro, Excel, and tables of Delta Lake and Iceberg."""

# ruff: noqa: E501 - parts of a workbook stand on their line

from __future__ import annotations

import datetime as dt
import json
import zipfile
from decimal import Decimal
from pathlib import Path
from xml.sax.saxutils import escape

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from flows._errors import ExtractError, SourceMissingError, SourceTypeError
from flows.sources._base import Extract, Malformed, Pushdown
from flows.sources.file import File


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scan(path: str | list[str], **keys: object) -> Extract:
    return File.model_validate({"type": "file", "path": path, **keys}).scan("orders")


def read(extract: Extract, ask: Pushdown = Pushdown()) -> pl.DataFrame:  # noqa: B008 - frozen
    names = ask.columns if ask.columns is not None else tuple(extract.schema)
    empty = pl.DataFrame(schema={name: extract.schema[name] for name in names})
    return pl.concat([empty, *extract.read(ask)])


FRAME = pl.DataFrame(
    {
        "id": [1, 2, 3],
        "Größe ☃": ["a", None, "ü"],
        "at": [dt.datetime(2024, 1, 1, 12, 30), None, dt.datetime(1999, 12, 31)],
        "real": [1.5, float("nan"), float("-inf")],
        "nothing": pl.Series([None, None, None], dtype=pl.Float64),
        "n" * 300: [True, False, None],
    }
)


@pytest.mark.parametrize("name", ["a.ipc", "a.arrow", "a.feather", "a.avro", "stream.arrow"])
def test_a_frame_comes_back_as_it_was(name):
    if name == "a.avro":
        FRAME.write_avro(name)
    elif name.startswith("stream"):
        FRAME.write_ipc_stream(name)
    else:
        FRAME.write_ipc(name, compression="zstd")
    extract = scan(name)

    assert_frame_equal(read(extract), FRAME)
    assert_frame_equal(read(extract, Pushdown(("real", "id"), None, 2)), FRAME.select("real", "id").head(2))
    assert_frame_equal(extract.frame.filter(pl.col("id") > 1).collect(), FRAME.filter(pl.col("id") > 1))


@pytest.mark.parametrize("suffix", ["parquet", "ipc", "stream.arrow"])
def test_a_column_without_a_value_has_the_type_that_it_has_in_other_files(suffix):
    nothing = pl.DataFrame({"id": [1], "name": [None], "tags": [[]], "at": [{"x": None}], "never": [None]})
    filled = pl.DataFrame({"id": [2], "name": ["a"], "tags": [["t"]], "at": [{"x": 1}], "never": [None]})
    for number, frame in enumerate([nothing, filled, nothing], start=1):
        written = {"parquet": frame.write_parquet, "ipc": frame.write_ipc, "stream.arrow": frame.write_ipc_stream}
        written[suffix](f"{number}.{suffix}")

    extract = scan(f"*.{suffix}")

    assert dict(extract.schema) == {
        "id": pl.Int64(), "name": pl.String(), "tags": pl.List(pl.String()), "at": pl.Struct({"x": pl.Int64()}), "never": pl.String(),
    }  # fmt: skip
    rows = [(1, None, [], {"x": None}, None), (2, "a", ["t"], {"x": 1}, None), (1, None, [], {"x": None}, None)]
    assert read(extract).rows() == rows
    assert read(extract, Pushdown(("never", "name"))).rows() == [(None, None), (None, "a"), (None, None)]
    assert extract.frame.filter(pl.col("name") == "a").collect().rows() == rows[1:2]
    assert extract.frame.filter(pl.col("name").is_null()).collect().height == 2
    assert scan(f"1.{suffix}").schema["name"] == pl.String()


@pytest.mark.parametrize("suffix", ["parquet", "ipc"])
def test_columns_that_are_of_other_types_are_still_told(suffix):
    for number, value in enumerate([None, 1, "x"], start=1):
        frame = pl.DataFrame({"a": [value]})
        (frame.write_parquet if suffix == "parquet" else frame.write_ipc)(f"{number}.{suffix}")

    with pytest.raises(SourceTypeError) as caught:
        scan(f"*.{suffix}")

    assert f"column 'a' is Int64 in '2.{suffix}' and String in '3.{suffix}'." in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.ipc", "'a.ipc' is not a whole Arrow file: it is cut off, or of another format."),
        ("a.avro", "'a.avro' is not an Avro file."),
        ("a.xlsx", "'a.xlsx' is not an Excel workbook, or not a whole one."),
    ],
)
def test_a_file_of_another_format_is_told(name, said):
    Path(name).write_bytes(b"ARROW1 and nothing else" if name == "a.ipc" else b"a,b\n1,2\n")

    with pytest.raises(ExtractError) as caught:
        read(scan(name))

    assert str(caught.value) == f"source 'orders': {said}"


# ------------------------------------------------------------------ Excel


def workbook(name: str, sheets: dict[str, list[list[object]]]) -> None:
    """The smallest workbook that Excel would open."""
    kinds = "http://schemas.openxmlformats.org"
    with zipfile.ZipFile(name, "w") as book:
        book.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{kinds}/package/2006/content-types"><Default Extension="rels" ContentType='
            '"application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" ContentType='
            '"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/></Types>',
        )
        office = f"{kinds}/officeDocument/2006/relationships"
        relations = f'<Relationships xmlns="{kinds}/package/2006/relationships">'
        book.writestr(
            "_rels/.rels",
            f'{relations}<Relationship Id="r1" Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        main = f"{kinds}/spreadsheetml/2006/main"
        named = "".join(f'<sheet name="{n}" sheetId="{i}" r:id="r{i}"/>' for i, n in enumerate(sheets, start=1))
        book.writestr(
            "xl/workbook.xml", f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>{named}</sheets></workbook>'
        )
        links = "".join(
            f'<Relationship Id="r{i}" Type="{office}/worksheet" Target="worksheets/sheet{i}.xml"/>'
            for i in range(1, len(sheets) + 1)
        )
        book.writestr("xl/_rels/workbook.xml.rels", f"{relations}{links}</Relationships>")
        for number, rows in enumerate(sheets.values(), start=1):
            lines = "".join(
                f'<row r="{r}">{"".join(cell(f"{chr(65 + c)}{r}", value) for c, value in enumerate(row))}</row>'
                for r, row in enumerate(rows, start=1)
            )
            book.writestr(
                f"xl/worksheets/sheet{number}.xml",
                f'<worksheet xmlns="{main}"><sheetData>{lines}</sheetData></worksheet>',
            )


def cell(place: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f'<c r="{place}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'
    return f'<c r="{place}"><v>{value}</v></c>'


SHEETS = {
    "first": [["id", "name", "price"], [1, "Ada", 1.5], [2, None, 2.25], [3, "<☃>", 7]],
    "second": [["id"], [10]],
}


def test_a_sheet_is_read_by_name_or_number():
    workbook("a.xlsx", SHEETS)

    assert read(scan("a.xlsx")).rows() == [(1, "Ada", 1.5), (2, None, 2.25), (3, "<☃>", 7.0)]
    assert read(scan("a.xlsx", sheet=2)).rows() == read(scan("a.xlsx", sheet="second")).rows() == [(10,)]
    assert read(scan("a.xlsx"), Pushdown(("price",))).rows() == [(1.5,), (2.25,), (7.0,)]


def test_declared_types_of_a_sheet_are_exact_and_a_cell_of_another_type_is_told():
    workbook("a.xlsx", {"s": [["id", "price"], [1, "1.50"], [2, "n/a"], [3, 2.25]]})

    batches = list(scan("a.xlsx", dtypes={"id": "bigint", "price": "numeric(9, 2)"}).read(Pushdown()))

    rows = [row for batch in batches if isinstance(batch, pl.DataFrame) for row in batch.rows()]
    assert rows == [(1, Decimal("1.50")), (3, Decimal("2.25"))]
    (broken,) = [batch for batch in batches if isinstance(batch, Malformed)]
    assert json.loads(broken.values[0]) == {"file": "a.xlsx", "record": 2, "text": '{"id":"2","price":"n/a"}'}
    assert broken.reasons.to_list() == ["malformed: column 'price': 'n/a' is not Decimal(precision=9, scale=2)"]


def test_a_column_that_is_empty_in_one_workbook_has_the_type_of_the_other():
    workbook("1.xlsx", {"s": [["id", "x"], [1, None]]})
    workbook("2.xlsx", {"s": [["id", "x"], [2, 7]]})
    workbook("3.xlsx", {"s": [["id", "x"], [3, 2.5]]})

    assert read(scan("*.xlsx")).rows() == [(1, None), (2, 7.0), (3, 2.5)]


def test_an_empty_sheet_has_no_rows_and_its_columns_are_those_declared_or_of_others():
    workbook("1.xlsx", {"first": []})
    workbook("2.xlsx", {"first": [["id"], [1]]})

    assert_frame_equal(read(scan("1.xlsx", dtypes={"id": "bigint"})), pl.DataFrame(schema={"id": pl.Int64}))
    assert read(scan("*.xlsx")).rows() == [(1,)]
    with pytest.raises(SourceMissingError) as caught:
        scan("1.xlsx")
    said = "the sheet of '1.xlsx' is empty, so no column is known. Declare them in 'dtypes'."
    assert str(caught.value) == f"source 'orders': {said}"


@pytest.mark.parametrize(
    ("sheet", "said"),
    [
        ("frist", "'a.xlsx' has no sheet 'frist'. Did you mean 'first'? Present: first, second."),
        (3, "'a.xlsx' has 2 sheets, and none 3."),
    ],
)
def test_a_sheet_that_is_not_there(sheet, said):
    workbook("a.xlsx", SHEETS)

    with pytest.raises(SourceMissingError) as caught:
        scan("a.xlsx", sheet=sheet)

    assert str(caught.value) == f"source 'orders': {said}"


# ------------------------------------------------------------------ tables


def test_a_delta_table_is_read_at_one_version():
    deltalake = pytest.importorskip("deltalake")
    FRAME.select("id", "real").write_delta("t")
    first = scan("t", format="delta")
    moment = dt.datetime.fromtimestamp(deltalake.DeltaTable("t").history()[0]["timestamp"] / 1000, dt.UTC)
    pl.DataFrame({"id": [9], "real": [0.5]}).write_delta("t", mode="append")

    assert read(first)["id"].to_list() == [1, 2, 3]
    assert sorted(read(scan("t", format="delta"))["id"]) == [1, 2, 3, 9]
    assert read(scan("t", format="delta", version=0))["id"].to_list() == [1, 2, 3]
    assert read(scan("t", format="delta", version=moment.isoformat()))["id"].to_list() == [1, 2, 3]
    ask = Pushdown(("real",), pl.col("id") == 9)
    assert first.pushed(ask) == '[(col("id")) == (dyn int: 9)]'
    assert scan("t", format="delta").frame.filter(pl.col("id") == 9).select("real").collect().rows() == [(0.5,)]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"path": "nowhere"}, "'nowhere' is no Delta table: it has no '_delta_log'."),
        ({"path": "t", "version": 7}, "'t' cannot be read: "),
    ],
)
def test_a_delta_table_that_is_not_there(keys, said):
    pytest.importorskip("deltalake")
    FRAME.select("id").write_delta("t")

    with pytest.raises(ExtractError) as caught:
        scan(**keys, format="delta")

    assert str(caught.value).startswith(f"source 'orders': {said}")
    assert "\n" not in str(caught.value)


@pytest.fixture
def iceberg(folder):
    """A table with two snapshots: ids 1 to 3, and 9."""
    pytest.importorskip("pyiceberg")
    from pyiceberg.catalog.sql import SqlCatalog  # noqa: PLC0415 - slow to import

    catalog = SqlCatalog("c", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
    catalog.create_namespace("n")
    rows = FRAME.select("id", "real").to_arrow()
    table = catalog.create_table("n.t", schema=rows.schema)
    table.append(rows)
    table.append(pl.DataFrame({"id": [9], "real": [0.5]}).to_arrow())
    yield table
    catalog.close()


def test_an_iceberg_table_is_read_at_one_snapshot(iceberg):
    place = iceberg.location().removeprefix("file://")
    first = iceberg.snapshots()[0].snapshot_id

    for path in (place, iceberg.metadata_location.removeprefix("file://")):
        assert sorted(read(scan(path, format="iceberg"))["id"]) == [1, 2, 3, 9]
    assert sorted(read(scan(place, format="iceberg", version=first))["id"]) == [1, 2, 3]
    frame = scan(place, format="iceberg").frame
    assert frame.filter(pl.col("id") > 2).select("real").sort("real").collect().rows() == [(float("-inf"),), (0.5,)]


def test_an_iceberg_table_or_snapshot_that_is_not_there(iceberg):
    Path("empty").mkdir()

    with pytest.raises(SourceMissingError) as caught:
        scan("empty", format="iceberg")
    assert str(caught.value) == ("source 'orders': 'empty' is no Iceberg table: it has no 'metadata/*.metadata.json'.")
    with pytest.raises(SourceMissingError, match=r"has no snapshot 7\. Present: \["):
        scan(iceberg.location().removeprefix("file://"), format="iceberg", version=7)
