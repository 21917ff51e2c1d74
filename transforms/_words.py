"""Small pieces of prose that every error message shares."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_SHOWN = 30


def did_you_mean(name: str, known: Iterable[str], *, word: str = "Known") -> str:
    """Say what would have worked: `` Did you mean 'eq'? Known: eq, ge, gt.`` (with the leading space)."""
    names = sorted(known)
    if not names:
        return f" {word}: none."
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    folded = {candidate.casefold(): candidate for candidate in names}
    guess = folded.get(name.casefold()) or (close[0] if close else None)
    hint = f" Did you mean {guess!r}?" if guess else ""
    shown = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{hint} {word}: {shown}{more}."


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: ``1 row``, ``10,000 rows``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
