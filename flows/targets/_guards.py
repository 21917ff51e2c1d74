"""What a target refuses just before it publishes, in the publishing transaction."""

from __future__ import annotations

from flows._errors import StagedRowsLostError
from flows._ledger import RunRecord
from flows._postgres import Connection, PostgresSide, execute, quote
from flows.targets import _booking, _refusals
from flows.targets._layout import Layout
from flows.targets._publish import Staged


def refuse_empty(staged: Staged, side: PostgresSide, record: RunRecord, *, allowed: bool) -> None:
    """An overwrite with nothing would leave nothing.

    Raises:
        RefusedError: the chamber is empty, and that is not allowed.
    """
    if not allowed:
        _booking.refuse_empty(staged.rows, side.label, record)


def refuse_lost_rows(connection: Connection, staged: Staged, side: PostgresSide) -> None:
    """A server that crashed forgets what was staged without a log.

    Raises:
        LoadError: the chamber no longer has its rows.
    """
    row = execute(connection, f"SELECT count(*) FROM {staged.quoted}").fetchone()
    if not row or row[0] != staged.rows:
        raise StagedRowsLostError(
            f"{side.label}: the server was restarted and lost the staged rows. Nothing was published; run again."
        )


def refuse_losses(connection: Connection, staged: Staged, layout: Layout, side: PostgresSide) -> None:
    """A text that the server would cut or round to fit its type would be another value.

    Raises:
        LoadError: there is one.
    """
    for column in layout.columns:
        if column.writing.loses is None:
            continue
        name = quote(column.name)
        loses = column.writing.loses.replace("{}", name)
        row = execute(connection, f"SELECT {name}::text FROM {staged.quoted} WHERE {loses} LIMIT 1").fetchone()
        if row is not None:
            said = f"column {column.name!r}: {row[0]!r} would be another value in {column.pg.text}"
            raise side.error("type", f"{said}. Nothing was published.")


def refuse_missing_keys(connection: Connection, staged: Staged, key: tuple[str, ...], side: PostgresSide) -> None:
    """A row without a key would be inserted again by every merge.

    Raises:
        LoadError: there is one.
    """
    missing = " OR ".join(f"{quote(name)} IS NULL" for name in key)
    if _any(connection, f"SELECT FROM {staged.quoted} WHERE {missing}"):
        raise _refusals.no_key(key, side)


def refuse_repeated_keys(connection: Connection, staged: Staged, layout: Layout, side: PostgresSide) -> None:
    """A merge would take one of several rows with the same key, and nobody could say which.

    Raises:
        LoadError: there are several.
    """
    names = ", ".join(layout.key_of(name, "s") for name in layout.key)
    if _any(connection, f"SELECT FROM {staged.quoted} AS s GROUP BY {names} HAVING count(*) > 1"):
        raise _refusals.shared_key(layout.key, side)


def _any(connection: Connection, query: str) -> bool:
    return execute(connection, f"{query} LIMIT 1").fetchone() is not None
