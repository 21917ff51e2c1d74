"""Prefect's log of a run: redacted, fed with what people should know, and kept from the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prefect import get_run_logger
from prefect.logging.handlers import APILogHandler, PrefectConsoleHandler

from flows._ledger import RunRecord
from flows._report import Reporter
from flows._secrets import Redacting


@contextmanager
def quiet_terminal() -> Iterator[None]:
    """Keep Prefect's lines from the terminal; they still go to its API."""
    consoles = [handler for handler in logging.getLogger().handlers if isinstance(handler, PrefectConsoleHandler)]
    levels = [handler.level for handler in consoles]
    for handler in consoles:
        handler.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for handler, level in zip(consoles, levels, strict=True):
            handler.setLevel(level)


def redact_lines() -> None:
    """Let every line that runs send to Prefect pass `redact`, from now on."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, APILogHandler) and not any(isinstance(f, _Tidy) for f in handler.filters):
                handler.addFilter(_Tidy())


class Logging:
    """Tells the log of the run in Prefect what a person should know, and another reporter everything."""

    def __init__(self, other: Reporter) -> None:
        self._other = other

    def began(self, record: RunRecord) -> None:
        """The run starts."""
        self._other.began(record)

    def stage(self, name: str) -> None:
        """A stage begins."""
        self._other.stage(name)

    def rows(self, read: int) -> None:
        """So many rows were read so far."""
        self._other.rows(read)

    def warning(self, text: str) -> None:
        """Something a person should know."""
        get_run_logger().warning("%s", text)
        self._other.warning(text)


class _Tidy(Redacting):
    """Stars for secrets, and no traceback where Prefect asks for one that is not there."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean the record; always True."""
        if record.exc_info and record.exc_info[0] is None:
            record.exc_info = None
        return super().filter(record)
