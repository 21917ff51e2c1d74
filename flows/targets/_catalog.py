"""What the catalogue says about a target table: its columns, its keys, and whether it may be swapped."""

from __future__ import annotations

from dataclasses import dataclass, field

from flows._postgres import Connection, columns_of_table, execute, quote
from flows._types import PgType

#: Where a table's name goes in a statement of the catalogue; formatting would trip over braces in names.
PLACE, NAME = "{table}", "{index}"


@dataclass(frozen=True)
class TargetColumn:
    """A column of the target table.

    Attributes:
        fills_itself: whether a row may leave it out: it is nullable, has a default, or is generated.
        generated: whether nobody may write it.
    """

    name: str
    pg: PgType
    not_null: bool
    fills_itself: bool
    generated: bool


@dataclass(frozen=True)
class Index:
    """An index of the target table, as statements that make its twin on another table."""

    name: str
    definition: str
    columns: tuple[str, ...]
    unique: bool
    constraint: str | None

    def on(self, table: str, name: str | None = None) -> str:
        """The statement that makes it on `table` (quoted), under its own name or another."""
        return self.definition.replace(PLACE, table, 1).replace(NAME, quote(name or self.name), 1)


@dataclass(frozen=True)
class TableInfo:
    """A target table as it stands, or as it is not there yet.

    Attributes:
        schema, name: of the table, as the server knows them.
        oid: None when it is not there.
        keeps: why the table itself must stay, so that it cannot be swapped for the chamber; None if it may go.
        referenced: whether foreign keys of other tables point at it.
        is_view: whether it only looks like a table.
        intercepts: whether triggers, rules or row security may keep a row from being written.
    """

    schema: str
    name: str
    oid: int | None
    columns: tuple[TargetColumn, ...] = ()
    primary_key: tuple[str, ...] = ()
    indexes: tuple[Index, ...] = ()
    grants: tuple[str, ...] = ()
    comment: str | None = None
    keeps: str | None = None
    referenced: bool = False
    is_view: bool = False
    intercepts: bool = False
    unique_keys: tuple[frozenset[str], ...] = field(default=())

    @property
    def quoted(self) -> str:
        """The quoted, qualified name."""
        return quote(self.schema, self.name)


def describe(connection: Connection, parts: tuple[str, ...]) -> TableInfo:
    """Look the table up; one without a schema is looked for, or later made, in the current schema."""
    schema, name = _qualified(connection, parts)
    row = execute(
        connection,
        "SELECT c.oid, c.relkind IN ('v', 'm'), c.relrowsecurity OR c.relhasrules OR EXISTS "
        "(SELECT FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal) "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'f', 'v', 'm')",
        (schema, name),
    ).fetchone()
    if row is None:
        return TableInfo(schema, name, None)
    oid = int(row[0])
    indexes = _indexes(connection, oid)
    return TableInfo(
        schema,
        name,
        oid,
        columns=_columns(connection, oid),
        primary_key=next((index.columns for index in indexes if index.constraint == "PRIMARY KEY"), ()),
        indexes=indexes,
        grants=_grants(connection, oid),
        comment=_scalar(connection, "SELECT obj_description(%s, 'pg_class')", oid),
        keeps=_scalar(connection, _KEEPS, *([oid] * _KEEPS.count("%s"))),
        referenced=bool(
            _scalar(connection, "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND confrelid = %s", oid)
        ),
        is_view=row[1],
        intercepts=row[2],
        unique_keys=tuple(frozenset(index.columns) for index in indexes if index.unique),
    )


def _qualified(connection: Connection, parts: tuple[str, ...]) -> tuple[str, str]:
    """Schema and name; one without a schema is looked for as the server would, or will be made in the current one."""
    if len(parts) > 1:
        return parts[0], parts[1]
    found = execute(
        connection,
        "SELECT coalesce((SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass(%s)), "
        "quote_ident(current_schema()), 'public')",
        (quote(*parts),),
    ).fetchone()
    schema = found[0] if found else "public"
    return (schema[1:-1].replace('""', '"') if schema.startswith('"') else schema), parts[0]


def _scalar(connection: Connection, query: str, *parameters: object) -> str | None:
    row = execute(connection, query, parameters).fetchone()
    return row[0] if row else None


def _columns(connection: Connection, oid: int) -> tuple[TargetColumn, ...]:
    types = {column.name: column.pg for column in columns_of_table(connection, oid)}
    rows = execute(
        connection,
        "SELECT attname, attnotnull, NOT attnotnull OR atthasdef OR attidentity <> '', attgenerated <> '' "
        "FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (oid,),
    )
    return tuple(TargetColumn(name, types[name], *flags) for name, *flags in rows)


