"""What an API's records become, where its pages are kept, and how its children are found."""

import datetime as dt
import json
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path

import polars as pl
import psycopg
import pytest
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from flows import _stages, pipeline
from flows._config import load
from flows._errors import ConfigError, ExtractError, SourceMissingError, SourceTypeError, SourceUnreachableError
from flows.sources._base import Context, Extract, Pushdown, sources

NUMBERED = {"type": "page_number"}


def api(web, path="/items", **keys):
    quick = {"max_retries": 0, "retry_delay_seconds": 0.01, "pagination": NUMBERED}
    return sources.get("api").model_validate({"type": "api", "url": f"{web.url}{path}"} | quick | keys)


def rows(extract: Extract, ask: Pushdown | None = None) -> pl.DataFrame:
    columns = ask.columns if ask and ask.columns is not None else tuple(extract.schema)
    empty = pl.DataFrame(schema={name: extract.schema[name] for name in columns})
    return pl.concat([empty, *extract.read(ask or Pushdown())])


def read(source, **context) -> pl.DataFrame:
    return rows(source.scan("items", Context(**context)))


def failure(source, kind=ExtractError, **context) -> str:
    with pytest.raises(kind) as caught:
        read(source, **context)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- records and their columns ---


@pytest.mark.parametrize(
    ("selector", "body"),
    [
        (None, [{"id": 1}, {"id": 2}]),
        (None, {"count": 2, "odd key": [{"id": 1}, {"id": 2}]}),
        ("data.items", {"data": {"items": [{"id": 1}, {"id": 2}]}, "others": []}),
        ("$.data.items[*]", {"data": {"items": [{"id": 1}, {"id": 2}]}}),
        ("data[*].items[*]", {"data": [{"items": [{"id": 1}]}, {"items": []}, {"items": [{"id": 2}]}]}),
        ("$..item", {"a": {"item": {"id": 1}}, "b": {"item": {"id": 2}}}),
        ("['odd.key']", {"odd.key": [{"id": 1}, {"id": 2}]}),
        ("_embedded.items", {"_embedded": {"items": [{"id": 1}, {"id": 2}]}}),
        ("$.items[?@.id < 3]", {"items": [{"id": 1}, {"id": 2}, {"id": 3}]}),
    ],
)
def test_records_are_found(web, selector, body):
    web.answers["/items"] = lambda _: body

    assert read(api(web, data_selector=selector, pagination={"type": "single_page"})).rows() == [(1,), (2,)]


def test_the_answer_itself_can_be_the_record(web):
    web.answers["/items"] = lambda _: {"id": 1, "tags": ["a"]}

    assert read(api(web, data_selector="$", pagination={"type": "single_page"})).rows() == [(1, ["a"])]


@pytest.mark.parametrize(
    ("selector", "body", "said"),
    [
        (
            "itms",
            {"items": [], "total": 0},
            "'data_selector' 'itms' finds nothing; the answer has the keys 'items', 'total'.",
        ),
        ("items", [], "'data_selector' 'items' finds nothing; the answer has a list."),
        (None, {"a": [], "b": []}, "the answer holds several lists: $['a'], $['b']. Name their JSONPath"),
        (None, {"data": {"items": []}}, "the answer holds no list but $['data']['items']. Name their JSONPath"),
        (
            None,
            {"id": 1},
            "the answer holds no list. Name their JSONPath in 'data_selector'; '$' is the answer itself.",
        ),
        (None, "text", "the answer holds no list. Name"),
        ("items", {"items": [{"id": 1}, 5]}, "record 2 is a number, and not an object. Select objects with"),
        (None, [None], "record 1 is null, and not an object."),
    ],
)
def test_records_that_are_not_found_are_an_error(web, selector, body, said):
    web.answers["/items"] = lambda _: body

    with pytest.raises(ExtractError) as caught:
        read(api(web, data_selector=selector))

    assert str(caught.value).startswith(f"source 'items': GET {web.url}/items?page=***: ")
    assert said in str(caught.value)


