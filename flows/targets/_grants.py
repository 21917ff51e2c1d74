"""Who may do what with a table that took another's place, or is new."""

from __future__ import annotations

from flows._postgres import Connection, execute, quote
from flows.targets._catalog import PLACE, TableInfo

_GRANTEE = "CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END"
#: What default privileges gave the staging table, and nobody asked for.
_HELD = f"""
SELECT DISTINCT format('REVOKE ALL ON {PLACE} FROM %%s', {_GRANTEE})
FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = %s::regclass
"""
#: What a new table of this schema gets.
_DEFAULT = f"""
SELECT format('GRANT %%s ON {PLACE} TO %%s%%s', a.privilege_type, {_GRANTEE},
              CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM pg_default_acl d, aclexplode(d.defaclacl) a
WHERE d.defaclobjtype = 'r' AND d.defaclrole = (SELECT oid FROM pg_roles WHERE rolname = current_user)
  AND d.defaclnamespace IN (0, (SELECT oid FROM pg_namespace WHERE nspname = %s))
"""


def replayed(connection: Connection, table: TableInfo) -> list[str]:
    """Statements that give the table in the place of `table` its privileges; it is there already."""
    held = [text for (text,) in execute(connection, _HELD, (table.quoted,))]
    if table.oid is None:
        wanted = [text for (text,) in execute(connection, _DEFAULT, (table.schema,))]
    else:
        wanted = list(table.grants)
    # Without privileges of its own a table is its owner's; that is what they come back to.
    owner = [f"GRANT ALL ON {PLACE} TO CURRENT_USER"] if (held or table.oid is None) and not table.grants else []
    revoked = held or ([f"REVOKE ALL ON {PLACE} FROM CURRENT_USER"] if table.grants else [])
    return [statement.replace(PLACE, quote(table.schema, table.name), 1) for statement in (*revoked, *owner, *wanted)]
