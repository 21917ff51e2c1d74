"""Whole runs against a real PostgreSQL: where every row goes, and what a run refuses."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows import _stages, pipeline
from flows._config import Pipeline, load
from flows._errors import LedgerError, RefusedError, TargetBusyError
from flows._ledger import Rows, RunRecord, StepCount
from flows._report import Silent
from transforms._errors import LockgateError, TransformError, UnknownColumnError
from validations._errors import BrokenContractError, TooManyRejectedError

pytestmark = pytest.mark.postgres
Connect = Callable[[], psycopg.Connection]
Configured = Callable[..., Pipeline]


@pytest.fixture
def configured(database: str, tmp_path: Path) -> Configured:
    """Makes pipelines from table `s` to table `t` of this test's database; keyword arguments are YAML keys."""

    def make(**keys: Any) -> Pipeline:
        source = {"type": "database", "connection_string": database, "schema": {"table": "s"}}
        target = {"type": "database", "connection_string": database, "table_name": "t", "write_mode": "overwrite"}
        if "sources" not in keys:
            keys["source"] = source | keys.get("source", {})
        keys["target"] = target | keys.get("target", {})
        file = tmp_path / "p.yaml"
        file.write_text(json.dumps({"pipelines": {"p": {"type": "batch"} | keys}}))
        return load(file).pipeline("p")

    return make


def table(connection: psycopg.Connection, query: str = "SELECT * FROM t ORDER BY 1") -> list[tuple]:
    return connection.execute(query).fetchall()


def quarantine(connection: psycopg.Connection) -> list[tuple]:
    return table(connection, 'SELECT row, stage, "values", reasons FROM lockgate.quarantine ORDER BY row, number')


def ledger(connection: psycopg.Connection) -> dict[str, Any]:
    query = "SELECT record FROM lockgate.loads ORDER BY started_at DESC, run_id DESC LIMIT 1"
    return (connection.execute(query).fetchone() or ({},))[0]


PEOPLE = """
CREATE TABLE s (id bigint, email text, n int, d date);
INSERT INTO s VALUES (1, 'a@b.org', 1, '2024-01-01'), (2, 'bad', 2, '2024-01-02'), (3, 'c@d.org', 3, NULL),
                     (4, 'd@e.org', 4, '2024-01-04'), (4, 'e@f.org', 5, '2024-01-05')
"""
EMAIL = {"type": "email", "field": "email"}
UNIQUE = {"type": "unique", "field": "id"}
LOOSE = {"max_failed_ratio": 1}


