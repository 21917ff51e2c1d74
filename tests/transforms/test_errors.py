from __future__ import annotations

import pytest

from transforms._errors import LockgateError, ParameterError, Path, UnknownColumnError, dotted
from transforms._words import counted, did_you_mean


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ((), ""),
        (("a",), "a"),
        (("a", 0, "b", 1, 2, "c"), "a[0].b[1][2].c"),
    ],
)
def test_paths_are_written_with_dots(path: Path, wanted: str) -> None:
    assert dotted(path) == wanted


def test_each_caller_puts_its_part_in_front() -> None:
    error = ParameterError("wrong.", path=("value",))
    assert error.under("condition").under("transformations", 0) is error
    assert error.path == ("transformations", 0, "condition", "value")
    assert str(error) == "transformations[0].condition.value: wrong."


def test_without_a_path_an_error_is_its_message() -> None:
    assert str(LockgateError("wrong.")) == "wrong."


def test_an_unknown_column_keeps_its_facts() -> None:
    error = UnknownColumnError("amout", ["paid_at", "amount"])
    assert (error.column, error.present) == ("amout", ["amount", "paid_at"])
    assert str(error) == "no column 'amout' at this step. Did you mean 'amount'? Present: amount, paid_at."


@pytest.mark.parametrize(
    ("name", "known", "wanted"),
    [
        ("equals", ["eq", "gt"], " Did you mean 'eq'? Known: eq, gt."),
        ("ID", ["id"], " Did you mean 'id'? Known: id."),
        ("zzz", ["a"], " Known: a."),
        ("x", [], " Known: none."),
        ("x", [f"c{n:02}" for n in range(31)], f" Known: {', '.join(f'c{n:02}' for n in range(30))} and 1 more."),
    ],
)
def test_did_you_mean(name: str, known: list[str], wanted: str) -> None:
    assert did_you_mean(name, known) == wanted


@pytest.mark.parametrize(("number", "wanted"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (10_000, "10,000 rows")])
def test_numbers_agree_with_their_nouns(number: int, wanted: str) -> None:
    assert counted(number, "row") == wanted


def test_nouns_of_their_own_plural() -> None:
    assert counted(2, "query", "queries") == "2 queries"
