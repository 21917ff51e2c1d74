"""The scratch copy of a pipeline: another name, and targets of the same kind beside the real ones."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from flows._config import Pipeline
from flows._dialects import Dialect, database_file, dialect_of
from flows._errors import ConfigError
from flows._postgres import quote
from flows._secrets import Secret
from flows._sides import Side
from flows._storage import scheme_of
from flows.targets._base import Target
from flows.targets._several import Several
from flows.targets.data_lake import DataLake
from flows.targets.database import Database
from flows.targets.file import File

LONGEST_NAME = 63  # bytes, in PostgreSQL
_PART_FILES = re.compile(r"\{part\}[^/]*$")


def copied(pipeline: Pipeline, scratch: str) -> Pipeline:
    """The pipeline under another name, with scratch targets; the same for the same `scratch`.

    Raises:
        ConfigError: there can be none of this kind.
    """
    return replace(pipeline, name=f"{pipeline.name}__certify_{scratch}", target=_scratched(pipeline.target, scratch))


def marks(target: Target, scratch: str) -> list[str]:
    """What the name of each scratch target has in it."""
    return [f"{scratch}{number}" for number in range(len(target.members))] if isinstance(target, Several) else [scratch]


def _scratched(target: Target, mark: str) -> Target:
    if isinstance(target, Several):
        marked = zip(target.members.items(), marks(target, mark), strict=True)
        return Several(members={name: _scratched(member, own) for (name, member), own in marked})
    if isinstance(target, Database):
        if not dialect(target).is_file:
            return _with(target, table_name=_table_name(target, mark))
        url = target.connection_string.reveal()
        file = _beside(str(database_file(url).absolute()), mark)
        return _with(target, connection_string=Secret(f"{url.partition('://')[0]}:///{file}"))
    if isinstance(target, File | DataLake):
        return _with(target, path=_beside(target.path, mark))
    raise ConfigError(
        f"a target of type {target.type!r} cannot be certified: what it is sent, it has for good. Certify the pipeline "
        "with another target in its place.",
        path=("target",),
    )


def dialect(target: Database) -> Dialect:
    """The kind of database.

    Raises:
        LoadError: the connection string names none.
    """
    try:
        return dialect_of(target.connection_string.reveal())
    except ValueError as error:
        side = Side("target", f"target {target.label}", str(target.connection_string))
        raise side.error("missing", f"connection_string: {error}") from error


def _with(target: Target, **changed: object) -> Target:
    given = {name: getattr(target, name) for name in target.model_fields_set}
    return type(target).model_validate({**given, **changed})


def _table_name(target: Database, mark: str) -> str:
    *schema, table = target.table_parts
    suffix = f"_lockgate_scratch_{mark}"
    short = table.encode()[: LONGEST_NAME - len(suffix)].decode(errors="ignore")
    return ".".join(quote(part) if set(part) & set('."') else part for part in (*schema, short + suffix))


def folder_of(path: str, mark: str) -> str:
    """The folder beside `path`, a file or a folder, that everything of a scratch target is in."""
    parent, slash, _name = path.rstrip("/").rpartition("/")
    if _PART_FILES.search(path):  # the target is the folder of part files
        parent, slash, _name = parent.rpartition("/")
    if scheme_of(path) != "file":
        return f"{parent}/.lockgate_scratch_{mark}"
    there = Path(parent + slash or ".").expanduser().absolute()
    while not there.exists():
        there = there.parent
    return str(there / f".lockgate_scratch_{mark}")


def _beside(path: str, mark: str) -> str:
    depth = 2 if _PART_FILES.search(path) else 1
    name = "/".join(path.rstrip("/").split("/")[-depth:])
    return f"{folder_of(path, mark)}/{name}{'/' if path.endswith('/') else ''}"
