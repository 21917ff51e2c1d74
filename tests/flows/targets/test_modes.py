from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from flows.targets._modes import AddOrReplace, DeleteRange, Scd2, WriteMode, refuse_stray

MODES: TypeAdapter[str] = TypeAdapter(WriteMode)


@pytest.mark.parametrize(
    ("written", "mode"),
    [
        ("append", "append"),
        ("replace", "overwrite"),
        ("full-refresh", "overwrite"),
        ("FULL_REFRESH", "overwrite"),
        ("truncate", "overwrite"),
        ("merge", "upsert"),
        ("delete+insert", "delete_insert"),
        ("delete-insert", "delete_insert"),
        ("snapshot", "scd2"),
    ],
)
def test_a_mode_goes_by_the_names_of_other_tools(written: str, mode: str) -> None:
    assert MODES.validate_python(written) == mode


@pytest.mark.parametrize("written", ["incremental", "insert-only", "upserts", 3])
def test_a_word_of_more_than_one_meaning_is_no_mode(written: object) -> None:
    with pytest.raises(ValidationError):
        MODES.validate_python(written)


def test_a_target_that_cannot_find_rows_again_takes_two_modes() -> None:
    assert TypeAdapter(AddOrReplace).validate_python("truncate") == "overwrite"
    with pytest.raises(ValidationError):
        TypeAdapter(AddOrReplace).validate_python("merge")


def test_editors_know_the_aliases() -> None:
    assert {"replace", "merge", "snapshot", "delete_insert"} <= set(MODES.json_schema()["enum"])


def test_a_range_has_both_ends_or_none() -> None:
    spanned = DeleteRange.model_validate({"column": "day"})
    given = DeleteRange.model_validate({"column": "day", "from": date(2024, 1, 1), "to": "2024-02-01"})

    assert spanned.spans_load
    assert (given.from_, given.to, given.spans_load) == (date(2024, 1, 1), "2024-02-01", False)
    with pytest.raises(ValidationError, match="'from' and 'to' go together"):
        DeleteRange.model_validate({"column": "day", "from": 1})


def test_the_columns_of_a_history_are_three() -> None:
    assert Scd2().own_columns == ("valid_from", "valid_to", "is_current")
    with pytest.raises(ValidationError, match="need a column each"):
        Scd2(valid_from="at", valid_to="at")


RANGE = DeleteRange(column="day")


@pytest.mark.parametrize(
    ("mode", "keys", "said"),
    [
        ("append", {"delete_key": ["id"]}, "are for write_mode: delete_insert"),
        ("upsert", {"delete_range": RANGE}, "are for write_mode: delete_insert"),
        ("upsert", {"scd2": Scd2()}, "'scd2' is for write_mode: scd2"),
        ("delete_insert", {"delete_key": ["id"], "delete_range": RANGE}, "Remove one"),
        ("delete_insert", {}, "delete_insert needs to know which rows it replaces"),
        ("scd2", {}, "scd2 needs a key"),
    ],
)
def test_keys_that_mean_nothing_in_a_mode_are_mistakes(mode: str, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        refuse_stray(mode, (), **keys)


@pytest.mark.parametrize(
    ("mode", "primary_key", "keys"),
    [
        ("append", (), {}),
        ("delete_insert", ("id",), {}),
        ("delete_insert", (), {"delete_range": RANGE}),
        ("delete_insert", ("id",), {"delete_key": ["day"]}),
        ("scd2", ("id",), {"scd2": Scd2()}),
    ],
)
def test_keys_that_belong_to_a_mode_are_none(mode: str, primary_key: tuple[str, ...], keys: dict[str, Any]) -> None:
    refuse_stray(mode, primary_key, **keys)
