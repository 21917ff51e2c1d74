"""A secret is used and never shown, whatever is done with it."""

import copy
import io
import json
import logging
import pickle
import traceback

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from flows._errors import ConfigError, SecretError
from flows._references import MalformedReferenceError
from flows._secrets import Redacting, Secret, redact, revealed

PASSWORD = "hunter2-Zx"


class Options(BaseModel):
    connection_string: Secret
    headers: dict[str, Secret] = {}
    rows: int = 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://user:pass@host:5432/db", "postgresql://user:***@host:5432/db"),
        ("postgresql://user@host/db", "postgresql://user@host/db"),
        ("postgresql://user:p%40ss@[::1]:5432/db", "postgresql://user:***@[::1]:5432/db"),
        ("postgresql://user:pass@one:1,two:2/db", "postgresql://user:***@one:1,two:2/db"),
        ("postgresql:///db?host=/tmp/x&password=pass", "postgresql:///db?host=/tmp/x&password=***"),
        ("postgresql://host/db?sslmode=require&PassWord=pass", "postgresql://host/db?sslmode=require&PassWord=***"),
        ("postgresql://host/db?pass", "postgresql://host/db?***"),
        ("redis://:pass@host", "redis://:***@host"),
        ("kafka://broker:9092/topic", "kafka://broker:9092/topic"),
        ("https://hooks.example.com/services/T0/B0/pass", "https://hooks.example.com/***"),
        ("https://token@example.com", "https://***@example.com"),
        # in doubt stars
        ("postgresql://user:p@ss@host/db", "***"),
        ("postgresql://user:p/ss@host/db", "***"),
        ("postgresql://user:p?ss@host/db", "***"),
        ("postgresql://user:p#ss@host/db", "***"),
        ("postgresql://user:pass", "***"),
        ("postgresql://host/db;password=pass", "***"),
        ("host=db user=me password=pass", "***"),
        ("Bearer pass", "***"),
        ("pass", "***"),
        # references are no secrets, what stands in for them may be
        ("${DB}", "${DB}"),
        ("{{ prefect.blocks.secret.db }}", "{{ prefect.blocks.secret.db }}"),
        ("${DB:-postgresql://user:pass@host/db}", "${DB:-***}"),
        ("Bearer ${TOKEN}", "***"),
        ("postgresql://user:${PASSWORD}@${HOST}:${PORT}/${DB}", "postgresql://user:***@${HOST}:${PORT}/${DB}"),
        ("postgresql://user:{{ prefect.blocks.secret.pw }}@host/db", "postgresql://user:***@host/db"),
    ],
)
def test_what_is_shown_of_a_secret(text, shown):
    secret = Secret(text)

    assert shown == secret.shown == str(secret) == f"{secret}"
    assert f"Secret({shown!r})" == repr(secret)


@pytest.mark.parametrize(
    "text",
    [
        PASSWORD,
        f"postgresql://user:{PASSWORD}@host/db",
        f"postgresql://user:{PASSWORD}/x@host/db",
        f"host=db password={PASSWORD}",
        f"https://example.com/{PASSWORD}",
        f"${{NAME:-{PASSWORD}}}",
    ],
)
@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        lambda options: options.model_dump_json(),
        lambda options: repr(options.model_dump()),
        lambda options: json.dumps(options.model_dump(mode="json")),
        lambda options: repr(copy.deepcopy(options)),
        lambda options: pickle.dumps(repr(options)).decode("latin-1"),
        lambda options: repr(vars(options)),
        lambda options: repr([options, {"x": options}]),
        lambda options: "%s %r" % (options.connection_string, options.headers),  # noqa: UP031 - as loggers do
    ],
)
def test_no_way_to_print_it_shows_it(text, show):
    options = Options(connection_string=text, headers={"Authorization": text})

    printed = show(options)

    assert PASSWORD not in printed


def test_it_is_not_pickled():
    with pytest.raises(TypeError, match="a secret is not pickled") as caught:
        pickle.dumps(Options(connection_string=PASSWORD))
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


def test_it_has_no_attributes_to_look_into():
    assert not hasattr(Secret(PASSWORD), "__dict__")


@pytest.mark.parametrize(
    "given", [{"rows": "x"}, {"headers": PASSWORD}, {"headers": {"a": [PASSWORD]}}, {"headers": {"a": 5}}]
)
def test_pydantic_does_not_quote_it(given):
    hiding = type("Hiding", (Options,), {"model_config": {"hide_input_in_errors": True}, "__module__": __name__})

    with pytest.raises(ValidationError) as caught:
        hiding.model_validate({"connection_string": PASSWORD, **given})
    assert PASSWORD not in str(caught.value)


def test_equal_texts_are_equal_secrets():
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1


