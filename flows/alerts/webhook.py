"""Tells another program, by HTTP."""

from __future__ import annotations

from typing import Literal

from flows._secrets import Secret
from flows.alerts._base import Alert, alert


@alert
class Webhook(Alert):
    """A POST to ``url``, which is a secret: such addresses often carry their token."""

    type: Literal["webhook"] = "webhook"
    url: Secret
