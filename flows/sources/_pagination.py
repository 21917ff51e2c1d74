"""How an API is paged: after each page, which call comes next. Every way is a small frozen model.

The names of ways and of their keys are those of dlt.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flows._http.calls import Call, Page
from flows._http.jsonpaths import JsonPath, value_at
from flows.sources._numbered import Offset, PageNumber
from flows.sources._signs import link_in, more_in
from flows.sources._ways import Lost, Way, has_more, with_value


class _Led(Way):
    """Each page leads to the next one."""

    maximum_page: Annotated[int, Field(ge=1)] | None = None

    @property
    def most_pages(self) -> int | None:
        """``maximum_page``."""
        return self.maximum_page


class SinglePage(Way):
    """There is one page."""

    type: Literal["single_page"]

    def after(self, _page: Page, _records: int) -> None:
        """None."""
        return


class JsonLink(_Led):
    """A page holds the URL of the next one.

    Attributes:
        next_url_path: JSONPath of that URL; the last page has none there.
        maximum_page: how many pages are asked for at most.
    """

    type: Literal["json_link"]
    next_url_path: JsonPath = "next"

    def after(self, page: Page, _records: int) -> Call | None:
        """The link's call."""
        link = value_at(self.next_url_path, page.json)
        if link is not None and not isinstance(link, str):
            raise Lost(f"'next_url_path' {self.next_url_path!r} is {link!r}, which is no URL. Name the path of a URL.")
        return page.call.linked(link) if link else None


class HeaderLink(_Led):
    """The header ``Link`` holds the URL of the next page, as GitHub's does.

    Attributes:
        links_next_key: the link's ``rel``.
        maximum_page: how many pages are asked for at most.
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


class HeaderCursor(_Led):
    """A header holds a cursor, which is sent as a parameter for the next page.

    Attributes:
        cursor_key: the header's name; the last page has none.
        cursor_param: the parameter's name.
        maximum_page: how many pages are asked for at most.
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


class Cursor(_Led):
    """A page holds a cursor, which is sent for the next one.

    Attributes:
        cursor_path: JSONPath of the cursor; the last page has none there.
        cursor_param: the parameter's name.
        cursor_body_path: sends it in the body instead, under this dotted path: ``page.after``.
        has_more_path: JSONPath of a true or false that says whether there is another page.
        maximum_page: how many pages are asked for at most.
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
        if cursor is None or cursor == "" or not has_more(self.has_more_path, page):
            return None
        return with_value(page.call, self.cursor_param, self.cursor_body_path, cursor)


class Auto(_Led):
    """Follows the header ``Link``, or a link to the next page where APIs usually have it; else there is one page.

    A page that seems to have others after it, to which no link leads, is an error.

    Attributes:
        maximum_page: how many pages are asked for at most.
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