def test_every_row_is_accounted_for(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute(PEOPLE)

    record = pipeline.run(
        configured(
            transformations=[
                {"type": "calculate", "parameters": {"expressions": [{"field": "twice", "formula": "n * 2"}]}},
                {"type": "filter", "parameters": {"where": "twice <> 2"}},
                {"type": "map", "parameters": {"drop": ["n"], "rename": {"d": "day"}}},
            ],
            quality_rules=[EMAIL, UNIQUE],
            error_handling=LOOSE,
        )
    )

    assert record.rows == Rows(read=5, filtered=1, quarantined=3, written=1)
    assert record.steps == [StepCount("filter", "filtered", 5, 4)]
    assert [row[0] for row in table(connection)] == [3]
    kept = ledger(connection)
    assert (kept["run_id"], kept["status"], kept["rows"]["quarantined"]) == (record.run_id, "published", 3)


def test_quarantine_keeps_rows_as_they_were_read_with_all_reasons(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute(PEOPLE)

    pipeline.run(
        configured(
            transformations=[{"type": "map", "parameters": {"drop": ["n"], "constants": {"x": 1}}}],
            quality_rules=[EMAIL, UNIQUE, {"type": "not_null", "field": "d"}, {"type": "in_set", "field": "email",
                           "parameters": {"values": ["a@b.org", "c@d.org", "d@e.org", "e@f.org"]}}],
            error_handling=LOOSE,
        )
    )  # fmt: skip

    assert quarantine(connection) == [
        (1, "read", {"id": 2, "email": "bad", "d": "2024-01-02"}, ["email email", "email in_set"]),
        (2, "read", {"id": 3, "email": "c@d.org", "d": None}, ["d not_null"]),
        (3, "read", {"id": 4, "email": "d@e.org", "d": "2024-01-04"}, ["id unique"]),
        (4, "read", {"id": 4, "email": "e@f.org", "d": "2024-01-05"}, ["id unique"]),
    ]


def test_rows_of_merged_sets_are_quarantined_as_they_were_transformed(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute(PEOPLE)

    record = pipeline.run(
        configured(
            transformations=[
                {
                    "type": "aggregate",
                    "parameters": {"group_by": ["id"], "aggregations": [{"field": "n", "function": "sum"}]},
                }
            ],
            quality_rules=[{"type": "between", "field": "n_sum", "parameters": {"max": 5}}],
            error_handling=LOOSE,
        )
    )

    assert record.rows == Rows(read=5, aggregated=1, quarantined=1, written=3)
    assert quarantine(connection) == [(None, "transformed", {"id": 4, "n_sum": 9}, ["n_sum between"])]


def test_rules_of_the_source_judge_rows_as_read(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute(PEOPLE)

    record = pipeline.run(
        configured(
            source={"rules": [EMAIL]},
            transformations=[{"type": "map", "parameters": {"select": ["id", "n"]}}],
            error_handling=LOOSE,
        )
    )

    assert record.rows == Rows(read=5, quarantined=1, written=4)
    assert quarantine(connection)[0][2] == {"id": 2, "email": "bad", "n": 2}


def test_a_rule_may_warn(configured: Configured, connect: Connect) -> None:
    connect().execute(PEOPLE)

    record = pipeline.run(configured(quality_rules=[EMAIL | {"severity": "warn"}, UNIQUE | {"severity": "warn"}]))

    assert record.rows == Rows(read=5, written=5)
    assert [(check["rule"], check["violations"]) for check in record.checks] == [("email email", 1), ("id unique", 2)]
    assert len(record.warnings) == 2


FAILS = {"on_violation": "fail"}


@pytest.mark.parametrize(
    ("rules", "error", "words"),
    [
        ([EMAIL | FAILS], BrokenContractError, "email email"),
        ([UNIQUE | FAILS], BrokenContractError, "id unique"),
        ([{"type": "row_count", "parameters": {"min": 6}}], BrokenContractError, "row_count"),
        ([EMAIL], TooManyRejectedError, "1 of 5 rows (20.0 %) broke the contract, more than max_failed_ratio 0.05"),
    ],
    ids=["row rule", "set rule", "count", "ratio"],
)
def test_a_broken_contract_refuses_the_load(
    rules: list[dict[str, Any]], error: type[LockgateError], words: str, configured: Configured, connect: Connect
) -> None:
    connection = connect()
    connection.execute(PEOPLE)
    connection.execute("CREATE TABLE t AS SELECT * FROM s WHERE id = 1")
    before = table(connection)

    with pytest.raises(error) as caught:
        pipeline.run(configured(quality_rules=rules))

    assert words in str(caught.value)
    assert table(connection) == before
    kept = ledger(connection)
    assert (kept["status"], kept["error"]["type"]) == ("refused", error.__name__)
    assert table(connection, "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'staging%'") == [(0,)]


def test_the_rows_behind_a_refusal_are_kept(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute(PEOPLE)

    with pytest.raises(TooManyRejectedError):
        pipeline.run(configured(quality_rules=[EMAIL]))

    assert [row[2]["email"] for row in quarantine(connection)] == ["bad"]


def test_an_empty_source_does_not_empty_the_target(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute("CREATE TABLE s (id int); CREATE TABLE t (id int); INSERT INTO t VALUES (1)")

    with pytest.raises(RefusedError, match="the load is empty"):
        pipeline.run(configured())

    assert table(connection) == [(1,)]
    assert ledger(connection)["status"] == "refused"


def test_the_second_run_gives_the_same_table(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute(PEOPLE)
    same = configured(
        quality_rules=[UNIQUE], error_handling=LOOSE, target={"primary_key": "id", "write_mode": "upsert"}
    )

    first, before = pipeline.run(same), table(connection)
    second = pipeline.run(same)

    assert (first.status, second.status) == ("published", "unchanged")
    assert second.rows == Rows(read=5, quarantined=2, unchanged=3)
    assert table(connection) == before


# --- what is pushed down, delivered, skipped ---


def test_a_filter_may_use_a_column_that_is_not_delivered(configured: Configured, connect: Connect) -> None:
    connect().execute(PEOPLE)

    record = pipeline.run(
        configured(
            source={"schema": {"table": "s", "columns": ["email", "id"]}},
            transformations=[
                {"type": "filter", "parameters": {"condition": {"field": "n", "operator": "gt", "value": 3}}}
            ],
        )
    )

    assert record.filtered_at_source == '"n" > 3'
    assert record.rows == Rows(read=2, written=2)
    assert table(connect(), "SELECT * FROM t ORDER BY email") == [("d@e.org", 4), ("e@f.org", 4)]


def test_a_step_that_does_not_fit_may_be_skipped(configured: Configured, connect: Connect) -> None:
    connect().execute(PEOPLE)
    steps = [{"type": "filter", "parameters": {"where": "nope > 1"}}]

    with pytest.raises(UnknownColumnError, match="transformations"):
        pipeline.run(configured(transformations=steps))
    record = pipeline.run(configured(transformations=steps, error_handling={"on_transform_error": "skip"}))

    assert record.rows == Rows(read=5, written=5)
    assert "step 'filter' was skipped" in record.warnings[0]


def test_a_value_that_a_step_cannot_use_stops_the_run_and_names_the_step(
    configured: Configured, connect: Connect
) -> None:
    connection = connect()
    connection.execute(PEOPLE)
    steps = [
        {"type": "map", "parameters": {"constants": {"one": 1}}},
        {
            "type": "calculate",
            "name": "ratio",
            "parameters": {"expressions": [{"field": "r", "formula": "1 / (n - 3)"}]},
        },
    ]

    with pytest.raises(
        TransformError, match="step 'ratio' met a value it cannot work with: division by zero"
    ) as caught:
        pipeline.run(configured(transformations=steps))

    assert caught.value.path[:2] == ("transformations", 1)
    assert table(connection, "SELECT to_regclass('t')::text") == [(None,)]
    assert ledger(connection)["status"] == "failed"


# --- one view of the source ---


def test_sources_of_one_database_share_a_snapshot(configured: Configured, connect: Connect, database: str) -> None:
    connection = connect()
    connection.execute(
        "CREATE TABLE a (id int, b int); CREATE TABLE b (id int); INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1)"
    )
    source = {"type": "database", "connection_string": database}
    both = configured(
        sources={"a": source | {"schema": {"table": "a"}}, "b": source | {"schema": {"table": "b"}}},
        transformations=[
            {"type": "join", "parameters": {"source": "b", "left_on": "b", "right_on": "id", "how": "left"}}
        ],
        quality_rules=[{"type": "row_count", "parameters": {"min": 1, "max": 1}}],
    )

    class Meanwhile(Silent):
        def stage(self, name: str) -> None:
            if name == "validate":
                connection.execute("DELETE FROM b; INSERT INTO a VALUES (2, 2)")

    assert pipeline.run(both, reporter=Meanwhile()).rows.read == 1


def test_rows_are_found_again_though_the_source_has_changed(configured: Configured, connect: Connect) -> None:
    connection = connect()
    connection.execute(PEOPLE)

    class Meanwhile(Silent):
        def rows(self, read: int) -> None:
            connection.execute("UPDATE s SET email = 'changed'")

    pipeline.run(configured(quality_rules=[UNIQUE], error_handling=LOOSE), reporter=Meanwhile())

    assert [row[2]["email"] for row in quarantine(connection)] == ["d@e.org", "e@f.org"]


# --- retries, and the stages by hand ---


def test_a_busy_target_is_tried_again(configured: Configured, connect: Connect) -> None:
    holder = connect()
    holder.execute(PEOPLE)
    holder.execute("SELECT pg_advisory_lock(hashtextextended('lockgate: public.t', 0))")
    timer = threading.Timer(0.5, holder.close)
    timer.start()

    record = pipeline.run(configured(error_handling={"strategy": "retry", "max_retries": 5, "retry_delay": 0.3}))

    timer.join()
    assert record.status == "published"


def test_without_retries_a_busy_target_fails_at_once(configured: Configured, connect: Connect) -> None:
    holder = connect()
    holder.execute(PEOPLE)
    holder.execute("SELECT pg_advisory_lock(hashtextextended('lockgate: public.t', 0))")

    with pytest.raises(TargetBusyError, match="another run is loading it"):
        pipeline.run(configured(error_handling={"strategy": "fail"}))


def test_a_flow_by_hand_gets_the_same_promises(configured: Configured, connect: Connect, tmp_path: Path) -> None:
    connect().execute(PEOPLE)
    by_hand = configured(quality_rules=[EMAIL], error_handling=LOOSE)
    run = _stages.Run.begin(by_hand, RunRecord.start("p", "t", by_hand.version), tmp_path / "work")

    plan = _stages.transform(run, _stages.extract(run))
    with _stages.validate(run, plan) as chamber:
        _stages.load(run, chamber)

    assert run.record.rows == Rows(read=5, quarantined=1, written=4)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(st.one_of(st.none(), st.integers(1, 6)), max_size=30),
    bound=st.integers(0, 7),
    mode=st.sampled_from(["overwrite", "append", "upsert"]),
    batched=st.booleans(),
)
def test_the_ledger_balances_whatever_the_rows(
    ids: list[int | None], bound: int, mode: str, batched: bool, configured: Configured, connect: Connect
) -> None:
    connection = connect()
    connection.execute("DROP TABLE IF EXISTS s, t; CREATE TABLE s (id int, n int)")
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO s VALUES (%s, 1)", [(i,) for i in ids])
    steps = [{"type": "filter", "parameters": {"where": f"id IS NULL OR id + 0 <> {bound}"}}]
    if not batched:
        steps.append({"type": "deduplicate", "parameters": {"key": ["id", "n"]}})

    record = pipeline.run(
        configured(
            transformations=steps,
            quality_rules=[{"type": "not_null", "field": "id"}, UNIQUE],
            error_handling=LOOSE,
            target={"write_mode": mode, "allow_empty": True} | ({"primary_key": "id"} if mode == "upsert" else {}),
        )
    )

    rows = record.rows
    assert rows.read == len(ids) == rows.filtered + rows.deduplicated + rows.quarantined + rows.written + rows.unchanged
    assert rows.filtered == ids.count(bound)
    wanted = [i for i in ids if i not in {None, bound} and (not batched or ids.count(i) == 1)]
    assert [row[0] for row in table(connection)] == sorted(set(wanted))
    connection.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"read": 11}, "step 'f' got 10 rows of the 11 before it"),
        ({"quarantined": 1}, "7 rows were accepted, the target staged 8"),
        ({"written": 7}, "8 rows were staged, the target accounts for 7"),
        ({"filtered": 1}, "10 rows came in, 9 are accounted for"),
    ],
)
def test_an_unbalanced_record_says_where(change: dict[str, int], words: str) -> None:
    record = RunRecord.start("p", "t", "1")
    record.rows = Rows(**({"read": 10, "filtered": 2, "written": 8} | change))
    record.steps, record.staged = [StepCount("f", "filtered", 10, 8)], 8

    with pytest.raises(LedgerError, match=words):
        record.balance()


def test_what_this_version_does_not_do_yet_is_said(configured: Configured, connect: Connect) -> None:
    connect().execute(PEOPLE)
    alerts = [{"type": "slack", "channel": "#data"}]

    record = pipeline.run(configured(monitoring={"alerts": alerts}))

    assert "does not send slack" in record.warnings[0]


# --- what a review found ---


JOINED = {"type": "join", "parameters": {"source": "b", "on": "id", "how": "left"}}
TOTALLED = {
    "type": "aggregate",
    "parameters": {"group_by": ["id"], "aggregations": [{"field": "m", "function": "sum"}]},
}
DOUBLED = {"type": "calculate", "parameters": {"expressions": [{"field": "m", "formula": "n * 2"}]}}
SORTED = {"type": "sort", "parameters": {"by": [{"field": "m"}]}}


@pytest.mark.parametrize(
    "steps",
    [[DOUBLED, JOINED], [DOUBLED, TOTALLED], [DOUBLED, SORTED, {"type": "map", "parameters": {"drop": ["m"]}}]],
    ids=["join", "aggregate", "sort and drop"],
)
def test_row_local_steps_may_come_before_others(
    steps: list[dict[str, Any]], configured: Configured, connect: Connect, database: str
) -> None:
    connection = connect()
    connection.execute(PEOPLE)
    connection.execute("CREATE TABLE b (id bigint, city text); INSERT INTO b VALUES (1, 'Rome')")
    source = {"type": "database", "connection_string": database}
    both = {"a": source | {"schema": {"table": "s"}}, "b": source | {"schema": {"table": "b"}}}

    record = pipeline.run(configured(sources=both, transformations=steps))

    assert record.rows.read == 5
    assert len(table(connection)) == record.rows.written == 5 - record.rows.aggregated


def test_rules_of_the_source_may_be_followed_by_a_filter(configured: Configured, connect: Connect) -> None:
    connect().execute(PEOPLE)

    record = pipeline.run(
        configured(
            source={"rules": [EMAIL]},
            transformations=[{"type": "filter", "parameters": {"where": "n + 0 > 3"}}],
            error_handling=LOOSE,
        )
    )

    assert record.rows == Rows(read=5, quarantined=1, filtered=2, written=2)


def test_texts_of_the_source_do_not_depend_on_its_settings(
    configured: Configured, connect: Connect, database: str
) -> None:
    connection = connect()
    connection.execute("CREATE TABLE s (d daterange); INSERT INTO s VALUES ('[2024-02-01,2024-03-01)')")
    name = database.partition("?")[0].rpartition("/")[2]
    connection.execute(f"ALTER DATABASE \"{name}\" SET datestyle = 'SQL, DMY'")
    connection.execute(f"ALTER DATABASE \"{name}\" SET statement_timeout = '300ms'")
    source = {"type": "database", "connection_string": database, "query": "SELECT d FROM s, pg_sleep(0.5)"}

    pipeline.run(configured(sources={"slow": source}))

    assert table(connection) == [("[2024-02-01,2024-03-01)",)]


def test_an_error_of_a_joined_source_leaves_no_thread_behind(
    configured: Configured, connect: Connect, database: str
) -> None:
    connect().execute("CREATE TABLE a AS SELECT g AS id FROM generate_series(1, 100000) g")
    connect().execute("CREATE TABLE b (id int, x date); INSERT INTO b VALUES (1, 'infinity')")
    source = {"type": "database", "connection_string": database}
    both = configured(
        sources={"a": source | {"schema": {"table": "a"}}, "b": source | {"schema": {"table": "b"}}},
        transformations=[{"type": "join", "parameters": {"source": "b", "on": "id"}}],
    )

    with pytest.raises(LockgateError, match="infinity"):
        pipeline.run(both)

    names = {thread.name for thread in threading.enumerate()}
    assert not {name for name in names if name.startswith("lockgate")}
