"""Files of lines, compressed or not, as bytes: whether the last line has its end, and how many there are."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Compression = Literal["uncompressed", "gzip", "zstd"]

BLOCK_BYTES = 1_000_000
_PYARROW = {"uncompressed": None, "gzip": "gzip", "zstd": "zstd"}


def ends_line(file: Path, compression: Compression) -> bool:
    """Whether the last line has its end; a file that others wrote may not."""
    import pyarrow as pa  # noqa: PLC0415 - it takes time that only runs have

    last = b"\n"
    with pa.input_stream(str(file), compression=_PYARROW[compression]) as text:
        if compression == "uncompressed":
            text.seek(max(file.stat().st_size - 1, 0))
        while block := text.read(BLOCK_BYTES):
            last = block[-1:]
    return last == b"\n"


def lines(file: Path, compression: Compression) -> int:
    """How many lines there are, the last one with or without its end."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    ends, last = 0, b"\n"
    with pa.input_stream(str(file), compression=_PYARROW[compression]) as text:
        while block := text.read(BLOCK_BYTES):
            ends, last = ends + block.count(b"\n"), block[-1:]
    return ends if last == b"\n" else ends + 1


def packed(text: bytes, compression: Compression) -> bytes:
    """A text as it stands in such a file."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    written = pa.BufferOutputStream()
    with pa.output_stream(written, compression=_PYARROW[compression]) as stream:
        stream.write(text)
    return bytes(written.getvalue())
