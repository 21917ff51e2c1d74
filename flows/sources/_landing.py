"""Pages as they came, on disk before records are made of them; what is there is not asked for again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import polars as pl

from flows._http.calls import Call, Page, parsed, shown_url
from flows._sides import Side

_FILE_BYTES = 8_000_000
_FILE_PAGES = 2_000
_SCHEMA = pl.Schema(
    {
        "call": pl.String, "url": pl.String, "status": pl.Int16, "ignored": pl.Boolean, "headers": pl.String,
        "body": pl.Binary,
    }
)  # fmt: skip


class Landing:
    """The pages of one source in one run: Parquet files of some megabytes, several pages each.

    Args:
        folder: where they are; made where it is missing, private to its owner.
        replays: whether they come from another run, and none may be added.
        exact: whether numbers keep all their digits.
        side: the end that errors belong to.
        landed: is told of every file that is whole.
    """

    def __init__(
        self,
        folder: Path,
        side: Side,
        *,
        replays: bool = False,
        exact: bool = False,
        landed: Callable[[Path], None] = lambda _file: None,
    ) -> None:
        self.folder = folder
        self.replays = replays
        self._exact = exact
        self._landed = landed
        self._side = side
        self._waiting: list[Page] = []
        self._held = 0
        self._places: dict[str, tuple[Path, int]] = {}
        self._read = lru_cache(maxsize=2)(self._rows)
        with self._mapped():
            if replays and not any(folder.glob("pages-*.parquet")):
                raise FileNotFoundError("no pages are there")
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._files = sorted(folder.glob("pages-*.parquet"))
            for file in self._files:
                keys = pl.read_parquet(file, columns=["call"], glob=False).get_column("call")
                self._places.update((key, (file, row)) for row, key in enumerate(keys))

    def get(self, call: Call) -> Page | None:
        """The page of a call, where it has landed.

        Raises:
            ExtractError: it has not, and this is a replay.
        """
        if place := self._places.get(call.key) if self._places else None:
            file, row = place
            with self._mapped():
                status, ignored, headers, body = self._read(file).row(row)
            found = None if ignored else parsed(body, exact=self._exact)
            return Page(call, status, json.loads(headers), body, found, ignored=ignored)
        if self.replays:
            raise self._side.error(
                "missing",
                f"{call.shown} is not among the pages in {str(self.folder)!r}, which 'replay' names. Replay a run "
                "that landed all of them with this 'url', 'parameters' and 'pagination', or ask the API again.",
            )
        return None

    def add(self, page: Page) -> None:
        """Keep a page; it is on disk soon, at the latest with `flush`."""
        self._waiting.append(page)
        self._held += len(page.body)
        if self._held >= _FILE_BYTES or len(self._waiting) >= _FILE_PAGES:
            self.flush()

    def flush(self) -> None:
        """Write what waits; a file is there whole, or not at all.

        Raises:
            ExtractError: the disk does not take it.
        """
        if not self._waiting:
            return
        rows = [_row(page) for page in self._waiting]
        file = self.folder / f"pages-{len(self._files) + 1:06}.parquet"
        with self._mapped():
            unfinished = file.with_suffix(".unfinished")
            pl.DataFrame(rows, schema=_SCHEMA, orient="row").write_parquet(unfinished, compression="zstd")
            os.replace(unfinished, file)  # noqa: PTH105 - the one call that is atomic on every system
        self._files.append(file)
        self._waiting, self._held = [], 0
        self._landed(file)

    def _rows(self, file: Path) -> pl.DataFrame:
        return pl.read_parquet(file, columns=["status", "ignored", "headers", "body"], glob=False)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pl.exceptions.PolarsError) as error:
            reason = getattr(error, "strerror", None) or str(error).split("\n", maxsplit=1)[0]
            advice = "Name the folder of a source in a run that landed pages." if self.replays else "Check the disk."
            raise self._side.error("other", f"pages at {str(self.folder)!r}: {reason}. {advice}") from error


def _row(page: Page) -> tuple[object, ...]:
    url, headers = shown_url(str(page.call.address)), json.dumps(dict(page.headers))
    return page.call.key, url, page.status, page.ignored, headers, page.body
