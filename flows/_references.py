"""The grammar of references to values that are kept elsewhere, and their resolution.

    ${NAME}                            an environment variable; it must be set
    ${NAME:-default}                   an environment variable, or `default` where it is unset or empty
    {{ $NAME }}                        the same as ${NAME}
    {{ prefect.blocks.secret.name }}   a Secret block of Prefect
    {{ prefect.variables.name }}       a variable of Prefect
    $${                                the two characters themselves

A default holds no braces. What a reference stands for is taken as it is, never searched for references again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from flows._errors import SecretError

Kind = Literal["environment", "block", "variable", "unknown"]

_TOKEN = re.compile(r"\$\$\{|\$\{(?P<dollar>[^{}]*)\}|\$\{|\{\{\s*(?P<braces>[^{}]*?)\s*\}\}")
_NAME = r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
_DOLLAR = re.compile(rf"{_NAME}(:-(?P<default>.*))?", re.DOTALL)
_BRACES: tuple[tuple[Kind, str], ...] = (
    ("environment", rf"\${_NAME}"),
    ("block", r"prefect\.blocks\.secret\.(?P<name>[\w-]+)"),
    ("variable", r"prefect\.variables\.(?P<name>[\w-]+)"),
)

KNOWN = "${NAME}, ${NAME:-default}, {{ prefect.blocks.secret.name }}, {{ prefect.variables.name }}"


class MalformedReferenceError(ValueError):
    """A ``${`` or ``{{`` begins nothing that is known; the message shows no part of the text, which may be a secret."""

    def __init__(self, begins: str) -> None:
        super().__init__(f"'{begins}' begins no reference. Known: {KNOWN}. $${{ stands for the characters themselves.")


@dataclass(frozen=True)
class Reference:
    """One reference, as it was written.

    Attributes:
        text: as it was written.
        kind: where the value is kept; "unknown" for braces that are no reference of ours.
        name: its name there.
        default: what stands in where an environment variable is unset or empty.
    """

    text: str
    kind: Kind
    name: str
    default: str | None = None

    def value(self, environ: Mapping[str, str]) -> str:
        """What the reference stands for.

        Raises:
            SecretError: it is not set, not there, or Prefect cannot be asked.
        """
        if self.kind == "block":
            return _block(self)
        if self.kind == "variable":
            return _variable(self)
        found = environ.get(self.name)
        if self.default is not None:
            return found or self.default
        if found is None:
            raise SecretError(self.text, f"'{self.text}' is not set. Set the environment variable {self.name}.")
        return found


def parts(text: str) -> list[str | Reference]:
    """Part `text` into plain pieces and references.

    Raises:
        MalformedReferenceError: a ``${`` begins nothing that is known.
    """
    found: list[str | Reference] = []
    end = 0
    for token in _TOKEN.finditer(text):
        found.append(text[end : token.start()])
        found.append("${" if token[0] == "$${" else _reference(token))
        end = token.end()
    found.append(text[end:])
    return [part for part in found if part]


def _reference(token: re.Match[str]) -> Reference:
    if token["braces"] is not None:
        for kind, pattern in _BRACES:
            if known := re.fullmatch(pattern, token["braces"]):
                return Reference(token[0], kind, known["name"])
        return Reference(token[0], "unknown", token["braces"])
    known = _DOLLAR.fullmatch(token["dollar"] or "")
    if known is None:
        raise MalformedReferenceError("${")
    return Reference(token[0], "environment", known["name"], known["default"])


def _block(reference: Reference) -> str:
    from prefect.blocks.system import Secret  # noqa: PLC0415 - Prefect takes seconds to import
    from prefect.exceptions import ObjectNotFound  # noqa: PLC0415 - Prefect takes seconds to import

    try:
        # not `.get()`, which reads "012" as the number 12
        value = cast("Secret[Any]", Secret.load(reference.name)).value.get_secret_value()
    except ValueError as error:
        if isinstance(error.__cause__, ObjectNotFound):
            raise _absent(reference, f"Prefect has no Secret block {reference.name!r}") from None
        raise _unreachable(reference, error) from None
    except Exception as error:  # noqa: BLE001 - whatever Prefect's client meets; its text could show the value
        raise _unreachable(reference, error) from None
    return _as_text(reference, value)


def _variable(reference: Reference) -> str:
    from prefect.variables import Variable  # noqa: PLC0415 - Prefect takes seconds to import

    try:
        value = Variable.get(reference.name)
    except Exception as error:  # noqa: BLE001 - as above
        raise _unreachable(reference, error) from None
    if value is None:
        raise _absent(reference, f"Prefect has no variable {reference.name!r}")
    return _as_text(reference, value)


def _as_text(reference: Reference, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        message = f"'{reference.text}' is a {type(value).__name__}. Store a text in Prefect under that name."
        raise SecretError(reference.text, message)
    return str(value)


def _absent(reference: Reference, why: str) -> SecretError:
    return SecretError(reference.text, f"'{reference.text}' cannot be resolved: {why}. Create it there.")


def _unreachable(reference: Reference, error: Exception) -> SecretError:
    return SecretError(
        reference.text,
        f"'{reference.text}' cannot be resolved: Prefect did not answer ({type(error).__name__}). "
        "Set PREFECT_API_URL to a running server.",
    )
