"""Ways to pages that are numbered, by page or by record, so that several can be asked for at the same time."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from flows._http.calls import Call, Page
from flows._http.jsonpaths import JsonPath, value_at
from flows.sources._ways import Lost, Way, has_more, with_value


class _Counted(Way):
    """Pages are numbered, so they can be asked for at the same time."""

    is_numbered: ClassVar[bool] = True
    total_path: JsonPath | None = None
    has_more_path: JsonPath | None = None
    stop_after_empty_page: bool = True

    def after(self, page: Page, records: int) -> Call | None:
        """The next number, unless this was the last page."""
        if page.ignored or (self.stop_after_empty_page and not records) or not has_more(self.has_more_path, page):
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
            call = with_value(call, self.limit_param or "", self.limit_body_path, self.limit)
        return with_value(call, self.offset_param, self.offset_body_path, self.offset)

    def ahead(self, call: Call, known: Page) -> Call | None:
        """The call for the next offset, unless that is beyond the total or the maximum."""
        offset = int(_value_of(call, self.offset_param, self.offset_body_path)) + self.limit
        total = self._total(known)
        if (total is not None and offset >= total) or (
            self.maximum_offset is not None and offset > self.maximum_offset
        ):
            return None
        return with_value(call, self.offset_param, self.offset_body_path, offset)


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
        return with_value(call, self.page_param, self.page_body_path, self.base_page)

    def ahead(self, call: Call, known: Page) -> Call | None:
        """The call for the next number, unless that is beyond the total or the maximum."""
        number = int(_value_of(call, self.page_param, self.page_body_path)) + 1
        total = self._total(known)
        if (total is not None and number >= total + self.base_page) or (
            self.maximum_page is not None and number > self.maximum_page
        ):
            return None
        return with_value(call, self.page_param, self.page_body_path, number)


def _value_of(call: Call, parameter: str, body_path: str | None) -> Any:
    value = call.parameters[parameter] if body_path is None else call.body
    for part in (body_path or "").split(".") if body_path else ():
        value = value[part]
    return value
