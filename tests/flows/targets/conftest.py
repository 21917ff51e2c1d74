"""Loading a frame into a table with no more than the target itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows._errors import LoadError, TargetAuthenticationError, TargetPermissionError
from flows._ledger import RunRecord
from flows._quarantine import Quarantine
from flows.targets._base import Published
from flows.targets.database import Database
from tests._s3 import refusing

Load = Callable[..., Published]

#: The error that a load ends with where S3 refuses its calls with a code.
REFUSALS: dict[str, type[LoadError]] = {
    "InvalidAccessKeyId": TargetAuthenticationError,
    "SignatureDoesNotMatch": TargetAuthenticationError,
    "ExpiredToken": TargetAuthenticationError,
    "AccessDenied": TargetPermissionError,
}


@pytest.fixture(params=REFUSALS)
def refused(request: pytest.FixtureRequest) -> Iterator[tuple[dict[str, str], type[LoadError]]]:
    """`storage_options` of an S3 that refuses every call, and the error that a load ends with there."""
    with refusing(request.param) as options:
        yield options, REFUSALS[request.param]


@pytest.fixture
def target(database: str) -> Callable[..., Database]:
    """Makes targets in this test's database; keyword arguments are YAML keys."""

    def make(**keys: Any) -> Database:
        return Database.model_validate({"connection_string": database, "table_name": "t"} | keys)

    return make


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Stages frames in a chamber of a target, and publishes them."""

    def publish(target: Database, *frames: pl.DataFrame, record: RunRecord | None = None) -> Published:
        record = record or RunRecord.start("test", target.label, "1")
        record.rows.read = sum(frame.height for frame in frames)
        with target.open(record, frames[0].schema) as chamber:
            for frame in frames:
                chamber.stage(frame)
            record.staged = chamber.seal()
            return chamber.publish(record, Quarantine(tmp_path / record.run_id))

    return publish
