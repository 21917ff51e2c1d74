"""When the next call may be made."""

from __future__ import annotations

import asyncio
import time


class Pace:
    """Keeps calls apart, so that no more than `budget` are made in a second; and lets all wait when one has to.

    Args:
        budget: calls a second; None is no limit.
    """

    def __init__(self, budget: float | None) -> None:
        self._apart = 1 / budget if budget else 0.0
        self._next = 0.0

    async def turn(self) -> None:
        """Wait until a call may be made."""
        now = time.monotonic()
        mine = max(now, self._next)
        self._next = mine + self._apart if self._apart else self._next
        if mine > now:
            await asyncio.sleep(mine - now)

    def hold(self, seconds: float) -> None:
        """Let nobody call for so long."""
        self._next = max(self._next, time.monotonic() + seconds)
