"""One view of a database for everything that a run reads there, however often and through whatever connection.

Inside `shared`, all sources of one database see the same rows: a join never pairs yesterday's customer with
today's order, and rows can be looked up again as they were read. How a database keeps a view is its own
business: PostgreSQL exports a snapshot, SQLite has one connection in one transaction, DuckDB a read-only file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar


class View(Protocol):
    """Keeps one view of a database, from its first use until `release`; used again, it is of a new view."""

    def release(self) -> None:
        """Let go of the view, so that the database may clean up behind it."""


AnyView = TypeVar("AnyView", bound=View)
_shared: ContextVar[dict[str, View] | None] = ContextVar("shared views", default=None)


@contextmanager
def shared() -> Iterator[None]:
    """Let sources that are opened inside share one view of each database."""
    token = _shared.set({})
    try:
        yield
    finally:
        release()
        _shared.reset(token)


def release() -> None:
    """Let go of every view; one that is needed again is taken anew."""
    for view in (_shared.get() or {}).values():
        view.release()


def of(database: str, make: Callable[[], AnyView]) -> AnyView | None:
    """The view of this database that a run shares; None outside of `shared`, where every read has its own.

    Args:
        database: what names it; sources of one name share a view.
        make: makes the view, not yet taken.
    """
    views = _shared.get()
    if views is None:
        return None
    return views.setdefault(database, make())  # type: ignore[return-value]  # one name is one kind of database
