"""What is to be made large: one number per image, read from the activations of one or more layers.

An objective is a small value. ``objective.layers`` names what it reads; ``objective(activations) → (B,)``
takes ``{layer: (B, …)}`` and gives one number for each image; ``objective.at(shapes)`` checks it against
layers of known shape and completes it, so that what was used can be reported. Objectives add, subtract
and scale: ``Channel("a", 1) - 0.5 * Channel("a", 2)`` wants channel 1 and no channel 2, ``-Logit(3)`` a low
logit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from proxygrad.errors import InvalidRequest, ObjectiveMismatch
from proxygrad.objectives.base import check_position, check_unit, grid, kind, units
from proxygrad.spec import Spec

#: The network's own output, for networks whose last module does not produce it.
OUTPUT = "output"

Measure = Literal["dot", "cosine"]
Activations = Mapping[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]


class Objective:
    """Base of all objectives; subclasses are frozen dataclasses."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that are read, without repeats."""
        raise NotImplementedError

    def at(self, shapes: Shapes) -> Self:
        """The same with everything filled in that depends on the layers' shapes, without the batch.

        Raises `UnitOutOfRange`, `PositionOutOfRange`, `ObjectiveMismatch` or another `InvalidRequest` when a
        layer of that shape has no such unit, place or direction.
        """
        return self

    def __call__(self, activations: Activations) -> Tensor:
        """``{layer: (B, …)}`` → ``(B,)``."""
        raise NotImplementedError

    def __add__(self, other: Objective) -> Sum:
        return Sum((*_terms(self), *_terms(other)))

    def __sub__(self, other: Objective) -> Sum:
        return self + (-1.0) * other

    def __mul__(self, weight: float) -> Sum:
        return Sum(tuple((weight * own, objective) for own, objective in _terms(self)))

    __rmul__ = __mul__

    def __neg__(self) -> Sum:
        return self * -1.0


