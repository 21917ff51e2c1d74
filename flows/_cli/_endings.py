"""How a verb ends when something goes wrong: one line on stderr, an exit code, and no traceback and no secret."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import click

from flows._cli._group import INTERRUPTED
from flows._errors import Locate, as_json, rendered
from flows._secrets import redact
from transforms._errors import LockgateError

FAILED = 1
_LEVEL = "LOCKGATE_LOG_LEVEL"
_LEAVING = (SystemExit, click.exceptions.Exit, click.ClickException)


def verbose() -> None:
    """Show tracebacks from now on, in this process and its children."""
    os.environ[_LEVEL] = "DEBUG"


def ended(
    work: Callable[[], int],
    *,
    name: str,
    locate: Callable[[], Locate | None],
    facts: Callable[[], Mapping[str, Any]] | None = None,
    interrupted: str = "interrupted.",
) -> int:
    """Do `work` and return its exit code; whatever it raises becomes one line and the exit code of that.

    Args:
        work: returns 0 where all is well.
        name: whose line it is, where the error does not say: a verb or a pipeline.
        locate: asked when an error is to be shown, for it may become known on the way.
        facts: for programs: the object on stdout, to which the error is added; None where people read.
        interrupted: what to say after Ctrl-C.
    """
    try:
        return work()
    except _LEAVING:
        raise
    except BaseException as error:  # noqa: BLE001 - Polars' panics are BaseExceptions, and must end well too
        code, text, described = _told(error, name, locate(), interrupted)
        if os.environ.get(_LEVEL, "").upper() == "DEBUG":
            click.echo(redact("".join(traceback.format_exception(error)).rstrip()), err=True)
    sys.stdout.flush()
    click.echo(redact(text), err=True)
    if facts is not None:
        described["message"] = redact(described["message"])
        click.echo(json.dumps({**facts(), "error": described}, ensure_ascii=False, default=str))
    return code


def _told(error: BaseException, name: str, locate: Locate | None, interrupted: str) -> tuple[int, str, dict[str, Any]]:
    """The exit code, the line for people, and the object for programs."""
    if isinstance(error, LockgateError):
        return error.exit_code, rendered(error, locate), as_json(error, locate)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, f"{name}: {interrupted}", {"type": "KeyboardInterrupt", "message": interrupted}
    kind = type(error).__name__
    reason = str(error).strip().partition("\n")[0].rstrip(".")
    said = f"{kind}: {reason}" if reason else kind
    advice = "This is a fault of Lockgate or of a custom step. To see the traceback, add --verbose."
    return FAILED, f"{name}: {said}. {advice}", {"type": kind, "message": said}
