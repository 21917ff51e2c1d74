"""Hundreds of SIGKILLs, at random moments of every way to write, each followed by a normal run.

Nothing is lost, nothing is doubled, the ledger adds up, and nothing of the dead run is left: after each kill the
table is as before or as after, and after the run that follows it is what a model that never crashes says.
"""

from __future__ import annotations

import json
import random
import signal
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import polars as pl
import psycopg
import pytest

from flows import pipeline
from flows._config import load
from flows._home import home
from tests._python import Child

pytestmark = pytest.mark.postgres
Rows = Counter[tuple[Any, ...]]

NAME = "kills"
CONFIG = """
pipelines:
  kills:
    type: batch
    source: {{type: database, connection_string: "{uri}", schema: {{table: source}}, batch_bytes: 64000}}
    target: {target}
    transformations: [{{type: filter, parameters: {{where: "id IS NULL OR id % 10 <> 3"}}}}]
    quality_rules:
      - {{type: not_null, field: id}}
      - {{type: unique, field: id}}
    {more}
"""
#: Says which stage it is in, so that the test knows how far it is.
CHILD = """
import sys
from flows import pipeline
from flows._config import load
from flows._report import Silent
class Loud(Silent):
    def stage(self, name): print(name, flush=True)
pipeline.run(load(sys.argv[1]).pipeline("kills"), reporter=Loud())
print("ended", flush=True)
"""
#: A row without a key and one that is there twice are rejected by every run that reads them.
SOURCE = """
CREATE TABLE source AS
SELECT nullif(g, 77) AS id, repeat(md5(g::text), 4) AS name, (g / 7.0)::numeric(12, 3) AS amount,
       TIMESTAMPTZ '2024-01-01' + g * INTERVAL '1 second' AS updated_at
FROM generate_series(1, {rows}) g;
INSERT INTO source VALUES (5, 'twice', 0, TIMESTAMPTZ '2024-01-01')
"""
NEW = """
INSERT INTO source
SELECT g, repeat(md5(g::text), 4), 0, TIMESTAMPTZ '2024-01-01' + g * INTERVAL '1 second'
FROM (SELECT max(id) AS last FROM source) AS m, generate_series(last + 1, last + {rows}) g;
"""
CHANGED = """
UPDATE source SET name = repeat(md5(name), 4) WHERE id % 5 = {turn} % 5 AND id > 10;
DELETE FROM source WHERE id BETWEEN 100 + 7 * {turn} AND 103 + 7 * {turn};
"""
GOOD = "SELECT id, name, amount FROM source WHERE id % 10 <> 3 AND id <> 5"
#: Versions that end before another one begins, or while it is true already.
GAPS = """
SELECT count(*) FROM (SELECT valid_to, lead(valid_from) OVER (PARTITION BY id ORDER BY valid_from) AS next FROM target)
WHERE valid_to IS DISTINCT FROM next
"""
SESSIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""

# --- the model: what a run that nobody kills makes of a table ---


def overwritten(before: Rows, good: Rows) -> Rows:
    return good


def appended(before: Rows, good: Rows) -> Rows:
    return before + good


def merged(before: Rows, good: Rows) -> Rows:
    return Counter({row[0]: row for row in (*before, *good)}.values())


def continued(before: Rows, good: Rows) -> Rows:
    """History: rows have a last value that says whether they are current."""
    current = {row[0]: row for row in before if row[-1]}
    after = before.copy()
    for row in good:
        old, new = current.get(row[0]), (*row, True)
        if old != new:
            after[new] += 1
            if old is not None:
                after[old] -= 1
                after[*old[:-1], False] += 1
    return +after


MODEL: dict[str, Callable[[Rows, Rows], Rows]] = {
    "overwrite": overwritten,
    "append": appended,
    "upsert": merged,
    "delete_insert": merged,
    "scd2": continued,
    "incremental": overwritten,  # every row of the source once, however many runs it took
}


# --- the places ---