def test_a_later_page_without_the_list_is_an_error_and_not_the_end(web):
    web.answers["/items"] = lambda asked: {"items": [{"id": 1}]} if asked.query["page"] == "0" else {"error": "oh"}

    assert "'data_selector' 'items' finds nothing; the answer has the keys 'error'." in failure(
        api(web, data_selector="items"), SourceMissingError
    )


def test_the_columns_are_those_of_all_pages(web):
    pages = [[{"id": number, "inner": {"a": number}, "code": number}] for number in range(50)]
    pages[40] = [{"id": 40, "late": "here", "inner": {"a": 1, "b": {"c": [1.5]}}, "code": "x40"}]
    web.pages("/items", *pages)

    frame = read(api(web))

    assert frame.schema == {
        "id": pl.Int64, "inner": pl.Struct({"a": pl.Int64, "b": pl.Struct({"c": pl.List(pl.Float64)})}),
        "code": pl.String, "late": pl.String,
    }  # fmt: skip
    assert frame.height == 50
    assert frame["id"].to_list() == list(range(50))
    assert frame["late"].drop_nulls().to_list() == ["here"]
    assert frame["code"].to_list() == [*map(str, range(40)), "x40", *map(str, range(41, 50))]


def test_objects_that_never_have_a_field_are_texts_because_no_target_has_such_a_type(web):
    web.pages("/orders", [{"id": 1, "m": {}, "s": {"in": {}, "no": None}}], [{"id": 2, "m": {}, "l": [{}]}])
    source = sources.get("api").model_validate({"type": "api", "url": f"{web.url}/orders", "pagination": NUMBERED})

    frame = rows(source.scan("orders"))

    assert frame.rows() == [(1, "{}", {"in": "{}", "no": None}, None), (2, "{}", None, ["{}"])]
    assert frame.schema["s"] == pl.Struct({"in": pl.String, "no": pl.String})


def test_a_key_of_any_shape_can_be_declared_as_text(web):
    web.pages("/orders", [{"meta": {"x": 1}, "n": 1}], [{"meta": [], "n": 2.5}], [{"meta": "t"}, {"meta": None}])
    keys = {"type": "api", "url": f"{web.url}/orders", "pagination": NUMBERED}

    frame = rows(sources.get("api").model_validate(keys | {"dtypes": {"meta": "text"}}).scan("orders"))

    assert frame.rows() == [('{"x": 1}', 1.0), ("[]", 2.5), ("t", None), (None, None)]
    with pytest.raises(SourceTypeError, match="column 'meta' is a list in page 2 record 1, and an object in page 1"):
        sources.get("api").model_validate(keys).scan("orders")


def test_the_columns_do_not_depend_on_how_records_are_paged(web):
    records = [{"a": 1}, {"b": "x", "a": 2.5}, {"c": [], "d": None}, {"c": [{"x": 1}]}, {"c": [{"y": "z"}], "a": None}]
    web.answers["/items"] = lambda asked: records[int(asked.query["offset"]) :][: int(asked.query["limit"])]
    frames = [read(api(web, pagination={"type": "offset", "limit": limit})) for limit in (1, 2, 3, 5)]

    for frame in frames:
        assert_frame_equal(frame, frames[0])
    assert frames[0].schema == {
        "a": pl.Float64, "b": pl.String, "c": pl.List(pl.Struct({"x": pl.Int64, "y": pl.String})), "d": pl.String,
    }  # fmt: skip


def test_values_survive(web):
    record = {
        "large": 2**62, "larger": 2**70, "text": "größe ☃ \U0001f600 \x00 \"'\\\n", "ok": True, "nothing": None,
        "list": [], "ünï ☃": 1, "a.b": {"c d": [1, None]},
    }  # fmt: skip
    web.answers["/items"] = lambda _: [record]
    frame = read(api(web, pagination={"type": "single_page"}))

    assert frame.row(0, named=True) == record
    assert frame.schema["nothing"] == pl.String
    assert frame.schema["list"] == pl.List(pl.String)


