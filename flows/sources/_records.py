"""Records of pages: found by a JSONPath, written as lines of JSON, so that they are read as any such file is."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Self

from flows._http.calls import Page
from flows._http.jsonpaths import compiled, values_at
from flows._sides import Side

_ENCODED = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=float).encode
_SHOWN_NAMES = 12
Record = Mapping[str, Any]
Order = dict[str, "Order"]


class Selector:
    """Finds the records of pages.

    Args:
        path: a JSONPath of a list, or of the records themselves; None to find the one list in the first page.
        side: the end that errors belong to.
    """

    def __init__(self, path: str | None, side: Side) -> None:
        self._path = path.removesuffix("[*]") if path is not None else None
        self._side = side

    def records(self, page: Page) -> list[Record]:
        """The records of a page, in its order.

        Raises:
            ExtractError: it has no place for records, or one of them is no object.
        """
        if page.ignored:
            return []
        if self._path is None:
            self._path = self._only_list(page)
        found = values_at(self._path, page.json)
        if not found and compiled(self._path).singular_query():
            keys = f"the keys {_named(page.json)}" if isinstance(page.json, Mapping) else _kind(page.json)
            raise self._side.error(
                "missing", f"{page.call.shown}: 'data_selector' {self._path!r} finds nothing; the answer has {keys}."
            )
        records = [each for value in found for each in (value if isinstance(value, list) else [value])]
        if found == [None]:
            return []
        for number, record in enumerate(records, start=1):
            if not isinstance(record, dict):
                raise self._side.error(
                    "type",
                    f"{page.call.shown}: record {number} is {_kind(record)}, and not an object. Select objects with "
                    "'data_selector'.",
                )
        return records

    def _only_list(self, page: Page) -> str:
        body = page.json
        if isinstance(body, list):
            return "$"
        lists = [f"$[{name!r}]" for name, value in body.items() if isinstance(value, list)] if _is_object(body) else []
        if len(lists) == 1:
            return lists[0]
        inner = [
            f"$[{name!r}][{below!r}]"
            for name, value in (body.items() if _is_object(body) else ())
            for below, item in (value.items() if _is_object(value) else ())
            if isinstance(item, list)
        ]
        found = (
            f"several lists: {', '.join(lists)}" if lists else f"no list but {', '.join(inner)}" if inner else "no list"
        )
        raise self._side.error(
            "missing",
            f"{page.call.shown}: where the records are cannot be told: the answer holds {found}. "
            "Name their JSONPath in 'data_selector'; '$' is the answer itself.",
        )


class Spool:
    """A file with a line for each record, in the order of the pages.

    Args:
        file: is made anew.
        alias: a key that each record gets before its own; None is none.
        exact: keys whose numbers are kept with all their digits, as texts.
        side: the end that errors belong to.

    Attributes:
        order: the keys of all records in the order in which they were met, and below each those of its objects.
        rows: how many records there are.
    """

    def __init__(self, file: Path, alias: str | None, exact: Collection[str], side: Side) -> None:
        self.file = file
        self.order: Order = {}
        self.rows = 0
        self._alias = alias
        self._exact = exact
        self._side = side
        self._ends: list[int] = []
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self._stream = self.file.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    @property
    def pages(self) -> int:
        """How many pages there were."""
        return len(self._ends)

    def add(self, page: Page, records: Sequence[Record], value: Any) -> None:
        """Write the records of a page, each with `value` under the alias.

        Raises:
            ExtractError: a record has that key itself, or holds what is no text.
        """
        if self._alias is not None:
            if any(self._alias in record for record in records):
                raise self._side.error(
                    "other",
                    f"{page.call.shown}: the records have a key {self._alias!r} themselves. Give 'for_each.alias' "
                    "another name.",
                )
            records = [{self._alias: value, **record} for record in records]
        if self._exact:
            records = [{name: self._kept(name, inner) for name, inner in record.items()} for record in records]
        try:
            assert self._stream is not None  # noqa: S101 - pages are added inside the block
            self._stream.write("".join(_ENCODED(record) + "\n" for record in records).encode())
        except (ValueError, RecursionError) as error:  # half a surrogate, a number beyond a double
            raise self._side.error(
                "type", f"{page.call.shown}: a record holds what is no text or number: {error}. Mend it in the API."
            ) from error
        for record in records:
            _meet(record, self.order)
        if "" in self.order:
            raise self._side.error("type", f"{page.call.shown}: a record has a key without a name. Mend it in the API.")
        self.rows += len(records)
        self._ends.append(self.rows)

    def _kept(self, name: str, value: Any) -> Any:
        return str(value) if name in self._exact and isinstance(value, Decimal) else value

    def place(self, line: int) -> str:
        """Which record of which page stands in a line, both from 1: ``page 3 record 17``."""
        page = bisect_left(self._ends, line)
        before = self._ends[page - 1] if page else 0
        return f"page {page + 1} record {line - before}"


def _meet(record: Record, order: Order) -> None:
    for name, value in record.items():
        inner = order.get(name)
        if inner is None:
            inner = order[name] = {}
        kind = type(value)
        if kind is dict:
            _meet(value, inner)
        elif kind is list:
            _meet_all(value, inner)


def _meet_all(values: list[Any], order: Order) -> None:
    for value in values:
        if type(value) is dict:
            _meet(value, order)
        elif type(value) is list:
            _meet_all(value, order)


def require_some(spool: Spool, side: Side) -> None:
    """Confirm that there are rows to learn the columns from.

    Raises:
        SourceMissingError: there are none.
    """
    if not spool.rows:
        raise side.error("missing", "no page has a record, so no column is known. Declare them in 'dtypes'.")


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _named(body: Mapping[str, Any]) -> str:
    names = [repr(name) for name in body][:_SHOWN_NAMES]
    return ", ".join(names) or "(none)"


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", type(None): "null", bool: "true or false"}
    return kinds.get(type(value), "a number")
