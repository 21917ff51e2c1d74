"""The root of every error Lockgate raises on purpose, and the errors of plans.

    LockgateError
    └── TransformError            a step cannot be planned
        ├── UnknownColumnError    a step names a column that is not there
        ├── FormulaError          an SQL expression cannot be understood
        └── ParameterError        a parameter has a value the step cannot use

An error keeps its facts as attributes. ``path`` says where in the configuration it
belongs, relative to whoever raised it; each caller that knows more puts its own part
in front with `LockgateError.under`. The room that knows files turns it into file:line.
"""

from __future__ import annotations

import copyreg
from collections.abc import Iterable
from typing import Any, ClassVar, Self

from transforms._words import did_you_mean

Path = tuple[str | int, ...]


class LockgateError(Exception):
    """Something the person at the terminal can act on; never shown with a traceback."""

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, path: Path = ()) -> None:
        super().__init__(message)
        self.message = message
        self.path = path

    def under(self, *prefix: str | int) -> Self:
        """Put `prefix` in front of the path; returns the same error, to be raised again."""
        self.path = (*prefix, *self.path)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the facts, not the arguments: other processes get the same error, whatever made it."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]  # typeshed hides it

    def __str__(self) -> str:
        """The path, where there is one, and the message."""
        return f"{dotted(self.path)}: {self.message}" if self.path else self.message


class TransformError(LockgateError):
    """A step cannot be planned: found before any row is read."""


class UnknownColumnError(TransformError):
    """A step names a column that is not there at that step."""

    def __init__(self, column: str, present: Iterable[str], *, path: Path = ()) -> None:
        self.column = column
        self.present = sorted(present)
        super().__init__(
            f"no column {column!r} at this step.{did_you_mean(column, self.present, word='Present')}", path=path
        )


class FormulaError(TransformError):
    """An SQL expression cannot be understood, or does not fit the columns it names."""


class ParameterError(TransformError):
    """A parameter has a value that the step cannot use."""


def dotted(path: Path) -> str:
    """Write a path as ``transformations[0].parameters.field``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
