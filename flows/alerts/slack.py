"""Tells a channel on Slack."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from flows.alerts._base import Alert, alert


def _channel(text: str) -> str:
    if not re.fullmatch(r"[#@]?[^\s#@]+", text):
        raise ValueError(f"{text!r} is not a channel. Write it like '#data-alerts', or its id.")
    return text


@alert
class Slack(Alert):
    """A message in a ``channel``: its name with ``#``, or its id."""

    type: Literal["slack"] = "slack"
    channel: Annotated[str, AfterValidator(_channel)]
