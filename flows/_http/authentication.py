"""How a call is signed: models of what the configuration says, and the signer that keeps a token fresh."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from flows._secrets import Secret, revealed

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~\w-]+", re.ASCII)
#: What RFC 6750 lets a token be; nothing else may get into a header.
_TOKEN = re.compile(r"[\w.~+/-]+=*", re.ASCII)
#: A token is renewed so many seconds before it expires, or after nine tenths of a short life.
_LEEWAY_SECONDS = 30.0


def _header_name(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a header. Use letters, digits and '-'.")
    return name


def http_url(url: str) -> str:
    """Confirm that a text is the URL of something on the web.

    Raises:
        ValueError: it is not, or holds a user or password.
    """
    match = re.match(r"(?i)https?://([^/?#\s]+)", url)
    if match is None or re.search(r"\s|#", url):
        raise ValueError(
            "the URL does not begin with http:// or https:// and a host. Write it like 'https://host/path'."
        )
    if "@" in match[1]:
        raise ValueError("the URL holds a user or password. Write them under 'authentication', with 'type: basic'.")
    return url


HeaderName = Annotated[str, AfterValidator(_header_name)]
HttpUrl = Annotated[str, AfterValidator(http_url)]


@dataclass(frozen=True)
class Signature:
    """What is added to a call so that the API knows who asks."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def signature(self) -> Signature:
        """What is added to every call; of OAuth 2, nothing before there is a token.

        Raises:
            SecretError: a reference cannot be resolved.
        """
        raise NotImplementedError


class Bearer(_Keys):
    """A token, sent as ``Authorization: Bearer ...``.

    Attributes:
        token: better a reference: ``${API_TOKEN}``.
    """

    type: Literal["bearer"]
    token: Secret

    def signature(self) -> Signature:
        """The header."""
        return Signature({"Authorization": f"Bearer {self.token.reveal()}"})


class Basic(_Keys):
    """A user name and a password; some APIs want a key as one of them, and the other left out.

    Attributes:
        username: the user, or a key.
        password: theirs.
    """

    type: Literal["basic"]
    username: Secret | None = None
    password: Secret | None = None

    def signature(self) -> Signature:
        """The header."""
        user, password = (part.reveal() if part else "" for part in (self.username, self.password))
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        Secret(login).reveal()  # from now on it is known as something that is never shown
        return Signature({"Authorization": f"Basic {login}"})


class ApiKey(_Keys):
    """A key, sent in a header, a parameter of the query, or a cookie.

    Attributes:
        name: of the header, parameter or cookie.
        api_key: the key.
        location: where it is sent.
    """

    type: Literal["api_key"]
    name: HeaderName = "Authorization"
    api_key: Secret
    location: Literal["header", "query", "cookie"] = "header"

    def signature(self) -> Signature:
        """The header or parameter."""
        key = self.api_key.reveal()
        if self.location == "query":
            return Signature(parameters={self.name: key})
        return Signature({"Cookie": f"{self.name}={key}"} if self.location == "cookie" else {self.name: key})


class OAuth2ClientCredentials(_Keys):
    """A token that is asked for with a client's id and secret, and asked for anew before it expires.

    Attributes:
        access_token_url: where tokens are given out.
        client_id: who asks for one.
        client_secret: with what proof.
        access_token_request_data: more that is sent there: ``scope``, ``audience``.
        default_token_expiration_seconds: how long a token is good where the answer does not say.
    """

    type: Literal["oauth2_client_credentials"]
    access_token_url: HttpUrl
    client_id: Secret
    client_secret: Secret
    access_token_request_data: Annotated[dict[str, Secret], Field(default_factory=dict)]
    default_token_expiration_seconds: Annotated[int, Field(ge=1)] = 3600

    def signature(self) -> Signature:
        """Nothing."""
        return Signature()

    def form(self) -> dict[str, str]:
        """What is sent for a token."""
        more = revealed(self.access_token_request_data)
        login = {"client_id": self.client_id.reveal(), "client_secret": self.client_secret.reveal()}
        return {"grant_type": "client_credentials", **login, **more}


Authentication = Annotated[Bearer | Basic | ApiKey | OAuth2ClientCredentials, Field(discriminator="type")]


class BadToken(Exception):  # noqa: N818 - a verdict, turned into an ExtractError that knows the source
    """What gives out tokens did not give one; the message says what it gave."""


class Signer:
    """Signs calls; many may be under way at the same time, and one asks for a new token on behalf of all.

    Args:
        ask: sends a form to the place that gives out tokens, and returns its JSON.
    """

    def __init__(self, authentication: _Keys | None, ask: Callable[[OAuth2ClientCredentials], Awaitable[Any]]) -> None:
        self._oauth2 = authentication if isinstance(authentication, OAuth2ClientCredentials) else None
        self._signature = authentication.signature() if authentication else Signature()
        self._ask = ask
        self._good_until = 0.0
        self._lock = asyncio.Lock()

    async def signature(self) -> Signature:
        """What is added to a call now."""
        if self._oauth2 is not None and time.monotonic() >= self._good_until:
            async with self._lock:
                if time.monotonic() >= self._good_until:
                    await self._renew(self._oauth2)
        return self._signature

    async def refused(self, signature: Signature) -> bool:
        """Tell that the API refused `signature`; whether there is another one to try."""
        if self._oauth2 is None:
            return False
        async with self._lock:
            if self._signature is signature:
                await self._renew(self._oauth2)
        return True

    async def _renew(self, oauth2: OAuth2ClientCredentials) -> None:
        answer = await self._ask(oauth2)
        token = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise BadToken("the answer holds no 'access_token'")
        Secret(token).reveal()  # from now on it is known as something that is never shown
        seconds = answer.get("expires_in")
        if isinstance(seconds, str) and seconds.isdecimal():
            seconds = int(seconds)
        if not isinstance(seconds, int | float) or seconds <= 0:
            seconds = oauth2.default_token_expiration_seconds
        self._signature = Signature({"Authorization": f"Bearer {token}"})
        self._good_until = time.monotonic() + max(seconds - _LEEWAY_SECONDS, seconds * 0.9)
