from __future__ import annotations

import re
from urllib.parse import urlsplit

import psycopg
import pytest
import tenacity

from flows import _config
from flows._errors import SourceMissingError, SourceUnreachableError, TargetBusyError
from flows._keys import ErrorHandling
from flows._ledger import RunRecord
from flows._report import Silent
from flows._retry import JITTER, LONGEST_SECONDS, Policy, is_retryable, retried
from flows._stages import Run
from flows.pipeline import Stages, run
from transforms._errors import LockgateError


@pytest.mark.parametrize(
    ("keys", "retries", "delays"),
    [
        ({"strategy": "fail", "max_retries": 3}, 0, ()),
        ({"strategy": "continue", "max_retries": 3}, 0, ()),
        ({}, 0, ()),
        ({"strategy": "retry"}, 3, (300, 600, 1200)),
        ({"strategy": "retry", "max_retries": 0}, 0, ()),
        ({"strategy": "retry", "max_retries": 4, "retry_delay": "5s"}, 4, (5, 10, 20, 40)),
        ({"strategy": "retry", "max_retries": 2, "retry_delay": 0}, 2, (0, 0)),
        ({"strategy": "retry", "max_retries": 3, "retry_delay": "40m"}, 3, (2400, LONGEST_SECONDS, LONGEST_SECONDS)),
        ({"strategy": "retry", "max_retries": 2, "retry_delay": "1d"}, 2, (86_400, 86_400)),
    ],
)
def test_error_handling_as_numbers(keys, retries, delays):
    assert Policy.of(ErrorHandling.model_validate(keys)) == Policy(retries, delays)


def test_prefect_can_keep_the_delays_of_many_retries():
    policy = Policy.of(ErrorHandling(strategy="retry", max_retries=100, retry_delay=1))

    assert policy.retries == 100
    assert len(policy.delays) == 50
    assert policy.delays[-1] == LONGEST_SECONDS


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SourceUnreachableError("nobody answers"), True),
        (SourceMissingError("no such table"), False),
        (LockgateError("no"), False),
        (ConnectionError("foreign"), False),
        (None, False),
    ],
)
def test_only_the_error_is_asked(error, expected):
    assert is_retryable(error) is expected


class Heard(Silent):
    def __init__(self):
        self.warnings = []

    def warning(self, text):
        self.warnings.append(text)


@pytest.fixture
def waits(monkeypatch):
    """The waits that would have been slept."""
    slept = []
    monkeypatch.setattr(tenacity.nap.time, "sleep", slept.append)
    return slept


@pytest.fixture
def started(tmp_path):
    """A run that has begun, of a pipeline that is never asked."""
    return Run.begin(None, RunRecord.start("p", "t", "v"), tmp_path, Heard())


class Flaky:
    """An `extract` that raises what it was given, one by one, then returns."""

    __name__ = "extract"

    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, run):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return {}


POLICY = Policy(3, (10.0, 20.0, 40.0))


def test_what_may_pass_is_tried_again_and_people_are_told(started, waits):
    extract = Flaky(SourceUnreachableError("no route"), SourceUnreachableError("refused"))

    assert retried(Stages(extract=extract), POLICY).extract(started) == {}
    assert extract.calls == 3
    assert started.reporter.warnings == started.record.warnings
    assert started.record.warnings == [
        "extract is tried again in about 10 s (retry 1 of 3): no route",
        "extract is tried again in about 20 s (retry 2 of 3): refused",
    ]
    for wait, delay in zip(waits, POLICY.delays, strict=False):
        assert delay * (1 - JITTER) <= wait <= delay * (1 + JITTER)


def test_the_last_error_is_the_one_that_is_raised(started, waits):
    errors = [SourceUnreachableError(str(number)) for number in range(4)]
    last = errors[-1]

    with pytest.raises(SourceUnreachableError) as caught:
        retried(Stages(extract=Flaky(*errors)), POLICY).extract(started)
    assert caught.value is last
    assert len(waits) == len(started.record.warnings) == 3


