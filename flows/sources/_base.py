"""What a source is: a frozen set of options that can be scanned and checked.

`Source.scan` opens the source, learns its schema and returns an `Extract`: a promise of
rows that reads nothing until asked, and then only what it was asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import polars as pl
from polars.io.plugins import register_io_source
from pydantic import BaseModel, ConfigDict

from transforms._registry import Registry

Kind = TypeVar("Kind", bound="type[Source]")


@dataclass(frozen=True)
class Pushdown:
    """What the plan asks of a source: which columns, which rows, how many.

    Attributes:
        columns: names in the order wanted; None is all of them.
        predicate: rows for which it is not true are of no use. A source may use it to read less, and
            must never leave out a row for which it is true.
        limit: rows wanted at most; None is no limit. Counted before `predicate`, as Polars counts it.
    """

    columns: tuple[str, ...] | None = None
    predicate: pl.Expr | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Extract:
    """Rows that can be read, and nothing read yet.

    Attributes:
        name: the source's name in the configuration, for messages.
        schema: columns and dtypes of the rows as read.
        delivers: the columns that the pipeline delivers; the others may be used and are dropped.
        read: yields the rows as frames of some megabytes, in the source's order; exact for columns
            and limit, at least the rows of the predicate.
        describe: says in one line what `read` would ask of the source (SQL, a path).
        pushed: the part of a predicate that the source itself applies, in words; None is none of it.
        warnings: what a person should know about the types of this source.
        failures: what went wrong while `frame` was read; Polars would show it as an error of its own.
    """

    name: str
    schema: pl.Schema
    read: Callable[[Pushdown], Iterator[pl.DataFrame]]
    describe: Callable[[Pushdown], str]
    pushed: Callable[[Pushdown], str | None] = field(default=lambda _pushdown: None)
    delivers: tuple[str, ...] | None = None
    warnings: tuple[str, ...] = ()
    failures: list[BaseException] = field(default_factory=list)

    @property
    def frame(self) -> pl.LazyFrame:
        """The rows as a lazy frame, with projection, filters and limits pushed to the source by Polars."""

        def scan(
            columns: list[str] | None, predicate: pl.Expr | None, limit: int | None, _batch_rows: int | None
        ) -> Iterator[pl.DataFrame]:
            needed = _with_predicate_columns(self.schema, columns, predicate)
            try:
                for batch in self.read(Pushdown(needed, predicate, limit)):
                    kept = batch if predicate is None else batch.filter(predicate)
                    yield kept if columns is None else kept.select(columns)
            except BaseException as error:
                self.failures.append(error)
                raise

        return register_io_source(scan, schema=self.schema, explain_name=self.name)


class Source(BaseModel, ABC):
    """A kind of source; its pydantic fields are its YAML keys, one file registers one kind."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: str

    @property
    def declared(self) -> tuple[str, ...] | None:
        """The columns that the configuration says it delivers; None where only the source itself knows."""
        return None

    @abstractmethod
    def scan(self, name: str) -> Extract:
        """Open the source and learn its schema; read no row.

        Raises:
            ExtractError: it cannot be reached, or what it names is not there.
            ConfigError: a reference in its options cannot be resolved.
        """

    @abstractmethod
    def check(self) -> None:
        """Reach the source and confirm that `scan` would work.

        Raises:
            ExtractError: it would not; the message says what is missing.
        """


sources: Registry[type[Source]] = Registry("source", package="flows.sources")


def source(kind: Kind) -> Kind:
    """Register a `Source` class under the name of its file."""
    sources.register(kind.__module__.rpartition(".")[2], kind)
    return kind


def _with_predicate_columns(
    schema: pl.Schema, columns: list[str] | None, predicate: pl.Expr | None
) -> tuple[str, ...] | None:
    if columns is None:
        return None
    asked = set(columns) | set(predicate.meta.root_names() if predicate is not None else ())
    return tuple(name for name in schema if name in asked)
