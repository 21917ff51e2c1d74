"""Short ways to bind rules and to ask them."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from validations._checks import BoundRule
from validations._contract import Contract
from validations._rule import rules


@pytest.fixture
def bound() -> Callable[..., BoundRule]:
    """Binds a rule: ``bound("unique", "id", "day", on_violation="warn")``; the rest are its parameters."""

    def bind(name: str, /, *fields: str, position: int = 0, on_violation="quarantine", **parameters) -> BoundRule:
        kind = rules.get(name)
        return BoundRule(position, kind, fields, kind.parameters.model_validate(parameters), on_violation)

    return bind


@pytest.fixture
def good(bound) -> Callable[..., list[bool]]:
    """Says which values of one column a row rule lets pass, as `Contract.judge` decides."""

    def ask(name: str, given: pl.Series, /, **parameters) -> list[bool]:
        frame = given.alias("value").to_frame()
        verdict = Contract.plan([bound(name, "value", **parameters)], frame.schema).judge(frame)
        rejected = set(verdict.positions)
        return [position not in rejected for position in range(frame.height)]

    return ask
