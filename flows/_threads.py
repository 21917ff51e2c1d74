"""Reading, transforming and writing at the same time: one thread before, one behind.

Few batches wait between them, so memory stays flat; an error on either side stops all of them
and is raised where the batches are consumed.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")

_DEPTH = 2
_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 2


def _next(waiting: queue.Queue[Item | _End], stopped: threading.Event) -> Item | _End:
    """The next item. Wakes now and then: once Polars is imported, Ctrl-C does not interrupt a wait without end."""
    while not stopped.is_set():
        with suppress(queue.Empty):
            return waiting.get(timeout=_POLL_SECONDS)
    return _End()


def _is_put(waiting: queue.Queue[Item], item: Item) -> bool:
    """Whether `item` found room within a moment; see `_next`."""
    try:
        waiting.put(item, timeout=_POLL_SECONDS)
    except queue.Full:
        return False
    return True


class _End:
    """What a side says last."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Ahead(Generic[Item]):
    """Iterates over `items` in a thread of its own, at most `depth` items ahead of the consumer."""

    def __init__(self, items: Callable[[], Iterator[Item]], *, depth: int = _DEPTH) -> None:
        self._items = items
        self._queue: queue.Queue[Item | _End] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lockgate-read", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        # After an error nobody waits for a server that is still thinking; the thread ends with it, or with us.
        self._thread.join(None if error is None else _PATIENCE_SECONDS)

    def __iter__(self) -> Iterator[Item]:
        while True:
            item = _next(self._queue, self._stopped)
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def _run(self) -> None:
        end = _End()
        items = self._items()
        try:
            for item in items:
                if not self._put(item):
                    break
        except BaseException as error:  # noqa: BLE001 - Polars panics are BaseExceptions; the consumer raises it
            end = _End(error)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
        self._put(end)

    def _put(self, item: Item | _End) -> bool:
        while not self._stopped.is_set():
            if _is_put(self._queue, item):
                return True
        return False


class Behind(Generic[Item]):
    """Feeds items to `consume` in a thread of its own; leaving the block waits for the last one."""

    def __init__(self, consume: Callable[[Item], None]) -> None:
        self._consume = consume
        self._queue: queue.Queue[Item | _End] = queue.Queue(_DEPTH)
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="lockgate-write", daemon=True)

    def put(self, item: Item) -> None:
        """Hand over an item; waits while the consumer is behind.

        Raises:
            BaseException: what the consumer raised.
        """
        if self._failed is not None:
            raise self._failed
        while not _is_put(self._queue, item):
            pass

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(_End())
        self._thread.join()
        if error is None and self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        while not isinstance(item := self._queue.get(), _End):
            if self._failed is not None:
                continue  # drain, so that the producer is never stuck
            try:
                self._consume(item)
            except BaseException as error:  # noqa: BLE001 - raised where the items come from
                self._failed = error
