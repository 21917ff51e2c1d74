"""`certify` finds out what cannot be run again, touches nothing but a copy of its own, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from click.testing import CliRunner

from flows.__main__ import main
from flows._secrets import Secret
from flows._storage import Store
from transforms._transform import transforms

TEXTS = Path(__file__).parents[1] / "messages" / "cli"
ROWS = 200
#: A row without a key, and two of one key.
CSV = "id,customer,amount\n" + "".join(
    f"{ {77: '', 6: 5}.get(number, number) },c{number % 17},{number}.50\n" for number in range(1, ROWS + 1)
)
RULES = "quality_rules: [{type: not_null, field: id}, {type: unique, field: id}]"
KEY = "primary_key: id"
#: Kills at boundaries that every run comes to, of those that no target adds to.
BOUNDARIES = 8
#: A table that fills in numbers and moments of its own.
TABLE = """
CREATE TABLE orders (number serial, loaded timestamptz DEFAULT clock_timestamp(), id bigint PRIMARY KEY, customer text,
    amount float8)
"""
SOAK = pytest.mark.soak


class Shop:
    """A folder with a source, a configuration and, some day, a target."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "orders.csv").write_text(CSV)

    def configure(self, target: str, *more: str, source: str = "type: file, path: orders.csv") -> None:
        lines = ["pipelines:", "  orders:", "    type: batch", f"    source: {{{source}}}", f"    target: {{{target}}}"]
        (self.folder / "pipelines.yaml").write_text("\n".join([*lines, *(f"    {key}" for key in more)]) + "\n")

    def call(self, verb: str, *options: object, code: int) -> tuple[str, str]:
        result = CliRunner().invoke(main, [verb, "orders", *map(str, options)])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result.stdout, result.stderr

    def certify(self, *options: object, code: int = 0, kills: int = 1) -> dict:
        return json.loads(self.call("certify", "--json", "--kills", kills, "--seed", 7, *options, code=code)[0])

    def run(self) -> None:
        self.call("run", "--no-prefect", code=0)

    def files(self) -> dict[str, bytes]:
        found = (file for file in self.folder.rglob("*") if file.is_file())
        return {str(file): file.read_bytes() for file in found}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCKGATE_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return Shop(tmp_path)


def verdicts(facts: dict) -> dict[str, str]:
    return {trial["name"]: trial["verdict"] for trial in facts["trials"]}


def broken(facts: dict) -> set[str]:
    return {name for name, verdict in verdicts(facts).items() if verdict == "did not hold"}


def everything(connection: psycopg.Connection) -> dict[str, list[tuple]]:
    """Every row of every table, and every sequence's place."""
    tables = connection.execute(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('public', 'lockgate')"
    ).fetchall()
    sequences = "SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2"
    found = {"sequences": connection.execute(sequences).fetchall()}
    for (name,) in tables:
        found[name] = sorted(connection.execute(f"SELECT t::text, xmin, ctid FROM {name} AS t").fetchall())
    return found


# --- PostgreSQL ---


@pytest.fixture
def in_postgres(shop: Shop, database: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    monkeypatch.setenv("WAREHOUSE", database)
    return lambda options: f"type: database, connection_string: '${{WAREHOUSE}}', table_name: orders, {options}"


@pytest.mark.postgres
@pytest.mark.parametrize(
    "mode", ["upsert", *(pytest.param(mode, marks=SOAK) for mode in ("overwrite", "scd2", "delete_insert"))]
)
def test_a_keyed_table_of_postgres_is_certified(
    shop: Shop, in_postgres: Callable[[str], str], connect: Callable[[], psycopg.Connection], mode: str
) -> None:
    connection = connect()
    if mode == "upsert":
        connection.execute(TABLE)
    shop.configure(in_postgres(f"write_mode: {mode}, {KEY}"), RULES)
    shop.run()
    before = everything(connection)

    facts = shop.certify()

    assert facts["held"], facts
    assert facts["kills"] == BOUNDARIES + 1
    assert verdicts(facts)["target fails: its connection is cut"] == "held"
    assert everything(connection) == before
    assert list(shop.folder.joinpath("home", "runs").iterdir()) == []


@SOAK
@pytest.mark.postgres
def test_append_is_found_out(
    shop: Shop, in_postgres: Callable[[str], str], connect: Callable[[], psycopg.Connection]
) -> None:
    shop.configure(in_postgres("write_mode: append"))

    facts = shop.certify(code=1)

    assert not facts["held"]
    assert {"runs again", "killed after load", "batches that come twice"} <= broken(facts)
    assert "killed after validate" not in broken(facts)
    assert facts["advice"][0].startswith("append: a second run adds the rows again.")
    assert connect().execute("SELECT to_regclass('orders')").fetchone() == (None,)


@pytest.mark.postgres
def test_ctrl_c_leaves_nothing(
    shop: Shop, in_postgres: Callable[[str], str], connect: Callable[[], psycopg.Connection]
) -> None:
    shop.configure(in_postgres(f"write_mode: upsert, {KEY}"), RULES)
    shop.run()
    connection = connect()
    before = everything(connection)
    command = [sys.executable, "-m", "flows", "certify", "orders", "--kills", "50"]
    path = os.pathsep.join(sys.path)
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}, start_new_session=True
    ) as process:
        for line in process.stderr:
            if "killed after extract" in line:
                break
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 130, errors
    assert errors.rstrip().endswith("interrupted.")
    assert everything(connection) == before
    assert list(shop.folder.joinpath("home", "runs").iterdir()) == []


