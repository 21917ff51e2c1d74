"""How an API is called: signed, again where that may help, at its pace, and never giving a secret away."""

import base64
import email.utils
import gzip
import logging
import socket
import threading
import time

import polars as pl
import pytest
from pydantic import ValidationError

from flows._errors import (
    ExtractError,
    SecretError,
    SourceAuthenticationError,
    SourceConnectionLostError,
    SourceMissingError,
    SourcePermissionError,
    SourceUnreachableError,
)
from flows.sources._base import Pushdown, sources

TOKEN = "hushhush-token"
ROWS = [{"id": 1}, {"id": 2}]


def api(web, path="/items", **keys):
    quick = {"max_retries": 2, "retry_delay_seconds": 0.01}
    return sources.get("api").model_validate({"type": "api", "url": f"{web.url}{path}"} | quick | keys)


def ids(source) -> list[int]:
    extract = source.scan("items")
    return pl.concat(extract.read(Pushdown())).get_column("id").to_list()


def failure(source, kind: type[ExtractError] = ExtractError) -> ExtractError:
    """What a scan raises: one line, the source's name in front, no secret in it."""
    with pytest.raises(kind) as caught:
        source.scan("items")
    error = caught.value
    assert type(error) is kind
    assert str(error).startswith("source 'items': ")
    assert "\n" not in str(error)
    assert TOKEN not in f"{error} {error.__cause__!r}"
    return error


# --- who asks ---


@pytest.mark.parametrize(
    ("keys", "header", "value"),
    [
        ({"type": "bearer", "token": TOKEN}, "authorization", f"Bearer {TOKEN}"),
        (
            {"type": "basic", "username": "ada", "password": TOKEN},
            "authorization",
            f"Basic {base64.b64encode(f'ada:{TOKEN}'.encode()).decode()}",
        ),
        (
            {"type": "basic", "username": TOKEN},
            "authorization",
            f"Basic {base64.b64encode(f'{TOKEN}:'.encode()).decode()}",
        ),
        ({"type": "api_key", "api_key": TOKEN}, "authorization", TOKEN),
        ({"type": "api_key", "api_key": TOKEN, "name": "X-Key"}, "x-key", TOKEN),
        ({"type": "api_key", "api_key": TOKEN, "name": "key", "location": "query"}, "x-query", f"a=1&key={TOKEN}"),
        ({"type": "api_key", "api_key": TOKEN, "name": "key", "location": "cookie"}, "cookie", f"key={TOKEN}"),
    ],
)
def test_every_way_to_sign(web, keys, header, value):
    web.answers["/items"] = lambda asked: ROWS if asked.headers.get(header) == value else web.reply({}, 401)
    source = api(web, authentication=keys, parameters={"a": 1})

    assert ids(source) == [1, 2]
    assert TOKEN not in repr(source)
    assert TOKEN not in source.scan("items").describe(Pushdown())


def test_headers_are_secrets_and_may_be_references(web, monkeypatch):
    monkeypatch.setenv("TENANT", TOKEN)
    web.answers["/items"] = lambda asked: ROWS if asked.headers.get("x-tenant") == TOKEN else web.reply({}, 401)
    source = api(web, headers={"X-Tenant": "${TENANT}", "Accept": "application/vnd.api+json"})

    assert ids(source) == [1, 2]
    assert TOKEN not in repr(source)
    assert web.asked[0].headers["accept"] == "application/vnd.api+json"
    monkeypatch.delenv("TENANT")
    with pytest.raises(SecretError, match="TENANT"):
        source.scan("items")


def test_a_header_with_a_line_break_is_an_error_without_its_value(web, monkeypatch):
    monkeypatch.setenv("TENANT", f"{TOKEN}\n")

    error = failure(api(web, headers={"X-Tenant": "${TENANT}"}))

    assert str(error) == (
        "source 'items': the value of header 'X-Tenant' holds a character that no header can. Is it a line break?"
    )


OAUTH = {"type": "oauth2_client_credentials", "client_id": "ada", "client_secret": TOKEN}


