from __future__ import annotations

import polars as pl
import pytest
from pydantic import TypeAdapter, ValidationError

from flows.targets._schema_contract import Contracted, Drift, SchemaContract, drift, wider

CONTRACTS: TypeAdapter[SchemaContract] = TypeAdapter(Contracted)
PRESENT: dict[str, pl.DataType] = {"id": pl.Int32(), "name": pl.String()}
LOAD = pl.Schema({"id": pl.Int64(), "new": pl.Date(), "void": pl.Null()})


def test_one_word_stands_for_both() -> None:
    assert CONTRACTS.validate_python("evolve") == SchemaContract(columns="evolve", data_type="evolve")
    assert CONTRACTS.validate_python({"columns": "discard"}) == SchemaContract(columns="discard", data_type="freeze")
    with pytest.raises(ValidationError):
        CONTRACTS.validate_python("discard")


def test_nothing_changes_unless_somebody_says_so() -> None:
    assert drift(SchemaContract(), LOAD, PRESENT, wider) == Drift(unknown=("new", "void"))


def test_a_target_that_evolves_gets_columns_and_room() -> None:
    found = drift(CONTRACTS.validate_python("evolve"), LOAD, PRESENT, wider)

    assert (found.added, found.widened, found.unknown) == ({"new": pl.Date()}, {"id": pl.Int64()}, ())
    assert found.discarded == ("void",)
    assert found.warnings == (
        "column 'void' is not in the target, and has no type yet: all its values are null. It was left out.",
    )


def test_columns_that_are_discarded_are_named() -> None:
    found = drift(SchemaContract(columns="discard"), LOAD, PRESENT, wider)

    assert (found.added, found.widened, found.discarded) == ({}, {}, ("new", "void"))
    assert found.warnings[0] == (
        "column 'new' is not in the target and was discarded (schema_contract.columns: discard)."
    )


@pytest.mark.parametrize(
    ("present", "delivered", "becomes"),
    [
        (pl.Int32(), pl.Int64(), pl.Int64()),
        (pl.Int64(), pl.Int32(), None),
        (pl.Int16(), pl.UInt16(), pl.Int32()),
        (pl.Int32(), pl.UInt16(), None),
        (pl.Int64(), pl.UInt64(), None),
        (pl.Float32(), pl.Float64(), pl.Float64()),
        (pl.Float64(), pl.Float32(), None),
        (pl.Float32(), pl.Int32(), pl.Float64()),
        (pl.Float32(), pl.Int16(), None),
        (pl.Float64(), pl.Int64(), None),
        (pl.Int32(), pl.Float64(), pl.Float64()),
        (pl.Int64(), pl.Float64(), None),
        (pl.Decimal(10, 2), pl.Decimal(12, 2), pl.Decimal(12, 2)),
        (pl.Decimal(10, 2), pl.Decimal(10, 4), pl.Decimal(12, 4)),
        (pl.Decimal(10, 2), pl.Decimal(8, 2), None),
        (pl.Decimal(38, 2), pl.Decimal(10, 4), None),
        (pl.Decimal(10, 2), pl.Int16(), None),
        (pl.Decimal(4, 2), pl.Int16(), pl.Decimal(7, 2)),
        (pl.Int64(), pl.Decimal(10, 2), pl.Decimal(21, 2)),
        (pl.Decimal(10, 2), pl.Float64(), None),
        (pl.Date(), pl.Datetime("us"), None),
        (pl.String(), pl.Int64(), None),
        (pl.Int64(), pl.String(), None),
    ],
)
def test_a_type_grows_only_where_nothing_is_lost(
    present: pl.DataType, delivered: pl.DataType, becomes: pl.DataType | None
) -> None:
    assert wider(present, delivered) == becomes