class Place(ABC):
    """Where a pipeline writes, as a reader and an administrator know it.

    Attributes:
        rows: of the source.
    """

    rows: ClassVar[int] = 1_500

    def __init__(self, mode: str, uri: str, connection: psycopg.Connection, folder: Path) -> None:
        self.mode = mode
        self.connection = connection
        self.folder = folder
        connection.execute(SOURCE.format(rows=self.rows))
        more = "incremental: {cursor_field: updated_at}" if mode == "incremental" else ""
        self.config = folder / "kills.yaml"
        self.config.write_text(CONFIG.format(uri=uri, target=json.dumps(self.target(uri) | self.keys()), more=more))
        self.pipeline = load(self.config).pipeline(NAME)

    @abstractmethod
    def target(self, uri: str) -> dict[str, Any]:
        """The keys that say where it is."""

    def keys(self) -> dict[str, Any]:
        if self.mode in {"append", "incremental"}:
            return {"write_mode": "append"}
        return {"write_mode": self.mode} | ({} if self.mode == "overwrite" else {"primary_key": "id"})

    @abstractmethod
    def table(self) -> Rows:
        """The rows that are there."""

    @abstractmethod
    def left(self) -> list[str]:
        """What should not be there between runs."""

    def seen(self) -> Rows:
        """The rows that a reader finds who does not know us."""
        return self.table()

    def scalar(self, query: str) -> Any:
        return (self.connection.execute(query).fetchone() or (None,))[0]

    def good(self) -> Rows:
        return Counter(self.connection.execute(GOOD).fetchall())

    def change(self, turn: int) -> None:
        """Make the next load differ from the last, so that before and after can be told apart."""
        if self.mode == "incremental":
            self.connection.execute(NEW.format(rows=self.rows // 4))
        else:
            self.connection.execute(NEW.format(rows=20) + CHANGED.format(turn=turn))

    def settle(self) -> None:
        """Wait until the server has noticed that its client is dead."""
        deadline = time.monotonic() + 20
        while self.scalar(SESSIONS):
            assert time.monotonic() < deadline, "the server still works for a dead client"
            time.sleep(0.01)

    def history(self) -> list[dict[str, Any]]:
        return self.pipeline.target.history(NAME, 10_000)

    def run(self) -> None:
        record = pipeline.run(self.pipeline)
        assert record.status in {"published", "unchanged"}


class InPostgres(Place):
    def target(self, uri: str) -> dict[str, Any]:
        return {"type": "database", "connection_string": uri, "table_name": "target"}

    def table(self) -> Rows:
        if self.scalar("SELECT to_regclass('target')") is None:
            return Counter()
        current = ", is_current" if self.mode == "scd2" else ""
        return Counter(self.connection.execute(f"SELECT id, name, amount{current} FROM target").fetchall())

    def left(self) -> list[str]:
        relations = """
            SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace IN ('lockgate'::regnamespace,
            'public'::regnamespace) AND relname NOT IN ('loads', 'quarantine', 'state', 'source', 'target')
        """
        locks = "SELECT 'a lock of ' || pid FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM "
        locks += "pg_database WHERE datname = current_database())"
        quarantined = """
            SELECT 'the quarantine of ' || coalesce(l.run_id, q.run_id)
            FROM (SELECT run_id, rows_quarantined AS n FROM lockgate.loads WHERE rows_quarantined > 0) AS l
            FULL JOIN (SELECT run_id, count(*) AS n FROM lockgate.quarantine GROUP BY run_id) AS q USING (run_id)
            WHERE l.n IS DISTINCT FROM q.n
        """
        found = [name for query in (relations, locks, quarantined) for (name,) in self.connection.execute(query)]
        if self.mode == "scd2" and self.scalar(GAPS):
            found.append("gaps between versions")
        return found


class InLake(Place):
    """A lake on this machine, or on S3."""

    rows = 1_200

    def __init__(
        self, mode: str, uri: str, connection: psycopg.Connection, folder: Path, format_: str, bucket: Any = None
    ) -> None:
        self.format = format_
        self.where = str(folder / "lake") if bucket is None else f"{bucket.url}/lake"
        self.options = None if bucket is None else bucket.options
        super().__init__(mode, uri, connection, folder)
        self.store = self.pipeline.target._store
        self.root = self.store.path

    def target(self, uri: str) -> dict[str, Any]:
        options = {} if self.options is None else {"storage_options": self.options}
        return {
            "type": "data_lake",
            "path": self.where,
            "format": self.format,
            "target_file_bytes": 30_000,
            **options,
        }

    def manifests(self) -> list[dict[str, Any]]:
        """Newest first."""
        folder = f"{self.root}/_lockgate/manifests"
        places = sorted((place for place in self.files() if place.startswith(f"{folder}/0")), reverse=True)
        return [json.loads(self.store.fs.cat_file(place)) for place in places[:3]]

    def files(self) -> list[str]:
        self.store.fs.invalidate_cache()
        return [place for place in self.store.fs.find(self.root) if place != f"{self.root}/current"]

    def log(self) -> list[dict[str, Any]]:
        texts = [place for place in self.files() if "/_delta_log/0" in place and place.endswith(".json")]
        return [json.loads(line) for place in texts for line in self.store.fs.cat_file(place).splitlines()]

    def table(self) -> Rows:
        options = None if self.options is None else dict(self.store.object_store())
        if self.format == "delta":
            if not any("/_delta_log/0" in place for place in self.files()):
                return Counter()
            return _counted(pl.scan_delta(self.where, storage_options=options))
        newest = next(iter(self.manifests()), {"files": []})
        places = [f"{self.where}/{file['path']}" for file in newest["files"]]
        return _counted(pl.scan_parquet(places, storage_options=options)) if places else Counter()

    def seen(self) -> Rows:
        if self.format == "delta" or self.options is not None:
            return self.table()
        current = Path(self.root, "current")
        return _counted(pl.scan_parquet(current.resolve() / "**/*.parquet")) if current.exists() else Counter()

    def left(self) -> list[str]:
        ended = self.history()
        loads = {f"_lockgate/loads/{NAME}/{run['run_id']}.json" for run in ended}
        quarantined = {run["run_id"]: run["rows"]["quarantined"] for run in ended if run["rows"]["quarantined"]}
        kept = {f"_lockgate/quarantine/{NAME}/{run_id}.quarantine" for run_id in quarantined}
        if self.format == "delta":
            data = {unquote(action["add"]["path"]) for action in self.log() if "add" in action}
        else:
            data = {file["path"] for manifest in self.manifests() for file in manifest["files"]}
        known = loads | kept | data | {f"_lockgate/state/{NAME}.json"}
        found = [place.removeprefix(f"{self.root}/") for place in self.files()]
        strange = [place for place in found if place not in known and not _is_log(place)]
        strange += [f"missing: {place}" for place in sorted((loads | kept | data) - {*found})]
        if self.format == "parquet" and self.options is None:
            versions = {manifest["run_id"] for manifest in self.manifests()}
            strange += [path.name for path in Path(self.root, "versions").iterdir() if path.name not in versions]
        newest = ended[0]["run_id"]
        kept_rows = len(self.pipeline.target.quarantined(NAME, newest, 10_000))
        return strange + (["the quarantine is not whole"] if kept_rows != quarantined.get(newest, 0) else [])


def _is_log(place: str) -> bool:
    folder, _, name = place.rpartition("/")
    return folder in {"_delta_log", "_lockgate/manifests"} and name[:1] in {"0", "_last"} and not name.endswith(".tmp")


def _counted(frame: pl.LazyFrame) -> Rows:
    return Counter(frame.select("id", "name", "amount").collect().rows())


# --- killing ---


@dataclass
class Killer:
    """Starts runs, and kills them at moments drawn over the whole of the mode's usual run.

    Attributes:
        usual: seconds that each stage takes when nobody kills it.
    """

    place: Place
    chance: random.Random

    def __post_init__(self) -> None:
        self.temporary = self.place.folder / "temporary"
        self.temporary.mkdir()
        self.usual: dict[str, float] = {}

    @contextmanager
    def started(self) -> Iterator[Child]:
        with Child(CHILD, str(self.place.config), variables={"TMPDIR": str(self.temporary)}) as child:
            try:
                yield child
            finally:
                child.kill()

    def measure(self) -> None:
        """Learn how long the stages usually take, from one run."""
        with self.started() as child:
            said = [(line.strip(), time.monotonic()) for line in child.stdout]
            ends = [at for _stage, at in said[1:]]
            assert [word for word, _at in said] == ["extract", "transform", "validate", "load", "ended"]
        self.usual = {stage: end - at for (stage, at), end in zip(said, ends, strict=False)}

    def moment(self) -> tuple[str, float]:
        """Half of the moments lie anywhere in the run, the other half where it publishes."""
        if self.chance.random() < 0.5:
            return "load", self.chance.uniform(0, self.usual["load"])
        moment = self.chance.uniform(0, sum(self.usual.values()))
        for stage, seconds in self.usual.items():
            if moment < seconds:
                return stage, moment
            moment -= seconds
        return "load", self.usual["load"]

    def kill(self) -> str | None:
        """Kill one run; the stage that it was in, or None where it had ended before."""
        stage, seconds = self.moment()
        last = "start"
        with self.started() as child:
            for line in child.stdout:
                last = line.strip()
                if last == stage:
                    break
            time.sleep(seconds)
            child.kill()
            child.wait()
            said = [last, *(line.strip() for line in child.stdout)]
            if child.returncode == -signal.SIGKILL and "ended" not in said:
                return said[-1]
        self.usual[stage] *= 0.8
        return None


#: Where, how, and how many processes are killed there.
CASES: dict[str, tuple[str, str, int]] = {
    "overwrite": ("postgres", "overwrite", 22),
    "append": ("postgres", "append", 22),
    "upsert": ("postgres", "upsert", 22),
    "delete_insert": ("postgres", "delete_insert", 22),
    "scd2": ("postgres", "scd2", 22),
    "incremental": ("postgres", "incremental", 22),
    "delta-overwrite": ("delta", "overwrite", 11),
    "delta-append": ("delta", "append", 11),
    "delta-upsert": ("delta", "upsert", 11),
    "parquet-overwrite": ("parquet", "overwrite", 11),
    "parquet-append": ("parquet", "append", 11),
    "parquet-upsert": ("parquet", "upsert", 11),
    "delta-s3": ("delta s3", "upsert", 6),
    "parquet-s3": ("parquet s3", "append", 6),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, database: str, connect: Any, tmp_path: Path) -> tuple[Place, int]:
    where, mode, kills = CASES[request.param]
    if where == "postgres":
        return InPostgres(mode, database, connect(), tmp_path), kills
    format_, _, on_s3 = where.partition(" ")
    bucket = request.getfixturevalue("s3") if on_s3 else None
    return InLake(mode, database, connect(), tmp_path, format_, bucket), kills


def test_the_suite_kills_two_hundred_processes() -> None:
    assert sum(kills for _where, _mode, kills in CASES.values()) >= 200


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.soak)], ids=["once", "ten-times"])
def test_killed_at_any_moment(case: tuple[Place, int], times: int) -> None:
    place, wanted = case
    seed = random.randrange(2**32)
    killer = Killer(place, random.Random(seed))
    after = MODEL[place.mode]
    table = Rows()
    for _ in range(2):
        place.change(0)
        killer.measure()
        table = after(table, place.good())
    loads, killed, published = 2, Counter[str](), 0
    turn = 0
    while killed.total() < wanted * times:
        turn += 1
        assert turn < 3 * wanted * times, f"most runs had ended before they were killed: {killed}"
        place.change(turn)
        before, good = table, place.good()
        stage = killer.kill()
        try:
            killed.update([stage] if stage else [])
            place.settle()
            table, complete = place.table(), after(before, good)
            assert table in (before, complete), _difference(table, before, complete)
            assert place.seen() in (before, complete)
            was_published = table != before
            assert was_published or stage, "a run that ended has published nothing"
            published += was_published and stage is not None
            assert len(place.history()) == loads + was_published

            place.run()

            complete = after(table, good)
            table = place.table()
            assert table == place.seen() == complete, _difference(table, complete)
            ledger = place.history()
            loads += was_published + 1
            assert len(ledger) == loads
            # What was published already is found to be there, where rows are compared.
            is_there = was_published and place.mode in {"upsert", "scd2", "incremental"}
            assert ledger[0]["status"] == ("unchanged" if is_there else "published")
            assert {run["status"] for run in ledger} <= {"published", "unchanged"}
            assert all(_balances(run["rows"]) for run in ledger)
            assert place.left() == []
            assert [path.name for path in (home() / "runs").iterdir()] == []
            assert [path.name for path in killer.temporary.iterdir()] == []
        except BaseException as error:
            error.add_note(f"seed {seed}, turn {turn}, killed in {stage}; before that {killed}, {published} published")
            raise


def _balances(rows: dict[str, int]) -> bool:
    return rows["read"] == sum(count for name, count in rows.items() if name != "read")


def _difference(found: Rows, *expected: Rows) -> str:
    one = [f"{(found - rows).total()} rows too many, {(rows - found).total()} too few" for rows in expected]
    return f"{found.total()} rows: " + "; or ".join(one)
