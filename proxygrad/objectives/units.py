"""Objectives of one unit of a layer: `Channel`, `Neuron`, `TopQuarter`, `Logit` and `Margin`.

A new one is a class here, listed in `UNIT_OBJECTIVES`, and its name in `proxygrad.spec.models`. Then the
library, the command line and HTTP all have it, with its rank and its checks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from proxygrad.errors import InvalidRequest
from proxygrad.objectives.base import (
    Activations,
    LayerObjective,
    Objective,
    Position,
    Shapes,
    as_tuple,
    check_objective,
    check_unit,
    checked_position,
    grid,
    unit_count,
)
from proxygrad.spec.models import ObjectiveKind


@dataclass(frozen=True)
class UnitObjective(LayerObjective):
    """Base of the objectives of unit ``unit`` of layer ``layer``, in that order.

    Subclasses have the name under which requests ask for them, and define `value` and `values`.
    """

    unit: int = field()
    name: ClassVar[ObjectiveKind]

    def at(self, shapes: Shapes) -> Self:
        """The objective, for a layer whose kind offers it and which has the unit."""
        check_objective(self.name, shapes[self.layer], self.layer)
        check_unit(self.unit, shapes[self.layer], self.layer)
        return self

    def per_unit(self, activations: Activations) -> Tensor:
        """The same objective of every unit of the layer: ``{layer: (B, …)}`` → ``(B, units)``."""
        return self.values(activations[self.layer])

    def values(self, activation: Tensor) -> Tensor:
        """The objective of every unit: ``(B, …)`` → ``(B, units)``."""
        raise NotImplementedError


@dataclass(frozen=True)
class Channel(UnitObjective):
    """The mean of a unit over all positions of a feature map, or over all tokens of a sequence."""

    name: ClassVar[ObjectiveKind] = "channel"

    def value(self, activation: Tensor) -> Tensor:
        """``(B, C, H, W)`` or ``(B, T, D)`` → ``(B,)``."""
        if activation.ndim == 3:
            return activation[:, :, self.unit].mean(dim=1)
        return activation[:, self.unit].mean(dim=(-2, -1))

    def values(self, activation: Tensor) -> Tensor:
        """``(B, C, H, W)`` → ``(B, C)``, ``(B, T, D)`` → ``(B, D)``."""
        return activation.mean(dim=1) if activation.ndim == 3 else activation.mean(dim=(-2, -1))


@dataclass(frozen=True)
class Neuron(UnitObjective):
    """One unit at one position.

    ``position``: (row, column) in a feature map, default the center, row ``H // 2`` and column ``W // 2``;
    (token,), or its number, in a sequence, default the first, which is the class token where there is one.
    An entry of a vector has none.
    """

    position: Position | None = None
    name: ClassVar[ObjectiveKind] = "neuron"

    def at(self, shapes: Shapes) -> Self:
        """With its position filled in, for a layer ``(C, H, W)``, ``(T, D)`` or ``(N,)``."""
        shape = shapes[self.layer]
        super().at(shapes)
        if self.position is not None:
            return replace(self, position=checked_position(self.position, shape, self.layer, "neuron"))
        sides = grid(shape)
        default = tuple(side // 2 for side in sides) if len(sides) == 2 else (0,)
        return replace(self, position=default if sides else None)

    def value(self, activation: Tensor) -> Tensor:
        """``(B, C, H, W)``, ``(B, T, D)`` or ``(B, N)`` → ``(B,)``; needs the position that `at` fills in."""
        position = as_tuple(self.position)
        if activation.ndim == 2 or position is None:
            return activation[:, self.unit]
        if activation.ndim == 3:
            return activation[:, position[0], self.unit]
        return activation[:, self.unit, position[0], position[1]]

    def values(self, activation: Tensor) -> Tensor:
        """``(B, C, H, W)``, ``(B, T, D)`` or ``(B, N)`` → ``(B, units)``."""
        position = as_tuple(self.position)
        if activation.ndim == 2 or position is None:
            return activation
        return (
            activation[:, position[0]] if activation.ndim == 3 else activation[:, :, position[0], position[1]]
        )


@dataclass(frozen=True)
class TopQuarter(UnitObjective):
    """The mean of a unit over the highest quarter of its positions, of a feature map or a sequence.

    The quarter is rounded up: of 169 positions, the highest 43. From the ProxyGrad authors' earlier public
    code (Linse 2023): the unit need not respond everywhere, and the image decides where it does.
    """

    name: ClassVar[ObjectiveKind] = "top_quarter"

    def value(self, activation: Tensor) -> Tensor:
        """``(B, C, H, W)`` or ``(B, T, D)`` → ``(B,)``."""
        own = activation[:, :, self.unit] if activation.ndim == 3 else activation[:, self.unit].flatten(1)
        return _top_quarter(own)

    def values(self, activation: Tensor) -> Tensor:
        """``(B, C, H, W)`` → ``(B, C)``, ``(B, T, D)`` → ``(B, D)``."""
        return _top_quarter(activation.mT if activation.ndim == 3 else activation.flatten(2))


def _top_quarter(activation: Tensor) -> Tensor:
    """The mean over the highest quarter of the last dimension: ``(…, N)`` → ``(…)``."""
    return activation.topk(-(-activation.shape[-1] // 4), dim=-1).values.mean(dim=-1)


@dataclass(frozen=True)
class Logit(UnitObjective):
    """One output of a classifier, before softmax; ``Logit("output", 3)`` reads the network's own output."""

    name: ClassVar[ObjectiveKind] = "logit"

    def value(self, activation: Tensor) -> Tensor:
        """``(B, N)`` → ``(B,)``."""
        return activation[:, self.unit]

    def values(self, activation: Tensor) -> Tensor:
        """``(B, N)``, the logits themselves."""
        return activation


