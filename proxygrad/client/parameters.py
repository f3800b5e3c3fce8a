"""Arguments of the client as what is sent: keywords of a request, and their conversion to JSON.

`VisualizationParameters` and `TemplateParameters` type the keywords of `Client.visualize` and `Client.batch`
for editors and mypy; `proxygrad.spec.Spec` describes each. The functions raise `InvalidArgument`, which names
the value.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Required, TypedDict, get_args
from urllib.parse import quote

from proxygrad.client.errors import InvalidArgument
from proxygrad.client.files import Picture, read
from proxygrad.protocol.pagination import MAX_LIMIT
from proxygrad.protocol.requests import Priority
from proxygrad.spec import ObjectiveKind
from proxygrad.spec.attribution import AttributionMethod, AttributionRule, ReferenceName
from proxygrad.spec.langevin import Bounds, LangevinVariant, SamplerName
from proxygrad.spec.settings import GafName, ParameterizationName, Preset, Proxy, Slope, UpdateName

#: Items of one page of a list.
PAGE_SIZE = MAX_LIMIT

#: The units of a batch: all of the layer, a range, or a list.
Units = Literal["all"] | Iterable[int]

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


class LangevinParameters(TypedDict, total=False):
    """The fields of `proxygrad.spec.langevin.LangevinSettings`."""

    variant: LangevinVariant
    chains: int | None
    burn_in: int
    thinning: int
    step_size: float | None
    step_size_start: float | None
    temperature: float
    temperature_start: float | None
    beta: float
    discriminator_weight: float | None
    pull: float | None
    bounds: Bounds


class TemplateParameters(TypedDict, total=False):
    """The fields of a request except the unit. Those not given have the service's defaults."""

    model: Required[str]
    layer: Required[str]
    objective: ObjectiveKind | None
    position: Sequence[int] | None
    images: int
    diversity: float
    compare: bool
    sampler: SamplerName
    langevin: LangevinParameters | None
    preset: Preset
    proxy: Proxy
    slope: Slope
    slope_end: float | None
    slope_hold: float
    slope_end_at: float
    starts: int
    trial_steps: int | None
    spread_max_pool: float
    parameterization: ParameterizationName
    update: UpdateName
    gaf: GafName
    gaf_alpha: float
    gaf_beta: float
    robustness: Literal["none", "standard"]
    total_variation: float
    l2: float
    blur_px: float
    steps: int
    step_size: float
    start_noise: float
    size_px: int | None
    seed: int
    priority: Priority
    deadline_s: float | None
    webhook: str | None


#: A name, a gray, or a picture.
Reference = ReferenceName | float | Picture


class AttributionParameters(TypedDict, total=False):
    """The fields of a request for an attribution. Those not given have the service's defaults."""

    model: Required[str]
    layer: Required[str]
    unit: Required[int]
    objective: ObjectiveKind | None
    position: Sequence[int] | None
    size_px: int | None
    method: AttributionMethod
    rule: AttributionRule
    reference: Reference | Sequence[Reference]
    references: int
    seed: int
    at: str | None
    points: int
    normalize_logits: bool
    priority: Priority
    deadline_s: float | None
    webhook: str | None


class VisualizationParameters(TemplateParameters, total=False):
    """The fields of a request."""

    unit: Required[int]


def references(fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """The fields of a request for an attribution, and the pictures among its references."""
    given = fields.get("reference")
    if given is None:
        return dict(fields), []
    listed, files = list[Any](), list[bytes]()
    for each in given if isinstance(given, list | tuple) else [given]:
        name = each
        if _is_picture(each):
            files.append(_picture(each))
            name = "uploaded"
        if name != "uploaded" or name not in listed:
            listed.append(name)
    if files:
        return {**fields, "reference": listed}, files
    return dict(fields), []


def _is_picture(given: object) -> bool:
    if isinstance(given, str):
        return given not in get_args(ReferenceName)
    return isinstance(given, bytes | Path) or getattr(given, "ndim", 0) > 0


def _picture(given: Picture) -> bytes:
    try:
        return read(given, "reference")
    except InvalidArgument as error:
        names = ", ".join(each for each in get_args(ReferenceName) if each != "uploaded")
        raise InvalidArgument(f"{error}; valid: {names}, a gray, or a file") from error


def body(fields: Mapping[str, object]) -> dict[str, Any]:
    """The fields of a request as JSON values, NumPy's numbers and arrays included."""
    return {name: json_value(name, value) for name, value in fields.items()}


def json_value(name: str, value: Any) -> Any:
    """A plain value: None, a bool, an int, a finite float, a string, or a list of those."""
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays, and what behaves like them
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _encodable(name, value)
    if hasattr(value, "__index__"):
        return operator.index(value)
    if hasattr(value, "__float__"):
        number = float(value)
        if not math.isfinite(number):
            raise InvalidArgument(f"{name}={value!r} is not a finite number")
        return number
    if isinstance(value, Mapping):
        return {str(key): json_value(f"{name}.{key}", item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | Mapping):
        return [json_value(name, item) for item in value]
    raise InvalidArgument(f"{name}={value!r} cannot be sent; valid: a number, a string, or a list of them")


def unit_selection(units: object) -> Any:
    """The field `units` of a batch request."""
    if isinstance(units, str):
        return _encodable("units", units)
    if isinstance(units, range) and units.step > 0:
        return {"start": units.start, "stop": units.stop, "step": units.step}
    numbers = None if isinstance(units, bytes | bytearray | Mapping) else json_value("units", units)
    if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
        raise InvalidArgument(f'units={units!r} are no units; valid: "all", a range, or a list of integers')
    return numbers


def path_segment(name: str, value: object) -> str:
    """One segment of a path, such as an id, percent-encoded."""
    if not isinstance(value, str) or value in ("", ".", ".."):
        raise InvalidArgument(f"{name}={value!r} is not a name; valid: a non-empty string")
    return quote(_encodable(name, value), safe="")


def idempotency_headers(key: object) -> dict[str, str]:
    """The header of an idempotency key; none without a key."""
    if key is None:
        return {}
    if not isinstance(key, str) or not _IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidArgument(
            f"idempotency_key={key!r} cannot be sent; valid: printable ASCII, no space at the ends"
        )
    return {"Idempotency-Key": key}


def seconds(name: str, value: float) -> float:
    """A number of seconds."""
    number = json_value(name, value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise InvalidArgument(f"{name}={value!r} is not a number of seconds")
    return number


def filters(**values: str | Sequence[str] | None) -> dict[str, list[str]]:
    """Query parameters of a list, each with one value or several."""
    return {name: _strings(name, value) for name, value in values.items() if value is not None}


def _strings(name: str, values: str | Sequence[str]) -> list[str]:
    strings = [values] if isinstance(values, str) else json_value(name, values)
    if not isinstance(strings, list) or not all(isinstance(item, str) for item in strings):
        raise InvalidArgument(f"{name}={values!r} is not a filter; valid: a string, or several")
    return [_encodable(name, item) for item in strings]


def _encodable(name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{name}={text!r} cannot be encoded: {error.reason}") from error
    return text
