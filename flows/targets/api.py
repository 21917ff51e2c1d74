"""An HTTP API that takes rows as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows._home import home
from flows._http.authentication import Authentication, HeaderName, HttpUrl
from flows._http.calls import shown_url
from flows._http.jsonpaths import JsonPath
from flows._http.options import RateLimit, ResponseAction
from flows._ledger import RunRecord
from flows._quarantine import Marks, Quarantine, Status
from flows._secrets import Secret
from flows._sides import Side
from flows.targets._base import Chamber, Target, target

if TYPE_CHECKING:
    from flows.targets._outbox import Outbox

_BRACES = re.compile(r"\{([^{}]+)\}")


class Rejections(BaseModel):
    """Where an answer that accepts a batch names the rows that it does not accept.

    Attributes:
        path: JSONPath of the entries: ``errors[*]``.
        index: JSONPath inside of an entry: which row of the batch, from 0.
        reason: JSONPath inside of an entry: why. Without it, the whole entry is the reason.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    path: JsonPath
    index: JsonPath = "index"
    reason: JsonPath | None = None


@target
class Api(Target):
    """Rows sent to an HTTP API as JSON, ``batch_rows`` in a call.

    ```yaml
    target:
      type: api
      url: https://api.example.com/v1/orders/batch
      authentication: {type: bearer, token: "${API_TOKEN}"}
      body: {source: warehouse, orders: rows}
      rejections: {path: "errors[*]", index: position, reason: message}
    ```

    **What is sent**: ``body`` says where the rows go: ``rows`` alone is a list of them, ``{items: rows}`` puts it
    under a key, beside others with texts and numbers of their own. With ``batch_rows: 1``, ``row`` is the object
    alone, and ``url`` may name columns: ``https://api.example.com/orders/{id}``. Dates and timestamps are ISO 8601
    texts, decimals are texts, nulls are null. Columns that JSON cannot carry (binary, durations) and NaN are
    refused by name.

    **All or nothing is not to be had here**, and this is what holds instead: nothing is sent before every check on
    every row has passed. From then on, each answer is written down in ``state_folder`` before the load goes on. A
    run that breaks off fails, says how many rows were accepted, and the next run of the pipeline sends only the
    others; it counts those as unchanged. The ledger and the quarantine are committed with the last answer. A state
    folder that is lost, or is another one on another machine, knows nothing of that.

    **A call whose answer was lost** is sent again, with the same ``idempotency_key_header``: it depends on the
    pipeline, the rows, their place, and how many loads came before; not on the run. An API that does not know such
    keys may then have the rows of that call twice.

    **Rows that the API refuses** go to quarantine with its reason. It may refuse a batch with one of
    ``refused_statuses``: then halves of it are sent, down to the rows at fault; or name them in an answer that
    accepts the others: ``rejections``. More than ``max_failed_ratio`` of them end the load. Any other answer that
    is no success does so, too; 408, 425, 429, most of 5xx, and connections that break are tried again
    ``max_retries`` times, after ``retry_delay_seconds``, doubled each time, or when ``Retry-After`` says.

    Attributes:
        url: http or https.
        method: with which rows are sent.
        authentication: how the API knows who sends; as for a source of type ``api``.
        headers: values are secrets: ``X-Tenant: ${TENANT}``.
        batch_rows: how many rows are in a call.
        body: ``rows``, ``row``, or an object with one of them in it.
        concurrency: how many calls may be under way; with more than one, batches may arrive in another order.
        rate_limit: how many calls may be made in a second, minute or hour.
        idempotency_key_header: what the API calls it; null sends none.
        refused_statuses: with which a batch is refused because of what is in it.
        rejections: how an answer names rows that it does not accept.
        max_failed_ratio: of the rows of a load, the part that may be refused.
        timeout_seconds: for each call, with its answer.
        max_retry_delay_seconds: the longest wait before a retry; an API that asks for a longer one fails the run.
        state_folder: where it is kept what was accepted, the ledger, the quarantine and the state; in Lockgate's own
            folder of this machine where left out.
    """

    type: Literal["api"] = "api"
    url: Annotated[HttpUrl, Field(repr=False)]
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    headers: Annotated[dict[HeaderName, Secret], Field(default_factory=dict)]
    authentication: Authentication | None = None
    batch_rows: Annotated[int, Field(ge=1, le=100_000)] = 100
    body: Literal["rows", "row"] | dict[str, Any] = "rows"
    concurrency: Annotated[int, Field(ge=1, le=100)] = 4
    rate_limit: RateLimit | None = None
    idempotency_key_header: HeaderName | None = "Idempotency-Key"
    refused_statuses: Annotated[tuple[int, ...], Field(default=(400, 422))]
    rejections: Rejections | None = None
    max_failed_ratio: Annotated[float, Field(ge=0, le=1)] = 0.05
    max_retries: Annotated[int, Field(ge=0, le=100)] = 5
    retry_delay_seconds: Annotated[float, Field(gt=0, le=3600)] = 1.0
    max_retry_delay_seconds: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    state_folder: str | None = None

    # What the client asks of every API, and is not for the configuration of this one.
    response_actions: ClassVar[tuple[ResponseAction, ...]] = ()
    max_response_bytes: ClassVar[int] = 64_000_000
    has_decimals: ClassVar[bool] = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.authentication is not None and "authorization" in {name.lower() for name in self.headers}:
            raise ValueError("'headers' has Authorization, and 'authentication' makes one. Remove one of them.")
        words = _words(self.body)
        if len(words) != 1:
            raise ValueError("'body' says 'rows' once, where the rows go: {items: rows}.")
        if words == ["row"] and self.batch_rows != 1:
            raise ValueError("a 'body' with 'row' in it has room for one. Set 'batch_rows: 1', or write 'rows'.")
        if self.columns_in_url and self.batch_rows != 1:
            raise ValueError("a 'url' with a column in it is that of one row. Set 'batch_rows: 1'.")
        return self

    @property
    def columns_in_url(self) -> tuple[str, ...]:
        """Columns whose values the URL has in it."""
        return tuple(_BRACES.findall(self.url))

    @property
    def label(self) -> str:
        """The URL, without the values of its query."""
        return shown_url(self.url)

    @property
    def folder(self) -> Path:
        """Where things are kept on this machine."""
        return Path(self.state_folder).expanduser().absolute() if self.state_folder else home() / "api"

    def open(self, record: RunRecord, schema: pl.Schema, folder: Path | None = None) -> Chamber:
        """Lock this pipeline's way to the API against other runs, and stage in `folder`."""
        from flows.targets._api_chamber import ApiChamber  # noqa: PLC0415 - httpx is for runs only

        return ApiChamber(self, self._outbox, record, schema, folder)

    def plan(self, schema: pl.Schema) -> list[str]:
        """Say what publishing rows of `schema` would do.

        Raises:
            TargetTypeError: JSON cannot carry a column.
        """
        from flows.targets._formats import Ndjson  # noqa: PLC0415 - as above

        Ndjson().require(schema, self._side)
        return [f"{self.method} {self.label}, {self.batch_rows:,} rows a call, {self.concurrency} calls at a time"]

    def check(self) -> None:
        """Ask what the API's URL is good for (OPTIONS), which changes nothing, and see whether it lets us in."""
        from flows.targets._sender import reached  # noqa: PLC0415 - as above

        reached(self, self._side)

    def record(self, record: RunRecord, quarantine: Quarantine | None) -> None:
        """Keep the record of a run that came to no end."""
        self._outbox.keep(record, quarantine)

    def state(self, pipeline: str) -> dict[str, Any]:
        """What the sources of `pipeline` had remembered."""
        return self._outbox.state(pipeline)

    def remember(self, pipeline: str, state: Mapping[str, Any]) -> None:
        """Let `state` be what the sources of `pipeline` had remembered."""
        self._outbox.remember(pipeline, state)

    def history(self, pipeline: str, limit: int) -> list[dict[str, Any]]:
        """The newest runs of `pipeline`, newest first."""
        return self._outbox.history(pipeline, limit)

    def kept(self, pipeline: str, run_id: str | None = None, status: Status | None = None) -> Iterator[pl.DataFrame]:
        """Quarantined rows, a frame at a time."""
        return self._outbox.kept(pipeline, run_id, status)

    def kept_counts(self, pipeline: str) -> list[dict[str, Any]]:
        """How many rows of each run are kept, by their status."""
        return self._outbox.kept_counts(pipeline)

    def discard(self, pipeline: str, marks: Marks) -> int:
        """Mark waiting rows as discarded."""
        return self._outbox.discard(pipeline, marks)

    @property
    def _side(self) -> Side:
        return Side("target", f"target {self.label}")

    @property
    def _outbox(self) -> Outbox:
        from flows.targets._durable import safe  # noqa: PLC0415 - as above
        from flows.targets._outbox import Outbox  # noqa: PLC0415 - as above

        return Outbox(self.folder / f"{safe(self.label)}.sqlite", self._side)


def _words(body: Any) -> list[str]:
    """The words in a body that stand for rows."""
    if isinstance(body, dict):
        return [word for value in body.values() for word in _words(value)]
    return [body] if body in ("rows", "row") else []