_INDEXES = """
SELECT i.relname, pg_get_indexdef(x.indexrelid), x.indisunique,
       x.indisunique AND x.indpred IS NULL AND x.indexprs IS NULL,
       ARRAY(SELECT attname::text FROM unnest(x.indkey) WITH ORDINALITY AS k(num, place)
             JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.num
             WHERE k.place <= x.indnkeyatts ORDER BY k.place),
       CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' WHEN 'u' THEN 'UNIQUE' END,
       format(' ON %%I.%%I USING ', n.nspname, t.relname)
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_constraint k ON k.conindid = x.indexrelid AND k.contype IN ('p', 'u')
WHERE x.indrelid = %s ORDER BY i.relname
"""


def _indexes(connection: Connection, oid: int) -> tuple[Index, ...]:
    return tuple(
        Index(
            name,
            f"CREATE {'UNIQUE ' if is_unique else ''}INDEX {NAME} ON {PLACE} USING {definition.partition(place)[2]}",
            tuple(columns),
            unique,
            constraint,
        )
        for name, definition, is_unique, unique, columns, constraint, place in execute(connection, _INDEXES, (oid,))
    )


_GRANTS = """
SELECT format('GRANT %%s ON {table} TO %%s%%s', a.privilege_type,
              CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
              CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = %s
"""


def _grants(connection: Connection, oid: int) -> tuple[str, ...]:
    return tuple(grant for (grant,) in execute(connection, _GRANTS, (oid,)))


#: The first reason why the table itself must stay, in words. What is not named here is carried over by the swap:
#: columns, defaults, NOT NULL, CHECK, keys and indexes, column comments, the table's comment and grants.
_KEEPS = """
SELECT CASE
  WHEN c.relkind <> 'r' THEN 'it is not an ordinary table'
  WHEN c.relowner <> (SELECT oid FROM pg_roles WHERE rolname = current_user) THEN 'it belongs to another role'
  WHEN c.relpersistence <> 'p' OR c.reloptions IS NOT NULL OR c.reltablespace <> 0
    OR EXISTS (SELECT FROM pg_class o WHERE o.oid = c.reltoastrelid AND o.reloptions IS NOT NULL)
    THEN 'it has storage settings'
  WHEN c.relrowsecurity OR EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid) THEN 'it has row security'
  WHEN c.relispartition OR EXISTS (SELECT FROM pg_inherits WHERE c.oid IN (inhrelid, inhparent)) THEN 'it inherits'
  WHEN EXISTS (SELECT FROM pg_constraint WHERE (conrelid = c.oid AND contype IN ('f', 'x', 't')) OR confrelid = c.oid)
    THEN 'foreign keys or exclusion constraints hang on it'
  WHEN EXISTS (SELECT FROM pg_constraint WHERE conrelid = c.oid AND (condeferrable OR NOT convalidated))
    THEN 'it has deferrable or unvalidated constraints'
  WHEN EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal) THEN 'it has triggers'
  WHEN EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid) THEN 'it has rules'
  WHEN c.relreplident <> 'd' OR EXISTS (SELECT FROM pg_publication_tables
                                        WHERE schemaname = n.nspname AND tablename = c.relname)
    THEN 'it is replicated'
  WHEN EXISTS (SELECT FROM pg_statistic_ext WHERE stxrelid = c.oid) THEN 'it has extended statistics'
  WHEN EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
               AND (attidentity <> '' OR attacl IS NOT NULL OR attstattarget IS NOT NULL AND attstattarget <> -1
                    OR attoptions IS NOT NULL))
    THEN 'it has identity columns, or grants or settings on columns'
  WHEN EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND (indisclustered OR indisreplident OR NOT indisvalid))
    OR EXISTS (SELECT FROM pg_index x JOIN pg_description d ON d.objoid = x.indexrelid WHERE x.indrelid = c.oid)
    OR EXISTS (SELECT FROM pg_constraint k JOIN pg_description d ON d.objoid = k.oid WHERE k.conrelid = c.oid)
    OR EXISTS (SELECT FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam
               WHERE x.indrelid = c.oid AND x.indisunique AND a.amname <> 'btree')
    THEN 'its indexes have settings or comments'
  WHEN EXISTS (SELECT FROM pg_seclabel WHERE objoid = c.oid) THEN 'it has security labels'
  WHEN EXISTS (
    SELECT FROM pg_depend d
    WHERE ((d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid)
           OR (d.refclassid = 'pg_type'::regclass
               AND d.refobjid IN (SELECT oid FROM pg_type WHERE c.reltype IN (oid, typelem))))
      AND d.deptype <> 'i'
      AND NOT (d.classid = 'pg_class'::regclass AND d.objid IN (SELECT indexrelid FROM pg_index WHERE indrelid = c.oid))
      AND NOT (d.classid = 'pg_constraint'::regclass
               AND d.objid IN (SELECT oid FROM pg_constraint WHERE conrelid = c.oid))
      AND NOT (d.classid = 'pg_attrdef'::regclass
               AND d.objid IN (SELECT oid FROM pg_attrdef WHERE adrelid = c.oid)))
    THEN 'views, functions or sequences hang on it'
END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s
"""
