"""What is to be made large: one number per image, read from the activation of one layer.

An objective is a small value: ``objective(activation: (B, …)) → (B,)``. It names its layer, and `at`
completes it for a layer of known shape, so that what was used can be reported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from proxygrad.errors import PositionOutOfRange
from proxygrad.spec import Spec

#: The network's own output, for networks whose last module does not produce it.
OUTPUT = "output"


@dataclass(frozen=True)
class Channel:
    """The mean of channel ``unit`` over all positions of a feature map."""

    layer: str
    unit: int

    def at(self, shape: tuple[int, ...]) -> Channel:
        """Itself: there is nothing to complete."""
        return self

    def __call__(self, activation: Tensor) -> Tensor:
        """``(B, C, H, W)`` → ``(B,)``."""
        return activation[:, self.unit].mean(dim=(-2, -1))


@dataclass(frozen=True)
class Neuron:
    """One unit: channel ``unit`` at ``position`` of a feature map, default its centre, or one of a vector."""

    layer: str
    unit: int
    position: tuple[int, int] | None = None

    def at(self, shape: tuple[int, ...]) -> Neuron:
        """The same with its position filled in, for a layer of shape ``(C, H, W)`` or ``(N,)``.

        The centre is row ``H // 2``, column ``W // 2``. Raises `PositionOutOfRange`.
        """
        if len(shape) != 3:
            return self
        _, height, width = shape
        row, column = self.position or (height // 2, width // 2)
        if row >= height or column >= width:
            raise PositionOutOfRange((row, column), height, width, self.layer)
        return replace(self, position=(row, column))

    def __call__(self, activation: Tensor) -> Tensor:
        """``(B, C, H, W)`` or ``(B, N)`` → ``(B,)``."""
        unit = activation[:, self.unit]  # (B, H, W) or (B,)
        if unit.ndim == 1:
            return unit
        row, column = self.position or (unit.shape[-2] // 2, unit.shape[-1] // 2)
        return unit[:, row, column]


@dataclass(frozen=True)
class Logit:
    """One output of a classifier, before softmax."""

    unit: int
    layer: str = OUTPUT

    def at(self, shape: tuple[int, ...]) -> Logit:
        """Itself: there is nothing to complete."""
        return self

    def __call__(self, activation: Tensor) -> Tensor:
        """``(B, N)`` → ``(B,)``."""
        return activation[:, self.unit]


Objective = Channel | Neuron | Logit


def from_spec(spec: Spec) -> Objective:
    """The objective that a resolved `Spec` asks for."""
    if spec.objective == "channel":
        return Channel(spec.layer, spec.unit)
    if spec.objective == "logit":
        return Logit(spec.unit, spec.layer)
    return Neuron(spec.layer, spec.unit, spec.position)