def with_tokens(web, *, expires_in=3600, good=lambda number: True):
    """Give out tokens t1, t2, ...; the API takes those that are `good`, and the newest one only."""
    given = []

    def token(asked):
        assert asked.form == {
            "grant_type": "client_credentials", "client_id": "ada", "client_secret": TOKEN, "scope": "read",
        }  # fmt: skip
        given.append(f"given-{len(given) + 1}")
        return {"access_token": given[-1], "token_type": "Bearer", "expires_in": expires_in}

    def items(asked):
        number = int(asked.query["page"])
        if asked.headers.get("authorization") != f"Bearer {given[-1]}" or not good(len(given)):
            return web.reply({"error": "expired"}, 401)
        return [{"id": number}] if number < 6 else []

    web.answers |= {"/token": token, "/items": items}
    keys = OAUTH | {"access_token_url": f"{web.url}/token", "access_token_request_data": {"scope": "read"}}
    return given, api(web, authentication=keys, pagination={"type": "page_number"})


def test_a_token_is_asked_for_once_for_all_calls(web):
    given, source = with_tokens(web)

    assert ids(source) == [0, 1, 2, 3, 4, 5]
    assert len(given) == 1


def test_a_token_is_renewed_before_it_expires(web):
    given, source = with_tokens(web, expires_in="1")
    answer = web.answers["/items"]

    def slow(asked):
        time.sleep(0.25)
        return answer(asked)

    web.answers["/items"] = slow

    assert ids(source.model_copy(update={"concurrency": 1})) == [0, 1, 2, 3, 4, 5]
    assert len(given) > 1


def test_a_token_that_is_refused_is_renewed_once(web):
    given, source = with_tokens(web, good=lambda number: number > 1)

    assert ids(source) == [0, 1, 2, 3, 4, 5]
    assert len(given) == 2


def test_a_new_token_that_is_refused_too_ends_it(web):
    given, source = with_tokens(web, good=lambda _number: False)

    error = failure(source, SourceAuthenticationError)

    assert "was answered with 401 Unauthorized: '{\"error\": \"expired\"}'. Check 'authentication'." in str(error)
    assert len(given) == 2
    assert "given-" not in str(error)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"error": "invalid_client"}, 401, 'was answered with 401 Unauthorized: \'{"error": "invalid_client"}\''),
        ({"token": "x"}, 200, "the answer holds no 'access_token'"),
        ({"access_token": "a b\nc"}, 200, "the answer holds no 'access_token'"),
        (b"<html>", 200, "was answered with a body that is not JSON"),
        (b"", 302, "was answered with 302 Found: no body"),
    ],
)
def test_no_token_is_an_error_that_says_why(web, body, status, said):
    web.answers["/token"] = lambda _: web.reply(body, status, {"Location": f"{web.url}/elsewhere"})

    error = failure(
        api(web, authentication=OAUTH | {"access_token_url": f"{web.url}/token"}), SourceAuthenticationError
    )

    assert said in str(error)
    assert [asked.path for asked in web.asked] == ["/token"]


def test_a_place_of_tokens_in_trouble_is_asked_again(web):
    web.answers["/token"] = lambda asked: {"access_token": "abc"} if asked.times == 2 else web.reply({}, 503)
    web.answers["/items"] = lambda _: ROWS

    assert ids(api(web, authentication=OAUTH | {"access_token_url": f"{web.url}/token"})) == [1, 2]


def test_every_call_without_a_good_login_is_said_to_be_that(web):
    for status, kind in ((401, SourceAuthenticationError), (403, SourcePermissionError), (404, SourceMissingError),
                         (410, SourceMissingError), (400, ExtractError), (501, ExtractError)):  # fmt: skip
        web.answers["/items"] = lambda _, status=status: web.reply({"said": f"no, {TOKEN}"}, status)
        web.asked.clear()
        error = failure(api(web, authentication={"type": "bearer", "token": TOKEN}), kind)
        assert f"GET {web.url}/items was answered with {status} " in str(error)
        assert "no, ***" in str(error)
        assert not error.retryable
        assert len(web.asked) == 1


# --- again ---


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_asked_again(web, status):
    web.answers["/items"] = lambda asked: ROWS if asked.times == 3 else web.reply({}, status)

    assert ids(api(web)) == [1, 2]
    assert len(web.asked) == 3


def test_retries_end(web):
    web.answers["/items"] = lambda _: web.reply(b"busy", 503)

    error = failure(api(web, max_retries=1, parameters={"key": TOKEN}), SourceUnreachableError)

    assert str(error) == (
        f"source 'items': GET {web.url}/items?key=*** was answered with 503 Service Unavailable after 1 retry: 'busy'. "
        "Run again later, or with a lower 'rate_limit' or 'concurrency'."
    )
    assert error.retryable
    assert len(web.asked) == 2


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for_by_all(web, form):
    refused = []

    def answer(asked):
        if not refused:
            refused.append(time.monotonic())
            in_two_seconds = email.utils.formatdate(time.time() + 2, usegmt=True)  # which knows whole seconds only
            return web.reply({}, 429, {"Retry-After": "1" if form == "seconds" else in_two_seconds})
        return ROWS if time.monotonic() - refused[0] > 0.9 else web.reply({}, 400)

    web.answers["/items"] = answer

    assert ids(api(web)) == [1, 2]
    assert len(web.asked) == 2


