"""Records of an HTTP API."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import polars as pl
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from flows._http.authentication import Authentication, HeaderName, HttpUrl
from flows._http.jsonpaths import JsonPath
from flows._http.options import RateLimit, ResponseAction
from flows._secrets import Secret
from flows.sources._base import OUTSIDE, Context, Extract, Source, source
from flows.sources._pagination import Auto, Pagination
from flows.sources._texts import require_readable
from transforms._errors import Path
from transforms._types import dtype_named

_Value = str | int | float | bool
"""What can stand in a query."""


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ForEach(_Keys):
    """Calls the API once for every value that a column of another source has; nulls and doubles are left out.

    Attributes:
        source: the other source; it may stand before or after this one.
        column: whose values are used, in their order.
        parameter: the name in braces that stands for a value in ``url``, ``path``, ``parameters`` and ``body``:
            ``orders/{id}/items``; the column's name where left out.
        alias: the column in which each record has its parent's value; ``<source>_<column>`` where left out.
    """

    source: str
    column: str
    parameter: Annotated[str, Field(pattern=r"^\w+$")] | None = None
    alias: Annotated[str, Field(min_length=1)] | None = None

    @property
    def braces(self) -> str:
        """What stands for a value: ``{id}``."""
        return f"{{{self.parameter or self.column}}}"

    @property
    def field(self) -> str:
        """The column with the parent's value."""
        return self.alias or f"{self.source}_{self.column}"


def _text_type(name: str) -> str:
    require_readable(dtype_named(name))
    return name


TypeName = Annotated[str, AfterValidator(_text_type)]