def test_declared_types_are_exact(web):
    web.answers["/items"] = lambda _: (
        b'[{"d": 0.12345678901234567, "n": 1.10, "day": "2026-01-31", "at": "2026-01-31T10:00:00+02:00", "f": 0.1,'
        b' "code": 7, "whole": {"a": 1}}, {"d": "2.5", "n": 3, "code": "007", "inner": 1.5}]'
    )
    dtypes = {"d": "numeric(20, 17)", "n": "numeric(5, 2)", "day": "date", "at": "timestamptz", "code": "text",
              "whole": "text", "missing": "bigint"}  # fmt: skip
    frame = read(api(web, dtypes=dtypes, pagination={"type": "single_page"}))

    assert frame["d"].to_list() == [Decimal("0.12345678901234567"), Decimal("2.50000000000000000")]
    assert frame["n"].to_list() == [Decimal("1.10"), Decimal("3.00")]
    assert frame["day"][0] == dt.date(2026, 1, 31)
    assert frame["at"][0] == dt.datetime(2026, 1, 31, 8, tzinfo=dt.UTC)
    assert frame["code"].to_list() == ["7", "007"]
    assert json.loads(frame["whole"][0]) == {"a": 1}
    assert frame["f"].to_list() == [0.1, None]
    assert frame["inner"].to_list() == [None, 1.5]
    assert frame["missing"].to_list() == [None, None]


def test_a_value_that_does_not_fit_is_named_with_its_page(web):
    web.pages("/items", [{"n": 1}, {"n": 2}], [{"n": 3}, {"n": "four"}])

    assert failure(api(web, dtypes={"n": "bigint"}), SourceTypeError) == (
        "source 'items': page 2 record 2: column 'n': 'four' is not Int64. Declare another type in 'dtypes'."
    )


def test_values_that_do_not_agree_are_named_with_their_pages(web):
    web.pages("/items", [{"n": 1}, {"n": 2}], [{"n": 3}, {"n": True}])

    assert failure(api(web), SourceTypeError) == (
        "source 'items': column 'n' is true or false in page 2 record 2, and a number in page 1 record 1. "
        "Declare its type in 'dtypes': text fits all."
    )
    assert read(api(web, dtypes={"n": "text"}))["n"].to_list() == ["1", "2", "3", "true"]


def test_a_key_without_a_name_is_refused(web):
    web.answers["/items"] = lambda _: [{"": 1}]

    assert "a record has a key without a name" in failure(api(web), SourceTypeError)


@pytest.mark.parametrize("body", [b'[{"t": "\\ud800"}]', b'[{"t": 1e999}]'])
def test_what_is_no_text_or_number_is_refused(web, body):
    web.answers["/items"] = lambda _: body

    assert "a record holds what is no text or number" in failure(api(web), SourceTypeError)


def test_no_records_need_declared_columns(web):
    web.answers["/items"] = lambda _: []

    assert failure(api(web), SourceMissingError) == (
        "source 'items': no page has a record, so no column is known. Declare them in 'dtypes'."
    )
    frame = read(api(web, dtypes={"id": "bigint", "name": "text"}))
    assert frame.is_empty()
    assert frame.schema == {"id": pl.Int64, "name": pl.String}


def test_an_answer_without_a_body_is_a_page_without_records(web):
    web.answers["/items"] = lambda _: web.reply(b"", 204)

    assert read(api(web, dtypes={"id": "bigint"})).is_empty()


def test_only_what_is_asked_for_is_read(web):
    web.pages("/items", *([{"id": number, "name": "x", "at": number}] for number in range(5)))
    extract = api(web, columns=["name", "id"]).scan("items")

    assert extract.delivers == ("name", "id")
    assert rows(extract, Pushdown(("id",), limit=3)).rows() == [(0,), (1,), (2,)]
    assert extract.describe(Pushdown(("id",), None, 3)) == f"api GET '{web.url}/items' (6 pages): id limit 3"
    assert extract.frame.filter(pl.col("id") > 2).select("at").collect()["at"].to_list() == [3, 4]


# --- landing ---


