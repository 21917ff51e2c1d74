"""Incremental loads: what a window has, what is never skipped, what is never loaded twice, and what is remembered."""

from __future__ import annotations

import datetime as dt
import json
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flows import _remembered, _stages, pipeline
from flows._config import Pipeline, load
from flows._errors import ConfigError, ExtractError, LoadError, RefusedError, SourceBusyError, SourcePermissionError
from flows._explained import explained
from flows._ledger import Rows, RunRecord
from flows.sources import _horizon

Connect = Callable[[], psycopg.Connection]
Configured = Callable[..., Pipeline]
postgres = pytest.mark.postgres


def written(file: Path, keys: dict[str, Any]) -> Pipeline:
    file.write_text(json.dumps({"pipelines": {"p": {"type": "batch"} | keys}}))
    return load(file).pipeline("p")


@pytest.fixture
def configured(database: str, tmp_path: Path) -> Configured:
    """Makes incremental pipelines from table `s` to table `t` of this test's database."""

    def make(incremental: dict[str, Any] | None = None, **keys: Any) -> Pipeline:
        source = {"type": "database", "connection_string": database, "schema": {"table": "s"}}
        target = {"type": "database", "connection_string": database, "table_name": "t"}
        keys["source"] = source | keys.get("source", {})
        keys["target"] = target | keys.get("target", {})
        keys["incremental"] = {"cursor_field": "at"} | (incremental or {})
        return written(tmp_path / "p.yaml", keys)

    return make


MOMENTS = """
CREATE TABLE s (id int, at timestamptz DEFAULT clock_timestamp());
INSERT INTO s VALUES (1, '2024-01-01 00:00Z'), (2, '2024-01-02 00:00Z'), (3, '2024-01-03 00:00Z')
"""
NUMBERS = """
CREATE TABLE s (id bigserial, note text);
INSERT INTO s (note) VALUES ('a'), ('b'), ('c')
"""


def ids(connection: psycopg.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT id FROM t ORDER BY 1")]


def cursor(of: Pipeline) -> Any:
    return of.target.state("p")["source"]["cursor"]


# --- windows ---


@postgres
def test_the_first_run_reads_everything_and_the_next_one_what_is_new(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    loads = configured()

    first, nothing = pipeline.run(loads), pipeline.run(loads)
    connection.execute("INSERT INTO s VALUES (4, '2024-01-04Z'), (5, '2024-01-05Z')")
    second = pipeline.run(loads)

    assert first.rows == Rows(read=3, written=3)
    assert nothing.rows == Rows(read=1, deduplicated=1)
    assert second.rows == Rows(read=3, deduplicated=1, written=2)
    assert ids(connection) == [1, 2, 3, 4, 5]
    assert cursor(loads) == "2024-01-05T00:00:00+00:00"
    assert second.filtered_at_source is not None
    assert second.filtered_at_source.startswith("at >= '2024-01-03T00:00:00+00:00' AND at < '20")


@postgres
def test_rows_with_the_last_value_that_come_later_are_loaded_and_equal_rows_are_rows(
    configured: Configured, connect: Connect
) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    connection.execute("INSERT INTO s VALUES (3, '2024-01-03Z')")
    loads = configured()

    pipeline.run(loads)
    connection.execute("INSERT INTO s VALUES (3, '2024-01-03Z'), (4, '2024-01-03Z')")
    record = pipeline.run(loads)

    assert record.rows == Rows(read=4, deduplicated=2, written=2)
    assert ids(connection) == [1, 2, 3, 3, 3, 4]


@postgres
def test_lookback_reads_again_and_loads_what_came_late(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    loads = configured({"lookback": "1d"})

    pipeline.run(loads)
    connection.execute("INSERT INTO s VALUES (10, '2024-01-02 12:00Z'), (11, '2024-01-01 23:00Z')")
    record = pipeline.run(loads)
    again = pipeline.run(loads)

    assert record.rows == Rows(read=3, deduplicated=2, written=1)
    assert again.rows == Rows(read=3, deduplicated=3)
    assert ids(connection) == [1, 2, 3, 10]


@postgres
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"initial_value": "2024-01-02"}, [2, 3]),
        ({"initial_value": "2024-01-02", "range_start": "open"}, [3]),
        ({"end_value": "2024-01-02"}, [1]),
        ({"end_value": "2024-01-02", "range_end": "closed"}, [1, 2]),
        ({"initial_value": "2024-01-02T00:00:00Z", "end_value": "2024-01-03T00:00:00+01:00"}, [2]),
    ],
)
def test_a_window_has_two_ends(
    configured: Configured, connect: Connect, keys: dict[str, Any], expected: list[int]
) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    loads = configured(keys)

    pipeline.run(loads)
    again = pipeline.run(loads)

    assert ids(connection) == expected
    assert again.rows.written == 0


