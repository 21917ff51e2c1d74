"""Active customers, from the operational database to the warehouse: the example to read first.

    python -m flows.customer_etl [--json] [--no-prefect]

What it does stands in its twin, `customer_etl.yaml`. With nothing configured both ends are databases of an
embedded PostgreSQL, and the customers are made up; LOCKGATE_SOURCE_URL and LOCKGATE_WAREHOUSE_URL name
others. As a deployment: ``deployments/prefect.yaml``.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows._cli._endings import ended

if TYPE_CHECKING:
    from flows._config import Pipeline

NAME = "customer_data_etl"
_DEMO = "embedded://source_db"


def pipeline() -> Pipeline:
    """The pipeline of the twin, with a source that is there: an embedded one is filled first.

    Raises:
        ConfigError: the twin, or what is set from outside, has mistakes.
        EmbeddedPostgresError: the embedded server does not start.
    """
    from flows import _config, _demo  # noqa: PLC0415 - `--help` is quick
    from flows.sources.database import Database  # noqa: PLC0415 - as above

    file = Path(__file__).with_suffix(".yaml")
    found = _config.load(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file).pipeline(NAME)
    source = found.sources["source"]
    if isinstance(source, Database) and source.connection_string.reveal() == _DEMO and _demo.create(_DEMO):
        click.echo(f"Made {_demo.ROWS:,} customers up, as the table customers of {_DEMO}.", err=True)
    return found


@click.command(help="Run the customer ETL now; on a demo, unless a source and a warehouse are configured.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object, and nothing else on stdout."
)
@click.option("--no-prefect", is_flag=True, help="Run without Prefect: no server, no UI, a quick start.")
def main(as_json: bool, no_prefect: bool) -> None:
    """Run it, show how it ended, and leave with the exit code."""
    sys.exit(
        ended(lambda: _run(as_json, not no_prefect), name=NAME, locate=lambda: None, facts=dict if as_json else None)
    )


def _run(as_json: bool, prefect: bool) -> int:
    from flows._cli._running import run_and_show  # noqa: PLC0415 - `--help` is quick

    found = pipeline()
    code = run_and_show(found, as_json=as_json, prefect=prefect)
    if code == 0 and not as_json:
        _say_where_to_look(found)
    return code


def _say_where_to_look(found: Pipeline) -> None:
    """How to see the table of an embedded warehouse, and how to stop what was started; nothing about others."""
    from flows import _embedded  # noqa: PLC0415 - `--help` is quick
    from flows.targets.database import Database  # noqa: PLC0415 - as above

    target = found.target
    if not isinstance(target, Database):
        return
    address = target.connection_string.reveal()
    if address.startswith(f"{_embedded.SCHEME}://"):
        query = shlex.quote(f"SELECT * FROM {target.table_name} LIMIT 5")
        psql = shutil.which("psql") or _embedded.program("psql")
        click.echo(f"\nSee the table:          {psql} {shlex.quote(_embedded.resolve(address))} -c {query}")
        click.echo("Stop what was started:  make down")


def __getattr__(name: str) -> Any:
    """The same as a Prefect flow, `customer_etl`; made when a deployment asks for it, because Prefect takes seconds."""
    if name != "customer_etl":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flows._tasks import flow_of  # noqa: PLC0415 - only deployments

    return flow_of(NAME, pipeline)


if __name__ == "__main__":
    main()
