"""The window of an incremental load in the query of an API, and what an API that ignores it changes: nothing."""

import json

import pytest

from flows import pipeline
from flows._config import load
from flows._ledger import Rows

ROWS = [{"id": number, "day": f"2024-01-0{number}"} for number in range(1, 6)]


@pytest.fixture
def web(webs):
    return webs()


def loading(tmp_path, web, dtypes=None, **incremental):
    keys = {
        "type": "batch",
        "source": {
            "type": "api",
            "url": f"{web.url}/rows",
            "pagination": {"type": "single_page"},
            "dtypes": dtypes or {},
        },
        "target": {"type": "file", "path": str(tmp_path / "t.parquet")},
        "incremental": {"cursor_field": "day", "start_parameter": "since"} | incremental,
    }
    (tmp_path / "p.yaml").write_text(json.dumps({"pipelines": {"p": keys}}))
    return load(tmp_path / "p.yaml").pipeline("p")


@pytest.mark.parametrize("listens", [True, False])
def test_the_window_is_asked_for_and_held(tmp_path, web, listens):
    rows = ROWS[:3]
    web.answers["/rows"] = lambda asked: [row for row in rows if not listens or row["day"] >= asked.query["since"]]
    loads = loading(tmp_path, web, initial_value="2024-01-02", end_param="until", end_value="2024-01-05")

    first = pipeline.run(loads)
    rows = ROWS
    second = pipeline.run(loads)

    assert [asked.query for asked in web.asked] == [
        {"since": "2024-01-02", "until": "2024-01-05"},
        {"since": "2024-01-03", "until": "2024-01-05"},
    ]
    assert first.rows == Rows(read=2, written=2)
    assert second.rows == Rows(read=2, deduplicated=1, written=1)


@pytest.mark.parametrize(
    ("cursor", "lookback", "first", "since"),
    [
        ("id", 2, 1, "3"),
        ("day", "1d", "2024-01-01", "2024-01-04"),
        ("at", "90m", "2024-01-01T00:00:00+00:00", "2024-01-05T10:30:00+00:00"),
    ],
)
def test_the_parameter_looks_back_too(tmp_path, web, cursor, lookback, first, since):
    web.answers["/rows"] = lambda _asked: [row | {"at": f"{row['day']}T12:00:00Z"} for row in ROWS]
    dtypes = {"day": "date", "at": "timestamptz"}
    loads = loading(tmp_path, web, dtypes, cursor_field=cursor, lookback=lookback, initial_value=first)

    pipeline.run(loads)
    record = pipeline.run(loads)

    assert [asked.query["since"] for asked in web.asked] == [str(first), since]
    assert record.rows.written == 0