def test_pages_land_before_they_are_read_and_reading_twice_asks_once(web, tmp_path):
    web.pages("/items", *([{"id": number}] for number in range(5)))
    extract = api(web).scan("items", Context(tmp_path))
    asked = len(web.asked)

    assert_frame_equal(rows(extract), rows(extract))
    assert len(web.asked) == asked
    landed = pl.read_parquet(tmp_path / "pages" / "*.parquet")
    found = sorted((json.loads(body) for body in landed["body"]), key=str)
    assert [page for page in found if page] == [[{"id": number}] for number in range(5)]
    assert (tmp_path / "pages").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_retry_goes_on_after_the_last_page(web, tmp_path, at_once):
    web.pages("/items", *([{"id": number}] for number in range(8)))
    whole = web.answers["/items"]
    web.answers["/items"] = lambda asked: whole(asked) if int(asked.query["page"]) < 5 else web.reply({}, 503)
    source = api(web, concurrency=at_once)

    failure(source, SourceUnreachableError, folder=tmp_path)
    assert set(web.numbers[:5]) == set("01234")
    web.asked.clear()
    web.answers["/items"] = whole
    frame = read(source, folder=tmp_path)

    assert frame["id"].to_list() == list(range(8))
    assert web.numbers[:4] == ["5", "6", "7", "8"]
    web.asked.clear()
    assert_frame_equal(read(source, folder=tmp_path), frame)
    assert not web.asked


def test_a_retry_follows_the_links_that_landed(web, tmp_path):
    def answer(asked):
        number = int(asked.query.get("cursor", 0))
        headers = {"X-Next": str(number + 1)} if number < 4 else {}
        return web.reply([{"id": number}], headers=headers) if number < limit else web.reply({}, 503)

    limit = 3
    web.answers["/items"] = answer
    source = api(web, pagination={"type": "header_cursor", "cursor_key": "X-Next"})
    failure(source, SourceUnreachableError, folder=tmp_path)
    limit = 9
    web.asked.clear()

    assert read(source, folder=tmp_path)["id"].to_list() == [0, 1, 2, 3, 4]
    assert [asked.query["cursor"] for asked in web.asked] == ["3", "4"]


def test_what_is_ignored_lands_too(web, tmp_path):
    web.answers["/items"] = lambda _: web.reply({}, 404)
    source = api(web, response_actions=[{"status": 404, "action": "ignore"}], dtypes={"id": "bigint"}, concurrency=1)

    assert read(source, folder=tmp_path).is_empty()
    web.asked.clear()
    assert read(source, folder=tmp_path).is_empty()
    assert not web.asked


def test_pages_stay_in_their_folder_and_can_be_replayed_without_the_api(web, tmp_path):
    web.pages("/items", [{"n": "1"}], [{"n": "x"}])
    kept = tmp_path / "landed"
    keys = {"landing_folder": str(kept), "authentication": {"type": "bearer", "token": "hushhush-token"}}
    context = {"folder": tmp_path / "run", "run_id": "run-1"}
    failure(api(web, dtypes={"n": "bigint"}, **keys), SourceTypeError, **context)
    assert sorted(file.relative_to(kept).as_posix() for file in kept.rglob("*.parquet")) == [
        "run-1/items/pages-000001.parquet"
    ]
    assert b"hushhush" not in b"".join(file.read_bytes() for file in kept.rglob("*.parquet"))
    web.asked.clear()

    for folder in (kept / "run-1", kept / "run-1" / "items"):
        assert read(api(web, dtypes={"n": "text"}, replay=str(folder)))["n"].to_list() == ["1", "x"]
    assert not web.asked


def test_a_replay_never_delivers_a_part(web, tmp_path):
    web.pages("/items", *([{"id": number}] for number in range(4)))
    whole = web.answers["/items"]
    web.answers["/items"] = lambda asked: whole(asked) if int(asked.query["page"]) < 2 else web.reply({}, 503)
    failure(api(web), SourceUnreachableError, folder=tmp_path)
    web.answers["/items"] = whole
    web.asked.clear()

    said = failure(api(web, replay=str(tmp_path / "pages")), SourceMissingError)

    assert said == (
        f"source 'items': GET {web.url}/items?page=*** is not among the pages in '{tmp_path}/pages', which 'replay' "
        "names. Replay a run that landed all of them with this 'url', 'parameters' and 'pagination', or ask the API "
        "again."
    )
    assert not web.asked
    assert "no pages are there" in failure(api(web, replay=str(tmp_path / "nowhere")))
    assert not (tmp_path / "nowhere").exists()


