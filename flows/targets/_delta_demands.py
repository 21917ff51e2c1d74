"""What a Delta table that is there demands of who writes to it, and what of that can be kept.

The log says it in several places: features of the protocol, the configuration, and the columns.
Nothing else checks it: files are added to a table as they are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import polars as pl

from flows._sides import Side
from flows._storage import Store

if TYPE_CHECKING:
    from deltalake import DeltaTable

#: Features that we read and write exactly, some of them as long as the table does not make use of them.
_FEATURES = {"timestampNtz", "appendOnly", "invariants", "checkConstraints", "generatedColumns", "variantType"}
#: What a column may have of its own, and how a person calls it.
_PROMISES = {
    "delta.invariants": "an invariant",
    "delta.generationExpression": "a generated value",
    "delta.identity.start": "a number of its own",
}


def refuse_unkept(delta: DeltaTable, side: Side) -> None:
    """Confirm that whatever a table demands will be kept.

    Raises:
        LoadError: something is not; says what.
    """
    protocol, configuration = delta.protocol(), delta.metadata().configuration
    asked = {*(protocol.reader_features or ()), *(protocol.writer_features or ())}
    strange = sorted(asked - _FEATURES)
    if configuration.get("delta.columnMapping.mode", "none") != "none":
        strange.append("columnMapping")
    if strange:
        raise side.error(
            "type", f"the Delta table uses {strange[0]!r}, which Lockgate cannot keep. Write another table."
        )
    if configuration.get("delta.appendOnly") == "true":
        raise side.error("permission", "the Delta table takes no changes (delta.appendOnly).")
    for key, condition in sorted(configuration.items()):
        if key.startswith("delta.constraints."):
            raise side.error(
                "constraint",
                f"the Delta table has a constraint ({key.removeprefix('delta.constraints.')}: {condition}), which "
                "Lockgate does not check. State it in quality_rules and drop it from the table, or write another one.",
            )
    for field in delta.schema().fields:
        promised = next((words for key, words in _PROMISES.items() if key in field.metadata), None)
        if promised or _demanding(json.loads(field.to_json())["type"]):
            what = promised or "a nested value that must not be null"
            raise side.error(
                "type", f"column {field.name!r} of the Delta table has {what}, which Lockgate cannot keep."
            )


def required(delta: DeltaTable) -> tuple[str, ...]:
    """The columns that take no null."""
    return tuple(field.name for field in delta.schema().fields if not field.nullable)


def refuse_names(schema: pl.Schema, side: Side) -> None:
    """Confirm that names of columns, also of nested ones, are names for Delta Lake too.

    Raises:
        TargetTypeError: one is not; names it.
    """
    for names in (list(schema), *(names for dtype in schema.values() for names in _nested_names(dtype))):
        if "" in names:
            raise side.error("type", "a column has no name. Give it one with a 'map' step (rename: {...}).")
        same = Counter(name.lower() for name in names)
        twice = [name for name in names if same[name.lower()] > 1]
        if twice:
            raise side.error(
                "type",
                f"columns {twice[0]!r} and {twice[1]!r} have the same name for Delta Lake, which does not tell "
                "capitals from small letters. Rename one with a 'map' step (rename: {...}).",
            )


def refuse_place(store: Store) -> None:
    """Confirm that the library of Delta Lake would look where we do: it decodes paths like URLs.

    Raises:
        LoadError: it would look elsewhere.
    """
    if store.is_local and unquote(store.path) != store.path:
        raise store.side.error(
            "other",
            f"{store.path!r} has a '%' in it, and the library of Delta Lake would write to {unquote(store.path)!r}. "
            "Choose another path.",
        )


def _demanding(type_: Any) -> bool:
    """Whether something inside of a column takes no null; in Delta's own JSON."""
    if not isinstance(type_, dict):
        return False
    if type_["type"] == "struct":
        return any(not field["nullable"] or _demanding(field["type"]) for field in type_["fields"])
    inner = [type_[key] for key in ("elementType", "keyType", "valueType") if key in type_]
    closed = [key for key in ("containsNull", "valueContainsNull") if type_.get(key) is False]
    return bool(closed) or any(_demanding(one) for one in inner)


def _nested_names(dtype: pl.DataType) -> Iterator[list[str]]:
    if isinstance(dtype, pl.List | pl.Array):
        yield from _nested_names(dtype.inner)  # type: ignore[arg-type] # an instance, in the schema of a frame
    if isinstance(dtype, pl.Struct):
        yield [field.name for field in dtype.fields]
        for field in dtype.fields:
            yield from _nested_names(field.dtype)  # type: ignore[arg-type] # as above
