"""PostgreSQL at the edge: connections, names, the catalogue, and its errors in our words.

Sources and targets share this module; it is the only place that knows SQLSTATEs. Foreign
errors are mapped once, here, with ``from``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import adbc_driver_manager
import psycopg
from psycopg import sql

from flows._secrets import Secret, redact
from flows._sides import Side
from flows._types import PgType
from transforms._words import did_you_mean

_CONNECT_SECONDS = 10
_NO_MODIFIER = 4  # modifiers of a numeric are counted from here
_ALL_DIGITS = 6  # of a second, that a time can keep
Connection = psycopg.Connection[tuple[Any, ...]]

#: A session of ours: texts that mean the same everywhere, and no timeout that somebody set for short queries.
SETTLED = """
SELECT set_config(ours.name, value, false)
FROM (VALUES ('datestyle', 'ISO, YMD'), ('intervalstyle', 'postgres'), ('extra_float_digits', '1'),
             ('bytea_output', 'hex'), ('statement_timeout', '0'), ('transaction_timeout', '0'), ('lock_timeout', '0'),
             ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0')) AS ours (name, value)
JOIN pg_settings ON lower(pg_settings.name) = ours.name
"""
Foreign = (psycopg.Error, adbc_driver_manager.Error)


def uri(connection_string: Secret) -> str:
    """Resolve a connection string to what libpq understands; starts the embedded server where asked.

    Raises:
        SecretError: it holds a reference that cannot be resolved.
    """
    revealed = connection_string.reveal()
    scheme, separator, rest = revealed.partition("://")
    if scheme == "embedded":
        from flows._embedded import resolve  # noqa: PLC0415 - the demo extra is optional

        return resolve(revealed)
    return f"{scheme.partition('+')[0]}{separator}{rest}"  # postgresql+psycopg://, as SQLAlchemy's users write it


def connect(connection_string: Secret, *, application: str, side: PostgresSide) -> Connection:
    """Open a connection in autocommit mode.

    Raises:
        LockgateError: of `side`: unreachable, authentication, missing database.
    """
    address = uri(connection_string)
    with side.mapped():
        try:
            connection = psycopg.connect(
                address, application_name=application[:63], connect_timeout=_CONNECT_SECONDS, autocommit=True
            )
        except psycopg.ProgrammingError as error:  # libpq quotes what it could not read, passwords included
            raise side.error("unreachable", f"{connection_string} is not a PostgreSQL connection string.") from error
        try:
            execute(connection, SETTLED)
        except BaseException:
            connection.close()
            raise
    return connection


def quote(*parts: str) -> str:
    """Quote an identifier, dotted where there are several parts."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def literal(value: object) -> str:
    """Write a value as an SQL literal, quoted by the driver's own rules."""
    return sql.Literal(value).as_string(None)


def statement(text: str) -> sql.SQL:
    """Composed SQL text for a driver that accepts only literal strings; values never enter it unquoted."""
    return sql.SQL(text)


def execute(connection: Connection, text: str, parameters: tuple[object, ...] | None = None) -> psycopg.Cursor[Any]:
    """Run one statement; `parameters` are bound by the server."""
    return connection.execute(text, parameters)


@dataclass(frozen=True)
class Column:
    """A column of a table or query, in catalogue terms."""

    name: str
    pg: PgType


@dataclass(frozen=True)
class PostgresSide(Side):
    """An end of a run that is a PostgreSQL server.

    Attributes:
        stands_for: a table's name and the name of the one that people know it by, in the server's words.
    """

    stands_for: tuple[str, str] | None = None

    @contextmanager
    def mapped(self) -> Iterator[None]:
        """Turn the driver's errors into ours, once."""
        try:
            yield
        except Foreign as error:
            self._raise(error)

    def _raise(self, error: psycopg.Error | adbc_driver_manager.Error) -> NoReturn:
        state = error.sqlstate or ""
        text = _first_sentence(error).replace(*self.stands_for) if self.stands_for else _first_sentence(error)
        what, advice = (
            (_LOST if _SNAPSHOT_IS_GONE.match(text) else None)
            or _KNOWN.get(state)
            or _KNOWN.get(state[:2])
            or (_by_text(text) if _has_no_session(error, state) else _OTHER)
        )
        address = f" {self.address}" if what in {"unreachable", "authentication"} and self.address else ""
        raise self.error(what, f"{address.strip()}{': ' if address else ''}{text} {advice}".strip()) from error


_NOT_NULL = "23502"
_NO_SUCH_CHARACTER = "22P05"
#: Where a COPY stopped: the server names the column in the context of its error.
_COPIED_COLUMN = re.compile(r"^COPY .*, line \d+, column (.+?)(?:: .*)?$", re.MULTILINE)
#: The session that kept it has ended; older servers call such a snapshot invalid.
_SNAPSHOT_IS_GONE = re.compile(r'snapshot "[^"]+" does not exist|invalid snapshot identifier')
_UNREACHABLE = ("unreachable", "Check the host, the port and that the server is up; then run again.")
_LOST = ("lost", "Nothing was published. Run again.")
_AUTHENTICATION = ("authentication", "Check the user and the password.")
_MISSING = ("missing", "Check the name, and the schema it is in.")
_PERMISSION = ("permission", "Grant it, or use another user.")
_BUSY = ("busy", "Run again when the other session is done.")
_VALUE = ("type", "Nothing was published.")
_OTHER = ("other", "Nothing was published.")

#: SQLSTATE, or its class, to what happened and what to do next.
_KNOWN: dict[str, tuple[str, str]] = {
    "28": _AUTHENTICATION,
    "08": _LOST,
    "3D": ("missing", "Check the name of the database."),
    "3F": _MISSING,
    "42P01": _MISSING,
    "42703": _MISSING,
    "42501": _PERMISSION,
    "25006": ("permission", "The server is read-only; connect to the primary."),
    "42": ("query", "Check the query."),
    "22": _VALUE,
    "23": (
        "constraint",
        "Nothing was published. Fix the rows, or state the rule in quality_rules so that they go to quarantine.",
    ),
    "40": _BUSY,
    "55P03": _BUSY,
    "57014": ("cancelled", "Somebody cancelled it, or a timeout did. Nothing was published."),
    "57": _LOST,
    "53": ("resources", "Free some space or connections on the server, then run again."),
}


def _has_no_session(error: Exception, state: str) -> bool:
    return not state and isinstance(error, (psycopg.OperationalError, adbc_driver_manager.Error))


def _by_text(text: str) -> tuple[str, str]:
    """The client library gives no SQLSTATE for what happens before a session exists."""
    lowered = text.lower()
    if "password" in lowered or "authentication" in lowered or "role" in lowered:
        return _AUTHENTICATION
    if "database" in lowered and "does not exist" in lowered:
        return _KNOWN["3D"]
    if "closed the connection" in lowered or "connection is lost" in lowered or "terminat" in lowered:
        return _LOST
    return _UNREACHABLE


def _first_sentence(error: psycopg.Error | adbc_driver_manager.Error) -> str:
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        text = _of_the_server(error.sqlstate or "", error.diag)
    else:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = next(
            (line for line in lines if "FATAL" in line or "ERROR" in line), lines[0] if lines else "no reason given"
        )
        text = text.rpartition("ERROR:")[2].rpartition("FATAL:")[2].strip() or text
    return redact(text.rstrip(".")) + "."


def _of_the_server(state: str, diagnosis: psycopg.errors.Diagnostic) -> str:
    """What the server says, with its detail where a row breaks a constraint; never the whole row."""
    text, detail = diagnosis.message_primary or "", diagnosis.message_detail or ""
    if state == _NOT_NULL:
        return f"column {diagnosis.column_name!r} takes no nulls, and a row has one there"
    if column := _COPIED_COLUMN.search(diagnosis.context or ""):
        text = f"column {column[1]!r}: {text}"
    if "0x00" in text or state == _NO_SUCH_CHARACTER:
        text = f"{text} (PostgreSQL's texts hold no NUL character)"
    if not state.startswith("23") or not detail or detail.startswith("Failing row"):
        return text
    return f"{text} ({detail.rstrip('.')})"


_DESCRIBE = """
SELECT item.oid IS NOT NULL AS is_array,
       CASE WHEN coalesce(item.typtype, t.typtype) = 'e' THEN 'enum' ELSE coalesce(item.typname, t.typname) END,
       format_type(t.oid, d.modifier), format_type(t.oid, -1)
FROM unnest(%s::oid[], %s::int4[]) WITH ORDINALITY AS d (type, modifier, position)
JOIN pg_type t ON t.oid = d.type LEFT JOIN pg_type item ON item.typarray = t.oid
ORDER BY d.position
"""


def columns_of(connection: Connection, query: str) -> list[Column]:
    """The columns of a query, with their types down to precision; runs nothing but its plan."""
    cursor = execute(connection, f"SELECT * FROM ({query}) AS q LIMIT 0")
    described, result = cursor.description or [], cursor.pgresult
    modifiers = [result.fmod(index) for index in range(len(described))] if result else []
    found = [(column.name, column.type_code, mod) for column, mod in zip(described, modifiers, strict=True)]
    return _described(connection, found)


_COLUMNS = """
WITH RECURSIVE made_of (place, name, type, modifier) AS (
  SELECT attnum, attname, atttypid, atttypmod FROM pg_attribute
  WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
  UNION ALL
  SELECT place, name, typbasetype, greatest(modifier, typtypmod)
  FROM made_of JOIN pg_type ON pg_type.oid = type WHERE typtype = 'd'
)
SELECT name::text, type::int8, modifier FROM made_of JOIN pg_type ON pg_type.oid = type
WHERE typtype <> 'd' ORDER BY place
"""


def columns_of_table(connection: Connection, oid: int) -> list[Column]:
    """The same of a table, from the catalogue alone, so that nobody needs to be allowed to read it."""
    return _described(connection, execute(connection, _COLUMNS, (oid,)).fetchall())


def _described(connection: Connection, columns: Sequence[tuple[str, int, int]]) -> list[Column]:
    """Columns, from their names, types and modifiers."""
    oids, modifiers = [oid for _name, oid, _modifier in columns], [modifier for _name, _oid, modifier in columns]
    types = execute(connection, _DESCRIBE, (oids, modifiers))
    known = connection.adapters.types
    described = []
    for (column, oid, modifier), (is_array, name, formatted, plain) in zip(columns, types, strict=True):
        short = known.get(oid)
        text = formatted if short is None else short.get_type_display(oid=oid, fmod=modifier)
        described.append(Column(column, _pg_type(PgType(name, text, is_array, plain=plain), modifier)))
    return described


_TIMES = {"time", "timetz", "timestamp", "timestamptz", "interval"}


def _pg_type(pg: PgType, modifier: int) -> PgType:
    """The type with what its modifier says.

    A numeric's holds its precision, and its scale as eleven bits with a sign; that of a time how many digits of a
    second are kept, in its lower half.
    """
    if modifier < 0:
        return replace(pg, plain="")
    if pg.name in _TIMES:
        digits = modifier & 0xFFFF
        return replace(pg, precision=digits) if digits < _ALL_DIGITS else pg
    if pg.name != "numeric" or modifier < _NO_MODIFIER:
        return pg
    packed = modifier - _NO_MODIFIER
    return replace(pg, precision=packed >> 16, scale=((packed & 0x7FF) ^ 0x400) - 0x400)


def text_equality_is_exact(connection: Connection) -> bool:
    """Whether equal texts are equal bytes here: false once any nondeterministic collation exists."""
    row = execute(connection, "SELECT NOT EXISTS (SELECT FROM pg_collation WHERE NOT collisdeterministic)").fetchone()
    return bool(row and row[0])


def require_columns(wanted: list[str], present: list[str], side: PostgresSide) -> None:
    """Confirm that every wanted column is there.

    Raises:
        LockgateError: one is not; with did-you-mean.
    """
    for name in wanted:
        if name not in present:
            raise side.error("missing", f"no column {name!r}.{did_you_mean(name, present, word='Present')}")
