"""Laws of the parts of an API source that need no server: what is shown of a call, and records on their way to rows."""

import json
import string
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows._http.calls import Call, Page, shown_url
from flows._sides import Side
from flows.sources._lines import Lines
from flows.sources._records import Selector, Spool

SIDE = Side("source", "source 'items'")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = TEXTS.filter(bool)
SECRETS = st.text(string.ascii_letters + string.digits, min_size=12, max_size=12).map("hush-{}".format)


@given(st.dictionaries(NAMES, SECRETS, min_size=1, max_size=3), st.none() | SECRETS)
def test_no_value_of_a_query_is_shown(parameters, password):
    login = "" if password is None else f"ada:{password}@"
    call = Call("GET", f"https://{login}host/path?own=hush-own", parameters)

    for shown in (call.shown, shown_url(str(call.address))):
        assert "hush-" not in shown
        assert "https://host/path?own=***&" in shown


@given(st.dictionaries(NAMES, TEXTS | st.integers() | st.booleans(), max_size=3), NAMES, TEXTS, TEXTS)
def test_calls_are_the_same_when_they_ask_for_the_same(parameters, name, value, other):
    call = Call("GET", "https://host/path", parameters)

    assert call.having(name, value).key == call.having(name, other).having(name, value).key
    assert (call.having(name, value).key == call.having(name, other).key) == (value == other)


@pytest.mark.parametrize(
    ("at", "link", "leads_to"),
    [
        ("https://host/a/b?x=1", "c?y=2", "https://host/a/c?y=2"),
        ("https://host/a/b?x=1", "?y=2", "https://host/a/b?y=2"),
        ("https://host:8443/a", "http://host/c", "https://host:8443/c"),
        ("http://host/a", "https://host/c", "https://host/c"),
        ("https://host/a", "http://other/c", "http://other/c"),
    ],
)
def test_a_link_leads_somewhere_and_never_down_to_http_of_the_same_host(at, link, leads_to):
    assert str(Call("GET", at, {"p": 1}).linked(link).address) == leads_to


RECORDS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "n": st.none() | st.integers(-(2**63), 2**63 - 1),
            "größe ☃": st.none() | TEXTS,
            "ok": st.none() | st.booleans(),
            "f": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "list": st.none() | st.lists(st.none() | st.integers(-5, 5), max_size=3),
            "in": st.none() | st.fixed_dictionaries({}, optional={"b": TEXTS, "a": st.integers(-5, 5)}),
        },
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(RECORDS, st.integers(1, 5))
def test_records_become_rows_however_they_are_paged(records, size):
    with TemporaryDirectory() as folder:
        frame = through(records, size, Path(folder))

    met = list(dict.fromkeys(name for record in records for name in record))
    assert frame.columns == met
    assert frame.height == len(records) or not met
    for name in met:
        found = frame.get_column(name).to_list()
        wanted = [record.get(name) for record in records]
        if name == "in" and any(wanted):
            inner = list(dict.fromkeys(key for value in wanted for key in value or ()))
            assert [field.name for field in frame.schema[name].fields] == inner
            wanted = [None if value is None else {key: value.get(key) for key in inner} for value in wanted]
        elif name == "in":
            wanted = [None if value is None else "{}" for value in wanted]
        assert found == wanted


def through(records: list, size: int, folder: Path) -> pl.DataFrame:
    selector, call = Selector(None, SIDE), Call("GET", "https://host/items")
    spool = Spool(folder / "records.ndjson", None, (), SIDE)
    with spool:
        for first in range(0, len(records), size):
            body = json.dumps(records[first : first + size]).encode()
            page = Page(call, 200, {}, body, json.loads(body))
            spool.add(page, selector.records(page), None)
    lines = Lines(spool.file, {}, spool.order, spool.place, SIDE)
    schema = lines.schema()
    return pl.concat([pl.DataFrame(schema=schema), *lines.rows(schema, tuple(schema), None)])