@pytest.mark.parametrize("value", ["", None, 5, ["a"], {"a": "b"}])
def test_only_a_text_is_a_secret(value):
    with pytest.raises(ValidationError, match="needs a text, or a reference like"):
        Options.model_validate({"connection_string": value})


# --- references ---


@pytest.mark.parametrize(
    ("text", "revealed"),
    [
        ("plain", "plain"),
        ("${LG_A}", "one"),
        ("{{ $LG_A }}", "one"),
        ("${LG_A}${LG_B}", "onetwo"),
        ("x${LG_A}y", "xoney"),
        ("${LG_A:-else}", "one"),
        ("${LG_NONE:-else}", "else"),
        ("${LG_EMPTY:-else}", "else"),
        ("${LG_EMPTY}", ""),
        ("${LG_NONE:-}", ""),
        ("${LG_NONE:-a:-b}", "a:-b"),
        ("$${LG_A}", "${LG_A}"),
        ("$$${LG_A}", "$${LG_A}"),
        ("$LG_A", "$LG_A"),
        ("a$b$$c", "a$b$$c"),
        ("${LG_REFERENCE}", "${LG_A}"),
    ],
)
def test_references_are_resolved_when_it_is_revealed(text, revealed, monkeypatch):
    secret = Secret(text)
    monkeypatch.delenv("LG_NONE", raising=False)
    for name, value in {"LG_A": "one", "LG_B": "two", "LG_EMPTY": "", "LG_REFERENCE": "${LG_A}"}.items():
        monkeypatch.setenv(name, value)

    assert revealed == secret.reveal()


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("LG_NONE", raising=False)

    with pytest.raises(SecretError) as caught:
        Secret(f"postgresql://user:{PASSWORD}@${{LG_NONE}}/db").reveal()

    assert str(caught.value) == "'${LG_NONE}' is not set. Set the environment variable LG_NONE."
    assert caught.value.reference == "${LG_NONE}"
    assert isinstance(caught.value, ConfigError)
    assert caught.value.exit_code == 2
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "text",
    ["${}", "${1a}", "${a b}", "${a-b}", "${", "x${y", "${a:b}", "${a{b}}", "{{ prefect.x }}", "{{ secrets.a }}"],
)
def test_a_reference_that_is_none_is_refused_without_showing_it(text):
    with pytest.raises(MalformedReferenceError, match=r"begins no reference\. Known: \$\{NAME\}") as caught:
        Secret(f"{PASSWORD}{text}")
    assert PASSWORD not in str(caught.value)

    with pytest.raises(ValidationError, match="begins no reference"):
        Options(connection_string=text)


@pytest.mark.parametrize("text", ["{{ prefect.blocks.secret.db }}", "{{prefect.variables.db}}"])
def test_prefect_that_does_not_answer_is_said_so(text, prefect_setting):
    prefect_setting("PREFECT_API_URL", "http://127.0.0.1:9/api")
    prefect_setting("PREFECT_CLIENT_MAX_RETRIES", "0")

    with pytest.raises(SecretError) as caught:
        Secret(text).reveal()
    assert str(caught.value).startswith(f"'{text}' cannot be resolved: Prefect did not answer (")
    assert "Set PREFECT_API_URL to a running server." in str(caught.value)


@pytest.mark.prefect
def test_prefect_blocks_and_variables_are_resolved():
    from prefect.blocks.system import Secret as Block  # noqa: PLC0415 - Prefect takes seconds to import
    from prefect.testing.utilities import prefect_test_harness  # noqa: PLC0415
    from prefect.variables import Variable  # noqa: PLC0415

    with prefect_test_harness(server_startup_timeout=120):
        Block(value="0123").save("db-password")
        Block(value={"user": "me"}).save("db-mapping")
        Variable.set("db_host", "db.example.com")
        Variable.set("db_port", 5432)

        host = "{{ prefect.variables.db_host }}:{{ prefect.variables.db_port }}"
        text = f"postgresql://u:{{{{ prefect.blocks.secret.db-password }}}}@{host}/x"
        assert Secret(text).reveal() == "postgresql://u:0123@db.example.com:5432/x"
        with pytest.raises(SecretError, match=r"Prefect has no Secret block 'none'. Create it there."):
            Secret("{{ prefect.blocks.secret.none }}").reveal()
        with pytest.raises(SecretError, match=r"Prefect has no variable 'none'. Create it there."):
            Secret("{{ prefect.variables.none }}").reveal()
        with pytest.raises(SecretError, match=r"is a dict. Store a text in Prefect"):
            Secret("{{ prefect.blocks.secret.db-mapping }}").reveal()


