"""A folder with a configuration and a database behind it, and the command line in this process."""

import shutil
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from flows.__main__ import main

PIPELINES = Path(__file__).parents[2] / "messages" / "cli" / "pipelines.yaml"

CUSTOMERS = """
CREATE TABLE customers (id bigint, email text, joined date, status text);
INSERT INTO customers
SELECT
    CASE i WHEN 3 THEN NULL WHEN 6 THEN 5 ELSE i END,
    CASE WHEN i <= 2 THEN 'nobody' ELSE format('c%s@example.com', i) END,
    date '2020-01-01' + i,
    CASE WHEN i % 4 = 0 THEN 'gone' ELSE 'active' END
FROM generate_series(1, 20) AS i
"""


@pytest.fixture
def here(tmp_path, monkeypatch, database):
    """A folder with pipelines, whose source and warehouse are one small database."""
    shutil.copy(PIPELINES, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE", database)
    monkeypatch.setenv("WAREHOUSE", database)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(CUSTOMERS)
    return tmp_path


@pytest.fixture
def flows():
    """Runs a verb in this process; returns stdout and stderr."""

    def call(*arguments, code=0):
        result = CliRunner().invoke(main, [*map(str, arguments)])

        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result.stdout, result.stderr

    return call


@pytest.fixture
def run(flows):
    """Runs the pipeline of the folder, without Prefect."""

    def call(*options, code=0):
        return flows("run", "active_customers", "--no-prefect", *options, code=code)

    return call
