"""What a schema contract does to a PostgreSQL table: columns that are added or grow, and columns left out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import polars as pl

from flows._narrowing import length_of
from flows._postgres import Connection, PostgresSide, execute, quote
from flows._reading import reading
from flows._types import PgType
from flows._writing import DoesNotFit, created_type
from flows.targets._catalog import TableInfo, TargetColumn
from flows.targets._schema_contract import SchemaContract, drift, wider

_GROWING = {"int2", "int4", "int8", "float4", "float8"}


@dataclass(frozen=True)
class Evolution:
    """A table as it will be, and how it gets there.

    Attributes:
        schema: the columns of the load that are loaded.
        table: as it will be.
        clauses: of the ``ALTER TABLE`` that makes it so; none where it is so already.
        warnings: what people should know, in words.
    """

    schema: pl.Schema
    table: TableInfo
    clauses: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def evolved(
    contract: SchemaContract, schema: pl.Schema, table: TableInfo, side: PostgresSide, *, pinned: frozenset[str]
) -> Evolution:
    """Hold the columns of a load against those of the table.

    Args:
        contract: what the load may do.
        schema: of the load.
        table: as it is.
        side: whose errors these are.
        pinned: columns whose type the server would not change, because something else uses them.

    Raises:
        LoadError: PostgreSQL has no type for a column that is to be added.
    """
    if table.oid is None or table.is_view:
        return Evolution(schema, table)
    found = drift(contract, schema, {column.name: column.pg for column in table.columns}, grown)
    widened = {name: pg for name, pg in found.widened.items() if name not in pinned}
    added = {name: _created(name, dtype, side) for name, dtype in found.added.items()}
    stays = tuple(_stays(column) for column in table.columns if column.name in found.widened.keys() & pinned)
    columns = (
        *(replace(column, pg=widened.get(column.name, column.pg)) for column in table.columns),
        *(TargetColumn(name, pg, not_null=False, fills_itself=True, generated=False) for name, pg in added.items()),
    )
    return Evolution(
        schema=pl.Schema({name: dtype for name, dtype in schema.items() if name not in found.discarded}),
        table=replace(table, columns=columns),
        clauses=(
            *(f"ADD COLUMN {quote(name)} {pg.text}" for name, pg in added.items()),
            *(f"ALTER COLUMN {quote(name)} TYPE {pg.text}" for name, pg in widened.items()),
        ),
        warnings=(*found.warnings, *stays),
    )


def grown(pg: PgType, dtype: pl.DataType) -> PgType | None:
    """The type that a column of type `pg` becomes for every value of `dtype`; None where it need not or cannot."""
    if pg.is_array:
        return None
    if length_of(pg) is not None:
        return PgType("text", "text") if dtype == pl.String() else None
    if pg.name not in _GROWING and (pg.name != "numeric" or pg.precision is None):
        return None
    wide = wider(reading(pg).dtype, dtype)
    return None if wide is None else created_type(wide)


def _created(name: str, dtype: pl.DataType, side: PostgresSide) -> PgType:
    try:
        return created_type(dtype)
    except DoesNotFit as error:
        raise side.error("type", f"column {name!r}: {error}") from error


def _stays(column: TargetColumn) -> str:
    return (
        f"column {column.name!r} stays {column.pg.text} though schema_contract.data_type is evolve: a view, a trigger, "
        "a policy or another column uses it. Values that do not fit fail the run."
    )


_PINNED = """
SELECT a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.oid = %s AND a.attnum > 0 AND NOT a.attisdropped AND (
  a.attgenerated <> '' OR a.attinhcount > 0 OR c.reloftype <> 0
  OR EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = c.oid AND a.attnum = ANY (p.partattrs::int2[]))
  OR EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
             AND d.refobjsubid = a.attnum
             AND (d.classid IN ('pg_rewrite'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass,
                                'pg_proc'::regclass, 'pg_publication_rel'::regclass)
                  OR d.classid = 'pg_attrdef'::regclass AND EXISTS (
                    SELECT FROM pg_attrdef e JOIN pg_attribute g ON g.attrelid = e.adrelid AND g.attnum = e.adnum
                    WHERE e.oid = d.objid AND g.attgenerated <> ''))))
"""


def pinned_columns(connection: Connection, table: TableInfo) -> frozenset[str]:
    """Columns whose type the server would not change, because something else uses them; a row type pins them all."""
    used = execute(
        connection,
        "SELECT EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
        "JOIN pg_class c ON t.oid = c.reltype OR t.typelem = c.reltype WHERE c.oid = %s AND NOT a.attisdropped)",
        (table.oid,),
    ).fetchone()
    if used and used[0]:
        return frozenset(column.name for column in table.columns)
    return frozenset(name for (name,) in execute(connection, _PINNED, (table.oid,)))
