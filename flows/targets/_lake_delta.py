"""A Delta Lake table: the log of the table itself says which files it has, for every reader of Delta.

A commit is one new entry of that log, made only if nobody else made it first. It names the run, so
that the table itself can prove what was published.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import polars as pl

from flows._ledger import RunRecord
from flows._secrets import redact
from flows._storage import Store
from flows.targets._delta_demands import refuse_names, refuse_place, refuse_unkept, required
from flows.targets._journal import Proof
from flows.targets._lake import Change, LakeTable
from flows.targets._parts import Statistics
from flows.targets._staged import StagedFile

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable
    from deltalake.transaction import AddAction, RemoveAction

_RUN = "lockgate.run"
#: A server that does not answer is told soon; a run has retries of its own.
_PATIENCE = {"max_retries": "3", "retry_timeout": "30s", "connect_timeout": "10s"}
_LOOKED_AT = 1_000  # commits, newest first
_LONGEST = 64  # characters of a text in statistics
_REFUSED = (pl.Time, pl.Duration, pl.UInt64, pl.Int128, pl.Null, pl.Object, pl.UInt128)
_WIDER: dict[pl.DataType, pl.DataType] = {
    pl.UInt8(): pl.Int16(), pl.UInt16(): pl.Int32(), pl.UInt32(): pl.Int64(), pl.Categorical(): pl.String(),
}  # fmt: skip


class DeltaLakeTable(LakeTable):
    """A Delta Lake table, at the version that was newest when it was loaded."""

    knows_empty_partitions = False  # its protocol reads them as nulls

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._delta: DeltaTable | None = None

    @property
    def _uri(self) -> str:
        return self.store.path if self.store.is_local else f"{self.store.scheme}://{self.store.path}"

    @property
    def _options(self) -> dict[str, str]:
        return {} if self.store.is_local else {**self.store.object_store(), **_PATIENCE}

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn what the library raises into our errors, once."""
        try:
            from deltalake import exceptions  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise self.side.error(
                "other", "format: delta needs a package. Install it: pip install 'lockgate[lake]'."
            ) from error
        try:
            with self.store.mapped():
                yield
        except exceptions.CommitFailedError as error:
            raise self.side.error(
                "busy", "another run committed to the table while this one was under way. Run again."
            ) from error
        except exceptions.DeltaError as error:
            text = " ".join(redact(str(error)).split())
            what, advice = _diagnosed(text)
            raise self.side.error(what, f"{text.rstrip('.')}. {advice}") from error

    # --- reading ---

    def load(self) -> None:
        """Learn the newest version, if there is one."""
        with self._mapped():
            from deltalake import DeltaTable  # noqa: PLC0415 - as above

            refuse_place(self.store)
            options = self._options
            if not DeltaTable.is_deltatable(self._uri, storage_options=options):
                self._delta, self.version, self.schema, self.files, self.partition_by = None, -1, None, (), ()
                return
            self._delta = DeltaTable(self._uri, storage_options=options)
            refuse_unkept(self._delta, self.side)
            self.required = required(self._delta)
            self.version = self._delta.version()
            self.schema = _polars_schema(self._delta)
            self.partition_by = tuple(self._delta.metadata().partition_columns)
            self.files = tuple(self._listed(self._delta))

    def _listed(self, delta: DeltaTable) -> Iterator[StagedFile]:
        actions = pl.DataFrame(delta.get_add_actions(flatten=True))
        for action in actions.iter_rows(named=True):
            path = unquote(action["path"])
            partition = {name: action[f"partition.{name}"] for name in self.partition_by}
            rows = action.get("num_records")
            yield StagedFile(path, self._counted(path) if rows is None else rows, action["size_bytes"], partition)

    def _counted(self, path: str) -> int:
        """Some writers do not say how many rows a file has."""
        options = None if self.store.is_local else dict(self.store.object_store())
        scan = pl.scan_parquet(f"{self._uri}/{path}", glob=False, hive_partitioning=False, storage_options=options)
        return int(scan.select(pl.len()).collect().item())

    def carried(self, schema: pl.Schema) -> pl.Schema:
        """Delta's own types: signed integers, microseconds, texts for categories."""
        refuse_names(pl.Schema({**(self.schema or {}), **schema}), self.side)
        found = {}
        for name, dtype in schema.items():
            carried = _carried(dtype)
            if carried is None:
                raise self.side.error(
                    "type",
                    f"column {name!r} is {dtype}, and Delta Lake has no type for that. Cast it with a 'map' step, or "
                    "drop it.",
                )
            found[name] = carried
        return pl.Schema(found)

    def folder(self, run_id: str) -> str:  # noqa: ARG002 - files of all runs lie together, as in every Delta table
        """The table's own folder."""
        return ""

    # --- publishing ---

    def proof(self, record: RunRecord) -> Proof:
        """The run, and the number that its pipeline's transaction has in the table."""
        return {"run": record.run_id, "application": _application(record), "number": _number(record)}

    def has(self, proof: Proof) -> bool:
        """Whether the table's newest transaction of the pipeline is this one, or a commit that is still known is."""
        with self._mapped():
            from deltalake import DeltaTable  # noqa: PLC0415 - as above

            options = self._options
            if not DeltaTable.is_deltatable(self._uri, storage_options=options):
                return False
            delta = DeltaTable(self._uri, storage_options=options)
            if delta.transaction_version(proof["application"]) == proof["number"]:
                return True
            return any(entry.get(_RUN) == proof["run"] for entry in delta.history(_LOOKED_AT))

    def committed(self, run_id: str) -> Collection[str] | None:
        """What the entry of the log says, if it is one of the newest."""
        with self._mapped():
            history = self._delta.history(_LOOKED_AT) if self._delta is not None else []
            version = next((entry["version"] for entry in history if entry.get(_RUN) == run_id), None)
            if version is None:
                return None
            entry = self.store.fs.cat_file(f"{self.store.path}/_delta_log/{version:020}.json")
        actions = [json.loads(line) for line in entry.splitlines()]
        return {unquote(action["add"]["path"]) for action in actions if "add" in action}

    def commit(self, change: Change, record: RunRecord, partition_by: Sequence[str]) -> None:
        """Write one entry of the log: files that go, files that come, and the run's name.

        Columns that the load adds are an entry of their own, just before: without rows, nobody minds them.
        """
        with self._mapped():
            from deltalake.transaction import create_table_with_add_actions  # noqa: PLC0415 - as above

            properties = _properties(record)
            added = [_add(file) for file in change.added]
            if self._delta is None:
                create_table_with_add_actions(
                    self._uri,
                    _delta_schema(change.schema),
                    added,
                    mode="error",
                    partition_by=list(partition_by),
                    storage_options=self._options,
                    commit_properties=properties,
                )
                return
            self._add_columns(self._delta, change.schema)
            self._delta.create_write_transaction(
                [*added, *(_remove(file) for file in change.removed)],
                mode="append",
                schema=_delta_schema(change.schema),
                partition_by=list(partition_by),
                commit_properties=properties,
            )

    def _add_columns(self, delta: DeltaTable, schema: pl.Schema) -> None:
        assert self.schema is not None  # noqa: S101 - the table is there
        new = {name: dtype for name, dtype in schema.items() if name not in self.schema}
        if new:
            delta.alter.add_columns(_delta_schema(pl.Schema(new)).fields)

    def tidy(self) -> None:
        """Nothing: removed files are kept for readers of older versions, until somebody vacuums the table."""


