"""Coroutines that are run from code that is none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_POLL_SECONDS, _PATIENCE_SECONDS = 0.1, 5.0


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end in a thread with a loop of its own; whoever calls may have a loop already.

    An interrupt of the caller cancels the work, and waits a moment for it to clean up.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    loop = asyncio.new_event_loop()
    task: asyncio.Task[T] = loop.create_task(work())

    def target() -> None:
        asyncio.set_event_loop(loop)
        try:
            results.append(loop.run_until_complete(task))
        except BaseException as error:  # noqa: BLE001 - raised by the caller
            errors.append(error)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    thread = threading.Thread(target=target, name="lockgate-api", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_POLL_SECONDS)  # a wait without end would not be interrupted by Ctrl-C
    except BaseException:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(_PATIENCE_SECONDS)
        raise
    if errors:
        raise errors.pop()
    return results.pop()
