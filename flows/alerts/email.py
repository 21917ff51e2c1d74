"""Tells people by e-mail."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flows.alerts._base import Alert, alert

Address = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]


@alert
class Email(Alert):
    """E-mail to one or more ``recipients``."""

    type: Literal["email"] = "email"
    recipients: Annotated[tuple[Address, ...], Field(min_length=1)]