def test_a_retry_after_that_is_too_long_ends_it_at_once(web):
    web.answers["/items"] = lambda _: web.reply({}, 429, {"Retry-After": "3600"})

    error = failure(api(web), SourceUnreachableError)

    assert "The API asks to wait 3,600 s, longer than 'max_retry_delay_seconds'." in str(error)
    assert len(web.asked) == 1


def test_a_retry_after_that_is_no_time_is_as_if_it_were_not_there(web):
    web.answers["/items"] = lambda asked: ROWS if asked.times == 2 else web.reply({}, 429, {"Retry-After": "soon"})

    assert ids(api(web)) == [1, 2]


def test_nobody_there(web):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = api(web).model_copy(update={"url": f"http://127.0.0.1:{port}/items"})

    error = failure(source, SourceUnreachableError)

    assert str(error) == (
        f"source 'items': GET http://127.0.0.1:{port}/items: nobody answers: All connection attempts failed. "
        "Check 'url', and that the server is up; then run again."
    )


def test_a_server_that_dies_in_the_middle_is_asked_again(web):
    web.answers["/items"] = lambda asked: ROWS if asked.times == 2 else web.reply(b'[{"id": 1}, {"i', promises=500)

    assert ids(api(web)) == [1, 2]


def test_a_server_that_always_dies_in_the_middle_is_a_lost_connection(web):
    web.answers["/items"] = lambda _: web.reply(b'[{"id": 1}, {"i', promises=500)

    error = failure(api(web), SourceConnectionLostError)

    assert "the connection broke: peer closed connection without sending complete message body" in str(error)
    assert len(web.asked) == 3


def test_half_a_json_is_asked_for_again(web):
    web.answers["/items"] = lambda asked: ROWS if asked.times == 2 else web.reply(b'[{"id": 1}, {"i')

    assert ids(api(web)) == [1, 2]
    web.answers["/items"] = lambda _: web.reply(b'[{"id": 1}, {"i')
    assert str(failure(api(web), SourceConnectionLostError)) == (
        f"source 'items': GET {web.url}/items was answered with 200 and a body that is not JSON (application/json), or "
        'not all of it: \'[{"id": 1}, {"i\'. Run again later.'
    )


def test_a_page_for_people_is_an_error_at_once(web):
    page = f"<html>\n<body>Log in, {TOKEN}</body>{'x' * 500}".encode()
    web.answers["/items"] = lambda _: web.reply(page, headers={"Content-Type": "text/html"})

    error = failure(api(web, authentication={"type": "bearer", "token": TOKEN}))

    assert str(error) == (
        f"source 'items': GET {web.url}/items was answered with 200 and a body that is not JSON (text/html): "
        f"'<html> <body>Log in, ***</body>{'x' * 89}'.... Check 'url' and 'headers'."
    )
    assert len(web.asked) == 1


@pytest.mark.parametrize("body", [b"\xff\xfe", b"[NaN]", b"[" * 100_000, "x".encode("utf-16")])
def test_what_only_looks_like_json_is_none(web, body):
    web.answers["/items"] = lambda _: web.reply(body)

    assert "and a body that is not JSON (application/json), or not all of it" in str(
        failure(api(web), SourceConnectionLostError)
    )


def test_a_bom_and_a_compressed_body_are_fine(web):
    body = gzip.compress(b'\xef\xbb\xbf[{"id": 1}, {"id": 2}]')
    web.answers["/items"] = lambda _: web.reply(body, headers={"Content-Encoding": "gzip"})

    assert ids(api(web)) == [1, 2]


def test_a_slow_answer_is_given_up_and_asked_for_again(web):
    def answer(asked):
        if asked.times == 1:
            time.sleep(0.6)
        return ROWS

    web.answers["/items"] = answer

    assert ids(api(web, timeout_seconds=0.3)) == [1, 2]


def test_an_answer_that_is_always_slow_is_an_error(web):
    done = threading.Event()
    web.answers["/items"] = lambda _: done.wait(5) and ROWS

    error = failure(api(web, timeout_seconds=0.1), SourceUnreachableError)
    done.set()

    assert str(error) == (
        f"source 'items': GET {web.url}/items was not answered within 0.1 s ('timeout_seconds'). Run again later."
    )


