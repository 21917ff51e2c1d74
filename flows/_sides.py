"""Which end of a run an error belongs to, and the class of error that each end has for what can go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flows import _errors
from transforms._errors import LockgateError

End = Literal["source", "target"]

#: What can go wrong, and the middle of the class's name; anything else is an ExtractError or a LoadError.
_CLASSES = {
    "unreachable": "Unreachable",
    "authentication": "Authentication",
    "permission": "Permission",
    "missing": "Missing",
    "type": "Type",
    "busy": "Busy",
    "lost": "ConnectionLost",
}


@dataclass(frozen=True)
class Side:
    """Which end of a run an error belongs to, and what a person calls it.

    Attributes:
        end: "source" or "target".
        label: ``source 'source'``, ``target analytics.dim_customers``; empty where whoever catches says it.
        address: the connection string with stars, for errors about reaching it.
    """

    end: End
    label: str
    address: str = ""

    def error(self, what: str, message: str) -> LockgateError:
        """The error class of this end for `what`: ``unreachable``, ``missing``, ``type``, ..."""
        prefix = self.end.capitalize()
        general = _errors.ExtractError if self.end == "source" else _errors.LoadError
        kind: type[LockgateError] = getattr(_errors, f"{prefix}{_CLASSES[what]}Error") if what in _CLASSES else general
        return kind(f"{self.label}: {message}" if self.label else message)
