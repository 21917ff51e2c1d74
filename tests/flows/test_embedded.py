from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

import adbc_driver_postgresql.dbapi
import psycopg
import pytest

from flows import _embedded
from flows._embedded import DURABLE, EmbeddedPostgresError, Server, main, resolve
from flows._errors import ConfigError
from flows._unprivileged import make_open


@pytest.fixture
def folder():
    """An open folder of its own: pytest's tmp_path is closed to the account of root's server."""
    with tempfile.TemporaryDirectory(prefix="lockgate test, ") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def home(folder, monkeypatch):
    monkeypatch.setenv("LOCKGATE_HOME", str(folder))
    yield folder
    main(["remove"])


def one(uri, statement):
    with psycopg.connect(uri) as connection:
        return connection.execute(statement).fetchone()[0]


def in_another_process(code, home):
    environment = os.environ | {"LOCKGATE_HOME": str(home)}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("url", ["postgresql://user@host:5432/db", "postgres:///db", "host=/tmp dbname=db", ""])
def test_other_urls_are_returned_as_they_are(url):
    assert resolve(url) == url


@pytest.mark.parametrize(
    "url", ["embedded://", "embedded:///db", "embedded://db/schema", "embedded://db?x=1", f"embedded://{'x' * 64}"]
)
def test_a_url_without_one_database_name_is_refused(url):
    with pytest.raises(ConfigError, match=r"Write embedded://NAME"):
        resolve(url)


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(_embedded, "WHEEL", "no_such_wheel")

    assert not _embedded.is_installed()
    with pytest.raises(ConfigError, match=r"pip install 'lockgate\[demo\]'"):
        Server(tmp_path).start()


@pytest.mark.postgres
def test_psycopg_and_adbc_reach_a_database_of_any_name(home):
    name = "Größe & Co 'x'"
    uri = resolve(f"embedded://{name}")

    assert one(uri, "SELECT current_database()") == name
    with adbc_driver_postgresql.dbapi.connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_database()")
        assert cursor.fetchone() == (name,)


@pytest.mark.postgres
def test_a_database_outlives_the_process_and_a_killed_server(home):
    code = """if True:
        import psycopg
        from flows._embedded import resolve
        with psycopg.connect(resolve("embedded://kept")) as connection:
            connection.execute("CREATE TABLE t AS SELECT 42 AS answer")
    """
    process = in_another_process(code, home)
    process.communicate()
    assert process.returncode == 0
    uri = resolve("embedded://kept")
    assert one(uri, "SELECT answer FROM t") == 42

    pid_file = next(home.glob("postgres/*/postmaster.pid"))
    os.kill(int(pid_file.read_text().split()[0]), signal.SIGKILL)

    assert one(resolve("embedded://kept"), "SELECT answer FROM t") == 42


@pytest.mark.postgres
def test_processes_that_start_it_at_once_get_the_same_server(home):
    code = "from flows._embedded import resolve; print(resolve('embedded://shared'), end='')"
    processes = [in_another_process(code, home) for _ in range(4)]
    uris = {process.communicate()[0] for process in processes}

    assert [process.returncode for process in processes] == [0] * 4
    assert len(uris) == 1
    assert one(uris.pop(), "SELECT count(*) FROM pg_database WHERE datname = 'shared'") == 1


@pytest.mark.postgres
def test_a_pid_file_that_names_another_program_does_not_stop_the_start(home):
    server = Server(home / "postgres")
    resolve("embedded://db")
    server.stop()
    with subprocess.Popen(["/bin/sleep", "60"], user=server.data.stat().st_uid) as another:
        (server.data / "postmaster.pid").write_text(f"{another.pid}\n{server.data}\n0\n5432\n.\n\n")

        assert one(resolve("embedded://db"), "SELECT 1") == 1
        another.terminate()


@pytest.mark.postgres
def test_a_long_path_gets_a_short_name_for_its_socket(folder, monkeypatch):
    deep = folder / ("d" * 90)
    deep.mkdir(mode=0o755)
    monkeypatch.setenv("LOCKGATE_HOME", str(deep))
    uri = resolve("embedded://db")

    assert one(uri, "SELECT current_database()") == "db"
    short = Path(unquote(uri).partition("host=")[2].partition("&")[0])
    main(["remove"])
    assert not os.path.lexists(short)


@pytest.mark.postgres
def test_the_servers_words_are_in_the_error_when_it_does_not_start(folder):
    server = Server(folder, {"log_line_prefix": "%m", "shared_preload_libraries": "no_such_library"})
    with pytest.raises(EmbeddedPostgresError, match="no_such_library"):
        server.start()
    server.remove()


@pytest.mark.postgres
def test_settings_are_durable_and_private(home):
    uri = resolve("embedded://db")

    assert one(uri, "SHOW fsync") == "on"
    assert one(uri, "SHOW synchronous_commit") == "on"
    assert one(uri, "SHOW listen_addresses") == ""
    assert one(uri, "SHOW TimeZone") == "UTC"
    assert one(uri, "SELECT lower('ŁÓDŹ')") == "łódź"
    assert one(uri, "SHOW max_wal_size") == DURABLE["max_wal_size"]
    assert (home / "postgres" / "postgres18").stat().st_mode & 0o777 == 0o700


@pytest.mark.postgres
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has an account that cannot reach its own home")
def test_a_home_closed_to_the_servers_account_keeps_its_permissions(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    before = [path.stat().st_mode for path in (tmp_path, *tmp_path.parents)]
    monkeypatch.setenv("LOCKGATE_HOME", str(tmp_path))
    try:
        assert one(resolve("embedded://db"), "SELECT 1") == 1
    finally:
        main(["remove"])
    assert [path.stat().st_mode for path in (tmp_path, *tmp_path.parents)] == before


@pytest.mark.postgres
def test_the_command_line_says_what_it_did(home, capsys):
    main(["status"])
    main(["stop"])
    resolve("embedded://db")
    main(["status"])
    main(["stop"])

    status, stopped, up, stopped_again = capsys.readouterr().out.splitlines()
    assert status == "The embedded PostgreSQL is down."
    assert stopped == "The embedded PostgreSQL was not up."
    assert up.startswith("The embedded PostgreSQL is up: postgresql://postgres@/")
    assert stopped_again == "Stopped the embedded PostgreSQL."


def test_a_word_it_does_not_know_is_refused(home):
    with pytest.raises(SystemExit, match="usage"):
        main(["restart"])


@pytest.mark.postgres
@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")
def test_an_installation_closed_to_the_servers_account_is_copied(folder, monkeypatch):
    monkeypatch.setattr(_embedded, "_SYSTEM_FOLDER", folder)
    monkeypatch.setattr(_embedded, "can_run", lambda *_: False)
    server = Server(folder / "server")
    make_open(server.folder)
    server.start()

    executable = Path(f"/proc/{(server.data / 'postmaster.pid').read_text().split()[0]}/exe").readlink()
    server.remove()
    assert executable.is_relative_to(folder)
