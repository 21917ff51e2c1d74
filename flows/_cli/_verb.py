"""What every verb has: ``--config``, ``--json`` and ``--verbose``, the configuration, and a decent end."""

from __future__ import annotations

import gc
import json
import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flows._cli import _endings
from flows._cli._group import PROGRAM, runnable
from flows._errors import Locate

if TYPE_CHECKING:
    from flows._config import Configuration, Pipeline

Function = TypeVar("Function", bound=Callable[..., Any])
_HERE = "pipelines.yaml"
_NO_COLOR = "NO_COLOR"


@dataclass
class Asked:
    """What was asked for on the command line; the first argument of every verb.

    Attributes:
        named: the configuration that was named with ``--config``.
        as_json: whether a program reads the answer.
        locate: answers for the pipeline, or the configuration, that was loaded last.
        facts: what stands beside the error in the answer of a verb that failed, for programs.
    """

    named: str | None = None
    as_json: bool = False
    locate: Locate | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> File:
        """The file or folder: named here, or by ``LOCKGATE_CONFIG``, else ``pipelines.yaml``, else the examples."""
        if named := self.named or os.environ.get("LOCKGATE_CONFIG"):
            return File(named)
        return File(_HERE) if File(_HERE).exists() else _examples()

    def configuration(self, sets: Iterable[str] = ()) -> Configuration:
        """Load the configuration, with values of ``--set key=value`` in it."""
        return self._loaded(dict(map(_parted, sets)))

    def _loaded(self, overrides: Mapping[str, str]) -> Configuration:
        gc.disable()  # what is imported and loaded stays: looking for garbage in it is a tenth of the time
        try:
            from flows._config import load  # noqa: PLC0415 - a mistyped verb is not worth half a second

            loaded = load(self.file, overrides=overrides)
        finally:
            gc.enable()
        self.locate = loaded.locate
        return loaded

    def pipeline(self, name: str, sets: Iterable[str] = ()) -> Pipeline:
        """Load the pipeline called `name`; a key of ``--set`` is one of this pipeline."""
        if sets:
            self.configuration().pipeline(name)  # a wrong name is said to be one, not a wrong key
        found = self._loaded(overrides(name, sets)).pipeline(name)
        self.locate = found.locate
        return found

    def answer(self, facts: Any, text: str) -> int:
        """Print the result: `facts` for programs, `text` for people; returns the exit code 0."""
        colour = False if os.environ.get(_NO_COLOR) else None
        click.echo(json.dumps(facts, ensure_ascii=False, default=str) if self.as_json else text, color=colour)
        return 0

    def see(self, verb: str) -> str:
        """The command of another verb about the same configuration, to be copied."""
        return f"{runnable()} {verb}{f' --config {shlex.quote(self.named)}' if self.named else ''}"


class Verb(click.Command):
    """A verb, called with what was asked for; an error ends it with one line and an exit code."""

    def invoke(self, ctx: click.Context) -> int:
        """Run the verb; returns its exit code."""
        asked = Asked(ctx.params.pop("config", None), ctx.params.pop("as_json", False))
        if ctx.params.pop("verbose"):
            _endings.verbose()
        return _endings.ended(
            lambda: ctx.invoke(self.callback, asked, **ctx.params) if self.callback else 0,
            name=ctx.command_path.removeprefix(PROGRAM).strip(),
            locate=lambda: asked.locate,
            facts=(lambda: asked.facts) if asked.as_json else None,
        )


def verb(name: str, *, group: click.Group | None = None, configured: bool = True) -> Callable[[Function], Verb]:
    """Make a function a verb: ``function(asked, ...) -> exit code``; its docstring is its help.

    Args:
        name: as people write it.
        group: the verb that it belongs to; None for one of the first rank.
        configured: whether it is about a configuration, and so takes ``--config``, and ``--json``.
    """

    def made(function: Function) -> Verb:
        decorated: Any = _VERBOSE(function)
        if configured:
            decorated = _CONFIG(_JSON(decorated))
        command = click.command(name, cls=Verb)(decorated)
        if group is not None:
            group.add_command(command)
        return command

    return made


_CONFIG = click.option(
    "--config",
    metavar="PATH",
    help=f"A YAML file, or a folder of them. Default: LOCKGATE_CONFIG, else {_HERE} here, else the examples.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Answer with JSON, for programs.")
_VERBOSE = click.option("--verbose", is_flag=True, help="Show tracebacks; the same as LOCKGATE_LOG_LEVEL=DEBUG.")

name_argument = click.argument("name")
names_argument = click.argument("names", metavar="NAME...", nargs=-1)
sets_option = click.option(
    "--set",
    "sets",
    metavar="KEY=VALUE",
    multiple=True,
    callback=lambda _context, _option, values: [value for value in values if _parted(value)],
    help="Set a key of the pipeline for this time: --set target.table_name=scratch. Can be repeated.",
)


def limit_option(default: int) -> Callable[[Function], Function]:
    """``--limit N``: how much to show at most."""
    return click.option(
        "--limit", type=click.IntRange(min=1), default=default, show_default=True, metavar="N", help="Show at most N."
    )


def overrides(name: str, sets: Iterable[str]) -> dict[str, str]:
    """The values of ``--set key=value`` by their place, for a pipeline."""
    return dict(_parted(_below(name, text)) for text in sets)


def _examples() -> File:
    """The folder of the pipelines that come with Lockgate, as short as it can be written."""
    folder = File(__file__).parents[1]
    return folder.relative_to(File.cwd()) if folder.is_relative_to(File.cwd()) else folder


def _parted(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise click.BadParameter(f"{text!r} is not KEY=VALUE. Write it like target.table_name=scratch")
    return key.strip(), value


def _below(name: str, text: str) -> str:
    first = text.partition("=")[0].partition(".")[0].strip()
    return text if first in {name, "pipelines"} else f"{name}.{text}"
