"""What is wrong with a value: pydantic's findings in the words of `problems.Flaw`."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, JsonValue

from proxygrad.errors import near
from service.problems import Flaw

#: Longest offending value that is repeated to the caller, in characters: enough to recognise it.
SHOWN_CHARACTERS = 200
#: Beyond 64 bits a whole number is described, not repeated: few JSON readers can take it.
SHOWN_INTEGER = 2**63

#: A position, and what was given in its place, is repeated; a longer list is described.
SHOWN_ITEMS = 4


def flaws(
    found: Sequence[Mapping[str, Any]], location: Sequence[str], model: type[BaseModel] | None
) -> list[Flaw]:
    """Translate pydantic's errors; `location` is put before each place, `model` knows the valid ranges."""
    return [_flaw(error, location, model) for error in found]


def summary(found: Sequence[Flaw]) -> str:
    """One sentence for a list of flaws, the first three in words."""
    said = "; ".join(f"{'.'.join(map(str, flaw.location))}: {flaw.detail}" for flaw in found[:3])
    return said if len(found) <= 3 else f"{said}; and {len(found) - 3} more"


def shown(value: object) -> JsonValue:
    """`value` as it can be repeated in JSON: finite, short, not deep."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < SHOWN_INTEGER else f"a whole number of {value.bit_length()} bits"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value if len(value) <= SHOWN_CHARACTERS else value[:SHOWN_CHARACTERS] + "…"
    if isinstance(value, list) and len(value) <= SHOWN_ITEMS and not any(map(_is_nested, value)):
        return [shown(item) for item in value]
    return reprlib.repr(value)[:SHOWN_CHARACTERS]


def _is_nested(value: object) -> bool:
    return isinstance(value, list | dict)


def _flaw(error: Mapping[str, Any], location: Sequence[str], model: type[BaseModel] | None) -> Flaw:
    place = [*location, *error["loc"]]
    bounds = _from_context(error.get("ctx", {}))
    if model is not None and len(error["loc"]) == 1:
        bounds |= _field_bounds(model, str(error["loc"][0]))
    whole = error["type"] == "missing" or not error["loc"]  # its sentence names the values
    value = None if whole else shown(error.get("input"))
    flaw = Flaw(location=place, detail=_sentence(error, bounds), value=value, **bounds)
    if error["type"] == "extra_forbidden" and model is not None:
        fields = list(model.model_fields)
        flaw.choices = near(str(error["loc"][-1]), fields) or fields
        flaw.detail = f"unknown field; valid: {', '.join(flaw.choices)}"
    return flaw


def _sentence(error: Mapping[str, Any], bounds: Mapping[str, Any]) -> str:
    text = str(error["msg"]).removeprefix("Input ").removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    if {"minimum", "maximum"} <= bounds.keys():
        text += f" (valid: {bounds['minimum']} to {bounds['maximum']})"
    elif bounds.get("choices"):
        text += f" (valid: {', '.join(bounds['choices'])})"
    if error["type"] == "missing" or (error["type"] == "value_error" and not error["loc"]):
        return text
    return f"{text}, not {_quoted(error.get('input'))}"


def _quoted(value: object) -> str:
    short = shown(value)
    return repr(short) if isinstance(value, str) else str(short)


def _from_context(context: Mapping[str, Any]) -> dict[str, Any]:
    names = {"ge": "minimum", "gt": "minimum", "le": "maximum", "lt": "maximum"}
    return {names[key]: value for key, value in context.items() if key in names}


def _field_bounds(model: type[BaseModel], name: str) -> dict[str, Any]:
    """The least, the greatest and the listed values that a field's JSON Schema allows."""
    field = model.model_json_schema()["properties"].get(name, {})
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
