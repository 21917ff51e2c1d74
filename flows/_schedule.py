"""When a pipeline runs, and the spans of time that the configuration names."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
#: Of each field of a cron text: its name, least and most, and the names that stand for numbers.
_CRON: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ("l",)),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_CRON_WORDS = {"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"}
_RRULE = re.compile(r"FREQ=(YEARLY|MONTHLY|WEEKLY|DAILY|HOURLY|MINUTELY|SECONDLY)(;[A-Z]+=[\w,:+-]+)*|", re.IGNORECASE)


def seconds(value: Any) -> Any:
    """Read a span of time: seconds as a number, or a text like ``30s``, ``5m``, ``1h``, ``2d``, ``1w``."""
    if not isinstance(value, str):
        return value
    span = _SPAN.fullmatch(value.strip())
    if span is None:
        raise ValueError(f"{value!r} is not a span of time. Write seconds, or a text like '30s', '5m', '1h' or '2d'.")
    return float(span[1]) * _UNITS[span[2] or "s"]


Seconds = Annotated[
    float,
    BeforeValidator(seconds),
    Field(ge=0, allow_inf_nan=False),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": f"^{_SPAN.pattern}$"}]}),
]


class Schedule(BaseModel):
    """When a pipeline runs: exactly one of ``cron``, ``interval`` (seconds, or ``1h``) and ``rrule``.

    Attributes:
        cron: five fields (minute, hour, day of the month, month, day of the week), or a word such as ``@daily``.
        interval: the time between two runs.
        rrule: a recurrence rule of RFC 5545, such as ``FREQ=WEEKLY;BYDAY=MO``.
        timezone: an IANA name; the clock that cron and rrule mean.
        catchup: which of the runs missed while nothing could run are made up for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cron: str | None = None
    interval: Seconds | None = None
    rrule: str | None = None
    timezone: str = "UTC"
    catchup: Literal["none", "one", "all"] = "none"

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", "description": "cron"}, handler.resolve_ref_schema(handler(schema))]}

    @field_validator("cron")
    @classmethod
    def _cron_shape(cls, value: str | None) -> str | None:
        if value is None or value in _CRON_WORDS:
            return value
        fields = value.split()
        if len(fields) != len(_CRON):
            names = ", ".join(name for name, *_ in _CRON)
            raise ValueError(f"{value!r} is not a cron schedule. It has five fields: {names}; as in '0 2 * * *'.")
        for field, meaning in zip(fields, _CRON, strict=True):
            for part in field.lower().split(","):
                _check_cron(part, *meaning)
        return value

    @field_validator("rrule")
    @classmethod
    def _rrule_shape(cls, value: str | None) -> str | None:
        if value is None:
            return value
        lines = value.strip().splitlines()
        if not lines or not _RRULE.fullmatch(lines[-1].upper().removeprefix("RRULE:")):
            raise ValueError(f"{value!r} is not a recurrence rule. Write it like 'FREQ=DAILY;BYHOUR=2;BYMINUTE=0'.")
        return value

    @field_validator("interval")
    @classmethod
    def _some_time(cls, value: float | None) -> float | None:
        if value == 0:
            raise ValueError("an interval of 0 seconds has no end. Write at least '1s'.")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{value!r} is not a time zone. Write a name like 'Europe/Berlin' or 'UTC'.") from None
        return value

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"cron": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(value is not None for value in (self.cron, self.interval, self.rrule)) != 1:
            raise ValueError("a schedule has exactly one of 'cron', 'interval' and 'rrule'.")
        return self


def _check_cron(part: str, name: str, least: int, most: int, names: tuple[str, ...]) -> None:
    """Confirm that one part of a cron field has the shape ``*``, ``5``, ``1-5``, ``*/15`` or a name."""
    values, slash, step = part.partition("/")
    low, dash, high = values.partition("-")
    numbers = [] if values in {"*", "?"} else [low, high] if dash else [low]
    good = all(number in names or (number.isdecimal() and least <= int(number) <= most) for number in numbers)
    if not good or (slash and not (step.isdecimal() and int(step) > 0)):
        raise ValueError(f"{part!r} is not a {name} of a cron schedule ({least} to {most}).")