def test_a_look_keeps_nothing(web, tmp_path):
    web.pages("/items", [{"id": 1}])
    kept = tmp_path / "landed"

    read(api(web, landing_folder=str(kept)), sample=True, run_id="run-1")

    assert not kept.exists()


def test_a_disk_that_is_full_is_an_error(web, tmp_path):
    web.pages("/items", [{"id": 1}])
    (tmp_path / "pages").write_text("a file where a folder should be")

    assert failure(api(web), folder=tmp_path) == (
        f"source 'items': pages at '{tmp_path}/pages': File exists. Check the disk."
    )


def test_nothing_is_left_of_a_scan_outside_a_run(web, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    web.pages("/items", [{"id": 1}])
    extract = api(web).scan("items")
    assert list(tmp_path.iterdir())

    del extract

    assert not list(tmp_path.iterdir())
    with pytest.raises(ExtractError):
        api(web, "/nowhere").scan("items")
    assert not list(tmp_path.iterdir())


def test_a_scan_ends_its_threads_and_connections(web):
    web.pages("/items", *([{"id": number}] for number in range(5)))
    before = {thread for thread in threading.enumerate() if thread.name == "lockgate-api"}

    read(api(web))
    failure(api(web, "/nowhere"), SourceMissingError)

    assert {thread for thread in threading.enumerate() if thread.name == "lockgate-api"} == before


def test_an_interrupt_ends_the_calls_and_keeps_what_landed(web, tmp_path, monkeypatch):
    held = threading.Event()
    asked_for_two = threading.Event()

    def answer(asked):
        if asked.query["page"] == "2":
            asked_for_two.set()
            held.wait(10)
        return [{"id": int(asked.query["page"])}]

    web.answers["/items"] = answer
    join = threading.Thread.join

    def interrupted(thread, timeout=None):
        if thread.name == "lockgate-api" and asked_for_two.is_set() and not held.is_set():
            held.set()
            raise KeyboardInterrupt
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read(api(web, concurrency=1), folder=tmp_path)

    landed = pl.read_parquet(tmp_path / "pages" / "*.parquet")
    assert [json.loads(body) for body in landed["body"]] == [[{"id": 0}], [{"id": 1}]]


# --- children ---


def parents(frame: pl.DataFrame) -> Context:
    def other(name: str) -> Extract:
        assert name == "orders"
        return Extract("orders", frame.schema, lambda _ask: iter([frame]), lambda _ask: "")

    return Context(others=other)


def children(web, **keys):
    each = {"source": "orders", "column": "id"} | keys.pop("for_each", {})
    keys = {"pagination": {"type": "single_page"}} | keys
    return api(web, keys.pop("path", "/orders/{id}/items"), for_each=each, **keys)


def read_children(source, values) -> pl.DataFrame:
    frame = values if isinstance(values, pl.DataFrame) else pl.DataFrame({"id": values})
    return rows(source.scan("items", parents(frame)))


@pytest.mark.parametrize("at_once", [1, 4])
def test_every_parent_is_asked_for_its_children_in_order(web, at_once):
    for number in range(10):
        web.answers[f"/orders/{number}/items"] = lambda asked, n=number: (
            [{"item": f"{n}-{asked.query['page']}"}] if int(asked.query["page"]) < n else []
        )
    source = children(web, pagination=NUMBERED, concurrency=at_once)

    frame = read_children(source, [3, None, 1, 0, 3, 2, 9])

    assert frame.schema == {"orders_id": pl.Int64, "item": pl.String}
    assert frame.rows() == [(n, f"{n}-{page}") for n in (3, 1, 0, 2, 9) for page in range(n)]


@pytest.mark.parametrize(
    ("values", "asked"),
    [
        (pl.Series(["a/b", "ü ?&"]), ["a%2Fb", "%C3%BC%20%3F%26"]),
        (pl.Series([dt.date(2026, 1, 31)]), ["2026-01-31"]),
        (pl.Series([Decimal("1.50")]), ["1.50"]),
        (pl.Series([True]), ["true"]),
        (pl.Series(["../../admin"]), ["..%2F..%2Fadmin"]),
    ],
)
def test_values_of_every_kind_are_quoted_in_a_path_and_delivered_as_they_were(web, values, asked):
    for text in asked:
        web.answers[f"/orders/{text}/items"] = lambda _: [{"item": 1}]

    frame = read_children(children(web), pl.DataFrame({"id": values}))

    assert {one.path.split("/")[2] for one in web.asked} == set(asked)
    assert frame["orders_id"].to_list() == values.to_list()
    assert frame["orders_id"].dtype == values.dtype


def test_values_go_into_parameters_and_bodies(web):
    web.answers["/items"] = lambda asked: [
        {"got": asked.json["order"], "text": asked.json["text"], "q": asked.query["q"]}
    ]
    source = children(
        web, path="/items", method="POST", parameters={"q": "{order}"},
        body={"order": "{order}", "text": "no. {order}", "deep": [{"x": "{order}"}]},
        for_each={"parameter": "order", "alias": "of order"},
    )  # fmt: skip

    assert read_children(source, [7]).rows(named=True) == [{"of order": 7, "got": 7, "text": "no. 7", "q": "7"}]
    assert web.asked[0].json["deep"] == [{"x": 7}]


def test_a_parent_without_children_is_no_failure_where_the_configuration_says_so(web):
    web.answers["/orders/2/items"] = lambda _: [{"item": 1}]
    source = children(web, response_actions=[{"status": 404, "action": "ignore"}])

    assert read_children(source, [1, 2, 3]).rows() == [(2, 1)]
    with pytest.raises(SourceMissingError, match="/orders/1/items was answered with 404"):
        read_children(children(web), [1, 2, 3])


def test_no_parents_need_declared_columns(web):
    with pytest.raises(SourceMissingError, match="no page has a record, so no column is known"):
        read_children(children(web), pl.DataFrame({"id": []}, schema={"id": pl.Int64}))
    frame = read_children(children(web, dtypes={"item": "text"}), pl.DataFrame(schema={"id": pl.Int64}))

    assert frame.is_empty()
    assert frame.schema == {"item": pl.String, "orders_id": pl.Int64}
    assert not web.asked


def test_a_key_of_the_child_is_not_overwritten(web):
    web.answers["/orders/1/items"] = lambda _: [{"orders_id": 5}]

    with pytest.raises(
        ExtractError, match=r"the records have a key 'orders_id' themselves\. Give 'for_each.alias' another"
    ):
        read_children(children(web), [1])


def test_a_column_that_the_parent_has_not_is_an_error(web):
    with pytest.raises(SourceMissingError) as caught:
        children(web, path="/o/{idd}", for_each={"column": "idd"}).scan("items", parents(pl.DataFrame({"id": [1]})))

    assert str(caught.value) == (
        "source 'items': 'for_each': source 'orders' has no column 'idd'. Did you mean 'id'? Present: id."
    )
    with pytest.raises(SourceTypeError, match=r"column 'id' of 'orders' is List\(Int64\)"):
        children(web).scan("items", parents(pl.DataFrame({"id": [[1]]})))


def test_what_the_parent_meets_is_said(web):
    def broken(_ask):
        raise SourceUnreachableError("source 'orders': nobody answers.")
        yield

    context = Context(others=lambda _: Extract("orders", pl.Schema({"id": pl.Int64()}), broken, lambda _ask: ""))

    with pytest.raises(SourceUnreachableError, match=r"^source 'orders': nobody answers\.$"):
        children(web).scan("items", context)


def test_a_place_for_the_value_is_needed(web):
    with pytest.raises(ValidationError, match=r"nothing in 'url', 'path', 'parameters' or 'body' holds '\{id\}'"):
        children(web, path="/items")


def test_outside_a_pipeline_there_is_no_other_source(web):
    with pytest.raises(ConfigError, match="a source reads 'orders', and there is no other source here"):
        children(web).scan("items")


# --- pipelines ---


def written(folder: Path, **keys) -> Path:
    target = {"type": "database", "connection_string": "postgresql://nobody@localhost/x", "table_name": "t",
              "write_mode": "overwrite"}  # fmt: skip
    keys = {"type": "batch", "target": target} | keys
    file = folder / "p.yaml"
    file.write_text(json.dumps({"pipelines": {"p": keys}}))
    return file


def problems(folder: Path, **named) -> str:
    with pytest.raises(ConfigError) as caught:
        load(written(folder, sources=named))
    return str(caught.value)


def test_another_source_that_is_not_there_is_a_mistake_of_the_configuration(tmp_path):
    each = {"source": "order", "column": "id"}
    items = {"type": "api", "url": "https://host/{id}", "for_each": each}
    orders = {"type": "api", "url": "https://host/orders"}

    said = problems(tmp_path, orders=orders, items=items)

    assert "sources.items.for_each.source: 'order' is not a source. Did you mean 'orders'? Known: orders." in said
    items["for_each"] = {"source": "items", "column": "id"}
    assert "'items' itself reads 'items'. One of them must come first." in problems(
        tmp_path, orders=orders, items=items
    )
    items["for_each"] = {"source": "orders", "column": "id"}
    orders = {"type": "api", "url": "https://host/{x}", "for_each": {"source": "items", "column": "x"}}
    said = problems(tmp_path, orders=orders, items=items)
    assert "sources.orders.for_each.source: 'items' itself reads 'orders'. One of them must come first." in said
    with pytest.raises(ConfigError, match=r"source\.for_each\.source: 'orders' is not a source"):
        load(written(tmp_path, source=items))


def test_mistakes_in_nested_options_are_said_where_they_are(tmp_path):
    source = {
        "type": "api", "url": "https://host/x", "pagination": {"type": "page_numbr"},
        "authentication": {"type": "bearer", "tokn": "x"}, "rate_limit": {"requests": 1, "per": "day"},
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, source=source))

    said = str(caught.value)
    assert (
        "source.pagination.type: 'page_numbr' is not a type. Did you mean 'page_number'? Known: auto, cursor," in said
    )
    assert "source.authentication.tokn: 'tokn' is not a key here. Did you mean 'token'? Known: token, type." in said
    del source["pagination"]["type"]
    with pytest.raises(ConfigError, match=r"source\.pagination: a mapping has no 'type', which says what else belongs"):
        load(written(tmp_path, source=source))
    assert "source.rate_limit.per: 'day' is not a per. Known: hour, minute, second." in said


