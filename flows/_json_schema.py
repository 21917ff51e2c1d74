"""The JSON Schema of a configuration file, with which editors complete and check it as it is typed."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from flows._keys import PipelineKeys

_REFERENCE = {"type": "string", "pattern": r"\$\{|\{\{"}


def json_schema() -> dict[str, Any]:
    """The schema of a whole file, made from the registries: it knows every source, step, rule, target and alert."""
    pipelines = TypeAdapter(dict[str, PipelineKeys]).json_schema()
    definitions: dict[str, Any] = {}
    for name, definition in pipelines.pop("$defs").items():
        definitions[name] = _rewritten(definition, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Lockgate pipelines",
        "type": "object",
        "required": ["pipelines"],
        "properties": {"pipelines": {**pipelines, "minProperties": 1}},
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
        "$defs": definitions,
    }


def _rewritten(schema: Any, definitions: dict[str, Any]) -> Any:
    """`schema`, where a reference can stand for anything that is not a text, and each thing is defined once."""
    if isinstance(schema, list):
        return [_rewritten(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: _rewritten(value, definitions) for key, value in schema.items()}
    if "if" in inner and "title" in inner["then"]:
        name = inner["then"]["title"]
        definitions[name] = inner["then"]
        return {**inner, "then": {"$ref": f"#/$defs/{name}"}}
    if not isinstance(schema.get("enum"), list) and schema.get("type") not in ("integer", "number", "boolean"):
        return inner
    said = {key: inner.pop(key) for key in ("title", "description", "default") if key in inner}
    return {**said, "anyOf": [inner, _REFERENCE]}
