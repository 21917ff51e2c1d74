"""Large files of lines in blocks of whole records, so that a reader that stops has given nothing of its block.

Polars reads the lines of a file in parallel, and may hand out later rows before it says that an earlier one
is broken. A block is all or nothing: where it is broken, its good records are read without the others.
"""

from __future__ import annotations

import codecs
import io
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, TypeVar

Result = TypeVar("Result")

BLOCK_BYTES = 4_000_000
_AT_ONCE = 2
_LONGEST_RECORD = 16_000_000
_BOM = b"\xef\xbb\xbf"
_UNREADABLE = "lockgate-unreadable"


@dataclass(frozen=True)
class Block:
    """Some records of a file.

    Attributes:
        data: their bytes; ends with a line end.
        line: the number of the first line, from 1.
    """

    data: bytes
    line: int


def blocks(
    stream: IO[bytes],
    *,
    eol: bytes = b"\n",
    quote: bytes = b"",
    escape: bytes = b"",
    skip_lines: int = 0,
    size: int = BLOCK_BYTES,
) -> Iterator[Block]:
    """A file in blocks of about `size` bytes that end where a record does.

    Args:
        stream: what is read, as UTF-8.
        eol: what a line ends with.
        quote: inside of two of them a line end is a character; empty where there is no such thing.
        escape: before a quote, makes it a character.
        skip_lines: how many lines at the start are left out.
        size: of a block; one that holds a longer record is longer.
    """
    line = 1
    rest = stream.read(size + len(_BOM)).removeprefix(_BOM)
    while rest:
        while line <= skip_lines and (end := rest.find(eol)) >= 0:
            rest = rest[end + 1 :]
            line += 1
        cut = _cut(rest, eol, quote, escape) if line > skip_lines else 0
        if cut:
            yield Block(rest[:cut], line)
            line += rest.count(eol, 0, cut)
            rest = rest[cut:]
        more = stream.read(size)
        if not more:
            break
        rest += more
    if rest and line > skip_lines:
        yield Block(rest if rest.endswith(eol) else rest + eol, line)


def _cut(data: bytes, eol: bytes, quote: bytes, escape: bytes) -> int:
    """Where the last whole record ends; 0 where none does yet."""
    if escape:
        data = re.sub(rb"%b[\s\S]" % re.escape(escape), b"__", data)
    end = data.rfind(eol) + 1
    if not quote or data.count(quote, 0, end) % 2 == 0:
        return end
    # The last quote opens a text that goes on, so its line belongs to the next block.
    before = data.rfind(eol, 0, data.rfind(quote, 0, end)) + 1
    if before:
        return before
    return end if len(data) > _LONGEST_RECORD else 0


def in_order(work: Callable[[Block], Result], found: Iterator[Block]) -> Iterator[Result]:
    """What `work` makes of each block, in their order; some blocks are worked on at the same time."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="lockgate-block") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for block in found:
                waiting.append(pool.submit(work, block))
                if len(waiting) > _AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


class Recoded(io.RawIOBase):
    """A stream of another encoding as UTF-8; what is no text in it becomes a byte that no UTF-8 has."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(errors=_UNREADABLE)
        self._ready = b""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # wider than typeshed has it
        """Fill `buffer` as far as there is something."""
        while not self._ready:
            chunk = self._stream.read(1_000_000)
            self._ready = self._decoder.decode(chunk, final=not chunk).encode("utf-8", "surrogateescape")
            if not chunk:
                break
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


def _marked(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)  # noqa: S101 - the handler is used for decoding only
    return "\udcff", error.end


codecs.register_error(_UNREADABLE, _marked)
