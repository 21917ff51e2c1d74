"""What is asked of an API and what it answers: a call and a page, as plain values.

A call is what the pipeline wants, before it is signed: no credential is in it, so it can be shown
(without the values of its query) and remembered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    import httpx

_STARS = "***"


def shown_url(url: str) -> str:
    """A URL without what may be secret in it: user, password, and the values of its query."""
    split = urlsplit(url)
    pairs = (pair.partition("=")[0] for pair in split.query.split("&") if pair)
    query = "&".join(f"{name}={_STARS}" for name in pairs)
    return urlunsplit((split.scheme, split.netloc.rpartition("@")[2], split.path, query, ""))


def origin_of(url: httpx.URL) -> tuple[str, str, int | None]:
    """Scheme, host and port: who may see what is meant for it."""
    return url.scheme, url.host.lower(), url.port


@dataclass(frozen=True)
class Call:
    """One request, unsigned.

    Attributes:
        url: may have a query of its own, to which `parameters` are added.
        parameters: of the query; a list is a parameter several times.
        body: sent as JSON; None sends none.
    """

    method: str
    url: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None

    @cached_property
    def address(self) -> httpx.URL:
        """The whole URL, with the query."""
        import httpx  # noqa: PLC0415 - 0.2 s that only those who call need

        url = httpx.URL(self.url)
        return url.copy_merge_params(dict(self.parameters)) if self.parameters else url

    @cached_property
    def key(self) -> str:
        """The same for the same request: a hash, because a query may be secret."""
        asked = [self.method, self.url, dict(self.parameters), self.body]
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def shown(self) -> str:
        """For messages: ``GET https://api.example.com/orders?page=***``."""
        return f"{self.method} {shown_url(str(self.address))}"

    def having(self, parameter: str, value: Any) -> Call:
        """The same call with another value of one parameter of the query."""
        return replace(self, parameters={**self.parameters, parameter: value})

    def holding(self, path: str, value: Any) -> Call:
        """The same call with another value in its body; `path` is dotted: ``page.number``."""
        return replace(self, body=_put(self.body, path.split("."), value))

    def linked(self, link: str) -> Call:
        """The call of a link, which has its whole query in itself.

        A link that only lost the ``https`` of the same host gets it back: proxies forget it.
        """
        url = self.address.join(link)
        if self.address.scheme == "https" and url.scheme == "http" and url.host == self.address.host:
            url = url.copy_with(scheme="https", port=self.address.port)
        return replace(self, url=str(url), parameters={})


def _put(body: Any, path: list[str], value: Any) -> dict[str, Any]:
    whole = dict(body) if isinstance(body, Mapping) else {}
    first, *rest = path
    whole[first] = _put(whole.get(first), rest, value) if rest else value
    return whole


@dataclass(frozen=True)
class Page:
    """What an API answered to a call, and accepted as a page.

    Attributes:
        headers: those that lead to the next page.
        body: as it came, uncompressed.
        json: the body, parsed; None where there is none, or where the answer is to be ignored.
        ignored: whether the answer has no records because the configuration says so.
    """

    call: Call
    status: int
    headers: Mapping[str, str]
    body: bytes
    json: Any
    ignored: bool = False


def parsed(body: bytes, *, exact: bool = False) -> Any:
    """The JSON of a body; `exact` makes decimals of numbers with a point or an exponent.

    Raises:
        ValueError: it is none; UnicodeDecodeError and JSONDecodeError are such errors.
    """
    return json.loads(body.decode("utf-8-sig"), parse_constant=_refused, parse_float=Decimal if exact else None)


def _refused(word: str) -> Any:
    raise ValueError(f"{word!r} is not a number of JSON")
