"""Tells a channel on Slack."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flows.alerts._base import Alert, alert


@alert
class Slack(Alert):
    """A message in a ``channel``: its name with ``#``, or its id."""

    type: Literal["slack"] = "slack"
    channel: Annotated[str, Field(pattern=r"^[#@]?[^\s#@]+$")]
