"""The toy functions of the stage of that name, with their optima, and ascents on them.

The functions are those of examples/toy_functions.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.toy_functions import SIZE_PX, network_of, one_relu, one_stage, start, two_stages
from proxygrad import Channel, Network, Neuron, Objective, StepContext, Visualization, maximize
from proxygrad.optim.update_rules import Normalized
from proxygrad.spec.settings import Proxy

SLOPE = 0.1
PROXIES: tuple[Proxy, ...] = ("surrogate", "network")
#: Random starts: uniform in -1 to 1 at every pixel.
RANDOM_STARTS = 16


class Notch(nn.Module):
    """``relu(x) - 3 relu(x - 1/2)`` of each pixel: a peak of 1/2 at x = 1/2, and a flat part below 0."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) - 3 * F.relu(x - 0.5)


@dataclass(frozen=True)
class Recorder:
    """The usual update, which also keeps the images that it is given."""

    images: list[Tensor] = field(default_factory=list)
    state_names: ClassVar[tuple[str, ...]] = ()

    def step(
        self, params: Tensor, gradient: Tensor, state: dict[str, Tensor], context: StepContext
    ) -> Tensor:
        self.images.append(params[0].clone())
        return Normalized().step(params, gradient, state, context)


@dataclass(frozen=True)
class Toy:
    """A toy function with its objective and the largest value that any image has."""

    name: str
    network: Network
    objective: Objective
    optimum: float


def toys(best_of_two_stages: float) -> list[Toy]:
    """The optimum of one ReLU (mean) is 1, all bright; that of one stage (center) 2, the pixels beside it
    bright and those above and below it not. Both are sums of terms of one pixel each, to be chosen alone.
    """
    first, second, third = network_of(one_relu()), network_of(one_stage()), network_of(two_stages())
    return [
        Toy("one ReLU", first, Channel(last(first), 0), 1.0),
        Toy("one stage", second, Neuron(last(second), 0), 2.0),
        Toy("two stages", third, Channel(last(third), 0), best_of_two_stages),
    ]


def last(network: Network) -> str:
    return network.layers[-1].name


def climb(toy: Toy, slope: float, center: float, proxy: Proxy = "surrogate") -> Visualization:
    return maximize(
        toy.network,
        toy.objective,
        slope=slope,
        proxy=proxy,
        start=start(center),
        preset="max",
        starts=1,
        gaf="none",
        progress=False,
    )


def climb_at_random(network: Network, slope: float, proxy: Proxy = "surrogate") -> list[float]:
    images = maximize(
        network,
        Channel(last(network), 0),
        slope=slope,
        proxy=proxy,
        images=RANDOM_STARTS,
        start_noise=0.5,
        preset="max",
        starts=1,
        gaf="none",
        progress=False,
    )
    return [each.activation for each in images]


def notch(slope: float, value: float, proxy: Proxy = "surrogate") -> float:
    """What ascent on `Notch` reaches from ``value`` at every pixel."""
    network = network_of(Notch())
    image = torch.full((1, SIZE_PX, SIZE_PX), (value + 1) / 2)
    found = maximize(
        network,
        Channel("output", 0),
        slope=slope,
        proxy=proxy,
        start=image,
        preset="max",
        gaf="none",
        progress=False,
    )
    return found.activation


def recorded(network: Network, objective: Objective, slope: float, image: Tensor) -> Tensor:
    """The images of an ascent, ``(steps, 1, 11, 11)``."""
    rule = Recorder()
    maximize(
        network, objective, slope=slope, start=image, update=rule, preset="max", gaf="none", progress=False
    )
    return torch.stack(rule.images)
