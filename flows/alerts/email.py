"""Tells people by e-mail."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from flows.alerts._base import Alert, alert


def _address(text: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", text):
        raise ValueError(f"{text!r} is not an e-mail address. Write it like 'data-team@example.com'.")
    return text


@alert
class Email(Alert):
    """E-mail to one or more ``recipients``."""

    type: Literal["email"] = "email"
    recipients: Annotated[tuple[Annotated[str, AfterValidator(_address)], ...], Field(min_length=1)]
