"""What becomes of quarantined rows, said on the command line."""

import csv
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import polars as pl
import psycopg
import pytest

ROOT = Path(__file__).parents[3]
NAME = "active_customers"
NEVER = "quality_rules=[{type: not_null, field: email}]"


def counts(flows):
    (run, *_others) = json.loads(flows("quarantine", "list", NAME, "--json")[0])["runs"]
    return tuple(run[status] for status in ("waiting", "replayed", "discarded"))


def test_replay(here, flows, run, database):
    run()
    assert flows("quarantine", "list", NAME, "--status", "replayed")[0].endswith("no rows in quarantine.\n")

    answer, _ = flows("quarantine", "replay", NAME, "--rule", "email email", "--no-prefect", "--set", NEVER)

    assert "  replay  2 rows of 1 run in quarantine\n" in answer
    replayed = "SELECT count(*) FROM lockgate.quarantine WHERE status = 'replayed'"
    with psycopg.connect(database) as connection:
        assert connection.execute(replayed).fetchone() == (2,)
    shown = flows("quarantine", "show", NAME, "--status", "replayed")[0]
    assert ", replayed by run " in shown
    assert counts(flows) == (3, 2, 0)
    facts = json.loads(flows("quarantine", "replay", NAME, "--no-prefect", "--json")[0])
    assert (facts["rows"]["read"], facts["rows"]["quarantined"], sum(facts["replays"].values())) == (3, 3, 3)
    assert facts["warnings"][0].startswith("write_mode is 'upsert' for this replay, by (id): ")
    assert counts(flows) == (3, 0, 0)


def test_nothing_to_replay(here, flows):
    said = f"{NAME}: no such rows are waiting in quarantine.\n"
    assert flows("quarantine", "replay", NAME, "--no-prefect")[0] == said
    assert json.loads(flows("quarantine", "replay", NAME, "--json")[0])["status"] == "unchanged"
    assert flows("quarantine", "discard", NAME)[0] == said


def test_discard(here, flows, run):
    run()

    _, refused = flows("quarantine", "discard", NAME, "--rule", "id unique", code=2)
    assert refused == (
        f"quarantine discard: Discard 2 waiting rows of {NAME}? Nobody can be asked here: say so with --yes. "
        "See: python -m flows quarantine discard --help\n"
    )
    assert counts(flows) == (5, 0, 0)
    answer, _ = flows("quarantine", "discard", NAME, "--rule", "id unique", "--yes")
    assert answer == f"{NAME}: 2 rows discarded.\n"
    assert counts(flows) == (3, 0, 2)
    assert json.loads(flows("quarantine", "discard", NAME, "--yes", "--json")[0]) == {"pipeline": NAME, "discarded": 3}
    assert flows("quarantine", "replay", NAME, "--no-prefect")[0].endswith("are waiting in quarantine.\n")


@pytest.mark.parametrize("suffix", ["csv", "ndjson", "parquet"])
def test_export(here, flows, run, suffix):
    run()
    file = here / f"rows.{suffix}"

    answer, _ = flows("quarantine", "export", NAME, file)

    assert answer == f"{NAME}: 5 rows written to {file}.\n"
    if suffix == "csv":
        with file.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        rows = [{**row, "reasons": json.loads(row["reasons"])} for row in rows]
    else:
        rows = {"ndjson": pl.read_ndjson, "parquet": pl.read_parquet}[suffix](file).to_dicts()
    assert list(rows[0]) == [
        "run_id",
        "row",
        "stage",
        "status",
        "reasons",
        "config_version",
        "quarantined_at",
        "values",
    ]
    assert sum(row["reasons"] == ["email email"] for row in rows) == 2
    assert {"id", "email"} <= set(json.loads(rows[0]["values"]))
    assert "0 rows written" in flows("quarantine", "export", NAME, file, "--status", "replayed")[0]


def test_export_to_what_is_no_file(here, flows, run):
    assert "'rows.xls' names no format" in flows("quarantine", "export", NAME, "rows.xls", code=2)[1]
    run()
    (here / "file").touch()
    assert "cannot be written" in flows("quarantine", "export", NAME, "file/rows.csv", code=2)[1]


@pytest.mark.parametrize(("said", "waiting"), [(b"y\n", 0), (b"n\n", 5)])
def test_discard_asks_on_a_terminal(here, flows, run, said, waiting):
    run()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flows", "quarantine", "discard", NAME]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as verb:
        os.write(ours, said)
        _answer, asked = verb.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)

    assert (verb.returncode, counts(flows)[0]) == (0, waiting)
    assert asked.decode().startswith(f"Discard 5 waiting rows of {NAME}? [y/N]: ")
