"""How an API is paged: after each page, which call comes next. Every way is a small frozen model.

The names of ways and of their keys are those of dlt.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.sources._calls import Call, Page
from flows.sources._jsonpaths import JsonPath, value_at
from flows.sources._signs import link_in, more_in


class Lost(Exception):  # noqa: N818 - a verdict, turned into an ExtractError that knows the source
    """The way to the next page cannot be told; the message says why, and what to do."""


class Way(BaseModel):
    """How to get from page to page."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    #: Whether pages are numbered, so that they can be asked for at the same time: `ahead`.
    is_numbered: ClassVar[bool] = False

    @property
    def header(self) -> str | None:
        """The header of an answer that leads on; None where none does."""
        return None

    def first(self, call: Call) -> Call:
        """The call for the first page."""
        return call

    def after(self, page: Page, _records: int) -> Call | None:
        """The call after `page`, which had so many records; None when it was the last.

        Raises:
            Lost: it cannot be told.
        """
        raise NotImplementedError

    def ahead(self, _call: Call, _known: Page) -> Call | None:
        """The call after `_call`, where that is known without its page; `_known` is a page that was seen before."""
        return None


class SinglePage(Way):
    """There is one page."""

    type: Literal["single_page"]

    def after(self, _page: Page, _records: int) -> None:
        """None."""
        return


class JsonLink(Way):
    """A page holds the URL of the next one.

    Attributes:
        next_url_path: JSONPath of that URL; the last page has none there.
    """

    type: Literal["json_link"]
    next_url_path: JsonPath = "next"

    def after(self, page: Page, _records: int) -> Call | None:
        """The link's call."""
        link = value_at(self.next_url_path, page.json)
        if link is not None and not isinstance(link, str):
            raise Lost(f"'next_url_path' {self.next_url_path!r} is {link!r}, which is no URL. Name the path of a URL.")
        return page.call.linked(link) if link else None


class HeaderLink(Way):
    """The header ``Link`` holds the URL of the next page, as GitHub's does.

    Attributes:
        links_next_key: the link's ``rel``.
    """

    type: Literal["header_link"]
    links_next_key: str = "next"

    @property
    def header(self) -> str:
        """``link``."""
        return "link"

    def after(self, page: Page, _records: int) -> Call | None:
        """The link's call."""
        link = link_in(page.headers.get("link", ""), self.links_next_key)
        return page.call.linked(link) if link else None


class HeaderCursor(Way):
    """A header holds a cursor, which is sent as a parameter for the next page.

    Attributes:
        cursor_key: the header's name; the last page has none.
        cursor_param: the parameter's name.
    """

    type: Literal["header_cursor"]
    cursor_key: str = "next"
    cursor_param: str = "cursor"

    @property
    def header(self) -> str:
        """The header with the cursor."""
        return self.cursor_key.lower()

    def after(self, page: Page, _records: int) -> Call | None:
        """The call with the cursor."""
        cursor = page.headers.get(self.header)
        return page.call.having(self.cursor_param, cursor) if cursor else None


class Cursor(Way):
    """A page holds a cursor, which is sent for the next one.

    Attributes:
        cursor_path: JSONPath of the cursor; the last page has none there.
        cursor_param: the parameter's name.
        cursor_body_path: sends it in the body instead, under this dotted path: ``page.after``.
        has_more_path: JSONPath of a true or false that says whether there is another page.
    """

    type: Literal["cursor"]
    cursor_path: JsonPath = "cursors.next"
    cursor_param: str = "cursor"
    cursor_body_path: str | None = None
    has_more_path: JsonPath | None = None

    def after(self, page: Page, _records: int) -> Call | None:
        """The call with the cursor."""
        cursor = value_at(self.cursor_path, page.json)
        if isinstance(cursor, dict | list):
            raise Lost(f"'cursor_path' {self.cursor_path!r} is not a single value. Name the path of the cursor.")
        if cursor is None or cursor == "" or not _has_more(self.has_more_path, page):
            return None
        return _with(page.call, self.cursor_param, self.cursor_body_path, cursor)


class _Counted(Way):
    """Pages are numbered, so they can be asked for at the same time."""

    is_numbered: ClassVar[bool] = True
    total_path: JsonPath | None = None
    has_more_path: JsonPath | None = None
    stop_after_empty_page: bool = True

    def after(self, page: Page, records: int) -> Call | None:
        """The next number, unless this was the last page."""
        if page.ignored or (self.stop_after_empty_page and not records) or not _has_more(self.has_more_path, page):
            return None
        return self.ahead(page.call, page)

    def _total(self, page: Page) -> int | None:
        if self.total_path is None:
            return None
        total = value_at(self.total_path, page.json)
        if isinstance(total, str) and total.isdecimal():
            return int(total)
        if isinstance(total, bool) or not isinstance(total, int):
            raise Lost(f"'total_path' {self.total_path!r} finds no number in the answer. Correct it, or leave it out.")
        return total

    def _require_end(self, most: int | None, key: str) -> None:
        if not self.stop_after_empty_page and most is None and self.total_path is None and self.has_more_path is None:
            raise ValueError(
                f"nothing says which page is the last. Give 'total_path', 'has_more_path' or {key!r}, or leave "
                "'stop_after_empty_page' out."
            )


