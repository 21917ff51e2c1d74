"""What a source can say beside its rows: records it cannot read, and what it wants remembered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import polars as pl
import psycopg
import pytest

from flows import pipeline
from flows._config import Pipeline, load
from flows._errors import ExtractError
from flows.sources._base import OUTSIDE, Batch, Context, Extract, Malformed, Pushdown, Source
from validations._errors import TooManyRejectedError

pytestmark = pytest.mark.postgres
Connect = Callable[[], psycopg.Connection]
FRAME = pl.DataFrame({"id": [1, 2, 2, 3]})
BROKEN = Malformed(pl.Series(['{"line": 3, "text": "x,y"}']), pl.Series(["malformed: 2 fields, 1 wanted"]))


class Lines(Source):
    """Two good rows, a broken record, and two rows more; remembers how often it was read."""

    type: Literal["lines"] = "lines"

    def scan(self, name: str, context: Context = OUTSIDE) -> Extract:
        def read(pushdown: Pushdown) -> Iterator[Batch]:
            assert pushdown.limit is None
            yield FRAME.head(2)
            yield BROKEN
            yield FRAME.tail(2)

        seen = context.state() or 0
        return Extract(name, FRAME.schema, read, lambda _pushdown: "lines", state=lambda: seen + 1)

    def check(self) -> None:
        """Nothing to reach."""


@pytest.fixture
def lines(database: str, tmp_path: Path) -> Callable[..., Pipeline]:
    """Makes pipelines from `Lines` to table `t`; keyword arguments are YAML keys."""

    def make(**keys: Any) -> Pipeline:
        other = {"type": "database", "connection_string": database, "query": "SELECT 1"}
        target = {"type": "database", "connection_string": database, "table_name": "t", "write_mode": "overwrite"}
        file = tmp_path / "p.yaml"
        file.write_text(json.dumps({"pipelines": {"p": {"type": "batch", "source": other, "target": target} | keys}}))
        return replace(load(file).pipeline("p"), sources={"source": Lines()})

    return make


def quarantine(connection: psycopg.Connection) -> list[tuple]:
    query = 'SELECT row, stage, "values", reasons FROM lockgate.quarantine ORDER BY run_id, number'
    return connection.execute(query).fetchall()


def test_a_record_that_is_no_row_is_read_and_quarantined_where_it_stood(
    lines: Callable[..., Pipeline], connect: Connect
) -> None:
    record = pipeline.run(lines(error_handling={"max_failed_ratio": 0.5}))

    assert (record.rows.read, record.rows.written, record.rows.quarantined) == (5, 4, 1)
    assert quarantine(connect()) == [(2, "read", {"line": 3, "text": "x,y"}, ["malformed: 2 fields, 1 wanted"])]


def test_rows_behind_a_broken_record_keep_their_places(lines: Callable[..., Pipeline], connect: Connect) -> None:
    record = pipeline.run(
        lines(quality_rules=[{"type": "unique", "field": "id"}], error_handling={"max_failed_ratio": 1})
    )

    assert (record.rows.read, record.rows.written, record.rows.quarantined) == (5, 2, 3)
    assert sorted(row for row, *_others in quarantine(connect())) == [1, 2, 3]


def test_broken_records_count_against_the_ratio(lines: Callable[..., Pipeline]) -> None:
    with pytest.raises(TooManyRejectedError, match="malformed"):
        pipeline.run(lines(error_handling={"max_failed_ratio": 0.1}))


def test_a_joined_source_cannot_hide_a_broken_record() -> None:
    with pytest.raises(ExtractError) as caught:
        Lines().scan("lines").frame.collect()

    failed = caught.value
    assert "source 'lines': a record cannot be read as a row (malformed: 2 fields, 1 wanted)" in str(failed)


def test_what_a_source_remembers_is_committed_with_the_load(lines: Callable[..., Pipeline], connect: Connect) -> None:
    for seen in (1, 2):
        pipeline.run(lines(error_handling={"max_failed_ratio": 0.5}))

        assert connect().execute("SELECT pipeline, source, value FROM lockgate.state").fetchall() == [
            ("p", "source", seen)
        ]


def test_a_refused_run_leaves_the_memory_alone(lines: Callable[..., Pipeline], connect: Connect) -> None:
    pipeline.run(lines(error_handling={"max_failed_ratio": 0.5}))
    with pytest.raises(TooManyRejectedError):
        pipeline.run(lines(error_handling={"max_failed_ratio": 0.1}))

    assert connect().execute("SELECT value FROM lockgate.state").fetchall() == [(1,)]
