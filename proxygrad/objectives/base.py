"""The `Objective` base class, weighted sums, and the checks of units and positions against a layer's shape.

An objective is a small value: ``objective(activations) → (B,)`` takes the activations of one or more layers,
``{layer: (B, …)}``, and gives one number for each image. Objectives add, subtract and scale:
``Channel("a", 1) - 0.5 * Channel("a", 2)`` maximizes channel 1 and minimizes channel 2, ``-Logit("fc", 3)``
minimizes a logit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from proxygrad.errors import (
    InvalidRequest,
    ObjectiveMismatch,
    PositionMismatch,
    PositionOutOfRange,
    UnitOutOfRange,
)
from proxygrad.spec.models import OBJECTIVES, LayerKind

Activations = Mapping[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]
Position = tuple[int, ...] | int


class Objective:
    """Base of all objectives; subclasses are frozen dataclasses.

    A subclass defines `layers` and ``__call__``. One that measures a single unit of a layer also sets
    ``unit`` and defines `per_unit`, so that results have the unit's rank and say when it has gone silent.

    ``unit``: the unit that is measured; None where it is none or several.
    ``position``: where it is measured, (row, column) or (token,); None without one. `at` fills it in.
    """

    unit: int | None = None
    position: Position | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are read, without repeats."""
        raise NotImplementedError

    def __call__(self, activations: Activations) -> Tensor:
        """``{layer: (B, …)}`` → ``(B,)``, differentiable."""
        raise NotImplementedError

    def at(self, shapes: Shapes) -> Self:
        """The objective checked against the layers' shapes without the batch, with its defaults filled in.

        Raises `UnitOutOfRange`, `PositionOutOfRange`, `ObjectiveMismatch` or another `InvalidRequest` when a
        layer of that shape has no such unit, position or direction.
        """
        return self

    def per_unit(self, activations: Activations) -> Tensor | None:
        """The same objective of every unit of the layer, ``{layer: (B, …)}`` → ``(B, units)``, for the rank.

        None where ``unit`` is None.
        """
        return None

    def __add__(self, other: object) -> Sum:
        return Sum((*_terms(self), *_terms(other))) if isinstance(other, Objective) else NotImplemented

    def __radd__(self, other: int) -> Sum:
        return Sum(_terms(self)) if other == 0 else NotImplemented  # 0 is what `sum` begins with

    def __sub__(self, other: Objective) -> Sum:
        return self + (-1.0) * other

    def __mul__(self, weight: float) -> Sum:
        return Sum(tuple((weight * own, objective) for own, objective in _terms(self)))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Sum:
        return self * (1 / divisor)

    def __neg__(self) -> Sum:
        return self * -1.0


@dataclass(frozen=True)
class Sum(Objective):
    """A weighted sum of objectives, of any layers."""

    terms: tuple[tuple[float, Objective], ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of all terms."""
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
class LayerObjective(Objective):
    """An objective that reads one layer; subclasses define `value`."""

    layer: str

    @property
    def layers(self) -> tuple[str, ...]:
        """The one layer."""
        return (self.layer,)

    def __call__(self, activations: Activations) -> Tensor:
        """``{layer: (B, …)}`` → ``(B,)``."""
        return self.value(activations[self.layer])

    def value(self, activation: Tensor) -> Tensor:
        """The objective of the layer's own activation: ``(B, …)`` → ``(B,)``."""
        raise NotImplementedError


def grid(shape: Sequence[int]) -> tuple[int, ...]:
    """The positions of a layer: ``(H, W)`` of ``(C, H, W)``, ``(T,)`` of ``(T, D)``, none of ``(N,)``."""
    return {3: tuple(shape[1:]), 2: tuple(shape[:1])}.get(len(shape), ())


def unit_count(shape: Sequence[int]) -> int:
    """The number of units of a layer ``(C, H, W)``, ``(T, D)`` or ``(N,)``."""
    return shape[0] if len(shape) == 3 else shape[-1]


def layer_kind(shape: Sequence[int]) -> LayerKind:
    """The kind of layer that error messages name; logits, which only a model knows, are a vector."""
    kinds: dict[int, LayerKind] = {3: "feature_map", 2: "tokens"}
    return kinds.get(len(shape), "vector")


def check_objective(name: str, shape: Sequence[int], layer: str) -> None:
    """Raises `ObjectiveMismatch` where layers of that shape do not offer the objective ``name``."""
    kind = layer_kind(shape)
    kinds: tuple[LayerKind, ...] = ("vector", "logits") if kind == "vector" else (kind,)
    valid = tuple(dict.fromkeys(objective for each in kinds for objective in OBJECTIVES[each]))
    if name not in valid:
        raise ObjectiveMismatch(name, layer, kind, valid)


def check_unit(unit: int, shape: Sequence[int], layer: str) -> None:
    """Raises `InvalidRequest` for a unit that is no whole number, `UnitOutOfRange` for one that the layer
    lacks.
    """
    if not hasattr(unit, "__index__"):
        raise InvalidRequest(f"unit {unit!r} at layer {layer!r} is no whole number")
    if not 0 <= unit < unit_count(shape):
        raise UnitOutOfRange(unit, unit_count(shape), layer)


def checked_position(position: Any, shape: Sequence[int], layer: str, objective: str) -> tuple[int, ...]:
    """``position`` as a tuple: (row, column), or (token,), which may be given as a number.

    Raises `PositionMismatch` where the layer has no positions, `PositionOutOfRange` or `InvalidRequest`.
    """
    sides = grid(shape)
    if not sides:
        raise PositionMismatch(objective, layer, layer_kind(shape), ())
    given = (position,) if hasattr(position, "__index__") else tuple(position)
    if not all(hasattr(at, "__index__") for at in given):
        raise InvalidRequest(f"position {list(given)} at layer {layer!r} holds what is no whole number")
    if len(given) != len(sides) or not all(0 <= at < side for at, side in zip(given, sides, strict=True)):
        raise PositionOutOfRange(given, sides, layer)
    return given


def as_tuple(position: Position | None) -> tuple[int, ...] | None:
    """A position as a tuple; None stays None."""
    return (position,) if isinstance(position, int) else position
