"""What every table of a lake can do, whatever keeps its list of files: Delta Lake's log, or our manifests.

A table is a set of Parquet files, and a commit is one step that takes files out of that set and puts
others in. Files are staged where they will stay; before the commit no reader of the table knows them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from flows._ledger import RunRecord
from flows._sides import Side
from flows._storage import Store
from flows.targets._journal import Journal, Proof
from flows.targets._staged import StagedFile


@dataclass(frozen=True)
class Change:
    """What a commit does to the set of files.

    Attributes:
        added: files that are there already, and become part of the table.
        removed: files of the table that are no part of it any more; they are not deleted at once, for readers.
        schema: columns and dtypes of the table after the commit.
    """

    added: tuple[StagedFile, ...]
    removed: tuple[StagedFile, ...]
    schema: pl.Schema


class LakeTable(ABC):
    """A table at the version that was newest when `load` was last called.

    Attributes:
        store: the table's folder, on a disk of this machine or on S3.
        journal: its system files.
        version: its number; -1 while there is no table.
        schema: its columns, partition columns included; None while there is no table.
        partition_by: its partition columns, in the folders' order.
        files: its files; paths are below the store's.
        required: its columns that take no null.
    """

    #: Whether a partition column can hold an empty text, so that it is not taken for a null.
    knows_empty_partitions: ClassVar[bool] = True

    version: int = -1
    schema: pl.Schema | None = None
    partition_by: tuple[str, ...] = ()
    files: tuple[StagedFile, ...] = ()
    required: tuple[str, ...] = ()

    def __init__(self, store: Store) -> None:
        self.store = store
        self.journal = Journal(store, "table", lambda proof: not proof or self.has(proof))

    @property
    def side(self) -> Side:
        """The end that its errors belong to."""
        return self.store.side

    @property
    def exists(self) -> bool:
        """Whether there is a table."""
        return self.schema is not None

    @abstractmethod
    def load(self) -> None:
        """Learn the newest version.

        Raises:
            LoadError: it cannot be read; the message says why.
        """

    @abstractmethod
    def carried(self, schema: pl.Schema) -> pl.Schema:
        """The dtypes in which columns of `schema` are written.

        Raises:
            TargetTypeError: a column has a dtype that files of this kind cannot carry; names it.
        """

    @abstractmethod
    def folder(self, run_id: str) -> str:
        """Where a run stages its files, below the store's path; empty for the table's own folder."""

    @abstractmethod
    def proof(self, record: RunRecord) -> Proof:
        """What tells afterwards whether the commit of this run happened."""

    @abstractmethod
    def has(self, proof: Proof) -> bool:
        """Whether it did."""

    def committed(self, run_id: str) -> Collection[str] | None:  # noqa: ARG002 - for those that say so
        """Paths of the files that a published run added; None where that is not known, or `tidy` removes the others."""
        return None

    @abstractmethod
    def commit(self, change: Change, record: RunRecord, partition_by: Sequence[str]) -> None:
        """Make `change` the newest version, in one step; for all readers or, if it fails, for none.

        Raises:
            TargetBusyError: another run committed since `load`, and the change was made for the version before.
            LoadError: nothing was committed.
        """

    @abstractmethod
    def tidy(self) -> None:
        """After a commit: remove what no reader can need any more; a failure is left to the next run."""
