"""What belongs where in the configuration: the pydantic types, walked along a path of raw values.

A mapping whose ``type`` names a thing in a registry (a source, a step, a rule) is written in a model as
``Annotated[Any, Tagged(...)]``. It is validated by the model of that thing, which is imported only then.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from flows._secrets import Secret
from transforms._errors import LockgateError, Path
from transforms._registry import Registry

_SEQUENCES = (list, tuple, set, frozenset)


class Mistakes(ValueError):  # noqa: N818 - carried inside pydantic's own error, never raised to anyone
    """The mistakes of a nested model, on their way through pydantic."""

    def __init__(self, error: ValidationError) -> None:
        super().__init__("the mapping has mistakes")
        self.error = error


@dataclass(frozen=True)
class Tagged:
    """Says that a mapping's ``type`` names a thing in `registry`, whose keys are those of ``model_of(name)``."""

    registry: Registry[Any]
    model_of: Callable[[str], type[BaseModel]]

    def names(self) -> list[str]:
        """Every name that ``type`` can have."""
        return sorted({*self.registry.names(), *getattr(self.registry, "aliases", ())})

    def model(self, value: Any) -> type[BaseModel] | None:
        """The model of a raw mapping; None where its ``type`` is missing or unknown."""
        name = value.get("type") if isinstance(value, Mapping) else None
        try:
            return self.model_of(name) if isinstance(name, str) else None
        except LockgateError:
            return None

    def _validated(self, value: Any) -> BaseModel:
        if not isinstance(value, Mapping):
            raise PydanticCustomError("dict_type", "not a mapping")
        if value.get("type") is None:
            known = ", ".join(self.names())
            raise PydanticCustomError("mistake", "{said}", {"said": f"'type' is missing. Known: {known}."})
        if not isinstance(value["type"], str):
            raise PydanticCustomError("string_type", "not a text")
        try:
            return self.model_of(value["type"]).model_validate(value)
        except ValidationError as error:
            raise Mistakes(error) from None
        except LockgateError as error:
            raise PydanticCustomError("mistake", "{said}", {"said": error.message, "at": "type"}) from None

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validated)

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        known = self.names()
        branches = [
            {"if": {"properties": {"type": {"const": name}}}, "then": self._json_schema(name, handler)}
            for name in known
        ]
        return {"type": "object", "required": ["type"], "properties": {"type": {"enum": known}}, "allOf": branches}

    def _json_schema(self, name: str, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(self.model_of(name).__pydantic_core_schema__)
        return schema if "$ref" in schema else {**schema, "title": f"{self.registry.kind}_{name}"}


def options(annotation: Any, value: Any) -> Iterator[Any]:
    """The types that `annotation` allows, unions and markers taken apart; `value` chooses among tagged ones."""
    if get_origin(annotation) is Annotated:
        base, *marks = get_args(annotation)
        tagged = next((mark for mark in marks if isinstance(mark, Tagged)), None)
        if tagged is None:
            yield from options(base, value)
        elif model := tagged.model(value):
            yield model
    elif get_origin(annotation) in {Union, types.UnionType}:
        found = [inner for option in get_args(annotation) for inner in options(option, value)]
        yield from [inner for inner in found if _may_be(inner, value)] or found
    else:
        yield annotation


def child(annotation: Any, value: Any, key: Any) -> Any:
    """What `annotation` allows under `key` of the raw `value`; None where nothing is known of it."""
    found = [inner for option in options(annotation, value) for inner in _inside(option, key)]
    if len(found) == 1:
        return found[0]
    return Union[tuple(found)] if found else None  # noqa: UP007 - built at run time


def keys(annotation: Any, value: Any) -> list[str]:
    """The keys that models know for the mapping `value`."""
    models = [option for option in options(annotation, value) if _is_model(option)]
    return sorted({name for model in models for written in _fields(model) for name in written})


def needed(annotation: Any, value: Any) -> list[str]:
    """The keys that the mapping `value` must have."""
    models = [option for option in options(annotation, value) if _is_model(option)]
    return sorted({names[0] for model in models for names, field in _fields(model).items() if field.is_required()})


def at(annotation: Any, value: Any, path: Path) -> Any:
    """What `annotation` allows at `path` below the raw `value`; None where nothing is known of it."""
    for part in path:
        annotation = child(annotation, value, part)
        value = under(value, part)
    return annotation


def under(value: Any, part: str | int) -> Any:
    """The raw value under a key or index; None where there is none."""
    if isinstance(value, Mapping):
        return value.get(part)
    return value[part] if isinstance(value, list) and isinstance(part, int) and part < len(value) else None


def is_text(annotation: Any) -> bool:
    """Whether a scalar there is a text or a secret, and nothing else."""
    scalars = {option for option in options(annotation, None) if not _is_container(option)} - {type(None)}
    return bool(scalars) and scalars <= {str, Secret}


def is_container(annotation: Any) -> bool:
    """Whether a list or mapping can stand there."""
    return any(option is Any or _is_container(option) for option in options(annotation, None))


def is_secret(annotation: Any) -> bool:
    """Whether a scalar there is a secret."""
    return Secret in options(annotation, None)


def hides_secrets(annotation: Any, seen: frozenset[Any] = frozenset()) -> bool:
    """Whether a secret is, or may be, at or under that place; a value of a wrong kind is not shown there."""
    if annotation is Secret or any(isinstance(mark, Tagged) for mark in getattr(annotation, "__metadata__", ())):
        return True
    if _is_model(annotation):
        inner = () if annotation in seen else map(_annotated, annotation.model_fields.values())
        return any(hides_secrets(part, seen | {annotation}) for part in inner)
    return any(hides_secrets(part, seen) for part in get_args(annotation))


def _inside(option: Any, key: Any) -> Iterator[Any]:
    if _is_model(option):
        fields = _fields(option)
        yield from (_annotated(fields[names]) for names in fields if key in names)
    elif get_origin(option) in _SEQUENCES:
        yield get_args(option)[0]
    elif arguments := get_args(option) if _is_container(option) else ():
        yield arguments[-1]
    elif option in (Any, *_SEQUENCES, dict):
        yield Any


def _fields(model: type[BaseModel]) -> dict[tuple[str, ...], FieldInfo]:
    """A model's fields by the names that they have in YAML."""
    named: dict[tuple[str, ...], FieldInfo] = {}
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias or name]
        named[tuple(choice for choice in choices if isinstance(choice, str))] = field
    return named


def _annotated(field: FieldInfo) -> Any:
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _is_model(option: Any) -> bool:
    return isinstance(option, type) and issubclass(option, BaseModel)


def _may_be(option: Any, value: Any) -> bool:
    """Whether the mapping `value` does not say by its ``type`` that it is something else than this model."""
    kind = option.model_fields.get("type") if _is_model(option) and isinstance(value, Mapping) else None
    is_told = kind is not None and get_origin(kind.annotation) is Literal and "type" in value
    return not is_told or value["type"] in get_args(kind.annotation if kind else None)


def _is_container(option: Any) -> bool:
    kind = get_origin(option) or option
    return isinstance(kind, type) and issubclass(kind, (BaseModel, Mapping, *_SEQUENCES))
