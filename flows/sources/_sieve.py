"""Blocks with broken records: the good ones are read as ever, the broken ones are told with their line and reason.

Polars stops at a broken record. Then the block is taken apart, record by record, and Polars reads the good
ones. Blocks without a broken record pay nothing for this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import polars as pl

from flows.sources._blocks import Block
from flows.sources._broken import STOPPED, Broken, Read
from flows.sources._texts import Unfit


@dataclass(frozen=True)
class Record:
    """What stands in a file where a row is expected.

    Attributes:
        line: where it begins, from 1.
        raw: its bytes, line end included.
        problem: why it is no row; None where it is one.
        plain: the same row as Polars reads it, where `raw` is written in another way.
        blank: whether nothing stands there, which is neither a row nor broken; Polars would make it nulls.
    """

    line: int
    raw: bytes
    problem: str | None = None
    plain: bytes | None = None
    blank: bool = False

    @property
    def is_row(self) -> bool:
        """Whether it is a row."""
        return self.problem is None and not self.blank

    @property
    def text(self) -> str:
        """What stands there, for people."""
        return self.raw.decode(errors="replace").rstrip("\r\n")


@dataclass(frozen=True)
class Sifted:
    """The rows of a block, and its records, if one of them was no row.

    Attributes:
        frame: the good records, as they were read.
        records: all of them; None where all are good.
    """

    frame: pl.DataFrame
    records: Sequence[Record] | None = None


def sifted(
    block: Block,
    read: Callable[[bytes], pl.DataFrame],
    records: Callable[[Block], Iterator[Record]],
    is_whole: Callable[[pl.DataFrame, bytes], bool] = lambda _frame, _data: True,
) -> Sifted:
    """The rows of a block; where Polars stops at a broken record, without the broken ones.

    Args:
        block: whose rows.
        read: has Polars read bytes; raises what Polars raises.
        records: takes the block apart.
        is_whole: whether what was read is what stands there, where Polars may forgive too much.
    """
    with suppress(*STOPPED):
        frame = read(block.data)
        if is_whole(frame, block.data):
            return Sifted(frame)
    apart = list(records(block))
    good = b"".join(one.raw if one.plain is None else one.plain for one in apart if one.is_row)
    return Sifted(read(good), apart)


def judged(found: Sifted, rows: pl.DataFrame, unfit: Sequence[Unfit], records: Callable[[], Iterator[Record]]) -> Read:
    """The rows whose values fit, and all other records of a block by their lines.

    Args:
        found: the block.
        rows: of its frame those that fit.
        unfit: those that do not.
        records: takes the block apart, where that was not needed yet.
    """
    if found.records is None and not unfit:
        return Read(rows)
    bad = {one.row: one for one in unfit}
    broken: list[Broken] = []
    good = read = 0
    for record in found.records if found.records is not None else records():
        if record.blank:
            continue
        reason = record.problem
        if reason is None:
            reason = str(bad[good]) if good in bad else None
            good += 1
        if reason is None:
            read += 1
        else:
            broken.append(Broken(read, {"line": record.line}, record.text, reason))
    return Read(rows, broken)
