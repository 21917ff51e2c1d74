"""``backfill``: windows of the past as runs of their own, with the forward cursor untouched."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from flows.__main__ import main
from flows._backfill import Span
from flows._errors import ConfigError
from tests._python import Child

pytestmark = pytest.mark.postgres

SOURCE = """
CREATE TABLE source (id int PRIMARY KEY, name text, at timestamptz);
INSERT INTO source
SELECT g, 'n' || g, timestamptz '2024-01-01 00:00Z' + g * interval '6 hours' FROM generate_series(0, 39) AS g
"""
CHILD = """
import sys
from flows.__main__ import main
main(sys.argv[1:])
"""


@pytest.fixture
def shop(database, connect, tmp_path):
    """Ten days of rows, of which the forward run has loaded all."""
    return Shop(database, connect(), tmp_path)


class Shop:
    def __init__(self, uri: str, connection: psycopg.Connection, folder: Path) -> None:
        self.connection, self.file, self.uri = connection, folder / "shop.yaml", uri
        connection.execute(SOURCE)
        self.configure()

    def configure(self, mode="append", **keys):
        place = {"type": "database", "connection_string": self.uri}
        pipeline = {
            "type": "batch",
            "source": place | {"schema": {"table": "source"}},
            "target": place | {"table_name": "target", "write_mode": mode, "primary_key": ["id"]},
            "incremental": {"cursor_field": "at"},
        }
        self.file.write_text(json.dumps({"pipelines": {"shop": pipeline | keys}}))

    def flows(self, *arguments, code=0):
        result = CliRunner().invoke(main, [*arguments, "--config", str(self.file)])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result.stdout, result.stderr

    def run(self):
        self.flows("run", "shop", "--no-prefect")

    def backfill(self, start, end, step, *options, code=0):
        output, said = self.flows(
            "backfill", "shop", "--from", start, "--to", end, "--window", step, "--json", *options, code=code
        )
        return said if code == 2 else json.loads(output)["windows"]

    def target(self):
        return self.connection.execute("SELECT id, name FROM target ORDER BY id, name").fetchall()

    def source(self):
        return self.connection.execute("SELECT id, name FROM source ORDER BY id, name").fetchall()

    def state(self):
        return self.connection.execute("SELECT * FROM lockgate.state").fetchall()


@pytest.mark.parametrize("mode", ["append", "upsert"])
@pytest.mark.parametrize("parallel", ["1", "3"])
def test_a_past_that_was_changed_is_loaded_again_and_the_cursor_stays(shop, mode, parallel):
    shop.configure(mode)
    shop.run()
    before = shop.state()
    shop.connection.execute("UPDATE source SET name = 'new' WHERE id % 2 = 0")

    windows = shop.backfill("2024-01-03", "2024-01-06", "1d", "--parallel", parallel)

    assert [window["window"] for window in windows] == [
        ["2024-01-03", "2024-01-04"], ["2024-01-04", "2024-01-05"], ["2024-01-05", "2024-01-06"],
    ]  # fmt: skip
    assert [window["rows"]["read"] for window in windows] == [4, 4, 4]
    inside = range(8, 20)
    assert shop.target() == [(n, "new" if n % 2 == 0 and n in inside else f"n{n}") for n in range(40)]
    assert shop.state() == before

    shop.connection.execute("INSERT INTO source VALUES (40, 'n40', now() - interval '1 day')")
    shop.run()
    assert shop.target()[-1] == (40, "n40")
    assert len(shop.target()) == 41


def test_a_window_that_fails_does_not_stop_the_others_and_is_loaded_with_resume(shop):
    rule = {"type": "matches", "field": "name", "parameters": {"pattern": "^n"}, "on_violation": "fail"}
    shop.configure(quality_rules=[rule])
    shop.run()
    shop.connection.execute("UPDATE source SET name = upper(name)")
    shop.connection.execute("UPDATE source SET name = 'n' || name WHERE id NOT BETWEEN 4 AND 7")

    windows = shop.backfill("2024-01-01", "2024-01-05", "1d", code=1)

    assert [window["status"] for window in windows] == ["published", "refused", "published", "published"]
    shop.connection.execute("UPDATE source SET name = 'n' || name WHERE id BETWEEN 4 AND 7")
    (again,) = shop.backfill("2024-01-01", "2024-01-05", "1d", "--resume")
    assert again["window"] == ["2024-01-02", "2024-01-03"]
    assert shop.target()[:16] == shop.source()[:16]
    assert shop.backfill("2024-01-01", "2024-01-05", "1d", "--resume") == []


def test_a_killed_backfill_is_resumed(shop):
    shop.run()
    shop.connection.execute("UPDATE source SET name = 'new'")
    span = ["2024-01-01", "2024-01-11", "6h"]
    arguments = [
        "backfill",
        "shop",
        "--config",
        str(shop.file),
        "--from",
        span[0],
        "--to",
        span[1],
        "--window",
        span[2],
    ]
    published = "SELECT count(*) FROM lockgate.loads WHERE record ? 'backfill'"
    with Child(CHILD, *arguments) as child:
        while shop.connection.execute(published).fetchone()[0] < 5:
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)

    left = shop.backfill(*span, "--resume")

    assert 0 < len(left) <= 35
    assert shop.connection.execute(f"{published} AND status = 'published'").fetchone() == (40,)
    assert shop.target() == shop.source()


def test_dry_run_loads_nothing(shop):
    shop.run()
    before = shop.connection.execute("SELECT count(*) FROM lockgate.loads").fetchone()

    output, _ = shop.flows(
        "backfill", "shop", "--from", "2024-01-01", "--to", "2024-01-03", "--window", "1d", "--dry-run"
    )

    assert output == "shop: 2024-01-01 to 2024-01-02\n2024-01-02 to 2024-01-03\n"
    assert shop.connection.execute("SELECT count(*) FROM lockgate.loads").fetchone() == before


def test_what_cannot_be_backfilled(shop, tmp_path):
    assert "no backfill of shop from 2024-01-01 to 2024-01-02 by 1d has begun" in shop.backfill(
        "2024-01-01", "2024-01-02", "1d", "--resume", code=2
    )
    shop.configure("scd2")
    assert "cannot replace a window of the past with write_mode 'scd2'" in shop.backfill(
        "2024-01-01", "2024-01-02", "1d", code=2
    )
    shop.configure("upsert", incremental=None)
    assert "shop has no 'incremental'" in shop.backfill("2024-01-01", "2024-01-02", "1d", code=2)


@pytest.mark.parametrize(
    ("span", "windows"),
    [
        (("2024-01-31", "2024-03-02", "1mo"), [("2024-01-31", "2024-02-29"), ("2024-02-29", "2024-03-02")]),
        (
            ("2024-01-01", "2024-01-02", "12h"),
            [("2024-01-01T00:00:00", "2024-01-01T12:00:00"), ("2024-01-01T12:00:00", "2024-01-02")],
        ),
        (("0", "250", "100"), [("0", "100"), ("100", "200"), ("200", "250")]),
        (("2024-01-01T06:00", "2024-01-01T07:00", "1w"), [("2024-01-01T06:00:00", "2024-01-01T07:00:00")]),
    ],
)  # fmt: skip
def test_windows(span, windows):
    assert Span(*span).windows() == windows


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (("2024-01-02", "2024-01-01", "1d"), "--from '2024-01-02' is not before --to '2024-01-01'."),
        (
            ("yesterday", "2024-01-01", "1d"),
            "'yesterday' is not a bound. Write a date, 2024-01-31, a moment, or a number.",
        ),
        (("1", "2024-01-01", "1d"), "'1' and '2024-01-01' are not of one kind. Write both as dates, or as numbers."),
        (("2024-01-01", "2024-01-02", "often"), "--window 'often' is not a width. Write it like 1d, 6h, 1w or 1mo."),
        (("2024-01-01", "2024-01-02", "-1d"), "--window '-1d' is not a width. Write it like 1d, 6h, 1w or 1mo."),
        (("1", "9", "0"), "--window '0' is not a width. Write it like 1000."),
        (("1", "9000000", "1"), "8,999,999 windows are too many; the most are 100,000. Make them wider."),
    ],
)
def test_spans_that_are_none(span, said):
    with pytest.raises(ConfigError) as error:
        Span(*span).windows()

    assert str(error.value) == said
