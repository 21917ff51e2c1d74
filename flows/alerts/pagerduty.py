"""Calls whoever is on duty, by PagerDuty."""

from __future__ import annotations

from typing import Literal

from flows._secrets import Secret
from flows.alerts._base import Alert, alert


@alert
class Pagerduty(Alert):
    """An incident of the service whose ``service_key`` (integration key) this is."""

    type: Literal["pagerduty"] = "pagerduty"
    service_key: Secret