def _properties(record: RunRecord) -> CommitProperties:
    from deltalake import CommitProperties, Transaction  # noqa: PLC0415 - as above

    return CommitProperties(
        custom_metadata={_RUN: record.run_id, "lockgate.pipeline": record.pipeline},
        max_commit_retries=0,  # the change was made for one version, and for no other
        app_transactions=[Transaction(_application(record), _number(record))],
    )


def _application(record: RunRecord) -> str:
    return f"lockgate:{record.pipeline}"


def _number(record: RunRecord) -> int:
    """Microseconds at the start of the run: later runs have greater ones."""
    return int(record.started_at.timestamp() * 1_000_000)


def _add(file: StagedFile) -> AddAction:
    from deltalake.transaction import AddAction  # noqa: PLC0415 - as above

    values = {name: _partition_text(value) for name, value in file.partition.items()}
    return AddAction(file.path, file.bytes, values, int(time.time() * 1000), True, _statistics(file))


def _remove(file: StagedFile) -> RemoveAction:
    from deltalake.transaction import RemoveAction  # noqa: PLC0415 - as above

    values = {name: _partition_text(value) for name, value in file.partition.items()}
    return RemoveAction(file.path, True, int(time.time() * 1000), file.bytes, values)


def _partition_text(value: Any) -> str | None:
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _statistics(file: StagedFile) -> str:
    """What readers skip files by; a column whose ends cannot be said exactly is left out."""
    ranged = {name: ends for name, known in file.statistics.items() if (ends := _ends(known)) is not None}
    return json.dumps(
        {
            "numRecords": file.rows,
            "minValues": {name: low for name, (low, _high) in ranged.items()},
            "maxValues": {name: high for name, (_low, high) in ranged.items()},
            "nullCount": {name: known.nulls for name, known in file.statistics.items() if known.nulls is not None},
        }
    )


