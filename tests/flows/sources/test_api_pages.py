"""How an API is paged: every way there is, what ends it, and what would not end."""

import threading
import time

import polars as pl
import pytest
from pydantic import ValidationError

from flows._errors import ExtractError
from flows.sources._base import Context, Pushdown, sources


def api(web, path="/items", **keys):
    quick = {"max_retries": 2, "retry_delay_seconds": 0.01}
    return sources.get("api").model_validate({"type": "api", "url": f"{web.url}{path}"} | quick | keys)


def read(source, **context) -> pl.DataFrame:
    extract = source.scan("items", Context(**context))
    return pl.concat([pl.DataFrame(schema=extract.schema), *extract.read(Pushdown())])


def ids(source, **context) -> list[int]:
    return read(source, **context).get_column("id").to_list()


PAGES = [[{"id": 1}, {"id": 2}], [{"id": 3}], [{"id": 4}]]
ALL = [1, 2, 3, 4]


def at(asked, key="page", base=0):
    """The page that was asked for, empty beyond the last."""
    number = int(asked.query.get(key, base)) - base
    return PAGES[number] if number < len(PAGES) else []


def test_a_single_page(web):
    web.answers["/items"] = lambda _: PAGES[0]

    assert ids(api(web, pagination={"type": "single_page"})) == [1, 2]
    assert len(web.asked) == 1


@pytest.mark.parametrize("link", ["{url}/items?at={at}", "/items?at={at}", "?at={at}"])
def test_json_link(web, link):
    def answer(asked):
        number = int(asked.query.get("at", 0))
        following = link.format(url=web.url, at=number + 1) if number + 1 < len(PAGES) else None
        return {"items": PAGES[number], "paging": {"following": following}}

    web.answers["/items"] = answer
    source = api(
        web, pagination={"type": "json_link", "next_url_path": "paging.following"}, parameters={"size": 2, "on": True}
    )

    assert ids(source) == ALL
    assert [asked.headers["x-query"] for asked in web.asked] == ["size=2&on=true", "at=1", "at=2"]


def test_header_link(web):
    def answer(asked):
        number = int(asked.query.get("page", 1)) - 1
        rel = f'<{web.url}/items?page={number + 2}>; rel="next", ' if number + 1 < len(PAGES) else ""
        return web.reply(PAGES[number], headers={"Link": f'{rel}<{web.url}/items?page=1>; rel="first"'})

    web.answers["/items"] = answer

    assert ids(api(web, pagination={"type": "header_link"})) == ALL
    assert ids(api(web)) == ALL  # 'auto' finds it too
    assert len(web.asked) == 6


def test_header_cursor(web):
    def answer(asked):
        number = int(asked.query.get("cursor", 0))
        return web.reply(PAGES[number], headers={"X-Next": str(number + 1)} if number + 1 < len(PAGES) else {})

    web.answers["/items"] = answer

    assert ids(api(web, pagination={"type": "header_cursor", "cursor_key": "X-Next"})) == ALL


@pytest.mark.parametrize("last", [None, "", "absent"])
def test_cursor(web, last):
    def answer(asked):
        number = int(asked.query.get("after", 0))
        cursor = {"next": number + 1} if number + 1 < len(PAGES) else {} if last == "absent" else {"next": last}
        return {"items": PAGES[number], "cursors": cursor}

    web.answers["/items"] = answer

    assert ids(api(web, pagination={"type": "cursor", "cursor_param": "after"})) == ALL


def test_a_cursor_that_is_always_there_ends_where_there_is_no_more(web):
    def answer(asked):
        number = int(asked.query.get("cursor", 0))
        return {"items": PAGES[number], "next": str(number + 1), "more": number + 1 < len(PAGES)}

    web.answers["/items"] = answer
    way = {"type": "cursor", "cursor_path": "next", "has_more_path": "more"}

    assert ids(api(web, pagination=way)) == ALL


def test_a_cursor_in_the_body(web):
    def answer(asked):
        number = asked.json.get("page", {}).get("after", 0)
        assert asked.json["filter"] == {"status": "paid"}
        return {"items": PAGES[number], "cursors": {"next": number + 1 if number + 1 < len(PAGES) else None}}

    web.answers["/items"] = answer
    way = {"type": "cursor", "cursor_body_path": "page.after"}

    assert ids(api(web, method="POST", body={"filter": {"status": "paid"}}, pagination=way)) == ALL


