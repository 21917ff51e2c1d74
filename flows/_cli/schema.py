"""``schema``: the JSON Schema of the configuration, for editors."""

from __future__ import annotations

import json

import click

from flows._cli._verb import Asked, verb


@verb("schema", configured=False)
def command(_asked: Asked) -> int:
    """Print the JSON Schema of the YAML files.

    Editors complete and check a file by it: python -m flows schema > lockgate.schema.json
    """
    from flows._json_schema import json_schema  # noqa: PLC0415 - imports everything that has a name

    click.echo(json.dumps(json_schema(), indent=2))
    return 0