def test_all_calls_together_have_their_time(web):
    def answer(asked):
        time.sleep(0.05)
        return [{"id": int(asked.query["page"])}]

    web.answers["/items"] = answer
    started = time.monotonic()

    error = failure(api(web, pagination={"type": "page_number"}, total_timeout_seconds=0.4), SourceConnectionLostError)

    assert time.monotonic() - started < 3
    assert "not all pages came within 0.4 s ('total_timeout_seconds')" in str(error)


# --- what is agreed ---


def test_the_rate_is_kept(web):
    web.pages("/items", *([{"id": number}] for number in range(8)))
    source = api(web, pagination={"type": "page_number"}, rate_limit={"requests": 20}, concurrency=8)
    started = time.monotonic()

    assert ids(source) == list(range(8))
    assert time.monotonic() - started >= 8 / 20


def test_a_rate_may_be_said_for_a_minute(web):
    assert api(web, rate_limit={"requests": 90, "per": "minute"}).rate_limit.a_second == 1.5


@pytest.mark.parametrize("compressed", [False, True])
def test_an_answer_is_no_larger_than_agreed(web, compressed):
    body = b"[" + b" " * 2_000_000 + b"]"
    headers = {"Content-Encoding": "gzip"} if compressed else {}
    web.answers["/items"] = lambda _: web.reply(gzip.compress(body) if compressed else body, headers=headers)

    error = failure(api(web, max_response_bytes=1_000_000))

    assert str(error) == (
        f"source 'items': GET {web.url}/items was answered with more than 1,000,000 bytes ('max_response_bytes'). "
        "Ask for smaller pages, or raise it."
    )
    assert len(web.asked) == 1


@pytest.mark.parametrize(
    "action", [{"status": 404, "action": "ignore"}, {"content": "no orders", "action": "ignore"},
               {"status": 404, "content": "no orders", "action": "ignore"}]
)  # fmt: skip
def test_an_answer_can_be_ignored(web, action):
    web.answers["/items"] = lambda _: web.reply({"error": "no orders"}, 404)

    extract = api(web, response_actions=[action], dtypes={"id": "bigint"}).scan("items")

    assert pl.concat([pl.DataFrame(schema=extract.schema), *extract.read(Pushdown())]).is_empty()


def test_the_first_action_that_fits_counts(web):
    web.answers["/items"] = lambda _: web.reply({"error": "no orders"}, 404)
    actions = [{"status": 404, "content": "no customers", "action": "ignore"}, {"status": 404, "action": "fail"}]

    failure(api(web, response_actions=actions), SourceMissingError)
    assert len(web.asked) == 1


def test_an_answer_can_be_asked_for_again(web):
    web.answers["/items"] = lambda asked: ROWS if asked.times == 3 else web.reply({"error": "not ready"}, 200)
    assert ids(api(web, response_actions=[{"content": "not ready", "action": "retry"}])) == [1, 2]

    web.asked.clear()
    web.answers["/items"] = lambda asked: ROWS if asked.times == 2 else web.reply({}, 409)
    assert ids(api(web, response_actions=[{"status": 409, "action": "retry"}])) == [1, 2]


def test_a_good_status_can_be_a_failure(web):
    web.answers["/items"] = lambda _: {"error": "quota", "items": []}

    error = failure(api(web, response_actions=[{"content": "quota", "action": "fail"}]))

    assert 'was answered with 200 OK: \'{"error": "quota", "items": []}\'.' in str(error)


# --- redirects ---


def test_a_redirect_to_the_same_host_is_followed_with_everything(web):
    web.answers["/old"] = lambda _: web.reply(b"", 302, {"Location": "/new?a=1"})
    web.answers["/new"] = lambda _: ROWS
    key = {"type": "api_key", "api_key": TOKEN, "name": "key", "location": "query"}

    assert ids(api(web, "/old", headers={"X-Tenant": "acme"}, authentication=key)) == [1, 2]
    assert web.asked[1].headers["x-tenant"] == "acme"
    assert web.asked[1].query == {"a": "1", "key": TOKEN}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["header", "query", "cookie"])
