"""The HTTP side of an API target: the client of the sources, with rows in its calls and refusals among its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx

from flows._http.answers import Answer, Judge
from flows._http.authentication import Signature
from flows._http.calls import Call, Page, parsed
from flows._http.client import Client
from flows._http.loop import run
from flows._sides import Side

if TYPE_CHECKING:
    from flows.targets.api import Api

_KEPT_OUT = {401, 403, 407}


@dataclass(frozen=True)
class Letter(Call):
    """A call with rows; its body is JSON text already.

    Attributes:
        key: what tells it from any other, and is the same when it is sent again.
    """

    idempotency_key: str = ""


class _Receipts(Judge):
    """Takes refusals of rows for answers, too: what is in them is for who sent the rows."""

    def __init__(self, options: Api, side: Side) -> None:
        super().__init__(options, side, None)
        self._refusals = options.refused_statuses

    def page(self, call: Call, answer: Answer) -> Page:
        if answer.status not in self._refusals and not httpx.codes.is_success(answer.status):
            raise self._failed(call, answer, None)
        try:
            json = parsed(answer.body)
        except (ValueError, RecursionError):
            json = None
        return Page(call, answer.status, {}, answer.body, json)


class _Doorbell(Judge):
    """Takes any answer for a good one that does not keep us out."""

    def page(self, call: Call, answer: Answer) -> Page:
        if answer.status in _KEPT_OUT:
            raise self._failed(call, answer, None)
        return Page(call, answer.status, {}, answer.body, None)


class Sender(Client):
    """The API of one target, for the time of one load."""

    def __init__(self, options: Api, side: Side) -> None:
        super().__init__(options, side, None)
        self._judge = _Receipts(options, side)
        self._key_header = options.idempotency_key_header

    async def _exchanged(self, call: Call, signature: Signature) -> Answer:
        if self._key_header and isinstance(call, Letter):
            signature = replace(signature, headers={**signature.headers, self._key_header: call.idempotency_key})
        return await super()._exchanged(call, signature)

    def _request(self, method: str, url: httpx.URL, headers: Mapping[str, str], body: Any) -> httpx.Request:
        request = super()._request(method, url, headers, None)
        if body is None:
            return request
        kept = [(name, value) for name, value in request.headers.raw if name.lower() != b"content-length"]
        return httpx.Request(method, url, headers=[*kept, (b"Content-Type", b"application/json")], content=body)


class _Asker(Sender):
    """Asks only whether it may come in."""

    def __init__(self, options: Api, side: Side) -> None:
        super().__init__(options, side)
        self._judge = _Doorbell(options, side, None)


def reached(options: Api, side: Side) -> None:
    """Ask the API what its URL is good for, once.

    Raises:
        LoadError: nobody answers, or it does not let us in.
    """

    async def ask() -> None:
        async with _Asker(options.model_copy(update={"max_retries": 0}), side) as asker:
            await asker.page(Call("OPTIONS", options.url))

    run(ask)
