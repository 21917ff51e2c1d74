"""Rows of short texts in columns, for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from unicodedata import east_asian_width

GAP = "  "


def aligned(rows: Iterable[Sequence[object]], *, header: Sequence[str] = (), right: Iterable[int] = ()) -> str:
    """Write `rows` in columns as wide as they need to be; None is an empty cell, numbers have separators.

    Args:
        rows: of the same length each.
        header: names of the columns, written in capitals.
        right: positions of columns to be written flush right.
    """
    table = [[name.upper() for name in header]] if header else []
    table += [[_cell(value) for value in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*table, strict=True)]
    flush = set(right)
    return "\n".join(
        GAP.join(
            " " * (width - _width(cell)) + cell if position in flush else cell + " " * (width - _width(cell))
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )


def indented(text: str, by: str = "  ") -> str:
    """Write every line of `text` further to the right."""
    return "\n".join(f"{by}{line}" if line else "" for line in text.splitlines())


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def _width(text: str) -> int:
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)
