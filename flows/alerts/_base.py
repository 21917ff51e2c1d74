"""What an alert channel is: a frozen set of options, one file registers one kind."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from transforms._registry import Registry

Kind = TypeVar("Kind", bound="type[Alert]")


class Alert(BaseModel):
    """A kind of alert channel; its pydantic fields are its YAML keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: str


alerts: Registry[type[Alert]] = Registry("alert", package="flows.alerts")


def alert(kind: Kind) -> Kind:
    """Register an `Alert` class under the name of its file."""
    alerts.register(kind.__module__.rpartition(".")[2], kind)
    return kind
