"""Translates pydantic's validation errors to `FieldError`s, with the valid range or choices of each value."""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, JsonValue

from proxygrad.errors import near
from proxygrad.protocol.problems import FieldError
from service.problems import ProblemError

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
#: Their sentences name what is valid.
_NAMES_VALID = frozenset({"literal_error", "number_or_name"})
#: What is valid is a range.
_BOUND = frozenset({"greater_than", "greater_than_equal", "less_than", "less_than_equal"})


def invalid_request(
    errors: Sequence[Mapping[str, Any]],
    location: Sequence[str] = (),
    model: type[BaseModel] | None = None,
    maxima: Mapping[str, float] | None = None,
) -> ProblemError:
    """The problem of pydantic's errors: the first `MAX_REPORTED` in full, and how many more there are.

    `location` is put before each place, `model` knows the valid ranges, `maxima` has the operator's own
    limits of fields.
    """
    errors = [error for error in errors if not _follows_from_others(error)]
    details = [_field_error(error, location, model, maxima or {}) for error in errors[:MAX_REPORTED]]
    return ProblemError("invalid_request", summary(details, len(errors)), details)


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
        return value if math.isfinite(value) else json.dumps(value)
    if isinstance(value, str):
        return shortened(value)
    return _items_shown(value) if _is_small(value) else _ABRIDGED.repr(value)[:SHOWN_CHARACTERS]


def quoted(value: object) -> str:
    """`value` in a sentence: text in single quotes, all else as JSON has it (`null`, `true`, `NaN`)."""
    short = shown(value)
    if isinstance(value, str):
        return repr(short)
    return short if isinstance(short, str) else json.dumps(short, ensure_ascii=False)


class _Abridged(reprlib.Repr):
    """The beginning of a large or deep value, in the words of JSON."""

    def repr_str(self, x: str, level: int) -> str:
        return json.dumps(x[: self.maxstring], ensure_ascii=False)

    def repr_int(self, x: int, level: int) -> str:
        return str(shown(x))

    def _in_json(self, x: object, level: int) -> str:
        return json.dumps(x)

    repr_NoneType = repr_bool = repr_float = _in_json


_ABRIDGED = _Abridged()


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


def _follows_from_others(error: Mapping[str, Any]) -> bool:
    """Whether a list is called too short only because its invalid items do not count."""
    given = error.get("input")
    return error["type"] == "too_short" and isinstance(given, list | tuple) and len(given) > 0


def _field_error(
    error: Mapping[str, Any],
    location: Sequence[str],
    model: type[BaseModel] | None,
    maxima: Mapping[str, float],
) -> FieldError:
    path, fields = _place(error, {} if model is None else _schema(model))
    valid = _Valid.of(error, model, maxima)
    whole = error["type"] == "missing" or not error["loc"]  # its sentence names the values
    value = None if whole else shown(error.get("input"))
    where = [name if isinstance(name, int) else shortened(name) for name in path]
    field_error = FieldError(
        location=[*location, *where],
        detail=_sentence(error, valid),
        value=value,
        minimum=valid.minimum,
        maximum=valid.maximum,
        choices=valid.choices,
    )
    if error["type"] == "extra_forbidden" and fields:
        field_error.detail, field_error.choices = unknown_name("field", str(error["loc"][-1]), fields)
    return field_error


def unknown_name(what: str, name: str, valid: Sequence[str]) -> tuple[str, list[str]]:
    """The sentence about an unknown name, and the names that it gives: near ones, or all that are valid."""
    if close := near(name, valid):
        return f"unknown {what}; near names: {', '.join(close)}", close
    return f"unknown {what}; valid: {', '.join(valid)}", list(valid)


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


def _sentence(error: Mapping[str, Any], valid: _Valid) -> str:
    text = str(error["msg"]).removeprefix("Input ").removeprefix("Value error, ")
    text = re.sub(r"^(Tuple|List|String) (?=should have)", "", text)
    text = text[:1].lower() + text[1:].replace(" after validation", "")
    if error["type"] in _BOUND:
        text = f"should be {valid.range}"
    elif error["type"] in _NAMES_VALID:
        pass
    elif valid.closed:
        text += f" (valid: {valid.range})"
    elif valid.choices:
        text += f" (valid: {', '.join(valid.choices)})"
    return text if error["type"] in _SAID else f"{text}, not {quoted(error.get('input'))}"


@dataclass
class _Valid:
    """The valid values of a field. ``above``: its values are above this one, which is none of them."""

    minimum: float | int | None = None
    above: float | int | None = None
    maximum: float | int | None = None
    choices: list[str] | None = None

    @classmethod
    def of(
        cls, error: Mapping[str, Any], model: type[BaseModel] | None, maxima: Mapping[str, float]
    ) -> _Valid:
        """Those that the error names and, for a field of a body, those of its schema and this server."""
        context = error.get("ctx", {})
        found = cls(context.get("ge"), context.get("gt"), context.get("le"), None)
        if "lt" in context:
            found._end_below(context["lt"])
        # "'queued', 'running' or 'failed'"
        found.choices = re.findall(r"'([^']*)'", str(context.get("expected", ""))) or None
        if model is not None and len(error["loc"]) == 1:
            name = str(error["loc"][0])
            field = _schema(model)["properties"].get(name, {})
            for schema in (field, *field.get("anyOf", ())):
                found._add(schema)
            if name in maxima and found.maximum is not None:
                found.maximum = min(found.maximum, maxima[name])
        return found

    def _add(self, schema: Mapping[str, Any]) -> None:
        """Add what a JSON Schema says."""
        self.minimum = schema.get("minimum", self.minimum)
        self.above = schema.get("exclusiveMinimum", self.above)
        self.maximum = schema.get("maximum", self.maximum)
        if "exclusiveMaximum" in schema:
            self._end_below(schema["exclusiveMaximum"])
        if "enum" in schema:
            self.choices = list(schema["enum"])

    def _end_below(self, end: float | int) -> None:
        self.maximum = end - 1 if isinstance(end, int) else end

    @property
    def closed(self) -> bool:
        """Whether both ends are known."""
        return self.maximum is not None and (self.minimum is not None or self.above is not None)

    @property
    def range(self) -> str:
        """The range in words."""
        if self.above is not None:
            end = "" if self.maximum is None else f", up to {_number(self.maximum)}"
            return f"above {_number(self.above)}{end}"
        if self.maximum is None:
            return f"{_number(self.minimum)} or more"
        if self.minimum is None:
            return f"at most {_number(self.maximum)}"
        return f"{_number(self.minimum)} to {_number(self.maximum)}"


def _number(value: float | int | None) -> str:
    return json.dumps(value).removesuffix(".0")
