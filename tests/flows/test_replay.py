"""Rows in quarantine go through today's pipeline once, whatever kind of target they go to."""

from __future__ import annotations

import json
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import psycopg
import pytest
from click.testing import CliRunner

from flows import _stages
from flows import pipeline as batch
from flows.__main__ import main
from flows._config import Pipeline, load
from flows._errors import ConfigError, LoadError
from flows._ledger import RunRecord
from flows._replay import Choice, replaying
from flows._stages import Run
from flows.targets._base import Chamber
from tests._python import Child
from validations._errors import BrokenContractError

pytestmark = pytest.mark.postgres
Connect = Callable[[], psycopg.Connection]
KINDS = ["postgresql", "sqlite", "duckdb", "file csv", "file parquet", "lake delta", "lake parquet", "several", "api"]
#: What the source has: huge and odd texts, and amounts of which the second and the fifth are too large.
ROWS = [
    {"id": 1, "amount": 1.5, "name": "Ada"},
    {"id": 2, "amount": 150.0, "name": 'größe ☃ 😀 "hi" it\'s\\'},
    {"id": 3, "amount": -2.0, "name": "x" * 50_000},
    {"id": 4, "amount": None, "name": None},
    {"id": 5, "amount": 1e300, "name": "y" * 100_000},
]


class Place:
    """A pipeline from a file to one kind of target; `most` is what its only rule lets pass."""

    def __init__(self, kind: str, folder: Path, uri: str, answered: list[dict[str, Any]]) -> None:
        self.kind, self.folder, self.uri = kind, folder, uri
        self.sent = answered
        self.source = folder / "in.ndjson"
        self.rows_are(ROWS)
        self.target: dict[str, Any] = self._keys(kind)

    def _keys(self, kind: str) -> dict[str, Any]:
        there = {
            "postgresql": {"type": "database", "connection_string": self.uri, "table_name": "t"},
            "sqlite": {"type": "database", "connection_string": f"sqlite:///{self.folder}/t.db", "table_name": "t"},
            "duckdb": {"type": "database", "connection_string": f"duckdb:///{self.folder}/t.db", "table_name": "t"},
            "file csv": {"type": "file", "path": f"{self.folder}/t.csv"},
            "file parquet": {"type": "file", "path": f"{self.folder}/t.parquet"},
            "lake delta": {"type": "data_lake", "path": f"{self.folder}/lake"},
            "lake parquet": {"type": "data_lake", "path": f"{self.folder}/lake", "format": "parquet"},
            "api": {"type": "api", "url": self.uri, "state_folder": f"{self.folder}/api"},
        }
        mode = {} if kind in {"several", "api"} else {"write_mode": "append"}
        return there.get(kind, there["sqlite"]) | mode

    def rows_are(self, rows: list[dict[str, Any]]) -> None:
        pl.DataFrame(rows, schema={"id": pl.Int64, "amount": pl.Float64, "name": pl.String}).write_ndjson(self.source)

    def pipeline(self, most: float = 100, **keys: Any) -> Pipeline:
        target: dict[str, Any] = {"target": self.target}
        if self.kind == "several":
            near = self._keys("sqlite") | {"write_mode": "append"}
            target = {"targets": {"near": near, "far": self._keys("file parquet") | {"write_mode": "append"}}}
        said = {
            "type": "batch",
            "source": {"type": "file", "path": str(self.source)},
            "transformations": [
                {"type": "calculate", "parameters": {"expressions": [{"field": "double", "formula": "amount * 2"}]}}
            ],
            "quality_rules": [{"type": "between", "field": "amount", "parameters": {"max": most}}],
            "error_handling": {"max_failed_ratio": 1},
        }
        file = self.folder / "pipelines.yaml"
        file.write_text(json.dumps({"pipelines": {"p": {**said, **target, **keys}}}))
        return load(file).pipeline("p")

    def run(self, most: float = 100, **keys: Any) -> RunRecord:
        return batch.run(self.pipeline(most, **keys))

    def replay(self, most: float = 1e301, choice: Choice | None = None, **keys: Any) -> RunRecord:
        return batch.run(replaying(self.pipeline(most, **keys), choice or Choice()))

    def ids(self) -> list[int]:
        """What readers of the target see."""
        return sorted(self.frame()["id"].to_list())

    def frame(self) -> pl.DataFrame:
        keys = self.target
        if self.kind == "api":
            return pl.DataFrame(self.sent, schema={"id": pl.Int64, "amount": pl.Float64, "double": pl.Float64})
        if keys["type"] == "data_lake":
            if self.kind == "lake delta":
                return pl.read_delta(keys["path"])
            return pl.read_parquet(f"{keys['path']}/current/**/*.parquet")
        if keys["type"] == "file":
            read: Callable[[str], pl.DataFrame] = pl.read_csv if self.kind == "file csv" else pl.read_parquet
            return read(keys["path"])
        return self._table(keys["connection_string"])

    @staticmethod
    def _table(uri: str) -> pl.DataFrame:

        scheme, _, path = uri.partition(":///")
        opened: Any = {"sqlite": sqlite3.connect, "duckdb": duckdb.connect}.get(scheme)
        connection = opened(path) if opened else psycopg.connect(uri)
        try:
            found = connection.execute("SELECT id, amount, name, double FROM t").fetchall()
        finally:
            connection.close()
        return pl.DataFrame(found, schema=["id", "amount", "name", "double"], orient="row")

    def statuses(self, run_id: str) -> dict[int, str]:
        rows = self.pipeline().target.quarantined("p", run_id, 99)
        return {row["values"]["id"]: row["status"] for row in rows}

    def waiting(self) -> list[int]:
        frames = self.pipeline().target.kept("p", status="waiting")
        return sorted(json.loads(values)["id"] for frame in frames for values in frame["values"])


