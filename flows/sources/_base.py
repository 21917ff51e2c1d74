"""What a source is: a frozen set of options that can be scanned and checked.

`Source.scan` opens the source, learns its schema and returns an `Extract`: a promise of
rows that reads nothing until asked, and then only what it was asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from polars.io.plugins import register_io_source
from pydantic import BaseModel, ConfigDict

from flows._errors import ConfigError, ExtractError
from transforms import _errors
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
class Malformed:
    """Records that could not be read as rows; they are counted as read, and go to quarantine.

    Attributes:
        values: each record as a JSON object text: where it stood, and what stood there.
        reasons: for each, one phrase: ``malformed: 3 fields, 4 wanted``.
    """

    values: pl.Series
    reasons: pl.Series

    @property
    def height(self) -> int:
        """The number of records."""
        return self.values.len()


Batch = pl.DataFrame | Malformed


def _alone(name: str) -> Extract:
    raise ConfigError(
        f"a source reads {name!r}, and there is no other source here. Run it in a pipeline with 'sources'."
    )


@dataclass(frozen=True)
class Cursor:
    """The column that a run's window is of, for a source that can say more about it.

    Attributes:
        column: its name; whether there is such a column is asked elsewhere.
        looks_back: whether rows that come late are looked for again, so that a `Bound` need not be certain.
        parameters: the window's bounds, by the query parameters that an API takes them in.
    """

    column: str
    looks_back: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bound:
    """Where a window must end, so that rows that are not visible yet are not skipped.

    Attributes:
        value: of the cursor; None is before all values.
        is_closed: whether rows with this value belong to the window.
        is_settled: whether no row of the window can appear later.
    """

    value: Any
    is_closed: bool
    is_settled: bool


@dataclass(frozen=True)
class Context:
    """What a run tells a source that is about to be scanned.

    Attributes:
        folder: the source's own place in the run's workspace, for what cannot be read twice. It is the same
            for every attempt of a run; it need not exist yet. None outside a run: make a temporary one.
        state: gives what `Extract.state` handed over when a run of this pipeline was last published to this
            target; None when none was.
        sample: whether a look at some rows is all that is wanted (``plan``, ``preview``, ``check``), so that
            landing everything first would be a waste.
        run_id: of the run, for what is kept beyond it; empty outside a run.
        others: opens another source of the pipeline, once a run; one that `Source.needs` names.
        landed: is told of every file below `folder` from which another run could go on, once it is whole.
        cursor: what the window of an incremental load is of; None where all rows are read.
    """

    folder: Path | None = None
    state: Callable[[], Any] = lambda: None
    sample: bool = False
    run_id: str = ""
    others: Callable[[str], Extract] = _alone
    landed: Callable[[Path], None] = lambda _file: None
    cursor: Cursor | None = None


@dataclass(frozen=True)
class Extract:
    """Rows that can be read, and nothing read yet.

    Attributes:
        name: the source's name in the configuration, for messages.
        schema: columns and dtypes of the rows as read.
        delivers: the columns that the pipeline delivers; the others may be used and are dropped.
        read: yields the rows as frames of some megabytes, in the source's order; exact for columns
            and limit, at least the rows of the predicate. Among them, where they stood: `Malformed`.
        describe: says in one line what `read` would ask of the source (SQL, a path).
        pushed: the part of a predicate that the source itself applies, in words; None is none of it.
        warnings: what a person should know about the types of this source.
        state: called when every row was read: a JSON value that is committed together with the rows, and
            that the next run finds in its `Context`. None keeps nothing.
        bound: where a window of `Context.cursor` must end; None where the source cannot tell.
        follows: what was remembered when the window of these rows was fixed.
        left_out: rows that the last `read` left out and that count as read, by what the ledger calls them.
        told: what a person should know about the last `read`.
        failures: what went wrong while `frame` was read; Polars would show it as an error of its own.
        replayed: of quarantined rows, called when every row was read: those to be marked, as numbers by the run that
            kept them; and in words what was left.
    """

    name: str
    schema: pl.Schema
    read: Callable[[Pushdown], Iterator[Batch]]
    describe: Callable[[Pushdown], str]
    pushed: Callable[[Pushdown], str | None] = field(default=lambda _pushdown: None)
    delivers: tuple[str, ...] | None = None
    warnings: tuple[str, ...] = ()
    state: Callable[[], Any] | None = None
    bound: Bound | None = None
    follows: Any = None
    left_out: Callable[[], Mapping[str, int]] = dict
    told: Callable[[], tuple[str, ...]] = tuple
    failures: list[BaseException] = field(default_factory=list)
    replayed: Callable[[], tuple[dict[str, list[int]], list[str]]] | None = None

    @property
    def frame(self) -> pl.LazyFrame:
        """The rows as a lazy frame, with projection, filters and limits pushed to the source by Polars."""

        def scan(
            columns: list[str] | None, predicate: pl.Expr | None, limit: int | None, _batch_rows: int | None
        ) -> Iterator[pl.DataFrame]:
            needed = _with_predicate_columns(self.schema, columns, predicate)
            try:
                for batch in self.read(Pushdown(needed, predicate, limit)):
                    if isinstance(batch, Malformed):
                        raise _unreadable(self.name, batch)  # noqa: TRY301 - it is kept with the others
                    kept = batch if predicate is None else batch.filter(predicate)
                    yield kept if columns is None else kept.select(columns)
            except BaseException as error:
                self.failures.append(error)
                raise

        return register_io_source(scan, schema=self.schema, explain_name=self.name)


OUTSIDE = Context()


class Source(BaseModel, ABC):
    """A kind of source; its pydantic fields are its YAML keys, one file registers one kind."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: str

    @property
    def declared(self) -> tuple[str, ...] | None:
        """The columns that the configuration says it delivers; None where only the source itself knows."""
        return None

    @property
    def remembers(self) -> bool:
        """Whether it remembers by itself what it has read."""
        return False

    @property
    def needs(self) -> Mapping[_errors.Path, str]:
        """The names of other sources of the pipeline that it reads, by the place of the key that names them."""
        return {}

    @abstractmethod
    def scan(self, name: str, context: Context = OUTSIDE) -> Extract:
        """Open the source and learn its schema; read no row that can be read again.

        Args:
            name: the source's name in the configuration, for messages.
            context: what the run has for it.

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


def _unreadable(name: str, malformed: Malformed) -> ExtractError:
    return ExtractError(
        f"source {name!r}: a record cannot be read as a row ({malformed.reasons[0]}): {malformed.values[0]}. "
        "Only rows of the first source can go to quarantine: mend the record, or read it in a pipeline of its own.",
        source=name,
    )


def _with_predicate_columns(
    schema: pl.Schema, columns: list[str] | None, predicate: pl.Expr | None
) -> tuple[str, ...] | None:
    if columns is None:
        return None
    asked = set(columns) | set(predicate.meta.root_names() if predicate is not None else ())
    return tuple(name for name in schema if name in asked)
