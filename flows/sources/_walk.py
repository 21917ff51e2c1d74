"""From page to page, and from parent to parent: many calls at the same time, their pages in a settled order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, Generic, TypeVar

from flows._http.calls import Call, Page
from flows._http.client import Client
from flows._sides import Side
from flows.sources._landing import Landing
from flows.sources._records import Record, Selector
from flows.sources._ways import Lost, Way

T = TypeVar("T")

_DEPTH = 2
_POLL_SECONDS, _PATIENCE_SECONDS = 0.1, 5.0
Found = tuple[Page, list[Record], Any]


class Walk:
    """All pages of a source.

    Args:
        client: asks for what has not landed.
        landing: where pages are kept; None keeps none.
        way: how to get from page to page.
        at_once: how many calls may be under way.
        sample: whether the first page is enough.
    """

    def __init__(
        self, client: Client, landing: Landing | None, way: Way, selector: Selector, side: Side, *, at_once: int,
        sample: bool,
    ) -> None:  # fmt: skip
        self._client = client
        self._landing = landing
        self._way = way
        self._selector = selector
        self._side = side
        self._at_once = at_once
        self._sample = sample

    async def pages(self, calls: Iterator[tuple[Call, Any]]) -> AsyncGenerator[Found, None]:
        """The pages of every first call, call by call, with their records and the value that came with the call.

        Raises:
            ExtractError: a page cannot be had, or does not lead on as it should.
        """
        walks = (self._from(self._way.first(call), value) for call, value in calls)
        ready = deque(_Ahead(walk) for walk in islice(walks, self._at_once))
        try:
            while ready:
                async for found in ready[0].items():
                    yield found
                ready.popleft()
                ready.extend(_Ahead(walk) for walk in islice(walks, 1))
        finally:
            for ahead in ready:
                await ahead.stop()

    async def _from(self, first: Call, value: Any) -> AsyncGenerator[Found, None]:
        """The pages from one call on; where their calls are known beforehand, some are asked for ahead."""
        window = deque([asyncio.ensure_future(self._page(first))])
        asked: Call | None = first
        seen = {first.key}
        before: list[Record] = []
        taken = 0
        try:
            while window:
                page = await window.popleft()
                records = self._selector.records(page)
                if self._way.is_numbered and before and records == before:
                    raise self._side.error("other", _same(page))
                yield page, records, value
                taken += 1
                if taken == self._way.most_pages:
                    return
                following = None if self._sample else self._following(page, len(records))
                if following is None:
                    return
                before = records
                if not self._way.is_numbered:
                    if following.key in seen:
                        raise self._side.error("other", _circle(page))
                    seen.add(following.key)
                    window.append(asyncio.ensure_future(self._page(following)))
                    continue
                while asked is not None and len(window) < self._at_once and (asked := self._way.ahead(asked, page)):
                    window.append(asyncio.ensure_future(self._page(asked)))
        finally:
            for task in window:
                task.cancel()
            await asyncio.gather(*window, return_exceptions=True)

    async def _page(self, call: Call) -> Page:
        landed = self._landing.get(call) if self._landing else None
        if landed is not None:
            return landed
        page = await self._client.page(call)
        if self._landing:
            self._landing.add(page)
        return page

    def _following(self, page: Page, records: int) -> Call | None:
        if page.ignored:
            return None
        try:
            return self._way.after(page, records)
        except Lost as lost:
            raise self._side.error("other", f"{page.call.shown}: {lost}") from lost


def _same(page: Page) -> str:
    return (
        f"{page.call.shown}: this page is the same as the one before it. Does the API know the parameters of "
        "'pagination', and is its first page the one that they begin with ('base_page', 'offset')?"
    )


def _circle(page: Page) -> str:
    return (
        f"{page.call.shown}: the next page is one that was there before, so this would never end. "
        "Correct 'pagination', or tell the makers of the API."
    )


class _Ahead(Generic[T]):
    """Takes items from a generator in a task of its own, a few ahead of the consumer."""

    def __init__(self, items: AsyncGenerator[T, None]) -> None:
        self._items = items
        self._queue: asyncio.Queue[T | BaseException | None] = asyncio.Queue(_DEPTH)
        self._task = asyncio.create_task(self._run())

    async def items(self) -> AsyncGenerator[T, None]:
        """The items; raises what the generator raised."""
        while (item := await self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    async def stop(self) -> None:
        """End the task, and the generator with it."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        end: BaseException | None = None
        try:
            async for item in self._items:
                await self._queue.put(item)
        except Exception as error:  # noqa: BLE001 - the consumer raises it
            end = error
        finally:
            await self._items.aclose()
        await self._queue.put(end)
