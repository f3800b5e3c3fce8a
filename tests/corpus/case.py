"""A case of the corpus: how to build a network, and how to read the unit that is maximized."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: An activation function, ``(B, …)`` → the same.
Act = Callable[[Tensor], Tensor]
Shape = tuple[int, int, int]


def first_of(output: Any, unit: int) -> Tensor:
    """The mean of a unit of the first image over all its positions."""
    value: Tensor = output[0, unit].mean()
    return value


@dataclass(frozen=True)
class Case:
    """``build(act)``: the network with ``act`` as its rectifier, always with the same weights.

    ``act``: the rectifier of the network that is tried; the slow loop has another, which follows the rule.
    ``read(output, unit)``: the value of a unit of the network's output for one image. ``reached``: whether
    the slope reaches ``act``; else the network says that it does not, and images are those of plain ascent.
    ``plainly``: in place of ``build`` for the slow loop.
    """

    build: Callable[[Act], nn.Module]
    shape: Shape = (3, 12, 12)
    act: Act = torch.relu
    read: Callable[[Any, int], Tensor] = first_of
    units: tuple[int, int, int] = (1, 0, 2)
    reached: bool = True
    plainly: Callable[[Act], nn.Module] | None = None


class Net(nn.Module):
    """Two convolutions, a rectifier after each, and a head, for subclasses to connect."""

    def __init__(self, act: Act) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.act = act
        self.conv, self.bn = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.conv2, self.fc = nn.Conv2d(6, 6, 3), nn.Linear(6, 4)
        with torch.no_grad():
            self.bn.running_mean.uniform_(-0.3, 0.3)  # type: ignore[union-attr]
            self.bn.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]

    def features(self, x: Tensor) -> Tensor:
        return self.act(self.conv2(self.act(self.bn(self.conv(x)))))

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.features(x).mean((2, 3)))
