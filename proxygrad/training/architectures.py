"""Small networks to compare ways of training on: deep enough that what reaches the first layers matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import nn

from proxygrad.errors import InvalidRequest

ArchitectureName = Literal["mlp", "mlp_bn", "conv", "conv_bn"]

#: Hidden layers and their width.
MLP_DEPTH, MLP_WIDTH = 10, 64
#: Output channels of each convolution; "pool" halves the size.
CONV_PLAN: tuple[int | Literal["pool"], ...] = (16, 16, "pool", 32, 32, "pool", 64)


def build(
    name: ArchitectureName,
    shape: tuple[int, int, int],
    classes: int,
    rectifier: Callable[[], nn.Module],
    seed: int,
) -> nn.Sequential:
    """A fresh network for images of ``shape`` ``(C, H, W)``, with logits ``(N, classes)``.

    ``mlp``: ten hidden layers of 64. ``conv``: five convolutions of 3 x 3, global average pooling; images
    above 16 px are halved first. ``_bn``: batch norm before each rectifier. Weights are drawn from
    ``seed`` as in He et al. (2015, arXiv 1502.01852, equation 10), biases are 0; torch's own smaller weights
    do not train ten layers with SGD. The global random state stays as it was. Raises `InvalidRequest` for an
    unknown name.
    """
    if name not in get_args(ArchitectureName):
        raise InvalidRequest(
            f"network {name!r}; there are {', '.join(map(repr, get_args(ArchitectureName)))}"
        )
    batch_norm = name.endswith("_bn")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        make = _mlp if name.startswith("mlp") else _conv
        network = nn.Sequential(*make(shape, classes, rectifier, batch_norm))
        for layer in network:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return network


def _mlp(
    shape: tuple[int, int, int], classes: int, rectifier: Callable[[], nn.Module], batch_norm: bool
) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = shape[0] * shape[1] * shape[2]
    for _ in range(MLP_DEPTH):
        layers += [
            nn.Linear(inputs, MLP_WIDTH),
            *([nn.BatchNorm1d(MLP_WIDTH)] if batch_norm else []),
            rectifier(),
        ]
        inputs = MLP_WIDTH
    return [*layers, nn.Linear(inputs, classes)]


def _conv(
    shape: tuple[int, int, int], classes: int, rectifier: Callable[[], nn.Module], batch_norm: bool
) -> list[nn.Module]:
    channels, height, _ = shape
    layers: list[nn.Module] = [nn.AvgPool2d(2)] if height > 16 else []
    for step in CONV_PLAN:
        if step == "pool":
            layers.append(nn.MaxPool2d(2))
            continue
        norm = [nn.BatchNorm2d(step)] if batch_norm else []
        layers += [nn.Conv2d(channels, step, 3, padding=1), *norm, rectifier()]
        channels = step
    return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
