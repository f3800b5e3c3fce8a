"""A unit that has the highest value it can have is not stuck; one that is as silent elsewhere is."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad import Margin, Network, maximize
from proxygrad.engine.ceiling import ceiling

Function = Callable[[Tensor], Tensor]


class Ended(nn.Module):
    """A convolution, and a function of what it returns."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.function = nn.Conv2d(1, 3, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x)).mean((2, 3))


def overwritten(x: Tensor) -> Tensor:
    x = x.sigmoid().clone()
    x[:, 1] = 1.0
    return x


HIGH = torch.tensor([0.0, 600.0, 0.0]).view(3, 1, 1)  # of unit 1
AT_ITS_CEILING: dict[str, tuple[Function, float]] = {
    "sigmoid": (lambda x: (x + 60).sigmoid(), 1),
    "module": (lambda x: nn.Sigmoid()(x + 60), 1),
    "softmax": (lambda x: (x + HIGH).softmax(1), 1),
    "log_softmax": (lambda x: functional.log_softmax(x + HIGH, 1), 0),
    "clamp": (lambda x: (x + 60).clamp(max=1), 1),
    "in place": (lambda x: (x + 60).clamp_(-3, 2), 2),
    "relu6": (lambda x: functional.relu6(x + 60), 6),
    "hardsigmoid": (lambda x: functional.hardsigmoid(x + 60), 1),
    "hardtanh": (lambda x: functional.hardtanh(x + 60, -2, 2, inplace=True), 2),
    "tanh": (lambda x: (x + 60).tanh(), 1),
    "logsigmoid": (lambda x: functional.logsigmoid(x + 200), 0),
    "minus relu": (lambda x: -functional.relu(x - 60), 0),
    "one minus sigmoid": (lambda x: 1 - (x - 60).sigmoid(), 1),
}
BELOW_IT: dict[str, tuple[Function, float]] = {
    "relu": (lambda x: functional.relu(x - 60), math.inf),
    "relu6": (lambda x: functional.relu6(x - 60), 6),
    "clamp": (lambda x: (x - 60).clamp(0, 1), 1),
    "sigmoid": (lambda x: (x - 600).sigmoid(), 1),
    "one minus relu6": (lambda x: 1 - functional.relu6(x + 60), 1),
    "constant": (lambda x: 0 * x, math.inf),
    "by a tensor": (lambda x: (x + 60).sigmoid() * HIGH, math.inf),
    "overwritten": (overwritten, math.inf),
}


@pytest.mark.parametrize("name", AT_ITS_CEILING)
def test_a_unit_at_its_ceiling_is_not_stuck(name: str) -> None:
    function, highest = AT_ITS_CEILING[name]
    network = Network(Ended(function), (1, 8, 8))
    found = maximize(network, "output:1", slope=0.0, steps=2)
    assert found.activation == pytest.approx(highest)
    assert not found.stuck
    assert ceiling(network, "output", found.image) == highest


@pytest.mark.parametrize("name", BELOW_IT)
def test_a_silent_unit_below_it_is_stuck(name: str) -> None:
    function, highest = BELOW_IT[name]
    network = Network(Ended(function), (1, 8, 8))
    found = maximize(network, "output:1", slope=0.0, steps=2)
    assert found.stuck
    assert ceiling(network, "output", found.image) == highest


def test_a_margin_is_no_value_of_the_layer() -> None:
    """Both logits are 0, the highest value of each; that one could be above the other."""
    network = Network(Ended(lambda x: -functional.relu(x - 60)), (1, 8, 8))
    assert maximize(network, "output:1", slope=0.0, steps=2).stuck is False
    assert maximize(network, Margin("output", 1), slope=0.0, steps=2).stuck
