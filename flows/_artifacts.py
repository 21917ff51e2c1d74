"""What a run leaves in Prefect for people: its ledger, its checks, and a few quarantined rows.

Each is a table under a key of its pipeline, so that Prefect shows how it went from run to run.
Prefect's UI reads every text as Markdown, cells included: what is not ours stands in code spans there,
shortened, with stars for secrets.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import polars as pl
from prefect.artifacts import create_table_artifact

from flows._ledger import RunRecord
from flows._quarantine import SCHEMA, Quarantine
from flows._secrets import redact
from transforms._words import counted

_SAMPLE_ROWS = 10
_LONGEST_VALUE = 80
_LONGEST_ROW = 1000

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


def first_rows(quarantine: Quarantine) -> pl.DataFrame:
    """The first quarantined rows, to be shown after the quarantine itself is gone."""
    frames: list[pl.DataFrame] = [pl.DataFrame(schema=SCHEMA)]
    for frame in quarantine:
        frames.append(frame.head(_SAMPLE_ROWS - sum(kept.height for kept in frames)))
        if frames[-1].height < frame.height:
            break
    return pl.concat(frames)


def leave(record: RunRecord, sample: pl.DataFrame) -> None:
    """Leave the artifacts of a run, inside its flow run.

    Args:
        record: of the run, as far as it came.
        sample: what `first_rows` kept.
    """
    _table("ledger", record, ledger(record))
    if record.checks:
        _table("checks", record, checks(record))
    if not sample.is_empty():
        _table("quarantine", record, quarantined(sample), f"The first {counted(sample.height, 'row')}, as read.")


def ledger(record: RunRecord) -> list[dict[str, Any]]:
    """A row for each count of the ledger."""
    return [
        {"ledger": name, "rows": getattr(record.rows, name), "meaning": meaning} for name, meaning in _MEANINGS.items()
    ]


def checks(record: RunRecord) -> list[dict[str, Any]]:
    """A row for each check."""
    return [
        {
            "check": code(check["rule"]),
            "passed": "yes" if check["passed"] else "no",
            "violations": check["violations"],
            "on violation": check["on_violation"],
        }
        for check in record.checks
    ]


def quarantined(sample: pl.DataFrame) -> list[dict[str, Any]]:
    """A row for each quarantined row: where it stood, the rules it broke, its values."""
    return [
        {"row": row["row"], "broke": code(", ".join(row["reasons"])), "values": code(_shortened(row["values"]))}
        for row in sample.iter_rows(named=True)
    ]


def key(pipeline: str, kind: str) -> str:
    """The key of an artifact: ``customer-data-etl-ledger``; Prefect allows letters, digits and dashes only."""
    plain = re.sub(r"[^a-z0-9]+", "-", pipeline.lower()).strip("-")
    if pipeline == plain.replace("-", "_"):
        return f"{plain}-{kind}"
    digest = hashlib.sha256(pipeline.encode()).hexdigest()[:8]  # another name may look the same without its signs
    return f"{plain}-{digest}-{kind}".lstrip("-")


def code(text: str) -> str:
    """`text` in a Markdown code span, which shows it as it is; on one line, with stars for secrets."""
    line = " ".join(redact(text).split())
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def _table(kind: str, record: RunRecord, rows: list[dict[str, Any]], more: str = "") -> None:
    said = f"{code(record.pipeline)} to {code(record.target)}, run {code(record.run_id)}: {record.status}."
    error = code(record.error["message"]) if record.error else ""
    create_table_artifact(
        table=rows, key=key(record.pipeline, kind), description=" ".join(filter(None, [said, more, error]))
    )


def _shortened(text: str) -> str:
    """A quarantined row's JSON text with each of its texts shortened, and then the whole."""
    row: Mapping[str, Any] = json.loads(redact(text))  # first: half a secret would not be found
    short = {name: _short(value, _LONGEST_VALUE) if isinstance(value, str) else value for name, value in row.items()}
    return _short(json.dumps(short, ensure_ascii=False), _LONGEST_ROW)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
