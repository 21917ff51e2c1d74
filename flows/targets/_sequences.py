"""Sequences behind identity and serial columns, brought past the numbers that a load delivered."""

from __future__ import annotations

from flows._postgres import Connection, execute, literal, quote
from flows.targets._layout import Layout
from flows.targets._publish import Staged

_FED = """
SELECT f.name, q.seqrelid::regclass::text, q.seqmax,
       CASE WHEN has_sequence_privilege(q.seqrelid, 'USAGE,SELECT') THEN pg_sequence_last_value(q.seqrelid) END,
       has_sequence_privilege(q.seqrelid, 'UPDATE')
FROM unnest(%s::text[]) AS f (name)
JOIN pg_sequence q ON q.seqrelid = pg_get_serial_sequence(%s, f.name)::regclass
WHERE q.seqincrement > 0
"""


def advance(connection: Connection, layout: Layout, staged: Staged) -> list[str]:
    """Let the table's own numbers go on behind the largest that the load brought along.

    Otherwise the next insert that leaves the number to the table would get one that is taken. What a sequence hands
    out is not part of a transaction: if this one fails, some numbers are left out.

    Returns:
        Warnings about sequences that this user may not change.
    """
    table = quote(layout.table.schema, layout.table.name)
    names = [column.name for column in layout.columns if column.pg.name in {"int2", "int4", "int8"}]
    warnings = []
    for name, sequence, most, last, allowed in execute(connection, _FED, (names, table)).fetchall():
        row = execute(connection, f"SELECT max({quote(name)}) FROM {staged.quoted}").fetchone()
        largest = row[0] if row else None
        if largest is None or largest <= (last or 0) or largest > most:
            continue
        if allowed:
            execute(connection, f"SELECT setval({literal(sequence)}::regclass, {int(largest)})")
        else:
            warnings.append(
                f"column {name!r} now has numbers up to {largest}, and this user may not bring the sequence {sequence} "
                f"behind them: GRANT UPDATE ON SEQUENCE {sequence}, or the table hands out numbers that are taken."
            )
    return warnings
