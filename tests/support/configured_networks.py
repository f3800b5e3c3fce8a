"""Small networks for `models.toml`, and how often each builder was called."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

BUILT: Counter[str] = Counter()
#: Whether `slow` may go on; it waits no longer than this for it.
GO, MOST_S = threading.Event(), 20.0
GO.set()
#: Bytes of the weights of each of these networks.
WEIGHTS_BYTES = 4 * (8 * 9 + 8 + 4 * 8 * 36 + 4)

_counting = threading.Lock()


def _network(name: str) -> nn.Module:
    with _counting:
        BUILT[name] += 1
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))


def small() -> nn.Module:
    """Other weights each time."""
    return _network("small")


def slow() -> nn.Module:
    """The same, when it is let."""
    GO.wait(MOST_S)
    return _network("slow")


def constant() -> nn.Module:
    """The same weights each time."""
    network = _network("constant")
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter) / (number + 1))
    return network


class Odd(nn.Module):
    """One image influences the others, and one rectifier is none that is known."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        logits: Tensor = self.fc(((maps + maps.abs()) / 2 - maps.mean(0)).mean((2, 3)))
        return logits


def save_weights(file: Path, seed: int) -> None:
    """Weights for any of them."""
    generator = torch.Generator().manual_seed(seed)
    state = small().state_dict()
    save_file({key: torch.rand(value.shape, generator=generator) for key, value in state.items()}, file)


def table(name: str, builder: str = "small", weights: str | None = None) -> str:
    """One table of a `models.toml`."""
    lines = [
        f"[models.{name}]",
        f'builder = "tests.support.configured_networks:{builder}"',
        "input_shape = [1, 8, 8]",
    ]
    return "\n".join([*lines, f'weights = "{weights}"' if weights else "", ""])
