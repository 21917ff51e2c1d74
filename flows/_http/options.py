"""What a source or a target that speaks HTTP can be told about it, and what the client asks of either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows._http.authentication import Authentication
from flows._secrets import Secret

_SECONDS = {"second": 1, "minute": 60, "hour": 3600}


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class RateLimit(_Keys):
    """How many calls may be made in a span of time; they are spread over it evenly, retries among them.

    Attributes:
        requests: how many.
        per: in what.
    """

    requests: Annotated[int, Field(ge=1)]
    per: Literal["second", "minute", "hour"] = "second"

    @property
    def a_second(self) -> float:
        """Calls a second."""
        return self.requests / _SECONDS[self.per]


class ResponseAction(_Keys):
    """What to do with an answer of this status, with this text in its body, or both; the first that fits counts.

    Attributes:
        status: such as 404.
        content: a text that the body holds.
        action: `ignore` takes it for a page without records, the last one; `retry` asks again; `fail` stops.
    """

    status: Annotated[int, Field(ge=100, le=599)] | None = None
    content: Annotated[str, Field(min_length=1)] | None = None
    action: Literal["ignore", "retry", "fail"]

    @model_validator(mode="after")
    def _fits_something(self) -> Self:
        if self.status is None and self.content is None:
            raise ValueError("'status' is missing. Write it, or 'content'.")
        return self


class Options(Protocol):
    """An end of the run that is an API.

    Attributes:
        has_decimals: whether numbers of its answers keep all their digits.
        max_response_bytes: how large an answer may be, uncompressed.
    """

    @property
    def url(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, Secret]: ...
    @property
    def authentication(self) -> Authentication | None: ...
    @property
    def response_actions(self) -> tuple[ResponseAction, ...]: ...
    @property
    def concurrency(self) -> int: ...
    @property
    def rate_limit(self) -> RateLimit | None: ...
    @property
    def max_retries(self) -> int: ...
    @property
    def retry_delay_seconds(self) -> float: ...
    @property
    def max_retry_delay_seconds(self) -> float: ...
    @property
    def timeout_seconds(self) -> float: ...
    @property
    def max_response_bytes(self) -> int: ...
    @property
    def has_decimals(self) -> bool: ...
