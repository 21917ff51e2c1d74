"""What an answer means: a page, a failure that may pass, or one that will not."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
from httpx_retries import Retry

from flows._http.calls import Call, Page, parsed
from flows._http.options import Options, ResponseAction
from flows._secrets import redact
from flows._sides import Side
from transforms._errors import LockgateError
from transforms._words import counted

LATER = "Run again later"
#: A call that was too early, too often, or met a server in trouble may be made again.
PASSING = {408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529}
_SHOWN_CHARACTERS = 120


class Passing(Exception):  # noqa: N818 - a question to the retry, not a failure yet
    """A failure that may pass; `error` is what to raise if it does not, `seconds` what the API asks to wait."""

    def __init__(self, error: LockgateError, seconds: float = 0.0) -> None:
        self.error, self.seconds = error, seconds
        super().__init__(str(error))


@dataclass(frozen=True)
class Answer:
    """What came back: `url` is where from, after redirects."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: httpx.URL


class Judge:
    """Says what the answers of one source mean.

    Args:
        header: that of an answer which leads to the next page.
        side: the end that errors belong to.
    """

    def __init__(self, options: Options, side: Side, header: str | None) -> None:
        self._options = options
        self._side = side
        self._header = header

    def page(self, call: Call, answer: Answer) -> Page:
        """The page of an answer.

        Raises:
            Passing: it is none, and that may pass.
            ExtractError: it is none.
        """
        kept = {self._header: value} if self._header and (value := answer.headers.get(self._header)) else {}
        action = next((each for each in self._options.response_actions if _fits(each, answer)), None)
        if (action and action.action == "ignore") or (not action and answer.status == httpx.codes.NO_CONTENT):
            return Page(call, answer.status, {}, answer.body, None, ignored=True)
        if action or not httpx.codes.is_success(answer.status):
            raise self._failed(call, answer, action)
        try:
            return Page(call, answer.status, kept, answer.body, parsed(answer.body, exact=self._options.has_decimals))
        except (ValueError, RecursionError) as error:
            kind = answer.headers.get("content-type", "no content type")
            said = f"{call.shown} was answered with {answer.status} and a body that is not JSON ({kind})"
            failure = self._side.error("other", f"{said}: {first_of(answer.body)}. Check 'url' and 'headers'.")
            if "json" in kind or kind == "no content type":
                raise Passing(
                    self._side.error("lost", f"{said}, or not all of it: {first_of(answer.body)}. {LATER}.")
                ) from error
            raise failure from error

    def _failed(self, call: Call, answer: Answer, action: ResponseAction | None) -> Exception:
        passes = action.action == "retry" if action else answer.status in PASSING
        what, advice = _diagnosed(answer.status, passes=passes)
        seconds = retry_after(answer.headers) if passes else 0.0
        tried = f" after {counted(self._options.max_retries, 'retry', 'retries')}" if passes else ""
        said = (
            f"{call.shown} was answered with {answer.status} {phrase(answer.status)}{tried}: {first_of(answer.body)}."
        )
        if seconds > self._options.max_retry_delay_seconds:
            asked = f"The API asks to wait {seconds:,.0f} s, longer than 'max_retry_delay_seconds'."
            return self._side.error(what, f"{said} {asked} {LATER}, or wait longer.")
        error = self._side.error(what, f"{said} {advice}")
        return Passing(error, seconds) if passes else error


def _fits(action: ResponseAction, answer: Answer) -> bool:
    return (action.status is None or action.status == answer.status) and (
        action.content is None or action.content in answer.body.decode(errors="replace")
    )


def _diagnosed(status: int, *, passes: bool) -> tuple[str, str]:
    """What a status means, and what to do next."""
    if passes:
        return "unreachable", f"{LATER}, or with a lower 'rate_limit' or 'concurrency'."
    known = {
        401: ("authentication", "Check 'authentication'."),
        403: ("permission", "Grant it to this user or key, or use another."),
        404: ("missing", "Check 'url'; where this is no mistake, ignore it in 'response_actions'."),
        407: ("authentication", "Check the login of the proxy."),
        410: ("missing", "Check 'url'; where this is no mistake, ignore it in 'response_actions'."),
    }
    return known.get(status, ("other", "Check 'url', 'parameters' and 'body'."))


def phrase(status: int) -> str:
    """What a status is called: ``Not Found``."""
    return httpx.codes.get_reason_phrase(status) or "(unknown)"


def first_of(body: bytes) -> str:
    """The first characters of a body, without what must not be shown."""
    text = " ".join(redact(body[: 64 * _SHOWN_CHARACTERS].decode(errors="replace")).split())
    shown = "".join(each for each in text if each.isprintable())[:_SHOWN_CHARACTERS]
    return f"{shown!r}{'...' if len(text) > _SHOWN_CHARACTERS else ''}" if shown else "no body"


def retry_after(headers: httpx.Headers) -> float:
    """Seconds that the API asks to wait; 0 where it does not."""
    try:
        return Retry().parse_retry_after(headers.get("retry-after", "0"))
    except ValueError:
        return 0.0