@dataclass(frozen=True)
class Sum(Objective):
    """A weighted sum of objectives, of any layers."""

    terms: tuple[tuple[float, Objective], ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Those of all terms."""
        return tuple(dict.fromkeys(layer for _, objective in self.terms for layer in objective.layers))

    def at(self, shapes: Shapes) -> Sum:
        """Each term completed. Raises `InvalidRequest` for a weight that is not finite, or without terms."""
        if not self.terms or not all(math.isfinite(weight) for weight, _ in self.terms):
            raise InvalidRequest(
                f"weights {[weight for weight, _ in self.terms]} must be finite, one or more"
            )
        return Sum(tuple((weight, objective.at(shapes)) for weight, objective in self.terms))

    def __call__(self, activations: Activations) -> Tensor:
        """The weighted sum, ``(B,)``."""
        return torch.stack([weight * objective(activations) for weight, objective in self.terms]).sum(0)


def _terms(objective: Objective) -> tuple[tuple[float, Objective], ...]:
    return objective.terms if isinstance(objective, Sum) else ((1.0, objective),)


@dataclass(frozen=True)
class _OfLayer(Objective):
    """An objective that reads one layer."""

    layer: str

    @property
    def layers(self) -> tuple[str, ...]:
        """The one layer."""
        return (self.layer,)

    def __call__(self, activations: Activations) -> Tensor:
        """``(B,)``."""
        return self.value(activations[self.layer])

    def value(self, activation: Tensor) -> Tensor:
        """From the layer's own activation ``(B, …)``."""
        raise NotImplementedError


@dataclass(frozen=True)
class Channel(_OfLayer):
    """The mean of unit ``unit`` over all positions of a feature map, or over all tokens of a sequence."""

    unit: int

    def at(self, shapes: Shapes) -> Channel:
        """The same, for a layer ``(C, H, W)`` or ``(T, D)`` that has the unit."""
        shape = shapes[self.layer]
        if not grid(shape):
            raise ObjectiveMismatch("channel", self.layer, kind(shape), ("neuron", "logit"))
        check_unit(self.unit, shape, self.layer)
        return self

    def value(self, activation: Tensor) -> Tensor:
        """``(B, C, H, W)`` or ``(B, T, D)`` → ``(B,)``."""
        if activation.ndim == 3:
            return activation[:, :, self.unit].mean(dim=1)
        return activation[:, self.unit].mean(dim=(-2, -1))


@dataclass(frozen=True)
class Neuron(_OfLayer):
    """One unit at one place: of a feature map at ``position`` (row, column), default the center; of a token
    sequence at ``position`` (token,), default the first, which is the class token where there is one; or one
    entry of a vector.
    """

    unit: int
    position: tuple[int, ...] | None = None

    def at(self, shapes: Shapes) -> Neuron:
        """With its position filled in, for a layer ``(C, H, W)``, ``(T, D)`` or ``(N,)``.

        The center is row ``H // 2``, column ``W // 2``.
        """
        shape = shapes[self.layer]
        check_unit(self.unit, shape, self.layer)
        if self.position is not None:
            check_position(self.position, shape, self.layer, "neuron")
            return self
        sides = grid(shape)
        default = tuple(side // 2 for side in sides) if len(sides) == 2 else (0,)
        return replace(self, position=default if sides else None)

    def value(self, activation: Tensor) -> Tensor:
        """``(B, C, H, W)``, ``(B, T, D)`` or ``(B, N)`` → ``(B,)``; needs the position that `at` fills in."""
        if activation.ndim == 2 or self.position is None:
            return activation[:, self.unit]
        if activation.ndim == 3:
            return activation[:, self.position[0], self.unit]
        return activation[:, self.unit, self.position[0], self.position[1]]


@dataclass(frozen=True)
class Logit(_OfLayer):
    """One output of a classifier, before softmax."""

    unit: int

    def __init__(self, unit: int, layer: str = OUTPUT) -> None:
        object.__setattr__(self, "unit", unit)
        object.__setattr__(self, "layer", layer)

    def at(self, shapes: Shapes) -> Logit:
        """The same, for a layer ``(N,)`` that has the unit."""
        shape = shapes[self.layer]
        if grid(shape):
            raise ObjectiveMismatch("logit", self.layer, kind(shape), ("channel", "neuron"))
        check_unit(self.unit, shape, self.layer)
        return self

    def value(self, activation: Tensor) -> Tensor:
        """``(B, N)`` → ``(B,)``."""
        return activation[:, self.unit]


@dataclass(frozen=True)
class Direction(_OfLayer):
    """The activation along a direction in the space of a layer's units, averaged over its positions.

    ``vector``: one number per unit; only its direction counts. ``measure``: ``dot`` is the length along it;
    ``cosine`` is that times the cosine to the power ``cosine_power``, which prefers activations that point
    that way over large ones (lucid's ``direction``, optvis/objectives.py). ``position``: one place only.
    """

    vector: tuple[float, ...]
    measure: Measure = "dot"
    position: tuple[int, ...] | None = None
    cosine_power: float = 2.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "vector", tuple(map(float, self.vector)))  # an array or a tensor will do

    def at(self, shapes: Shapes) -> Direction:
        """The same, for a layer with as many units as ``vector`` has numbers.

        Raises `InvalidRequest` for a vector of another length, not finite or zero, and for an unknown
        measure.
        """
        shape = shapes[self.layer]
        if len(self.vector) != units(shape):
            raise InvalidRequest(
                f"direction of {len(self.vector)} numbers: layer {self.layer!r} has {units(shape)} units"
            )
        if not all(map(math.isfinite, self.vector)) or not any(self.vector):
            raise InvalidRequest(
                f"direction {list(self.vector)[:8]} at layer {self.layer!r} must be finite, not zero"
            )
        if self.measure not in get_args(Measure):
            raise InvalidRequest(f"measure {self.measure!r}; there are {', '.join(get_args(Measure))}")
        if self.cosine_power < 0 or not math.isfinite(self.cosine_power):
            raise InvalidRequest(f"cosine_power {self.cosine_power} must be finite and not negative")
        if self.position is not None:
            check_position(self.position, shape, self.layer, "direction")
        return self

    def value(self, activation: Tensor) -> Tensor:
        """``(B, C, H, W)``, ``(B, T, D)`` or ``(B, N)`` → ``(B,)``."""
        units_last = activation.movedim(1, -1) if activation.ndim == 4 else activation  # (B, …, units)
        along = units_last @ _unit_vector(self.vector, activation.dtype, activation.device)  # (B, …)
        if self.measure == "cosine":
            cosine = along / units_last.norm(dim=-1).clamp(min=1e-12)
            along = along * cosine.clamp(min=0.1) ** self.cosine_power  # 0.1: lucid keeps a gradient at 0 so
        if self.position is not None and along.ndim > 1:
            at: tuple[Any, ...] = (slice(None), *self.position)
            along = along[at]
        result: Tensor = along.flatten(1).mean(dim=1) if along.ndim > 1 else along
        return result


@lru_cache(maxsize=64)
def _unit_vector(vector: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """``vector`` at length 1, ``(units,)``: made once for all steps."""
    with torch.inference_mode(False):  # kept beyond a caller's block
        values = torch.tensor(vector, dtype=torch.float64)
        values = values / values.abs().amax()  # squares of small or large numbers would leave the range
        unit: Tensor = (values / values.norm()).to(device, dtype)
    return unit


@dataclass(frozen=True)
class Energy(_OfLayer):
    """The mean square of a whole layer: what deep dream makes large."""

    def value(self, activation: Tensor) -> Tensor:
        """``(B, …)`` → ``(B,)``."""
        return activation.square().flatten(1).mean(dim=1)


def margin(unit: int, against: int, layer: str = OUTPUT) -> Sum:
    """How far one logit is above another."""
    return Logit(unit, layer) - Logit(against, layer)


def from_spec(spec: Spec) -> Objective:
    """The objective that a resolved `Spec` asks for."""
    if spec.objective == "channel":
        return Channel(spec.layer, spec.unit)
    if spec.objective == "logit":
        return Logit(spec.unit, spec.layer)
    return Neuron(spec.layer, spec.unit, spec.position)
