"""Translates pydantic's validation errors to `FieldError`s, with the valid range or choices of each value."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel, JsonValue

from proxygrad.errors import near
from proxygrad.protocol.problems import FieldError

#: Longest offending value that is repeated to the caller, in characters: enough to recognize it.
SHOWN_CHARACTERS = 200
#: Beyond 64 bits a whole number is described, not repeated: few JSON readers can take it.
SHOWN_INTEGER = 2**63

#: Of more errors than this the first are reported, and the others counted: an answer stays small.
MAX_REPORTED = 20

#: A position or a range, and what was given in its place, is repeated; a longer one is described.
SHOWN_ITEMS, SHOWN_NAME = 4, 40
#: Their sentences say what was given.
_SAID = frozenset({"missing", "value_error", "too_short", "too_long"})


def field_errors(
    errors: Sequence[Mapping[str, Any]], location: Sequence[str], model: type[BaseModel] | None
) -> list[FieldError]:
    """Translate the first `MAX_REPORTED` of pydantic's errors.

    `location` is put before each place, `model` knows the valid ranges.
    """
    return [_field_error(error, location, model) for error in errors[:MAX_REPORTED]]


def summary(errors: Sequence[FieldError], count: int | None = None) -> str:
    """One sentence for `count` errors (default: those of `errors`), the first three in words."""
    first = "; ".join(f"{'.'.join(map(str, each.location))}: {each.detail}" for each in errors[:3])
    count = len(errors) if count is None else count
    return first if count <= 3 else f"{first}; and {count - 3} more"


def shown(value: object) -> JsonValue:
    """`value` as it can be repeated in JSON: finite, short, not deep."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < SHOWN_INTEGER else f"a whole number of {value.bit_length()} bits"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return shortened(value)
    return _items_shown(value) if _is_small(value) else reprlib.repr(value)[:SHOWN_CHARACTERS]


def shortened(text: str) -> str:
    """`text`, or its first `SHOWN_CHARACTERS` characters and an ellipsis."""
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def _items_shown(value: Any) -> JsonValue:
    if isinstance(value, dict):
        return {name: shown(item) for name, item in value.items()}
    return [shown(item) for item in value]


def _is_small(value: object) -> bool:
    """Whether it is a list or an object of a few values, none of which is one itself."""
    if isinstance(value, dict):
        named = all(isinstance(name, str) and len(name) <= SHOWN_NAME for name in value)
        return named and _is_small(list(value.values()))
    if not isinstance(value, list) or len(value) > SHOWN_ITEMS:
        return False
    return not any(isinstance(item, list | dict) for item in value)


def _field_error(
    error: Mapping[str, Any], location: Sequence[str], model: type[BaseModel] | None
) -> FieldError:
    path, fields = _place(error, {} if model is None else _schema(model))
    bounds = _from_context(error.get("ctx", {}))
    if model is not None and len(error["loc"]) == 1:
        bounds |= _field_bounds(model, str(error["loc"][0]))
    whole = error["type"] == "missing" or not error["loc"]  # its sentence names the values
    value = None if whole else shown(error.get("input"))
    where = [name if isinstance(name, int) else shortened(name) for name in path]
    field_error = FieldError(
        location=[*location, *where], detail=_sentence(error, bounds), value=value, **bounds
    )
    if error["type"] == "extra_forbidden" and fields:
        field_error.choices = near(str(error["loc"][-1]), fields) or fields
        field_error.detail = f"unknown field; valid: {', '.join(field_error.choices)}"
    return field_error


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _place(error: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[list[str | int], list[str]]:
    """The path of a value, and the fields of the object that its last name stands in.

    Pydantic puts names of its own for the members of a union into the path: what is no field in the JSON
    Schema is dropped. Without a schema, a name with a bracket is: no parameter has one.
    """
    definitions: Mapping[str, Any] = schema.get("$defs", {})
    here, path, fields = _members(schema, definitions), list[str | int](), list[str]()
    parts: Sequence[str | int] = error["loc"]
    for number, part in enumerate(parts):
        foreign = error["type"] == "extra_forbidden" and number == len(parts) - 1
        if isinstance(part, int):
            inner = [each["items"] for each in here if isinstance(each.get("items"), dict)]
        else:
            fields = [name for each in here for name in each.get("properties", ())]
            if not foreign and (part not in fields if schema else "[" in part):
                continue
            inner = [each["properties"][part] for each in here if part in each.get("properties", ())]
        path.append(part)
        here = [member for each in inner for member in _members(each, definitions)]
    return path, fields


def _members(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schema, or those of which a value has to fit one."""
    if "$ref" in schema:
        return _members(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    several = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return [member for each in several for member in _members(each, definitions)] or [schema]


def _sentence(error: Mapping[str, Any], bounds: Mapping[str, Any]) -> str:
    text = str(error["msg"]).removeprefix("Input ").removeprefix("Value error, ")
    text = text[:1].lower() + text[1:].replace(" after validation", "")
    if {"minimum", "maximum"} <= bounds.keys():
        text += f" (valid: {bounds['minimum']} to {bounds['maximum']})"
    elif bounds.get("choices") and error["type"] != "literal_error":  # that one names them
        text += f" (valid: {', '.join(bounds['choices'])})"
    return text if error["type"] in _SAID else f"{text}, not {_quoted(error.get('input'))}"


def _quoted(value: object) -> str:
    short = shown(value)
    return repr(short) if isinstance(value, str) else str(short)


def _from_context(context: Mapping[str, Any]) -> dict[str, Any]:
    names = {"ge": "minimum", "gt": "minimum", "le": "maximum", "lt": "maximum"}
    bounds: dict[str, Any] = {names[key]: value for key, value in context.items() if key in names}
    listed = re.findall(r"'([^']*)'", str(context.get("expected", "")))  # "'queued', 'running' or 'failed'"
    return bounds | {"choices": listed} if listed else bounds


def _field_bounds(model: type[BaseModel], name: str) -> dict[str, Any]:
    """The least, the greatest and the listed values that a field's JSON Schema allows."""
    field = _schema(model)["properties"].get(name, {})
    bounds: dict[str, Any] = {}
    for schema in (field, *field.get("anyOf", ())):
        if "minimum" in schema or "exclusiveMinimum" in schema:
            bounds["minimum"] = schema.get("minimum", schema.get("exclusiveMinimum"))
        if "maximum" in schema:
            bounds["maximum"] = schema["maximum"]
        elif "exclusiveMaximum" in schema:
            step = 1 if schema.get("type") == "integer" else 0
            bounds["maximum"] = schema["exclusiveMaximum"] - step
        if "enum" in schema:
            bounds["choices"] = list(schema["enum"])
    return bounds
