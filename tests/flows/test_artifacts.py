from __future__ import annotations

import json
from dataclasses import fields

import polars as pl
import pytest

from flows import _artifacts
from flows._ledger import Rows, RunRecord
from flows._quarantine import SCHEMA, Quarantine
from flows._secrets import Secret


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ("customer_data_etl", "customer-data-etl-ledger"),
        ("p2", "p2-ledger"),
        ("a-b", "a-b-d44362d6-ledger"),
        ("Customers", None),
        ("a.b", None),
        ("_a", None),
        ("客户", None),
    ],
)
def test_keys_are_what_prefect_allows(pipeline, expected):
    key = _artifacts.key(pipeline, "ledger")

    assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not key.startswith("-")
    assert expected in {key, None}


def test_no_two_pipelines_share_a_key():
    names = ["a_b", "a-b", "a.b", "A_b", "_a_b", "a__b", "ab", "客户", "户客"]

    assert len({_artifacts.key(name, "ledger") for name in names}) == len(names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "`plain`"),
        ("**bold** <b> [x](http://x)", "`**bold** <b> [x](http://x)`"),
        ("a`b", "`` a`b ``"),
        ("``", "``` `` ```"),
        ("two\nlines", "`two lines`"),
    ],
)
def test_a_code_span_shows_a_text_as_it_is(text, expected):
    assert _artifacts.code(text) == expected


def test_the_ledger_shows_every_count():
    record = RunRecord.start("p", "t", "v")
    record.rows = Rows(*range(10, 10 + len(fields(Rows))))

    shown = {row["ledger"]: row["rows"] for row in _artifacts.ledger(record)}
    assert shown == {field.name: getattr(record.rows, field.name) for field in fields(Rows)}


def test_quarantined_rows_are_short_and_have_no_secrets():
    Secret("postgresql://me:correct-horse@host/db").reveal()
    row = {"id": 1, "note": f"{'x' * 75}correct-horse", "long": "y" * 500, "none": None}
    wide = {f"column_{number}": "z" * 50 for number in range(100)}
    sample = pl.DataFrame(
        [(7, "read", json.dumps(row), ["id not_null", "note email"]), (None, "transformed", json.dumps(wide), ["w"])],
        schema=SCHEMA,
        orient="row",
    )

    first, second = _artifacts.quarantined(sample)
    assert first == {
        "row": 7,
        "broke": "`id not_null, note email`",
        "values": f'`{{"id": 1, "note": "{"x" * 75}***", "long": "{"y" * 79}…", "none": null}}`',
    }
    assert second["row"] is None
    assert len(second["values"]) == 1002


def test_the_sample_is_gathered_over_batches(tmp_path):
    quarantine = Quarantine(tmp_path)
    for start in range(0, 40, 4):
        rows = pl.DataFrame({"id": range(start, start + 4)})
        quarantine.add(rows, pl.Series(range(start, start + 4)), pl.Series([["r"]] * 4))

    assert _artifacts.first_rows(quarantine)["row"].to_list() == list(range(10))
    assert _artifacts.first_rows(Quarantine(tmp_path)).is_empty()