def test_a_redirect_to_another_host_drops_all_that_is_ours(webs, status, location):
    web, other = webs(), webs()
    web.answers["/items"] = lambda _: web.reply(
        b"", status, {"Location": f"{other.url}/items", "Set-Cookie": f"s={TOKEN}"}
    )
    other.answers["/items"] = lambda _: ROWS
    key = {"type": "api_key", "api_key": TOKEN, "name": "X-Key", "location": location}

    assert ids(api(web, headers={"X-Tenant": TOKEN, "Cookie2": TOKEN}, authentication=key)) == [1, 2]
    (asked,) = other.asked
    assert TOKEN not in str(asked)
    assert "cookie" not in asked.headers
    assert "x-tenant" not in asked.headers


def test_a_redirect_there_and_back_does_not_bring_the_key_back(webs):
    web, other = webs(), webs()
    web.answers["/items"] = lambda _: web.reply(b"", 302, {"Location": f"{other.url}/hop"})
    web.answers["/back"] = lambda asked: ROWS
    other.answers["/hop"] = lambda _: other.reply(b"", 302, {"Location": f"{web.url}/back"})

    assert ids(api(web, authentication={"type": "bearer", "token": TOKEN})) == [1, 2]
    assert "authorization" in web.asked[0].headers
    assert "authorization" not in web.asked[1].headers


def test_a_body_is_not_sent_to_another_host(webs):
    web, other = webs(), webs()
    web.answers["/items"] = lambda _: web.reply(b"", 307, {"Location": f"{other.url}/items"})

    error = failure(api(web, method="POST", body={"a": 1}))

    assert f"was redirected to '{other.url}/items', and its body is not for others." in str(error)
    assert not other.asked


def test_a_post_is_redirected_as_browsers_do(web):
    web.answers["/items"] = lambda _: web.reply(b"", 303, {"Location": "/found"})
    web.answers["/kept"] = lambda _: web.reply(b"", 308, {"Location": "/found"})
    web.answers["/found"] = lambda _: ROWS

    assert ids(api(web, method="POST", body={"a": 1})) == [1, 2]
    assert ids(api(web, "/kept", method="POST", body={"a": 1})) == [1, 2]
    found = [asked for asked in web.asked if asked.path == "/found"]
    assert [(asked.method, asked.body) for asked in found] == [("GET", b""), ("POST", b'{"a":1}')]


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://host:x/", "gopher://x"])
def test_a_redirect_away_from_the_web_is_refused(web, location):
    web.answers["/items"] = lambda _: web.reply(b"", 302, {"Location": location})

    assert "was redirected to" in str(failure(api(web)))


def test_redirects_end(web):
    web.answers["/items"] = lambda asked: web.reply(b"", 302, {"Location": f"/items?n={len(web.asked)}"})

    assert "was redirected more than 10 times" in str(failure(api(web)))
    assert len(web.asked) == 11


# --- secrets and mistakes ---


def test_no_secret_is_logged(web, caplog):
    caplog.set_level(logging.DEBUG)
    web.answers["/items"] = lambda asked: ROWS if asked.times == 2 else web.reply({}, 503)
    key = {"type": "api_key", "api_key": TOKEN, "name": "key", "location": "query"}

    assert ids(api(web, authentication=key)) == [1, 2]
    assert "HTTP Request: GET" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"url": "ftp://host/x"}, "does not begin with http:// or https:// and a host"),
        ({"url": "file:///etc/passwd"}, "does not begin with http"),
        ({"url": f"https://ada:{TOKEN}@host/x"}, "Write them under 'authentication'"),
        ({"method": "DELETE"}, "'GET' or 'POST'"),
        ({"body": {"a": 1}}, "a 'body' is sent with 'method: POST'"),
        ({"headers": {"X Y": "a"}}, "'X Y' is not the name of a header"),
        ({"headers": {"authorization": "a"}, "authentication": {"type": "bearer", "token": "b"}}, "Remove one of them"),
        ({"authentication": {"type": "digest"}}, "digest"),
        ({"authentication": {"type": "bearer"}}, "token"),
        ({"response_actions": [{"action": "ignore"}]}, "'status' is missing"),
        ({"data_selector": "a["}, r"'a\[' is not a JSONPath"),
        ({"data_selector": "$.a | $.b"}, "is several JSONPaths"),
        ({"dtypes": {"a": "nothing"}}, "nothing"),
        ({"concurrency": 0}, "greater than or equal to 1"),
    ],
)
def test_options_that_cannot_work_are_mistakes_of_the_configuration(keys, said):
    with pytest.raises(ValidationError, match=said) as caught:
        sources.get("api").model_validate({"type": "api", "url": "https://host/x"} | keys)
    assert TOKEN not in str(caught.value)
