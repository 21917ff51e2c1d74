"""What refuses a load that keeps every rule: too many rows would go, or the source gave far from the usual number."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import pipeline
from flows._config import Pipeline, load
from flows._errors import ConfigError, RefusedError
from flows._ledger import RunRecord
from flows._usual import Usual

Make = Callable[..., Pipeline]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A pipeline from a file with `rows` rows to a table in SQLite."""

    def made(rows: int, *, table: dict[str, Any] | None = None, **guards: Any) -> Pipeline:
        pl.DataFrame({"id": range(rows)}, schema={"id": pl.Int64}).write_parquet(tmp_path / "s.parquet")
        keys = {
            "type": "batch",
            "source": {"type": "file", "path": f"{tmp_path}/s.parquet"},
            "target": {
                "type": "database",
                "connection_string": f"sqlite:///{tmp_path}/t.db",
                "table_name": "t",
                "write_mode": "overwrite",
            }
            | (table or {}),
        }
        file = tmp_path / "p.yaml"
        file.write_text(json.dumps({"pipelines": {"p": keys | ({"guards": guards} if guards else {})}}))
        return load(file).pipeline("p")

    return made


def newest(one: Pipeline) -> dict[str, Any]:
    return one.target.history("p", 1)[0]


def test_half_of_the_rows_may_go_and_no_more(make: Make) -> None:
    pipeline.run(make(1000))

    with pytest.raises(RefusedError, match=r"would remove 900 of 1,000 rows \(90 %\)"):
        pipeline.run(make(100))

    assert newest(make(100))["status"] == "refused"
    assert pipeline.run(make(500)).rows.written == 500


def test_the_configuration_may_allow_it(make: Make) -> None:
    pipeline.run(make(1000))

    assert pipeline.run(make(100, max_removed_ratio=0.9)).rows.written == 100
    assert pipeline.run(make(0, table={"allow_empty": True})).status == "published"


def test_one_run_may_be_allowed_to(make: Make) -> None:
    pipeline.run(make(1000))

    assert pipeline.run(dataclasses.replace(make(10), allows_shrink=True)).rows.written == 10
    assert pipeline.run(dataclasses.replace(make(0), allows_shrink=True)).status == "published"


@pytest.mark.parametrize("ratio", [-0.1, 1.1, "half"])
def test_a_ratio_is_one(make: Make, ratio: Any) -> None:
    with pytest.raises(ConfigError, match=r"guards\.max_removed_ratio"):
        make(1, max_removed_ratio=ratio)


# --- the number of rows read ---


def earlier(make: Make, *read: int, **guards: Any) -> None:
    for rows in read:
        run(make, rows, **guards)


def run(make: Make, rows: int, **guards: Any) -> RunRecord:
    return pipeline.run(make(rows, table={"write_mode": "append"}, **guards))


def test_a_run_that_reads_far_from_the_usual_warns(make: Make) -> None:
    earlier(make, 100, 100, 101, 99, 100, 103)
    assert run(make, 1000).warnings == []  # six runs do not say yet what is usual

    assert run(make, 160).warnings == []
    (warning,) = run(make, 161).warnings
    assert warning == (
        "the run read 161 rows, and the last 8 read 100 (median): more than guards.row_count.sensitivity: 6 times "
        "their spread of 10 away."
    )


def test_a_run_far_from_the_usual_is_refused_where_that_is_asked_for(make: Make) -> None:
    guards: dict[str, Any] = {"row_count": {"on_violation": "fail", "minimum_runs": 3, "sensitivity": 2}}
    earlier(make, 100, 100, 100)

    with pytest.raises(RefusedError) as refused:
        run(make, 79, **guards)

    assert str(refused.value) == (
        "p: the run read 79 rows, and the last 3 read 100 (median): more than guards.row_count.sensitivity: 2 times "
        "their spread of 10 away. Nothing was published. Look at the source; if that is meant, run with --allow-shrink."
    )
    assert (refused.value.guard, refused.value.observed, refused.value.allowed) == ("row_count", 79, 80)
    assert newest(make(1))["status"] == "refused"
    with pytest.raises(RefusedError, match=r"run with --set guards\.row_count\.on_violation=warn"):
        run(make, 121, **guards)
    assert run(make, 80, **guards).status == "published"  # the refused runs are not part of what is usual
    allowed = dataclasses.replace(make(79, table={"write_mode": "append"}, **guards), allows_shrink=True)
    assert len(pipeline.run(allowed).warnings) == 1


@pytest.mark.parametrize(
    ("read", "usual"),
    [
        ([1000] * 7, (7, 1000, 100)),  # runs that all read the same may grow by a tenth, sixfold
        ([0] * 7, (7, 0, 1)),
        ([10, 20, 30, 40, 50], (5, 30, 14.826)),
        ([100, 100, 100, 10_000], (4, 100, 10)),  # one that went wrong moves nothing
    ],
)
def test_what_is_usual(read: list[int], usual: tuple[int, float, float]) -> None:
    found = Usual.of(read)

    assert (found.runs, found.rows, found.spread) == pytest.approx(usual)


@given(st.lists(st.integers(0, 10**9), min_size=3, max_size=30), st.integers(0, 10**12))
def test_less_than_half_of_the_runs_cannot_move_what_is_usual_out_of_the_others(read: list[int], wrong: int) -> None:
    mistaken = [wrong] * ((len(read) - 1) // 2)

    right = read[len(mistaken) :]

    assert min(right) <= Usual.of(right + mistaken).rows <= max(right)
