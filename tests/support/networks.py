"""Small networks that the tests of this folder share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.networks.network import Network


class Small(nn.Module):
    """Convolution, batch norm, an in-place rectifier, a functional one, and a head. Seeded random weights."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(channels, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(8, 6, 3, stride=2, padding=1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv(x)))
        x = functional.relu(self.conv2(x))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


class Dead(nn.Module):
    """A unit that is exactly zero on gray and alive on bright: ``relu(mean(relu(8x - 6)) - b)``, by hand.

    On any image with all values below 0.75 both the unit and its true gradient are exactly 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.unit = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
        with torch.no_grad():
            self.inner.weight.fill_(8.0)
            self.inner.bias.fill_(-6.0)  # type: ignore[union-attr]
            self.unit.weight.fill_(1.0)
            self.unit.bias.fill_(-0.5)  # type: ignore[union-attr]
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        unit: Tensor = self.relu(self.unit(functional.relu(self.inner(x))))
        return unit


class Peak(nn.Module):
    """``relu(0.3 - mean |x - 0.6|)``: 0.3 at its top, 0.2 on gray, 0 on white, where long steps land."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        unit: Tensor = self.relu(0.3 - (x - 0.6).abs().mean(dim=(2, 3)))
        return unit


def small(channels: int = 3, size: int = 16) -> Network:
    return Network(Small(channels), (channels, size, size), name="small")


class Overwriting(nn.Module):
    """What ``conv`` returns is overwritten twice: by an in-place rectifier, then by an in-place product."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        x *= 2.0
        logits: Tensor = self.head(x).mean(dim=(2, 3))
        return logits


class Unrolled(nn.Module):
    """One convolution and one rectifier, called ``steps`` times; a loop that ends by the values themselves.

    ``spare`` never runs, and ``noise`` returns no tensor that has gradients.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.step = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU()
        self.spare = nn.Conv2d(3, 3, 1)
        self.noise = Ranking()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        done = 0
        while done < self.steps and float(x.detach().abs().max()) > 0:
            x = self.relu(self.step(x))
            done += 1
        self.noise(x)
        return x.mean(dim=(2, 3))


class Ranking(nn.Module):
    """Indices: nothing that could be made large."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).argsort(dim=1)
