"""What a run leaves in Prefect for people: its ledger, its checks, and a few quarantined rows.

Each is a table under a key of its pipeline, so that Prefect shows how it went from run to run.
Texts are shortened, secrets become stars, and nothing in them works as Markdown.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import polars as pl
from prefect.artifacts import create_table_artifact

from flows._ledger import RunRecord
from flows._secrets import redact
from transforms._words import counted

#: Rows of the quarantine that are shown.
SAMPLE_ROWS = 10
_LONGEST_VALUE = 80
_LONGEST_ROW = 1000

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+!|~&$-])")
#: What each count of the ledger means, in the order in which people read them.
_MEANINGS = {
    "read": "delivered by the source",
    "expanded": "added by a join",
    "filtered": "left out by a step",
    "deduplicated": "left out as duplicates",
    "aggregated": "folded into others",
    "quarantined": "broke a rule",
    "written": "inserted or updated in the target",
    "unchanged": "in the target already",
}


def leave(record: RunRecord, sample: pl.DataFrame) -> None:
    """Leave the artifacts of a run, inside its flow run.

    Args:
        record: of the run, as far as it came.
        sample: the first quarantined rows, as `Quarantine.sample` gives them.
    """
    _table("ledger", record, ledger(record))
    if record.checks:
        _table("checks", record, checks(record))
    if not sample.is_empty():
        shown = f"{counted(sample.height, 'row')} of {record.rows.quarantined or sample.height:,}"
        _table("quarantine", record, quarantined(sample), f"The first {shown}, as they were read.")


def ledger(record: RunRecord) -> list[dict[str, Any]]:
    """A row for each count of the ledger."""
    return [{"rows": count, "which": name, "meaning": _MEANINGS[name]} for name, count in asdict(record.rows).items()]


def checks(record: RunRecord) -> list[dict[str, Any]]:
    """A row for each check."""
    return [
        {
            "check": _plain(check["rule"]),
            "passed": "yes" if check["passed"] else "no",
            "violations": check["violations"],
            "on violation": check["on_violation"],
        }
        for check in record.checks
    ]


def quarantined(sample: pl.DataFrame) -> list[dict[str, Any]]:
    """A row for each quarantined row: where it stood, the rules it broke, its values."""
    return [
        {"row": row["row"], "broke": _plain(", ".join(row["reasons"])), "values": _values(row["values"])}
        for row in sample.iter_rows(named=True)
    ]


def key(pipeline: str, kind: str) -> str:
    """The key of an artifact: ``customer-data-etl-ledger``; Prefect allows letters, digits and dashes only."""
    plain = re.sub(r"[^a-z0-9]+", "-", pipeline.lower()).strip("-")
    if pipeline.replace("_", "-") == plain:
        return f"{plain}-{kind}"
    digest = hashlib.sha256(pipeline.encode()).hexdigest()[:8]  # another name may look the same without its signs
    return f"{plain}-{digest}-{kind}".lstrip("-")


def escaped(text: str) -> str:
    """`text`, so that Markdown shows it as it is."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _table(kind: str, record: RunRecord, rows: list[dict[str, Any]], more: str = "") -> None:
    said = f"{record.pipeline} to {record.target}, run {record.run_id}: {record.status}."
    if record.error:
        said = f"{said} {record.error['message']}"
    create_table_artifact(table=rows, key=key(record.pipeline, kind), description=escaped(redact(f"{said} {more}")))


def _values(text: str) -> str:
    """A quarantined row's JSON text with each value shortened."""
    row: Mapping[str, Any] = json.loads(redact(text))
    short = {name: _short(value, _LONGEST_VALUE) if isinstance(value, str) else value for name, value in row.items()}
    return _plain(_short(json.dumps(short, ensure_ascii=False), _LONGEST_ROW))


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _plain(text: str) -> str:
    return redact(text)
