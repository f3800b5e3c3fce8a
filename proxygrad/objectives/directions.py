"""Objectives of a whole layer: a direction in the space of its units, and its energy."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from proxygrad.errors import InvalidRequest
from proxygrad.objectives.base import LayerObjective, Position, Shapes, as_tuple, checked_position, unit_count

Measure = Literal["dot", "cosine"]


@dataclass(frozen=True)
class Direction(LayerObjective):
    """The activation along a direction in the space of a layer's units, averaged over its positions.

    ``vector``: one number per unit; only its direction counts. ``measure``: ``dot`` is the length along it;
    ``cosine`` is that times the cosine to the power ``cosine_power``, which prefers activations that point
    that way over large ones (lucid's ``direction``, optvis/objectives.py). ``position``: one position only.
    """

    vector: tuple[float, ...]
    measure: Measure = "dot"
    position: Position | None = None
    cosine_power: float = 2.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "vector", tuple(map(float, self.vector)))  # an array or a tensor will do

    def at(self, shapes: Shapes) -> Self:
        """The objective, for a layer with as many units as ``vector`` has numbers.

        Raises `InvalidRequest` for a vector of another length, not finite or zero, and for an unknown
        measure.
        """
        shape = shapes[self.layer]
        if len(self.vector) != unit_count(shape):
            raise InvalidRequest(
                f"direction of {len(self.vector)} numbers: layer {self.layer!r} has {unit_count(shape)} units"
            )
        if not all(map(math.isfinite, self.vector)) or not any(self.vector):
            raise InvalidRequest(
                f"direction {list(self.vector)[:8]} at layer {self.layer!r} must be finite, not zero"
            )
        if self.measure not in get_args(Measure):
            raise InvalidRequest(f"measure {self.measure!r}; there are {', '.join(get_args(Measure))}")
        if self.cosine_power < 0 or not math.isfinite(self.cosine_power):
            raise InvalidRequest(f"cosine_power {self.cosine_power} must be finite and not negative")
        if self.position is None:
            return self
        return replace(self, position=checked_position(self.position, shape, self.layer, "direction"))

    def value(self, activation: Tensor) -> Tensor:
        """``(B, C, H, W)``, ``(B, T, D)`` or ``(B, N)`` → ``(B,)``."""
        units_last = activation.movedim(1, -1) if activation.ndim == 4 else activation  # (B, …, units)
        along = units_last @ _unit_vector(self.vector, activation.dtype, activation.device)  # (B, …)
        if self.measure == "cosine":
            cosine = along / units_last.norm(dim=-1).clamp(min=1e-12)
            along = along * cosine.clamp(min=0.1) ** self.cosine_power  # 0.1: lucid keeps a gradient at 0 so
        position = as_tuple(self.position)
        if position is not None and along.ndim > 1:
            at: tuple[Any, ...] = (slice(None), *position)
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
class Energy(LayerObjective):
    """The mean square of a whole layer, which DeepDream maximizes."""

    def value(self, activation: Tensor) -> Tensor:
        """``(B, …)`` → ``(B,)``."""
        return activation.square().flatten(1).mean(dim=1)
