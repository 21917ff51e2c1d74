from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
import pytest

from transforms._plan import Step
from transforms._transform import transforms

Apply = Callable[..., pl.LazyFrame]


@pytest.fixture
def apply() -> Apply:
    """Adds one step to a frame as the configuration would: parameters are parsed, errors get their path."""

    def add(frame: pl.LazyFrame, name: str, parameters: Mapping[str, Any], **sources: pl.LazyFrame) -> pl.LazyFrame:
        transform = transforms.get(name)
        return Step(0, name, transform, transform.parameters.model_validate(parameters)).apply(frame, sources)

    return add
