"""The pages of the reference: one for each kind of thing that has a name, one for the keys, one for the verbs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import starmap
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from docs import _examples
from docs._docstring import Docstring, parsed
from docs._keys import anchor, annotated, keys, models, table
from flows import _keys
from flows.__main__ import main
from flows._cli._group import PROGRAM, Verbs
from flows._incremental import Incremental
from flows._schedule import Schedule
from flows.alerts._base import alerts
from flows.sources._base import sources
from flows.targets._base import targets
from transforms._registry import Registry
from transforms._transform import Transform, transforms
from validations._rule import Rule, rules

FOLDER = Path(__file__).parent / "reference"
_MADE = "<!-- Made by `make docs` from the code; do not edit. -->"
_WIDTH = 100


def pages() -> dict[str, str]:
    """Every page by its file name."""
    return {
        "command_line.md": _page("The command line", _verbs()),
        "configuration.md": _page("The keys of a pipeline", _configuration()),
        "transforms.md": _page("Transforms", _catalogue(transforms, _transform, lambda each: each.function)),
        "rules.md": _page("Quality rules", _catalogue(rules, _rule, lambda each: each.function)),
        "sources.md": _page("Sources", _catalogue(sources, lambda name, _kind: _end(name, _source(name)))),
        "targets.md": _page("Targets", _catalogue(targets, _end)),
        "alerts.md": _page("Alerts", _catalogue(alerts, _end)),
    }


def _page(title: str, parts: Iterable[str]) -> str:
    return "\n\n".join([_MADE, f"# {title}", *filter(None, parts)]) + "\n"


def _catalogue(
    registry: Registry[Any],
    section: Callable[[str, Any], Iterable[str]],
    code: Callable[[Any], Any] = lambda entry: entry,
) -> Iterator[str]:
    """What comes with Lockgate, a section each; other people's packages have pages of their own."""
    own = {name: entry for name, entry in registry if code(entry).__module__.startswith(f"{registry.package}.")}
    yield "\n".join(f"- [`{name}`](#{name}): {_first(parsed(code(entry)))}" for name, entry in own.items())
    for parts in starmap(section, own.items()):
        yield from parts


def _first(said: Docstring) -> str:
    sentence, stop, _more = " ".join(said.prose.split()).partition(". ")
    return f"{sentence}." if stop else sentence


# --- transforms and rules ---


def _transform(name: str, each: Transform) -> Iterator[str]:
    yield from _function(name, each, _examples.steps(each))


def _rule(name: str, each: Rule) -> Iterator[str]:
    others = [alias for alias, kind in rules.aliases.items() if kind == name]
    about = "Looks at each row." if each.about == "row" else "Looks at the whole set, when all rows are staged."
    columns = f" Columns: {', '.join(each.accepts)}." if each.accepts else ""
    alias = f" Also called `{'`, `'.join(others)}`." if others else ""
    yield from _function(name, each, _examples.checks(each), f"{about}{columns}{alias}")


def _function(name: str, each: Transform | Rule, example: list[dict[str, Any]], more: str = "") -> Iterator[str]:
    said = parsed(each.function)
    yield f"## {name}"
    yield said.prose
    yield more
    yield f"```yaml\n{_examples.as_yaml(example)}\n```"
    yield table(each.parameters, said.entries)
    for model in _inner(each.parameters):
        yield from _model(model)
    yield _sections(said)
    yield f"The same in Python:\n\n```python\n{_examples.imports(each.function)}\n{said.example}\n```"


def _sections(said: Docstring) -> str:
    return "\n".join(f"- **{name}**: {text}".replace(": \n", ":\n") for name, text in said.sections.items())


# --- sources, targets, alerts, keys ---


def _end(name: str, kind: type[BaseModel]) -> Iterator[str]:
    said = parsed(kind)
    yield f"## {name}"
    yield said.prose
    yield table(kind, _inherited(kind), without=("type",))
    for model in _inner(kind):
        yield from _model(model)
    yield _sections(said)


def _source(name: str) -> type[BaseModel]:
    """A source's keys, with those that the pipeline adds to every source."""
    (tagged,) = _keys.PipelineKeys.model_fields["source"].metadata
    model: type[BaseModel] = tagged.model_of(name)
    return model


def _inherited(kind: type[BaseModel]) -> dict[str, str]:
    """What a class and those it is made from say of its keys."""
    return {name: text for base in reversed(kind.__mro__) for name, text in parsed(base).entries.items()}


def _configuration() -> Iterator[str]:
    yield "Under `pipelines:`, below the pipeline's name:"
    yield table(_keys.PipelineKeys)
    for title, model in (
        ("schedule", Schedule),
        ("incremental", Incremental),
        ("transformations", _keys.StepKeys),
        ("quality_rules", _keys.RuleKeys),
        ("monitoring", _keys.Monitoring),
        ("error_handling", _keys.ErrorHandling),
        ("guards", _keys.GuardKeys),
        ("guards.row_count", _keys.RowCountKeys),
        ("quarantine", _keys.QuarantineKeys),
    ):
        yield f'<a id="{anchor(model)}"></a>\n\n## {title}'
        yield parsed(model).prose
        yield table(model)


def _inner(model: type[BaseModel]) -> list[type[BaseModel]]:
    """The models of a model's keys, and those of theirs, once each."""
    found: list[type[BaseModel]] = []
    waiting = [model]
    while waiting:
        for _name, _key, field in keys(waiting.pop(0)):
            new = [each for each in models(annotated(field)) if each not in found]
            found += new
            waiting += new
    return found


def _model(model: type[BaseModel]) -> Iterator[str]:
    yield f'<a id="{anchor(model)}"></a>\n\n**{model.__name__}**: {parsed(model).prose}'
    yield table(model)


# --- verbs ---


def _verbs() -> Iterator[str]:
    top = click.Context(main, info_name=PROGRAM, max_content_width=_WIDTH, terminal_width=_WIDTH)
    yield f"`{PROGRAM}` is also installed as `lockgate`."
    yield f"```text\n{top.get_help()}\n```"
    for verb in verbs(top):
        yield f"## {verb.command_path.removeprefix(PROGRAM).strip()}"
        yield f"```text\n{verb.get_help()}\n```"


def verbs(above: click.Context) -> Iterator[click.Context]:
    """The context of every verb, those of a nested group behind it."""
    group = above.command
    if isinstance(group, Verbs):
        for name in group.list_commands(above):
            command = group.get_command(above, name)
            assert command is not None  # noqa: S101 - it was listed
            below = click.Context(command, info_name=name, parent=above)
            yield below
            yield from verbs(below)
