"""The keys of a pydantic model as a table, each with what can stand there, in plain words."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs._docstring import parsed
from flows._schedule import seconds
from flows._secrets import Secret
from flows._shape import Tagged

_SCALARS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
    datetime: "a date, or a date and a time",
    Secret: "text, secret",
    Any: "any value",
}
_VALUE = "text, number, date, time, `true` or `false`"
_A_VALUE = 5  # a union of at least so many scalars means just any of them


def table(model: type[BaseModel], said: dict[str, str] | None = None, *, without: tuple[str, ...] = ()) -> str:
    """A Markdown table of the model's keys.

    Args:
        model: whose keys.
        said: what each key means; from the model's own docstring where left out.
        without: keys that need no line.
    """
    meanings = parsed(model).entries if said is None else said
    rows = [
        (f"`{key}`", words(annotated(field)), default(field), _meaning(meanings, name, key, field))
        for name, key, field in keys(model)
        if key not in without
    ]
    if not rows:
        return ""
    lines = [("key", "value", "default", "meaning"), ("---",) * 4, *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def keys(model: type[BaseModel]) -> Iterator[tuple[str, str, FieldInfo]]:
    """Name, key in YAML, and field of everything in a model."""
    return ((name, field.alias or name, field) for name, field in model.model_fields.items())


def annotated(field: FieldInfo) -> Any:
    """A field's type with what was said about it."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _meaning(meanings: dict[str, str], name: str, key: str, field: FieldInfo) -> str:
    return meanings.get(key) or meanings.get(name) or field.description or ""


def words(annotation: Any) -> str:
    """What can stand there: ``list of texts``, ``whole number of at least 1``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in _COMPOSED:
        return _COMPOSED[origin](arguments)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{anchor(annotation)})"
    return _SCALARS[annotation]


def default(field: FieldInfo) -> str:
    """What is taken where the key is left out; "required" where it cannot be."""
    if field.is_required():
        is_said_elsewhere = field.annotation is Any and not field.metadata  # `parameters`: it depends on the type
        return "" if is_said_elsewhere else "required"
    value = field.get_default(call_default_factory=True)
    empty = value is None or value is PydanticUndefined or isinstance(value, BaseModel) or value in ((), {})
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return "" if empty else f"`{shown if shown.isprintable() else repr(shown)[1:-1]}`"


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model that can stand there, and those inside of them, each before its own."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for inner in get_args(annotation):
            yield from models(inner)


def anchor(model: type[BaseModel]) -> str:
    """Where a page explains a model: names like `Order` are there for several transforms."""
    return f"{model.__module__.rpartition('.')[2].strip('_')}-{model.__name__.lower()}"


def _restricted(arguments: tuple[Any, ...]) -> str:
    annotation, *marks = arguments
    tagged = next((mark for mark in marks if isinstance(mark, Tagged)), None)
    if tagged is not None:
        return f"[{tagged.registry.kind}]({tagged.registry.kind}s.md)"
    if any(isinstance(mark, BeforeValidator) and mark.func is seconds for mark in marks):
        return "seconds, or a text like `30s`, `5m`, `1h`, `2d`"
    accepted = [mark.json_schema_input_type for mark in marks if isinstance(mark, BeforeValidator)]
    if accepted and accepted[0] is not PydanticUndefined:
        return words(accepted[0])
    flat = [mark for outer in marks for mark in (outer.metadata if isinstance(outer, FieldInfo) else (outer,))]
    least = next((mark.ge for mark in flat if isinstance(mark, annotated_types.Ge)), None)
    most = next((mark.le for mark in flat if isinstance(mark, annotated_types.Le)), None)
    said = words(annotation)
    if least is not None and most is not None:
        return f"{said} from {least:,} to {most:,}"
    return said if least is None else f"{said} of at least {least:,}"


def _one_of(arguments: tuple[Any, ...]) -> str:
    options = [option for option in arguments if option is not type(None)]
    scalars = [option for option in options if isinstance(option, type) and not issubclass(option, BaseModel)]
    if len(scalars) >= _A_VALUE:
        return _VALUE
    literals = [option for option in options if get_origin(option) is Literal]
    if len(literals) == len(options):
        return words(Literal[tuple(value for option in options for value in get_args(option))])
    return " or ".join(words(option) for option in options)


def _listed(values: tuple[Any, ...]) -> str:
    names = [f"`{value}`" for value in values]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _plural(said: str) -> str:
    plurals = {"text": "texts", "whole number": "whole numbers", "number": "numbers", "any value": "values"}
    return plurals.get(said) or re.sub(r"^\[(\w+)\]", r"[\1s]", said)


_COMPOSED: dict[Any, Callable[[tuple[Any, ...]], str]] = {
    Annotated: _restricted,
    Union: _one_of,
    types.UnionType: _one_of,
    Literal: _listed,
    list: lambda arguments: f"list of {_plural(words(arguments[0]))}",
    tuple: lambda arguments: f"list of {_plural(words(arguments[0]))}",
    dict: lambda arguments: f"mapping to {_plural(words(arguments[1]))}",
}
