"""The chamber of a PostgreSQL target: a staging table in the same database.

It is filled by binary COPY in one transaction while the source is still being read, audited in
SQL, and published by `_publish` together with the ledger and the quarantine. A session lock on
the target keeps other runs out, and dies with its connection; staging tables that a killed run
left behind are dropped by the next one that holds the lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from typing import Any

import polars as pl
import psycopg

from flows._errors import LoadError, TargetConnectionLostError
from flows._ledger import RunRecord
from flows._postgres import Foreign, execute, literal, quote, uri
from flows._quarantine import Quarantine
from flows.targets import _grants, _guards, _publish, _refusals, _session, _system, _system_quarantine, _ways
from flows.targets._base import Chamber, Published, Taken, Violation
from flows.targets._booking import recall, settle
from flows.targets._catalog import Index
from flows.targets._layout import Layout
from flows.targets._publish import Staged
from flows.targets._table import PostgresTable
from flows.targets._writers import CopyWriter, IngestWriter, Writer
from transforms._words import counted
from validations._contract import RowCheck, SetRule


class PostgresChamber(Chamber):
    """A staging table, the connection that fills it, and the way it will be published."""

    def __init__(self, table: PostgresTable, record: RunRecord, schema: pl.Schema) -> None:
        self.table = table
        self.options = table.options
        self.side = table.side
        self.schema = schema
        self._run_id = record.run_id
        self._purpose = f"{record.pipeline} {record.run_id}"
        self._connection = _session.opened(table, self._purpose)
        try:
            with self.side.mapped():
                self._prepare()
        except BaseException:
            _session.closed(self._connection)
            raise

    # --- staging ---

    def _prepare(self) -> None:
        _system.prepare(self._connection)
        table = self.table.describe(self._connection)
        _session.drop_leftovers(self._connection, table)
        self.table.require_schema(self._connection, table)
        self.layout = self.table.layout(self._connection, self.schema, table)
        self.warnings = self.layout.evolution.warnings
        self.row_checks = _row_checks(self.layout) if self.options.schema_contract.data_type == "quarantine" else ()
        self.staged = Staged(_session.staging_name(table, self._run_id), 0)
        self.side = replace(self.side, stands_for=(self.staged.name, table.name))
        self._taken_by: int | None = None
        self._unique: set[frozenset[str]] = set()
        self._transaction = ExitStack()
        self._transaction.enter_context(self._connection.transaction())
        for ddl in self.layout.staging(self.staged.quoted):
            execute(self._connection, ddl)
        self._writer: Writer | None = self._open_writer()

    def _open_writer(self) -> Writer:
        if self.options.writer == "adbc":
            self._transaction.close()
            return IngestWriter(uri(self.options.connection_string), _system.SCHEMA, self.staged.name)
        freeze = self.layout.swaps
        return CopyWriter(self._connection, self.staged.quoted, self.layout.wires, freeze=freeze)

    def stage(self, rows: pl.DataFrame) -> None:
        """Cast a batch to the wire types and send it."""
        assert self._writer is not None  # noqa: S101 - sealed chambers take nothing
        cast = self.layout.cast(rows, self.side)
        with self.side.mapped():
            self._writer.write(cast)

    def seal(self) -> int:
        """End the COPY, build the indexes that the table will have, and commit."""
        assert self._writer is not None  # noqa: S101 - sealed once
        with self.side.mapped():
            self.staged = Staged(self.staged.name, self._writer.finish())
            self._writer = None
            self._failed_indexes = self._build(self.layout.indexes)
            self._transaction.close()
            if self.layout.swaps or self.options.write_mode not in {"append", "overwrite"}:
                # For readers of a table that is swapped in, and for the joins of the publishing transaction.
                execute(self._connection, f"ANALYZE {self.staged.quoted}")
        return self.staged.rows

    def _build(self, indexes: Sequence[Index]) -> list[Index]:
        """Build indexes on the chamber; returns those that its rows do not allow."""
        failed = []
        for index in indexes:
            name = self.staged.index(self.layout.indexes.index(index))
            try:
                with self._connection.transaction():
                    execute(self._connection, index.on(self.staged.quoted, name))
                    if index.constraint:
                        execute(
                            self._connection,
                            f"ALTER TABLE {self.staged.quoted} ADD CONSTRAINT {quote(name)} "
                            f"{index.constraint} USING INDEX {quote(name)}",
                        )
            except psycopg.errors.UniqueViolation:
                failed.append(index)
            else:
                self._unique |= {frozenset(index.columns)} if index.unique else set()
        return failed

    # --- whole-set rules ---

    def audit(self, rules: Sequence[SetRule]) -> list[Violation]:
        """Hold `rules` against the chamber, in SQL; a unique index that was built is its own proof."""
        with self.side.mapped():
            return [violation for rule in rules if (violation := self._audited(rule)) is not None]

    def _audited(self, rule: SetRule) -> Violation | None:
        for name in rule.fields:
            if name not in self.layout.wires:
                raise self.side.error(
                    "missing",
                    f"rule {rule.label!r} is about column {name!r}, which is not loaded (schema_contract). Add the "
                    "column to the target, or remove the rule.",
                )
        if not rule.blames_rows:
            row = execute(self._connection, rule.verdict_sql(self.staged.quoted)).fetchone()
            good, observed = row or (False, "nothing")
            return None if good else Violation(rule, 0, observed)
        key = frozenset(rule.fields)
        if rule.is_unique and key in self._unique:
            return None
        blamed = rule.violations_sql(self.staged.quoted, "ctid")
        row = execute(self._connection, f"SELECT count(*) FROM ({blamed}) AS v").fetchone()
        rows = row[0] if row else 0
        if rule.is_unique and not rows:
            self._unique.add(key)
        return Violation(rule, rows, counted(rows, "row")) if rows else None

    def take(self, violation: Violation) -> Taken:
        """Delete the blamed rows from the chamber, and hand them over."""
        rule = violation.rule
        fields = ", ".join(f"t.{quote(name)}" for name in rule.fields)
        blamed = rule.violations_sql(self.staged.quoted, "ctid")
        with self.side.mapped(), self._connection.transaction():
            rows = execute(
                self._connection,
                f"DELETE FROM {self.staged.quoted} AS t WHERE t.ctid IN ({blamed}) "
                f"RETURNING to_jsonb(t)::text, {fields}",
            ).fetchall()
            self._failed_indexes = self._build(self._failed_indexes)
            self._taken_by = _publish.transaction_id(self._connection)
        self.staged = Staged(self.staged.name, self.staged.rows - len(rows))
        keys = pl.DataFrame(
            [row[1:] for row in rows],
            schema={name: self.schema[name] for name in rule.fields},
            orient="row",
            strict=False,
        )
        return Taken(keys, pl.Series([row[0] for row in rows], dtype=pl.String))

    # --- publishing ---

    def publish(self, record: RunRecord, quarantine: Quarantine) -> Published:
        """Publish in one transaction; after a lost connection, on a new one."""
        if self._connection.closed or self._connection.broken:
            self._connection = _session.opened(self.table, self._purpose)
        try:
            return self._publish(record, quarantine)
        except TargetConnectionLostError as error:
            earlier = self._look_again(record.run_id, error)
            if earlier is None:
                raise
            return recall(record, earlier)

    def _publish(self, record: RunRecord, quarantine: Quarantine) -> Published:
        with self.side.mapped(), self._connection.transaction():
            earlier = _system.find(self._connection, record.run_id)
            if earlier is not None:
                return recall(record, earlier)
            execute(self._connection, f"SET LOCAL lock_timeout = '{self.options.lock_timeout_seconds}s'")
            self._guard(record)
            _system_quarantine.conclude(self._connection, record, quarantine, self.side)
            published = self._published(record)
            settle(record, published)
            _system.write(self._connection, record)
            _system.write_state(self._connection, record)
            execute(self._connection, f"DROP TABLE IF EXISTS {self.staged.quoted}")
        return published

    def _look_again(self, run_id: str, error: TargetConnectionLostError) -> dict[str, Any] | None:
        """The connection may have broken after the server had published: only the ledger knows."""
        try:
            with closing(self.table.connect(self._purpose)) as connection, self.side.mapped():
                return _system.find(connection, run_id)
        except LoadError:
            raise self.side.error(
                "lost",
                "the connection broke while publishing, and the server does not answer: whether the load was published "
                f"is not known. The ledger will say: SELECT * FROM lockgate.loads WHERE run_id = {run_id!r}.",
            ) from error

    def _published(self, record: RunRecord) -> Published:
        versions = self.options.versions
        if self.layout.creates and versions is None:
            published = _publish.create(self._connection, self.layout, self.staged)
        elif self.options.write_mode == "overwrite" and (swapped := self._swapped()) is not None:
            published = swapped
        else:
            staged, side = self.staged, self.side
            return _ways.in_place(self._connection, self.options, self.layout, staged, record=record, side=side)
        self._dress()
        return published

    def _swapped(self) -> Published | None:
        if not self.layout.swaps:
            return None
        if self._taken_by is not None and _publish.older_snapshots(self._connection, self._taken_by):
            return None  # for such a reader the rows that were taken out would still be there

        def still_fits() -> bool:
            return self.table.describe(self._connection) == self.layout.table

        return _publish.swap(self._connection, self.layout, self.staged, still_fits)

    def _dress(self) -> None:
        """Give the new table the old one's grants and comment, or those that a new table gets there."""
        table = self.layout.table
        for statement in _grants.replayed(self._connection, table):
            execute(self._connection, statement)
        if table.comment is not None:
            execute(self._connection, f"COMMENT ON TABLE {table.quoted} IS {literal(table.comment)}")

    def _guard(self, record: RunRecord) -> None:
        """Refuse what must not be published."""
        self._confirm_unchanged()
        if self._failed_indexes:
            raise _refusals.shared_key(self._failed_indexes[0].columns, self.side)
        if not self.layout.swaps:
            _guards.refuse_lost_rows(self._connection, self.staged, self.side)
            _guards.refuse_losses(self._connection, self.staged, self.layout, self.side)
        proved = frozenset(self.layout.key) in self._unique and not self.layout.keys_are_parsed
        _ways.refuse(
            self._connection, self.options, self.layout, self.staged, self.side, record=record, key_is_unique=proved
        )

    def _confirm_unchanged(self) -> None:
        table = self.table.describe(self._connection)
        if (table.oid, table.columns) != (self.layout.table.oid, self.layout.table.columns):
            raise self.side.error("busy", "the table was changed while the run was under way. Run again.")

    def discard(self) -> None:
        """Roll back, drop the staging table, and let go of the lock with the connection."""
        with suppress(*Foreign):
            if self._writer is not None:
                self._writer.abandon()
                self._writer = None
            if not (self._connection.closed or self._connection.broken):
                self._connection.rollback()
                execute(self._connection, f"DROP TABLE IF EXISTS {self.staged.quoted}")
        _session.closed(self._connection)


def _row_checks(layout: Layout) -> tuple[RowCheck, ...]:
    """That every value fits its column, as checks of rows."""
    return tuple(
        RowCheck(
            f"data_type: {column.name} does not fit {column.pg.text}",
            "quarantine",
            column.name,
            column.writing.survives(pl.col(column.name)),
        )
        for column in layout.columns
        if column.writing.survives is not None
    )
