"""The command line as a whole: finds the verbs, and says in one line what it cannot understand."""

from __future__ import annotations

import importlib
import pkgutil
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from transforms._words import did_you_mean

PROGRAM = "python -m flows"
USAGE, INTERRUPTED = 2, 130
_EXTRA = re.compile(r"Got unexpected extra arguments? \((.*)\)")


def runnable() -> str:
    """`PROGRAM` as it can be typed here: with the path of this Python where ``python`` is another one."""
    if shutil.which("python") == sys.executable:
        return PROGRAM
    python = Path(sys.executable)
    here = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    return PROGRAM.replace("python", shlex.quote(str(here)), 1)


class Verbs(click.Group):
    """A group whose verbs are the files beside it without an underscore; a verb is imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the verbs; those of a nested group as click keeps them."""
        if ctx.parent is not None:
            return super().list_commands(ctx)
        found = pkgutil.iter_modules(importlib.import_module(__package__).__path__)
        return sorted(module.name for module in found if not module.name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb called `cmd_name`, or None."""
        if ctx.parent is not None or cmd_name not in self.list_commands(ctx):
            return super().get_command(ctx, cmd_name)
        command: click.Command = importlib.import_module(f"{__package__}.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb that `args` begin with.

        Raises:
            click.UsageError: there is none of that name.
        """
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            raise click.UsageError(f"{name!r} is not a verb.{did_you_mean(name, self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Do what the arguments say and leave with the exit code of the verb; 2 where they cannot be understood."""
        kwargs |= {"prog_name": PROGRAM, "standalone_mode": False}
        try:
            code = super().main(*args, **kwargs)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = USAGE
        except click.UsageError as error:
            click.echo(in_one_line(error), err=True)
            code = USAGE
        except click.Abort:  # Ctrl-C before a verb began
            code = INTERRUPTED
        sys.exit(code)


def in_one_line(error: click.UsageError) -> str:
    """What could not be understood, what would work, and where to read on."""
    path = error.ctx.command_path if error.ctx else PROGRAM
    verb = path.removeprefix(PROGRAM).strip()
    message = _said(error).rstrip(".")
    return f"{verb}{': ' if verb else ''}{message}. See: {path} --help"


def _said(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption) and error.ctx:
        known = [option for parameter in error.ctx.command.get_params(error.ctx) for option in parameter.opts]
        options = [option for option in known if option.startswith("--")]
        return f"{error.option_name!r} is not an option.{did_you_mean(error.option_name, options)}"
    if isinstance(error, click.MissingParameter) and error.param:
        return f"{error.param.human_readable_name} is missing"
    if isinstance(error, click.BadParameter) and error.param:
        name = error.param.opts[0] if error.param.param_type_name == "option" else error.param.human_readable_name
        return f"{name}: {error.message}"
    if extra := _EXTRA.fullmatch(error.message):
        return f"{extra[1]!r} is {'one argument' if ' ' not in extra[1] else 'arguments'} too many"
    return error.format_message()
