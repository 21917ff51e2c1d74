"""The databases we speak with, a row each: how a URL names one, which driver reaches it, and how its SQL is written.

Sources and targets share this table; it opens nothing. A database that is not in it is reached through the ADBC
driver of its scheme (``snowflake://`` through ``adbc_driver_snowflake``), in plain SQL.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from math import isfinite
from pathlib import Path

_MEMORY = {"", ":memory:"}


@dataclass(frozen=True)
class Dialect:
    """How one kind of database is named, reached and spoken to.

    Attributes:
        name: the scheme of its URLs; behind a ``+`` may stand what other tools call a driver.
        title: what people call it.
        driver: the module that reaches it.
        package: what ``pip install`` is told, where the module is missing.
        is_file: whether a database is a file of this machine.
        quote_char: stands around identifiers; doubled inside them.
        grammar: how sqlglot calls its SQL; empty is standard SQL.
        limits: whether it knows ``LIMIT``.
        has_moments: whether dates and timestamps are types of their own, or texts in ISO 8601.
        escapes: whether a backslash in a text is more than itself.
        aliases: other schemes that mean it.
    """

    name: str
    title: str
    driver: str
    package: str
    is_file: bool = False
    quote_char: str = '"'
    grammar: str = ""
    limits: bool = True
    has_moments: bool = True
    escapes: bool = False
    aliases: tuple[str, ...] = ()

    def quote(self, *parts: str) -> str:
        """Quote an identifier, dotted where there are several parts."""
        mark = self.quote_char
        return ".".join(f"{mark}{part.replace(mark, mark * 2)}{mark}" for part in parts)

    def literal(self, value: object) -> str:  # noqa: PLR0911 - one line a type
        """Write a value as an SQL literal.

        Raises:
            ValueError: there is none; the message goes on from "the parameter 'x' ".
        """
        match value:
            case None:
                return "NULL"
            case bool():
                return str(value).upper()
            case int():
                return str(value)
            case Decimal() if value.is_finite():
                return f"{value:f}"
            case float() if isfinite(value):
                return repr(value)
            case str():
                return self._text(value)
            case datetime():
                kind = "TIMESTAMP" if value.tzinfo is None else "TIMESTAMP WITH TIME ZONE"
                return f"{kind + ' ' if self.has_moments else ''}'{value.isoformat(' ')}'"
            case date():
                return f"{'DATE ' if self.has_moments else ''}'{value.isoformat()}'"
        kind = type(value).__name__
        raise ValueError(f"is a {kind}, which is no SQL value. Write a text, a number or a date.")

    def _text(self, value: str) -> str:
        if "\0" in value:
            raise ValueError(f"holds a zero byte, which no literal of {self.title} can have. Remove it.")
        if self.escapes and "\\" in value:
            raise ValueError(f"holds a backslash, which {self.title} may take for more than itself. Remove it.")
        return "'" + value.replace("'", "''") + "'"


POSTGRES = Dialect(
    "postgresql",
    "PostgreSQL",
    "adbc_driver_postgresql",
    "adbc-driver-postgresql",
    grammar="postgres",
    aliases=("postgres", "embedded"),
)
SQLITE = Dialect(
    "sqlite", "SQLite", "adbc_driver_sqlite", "adbc-driver-sqlite", is_file=True, grammar="sqlite", has_moments=False
)
DUCKDB = Dialect("duckdb", "DuckDB", "duckdb", "lockgate[duckdb]", is_file=True, grammar="duckdb")
_TABLE = (POSTGRES, SQLITE, DUCKDB)
_BY_SCHEME = {scheme: dialect for dialect in _TABLE for scheme in (dialect.name, *dialect.aliases)}
#: Databases that are reached through the ADBC driver of their scheme and do not quote identifiers with ``"``,
#: or have no ``LIMIT``.
_BACKTICKS = {"mysql", "mariadb", "bigquery", "databricks", "spark", "hive", "clickhouse"}
_WITHOUT_LIMIT = {"mssql", "sqlserver", "oracle"}


def dialect_of(url: str) -> Dialect:
    """The dialect of a connection string; of a scheme that is not in the table, that of its ADBC driver.

    A text of ``key=value`` pairs is libpq's. Nothing is opened.

    Raises:
        ValueError: it has no scheme.
    """
    scheme, separator, _rest = url.partition("://")
    name = scheme.partition("+")[0].lower()
    if not separator and "=" in url:
        return POSTGRES
    if not separator or not name.replace("_", "").isalnum():
        raise ValueError("it has no scheme. Write postgresql://..., sqlite:///file.db or duckdb:///file.db.")
    if name in _BY_SCHEME:
        return _BY_SCHEME[name]
    return Dialect(
        name,
        name,
        f"adbc_driver_{name}",
        f"adbc-driver-{name}",
        quote_char="`" if name in _BACKTICKS else '"',
        escapes=name in _BACKTICKS,
        limits=name not in _WITHOUT_LIMIT,
    )


def database_file(url: str) -> Path:
    """The file that a URL of SQLite or DuckDB names, as SQLAlchemy reads it.

    ``sqlite:///relative.db`` is relative to the working directory, ``sqlite:////abs.db`` is not; ``~`` is the
    home folder. Nothing is opened.

    Raises:
        ValueError: it names a host, no file, options, or a database in memory, which nobody else can have filled.
    """
    scheme, _separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if host and host not in _MEMORY:
        raise ValueError(
            f"{host!r} stands where a host would. Write {scheme}:///relative.db or {scheme}:////absolute.db."
        )
    path, question, options = path.partition("?")
    if question and options:
        raise ValueError(f"no options are known behind '?'. Write {scheme}:///{path}.")
    if host in _MEMORY and path in _MEMORY:
        memory = f"{scheme}://{host}{slash}{path}"
        raise ValueError(
            f"{memory!r} is a database in memory, which ends with the run. Name a file: {scheme}:///file.db."
        )
    return Path(path).expanduser()
