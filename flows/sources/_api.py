"""An API, opened: its pages landed, its columns learned, and the rows."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import polars as pl

from flows._errors import SourceMissingError
from flows._http.calls import Call, shown_url
from flows._http.client import Client
from flows._http.loop import run
from flows._sides import Side
from flows.sources import _files, _texts
from flows.sources._base import Batch, Context, Extract, Pushdown
from flows.sources._landing import Landing
from flows.sources._lines import Lines
from flows.sources._records import Selector, Spool, require_some
from flows.sources._walk import Walk
from transforms._words import counted, did_you_mean

if TYPE_CHECKING:
    from flows.sources.api import Api, ForEach


def opened(options: Api, name: str, context: Context) -> Extract:
    """Land the pages, and learn the columns.

    Raises:
        ExtractError: the API, or a parent, cannot be read.
    """
    side = Side("source", f"source {name!r}")
    parents = _parents(options.for_each, side, context) if options.for_each else None
    folder = context.folder or Path(tempfile.mkdtemp(prefix="lockgate-api-"))
    scan = _Scan(options, name, side, folder, parents)
    if context.folder is None:
        weakref.finalize(scan, shutil.rmtree, folder, ignore_errors=True)
    try:
        scan.land(context)
        return scan.extract()
    except BaseException:
        if context.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _parents(each: ForEach, side: Side, context: Context) -> pl.Series:
    """The values that the API is called for: each once, in the order in which the other source has them.

    Raises:
        ExtractError: the other source cannot be read, or has no such column.
    """
    parent = context.others(each.source)
    if each.column not in parent.schema:
        hint = did_you_mean(each.column, parent.schema, word="Present")
        raise side.error("missing", f"'for_each': source {each.source!r} has no column {each.column!r}.{hint}")
    if parent.schema[each.column].is_nested():
        kind = parent.schema[each.column]
        raise side.error("type", f"'for_each': column {each.column!r} of {each.source!r} is {kind}. Name a plain one.")
    values = pl.col(each.column).drop_nulls().unique(maintain_order=True)
    try:
        found = parent.frame.select(values.head(1) if context.sample else values).collect(engine="streaming")
    except BaseException:
        for failure in parent.failures:
            raise failure from None  # Polars wraps it in an error of its own
        raise
    return found.to_series()


class _Scan:
    """One source in one run."""

    def __init__(self, options: Api, name: str, side: Side, folder: Path, parents: pl.Series | None) -> None:
        self.options = options
        self.name = name
        self.side = side
        self.parents = parents
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        alias = options.for_each.field if options.for_each else None
        exact = [column for column, kind in options.kinds.items() if isinstance(kind, pl.Decimal)]
        self.spool = Spool(folder / "records.ndjson", alias, exact, side)
        self.lines = Lines(
            self.spool.file, options.kinds | self._parents_dtype(), self.spool.order, self.spool.place, side
        )

    def _parents_dtype(self) -> dict[str, pl.DataType]:
        each = self.options.for_each
        if each is None or self.parents is None or each.field in self.options.dtypes:
            return {}
        try:
            _texts.require_readable(self.parents.dtype)
        except ValueError:
            return {each.field: pl.String()}
        return {each.field: self.parents.dtype}

    # --- landing ---

    def land(self, context: Context) -> None:
        """Ask for every page that has not landed, and write the records of all of them.

        Raises:
            ExtractError: one cannot be had.
        """
        landing = self._landing(context)
        try:
            with self.spool:
                run(lambda: self._landed(landing, sample=context.sample))
        finally:
            if landing is not None:
                landing.flush()

    def _landing(self, context: Context) -> Landing | None:
        exact = self.options.has_decimals
        if self.options.replay is not None:
            replay = Path(self.options.replay).expanduser()
            inner = replay / self.name
            return Landing(inner if inner.is_dir() else replay, self.side, replays=True, exact=exact)
        if context.sample:
            return None
        if self.options.landing_folder is not None and context.run_id:
            kept = Path(self.options.landing_folder).expanduser() / context.run_id / self.name
            return Landing(kept, self.side, exact=exact)
        return Landing(self.folder / "pages", self.side, exact=exact, landed=context.landed)

    async def _landed(self, landing: Landing | None, *, sample: bool) -> None:
        options = self.options
        selector = Selector(options.data_selector, self.side)
        try:
            async with (
                asyncio.timeout(options.total_timeout_seconds),
                Client(options, self.side, options.pagination.header) as client,
            ):
                walk = Walk(
                    client, landing, options.pagination, selector, self.side, at_once=options.concurrency, sample=sample
                )
                async with aclosing(walk.pages(self._calls())) as pages:
                    async for page, records, value in pages:
                        self.spool.add(page, records, value)
        except TimeoutError as error:
            raise self.side.error(
                "lost",
                f"not all pages came within {options.total_timeout_seconds:,g} s ('total_timeout_seconds'); "
                f"{counted(self.spool.pages, 'page')} did. A retry of this run goes on after them.",
            ) from error

    def _calls(self) -> Iterator[tuple[Call, Any]]:
        options = self.options
        if self.parents is None or options.for_each is None:
            yield Call(options.method, options.address, options.parameters, options.body), None
            return
        braces = options.for_each.braces
        for value, text in zip(self.parents, self.parents.cast(pl.String), strict=True):
            address = options.address.replace(braces, quote(text, safe=""))
            parameters, body = (_filled(each, braces, value, text) for each in (options.parameters, options.body))
            kept = value if isinstance(value, str | int | float) else text
            yield Call(options.method, address, parameters, body), kept

    # --- rows ---

    def extract(self) -> Extract:
        """The promise of rows.

        Raises:
            ExtractError: the records do not agree on a type, or lack a column.
        """
        if not self.options.dtypes:
            require_some(self.spool, self.side)
        self.schema = self.lines.schema()
        for column in self.options.declared or ():
            if column not in self.schema:
                hint = did_you_mean(column, self.schema, word="Present")
                raise SourceMissingError(f"source {self.name!r}: no column {column!r}.{hint}", source=self.name)
        return Extract(self.name, self.schema, self.read, self.describe, delivers=self.options.declared)

    def describe(self, pushdown: Pushdown) -> str:
        """What was asked for, and what is wanted of it, in one line."""
        names = ", ".join(pushdown.columns if pushdown.columns is not None else self.schema)
        limit = f" limit {pushdown.limit}" if pushdown.limit is not None else ""
        url = shown_url(self.options.address)
        calls = f" for each of {counted(self.parents.len(), 'value')}" if self.parents is not None else ""
        pages = counted(self.spool.pages, "page")
        return f"api {self.options.method} {url!r}{calls} ({pages}): {names}{limit}"

    def read(self, pushdown: Pushdown) -> Iterator[Batch]:
        """Stream the rows, in batches of about ``batch_bytes``."""
        columns = pushdown.columns if pushdown.columns is not None else tuple(self.schema)
        yield from _files.resized(self.lines.rows(self.schema, columns, pushdown.limit), self.options.batch_bytes)


def _filled(value: Any, braces: str, filling: Any, text: str) -> Any:
    """`value` with a parent's value for what stands in braces; where nothing else stands there, as it is."""
    if isinstance(value, dict):
        return {key: _filled(inner, braces, filling, text) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, braces, filling, text) for inner in value]
    if value == braces:
        return filling if isinstance(filling, str | int | float) else text
    return value.replace(braces, text) if isinstance(value, str) else value
