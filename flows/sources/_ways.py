"""What a way from page to page is, and what several of them share."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from flows._http.calls import Call, Page
from flows._http.jsonpaths import value_at


class Lost(Exception):  # noqa: N818 - a verdict, turned into an ExtractError that knows the source
    """The way to the next page cannot be told; the message says why, and what to do."""


class Way(BaseModel):
    """How to get from page to page."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    #: Whether pages are numbered, so that they can be asked for at the same time: `ahead`.
    is_numbered: ClassVar[bool] = False

    @property
    def most_pages(self) -> int | None:
        """How many pages are asked for at most, where they are not numbered; None is all of them."""
        return None

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


def has_more(path: str | None, page: Page) -> bool:
    """Whether a page says that there is another one; yes, where it has no place to say so."""
    if path is None:
        return True
    said = value_at(path, page.json)
    return said.lower() == "true" if isinstance(said, str) else bool(said)


def with_value(call: Call, parameter: str, body_path: str | None, value: Any) -> Call:
    """The call with another value of a parameter, or at a place in its body."""
    return call.having(parameter, value) if body_path is None else call.holding(body_path, value)
