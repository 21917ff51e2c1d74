"""The tree of errors an operator meets, and how one is shown.

    LockgateError                       the root, in transforms/_errors.py
    ├── TransformError                  a step cannot be planned (transforms/_errors.py)
    ├── ConfigError                     the configuration has mistakes; all of them are listed
    │   └── SecretError                 a reference to a secret cannot be resolved
    ├── ExtractError                    rows cannot be read
    │   ├── SourceUnreachableError      nobody answers                                  retryable
    │   ├── SourceAuthenticationError   the user or password is refused
    │   ├── SourcePermissionError       the user may not read it
    │   ├── SourceMissingError          the table, column or file is not there
    │   ├── SourceTypeError             a value or type that cannot be carried exactly
    │   ├── SourceBusyError             somebody else holds a lock on it                retryable
    │   └── SourceConnectionLostError   the connection broke while reading              retryable
    ├── LoadError                       rows cannot be staged or published; nothing was published
    │   ├── TargetUnreachableError      nobody answers                                  retryable
    │   ├── TargetAuthenticationError   the user or password is refused
    │   ├── TargetPermissionError       the user may not write it
    │   ├── TargetMissingError          the table, schema or column is not there
    │   ├── TargetTypeError             a value or type that does not fit the target
    │   ├── TargetBusyError             another run or session holds the lock           retryable
    │   ├── TargetConnectionLostError   the connection broke while staging or loading   retryable
    │   └── StagedRowsLostError         the target forgot what was staged; stage it again
    ├── RefusedError                    a guard or threshold refused the load
    └── LedgerError                     the rows do not add up

Foreign exceptions are mapped to these once, at the edge that met them, with ``from``.
`retryable` is the only thing a retry asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from transforms._errors import LockgateError, Path, dotted
from transforms._words import counted

#: Answers where in the configuration a path stands: ``flows/customer_etl.yaml:21``, or None.
Locate = Callable[[Path], str | None]


@dataclass(frozen=True)
class Problem:
    """One mistake in the configuration.

    Attributes:
        message: what was wrong, and what would work.
        path: its place in the configuration.
        where: ``file:line``, or the name of the variable or option that set the value.
    """

    message: str
    path: Path = ()
    where: str | None = None

    def __str__(self) -> str:
        """``flows/customer_etl.yaml:14  source.type: 'databse' is not a source. ...``."""
        return line(self.where, self.path, self.message)


class ConfigError(LockgateError):
    """The configuration has mistakes; `problems` lists every one of them."""

    exit_code = 2

    def __init__(self, problems: str | Iterable[Problem], *, file: str | None = None, path: Path = ()) -> None:
        self.problems = (Problem(problems, path),) if isinstance(problems, str) else tuple(problems)
        self.file = file
        super().__init__(problems if isinstance(problems, str) else self._listed(), path=path)

    def _listed(self) -> str:
        total = f"{counted(len(self.problems), 'mistake')} in {self.file or 'the configuration'}."
        return "\n".join([*map(str, self.problems), total])


class SecretError(ConfigError):
    """A reference cannot be resolved; the message names the reference and what to set, never a value."""

    def __init__(self, reference: str, message: str, *, path: Path = ()) -> None:
        self.reference = reference
        super().__init__(message, path=path)


class ExtractError(LockgateError):
    """Rows cannot be read from a source."""

    def __init__(self, message: str, *, source: str | None = None, path: Path = ()) -> None:
        self.source = source
        super().__init__(message, path=path)


class SourceUnreachableError(ExtractError):
    """Nobody answers at the source's address."""

    retryable = True


class SourceAuthenticationError(ExtractError):
    """The source refuses the user or the password."""


class SourcePermissionError(ExtractError):
    """The user may not read what the source names."""


class SourceMissingError(ExtractError):
    """The table, column or file that the source names is not there."""


class SourceTypeError(ExtractError):
    """A type or value of the source cannot be carried exactly."""


class SourceBusyError(ExtractError):
    """Somebody else holds a lock on the source."""

    retryable = True


class SourceConnectionLostError(ExtractError):
    """The connection broke while rows were read."""

    retryable = True


