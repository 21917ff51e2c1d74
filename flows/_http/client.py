"""Calls an API: signed, at the pace that it allows, again where that may help, and never more than agreed.

A credential goes to the API's own scheme, host and port and nowhere else. All that goes wrong is mapped
to our errors here.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any, Self

import httpx
from httpx_retries import Retry

from flows._http.answers import LATER, PASSING, Answer, Judge, Passing, first_of, phrase, retry_after
from flows._http.authentication import BadToken, OAuth2ClientCredentials, Signature, Signer
from flows._http.calls import Call, Page, origin_of, parsed, shown_url
from flows._http.options import Options
from flows._http.pace import Pace
from flows._secrets import Redacting, redact, revealed
from flows._sides import Side
from transforms._errors import LockgateError

_REDIRECTS = {301, 302, 303, 307, 308}
_MOST_REDIRECTS = 10
#: Part of a delay by which it may be shorter, so that calls that failed together do not return together.
_JITTER = 0.3
_PLAIN = {"Accept": "application/json", "Accept-Encoding": "gzip, deflate", "User-Agent": "lockgate"}


class Client:
    """The API of one source, for the time of one scan.

    Args:
        options: of the source; `headers` and `authentication` are revealed here.
        side: the end that errors belong to.
        header: that of an answer which leads to the next page.
    """

    def __init__(self, options: Options, side: Side, header: str | None) -> None:
        logging.getLogger("httpx").addFilter(_REDACTING)  # it logs every URL, with its query
        self._options = options
        self._side = side
        self._judge = Judge(options, side, header)
        self._headers = revealed(options.headers)
        self._origin = origin_of(httpx.URL(options.url))
        self._signer = Signer(options.authentication, self._token)
        self._pace = Pace(options.rate_limit.a_second if options.rate_limit else None)
        self._slots = asyncio.Semaphore(options.concurrency)
        self._retry = Retry(
            total=options.max_retries,
            backoff_factor=options.retry_delay_seconds / 2,  # it is doubled before the first retry
            max_backoff_wait=options.max_retry_delay_seconds,
            backoff_jitter=_JITTER,
        )
        self._idle: list[httpx.AsyncClient] = []
        self._opened: list[httpx.AsyncClient] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for http in self._opened:
            await http.aclose()

    @contextmanager
    def _connection(self) -> Iterator[httpx.AsyncClient]:
        """A client with one connection, for one request: a pool would look at all of its own at every request."""
        http = self._idle.pop() if self._idle else self._new()
        try:
            yield http
        finally:
            self._idle.append(http)

    def _new(self) -> httpx.AsyncClient:
        http = httpx.AsyncClient(timeout=self._options.timeout_seconds, verify=_trust())
        self._opened.append(http)
        return http

    async def page(self, call: Call) -> Page:
        """Make a call, again where it fails and that may pass, and give the page that it leads to.

        Raises:
            ExtractError: there is none.
        """
        if origin_of(call.address) != self._origin:
            raise self._side.error(
                "other",
                f"the next page is said to be at {shown_url(str(call.address))!r}, which is not the host of 'url'. It "
                "was not asked for, so that no credential leaves that host. Page by 'page_number', 'offset' or "
                "'cursor' instead, or correct 'url'.",
            )
        retry = self._retry
        async with self._slots:
            while True:
                try:
                    return await self._attempt(call)
                except Passing as passing:
                    if retry.is_exhausted():
                        raise passing.error from passing.__cause__
                    retry = retry.increment()
                    self._pace.hold(passing.seconds)
                    await asyncio.sleep(max(passing.seconds, retry.backoff_strategy()))

    async def _attempt(self, call: Call) -> Page:
        await self._pace.turn()
        signature = await self._signature(call)
        answer = await self._exchanged(call, signature)
        if answer.status == httpx.codes.UNAUTHORIZED and await self._refused(call, signature):
            await self._pace.turn()
            answer = await self._exchanged(call, await self._signature(call))
        return self._judge.page(call, answer)

    # --- the exchange ---

    async def _exchanged(self, call: Call, signature: Signature) -> Answer:
        """Send a call and follow its redirects; whoever is not the API sees no credential.

        Raises:
            Passing: nothing came back, or not all of it.
            ExtractError: too much came back, or a redirect leads where it must not.
        """
        url = call.address.copy_merge_params(dict(signature.parameters)) if signature.parameters else call.address
        request = self._request(call.method, url, {**self._headers, **signature.headers}, call.body)
        for _redirect in range(_MOST_REDIRECTS + 1):
            answer = await self._sent(request, call)
            location = answer.headers.get("location") if answer.status in _REDIRECTS else None
            if location is None:
                return answer
            request = self._redirected(request, answer, location, call, signature)
        raise self._side.error(
            "other", f"{call.shown} was redirected more than {_MOST_REDIRECTS} times. Correct 'url'."
        )

    def _request(self, method: str, url: httpx.URL, headers: Mapping[str, str], body: Any) -> httpx.Request:
        for name, value in headers.items():
            if not value.isascii() or not value.isprintable():
                raise self._side.error(
                    "other", f"the value of header {name!r} holds a character that no header can. Is it a line break?"
                )
        names = {name.lower() for name in headers}
        plain = {name: value for name, value in _PLAIN.items() if name.lower() not in names}
        return httpx.Request(method, url, headers={**plain, **headers}, json=body)

    def _redirected(
        self, request: httpx.Request, answer: Answer, location: str, call: Call, signature: Signature
    ) -> httpx.Request:
        url = answer.url.join(location)
        if url.scheme not in {"http", "https"}:
            raise self._side.error(
                "other", f"{call.shown} was redirected to {url.scheme!r}, not the web. Correct 'url'."
            )
        keeps = answer.status in {307, 308} or request.method == "GET"
        if origin_of(url) == origin_of(answer.url):
            signs = origin_of(url) == self._origin and signature.parameters
            return httpx.Request(
                request.method if keeps else "GET",
                url.copy_merge_params(dict(signature.parameters)) if signs else url,
                headers={k: v for k, v in request.headers.items() if keeps or not k.startswith("content-")},
                content=request.content if keeps else None,
            )
        if request.content:
            shown = shown_url(str(url))
            raise self._side.error(
                "other", f"{call.shown} was redirected to {shown!r}, and its body is not for others. Correct 'url'."
            )
        return self._request("GET", url, {}, None)

    async def _sent(self, request: httpx.Request, call: Call | None) -> Answer:
        """Send one request, and take its answer in.

        Raises:
            Passing: nothing came back, or not all of it.
            ExtractError: too much came back.
        """
        try:
            with self._connection() as http:
                async with asyncio.timeout(self._options.timeout_seconds), _answering(http, request) as response:
                    body = await self._body(response)
                    return Answer(response.status_code, response.headers, body, request.url)
        except (httpx.TimeoutException, TimeoutError) as error:
            shown, seconds = _shown(request, call), f"{self._options.timeout_seconds:,g} s"
            raise Passing(
                self._side.error(
                    "unreachable", f"{shown} was not answered within {seconds} ('timeout_seconds'). {LATER}."
                )
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unsent(_shown(request, call), error) from error

    async def _body(self, response: httpx.Response) -> bytes:
        """The body, uncompressed, as far as it is no larger than agreed."""
        most, chunks, held = self._options.max_response_bytes, [], 0
        async for chunk in response.aiter_bytes():
            held += len(chunk)
            if held > most:
                raise self._side.error(
                    "other",
                    f"{_shown(response.request)} was answered with more than {most:,} bytes ('max_response_bytes'). "
                    "Ask for smaller pages, or raise it.",
                )
            chunks.append(chunk)
        return b"".join(chunks)

    def _unsent(self, shown: str, error: Exception) -> Exception:
        """Our error for what httpx says of a request."""
        said = redact(" ".join(str(error).split()) or type(error).__name__).rstrip(".")
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            return self._side.error("other", f"{shown} cannot be sent: {said}. Correct 'url' and 'headers'.")
        if "location header" in said:
            return self._side.error("other", f"{shown} was redirected to no URL: {said}. Correct 'url'.")
        if "CERTIFICATE_VERIFY_FAILED" in said:
            return self._side.error("unreachable", f"{shown}: the host's certificate is not trusted: {said}.")
        if isinstance(error, httpx.ConnectError | httpx.ProxyError):
            advice = "Check 'url', and that the server is up; then run again."
            return Passing(self._side.error("unreachable", f"{shown}: nobody answers: {said}. {advice}"))
        return Passing(self._side.error("lost", f"{shown}: the connection broke: {said}. {LATER}."))

    # --- tokens ---

    async def _signature(self, call: Call) -> Signature:
        try:
            return await self._signer.signature()
        except BadToken as error:
            raise self._unsigned(call, error) from error

    async def _refused(self, call: Call, signature: Signature) -> bool:
        try:
            return await self._signer.refused(signature)
        except BadToken as error:
            raise self._unsigned(call, error) from error

    def _unsigned(self, call: Call, error: BadToken) -> LockgateError:
        advice = "Check 'authentication'."
        return self._side.error(
            "authentication", f"{call.shown} cannot be signed: no token was given: {error}. {advice}"
        )

    async def _token(self, oauth2: OAuth2ClientCredentials) -> Any:
        """What the place that gives out tokens answers; a redirect is not followed there, the secret stays."""
        request = httpx.Request("POST", oauth2.access_token_url, headers=_PLAIN, data=oauth2.form())
        answer = await self._sent(request, None)
        shown = f"POST {shown_url(oauth2.access_token_url)}"
        said = f"{shown} was answered with {answer.status} {phrase(answer.status)}: {first_of(answer.body)}"
        if answer.status in PASSING:
            raise Passing(self._side.error("unreachable", f"{said}. {LATER}."), retry_after(answer.headers))
        if not httpx.codes.is_success(answer.status):
            raise BadToken(said)
        try:
            return parsed(answer.body)
        except ValueError as error:
            raise BadToken(f"{shown} was answered with a body that is not JSON") from error


_REDACTING = Redacting()


@cache
def _trust() -> ssl.SSLContext:
    """Whom to trust; made once, because reading all authorities takes some hundredths of a second."""
    return httpx.create_ssl_context()


@asynccontextmanager
async def _answering(http: httpx.AsyncClient, request: httpx.Request) -> AsyncIterator[httpx.Response]:
    response = await http.send(request, stream=True, follow_redirects=False)
    try:
        yield response
    finally:
        await response.aclose()


def _shown(request: httpx.Request, call: Call | None = None) -> str:
    return call.shown if call else f"{request.method} {shown_url(str(request.url))}"
