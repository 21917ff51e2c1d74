"""The customers that the batch benchmarks move, and the same work in plain SQL."""

from __future__ import annotations

import psycopg

from flows import _demo
from flows._embedded import Server, program

COLUMNS = "customer_id, name, email, country, segment, created_at, credit_limit, updated_at"
SELECT = f"SELECT {COLUMNS}, current_date - created_at AS customer_lifetime_days FROM customers WHERE status = 'active'"
TABLE = """customer_id bigint, name text, email text, country text, segment text, created_at date,
    credit_limit numeric(12,2), updated_at timestamptz, customer_lifetime_days int"""

YAML = """
pipelines:
  customers:
    type: batch
    source:
      type: database
      connection_string: "{uri}"
      schema: {{table: customers, columns: [{columns}]}}
    target:
      type: data_warehouse
      connection_string: "{uri}"
      table_name: {table}
      write_mode: {mode}
      primary_key: customer_id
    transformations:
      - {{type: filter, parameters: {{condition: {{field: status, operator: eq, value: active}}}}}}
      - {{type: calculate, parameters: {{expressions: [{{field: customer_lifetime_days,
          formula: current_date - created_at}}]}}}}
    quality_rules:
      - {{type: not_null, field: customer_id}}
      - {{type: unique, field: customer_id}}
      - {{type: email, field: email, severity: warn}}
      - {{type: date_format, field: created_at, parameters: {{format: YYYY-MM-DD}}}}
      - {{type: in_set, field: segment, parameters: {{values: {segments}}}}}
      - {{type: between, field: credit_limit, parameters: {{min: 0, max: 1000000}}}}
"""


def make(server: Server, rows: int) -> str:
    """A database with `rows` customers whose keys are whole; returns its URI."""
    uri = server.create(f"bench_{rows}")
    _demo.create(uri, rows)
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("DELETE FROM customers WHERE customer_id IS NULL")
        connection.execute(
            "DELETE FROM customers a USING customers b WHERE a.customer_id = b.customer_id AND a.ctid > b.ctid"
        )
        connection.execute("VACUUM ANALYZE customers")
    return uri


def config(uri: str, table: str, mode: str) -> str:
    """A pipeline over them."""
    with psycopg.connect(uri) as connection:
        segments = [row[0] for row in connection.execute("SELECT DISTINCT segment FROM customers ORDER BY 1")]
    return YAML.format(uri=uri, columns=COLUMNS, table=table, mode=mode, segments=segments)


def psql(uri: str) -> str:
    """The psql beside the server, connected."""
    client = program("psql")
    return f"'{client}' -X -q -v ON_ERROR_STOP=1 '{uri}'"


def copy_overwrite(uri: str) -> str:
    """The limit of an overwrite: COPY to COPY in binary, the key, the swap."""
    client = psql(uri)
    return f"""
{client} -c 'DROP TABLE IF EXISTS limit_staging' -c 'CREATE TABLE limit_staging ({TABLE})'
{client} -c "COPY ({SELECT}) TO STDOUT (FORMAT binary)" | {client} -c 'COPY limit_staging FROM STDIN (FORMAT binary)'
{client} -c 'ALTER TABLE limit_staging ADD CONSTRAINT limit_key_new PRIMARY KEY (customer_id)'
{client} -c 'BEGIN' -c 'DROP TABLE IF EXISTS limit_table' -c 'ALTER TABLE limit_staging RENAME TO limit_table' \
  -c 'ALTER TABLE limit_table RENAME CONSTRAINT limit_key_new TO limit_key' -c 'COMMIT'
"""


def insert_on_conflict(uri: str, table: str) -> str:
    """The limit of an upsert: one statement inside the database."""
    names = [name.split()[0] for name in TABLE.replace("\n", " ").split(", ")]
    changes = ", ".join(f"{name} = excluded.{name}" for name in (n.strip() for n in names) if name != "customer_id")
    statement = f"INSERT INTO {table} {SELECT} ON CONFLICT (customer_id) DO UPDATE SET {changes}"
    return f'{psql(uri)} -c "{statement}"'