@pytest.mark.parametrize("error", [SourceMissingError("no such table"), ZeroDivisionError(), KeyboardInterrupt()])
def test_what_does_not_pass_is_raised_at_once(error, started, waits):
    extract = Flaky(error)

    with pytest.raises(type(error)):
        retried(Stages(extract=extract), POLICY).extract(started)
    assert (extract.calls, waits, started.record.warnings) == (1, [], [])


def test_without_retries_the_stages_are_what_they_were():
    stages = Stages()

    assert retried(stages, Policy()) == stages


# --- against a real target that is locked at first ---

YAML = """
pipelines:
  people:
    type: batch
    source: {{type: database, connection_string: "{url}", schema: {{table: counted_people}}}}
    target:
      type: database
      connection_string: "{url}"
      table_name: loaded
      write_mode: overwrite
      primary_key: id
      lock_timeout_seconds: 1
    error_handling: {{strategy: {strategy}, max_retries: 2, retry_delay: 0.1}}
"""


class LetsGo(Heard):
    """Ends the session that holds a lock when it hears of a retry."""

    def __init__(self, holder):
        super().__init__()
        self.holder = holder

    def warning(self, text):
        super().warning(text)
        self.holder.close()


@pytest.fixture
def people(database, connect, tmp_path):
    """Makes the pipeline: 100 people, each time one is read the server's log says so."""
    connect().execute(
        "CREATE FUNCTION noted(i int) RETURNS bigint LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE LOG 'row % of % was read', i, current_database(); RETURN i; END $$;"
        "CREATE TABLE people AS SELECT i AS id FROM generate_series(1, 100) i;"
        "CREATE VIEW counted_people AS SELECT id, noted(id) AS ticket FROM people;"
        "CREATE TABLE loaded (id int PRIMARY KEY, ticket bigint); INSERT INTO loaded VALUES (0, 0);"
    )

    def make(strategy="retry"):
        file = tmp_path / "people.yaml"
        file.write_text(YAML.format(url=database, strategy=strategy))
        return _config.load(file).pipeline("people")

    return make


@pytest.fixture
def reads(postgres_server, database):
    """Answers how many rows were read so far."""
    name = urlsplit(database).path[1:]
    return lambda: len(re.findall(rf"row \d+ of {name} was read", (postgres_server.data / "log").read_text()))


def locked(database):
    holder = psycopg.connect(database)
    holder.execute("LOCK TABLE loaded IN SHARE MODE")
    return holder


@pytest.mark.postgres
def test_load_is_tried_again_without_reading_again(people, database, connect, reads):
    reporter = LetsGo(locked(database))

    record = run(people(), reporter=reporter)

    assert record.status == "published"
    assert reads() == 100
    assert len(reporter.warnings) == 1
    assert reporter.warnings[0].startswith("load is tried again in about 0.1 s (retry 1 of 2): target loaded: ")
    assert connect().execute("SELECT count(*), min(id) FROM loaded").fetchone() == (100, 1)
    assert connect().execute("SELECT count(*) FROM lockgate.loads").fetchone() == (1,)


@pytest.mark.postgres
def test_a_target_that_another_run_holds_is_tried_again(people, database, reads):
    holder = psycopg.connect(database)
    holder.execute("SELECT pg_advisory_lock(hashtextextended('lockgate: public.loaded', 0))")
    reporter = LetsGo(holder)

    record = run(people(), reporter=reporter)

    assert record.status == "published"
    assert reads() == 100
    assert [warning.partition(" is tried again")[0] for warning in reporter.warnings] == ["validate"]


@pytest.mark.postgres
def test_another_strategy_gives_up_at_once(people, database, connect):
    reporter = Heard()
    with locked(database), pytest.raises(TargetBusyError):
        run(people("fail"), reporter=reporter)

    assert reporter.warnings == []
    assert connect().execute("SELECT count(*), min(id) FROM loaded").fetchone() == (1, 0)
    assert connect().execute("SELECT status FROM lockgate.loads").fetchall() == [("failed",)]
