"""``run`` with several names: which of them run after one that failed."""

import json

import polars as pl
import pytest

CONFIG = """
pipelines:
  first:
    type: batch
    source: {type: file, path: first.parquet}
    target: {type: file, path: first.csv, write_mode: overwrite}
  broken:
    type: batch
    source: {type: file, path: broken.parquet}
    quality_rules: [{type: not_null, field: id, on_violation: fail}]
    target: {type: file, path: broken.csv, write_mode: overwrite}
    error_handling: {strategy: STRATEGY, max_retries: 0}
  last:
    type: batch
    source: {type: file, path: last.parquet}
    target: {type: file, path: last.csv, write_mode: overwrite}
"""


@pytest.fixture
def pipelines(tmp_path, monkeypatch):
    """Writes three pipelines, of which the second fails."""
    monkeypatch.chdir(tmp_path)
    for name, ids in {"first": [1], "broken": [None, 2], "last": [3]}.items():
        pl.DataFrame({"id": ids}, schema={"id": pl.Int64}).write_parquet(tmp_path / f"{name}.parquet")

    def write(strategy):
        (tmp_path / "pipelines.yaml").write_text(CONFIG.replace("STRATEGY", strategy))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("strategy", "names", "done"),
    [
        ("continue", ["--all"], ["first", "last"]),
        ("continue", ["broken", "last"], ["last"]),
        ("continue", ["last", "last", "broken"], ["last"]),
        ("fail", ["--all"], ["first"]),
        ("retry", ["first", "broken", "last"], ["first"]),
    ],
)
def test_what_runs_after_a_failure(strategy, names, done, pipelines, flows):
    folder = pipelines(strategy)

    output, errors = flows("run", *names, "--no-prefect", "--json", code=1)

    ran = [json.loads(line) for line in output.splitlines()]
    assert [each["pipeline"] for each in ran if each["status"] == "published"] == done
    assert [each["status"] for each in ran if each["pipeline"] == "broken"] == ["refused"]
    assert sorted(path.stem for path in folder.glob("*.csv")) == sorted(done)
    assert ("not run after that: last." in errors) == (strategy != "continue")


def test_nothing_runs_where_one_name_is_wrong(pipelines, flows):
    folder = pipelines("continue")

    _, errors = flows("run", "first", "lst", "--no-prefect", code=2)

    assert "'lst' is not a pipeline of pipelines.yaml. Did you mean 'last'?" in errors
    assert not list(folder.glob("*.csv"))


def test_names_beside_all_are_refused(pipelines, flows):
    pipelines("continue")

    _, errors = flows("run", "first", "--all", code=2)

    assert errors == "run: --all is all of them. Remove the names. See: python -m flows run --help\n"