def _ends(known: Statistics) -> tuple[Any, Any] | None:
    low, high = known.minimum, known.maximum
    if isinstance(low, bool) or low is None or high is None:
        return None
    if isinstance(low, int) or (isinstance(low, str) and max(len(low), len(high)) <= _LONGEST):
        return low, high
    if isinstance(low, datetime):
        return _moment(low), _moment(high)
    return (low.isoformat(), high.isoformat()) if isinstance(low, date) else None


def _moment(value: datetime) -> str:
    text = (value.astimezone(UTC) if value.tzinfo else value).replace(tzinfo=None).isoformat(timespec="microseconds")
    return f"{text}Z" if value.tzinfo else text


def _carried(dtype: pl.DataType) -> pl.DataType | None:
    """The dtype that Delta has for one of Polars; None where it has none."""
    if isinstance(dtype, pl.List | pl.Array):
        inner = _carried(dtype.inner)  # type: ignore[arg-type] # an instance, in the schema of a frame
        return None if inner is None else pl.List(inner)
    if isinstance(dtype, pl.Struct):
        fields = {field.name: _carried(field.dtype) for field in dtype.fields}  # type: ignore[arg-type] # as above
        return None if None in fields.values() else pl.Struct(fields)  # type: ignore[arg-type] # none is None
    if isinstance(dtype, _REFUSED):
        return None
    if isinstance(dtype, pl.Datetime):
        return pl.Datetime("us", "UTC" if dtype.time_zone else None)
    if isinstance(dtype, pl.Enum | pl.Categorical):
        return pl.String()
    return _WIDER.get(dtype, dtype)


def _delta_schema(schema: pl.Schema) -> Any:
    from deltalake import Schema  # noqa: PLC0415 - as above

    return Schema.from_arrow(pl.DataFrame(schema=schema).to_arrow().schema)


def _polars_schema(delta: DeltaTable) -> pl.Schema:
    import pyarrow as pa  # noqa: PLC0415 - only runs need it

    empty = pa.schema(delta.schema().to_arrow()).empty_table()
    return pl.DataFrame(empty).schema


#: What an error of the library means by the words in it, and what to do next.
_SIGNS: dict[tuple[str, ...], tuple[str, str]] = {
    ("already exists",): ("busy", "Another run made the table while this one was under way. Run again."),
    ("invalidaccesskeyid", "signaturedoesnotmatch", "expiredtoken", "credential", "unauthorized"): (
        "authentication",
        "Check the keys in 'storage_options', or in the environment.",
    ),
    ("permission denied", "forbidden", "accessdenied"): ("permission", "Grant it, or use another user."),
    ("connect", "dns", "timed out", "timeout"): (
        "unreachable",
        "Check the address, and that the server is up; then run again.",
    ),
    ("nosuchbucket", "not found"): ("missing", "Check the name."),
    ("no space",): ("resources", "Free some space, then run again."),
}


def _diagnosed(text: str) -> tuple[str, str]:
    lowered = text.lower()
    found = (meaning for signs, meaning in _SIGNS.items() if any(sign in lowered for sign in signs))
    return next(found, ("other", "Nothing was published."))