class Offset(_Counted):
    """Records are asked for from an offset on.

    Attributes:
        limit: how many records a page has.
        offset: of the first page.
        offset_param, limit_param: the parameters' names; ``limit_param: null`` sends no limit.
        offset_body_path, limit_body_path: send them in the body instead, under a dotted path.
        total_path: JSONPath of the number of records; needed to ask for no page too many.
        has_more_path: JSONPath of a true or false that says whether there is another page.
        maximum_offset: the last offset that is asked for.
        stop_after_empty_page: whether a page without records is the last.
    """

    type: Literal["offset"]
    limit: Annotated[int, Field(ge=1)]
    offset: Annotated[int, Field(ge=0)] = 0
    offset_param: str = "offset"
    limit_param: str | None = "limit"
    offset_body_path: str | None = None
    limit_body_path: str | None = None
    maximum_offset: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _ends(self) -> Self:
        self._require_end(self.maximum_offset, "maximum_offset")
        return self

    def first(self, call: Call) -> Call:
        """The call for the first offset."""
        if self.limit_param is not None or self.limit_body_path is not None:
            call = _with(call, self.limit_param or "", self.limit_body_path, self.limit)
        return _with(call, self.offset_param, self.offset_body_path, self.offset)

    def ahead(self, call: Call, known: Page) -> Call | None:
        """The call for the next offset, unless that is beyond the total or the maximum."""
        offset = int(_of(call, self.offset_param, self.offset_body_path)) + self.limit
        total = self._total(known)
        if (total is not None and offset >= total) or (
            self.maximum_offset is not None and offset > self.maximum_offset
        ):
            return None
        return _with(call, self.offset_param, self.offset_body_path, offset)


class PageNumber(_Counted):
    """Pages are asked for by their number.

    Attributes:
        base_page: the number of the first page; many APIs begin with 1.
        page_param: the parameter's name.
        page_body_path: sends it in the body instead, under this dotted path.
        total_path: JSONPath of the number of pages; needed to ask for no page too many.
        has_more_path: JSONPath of a true or false that says whether there is another page.
        maximum_page: the last number that is asked for.
        stop_after_empty_page: whether a page without records is the last.
    """

    type: Literal["page_number"]
    base_page: int = 0
    page_param: str = "page"
    page_body_path: str | None = None
    maximum_page: int | None = None

    @model_validator(mode="after")
    def _ends(self) -> Self:
        self._require_end(self.maximum_page, "maximum_page")
        return self

    def first(self, call: Call) -> Call:
        """The call for the base page."""
        return _with(call, self.page_param, self.page_body_path, self.base_page)

    def ahead(self, call: Call, known: Page) -> Call | None:
        """The call for the next number, unless that is beyond the total or the maximum."""
        number = int(_of(call, self.page_param, self.page_body_path)) + 1
        total = self._total(known)
        if (total is not None and number >= total + self.base_page) or (
            self.maximum_page is not None and number > self.maximum_page
        ):
            return None
        return _with(call, self.page_param, self.page_body_path, number)


class Auto(Way):
    """Follows the header ``Link``, or a link to the next page where APIs usually have it; else there is one page.

    A page that seems to have others after it, to which no link leads, is an error.
    """

    type: Literal["auto"] = "auto"

    @property
    def header(self) -> str:
        """``link``."""
        return "link"

    def after(self, page: Page, records: int) -> Call | None:
        """The link's call."""
        link = link_in(page.headers.get("link", ""), "next") or link_in(page.json)
        if link:
            return page.call.linked(link)
        if sign := more_in(page.json, records):
            raise Lost(
                f"there seem to be more pages ({sign}), and no link leads to them. Say in 'pagination' how to get "
                "there, or 'type: single_page' if this is all."
            )
        return None


Pagination = Annotated[
    Auto | SinglePage | JsonLink | HeaderLink | HeaderCursor | Cursor | Offset | PageNumber, Field(discriminator="type")
]


def _has_more(path: str | None, page: Page) -> bool:
    if path is None:
        return True
    said = value_at(path, page.json)
    return said.lower() == "true" if isinstance(said, str) else bool(said)


def _with(call: Call, parameter: str, body_path: str | None, value: Any) -> Call:
    return call.having(parameter, value) if body_path is None else call.holding(body_path, value)


def _of(call: Call, parameter: str, body_path: str | None) -> Any:
    value = call.parameters[parameter] if body_path is None else call.body
    for part in (body_path or "").split(".") if body_path else ():
        value = value[part]
    return value
