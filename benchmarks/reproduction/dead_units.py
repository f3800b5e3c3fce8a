"""Units that are dead from the start, and how many of them a way of training brings back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.training.architectures import build
from proxygrad.training.datasets import Dataset
from proxygrad.training.methods import Method
from proxygrad.training.runs import activity

#: Of ten hidden layers the fifth; half of its units are killed.
LAYER, KILLED = 4, 32
#: Before its rectifier a killed unit is at -1, give or take a hundredth of what the others spread.
BIAS, WEIGHT = -1.0, 0.01


@dataclass(frozen=True)
class Revival:
    """Of `KILLED` units, how many are above 0 on some training image after training; ``moved``: how many had
    a weight or bias that changed at all; None of both: the loss was not finite.
    """

    method: str
    alive: int | None
    moved: int | None


def revive(dataset: Dataset, method: Method, seed: int, epochs: int, rate: float) -> Revival:
    """Kill half a layer of the network of ten layers, train, and count."""
    network = build("mlp", (1, *dataset.images.shape[2:]), dataset.classes, method.rectifier, seed)
    layer = [each for each in network if isinstance(each, nn.Linear)][LAYER]
    with torch.no_grad():
        layer.weight[:KILLED] *= WEIGHT
        layer.bias[:KILLED] = BIAS
    if bool(activity(network, dataset.images)[1][LAYER][:KILLED].any()):
        raise RuntimeError("a unit that was killed is alive")
    before = _weights(layer)
    optimizer = method.make_optimizer(network, rate)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        for chosen in torch.randperm(len(dataset.labels), generator=generator).split(64):
            with method.block(epoch / epochs):
                logits = network(dataset.images[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(functional.cross_entropy(logits, dataset.labels[chosen]))
            optimizer.step()
    if not bool(_weights(layer).isfinite().all()):
        return Revival(method.name, None, None)
    alive = activity(network, dataset.images)[1][LAYER][:KILLED]
    moved = (_weights(layer) != before).any(dim=1)
    return Revival(method.name, int(alive.sum()), int(moved.sum()))


def _weights(layer: nn.Linear) -> Tensor:
    """Weights and bias of the killed units: ``(KILLED, inputs + 1)``."""
    return torch.cat([layer.weight, layer.bias[:, None]], dim=1)[:KILLED].detach().clone()