@pytest.mark.postgres
def test_children_come_first_when_they_are_to_be_delivered(web, database, tmp_path):
    web.answers["/orders"] = lambda _: [{"id": 1, "customer": "ada"}, {"id": 2, "customer": "bob"}]
    for number in (1, 2):
        web.answers[f"/orders/{number}/items"] = lambda _, n=number: [{"item": f"{n}a"}, {"item": f"{n}b"}]
    file = written(
        tmp_path,
        sources={
            "items": {
                "type": "api",
                "url": f"{web.url}/orders/{{id}}/items",
                "for_each": {"source": "orders", "column": "id"},
            },
            "orders": {"type": "api", "url": f"{web.url}/orders"},
        },
        transformations=[
            {
                "type": "join",
                "parameters": {"source": "orders", "left_on": "orders_id", "right_on": "id", "how": "inner"},
            }
        ],
        quality_rules=[{"type": "unique", "field": "item"}],
        target={"type": "database", "connection_string": database, "table_name": "t", "write_mode": "overwrite"},
    )

    record = pipeline.run(load(file).pipeline("p"))

    assert (record.rows.read, record.rows.written) == (4, 4)
    with psycopg.connect(database) as connection:
        found = connection.execute("SELECT orders_id, item, customer FROM t ORDER BY item").fetchall()
    assert found == [(1, "1a", "ada"), (1, "1b", "ada"), (2, "2a", "bob"), (2, "2b", "bob")]
    assert sorted(asked.path for asked in web.asked) == ["/orders", "/orders/1/items", "/orders/2/items"]