@source
class Api(Source):
    """Records of an HTTP API: JSON, page after page.

    ```yaml
    source:
      type: api
      url: https://api.example.com/v1/orders
      parameters: {status: paid}
      authentication: {type: bearer, token: "${API_TOKEN}"}
      data_selector: data.orders
      pagination: {type: page_number, base_page: 1, total_path: meta.pages}
    ```

    **Records** are what ``data_selector`` finds: a list, or objects one by one. Without it they are the answer itself
    where that is a list, else the only list in it. A column has the type in ``dtypes``, or the one that *all* pages
    agree on: a key that only page 40 has is a column, what is a number here and a text there is a text, objects stay
    structs, and are texts where none has a key. A declared column is there even if no record has it; an API that may
    give no record needs that. A key of many shapes is read if it is declared ``text``. Numbers are doubles or whole;
    those of a column that ``dtypes`` calls ``numeric(p, s)`` keep all their digits. ``columns`` are the columns that
    the pipeline *delivers*.

    **Pages** are asked for one after the other where each leads to the next, and ``concurrency`` at a time where they
    are numbered (`offset`, `page_number`): without ``total_path``, some beyond the last are asked for in vain. A link
    to another host is refused. A link that was there before, or a numbered page that is the same as the one before it,
    is an error, not an endless loop; where each page leads to the next, ``maximum_page`` ends it in any case.

    **Children**: ``for_each`` calls the API once for every value of another source's column. The steps start from
    the first of ``sources``: to deliver the children, write them first.

    ```yaml
    sources:
      items: {type: api, url: "https://api.example.com/orders/{id}/items", for_each: {source: orders, column: id}}
      orders: {type: api, url: "https://api.example.com/orders"}
    ```

    **Landing**: pages are kept in the run's workspace as they came, before records are made of them, so a retry of
    the run goes on after the last one. With ``landing_folder`` they stay, in ``<landing_folder>/<run>/<source>``, until
    you remove them. A run with ``replay`` reads them from there and calls nobody, such as after a mistake in ``dtypes``
    was mended: ``run orders --set source.replay=landed/<run>``. Answers may hold secrets: the folder is private to its
    owner. ``plan`` and ``preview`` ask for the first page only, so types may be others than those of all pages.

    **Failures**: 408, 425, 429, most of 5xx, and connections that break or are too slow are tried again ``max_retries``
    times, after ``retry_delay_seconds``, doubled each time, with jitter, or when ``Retry-After`` says. A redirect to
    another host sees no header, cookie or key of ours. Cookies that the API sets are not kept.

    Attributes:
        url: http or https.
        path: what stands behind ``url``.
        method: POST where a search is sent as a body.
        headers: values are secrets: ``X-Tenant: ${TENANT}``.
        parameters: of the query; a list is a parameter several times.
        body: of a POST, sent as JSON.
        authentication: who asks.
        pagination: how to get from page to page.
        data_selector: JSONPath of the records: ``data.items``, ``$.orders[*].items``.
        for_each: one call for each value of another source.
        response_actions: answers that are not what their status says.
        concurrency: how many calls may be under way.
        rate_limit: how many calls may be made in a second, minute or hour.
        columns: what is delivered; all of them where left out.
        dtypes: types by column.
        max_retries: how often a call is made again.
        retry_delay_seconds: before the first retry.
        max_retry_delay_seconds: the longest wait before a retry; an API that asks for a longer one fails the run.
        timeout_seconds: for each call, with its answer.
        total_timeout_seconds: for all of them; none where left out.
        max_response_bytes: how large an answer may be, uncompressed.
        landing_folder: where pages stay after the run.
        replay: a run's folder under ``landing_folder``, or a source's folder in it, to be read instead of the API.
        batch_bytes: how much is read at a time.

    Out: the keys of the records, in the order in which pages have them, before them the parent's value; rows page by
    page, parent by parent.
    """

    type: Literal["api"] = "api"
    url: HttpUrl
    path: str | None = None
    method: Literal["GET", "POST"] = "GET"
    headers: Annotated[dict[HeaderName, Secret], Field(default_factory=dict)]
    parameters: Annotated[dict[str, _Value | list[_Value]], Field(default_factory=dict)]
    body: dict[str, Any] | None = None
    authentication: Authentication | None = None
    data_selector: JsonPath | None = None
    pagination: Pagination = Auto()
    for_each: ForEach | None = None
    response_actions: tuple[ResponseAction, ...] = ()
    columns: tuple[str, ...] | None = None
    dtypes: Annotated[dict[str, TypeName], Field(default_factory=dict)]
    concurrency: Annotated[int, Field(ge=1, le=100)] = 4
    rate_limit: RateLimit | None = None
    max_retries: Annotated[int, Field(ge=0, le=100)] = 5
    retry_delay_seconds: Annotated[float, Field(gt=0, le=3600)] = 1.0
    max_retry_delay_seconds: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    total_timeout_seconds: Annotated[float, Field(gt=0)] | None = None
    max_response_bytes: Annotated[int, Field(ge=1_000, le=1_000_000_000)] = 64_000_000
    landing_folder: str | None = None
    replay: str | None = None
    batch_bytes: Annotated[int, Field(ge=64_000, le=256_000_000)] = 4_000_000

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.body is not None and self.method != "POST":
            raise ValueError("a 'body' is sent with 'method: POST'. Add it, or remove the body.")
        if self.authentication is not None and "authorization" in {name.lower() for name in self.headers}:
            raise ValueError("'headers' has Authorization, and 'authentication' makes one. Remove one of them.")
        if self.for_each is not None and self.for_each.braces not in self._template:
            raise ValueError(
                f"nothing in 'url', 'path', 'parameters' or 'body' holds {self.for_each.braces!r}, which 'for_each' "
                "has a value for. Write it where the value goes, or give 'for_each.parameter' the name that is there."
            )
        self._require_body()
        return self

    @property
    def _template(self) -> str:
        return f"{self.address} {self.parameters} {self.body}"

    def _require_body(self) -> None:
        keys = ("cursor_body_path", "offset_body_path", "limit_body_path", "page_body_path")
        for key in keys:
            if getattr(self.pagination, key, None) is not None and self.method != "POST":
                raise ValueError(f"'pagination.{key}' is about a body, and this is a GET. Add 'method: POST'.")

    @property
    def address(self) -> str:
        """``url`` with ``path`` behind it; values of a parent are still in braces."""
        return f"{self.url.rstrip('/')}/{self.path.lstrip('/')}" if self.path else self.url

    @cached_property
    def kinds(self) -> dict[str, pl.DataType]:
        """``dtypes``, as Polars has them."""
        return {column: dtype_named(kind) for column, kind in self.dtypes.items()}

    @property
    def has_decimals(self) -> bool:
        """Whether a column wants all digits of its numbers."""
        return any(isinstance(kind, pl.Decimal) for kind in self.kinds.values())

    @property
    def declared(self) -> tuple[str, ...] | None:
        """``columns``, where they are given."""
        return self.columns

    @property
    def needs(self) -> Mapping[Path, str]:
        """The source of the parents."""
        return {("for_each", "source"): self.for_each.source} if self.for_each else {}

    def scan(self, name: str, context: Context = OUTSIDE) -> Extract:
        """Ask for every page, and land it; learn the columns from all of them.

        Raises:
            ExtractError: the API cannot be reached, refuses, or does not answer as it should.
            SecretError: a reference in the options cannot be resolved.
        """
        from flows.sources import _api  # noqa: PLC0415 - commands that only list call nobody

        asked = self
        if context.cursor is not None and context.cursor.parameters:
            asked = self.model_copy(update={"parameters": {**self.parameters, **context.cursor.parameters}})
        return _api.opened(asked, name, context)

    def check(self) -> None:
        """Ask for the first page.

        Raises:
            ExtractError: `scan` would not work.
        """
        self.scan("source", Context(sample=True))