# --- files ---


DATABASE = "type: database, connection_string: '{}:///shop.db', table_name: orders"
KINDS = {
    "delta": f"type: data_lake, path: lake/orders, write_mode: upsert, {KEY}",
    "sqlite": f"{DATABASE.format('sqlite')}, write_mode: upsert, {KEY}",
    "duckdb": f"{DATABASE.format('duckdb')}, write_mode: scd2, {KEY}",
    "parquet lake": "type: data_lake, path: lake/orders, format: parquet, write_mode: overwrite",
    "file": "type: file, path: out/orders.csv.gz, write_mode: overwrite",
    "folder": "type: file, path: 'out/orders-{part}.parquet', write_mode: overwrite",
}


@pytest.mark.parametrize(
    "target", [pytest.param(target, id=kind, marks=[] if kind == "delta" else SOAK) for kind, target in KINDS.items()]
)
def test_files_of_every_kind_are_certified(shop: Shop, target: str) -> None:
    shop.configure(target, RULES)
    shop.run()
    before = shop.files()

    facts = shop.certify()

    assert facts["held"], facts
    steps = [name for name in verdicts(facts) if name.startswith("killed before disk step")]
    assert facts["kills"] == BOUNDARIES + 1 + len(steps)
    assert bool(steps) == ("connection_string" not in target)
    assert facts["rows"] == ROWS
    assert shop.files() == before
    assert not list(shop.folder.rglob("*scratch*"))


def test_several_targets(shop: Shop) -> None:
    shop.configure("type: file, path: x")
    text = (shop.folder / "pipelines.yaml").read_text().replace("target: {type: file, path: x}", "targets:")
    near = "{type: file, path: out/near.parquet, write_mode: overwrite}"
    far = f"{{type: database, connection_string: 'sqlite:///far.db', table_name: far, write_mode: upsert, {KEY}}}"
    (shop.folder / "pipelines.yaml").write_text(f"{text}      near: {near}\n      far: {far}\n    {RULES}\n")

    facts = shop.certify()

    assert facts["held"], facts
    assert verdicts(facts)["killed in load, before target 2 is published"] == "held"
    assert sorted(path.name for path in shop.folder.iterdir()) == ["home", "orders.csv", "pipelines.yaml"]


def test_what_is_new_is_appended_once(shop: Shop) -> None:
    shop.configure(
        "type: file, path: out/log.csv, write_mode: append", RULES, source="type: file, path: '*.csv', only_new: true"
    )

    facts = shop.certify()

    assert facts["held"], facts
    assert next(trial for trial in facts["trials"] if trial["name"] == "runs again")["detail"].startswith("0 rows read")


# --- what is found out ---