@pytest.mark.postgres
def test_a_run_that_fails_in_the_middle_is_tried_again_from_there(web, database, tmp_path):
    web.pages("/items", *([{"id": number, "name": "x"}] for number in range(6)))
    whole = web.answers["/items"]

    def answer(asked):
        fails = asked.query["page"] == "3" and asked.times == 1
        return web.reply({}, 503) if fails else whole(asked)

    web.answers["/items"] = answer
    file = written(
        tmp_path,
        source={"type": "api", "url": f"{web.url}/items", "pagination": NUMBERED, "max_retries": 0, "concurrency": 1,
                "landing_folder": str(tmp_path / "landed")},
        error_handling={"strategy": "retry", "max_retries": 1, "retry_delay": 0},
        quality_rules=[{"type": "unique", "field": "name", "on_violation": "warn"}],
        target={"type": "database", "connection_string": database, "table_name": "t", "write_mode": "overwrite"},
    )  # fmt: skip

    record = pipeline.run(load(file).pipeline("p"))

    assert record.rows.written == 6
    assert web.numbers == ["0", "1", "2", "3", "3", "4", "5", "6"]
    assert (tmp_path / "landed" / record.run_id / "source").is_dir()


@pytest.mark.postgres
def test_an_api_to_a_table_from_the_command_line(web, database, tmp_path):
    token = "hushhush-token"

    def answer(asked):
        if asked.headers.get("authorization") != f"Bearer {token}":
            return web.reply({}, 401)
        number = int(asked.query["page"])
        return {"orders": [{"id": number * 2 + i, "total": 1.5, "address": {"city": "Berlin"}} for i in (0, 1)]
                if number < 3 else [], "pages": 3}  # fmt: skip

    web.answers["/orders"] = answer
    source = {
        "type": "api", "url": web.url, "path": "orders", "data_selector": "orders",
        "authentication": {"type": "bearer", "token": "${API_TOKEN}"},
        "pagination": {"type": "page_number", "total_path": "pages"},
    }  # fmt: skip
    steps = [{"type": "map", "parameters": {"drop": ["address"]}}]
    target = {"type": "database", "connection_string": database, "table_name": "t", "write_mode": "overwrite"}
    file = written(tmp_path, source=source, transformations=steps, target=target)

    def flows(*arguments: str) -> str:
        command = [sys.executable, "-m", "flows", *arguments, "--config", str(file)]
        environ = {**__import__("os").environ, "API_TOKEN": token}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
        assert done.returncode == 0, done.stderr
        assert token not in done.stdout + done.stderr
        return done.stdout

    assert f"api GET '{web.url}/orders' (1 page): id, total\n" in flows("plan", "p")
    assert len(web.asked) == 1
    facts = json.loads(flows("run", "p", "--no-prefect", "--json"))
    assert facts["status"] == "published"
    assert facts["rows"]["written"] == 6
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT id, total FROM t ORDER BY id").fetchall() == [(n, 1.5) for n in range(6)]
    assert len(web.asked) == 4


def test_a_look_at_a_pipeline_asks_for_a_first_page_of_each_source(web, tmp_path):
    web.pages("/orders", [{"id": 1}, {"id": 2}], [{"id": 3}])
    for number in (1, 2, 3):
        web.pages(f"/orders/{number}/items", [{"item": number}], [{"item": -number}])
    each = {"source": "orders", "column": "id"}
    common = {"type": "api", "pagination": NUMBERED}
    named = {"items": common | {"url": f"{web.url}/orders/{{id}}/items", "for_each": each},
             "orders": common | {"url": f"{web.url}/orders"}}  # fmt: skip

    extracts = _stages.looked_at(load(written(tmp_path, sources=named)).pipeline("p"))

    assert list(extracts) == ["items", "orders"]
    assert rows(extracts["items"]).rows() == [(1, 1)]
    assert [(asked.path, asked.query["page"]) for asked in web.asked] == [("/orders", "0"), ("/orders/1/items", "0")]