def listening(answered: list[dict[str, Any]]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answered.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    answered: list[dict[str, Any]] = []
    server = listening(answered) if request.param == "api" else None
    if server is not None:
        uri = f"http://127.0.0.1:{server.server_port}/rows"
    else:
        uri = request.getfixturevalue("database") if request.param == "postgresql" else ""
    yield Place(request.param, tmp_path, uri, answered)
    if server is not None:
        server.shutdown()
        server.server_close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Place:
    return Place("sqlite", tmp_path, "", [])


def test_after_a_fix_the_rows_are_published_once(place: Place) -> None:
    first = place.run()
    assert (place.ids(), place.waiting()) == ([1, 3, 4], [2, 5])

    replay = place.replay()

    assert replay.status == "published"
    assert (replay.rows.read, replay.rows.written, replay.rows.quarantined) == (2, 2, 0)
    assert replay.replays == {first.run_id: [0, 1]}
    assert place.ids() == [1, 2, 3, 4, 5]
    assert dict(place.frame().select("id", "double").rows())[2] == 300
    assert place.statuses(first.run_id) == {2: "replayed", 5: "replayed"}
    kept = place.pipeline().target.quarantined("p", first.run_id, 9)
    assert {row["resolved_by"] for row in kept} == {replay.run_id}
    assert place.pipeline().target.history("p", 1)[0]["replays"] == {first.run_id: 2}
    again = place.replay()
    assert (again.status, again.rows.read) == ("unchanged", 0)
    assert place.ids() == [1, 2, 3, 4, 5]


def test_every_verb_of_the_command_line(place: Place) -> None:
    run = place.run()
    place.pipeline(1e301)

    def answer(*words: str) -> Any:
        config = ("--config", str(place.folder / "pipelines.yaml"), "--json")
        result = CliRunner().invoke(main, ["quarantine", words[0], "p", *words[1:], *config])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    assert answer("list")["runs"][0]["waiting"] == 2
    assert [row["values"]["name"] for row in answer("show")] == [ROWS[1]["name"], ROWS[4]["name"]]
    assert answer("export", str(place.folder / "out.parquet"))["rows"] == 2
    exported = pl.read_parquet(place.folder / "out.parquet")
    assert [json.loads(values)["amount"] for values in exported["values"]] == [150.0, 1e300]
    assert answer("discard", "--row", "1", "--yes")["discarded"] == 1
    assert answer("replay", "--no-prefect")["replays"] == {run.run_id: 1}
    assert [row["status"] for row in answer("show")] == ["discarded", "replayed"]
    assert place.ids() == [1, 3, 4, 5]


def test_rows_that_fail_again_wait_in_one_place_only(place: Place) -> None:
    first = place.run()

    replay = place.replay(most=200)

    assert (replay.rows.read, replay.rows.written, replay.rows.quarantined) == (2, 1, 1)
    assert place.ids() == [1, 2, 3, 4]
    assert place.statuses(first.run_id) == {2: "replayed", 5: "replayed"}
    assert place.statuses(replay.run_id) == {5: "waiting"}
    last = place.replay()
    assert last.replays == {replay.run_id: [0]}
    assert (place.ids(), place.waiting()) == ([1, 2, 3, 4, 5], [])


def test_the_rows_that_were_chosen(sqlite: Place) -> None:
    first = sqlite.run()
    second = sqlite.run()

    replay = sqlite.replay(choice=Choice(second.run_id, (1,), "amount between"))

    assert replay.replays == {second.run_id: [0]}
    assert sqlite.statuses(first.run_id) == {2: "waiting", 5: "waiting"}
    assert sqlite.replay(choice=Choice(rule="another")).replays == {}
    assert sqlite.replay(choice=Choice("nobody")).replays == {}
    assert len(sqlite.replay().replays or {}) == 2


def test_an_overwrite_is_added_to_and_only_its_newest_load_is_replayed(sqlite: Place) -> None:
    sqlite.target |= {"write_mode": "overwrite"}
    first = sqlite.run()
    second = sqlite.run()

    replay = sqlite.replay()

    assert sqlite.ids() == [1, 2, 3, 4, 5]
    assert replay.replays == {second.run_id: [0, 1]}
    assert sqlite.statuses(first.run_id) == {2: "waiting", 5: "waiting"}
    assert replay.warnings == [
        "write_mode is 'append' for this replay: 'overwrite' would leave only its rows.",
        "2 rows stayed in quarantine: a later load has overwritten theirs; name their run to replay them all the same.",
    ]


@pytest.mark.parametrize("mode", ["overwrite", "upsert", "delete_insert", "scd2"])
def test_a_row_that_waits_twice_is_sent_once_by_key(sqlite: Place, mode: str) -> None:
    sqlite.target |= {"write_mode": mode, "primary_key": ["id"]}
    if mode == "scd2":
        sqlite.target["scd2"] = {"hard_deletes": "close"}
    runs = [sqlite.run(), sqlite.run()]

    replay = sqlite.replay()

    assert (replay.rows.read, replay.rows.written) == (2, 2)
    assert sqlite.ids() == [1, 2, 3, 4, 5]
    taken = runs[1:] if mode == "overwrite" else runs
    assert replay.replays == {run.run_id: [0, 1] for run in taken}
    assert sqlite.replay().rows.read == 0


def test_delete_insert_without_a_key_is_refused(sqlite: Place) -> None:
    sqlite.target |= {"write_mode": "delete_insert", "delete_key": ["id"]}
    sqlite.run()

    with pytest.raises(ConfigError, match="cannot be replayed with write_mode 'delete_insert'"):
        sqlite.replay()


def test_a_refused_replay_leaves_everything_as_it_was(sqlite: Place) -> None:
    first = sqlite.run()
    rule = {"type": "between", "field": "amount", "parameters": {"max": 100}, "on_violation": "fail"}

    with pytest.raises(BrokenContractError):
        sqlite.replay(quality_rules=[rule])

    assert (sqlite.ids(), sqlite.waiting()) == ([1, 3, 4], [2, 5])
    assert sqlite.statuses(first.run_id) == {2: "waiting", 5: "waiting"}
    assert sqlite.pipeline().target.history("p", 1)[0]["status"] == "refused"


def test_rows_of_a_refused_run_are_left_to_the_next_one(sqlite: Place) -> None:
    with pytest.raises(Exception, match="broke the contract"):
        sqlite.run(error_handling={"max_failed_ratio": 0.1})

    replay = sqlite.replay()

    assert (replay.rows.read, replay.replays) == (0, {})
    assert replay.warnings == [
        "2 rows stayed in quarantine: their run published nothing, so the next run reads them again."
    ]


def test_rules_about_a_whole_load_are_not_held(sqlite: Place) -> None:
    rules = [
        {"type": "row_count", "parameters": {"min": 3}, "on_violation": "fail"},
        {"type": "unique", "field": "id"},
    ]
    sqlite.run()

    replay = sqlite.replay(quality_rules=rules)

    assert replay.rows.written == 2
    assert [check["rule"] for check in replay.checks] == ["id unique"]
    assert "row_count(min=3): this rule is about a whole load, and is not held for a replay." in replay.warnings


def test_a_row_that_cannot_be_read_back_stays(sqlite: Place) -> None:
    first = sqlite.run()
    source = {"type": "file", "path": str(sqlite.source), "dtypes": {"id": "string"}}
    sqlite.target["table_name"] = "other"

    replay = sqlite.replay(source=source)

    assert (replay.rows.read, replay.replays) == (0, {})
    assert "1 row stayed in quarantine: column 'id': 2 is no String." in replay.warnings
    assert sqlite.statuses(first.run_id) == {2: "waiting", 5: "waiting"}


def test_merged_rows_and_malformed_records_stay(sqlite: Place) -> None:
    sums = {"group_by": ["id"], "aggregations": [{"field": "amount", "function": "sum"}]}
    merging = [{"type": "aggregate", "parameters": sums}]
    rules = [{"type": "between", "field": "amount_sum", "parameters": {"max": 100}}]
    sqlite.target["table_name"] = "sums"
    with sqlite.source.open("a") as file:
        file.write("no JSON\n")
    keys = {"transformations": merging, "quality_rules": rules}
    first = sqlite.run(**keys)
    assert first.rows.quarantined == 3

    replay = sqlite.replay(**keys)

    assert (replay.rows.read, replay.replays) == (0, {})
    assert sorted(replay.warnings) == [
        "1 row stayed in quarantine: they are records that are no rows; mend them in the source.",
        "2 rows stayed in quarantine: a step had merged them, so they are no rows of the source.",
    ]


#: Replays in a process of its own, and says which stage it is in.
CHILD = """
import sys
from flows import pipeline
from flows._config import load
from flows._replay import Choice, replaying
from flows._report import Silent
class Loud(Silent):
    def stage(self, name): print(name, flush=True)
print(pipeline.run(replaying(load(sys.argv[1]).pipeline("p"), Choice()), reporter=Loud()).status, flush=True)
"""


@pytest.mark.parametrize("turn", range(4))
def test_a_replay_that_is_killed_while_it_publishes(place: Place, turn: int) -> None:
    if place.kind == "api":
        pytest.skip("what an API was told, and did not answer, is told again")
    first = place.run()
    place.pipeline(1e301)

    with Child(CHILD, str(place.folder / "pipelines.yaml")) as child:
        while child.stdout.readline().strip() != "load":
            assert child.poll() is None
        time.sleep(random.uniform(0, 0.04 * turn))
        child.send_signal(signal.SIGKILL)
    place.replay()

    assert (place.ids(), place.waiting()) == ([1, 2, 3, 4, 5], [])
    assert place.statuses(first.run_id) == {2: "replayed", 5: "replayed"}
    assert place.replay().rows.read == 0


def test_a_replay_that_is_killed_inside_the_transaction(database: str, connect: Connect, tmp_path: Path) -> None:
    place = Place("postgresql", tmp_path, database, [])
    place.run()
    place.pipeline(1e301)
    connection = connect()

    with connection.transaction():
        connection.execute("LOCK TABLE lockgate.loads IN EXCLUSIVE MODE")  # the ledger is written after the marks
        with Child(CHILD, str(place.folder / "pipelines.yaml")) as child:
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'lockgate.loads'::regclass"
            while connection.execute(waiting).fetchone() == (0,):
                assert child.poll() is None
                time.sleep(0.01)
            child.send_signal(signal.SIGKILL)
    alive = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lockgate p %'"
    while connection.execute(alive).fetchone() != (0,):
        time.sleep(0.02)

    assert (place.ids(), place.waiting()) == ([1, 3, 4], [2, 5])
    place.replay()
    assert (place.ids(), place.waiting()) == ([1, 2, 3, 4, 5], [])


def test_targets_of_which_one_had_the_rows_before(tmp_path: Path) -> None:
    place = Place("several", tmp_path, "", [])
    place.run()
    far = tmp_path / "t.parquet"

    def written_by_somebody_else(run: Run, chamber: Chamber) -> None:
        shutil.copy(far, tmp_path / "copy").replace(far)
        _stages.load(run, chamber)

    with pytest.raises(LoadError, match="The load is published to 'near' all the same"):
        batch.run(replaying(place.pipeline(1e301), Choice()), stages=batch.Stages(load=written_by_somebody_else))
    assert (place.ids(), sorted(pl.read_parquet(far)["id"])) == ([1, 2, 3, 4, 5], [1, 3, 4])
    replay = place.replay()

    assert {name: each["status"] for name, each in replay.targets.items()} == {"near": "unchanged", "far": "published"}
    assert place.ids() == [1, 2, 3, 4, 5]
    assert sorted(pl.read_parquet(far)["id"]) == [1, 2, 3, 4, 5]
    assert place.waiting() == []


def test_two_replays_at_once(sqlite: Place) -> None:
    first = sqlite.run()
    one = replaying(sqlite.pipeline(1e301), Choice())

    stages = batch.Stages(load=lambda run, chamber: (sqlite_marks(sqlite, first), _stages.load(run, chamber))[1])
    with pytest.raises(LoadError, match="ceased to wait"):
        batch.run(one, stages=stages)

    assert sqlite.ids() == [1, 3, 4]


def sqlite_marks(place: Place, first: RunRecord) -> None:
    """Somebody is quicker."""
    assert place.pipeline().target.discard("p", {first.run_id: [0]}) == 1


def test_the_state_of_sources_stays(sqlite: Place) -> None:
    source = {"type": "file", "path": str(sqlite.source), "only_new": True}
    sqlite.run(source=source)
    before = sqlite.pipeline().target.state("p")
    assert before

    replay = sqlite.replay(source=source)

    assert replay.rows.written == 2
    assert sqlite.pipeline().target.state("p") == before


def test_a_source_that_is_gone_ends_the_replay(sqlite: Place) -> None:
    sqlite.run()
    sqlite.source.unlink()

    with pytest.raises(Exception, match=r"in\.ndjson"):
        sqlite.replay()

    assert sqlite.waiting() == [2, 5]


def test_the_quarantine_forgets_after_its_days(sqlite: Place) -> None:
    first = sqlite.run()
    with sqlite3.connect(sqlite.folder / "t.db") as connection:
        connection.execute("UPDATE lockgate_quarantine SET quarantined_at = '2020-01-01T00:00:00.000000+00:00'")
    connection.close()

    assert sqlite.run().forgotten == 0
    second = sqlite.run(quarantine={"retention_days": 30})

    assert second.forgotten == 2
    assert sqlite.statuses(first.run_id) == {}
    assert len(sqlite.statuses(second.run_id)) == 2


def test_values_of_every_kind_arrive_as_they_were_read(database: str, connect: Connect, tmp_path: Path) -> None:
    connection = connect()
    connection.execute("""
        CREATE TABLE source AS SELECT g AS id, 12345678901234567890.123456789::numeric(38, 9) AS exact,
            'NaN'::float8 AS odd, '-0'::float8 AS zero, date '4000-02-29' AS day,
            timestamp '1890-01-01 00:00:00.000001' AS at,
            timestamptz '2024-10-27 02:30:00.123456+01' AS moment, time '23:59:59.999999' AS clock,
            '\\x00ff'::bytea AS bytes, ARRAY[1.5, NULL, 'Infinity']::float8[] AS several, true AS truth,
            E'\\u2028 "größe" \\n\\\\' AS text, NULL::int AS nothing
        FROM generate_series(1, 3) AS g
    """)
    place = Place("postgresql", tmp_path, database, [])
    source = {"type": "database", "connection_string": database, "schema": {"table": "source"}}
    rules = [{"type": "between", "field": "id", "parameters": {"max": 1}}]
    keys = {"source": source, "transformations": []}
    place.run(**keys, quality_rules=rules)

    replay = place.replay(**keys, quality_rules=[])

    assert (replay.rows.written, replay.warnings) == (2, [])
    different = "(TABLE source EXCEPT TABLE t) UNION ALL (TABLE t EXCEPT TABLE source)"
    assert connection.execute(different).fetchall() == []
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (3,)