@postgres
def test_an_open_beginning_reads_nothing_again(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    loads = configured({"range_start": "open"})

    pipeline.run(loads)
    nothing = pipeline.run(loads)

    assert nothing.rows == Rows()
    assert loads.target.state("p")["source"]["rows"] == []
    pipeline.run(configured({"range_start": "closed"}))
    assert ids(connection) == [1, 2, 3]


@postgres
def test_a_pushed_filter_does_not_hide_rows_of_the_window(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    loads = configured(transformations=[{"type": "filter", "parameters": {"where": "id <> 2"}}])

    record = pipeline.run(loads)

    assert record.rows == Rows(read=2, written=2)
    assert record.filtered_at_source is not None
    assert record.filtered_at_source.endswith('AND "id" <> 2')
    asked = explained(loads)["sources"][0]
    assert asked["reads"].count('"at" >= ') == 1
    assert asked["filtered_at_source"].startswith("at >= '2024-01-03T00:00:00+00:00' AND at < '20")


@postgres
def test_a_column_that_steps_do_not_need_may_be_the_cursor(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    loads = configured(transformations=[{"type": "map", "parameters": {"select": ["id"]}}])

    pipeline.run(loads)
    connection.execute("INSERT INTO s VALUES (4, '2024-01-04Z')")
    pipeline.run(loads)

    assert ids(connection) == [1, 2, 3, 4]


@postgres
def test_rows_are_known_again_after_a_step_asked_for_another_column(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    connection.execute("ALTER TABLE s ADD note text DEFAULT 'x'")
    pipeline.run(configured(transformations=[{"type": "map", "parameters": {"select": ["id"]}}]))

    record = pipeline.run(configured(transformations=[{"type": "map", "parameters": {"select": ["id", "note"]}}],
                                     target={"schema_contract": {"columns": "evolve"}}))  # fmt: skip

    assert record.rows == Rows(read=1, deduplicated=1)
    connection.execute("ALTER TABLE s DROP note")
    with pytest.raises(ExtractError, match=r"no column 'note' any more.*--full-refresh"):
        pipeline.run(configured(transformations=[{"type": "map", "parameters": {"select": ["id"]}}]))


@postgres
def test_quarantined_rows_are_found_again_behind_those_that_were_left_out(
    configured: Configured, connect: Connect
) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    loads = configured({"lookback": "1w"}, quality_rules=[{"type": "unique", "field": "id"}],
                       error_handling={"max_failed_ratio": 1})  # fmt: skip
    pipeline.run(loads)
    connection.execute("INSERT INTO s VALUES (7, '2024-01-02Z'), (7, '2024-01-04Z'), (8, '2024-01-04Z')")

    record = pipeline.run(loads)

    assert record.rows == Rows(read=6, deduplicated=3, quarantined=2, written=1)
    kept = connection.execute('SELECT stage, "values" FROM lockgate.quarantine ORDER BY number').fetchall()
    assert [(stage, values["id"]) for stage, values in kept] == [("read", 7), ("read", 7)]
    assert pipeline.run(loads).rows == Rows(read=6, deduplicated=6)


@postgres
def test_rows_that_broke_a_rule_of_the_source_balance_with_those_left_out(
    configured: Configured, connect: Connect
) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    loads = configured({"lookback": "1w"}, source={"rules": [{"type": "in_set", "field": "id",
                       "parameters": {"values": [1, 2, 3, 4]}}]}, error_handling={"max_failed_ratio": 1})  # fmt: skip
    pipeline.run(loads)
    connection.execute("INSERT INTO s VALUES (9, '2024-01-02Z'), (4, '2024-01-04Z')")

    assert pipeline.run(loads).rows == Rows(read=5, deduplicated=3, quarantined=1, written=1)


# --- PostgreSQL: what is committed late ---


@postgres
def test_a_row_that_is_committed_late_with_an_earlier_moment_is_not_skipped(
    configured: Configured, connect: Connect
) -> None:
    connection, slow = connect(), connect()
    connection.execute("CREATE TABLE s (id int, at timestamptz DEFAULT now())")
    connection.execute("INSERT INTO s VALUES (1)")
    loads = configured()
    slow.execute("BEGIN")
    slow.execute("INSERT INTO s VALUES (2)")
    connection.execute("INSERT INTO s VALUES (3)")

    first = pipeline.run(loads)
    slow.execute("COMMIT")
    second = pipeline.run(loads)

    assert first.rows.written == 1
    assert second.rows.written == 2
    assert ids(connection) == [1, 2, 3]


@postgres
def test_a_transaction_that_has_not_written_yet_holds_the_window_too(configured: Configured, connect: Connect) -> None:
    connection, slow = connect(), connect()
    connection.execute("CREATE TABLE s (id int, at timestamp DEFAULT (now() AT TIME ZONE 'UTC'))")
    slow.execute("BEGIN")
    slow.execute("SELECT 1")
    connection.execute("INSERT INTO s VALUES (1)")
    loads = configured()

    pipeline.run(loads)
    assert ids(connection) == []
    slow.execute("INSERT INTO s VALUES (2)")
    slow.execute("COMMIT")
    pipeline.run(loads)

    assert ids(connection) == [1, 2]


@postgres
def test_whoever_holds_the_window_back_for_long_is_named(
    configured: Configured, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, slow = connect(), connect()
    connection.execute(MOMENTS)
    slow.execute("SET application_name = 'night report'")
    slow.execute("BEGIN")
    slow.execute("SELECT 1")
    monkeypatch.setattr(_horizon, "_LONG_SECONDS", -1)

    record = pipeline.run(configured())

    assert any("(night report) has had a transaction open" in warning for warning in record.warnings)


@postgres
def test_a_number_that_is_committed_late_is_waited_for(configured: Configured, connect: Connect) -> None:
    connection, slow = connect(), connect()
    connection.execute(NUMBERS)
    loads = configured({"cursor_field": "id"})
    slow.execute("BEGIN")
    slow.execute("INSERT INTO s (note) VALUES ('late')")
    connection.execute("INSERT INTO s (note) VALUES ('e')")
    timer = threading.Timer(0.7, lambda: slow.execute("COMMIT"))
    timer.start()

    record = pipeline.run(loads)
    timer.join()

    assert record.rows.written == 5
    assert ids(connection) == [1, 2, 3, 4, 5]
    assert cursor(loads) == 5


@postgres
def test_a_writer_that_does_not_end_is_named_and_the_run_may_be_tried_again(
    configured: Configured, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, slow = connect(), connect()
    connection.execute(NUMBERS)
    slow.execute("SET application_name = 'importer'")
    slow.execute("BEGIN")
    slow.execute("INSERT INTO s (note) VALUES ('late')")
    monkeypatch.setattr(_horizon, "PATIENCE_SECONDS", 0.3)

    with pytest.raises(SourceBusyError, match=r"\(importer\) has written") as caught:
        pipeline.run(configured({"cursor_field": "id"}))

    assert caught.value.retryable
    assert configured({"cursor_field": "id"}).target.state("p") == {}


@postgres
def test_numbers_that_appear_while_a_run_waits_are_the_next_windows(configured: Configured, connect: Connect) -> None:
    connection, slow, late = connect(), connect(), connect()
    connection.execute(NUMBERS)
    loads = configured({"cursor_field": "id"})
    slow.execute("BEGIN")
    slow.execute("INSERT INTO s (note) VALUES ('slow')")

    def overtake() -> None:
        late.execute("BEGIN")
        late.execute("INSERT INTO s (note) VALUES ('late')")
        connect().execute("INSERT INTO s (note) VALUES ('e')")
        slow.execute("COMMIT")

    timer = threading.Timer(0.5, overtake)
    timer.start()
    pipeline.run(loads)
    timer.join()
    assert ids(connection) == [1, 2, 3]
    late.execute("COMMIT")
    pipeline.run(loads)

    assert ids(connection) == [1, 2, 3, 4, 5, 6]


@postgres
def test_a_table_that_was_empty_when_the_window_was_fixed_gives_nothing_yet(
    configured: Configured, connect: Connect
) -> None:
    connection, late = connect(), connect()
    connection.execute("CREATE TABLE s (id bigserial, note text)")
    loads = configured({"cursor_field": "id"})
    late.execute("BEGIN")
    late.execute("INSERT INTO s (note) VALUES ('late')")
    timer = threading.Timer(0.5, lambda: late.execute("COMMIT"))
    timer.start()

    pipeline.run(loads)
    timer.join()
    pipeline.run(loads)

    assert ids(connection) == [1]


@postgres
def test_days_are_read_again_until_they_are_over(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute("CREATE TABLE s (id int, at date DEFAULT (now() AT TIME ZONE 'UTC')::date)")
    loads = configured()

    for number in range(3):
        connection.execute("INSERT INTO s VALUES (%s)", (number,))
        pipeline.run(loads)

    assert ids(connection) == [0, 1, 2]


@postgres
def test_who_cannot_see_others_is_refused_unless_rows_are_read_again(
    configured: Configured, connect: Connect, database: str
) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    role = f"reader_{connection.execute('SELECT current_database()').fetchone()[0]}"  # type: ignore[index]  # one row
    connection.execute(f"CREATE ROLE {role} LOGIN")
    connection.execute(f"GRANT SELECT ON s TO {role}")
    source = {"connection_string": f"{database}{'&' if '?' in database else '?'}user={role}"}
    try:
        with pytest.raises(SourcePermissionError, match=f"GRANT pg_read_all_stats TO {role}.*lookback"):
            pipeline.run(configured(source=source))
        numbers = configured({"cursor_field": "id"}, source=source, target={"table_name": "by_number"})
        assert numbers.target.state("p") == {}
        assert pipeline.run(numbers).rows.written == 3  # locks are seen by everybody
        numbers.target.remember("p", {})
        assert pipeline.run(configured({"lookback": "1h"}, source=source)).rows.written == 3
        connection.execute(f"GRANT pg_read_all_stats TO {role}")
        assert pipeline.run(configured(source=source)).rows.written == 0
    finally:
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@postgres
def test_a_prepared_transaction_cannot_be_dated(configured: Configured, connect: Connect) -> None:
    connection = connect()
    if connection.execute("SHOW max_prepared_transactions").fetchone() == ("0",):
        pytest.skip("the server has none")
    connection.execute(MOMENTS)
    connection.execute("BEGIN")
    connection.execute("INSERT INTO s VALUES (9)")
    connection.execute("PREPARE TRANSACTION 'left behind'")
    try:
        with pytest.raises(SourceBusyError, match="'left behind'"):
            pipeline.run(configured())
    finally:
        connection.execute("ROLLBACK PREPARED 'left behind'")


# --- rows without a cursor ---


@postgres
@pytest.mark.parametrize(
    ("missing", "first", "second"),
    [
        ("include", Rows(read=5, written=5), Rows(read=4, deduplicated=3, written=1)),
        ("exclude", Rows(read=5, filtered=2, written=3), Rows(read=4, filtered=3, deduplicated=1)),
    ],
)
def test_rows_without_a_cursor_are_loaded_once_or_left_out(
    configured: Configured, connect: Connect, missing: str, first: Rows, second: Rows
) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    connection.execute("INSERT INTO s VALUES (8, NULL), (9, NULL)")
    loads = configured({"on_cursor_value_missing": missing})

    one = pipeline.run(loads)
    connection.execute("INSERT INTO s VALUES (9, NULL)")
    other = pipeline.run(loads)

    assert (one.rows, other.rows) == (first, second)
    assert any("'at' is null in 2 rows" in warning for warning in one.warnings)


@postgres
def test_rows_without_a_cursor_refuse_the_load(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    connection.execute("INSERT INTO s VALUES (8, NULL), (9, NULL)")
    loads = configured()

    with pytest.raises(RefusedError, match=r"'at' is null in 2 rows.*'include'.*'exclude'") as caught:
        pipeline.run(loads)

    assert (caught.value.observed, caught.value.path) == (2, ("incremental", "on_cursor_value_missing"))
    assert loads.target.state("p") == {}
    assert loads.target.history("p", 1)[0]["status"] == "refused"


def test_what_is_no_number_is_no_cursor(tmp_path: Path) -> None:
    pl.DataFrame({"n": [1.5, float("nan"), None]}).write_parquet(tmp_path / "s.parquet")
    keys = {
        "source": {"type": "file", "path": str(tmp_path / "s.parquet")},
        "target": {"type": "file", "path": str(tmp_path / "t.parquet")},
        "incremental": {"cursor_field": "n", "on_cursor_value_missing": "include"},
    }
    loads = written(tmp_path / "p.yaml", keys)

    assert pipeline.run(loads).rows == Rows(read=3, written=3)
    assert pipeline.run(loads).rows == Rows(read=3, deduplicated=3)
    state = loads.target.state("p")["source"]
    assert (state["cursor"], len(state["rows"])) == (1.5, 3)


@postgres
def test_only_rows_without_a_cursor_are_known_again(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute("CREATE TABLE s (id int, at timestamptz); INSERT INTO s VALUES (1, NULL)")
    loads = configured({"on_cursor_value_missing": "include"})

    pipeline.run(loads)
    pipeline.run(loads)

    assert ids(connection) == [1]


# --- what is remembered ---


@postgres
def test_a_load_that_fails_leaves_the_cursor_where_it_was(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    pipeline.run(configured())
    before = configured().target.state("p")
    connection.execute("INSERT INTO s VALUES (4, '2024-01-04Z')")

    with pytest.raises(Exception, match="id in_set"):
        pipeline.run(configured(quality_rules=[{"type": "in_set", "field": "id", "on_violation": "fail",
                                                "parameters": {"values": [1]}}]))  # fmt: skip

    assert configured().target.state("p") == before
    assert pipeline.run(configured()).rows.written == 1


@postgres
def test_two_runs_do_not_load_one_window_twice(configured: Configured, connect: Connect, tmp_path: Path) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    loads = configured()
    with _stages._snapshots.shared():
        slow = _stages.Run.begin(loads, RunRecord.start("p", "t", "v"), tmp_path / "slow")
        plan = _stages.transform(slow, _stages.extract(slow))
        pipeline.run(loads)

        with pytest.raises(LoadError, match="another run of this pipeline published"):
            _stages.validate(slow, plan)

    assert ids(connection) == [1, 2, 3]


@postgres
def test_an_extract_that_is_tried_again_has_a_view_of_its_own(
    configured: Configured, connect: Connect, tmp_path: Path
) -> None:
    connection = connect()
    connection.execute("CREATE TABLE s (id int, at timestamptz DEFAULT now()); INSERT INTO s VALUES (1)")
    loads = configured()
    with _stages._snapshots.shared():
        run = _stages.Run.begin(loads, RunRecord.start("p", "t", "v"), tmp_path / "run")
        _stages.extract(run)
        connection.execute("INSERT INTO s VALUES (2)")
        with _stages.validate(run, _stages.transform(run, _stages.extract(run))) as chamber:
            _stages.load(run, chamber)

    assert ids(connection) == [1, 2]


@postgres
def test_a_preview_counts_rows_of_the_window(configured: Configured, connect: Connect) -> None:
    connect().execute(MOMENTS)
    loads = configured({"initial_value": "2024-01-02"})

    (extract,) = _stages.looked_at(loads).values()

    assert extract.frame.head(1).collect()["id"].to_list() == [2]
    assert extract.frame.filter(pl.col("id") > 1).head(5).collect()["id"].to_list() == [2, 3]


@postgres
def test_too_many_rows_at_the_end_are_not_remembered(
    configured: Configured, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    connection.execute("INSERT INTO s SELECT 3, '2024-01-03Z' FROM generate_series(1, 5)")
    monkeypatch.setattr(_remembered, "MOST", 3)

    with pytest.raises(ExtractError, match="write_mode: upsert"):
        pipeline.run(configured({"lookback": "1h"}))
    pipeline.run(configured())
    assert configured().target.state("p")["source"]["after"] is True
    pipeline.run(configured())
    pipeline.run(configured())

    assert ids(connection) == [1, 2, 3, 3, 3, 3, 3, 3]


@postgres
def test_upsert_needs_no_memory_of_rows(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    loads = configured(target={"write_mode": "upsert", "primary_key": "id"})

    pipeline.run(loads)
    connection.execute("UPDATE s SET at = '2024-01-09Z' WHERE id = 1")
    record = pipeline.run(loads)

    assert record.rows == Rows(read=2, written=1, unchanged=1)
    assert loads.target.state("p")["source"]["rows"] == []


@postgres
@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_full_refresh_forgets_and_replaces(configured: Configured, connect: Connect, mode: str) -> None:
    connection = connect()
    connection.execute(MOMENTS)
    loads = configured({"initial_value": "2024-01-02"}, target={"write_mode": mode, "primary_key": "id"})
    pipeline.run(loads)
    connection.execute("DELETE FROM s WHERE id = 2; INSERT INTO s VALUES (20, '2024-01-02 05:00Z')")

    record = pipeline.run(loads.afresh())

    assert record.rows.written == 2
    assert ids(connection) == [3, 20]
    assert pipeline.run(loads).rows.written == 0


TARGETS: dict[str, dict[str, Any]] = {
    "sqlite": {"type": "database", "connection_string": "sqlite:///{}/t.db", "table_name": "t"},
    "duckdb": {"type": "database", "connection_string": "duckdb:///{}/t.duckdb", "table_name": "t"},
    "file": {"type": "file", "path": "{}/t.parquet"},
    "parquet": {"type": "data_lake", "path": "{}/lake", "format": "parquet"},
    "delta": {"type": "data_lake", "path": "{}/delta", "format": "delta"},
}


def source_of_numbers(tmp_path: Path, *numbers: int) -> dict[str, Any]:
    file = tmp_path / "s.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS s (n INTEGER)")
        connection.executemany("INSERT INTO s VALUES (?)", [(number,) for number in numbers])
    connection.close()
    return {"type": "database", "connection_string": f"sqlite:///{file}", "schema": {"table": "s"}}


@pytest.mark.parametrize("kind", TARGETS)
def test_every_target_keeps_the_cursor(tmp_path: Path, kind: str) -> None:
    source = source_of_numbers(tmp_path, 1, 2, 3)
    target = {key: value.format(tmp_path) for key, value in TARGETS[kind].items()}
    keys = {"source": source, "target": target, "incremental": {"cursor_field": "n", "lookback": 1}}
    loads = written(tmp_path / "p.yaml", keys)

    pipeline.run(loads)
    source_of_numbers(tmp_path, 2, 4)
    record = pipeline.run(loads)

    assert record.rows == Rows(read=4, deduplicated=2, written=2)
    state = loads.target.state("p")["source"]
    assert (state["cursor"], len(state["rows"])) == (4, 2)
    loads.target.remember("p", {"source": state | {"cursor": 9}})
    assert cursor(loads) == 9
    loads.target.remember("p", {})
    assert loads.target.state("p") == {}
    assert pipeline.run(loads.afresh()).rows.written == 5
    assert pipeline.run(loads).rows.written == 0


@pytest.mark.parametrize("kind", ["parquet", "delta"])
def test_two_runs_into_a_lake_do_not_load_one_window_twice(tmp_path: Path, kind: str) -> None:
    target = {key: value.format(tmp_path) for key, value in TARGETS[kind].items()}
    keys = {"source": source_of_numbers(tmp_path, 1, 2), "target": target, "incremental": {"cursor_field": "n"}}
    loads = written(tmp_path / "p.yaml", keys)
    pipeline.run(loads)
    source_of_numbers(tmp_path, 3)
    slow = _stages.Run.begin(loads, RunRecord.start("p", "t", "v"), tmp_path / "slow")
    with _stages.validate(slow, _stages.transform(slow, _stages.extract(slow))) as chamber:
        pipeline.run(loads)

        with pytest.raises(LoadError, match="another run of this pipeline published"):
            _stages.load(slow, chamber)

    assert sum(run["rows"]["written"] for run in loads.target.history("p", 9)) == 3


def test_what_an_api_was_sent_is_remembered_beside_it(tmp_path: Path) -> None:
    target = {"type": "api", "url": "http://127.0.0.1:9/rows", "state_folder": str(tmp_path / "sent")}
    keys = {"source": source_of_numbers(tmp_path, 1), "target": target, "incremental": {"cursor_field": "n"}}
    loads = written(tmp_path / "p.yaml", keys)

    assert loads.remembers_rows
    loads.target.remember("p", {"source": {"cursor": 3}})
    loads.target.remember("p", {"source": {"cursor": 4}})

    assert loads.target.state("p") == {"source": {"cursor": 4}}
    assert loads.afresh().target == loads.target


def test_several_targets_remember_the_same(tmp_path: Path) -> None:
    targets = {
        name: {key: value.format(tmp_path) for key, value in TARGETS[name].items()} for name in ("file", "sqlite")
    }
    keys = {"source": source_of_numbers(tmp_path, 1, 2), "targets": targets, "incremental": {"cursor_field": "n"}}
    loads = written(tmp_path / "p.yaml", keys)

    pipeline.run(loads)
    assert pipeline.run(loads).rows.written == 0
    loads.target.remember("p", {})

    assert loads.target.state("p") == {}


# --- other sources ---


@pytest.mark.parametrize(
    ("dtype", "values", "later"),
    [
        (pl.Int32(), [1, 2, 3], 4),
        (pl.Float64(), [1.5, 2.25, 2.5], 3.5),
        (pl.Decimal(10, 2), [1, 2, 3], 4),
        (pl.String(), ["2024-01", "2024-02", "b"], "c"),
        (pl.Date(), [dt.date(2024, 1, 1), dt.date(2024, 1, 2)], dt.date(2024, 1, 3)),
        (pl.Datetime("ns"), [dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 2)], dt.datetime(2024, 1, 3)),
    ],
    ids=str,
)
def test_cursors_of_every_type_survive_the_state(tmp_path: Path, dtype: pl.DataType, values: list, later: Any) -> None:
    file = tmp_path / "s.parquet"
    source, target = {"type": "file", "path": str(file)}, {"type": "file", "path": str(tmp_path / "t.parquet")}
    loads = written(tmp_path / "p.yaml", {"source": source, "target": target, "incremental": {"cursor_field": "c"}})
    pl.DataFrame({"c": values}, schema={"c": dtype}).write_parquet(file)
    pipeline.run(loads)
    assert pipeline.run(loads).rows.written == 0
    pl.DataFrame({"c": [*values, later]}, schema={"c": dtype}).write_parquet(file)

    assert pipeline.run(loads).rows.written == 1


def test_rows_outside_of_the_window_are_not_read_whatever_the_source(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("n,day\n1,2024-01-01\n2,2024-01-02\n3,\n")
    keys = {
        "source": {"type": "file", "path": str(tmp_path / "s.csv")},
        "target": {"type": "file", "path": str(tmp_path / "t.csv")},
        "incremental": {"cursor_field": "day", "initial_value": "2024-01-02", "on_cursor_value_missing": "exclude"},
    }

    record = pipeline.run(written(tmp_path / "p.yaml", keys))

    assert record.rows == Rows(read=2, filtered=1, written=1)
    assert record.filtered_at_source == "day >= '2024-01-02'"


def test_files_can_be_told_by_when_they_were_modified(tmp_path: Path) -> None:
    def put(name: str, text: str, day: int) -> None:
        (tmp_path / name).write_text(text)
        moment = dt.datetime(2024, 1, day, tzinfo=dt.UTC).timestamp()
        os.utime(tmp_path / name, (moment, moment))

    keys = {
        "source": {"type": "file", "path": str(tmp_path / "*.csv"), "modified_at_column": True},
        "target": {"type": "file", "path": str(tmp_path / "t.parquet")},
        "incremental": {"cursor_field": "_lockgate_modified_at"},
        "transformations": [{"type": "map", "parameters": {"select": ["n"]}}],
    }
    loads = written(tmp_path / "p.yaml", keys)
    put("a.csv", "n\n1\n2\n", 1)
    put("b.csv", "n\n3\n", 2)

    pipeline.run(loads)
    put("c.csv", "n\n4\n", 2)
    put("d.csv", "n\n5\n", 3)
    record = pipeline.run(loads)

    assert record.rows == Rows(read=3, deduplicated=1, written=2)
    assert cursor(loads) == "2024-01-03T00:00:00+00:00"
    (tmp_path / "a.csv").write_text("n\n1\n2\n9\n")
    assert pipeline.run(loads).rows == Rows(read=4, deduplicated=1, written=3)


# --- mistakes ---


@pytest.mark.parametrize(
    ("incremental", "path", "said"),
    [
        ({"cursor_field": "mm"}, "cursor_field", "no column 'mm'. Did you mean 'm'?"),
        ({"cursor_field": "m", "initial_value": "soon"}, "initial_value", "'soon' is not a timestamp"),
        ({"cursor_field": "n", "initial_value": "2024-01-01"}, "initial_value", "is not a whole number"),
        ({"cursor_field": "n", "lookback": "1h"}, "lookback", "is not a whole number"),
        ({"cursor_field": "m", "lookback": "1 fortnight"}, "lookback", "is not a span of time"),
        ({"cursor_field": "m", "lookback": -1}, "lookback", "is below zero"),
        ({"cursor_field": "t", "lookback": 3}, "lookback", "there is no distance"),
        ({"cursor_field": "b"}, "cursor_field", "which does not grow"),
    ],
)
def test_a_wrong_key_is_told_before_a_row_is_read(
    tmp_path: Path, incremental: dict[str, Any], path: str, said: str
) -> None:
    frame = pl.DataFrame({"n": [1], "m": [dt.datetime(2024, 1, 1)], "t": ["x"], "b": [True]})
    frame.write_parquet(tmp_path / "s.parquet")
    keys = {
        "source": {"type": "file", "path": str(tmp_path / "s.parquet")},
        "target": {"type": "file", "path": str(tmp_path / "t.parquet")},
        "incremental": incremental,
    }

    with pytest.raises(ConfigError) as caught:
        explained(written(tmp_path / "p.yaml", keys))

    assert caught.value.path == ("incremental", path)
    assert said in str(caught.value)


@postgres
def test_another_cursor_needs_another_beginning(configured: Configured, connect: Connect) -> None:
    connect().execute(MOMENTS)
    pipeline.run(configured())

    with pytest.raises(ConfigError, match=r"is of 'at', not of 'id'.*--full-refresh"):
        pipeline.run(configured({"cursor_field": "id"}))
    assert pipeline.run(configured({"cursor_field": "id"}).afresh()).rows.written == 3


# --- the law ---

SESSIONS = 3
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.integers(0, SESSIONS - 1)),
        st.tuples(st.sampled_from(["commit", "rollback"]), st.integers(0, SESSIONS - 1)),
        st.tuples(st.just("run"), st.just(0)),
    ),
    max_size=14,
)


@postgres
@pytest.mark.parametrize("mode", ["append", "upsert"])
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(operations=OPERATIONS, by_statement=st.booleans())
@example(operations=[("insert", 0), ("insert", 1), ("commit", 1), ("run", 0)], by_statement=False)
@example(operations=[("insert", 0), ("insert", 1), ("commit", 1), ("run", 0), ("insert", 0)], by_statement=True)
def test_whatever_the_order_of_commits_every_row_arrives_once(
    configured: Configured, connect: Connect, mode: str, operations: list[tuple[str, int]], by_statement: bool
) -> None:
    connection = connect()
    sessions = [connect() for _ in range(SESSIONS)]
    connection.execute("DROP TABLE IF EXISTS s, t; DROP SCHEMA IF EXISTS lockgate CASCADE")
    moment = "clock_timestamp()" if by_statement else "now()"
    connection.execute(f"CREATE TABLE s (id serial, at timestamptz NOT NULL DEFAULT {moment})")
    loads = configured(target={"write_mode": mode, "primary_key": "id"} if mode == "upsert" else {})
    try:
        for operation, number in operations:
            session = sessions[number]
            if operation == "run":
                pipeline.run(loads)
            elif operation == "insert":
                if session.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
                    session.execute("BEGIN")
                session.execute("INSERT INTO s DEFAULT VALUES")
            elif session.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                session.execute(operation)
        for session in sessions:
            if session.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                session.execute("COMMIT")
        pipeline.run(loads)

        expected = [row[0] for row in connection.execute("SELECT id FROM s ORDER BY 1")]
        assert ids(connection) == expected
    finally:
        for session in sessions:
            session.close()
