"""Signs of further pages in an answer, where APIs usually have them: links that can be followed, and mere hints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_AROUND = ("links", "_links", "link", "paging", "pagination", "page", "page_info", "pageInfo", "meta", "metadata")
_LINKS = ("next", "next_url", "nextUrl", "next_page", "nextPage", "next_page_url", "nextPageUrl", "next_link",
          "nextLink", "@odata.nextLink")  # fmt: skip
_MORE = ("has_more", "hasMore", "has_next", "hasNext", "has_next_page", "hasNextPage", "more")
_CURSORS = ("next_cursor", "nextCursor", "next_page_token", "nextPageToken", "next_token", "nextToken", "next_offset",
            "end_cursor", "endCursor", *_LINKS)  # fmt: skip
_TOTALS = ("total", "total_count", "totalCount", "total_results", "totalResults", "count")
_PAGES = ("total_pages", "totalPages", "page_count", "pageCount", "last_page")


def link_in(answer: Any, rel: str = "next") -> str | None:
    """The URL of the next page: in the text of a header ``Link``, or in a body; None where there is none."""
    if isinstance(answer, str):
        return _linked(answer, rel) if answer else None
    for _name, value in _found(answer, _LINKS):
        link = value.get("href", value.get("url")) if isinstance(value, Mapping) else value
        if isinstance(link, str) and link.startswith(("http://", "https://", "/", "?")):
            return link
    return None


def more_in(body: Any, records: int) -> str | None:
    """What in a body says that there are more pages, or more than so many records; None where nothing does."""
    if any(value is False for _name, value in _found(body, _MORE)):
        return None
    hints = [
        *(f"{name!r} is true" for name, value in _found(body, _MORE) if value is True),
        *(f"{name!r} has a value" for name, value in _found(body, _CURSORS) if _is_filled(value)),
        *(f"{name!r} is {value}" for name, value in _found(body, _TOTALS) if _is_more(value, records)),
        *(f"{name!r} is {value}" for name, value in _found(body, _PAGES) if _is_more(value, 1)),
    ]
    return next(iter(hints), None)


def _linked(header: str, rel: str) -> str | None:
    import httpx  # noqa: PLC0415 - 0.2 s that only those who call need

    return httpx.Response(200, headers={"link": header}).links.get(rel, {}).get("url")


def _found(body: Any, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if not isinstance(body, Mapping):
        return
    yield from ((name, body[name]) for name in names if name in body)
    for around in _AROUND:
        inner = body.get(around)
        if isinstance(inner, Mapping):
            yield from ((f"{around}.{name}", inner[name]) for name in names if name in inner)


def _is_filled(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and value not in {"", 0}


def _is_more(value: Any, than: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > than
