"""Pages of an API, landed, parsed and read as rows, beside a bare loop that only fetches them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import _pages
from benchmarks._bench import ROOT, in_turn, process, show

ROUNDS = 3
PAGES = 10_000

#: A scan as a run makes it, and every row read.
OURS = """
import sys, tempfile
from pathlib import Path
from flows.sources._base import Context, Pushdown, sources
options = {"type": "api", "url": sys.argv[1], "data_selector": "items", "concurrency": int(sys.argv[2]),
           "pagination": {"type": "page_number", "total_path": "pages"}}
with tempfile.TemporaryDirectory() as folder:
    extract = sources.get("api").model_validate(options).scan("items", Context(Path(folder)))
    rows = sum(batch.height for batch in extract.read(Pushdown()))
assert rows == int(sys.argv[3]), rows
"""


def main() -> None:
    print("\napi: fetch, land, parse, infer, read; whole processes                limit     ours   ratio")
    with serving(PAGES) as port:
        url = f"http://127.0.0.1:{port}/items"
        costs = in_turn(
            ROUNDS,
            limit=lambda: process(sys.executable, "-m", "benchmarks._pages", "bare", str(port), str(PAGES)),
            ours=lambda: process(
                sys.executable, "-c", OURS, url, str(_pages.AT_ONCE), str(PAGES * _pages.ROWS)
            ),
        )  # fmt: skip
    # A rate of 0.6 is a time of 1 / 0.6.
    show(f"{PAGES:,} pages against a bare httpx loop", costs["limit"], costs["ours"], round(1 / 0.6, 2))


@contextmanager
def serving(pages: int) -> Iterator[int]:
    """A server of pages in a process of its own; gives its port."""
    command = [sys.executable, "-m", "benchmarks._pages", "serve", str(pages)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.terminate()
