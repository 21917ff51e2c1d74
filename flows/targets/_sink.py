"""Rows that come batch by batch, written by Polars' streaming engine as if they were one plan.

Polars writes whole frames and lazy plans, and has no writer that stays open. So the batches are
the source of a plan that a thread runs into its sink: 0.13 s per million rows of Parquet where one
call for all of them takes 0.11 s, and pyarrow's writer, which stays open, 0.48 s.
"""

from __future__ import annotations

import os
import queue
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import polars as pl
from polars.io.plugins import register_io_source

_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_DEPTH = 2
_POLL_SECONDS = 0.1


@contextmanager
def os_errors() -> Iterator[None]:
    """Let what the system said to Polars be an OSError with its number, so that it is told like any other.

    Raises:
        OSError: the disk is full, a folder may not be written, and the like.
    """
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        said = _OS_ERROR.search(str(error))
        if said is None:
            raise
        number = int(said[1])
        raise OSError(number, os.strerror(number)) from error


class _Abandoned(Exception):  # noqa: N818 - nobody is told of it: it only ends the plan
    """Nobody wants the rows any more."""


class Sink:
    """A plan that is being written while its rows are still coming.

    Args:
        schema: of the rows to come.
        write: runs the plan it is given to its end: ``lambda frame: frame.sink_parquet(path)``.
    """

    def __init__(self, schema: pl.Schema, write: Callable[[pl.LazyFrame], object]) -> None:
        self._rows: queue.Queue[pl.DataFrame | None] = queue.Queue(_DEPTH)
        self._abandoned = threading.Event()
        self._failed: BaseException | None = None
        self._frame = register_io_source(self._batches, schema=schema)
        self._write = write
        self._thread = threading.Thread(target=self._run, name="lockgate-sink", daemon=True)
        self._thread.start()

    def put(self, rows: pl.DataFrame) -> None:
        """Hand over a batch; waits while two others wait to be written.

        Raises:
            BaseException: what writing an earlier batch raised.
        """
        self._offer(rows)

    def close(self) -> None:
        """Wait until every row is written.

        Raises:
            BaseException: what writing raised.
        """
        self._offer(None)
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def abandon(self) -> None:
        """Stop writing, and leave what was written as it is; safe to call twice."""
        self._abandoned.set()
        self._thread.join()

    def _offer(self, rows: pl.DataFrame | None) -> None:
        while self._thread.is_alive():
            try:
                self._rows.put(rows, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return
        if self._failed is not None:
            raise self._failed

    def _batches(
        self, columns: list[str] | None, _predicate: pl.Expr | None, _limit: int | None, _rows: int | None
    ) -> Iterator[pl.DataFrame]:
        while not self._abandoned.is_set():
            try:
                rows = self._rows.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if rows is None:
                return
            yield rows if columns is None else rows.select(columns)
        raise _Abandoned

    def _run(self) -> None:
        try:
            with os_errors():
                self._write(self._frame)
        except BaseException as error:  # noqa: BLE001 - Polars panics are BaseExceptions; raised where rows come from
            self._failed = error