class LoadError(LockgateError):
    """Rows cannot be staged in or published to a target; nothing was published."""

    def __init__(self, message: str, *, target: str | None = None, path: Path = ()) -> None:
        self.target = target
        super().__init__(message, path=path)


class TargetUnreachableError(LoadError):
    """Nobody answers at the target's address."""

    retryable = True


class TargetAuthenticationError(LoadError):
    """The target refuses the user or the password."""


class TargetPermissionError(LoadError):
    """The user may not write what the target names."""


class TargetMissingError(LoadError):
    """The table, schema or column that the target names is not there."""


class TargetTypeError(LoadError):
    """A type or value does not fit the target."""


class TargetBusyError(LoadError):
    """Another run or session holds the lock."""

    retryable = True


class TargetConnectionLostError(LoadError):
    """The connection broke while rows were staged or published."""

    retryable = True


class StagedRowsLostError(LoadError):
    """The target forgot what was staged; it can be staged again, by another `validate`."""


class RefusedError(LockgateError):
    """A guard or a threshold refused the load; nothing was published.

    Attributes:
        guard: which one, in the words of the configuration: ``max_failed_ratio``.
        observed, allowed: what was seen and what would have passed, as numbers.
    """

    def __init__(
        self,
        message: str,
        *,
        guard: str | None = None,
        observed: float | None = None,
        allowed: float | None = None,
        path: Path = (),
    ) -> None:
        self.guard, self.observed, self.allowed = guard, observed, allowed
        super().__init__(message, path=path)


class LedgerError(LockgateError):
    """The rows of a run do not add up: some were lost, or counted twice."""

    def __init__(self, message: str, *, counts: Mapping[str, int] | None = None, path: Path = ()) -> None:
        self.counts = dict(counts or {})
        super().__init__(message, path=path)


_PIPELINE_DEPTH: int = 2


def line(where: str | None, path: Path, message: str) -> str:
    """Write one mistake as one line; a path inside a pipeline is shown from that pipeline on."""
    place = "  ".join(filter(None, [where, shown(path)]))
    return f"{place}: {message}" if place else message


def shown(path: Path) -> str:
    """Write `path` as people know it: ``source.type``, without ``pipelines.<name>`` in front of it."""
    inside = path[:1] == ("pipelines",) and len(path) > _PIPELINE_DEPTH
    return dotted(path[_PIPELINE_DEPTH:] if inside else path)


def rendered(error: LockgateError, locate: Locate | None = None) -> str:
    """Write `error` for the terminal, with file:line where the configuration can say it.

    Args:
        error: any error of ours.
        locate: a pipeline's or a configuration's ``locate``.
    """
    if isinstance(error, ConfigError) and not error.path:
        alone = error.problems[0] if len(error.problems) == 1 else None
        return str(alone if alone and alone.where else error)  # one mistake needs no total
    return line(_where(error, locate), error.path, error.message)


def as_json(error: LockgateError, locate: Locate | None = None) -> dict[str, Any]:
    """Write `error` as ``{"type", "message", "where", "path", "retryable"}``.

    A `ConfigError` of the loader also has ``problems``: a list of ``{"message", "where", "path"}``; where there
    is only one, it is the error.
    """
    facts: dict[str, Any] = {
        "type": type(error).__name__,
        "message": error.message,
        "where": _where(error, locate),
        "path": shown(error.path) or None,
        "retryable": error.retryable,
    }
    if isinstance(error, ConfigError) and not error.path:
        facts["problems"] = [
            {"message": problem.message, "where": problem.where, "path": shown(problem.path) or None}
            for problem in error.problems
        ]
        if len(error.problems) == 1:
            facts |= facts["problems"][0]
    return facts


def _where(error: LockgateError, locate: Locate | None) -> str | None:
    path = error.path or _end(error)
    return locate(path) if locate and path else None


def _end(error: LockgateError) -> Path:
    """Which end of the pipeline an error without a path is about."""
    if isinstance(error, ExtractError):
        return ("source",)
    return ("target",) if isinstance(error, LoadError | RefusedError) else ()
