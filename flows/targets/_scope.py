"""Which rows of a table ``delete_insert`` replaces, as SQL, and what the load must be like for that."""

from __future__ import annotations

from flows._postgres import Connection, PostgresSide, execute, literal, quote
from flows.targets import _refusals
from flows.targets._layout import Layout
from flows.targets._modes import DeleteRange
from flows.targets._publish import Staged


def of_keys(layout: Layout, staged: Staged, key: tuple[str, ...]) -> str:
    """Rows of the table, called ``t``, that are alike a row of the chamber in the columns `key`."""
    return f"EXISTS (SELECT FROM {staged.quoted} AS s WHERE {layout.same_key('t', 's', key)})"


def of_range(layout: Layout, staged: Staged, wanted: DeleteRange) -> str:
    """Rows of the table, called ``t``, inside a range: the one that is given, or the one that the load spans."""
    if not wanted.spans_load:
        return _inside(wanted, f"t.{quote(wanted.column)}")
    value = layout.key_of(wanted.column, "s")
    ends = (f"(SELECT {end}({value}) FROM {staged.quoted} AS s)" for end in ("min", "max"))
    return f"t.{quote(wanted.column)} BETWEEN {' AND '.join(ends)}"


def refuse_strays(
    connection: Connection, layout: Layout, staged: Staged, wanted: DeleteRange, side: PostgresSide
) -> None:
    """A row outside of the range that is replaced would be there twice after the next run.

    Raises:
        RefusedError: there is one, or one without a value.
    """
    value = layout.key_of(wanted.column, "s")
    inside = f"{value} IS NOT NULL" if wanted.spans_load else _inside(wanted, value)
    row = execute(connection, f"SELECT count(*) FROM {staged.quoted} AS s WHERE ({inside}) IS NOT TRUE").fetchone()
    if row and row[0]:
        raise _refusals.outside(wanted, row[0], side)


def _inside(wanted: DeleteRange, value: str) -> str:
    # Untyped literals: the server reads them as the column's own type.
    return f"{value} >= {literal(str(wanted.from_))} AND {value} < {literal(str(wanted.to))}"