@dataclass(frozen=True)
class Margin(UnitObjective):
    """How far one output of a classifier is above another, before softmax.

    ``against``: the other; default the highest of all others, so that a positive margin means that the
    network's answer is ``unit``. Where several are the highest, each takes an equal part of the gradient.
    """

    against: int | None = None
    name: ClassVar[ObjectiveKind] = "margin"

    def at(self, shapes: Shapes) -> Self:
        """The objective, for a layer ``(N,)`` with both units. Raises `InvalidRequest` where N is 1."""
        super().at(shapes)
        shape = shapes[self.layer]
        if self.against is not None:
            check_unit(self.against, shape, self.layer)
        if unit_count(shape) < 2 or self.against == self.unit:
            raise InvalidRequest(
                f"objective 'margin' of unit {self.unit} at layer {self.layer!r} ({unit_count(shape)} "
                "unit(s)) needs another unit to be above"
            )
        return self

    def value(self, activation: Tensor) -> Tensor:
        """``(B, N)`` → ``(B,)``."""
        own = activation[:, self.unit]
        if self.against is not None:
            return own - activation[:, self.against]
        others = torch.cat([activation[:, : self.unit], activation[:, self.unit + 1 :]], dim=1)  # (B, N - 1)
        return own - others.amax(dim=1)

    def values(self, activation: Tensor) -> Tensor:
        """``(B, N)`` → ``(B, N)``."""
        if self.against is not None:
            return activation - activation[:, self.against, None]
        (first, second), best = activation.topk(2, dim=1).values.unbind(1), activation.argmax(dim=1)
        others = first.unsqueeze(1).expand_as(activation).scatter(1, best[:, None], second[:, None])
        return activation - others


#: The objective of each name in a request: called with ``layer``, ``unit`` and, where it takes one,
#: ``position``.
UNIT_OBJECTIVES: dict[ObjectiveKind, Callable[..., Objective]] = {
    each.name: each for each in (Channel, Neuron, TopQuarter, Logit, Margin)
}
