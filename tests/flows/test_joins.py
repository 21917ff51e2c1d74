"""What a join does with rows, in the ledger: rows without a match are filtered, further matches are expanded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows import _plan, pipeline
from flows._config import Pipeline, load
from flows._errors import RefusedError
from flows._ledger import Rows
from transforms._plan import Step
from transforms._transform import transforms

HOW = ("inner", "left", "right", "full", "semi", "anti", "cross")
Make = Callable[..., Pipeline]
keys = st.lists(st.none() | st.integers(0, 5), max_size=12)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A pipeline that joins rows of one file with those of another."""

    def made(rows: list[Any], others: list[Any], **parameters: Any) -> Pipeline:
        pl.DataFrame({"id": rows}, schema={"id": pl.Int64}).write_parquet(tmp_path / "rows.parquet")
        pl.DataFrame({"id": others}, schema={"id": pl.Int64}).with_row_index("n").write_parquet(tmp_path / "o.parquet")
        key = {} if parameters.get("how") == "cross" else {"on": "id"}
        steps = [{"type": "join", "parameters": {"source": "others"} | key | parameters}]
        target = {"type": "file", "path": f"{tmp_path}/t.parquet", "write_mode": "overwrite", "allow_empty": True}
        written = {
            "type": "batch",
            "sources": {
                "rows": {"type": "file", "path": f"{tmp_path}/rows.parquet"},
                "others": {"type": "file", "path": f"{tmp_path}/o.parquet"},
            },
            "target": target,
            "transformations": steps,
            "guards": {"max_removed_ratio": 1},
        }
        (tmp_path / "p.yaml").write_text(json.dumps({"pipelines": {"p": written}}))
        return load(tmp_path / "p.yaml").pipeline("p")

    return made


def booked(rows: list[Any], others: list[Any], how: str) -> tuple[int, int]:
    """How many rows are filtered and expanded, told row by row."""
    if how == "cross":
        return (0, len(rows) * (len(others) - 1)) if others else (len(rows), 0)
    matches = [sum(one is not None and one == other for other in others) for one in rows]
    lonely = sum(one == 0 for one in matches)
    further = sum(one - 1 for one in matches if one)
    alone = sum(other is None or other not in rows for other in others)
    return {
        "inner": (lonely, further),
        "left": (0, further),
        "right": (lonely, further + alone),
        "full": (0, further + alone),
        "semi": (lonely, 0),
        "anti": (len(rows) - lonely, 0),
    }[how]


@settings(max_examples=300, deadline=None)
@given(rows=keys, others=keys, how=st.sampled_from(HOW), kept=st.sampled_from([["id"], ["v"], ["id", "v", "w"]]))
def test_every_row_of_any_join_is_accounted_for(rows: list[Any], others: list[Any], how: str, kept: list[str]) -> None:
    names = kept if how not in {"semi", "anti"} else [name for name in kept if name != "w"]
    left = pl.LazyFrame({"id": rows}, schema={"id": pl.Int64}).with_row_index("v")
    right = pl.LazyFrame({"id": others}, schema={"id": pl.Int64}).with_row_index("w")
    transform = transforms.get("join")
    given_keys = {"how": "cross"} if how == "cross" else {"how": how, "on": "id", "validate": "m:m"}
    step = Step(0, "join", transform, transform.parameters.model_validate({"source": "others"} | given_keys))
    counts, matches = _plan.counters([step])

    counted = _plan.counted_steps(left, [step], {"others": right}, counts, matches)
    assert counted.collect_schema() == step.apply(left, {"others": right}).collect_schema()
    out = counted.select(names).collect(engine="streaming")

    plain = step.apply(left, {"others": right}).select(names).collect()
    assert sorted(out.rows(), key=str) == sorted(plain.rows(), key=str)
    found = matches[0].booked(step, counts[0].rows, counts[1].rows)
    booking = Rows(read=len(rows), written=out.height)
    found.add_to(booking)
    assert (booking.filtered, booking.expanded) == booked(rows, others, how)
    assert booking.read + booking.expanded == booking.filtered + booking.written


@pytest.mark.parametrize("how", ["inner", "left", "right", "full"])
def test_counting_stays_in_the_streaming_engine(how: str) -> None:
    left, right = (pl.LazyFrame({"id": [1, 2]}).with_row_index(name) for name in ("v", "w"))
    transform = transforms.get("join")
    step = Step(0, "join", transform, transform.parameters.model_validate({"source": "o", "on": "id", "how": how}))

    counted = _plan.counted_steps(left, [step], {"o": right}, *_plan.counters([step]))

    physical = str(counted.show_graph(plan_stage="physical", engine="streaming", raw_output=True, show=False))
    assert "equi-join" in physical
    assert "in-memory-join" not in physical


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=keys, others=keys, how=st.sampled_from(HOW))
def test_a_run_with_a_join_balances(make: Make, rows: list[Any], others: list[Any], how: str) -> None:
    declared = {} if how == "cross" else {"validate": "m:m"}
    record = pipeline.run(make(rows, others, how=how, **declared))

    assert (record.rows.filtered, record.rows.expanded) == booked(rows, others, how)


@pytest.mark.parametrize("how", ["inner", "left", "right", "full"])
def test_rows_that_become_several_are_refused_unless_that_is_declared(make: Make, how: str) -> None:
    rows, others = [1, 1, 2, 3, 9], [1, 1, 2, 3, 7]

    with pytest.raises(RefusedError) as refused:
        pipeline.run(make(rows, others, how=how))

    least = {"inner": (4, 6), "right": (4, 6), "left": (5, 7), "full": (5, 7)}[how]
    assert str(refused.value) == (
        f"transformations: step 'join' multiplies rows: {least[0]} with a match became {least[1]}, because the joined "
        "source has some of their keys several times. Nothing was published. Write validate: '1:m' or 'm:m', or "
        "max_fan_out, if that is meant; otherwise deliver each key of that source once."
    )
    assert (refused.value.guard, refused.value.observed, refused.value.allowed) == ("validate", 2, 0)
    assert pipeline.run(make(rows, others, how=how, validate="m:m")).rows.expanded >= 2
    assert pipeline.run(make(rows, others, how=how, max_fan_out=2)).status in {"published", "unchanged"}


@pytest.mark.parametrize("how", HOW)
def test_a_join_that_multiplies_nothing_needs_no_declaration(make: Make, how: str) -> None:
    rows, others = [1, 1, 2, None, 9], [1, 2, 5, 5, 5, None, None]  # keys that are there twice match nothing

    record = pipeline.run(make(rows, others, how=how))

    assert (record.rows.filtered, record.rows.expanded) == booked(rows, others, how)


def test_a_refused_join_is_in_the_ledger_with_its_numbers(make: Make) -> None:
    one = make([1, 2], [1, 1])
    with pytest.raises(RefusedError):
        pipeline.run(one)

    (run,) = one.target.history("p", 1)
    assert run["status"] == "refused"
    assert (run["rows"]["read"], run["rows"]["expanded"], run["rows"]["filtered"]) == (2, 1, 1)
