"""Somebody else's database: revenue per customer country, equal to the same SQL."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

pytestmark = pytest.mark.postgres
Connect = Callable[[], psycopg.Connection]

CHINOOK = Path(__file__).parents[3] / "shared" / "data" / "chinook_postgresql.sql"
CONFIG = """
pipelines:
  revenue:
    type: batch
    sources:
      invoices:
        type: database
        connection_string: ${CHINOOK}
        schema: {table: invoice}
      customers:
        type: database
        connection_string: ${CHINOOK}
        schema: {table: customer, columns: [customer_id, country]}
    target:
      type: database
      connection_string: ${CHINOOK}
      table_name: revenue_per_country
      write_mode: overwrite
      primary_key: country
    transformations:
      - {type: join, parameters: {source: customers, on: customer_id, how: inner, validate: "m:1"}}
      - type: aggregate
        parameters:
          group_by: [country]
          aggregations:
            - {field: total, function: sum, alias: revenue}
            - {field: invoice_id, function: count, alias: invoices}
      - {type: sort, parameters: {by: [{field: revenue, descending: true}]}}
    quality_rules:
      - {type: not_null, field: country}
      - {type: unique, field: country}
      - {type: expression, parameters: {formula: "revenue > 0"}}
      - {type: row_count, parameters: {min: 10}}
"""
SQL = """
SELECT c.country, sum(i.total) AS revenue, count(i.invoice_id) AS invoices
FROM invoice i JOIN customer c USING (customer_id) GROUP BY c.country ORDER BY c.country
"""


@pytest.fixture
def chinook(connect: Connect) -> psycopg.Connection:
    if not CHINOOK.exists():
        pytest.skip(f"needs the Chinook database, {CHINOOK.name}, which is not part of this repository")
    connection = connect()
    script = CHINOOK.read_text(encoding="utf-8")
    tables = script[re.search(r"^\\c chinook;$", script, re.MULTILINE).end() :]  # type: ignore[union-attr]
    connection.execute(tables)
    return connection


def test_revenue_per_country(chinook: psycopg.Connection, database: str, tmp_path: Path) -> None:
    config = tmp_path / "revenue.yaml"
    config.write_text(CONFIG)
    command = (sys.executable, "-m", "flows", "run", "revenue", "--no-prefect", "--json", "--config", str(config))

    done = subprocess.run(command, env={**os.environ, "CHINOOK": database}, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    expected = chinook.execute(SQL).fetchall()
    assert (
        chinook.execute("SELECT country, revenue, invoices FROM revenue_per_country ORDER BY 1").fetchall() == expected
    )
    invoices = sum(count for *_rest, count in expected)
    rows = result["rows"]
    assert (rows["read"], rows["written"], rows["aggregated"]) == (invoices, len(expected), invoices - len(expected))
    assert result["status"] == "published"
    assert {check["passed"] for check in result["checks"]} == {True}