@pytest.mark.parametrize("at_once", [1, 2, 8])
@pytest.mark.parametrize("total", [None, "meta.total"])
def test_offset(web, at_once, total):
    rows = [{"id": number} for number in range(1, 8)]

    def answer(asked):
        first, most = int(asked.query["offset"]), int(asked.query["limit"])
        return {"items": rows[first : first + most], "meta": {"total": len(rows)}}

    web.answers["/items"] = answer
    way = {"type": "offset", "limit": 2, "total_path": total}

    assert ids(api(web, pagination=way, concurrency=at_once)) == list(range(1, 8))
    offsets = sorted(int(asked.query["offset"]) for asked in web.asked)
    assert offsets[:4] == [0, 2, 4, 6]
    assert len(offsets) == len(set(offsets))
    if total:
        assert len(offsets) == 4  # none beyond the total
    else:
        assert 5 <= len(offsets) <= 4 + at_once


def test_offset_has_its_names_and_its_end(web):
    web.answers["/items"] = lambda asked: [{"id": int(asked.query["skip"])}]
    way = {
        "type": "offset",
        "limit": 5,
        "offset": 10,
        "offset_param": "skip",
        "limit_param": None,
        "maximum_offset": 20,
    }

    assert ids(api(web, pagination=way)) == [10, 15, 20]
    assert {asked.headers["x-query"] for asked in web.asked} == {"skip=10", "skip=15", "skip=20"}


@pytest.mark.parametrize("at_once", [1, 2, 8])
@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("total", [None, "pages"])
def test_page_number(web, at_once, base, total):
    web.answers["/items"] = lambda asked: {"items": at(asked, base=base), "pages": "3"}
    way = {"type": "page_number", "base_page": base, "total_path": total}

    assert ids(api(web, pagination=way, concurrency=at_once)) == ALL
    assert web.numbers[:3] == [str(base + number) for number in range(3)]
    assert len(web.numbers) == 3 if total else len(web.numbers) <= 3 + at_once


def test_page_number_in_the_body_with_a_maximum(web):
    web.answers["/items"] = lambda asked: [{"id": asked.json["page"]["number"]}]
    way = {"type": "page_number", "page_body_path": "page.number", "maximum_page": 3, "base_page": 2}

    assert ids(api(web, method="POST", body={}, pagination=way)) == [2, 3]


def test_an_empty_page_is_no_end_where_the_configuration_says_so(web):
    web.answers["/items"] = lambda asked: {
        "items": [] if asked.query["page"] == "1" else [{"id": int(asked.query["page"])}]
    }
    way = {"type": "page_number", "stop_after_empty_page": False, "maximum_page": 3}

    assert ids(api(web, pagination=way)) == [0, 2, 3]


def test_pages_are_fetched_at_the_same_time_and_stay_in_order(web):
    together = threading.Barrier(4, timeout=10)

    def answer(asked):
        number = int(asked.query["page"])
        if 1 <= number <= 4:
            together.wait()  # passes only if four are under way
        return [{"id": number}] if number < 5 else []

    web.answers["/items"] = answer

    assert ids(api(web, pagination={"type": "page_number"}, concurrency=4)) == [0, 1, 2, 3, 4]


def test_no_more_calls_are_under_way_than_agreed(web):
    busy, most, lock = 0, 0, threading.Lock()

    def answer(asked):
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.02)
        with lock:
            busy -= 1
        return [{"id": 1, "at": asked.query["page"]}] if int(asked.query["page"]) < 20 else []

    web.answers["/items"] = answer

    assert len(ids(api(web, pagination={"type": "page_number"}, concurrency=3))) == 20
    assert most == 3


@pytest.mark.parametrize("where", ["next", "links.next", "_links.next.href", "@odata.nextLink"])
def test_auto_follows_links_where_apis_have_them(web, where):
    def answer(asked):
        number = int(asked.query.get("at", 0))
        link = f"{web.url}/items?at={number + 1}" if number + 1 < len(PAGES) else None
        body = {"items": PAGES[number]}
        *outer, last = [where] if where.startswith("@") else where.split(".")
        inner = body
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = link
        return body

    web.answers["/items"] = answer

    assert ids(api(web, data_selector="items")) == ALL


@pytest.mark.parametrize(
    ("said", "sign"),
    [
        ({"has_more": True}, "'has_more' is true"),
        ({"meta": {"next_cursor": "abc"}}, "'meta.next_cursor' has a value"),
        ({"total": 40}, "'total' is 40"),
        ({"pagination": {"total_pages": 3}}, "'pagination.total_pages' is 3"),
    ],
)
def test_auto_does_not_lose_pages_that_it_cannot_find(web, said, sign):
    web.answers["/items"] = lambda _: {"items": PAGES[0], **said}

    with pytest.raises(ExtractError) as caught:
        read(api(web))

    assert str(caught.value) == (
        f"source 'items': GET {web.url}/items: there seem to be more pages ({sign}), and no link leads to them. "
        "Say in 'pagination' how to get there, or 'type: single_page' if this is all."
    )


