"""A big table read in ranges of one column, several at a time, and delivered in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from flows._threads import Ahead

Item = TypeVar("Item")
#: Batches that may wait of each range that is read ahead.
_DEPTH = 8


@dataclass(frozen=True)
class Key:
    """A column that rows are parted by.

    Attributes:
        sql: the column in a condition.
        extremes: a statement whose first row is the least and the greatest key as whole numbers; nulls where
            there is no row.
        literal: writes a whole number between them as a key.
        has_nulls: whether it may be null.
        is_hidden: whether only the table itself knows it, and no query around it: ``ctid``, ``rowid``.
    """

    sql: str
    extremes: str
    literal: Callable[[int], str] = str
    has_nulls: bool = True
    is_hidden: bool = False


def conditions(key: Key, extremes: Sequence[Any], ranges: int) -> list[str]:
    """SQL conditions, of which every row meets exactly one; in the order of the key, nulls last.

    The first range has no lower bound and the last no upper one, so a key that nobody saw is in one of them.
    """
    low, high = extremes
    if not isinstance(low, int) or not isinstance(high, int):
        return ["1 = 1"]  # there is no row, or not one with such a key
    inner = sorted({low + (high + 1 - low) * part // ranges for part in range(1, ranges)} - {low})
    cuts = [key.literal(bound) for bound in inner]
    if not cuts:
        return ["1 = 1"]
    nulls = [f"{key.sql} IS NULL"] if key.has_nulls else []
    between = [f"{key.sql} >= {lower} AND {key.sql} < {upper}" for lower, upper in pairwise(cuts)]
    return [f"{key.sql} < {cuts[0]}", *between, f"{key.sql} >= {cuts[-1]}", *nulls]


def in_order(readers: Sequence[Callable[[], Iterator[Item]]], concurrency: int) -> Iterator[Item]:
    """The items of every reader, one reader after the other; up to `concurrency` of them work at a time.

    Of each reader that works ahead a few items wait, so memory is bounded by ``concurrency``, not by the rows.
    """
    if concurrency < 2 or len(readers) < 2:  # noqa: PLR2004 - nothing to do at the same time
        for reader in readers:
            yield from reader()
        return
    ahead: deque[tuple[Ahead[Item], ExitStack]] = deque()
    with ExitStack() as all_of_them:
        waiting = deque(readers)
        while waiting or ahead:
            while waiting and len(ahead) < concurrency:
                alone = all_of_them.enter_context(ExitStack())
                ahead.append((alone.enter_context(Ahead(waiting.popleft(), depth=_DEPTH)), alone))
            items, alone = ahead[0]
            yield from items
            ahead.popleft()
            alone.close()
