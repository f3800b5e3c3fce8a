"""Objectives from what a caller may write for one: a string, a function, or an `Objective`.

Strings are lucid's and lucent's: ``"layer:unit"``, and for one position ``"layer:unit@row,column"`` or
``"layer:unit@token"``. The layer's kind decides what is maximized: a channel of a feature map or of tokens,
an entry of a vector, a logit. The name of a class stands for its logit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from proxygrad.errors import InvalidRequest, near
from proxygrad.networks.network import Network
from proxygrad.objectives.base import Activations, Objective, Sum
from proxygrad.objectives.function import FunctionObjective
from proxygrad.objectives.units import Channel, Logit, Neuron
from proxygrad.spec.models import OUTPUT, LayerInfo

ObjectiveLike = Objective | str | Callable[[Activations], Tensor]

#: What an error message shows beside a string that is none.
EXAMPLES = "valid: 'layer:unit', as 'fc:3'; 'layer:unit@row,column', as 'layer3:7@2,2'"


def is_single(given: Any) -> bool:
    """Whether ``given`` is one objective and not several."""
    return isinstance(given, str | Objective) or (callable(given) and not isinstance(given, Sequence))


def as_objectives(given: ObjectiveLike | Sequence[ObjectiveLike], network: Network) -> list[Objective]:
    """One objective or more. Raises `InvalidRequest` errors that name the value and what is valid."""
    several: Any = [given] if is_single(given) else given
    if not hasattr(several, "__iter__"):
        raise InvalidRequest(_no_objective(given))
    objectives = [as_objective(each, network) for each in several]
    if not objectives:
        raise InvalidRequest(f"no objectives: give one or more; {EXAMPLES}")
    return objectives


def as_objective(given: Any, network: Network) -> Objective:
    """The objective that a string, a function or an `Objective` means for ``network``."""
    if isinstance(given, str):
        return _from_text(given, network)
    if isinstance(given, Objective):
        return _with_class_numbers(given, network)
    if callable(given):
        return _from_function(given, network)
    raise InvalidRequest(_no_objective(given))


def _no_objective(given: Any) -> str:
    return (
        f"objective {given!r} is of type {type(given).__name__}; valid: a string 'layer:unit', a function of "
        "activations, or an objective such as Channel('features.7', 20)"
    )


def _from_text(text: str, network: Network) -> Objective:
    if (number := _class_number(text, network.classes)) is not None:
        return Logit(layer=OUTPUT, unit=number)
    layer, colon, rest = text.rpartition(":")
    if not colon:
        raise InvalidRequest(_without_unit(text, network))
    info = network.layer(layer)
    unit_text, at, position_text = rest.partition("@")
    unit = _unit(unit_text.strip(), text, info, network.classes)
    if at:
        return Neuron(layer, unit, _position(position_text, text))
    match info.kind:
        case "logits":
            return Logit(layer=layer, unit=unit)
        case "vector":
            return Neuron(layer, unit)
        case _:
            return Channel(layer, unit)


def _without_unit(text: str, network: Network) -> str:
    known = {layer.name: layer for layer in network.layers}
    if text in known:
        last = known[text].units - 1
        return f"objective {text!r} names a layer but no unit; valid: '{text}:0' to '{text}:{last}'"
    message = f"objective {text!r} names no unit; {EXAMPLES}"
    close = near(text, network.classes or (), 3)
    return f"{message}; or a class, near names: {', '.join(close)}" if close else message


def _unit(unit: str, text: str, layer: LayerInfo, classes: Sequence[str] | None) -> int:
    if re.fullmatch(r"[+-]?\d+", unit, re.ASCII):
        return int(unit)
    if layer.kind == "logits" and (number := _class_number(unit, classes)) is not None:
        return number
    raise InvalidRequest(
        f"objective {text!r}: unit {unit!r} is no whole number; layer {layer.name!r} has units 0 to "
        f"{layer.units - 1}"
    )


def _position(position: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in position.split(",")]
    if not all(re.fullmatch(r"[+-]?\d+", part, re.ASCII) for part in parts):
        raise InvalidRequest(
            f"objective {text!r}: position {position!r}; valid: 'row,column' in a feature map, 'token' in a "
            "sequence"
        )
    return tuple(map(int, parts))


def _class_number(name: str, classes: Sequence[str] | None) -> int | None:
    """The logit of the class of that name, whatever its case; None where there is none."""
    if not classes:
        return None
    found = [number for number, each in enumerate(classes) if each == name] or [
        number for number, each in enumerate(classes) if each.casefold() == name.casefold()
    ]
    if len(found) > 1:
        valid = " and ".join(f"'{OUTPUT}:{number}'" for number in found)
        raise InvalidRequest(f"class {name!r} is the name of several logits; valid: {valid}")
    return found[0] if found else None


def _with_class_numbers(objective: Objective, network: Network) -> Objective:
    """The same with numbers for names of classes, as in ``Logit("fc", "zebra")``."""
    if isinstance(objective, Sum):
        return Sum(tuple((weight, _with_class_numbers(each, network)) for weight, each in objective.terms))
    name: Any = objective.unit
    if not isinstance(name, str):
        return objective
    number = _class_number(name, network.classes)
    if number is None:
        close = near(name, network.classes or (), 5)
        known = f"near names: {', '.join(close)}" if close else "its class names are not known"
        raise InvalidRequest(f"unit {name!r} is no class of model {network.name!r}; {known}")
    dataclass_like: Any = objective
    return replace(dataclass_like, unit=number)  # type: ignore[no-any-return]


def _from_function(function: Callable[[Activations], Tensor], network: Network) -> FunctionObjective:
    """The layers that ``function`` reads are found by a trial on a gray image."""
    gray = torch.full((1, *network.input_shape), 0.5, dtype=torch.float32, device=network.device)

    def read(layer: str) -> Tensor:
        network.layer(layer)  # the error for one that is not listed
        return network.activations(gray, layer)

    return FunctionObjective.of(function, read)