# --- the words of others ---


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("cannot connect to postgresql://u:pass@h/db", "cannot connect to postgresql://u:***@h/db"),
        ("postgresql://u:p/a@s@s@h/db is bad", "postgresql://u:***@h/db is bad"),
        ("redis://:pass@h", "redis://:***@h"),
        ("connection to 'host=h password=pass port=1' failed", "connection to 'host=h password=*** port=1' failed"),
        ("GET /x?api_key=pass&a=1", "GET /x?api_key=***&a=1"),
        ("aws_secret_access_key=pass, x", "aws_secret_access_key=***, x"),
        ("PGPASSWORD=pass psql", "PGPASSWORD=*** psql"),
        ("password: 'x' is not a text", "password: 'x' is not a text"),
        ("mail me@example.com at https://example.com/a", "mail me@example.com at https://example.com/a"),
    ],
)
def test_passwords_in_foreign_texts_become_stars(text, cleaned):
    assert cleaned == redact(text)


def test_every_form_of_a_known_password_becomes_stars():
    secret = Secret("postgresql://u:p%40ss%2Fw%22ord@host/db")
    texts = [
        "p%40ss%2Fw%22ord",
        'p@ss/w"ord',
        "p@ss/w%22ord".replace("%22", '"'),
        "p%40ss%2fw%22ord".upper().replace("P", "p", 1),
    ]

    for text in texts[:3]:
        assert redact(f"no {text} here", [secret]) == "no *** here"
    assert redact("at postgresql://u:p%40ss%2Fw%22ord@host/db", [secret]) == "at postgresql://u:***@host/db"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [("late", "***"), ("'late'", "'***'"), ("calculate, later", "calculate, later"), ("x=late;", "x=***;")],
)
def test_a_short_secret_is_not_told_by_the_words_around_it(text, cleaned):
    assert redact(text, [Secret("late")]) == cleaned


def test_a_word_under_a_public_name_is_used_and_stays_a_word():
    named = {"scope": Secret("readonly"), "Accept": Secret("${KIND:-text/csv}"), "X-Key": Secret("ledger-key")}

    texts = revealed(named)

    assert texts == {"scope": "readonly", "Accept": "text/csv", "X-Key": "ledger-key"}
    assert redact("readonly text/csv by ledger-key") == "readonly text/csv by ***"


def test_what_was_revealed_once_stays_hidden():
    Secret("Lockgate-very-secret-1").reveal()

    assert redact("a Lockgate-very-secret-1 b") == "a *** b"


def test_a_secret_that_cannot_be_resolved_hides_nothing_and_breaks_nothing(monkeypatch):
    monkeypatch.delenv("LG_NONE", raising=False)

    assert redact("text", [Secret("${LG_NONE}")]) == "text"


def test_log_lines_and_their_tracebacks_are_cleaned():
    secret = Secret(f"postgresql://user:{PASSWORD}@host/db")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(Redacting())
    logger = logging.Logger("test")  # noqa: LOG001 - one that the other tests do not share
    logger.addHandler(handler)

    logger.warning("at %s with %s", secret.reveal(), secret)
    try:
        raise ValueError(secret.reveal())  # noqa: TRY301
    except ValueError:
        logger.exception("password %s", PASSWORD)

    logger.warning("%d is no number", PASSWORD)

    lines = stream.getvalue()
    assert PASSWORD not in lines
    assert "at postgresql://user:***@host/db with postgresql://user:***@host/db\npassword ***\nTraceback" in lines
    assert "ValueError: postgresql://user:***@host/db" in lines


_SECRETS = st.text(st.characters(codec="utf-8", exclude_characters="*"), min_size=8, max_size=20)


@given(_SECRETS, st.text(max_size=10), st.text(max_size=10))
@example("$a$a", "", "")
def test_a_known_secret_never_leaks(text, before, after):
    try:
        secret = Secret(text)
        revealed = secret.reveal()
    except (MalformedReferenceError, SecretError):
        return
    if "://" in revealed:
        return  # an address may be shown in part; the next test is about those
    for printed in (repr(secret), str(secret), redact(f"{before}{revealed}{after}", [secret])):
        assert revealed not in printed


_PASSWORDS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"], exclude_characters="*"), min_size=4)
_ADDRESSES = (
    "postgresql://user:{}@host:5432/db",
    "redis://:{}@h",
    "https://u:{}@h/x?y=1",
    "x://h/db?password={}",
    "host=h password={}",
)


@given(_PASSWORDS, st.sampled_from(_ADDRESSES))
@example("//x@", "postgresql://user:{}@host:5432/db")
@example("://host", "postgresql://user:{}@host:5432/db")
def test_a_password_in_an_address_is_never_shown(password, address):
    assume(password not in address and password not in repr(Secret("x")))
    try:
        secret = Secret(address.format(password))
    except MalformedReferenceError:
        return

    assert password not in str(secret)
    assert password not in repr(secret)