@pytest.mark.parametrize("said", [{"has_more": False, "next_cursor": "abc"}, {"total": 2}, {"next": None, "count": 2}])
def test_auto_takes_one_page_for_all_where_nothing_says_otherwise(web, said):
    web.answers["/items"] = lambda _: {"items": PAGES[0], **said}

    assert ids(api(web)) == [1, 2]


@pytest.mark.parametrize("way", [
    {"type": "json_link", "next_url_path": "links.next"}, {"type": "header_link"}, {"type": "auto"},
    {"type": "header_cursor", "cursor_key": "X-Next", "cursor_param": "at"},
    {"type": "cursor", "cursor_path": "then", "cursor_param": "at"},
], ids=lambda way: way["type"])  # fmt: skip
def test_pages_that_lead_on_without_end_have_a_maximum(web, way):
    def answer(asked):
        number = int(asked.query.get("at", 0))
        link = f"{web.url}/items?at={number + 1}"
        body = {"items": [{"id": number}], "links": {"next": link}, "then": number + 1, "has_more": True}
        return web.reply(body, headers={"Link": f'<{link}>; rel="next"', "X-Next": str(number + 1)})

    web.answers["/items"] = answer

    assert ids(api(web, pagination=way | {"maximum_page": 3})) == [0, 1, 2]
    assert len(web.asked) == 3


def test_a_link_in_a_circle_is_an_error(web):
    web.answers["/items"] = lambda asked: {"items": [{"id": 1, "at": asked.times}], "next": f"{web.url}/items?at=1"}

    with pytest.raises(
        ExtractError, match=r"\?at=\*\*\*: the next page is one that was there before, so this would never"
    ):
        read(api(web, pagination={"type": "json_link"}))
    assert len(web.asked) == 2


def test_a_cursor_in_a_circle_is_an_error(web):
    web.answers["/items"] = lambda asked: {"items": [{"id": asked.times}], "cursors": {"next": "again"}}

    with pytest.raises(ExtractError, match="the next page is one that was there before"):
        read(api(web, pagination={"type": "cursor"}))


def test_an_api_that_does_not_know_the_parameter_is_an_error_and_not_an_endless_loop(web):
    web.answers["/items"] = lambda _: PAGES[0]

    with pytest.raises(ExtractError) as caught:
        read(api(web, pagination={"type": "page_number", "page_param": "seite"}))

    assert str(caught.value) == (
        f"source 'items': GET {web.url}/items?seite=***: this page is the same as the one before it. Does the API know "
        "the parameters of 'pagination', and is its first page the one that they begin with ('base_page', 'offset')?"
    )


@pytest.mark.parametrize(
    "link", ["http://{other}/items?at=1", "ftp://{here}/x", "file:///etc/passwd", "//{other}/items"]
)
def test_a_link_to_another_place_is_refused(webs, link):
    web, other = webs(), webs()
    link = link.format(here=web.url[7:], other=other.url[7:])
    web.answers["/items"] = lambda _: {"items": PAGES[0], "next": link}
    other.answers["/items"] = lambda _: {"items": PAGES[1]}

    with pytest.raises(ExtractError, match=r"which is not the host of 'url'\. It was not asked for"):
        read(api(web, pagination={"type": "json_link"}, authentication={"type": "bearer", "token": "hushhush"}))
    assert not other.asked


def test_a_link_that_is_no_url_is_an_error(web):
    web.answers["/items"] = lambda _: {"items": PAGES[0], "next": {"page": 2}}

    with pytest.raises(ExtractError, match=r"'next_url_path' 'next' is \{'page': 2\}, which is no URL"):
        read(api(web, pagination={"type": "json_link"}))


@pytest.mark.parametrize("total", [None, "many", True])
def test_a_total_that_is_no_number_is_an_error(web, total):
    web.answers["/items"] = lambda _: {"items": PAGES[0], "total": total}

    with pytest.raises(ExtractError, match="'total_path' 'total' finds no number in the answer"):
        read(api(web, pagination={"type": "page_number", "total_path": "total"}))


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ({"type": "ofset"}, "'ofset'"),
        ({"type": "offset"}, "limit"),
        ({"type": "page_number", "stop_after_empty_page": False}, "nothing says which page is the last"),
        ({"type": "cursor", "cursor_path": "a["}, "'a\\[' is not a JSONPath"),
        ({"type": "cursor", "cursor_body_path": "a"}, "is about a body, and this is a GET"),
        ({"type": "json_link", "next": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_a_way_that_cannot_work_is_a_mistake_of_the_configuration(web, way, said):
    with pytest.raises(ValidationError, match=said):
        api(web, pagination=way)


def test_a_look_asks_for_the_first_page_only(web, tmp_path):
    web.pages("/items", *PAGES)
    source = api(web, pagination={"type": "page_number"})

    assert ids(source, sample=True) == [1, 2]
    assert web.numbers == ["0"]
    source.check()
    assert web.numbers == ["0", "0"]
