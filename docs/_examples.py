"""Examples in YAML, from examples in Python: a docstring's own is run, and what it calls is written down.

So no example can be wrong, and whoever writes a transform or a rule writes one example only.
"""

from __future__ import annotations

import ast
import doctest
import io
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import polars as pl
from ruamel.yaml import YAML

from docs._docstring import parsed
from transforms._transform import Transform
from validations._rule import Rule

_WIDTH = 100
Call = tuple[tuple[Any, ...], dict[str, Any]]


def steps(transform: Transform) -> list[dict[str, Any]]:
    """The example of a transform as ``transformations``."""
    names: dict[int, str] = {}

    def written(call: Call) -> dict[str, Any]:
        _frame, arguments = call
        given = {name: names.get(id(value), value) for name, value in arguments.items()}
        return {"type": transform.name, "parameters": _plain(transform, given)}

    return _once([written(call) for call in _calls(transform.function, names)])


def checks(rule: Rule) -> list[dict[str, Any]]:
    """The example of a rule as ``quality_rules``."""

    def written(call: Call) -> dict[str, Any]:
        leading, arguments = call
        return {"type": rule.name, **_field(leading), **_parameters(_plain(rule, arguments))}

    return _once([written(call) for call in _calls(rule.function, {})])


def as_yaml(value: Any) -> str:
    """`value` as a person would write it: what is short on one line."""
    yaml = YAML()
    yaml.default_flow_style = None  # what has no mapping or list inside of it is on one line
    yaml.width = _WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(value, stream)
    return textwrap.dedent(stream.getvalue()).strip()


def imports(function: Callable[..., Any]) -> str:
    """The lines that a docstring's example needs before it, as a doctest."""
    examples = doctest.DocTestParser().get_examples(parsed(function).example)
    tree = ast.parse("".join(example.source for example in examples))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    module = sys.modules[function.__module__]
    own = sorted(name for name in used if getattr(vars(module).get(name), "__module__", "") == module.__name__)
    polars = [">>> import polars as pl"] if "pl" in used else []
    return "\n".join([*polars, f">>> from {module.__name__} import {', '.join(own)}"])


def _calls(function: Callable[..., Any], names: dict[int, str]) -> list[Call]:
    """How a docstring's example calls its function; `names` are filled with what it calls its frames."""
    calls: list[Call] = []

    def recorded(*leading: Any, **arguments: Any) -> Any:
        calls.append((leading, arguments))
        return function(*leading, **arguments)

    names_there = dict(vars(sys.modules[function.__module__])) | {function.__name__: recorded}
    source = "".join(example.source for example in doctest.DocTestParser().get_examples(parsed(function).example))
    exec(compile(source, function.__name__, "exec"), names_there)  # noqa: S102 - our own docstrings
    names |= {id(value): name for name, value in names_there.items() if isinstance(value, pl.LazyFrame)}
    return calls


def _plain(kind: Transform | Rule, arguments: dict[str, Any]) -> dict[str, Any]:
    parameters = kind.parameters.model_validate(arguments)
    return parameters.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _field(leading: tuple[Any, ...]) -> dict[str, Any]:
    for argument in leading:
        if isinstance(argument, pl.Expr):
            return {"field": argument.meta.output_name()}
        if isinstance(argument, tuple):
            return {"field": argument[0] if len(argument) == 1 else list(argument)}
    return {}


def _parameters(plain: dict[str, Any]) -> dict[str, Any]:
    return {"parameters": plain} if plain else {}


def _once(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item for position, item in enumerate(items) if item not in items[:position]]