def test_chance_is_found_out(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    (shop.folder / "dicing.py").write_text(
        "import polars as pl, random\n"
        "from transforms._transform import transform\n"
        "@transform(row_local=True)\n"
        "def dicing(frame: pl.LazyFrame) -> pl.LazyFrame:\n"
        '    """Throw dice."""\n'
        "    return frame.with_columns(dice=pl.lit(random.random()))\n"
    )
    (shop.folder / "dicing-1.dist-info").mkdir()
    (shop.folder / "dicing-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: dicing\nVersion: 1\n")
    (shop.folder / "dicing-1.dist-info" / "entry_points.txt").write_text("[lockgate.transforms]\ndicing = dicing\n")
    monkeypatch.syspath_prepend(str(shop.folder))
    monkeypatch.setattr(transforms, "_entries", dict(transforms._entries))  # it is known to this test alone
    shop.configure(
        f"type: database, connection_string: 'sqlite:///shop.db', table_name: orders, write_mode: upsert, {KEY}",
        "transformations: [{type: dicing}]",
        RULES,
    )

    facts = shop.certify("--limit", 50, code=1)

    assert broken(facts) == {"runs again", "runs again from nothing"}
    assert facts["rows"] == 50
    assert facts["notes"] == ["only the first 50 rows of the source were taken (--limit)."]
    assert facts["advice"] == [
        "The same rows came out differently. Look for a step that asks for the time, or for chance."
    ]


def test_an_order_that_decides_is_found_out(shop: Shop) -> None:
    shop.configure(
        "type: file, path: out/orders.parquet, write_mode: overwrite",
        "transformations: [{type: deduplicate, parameters: {key: [customer]}}]",
    )

    facts = shop.certify(code=1)

    assert broken(facts) == {"batches in another order"}


def test_a_run_that_is_refused_is_no_base(shop: Shop) -> None:
    shop.configure(
        "type: file, path: out/orders.parquet, write_mode: overwrite",
        "quality_rules: [{type: not_null, field: id, on_violation: fail}]",
    )

    facts = shop.certify(code=1)

    assert verdicts(facts) == {"runs once": "did not hold"}
    assert "orders: " in facts["trials"][0]["detail"]
    assert "__certify" not in facts["trials"][0]["detail"]


def test_what_is_sent_is_not_certified(shop: Shop) -> None:
    shop.configure("type: api, url: 'http://127.0.0.1:9/orders'")

    _, said = shop.call("certify", code=2)

    assert "a target of type 'api' cannot be certified" in said


def test_the_answer_for_people(shop: Shop) -> None:
    shop.configure("type: file, path: out/orders.csv, write_mode: append")

    answer, progress = shop.call("certify", "--kills", 1, "--seed", 7, code=1)

    answer = re.sub(r"moment 1  .*", "moment 1  <a verdict>", answer)
    answer = re.sub(r"\d of \d\d trials", "<some> trials", answer)
    file = TEXTS / "certify.txt"
    if os.environ.get("WRITE_TEXTS"):
        file.write_text(answer)
    assert answer == file.read_text()
    assert "orders: runs again: did not hold (" in progress


def test_a_copy_has_the_definition_of_a_table_in_a_file(shop: Shop) -> None:
    with duckdb.connect(str(shop.folder / "shop.db")) as connection:
        connection.execute(
            "CREATE SCHEMA s; CREATE TABLE s.orders (id BIGINT PRIMARY KEY, customer VARCHAR, amount FLOAT)"
        )
    shop.configure(
        f"type: database, connection_string: 'duckdb:///shop.db', table_name: s.orders, write_mode: upsert, {KEY}",
        RULES,
    )

    facts = shop.certify(kills=0, code=1)

    assert "FLOAT" in facts["trials"][0]["detail"]  # a double does not fit, in the copy as in the table itself


@SOAK
@pytest.mark.parametrize("target", ["type: data_lake, path: '{}/lake/orders'", "type: file, path: '{}/out/orders.csv'"])
def test_places_in_s3_are_certified(shop: Shop, s3: Any, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    for name, value in s3.options.items():
        monkeypatch.setenv(f"S3_{name}", value)
    options = ", ".join(f"{name}: '${{S3_{name}}}'" for name in s3.options)
    shop.configure(f"{target.format(s3.url)}, write_mode: overwrite, storage_options: {{{options}}}", RULES)
    shop.run()
    store = Store(s3.url, {name: Secret(value) for name, value in s3.options.items()})
    before = sorted(store.fs.find(store.path))

    facts = shop.certify(kills=0)

    assert facts["held"], facts
    assert sorted(store.fs.find(store.path)) == before
