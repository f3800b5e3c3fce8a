"""A network as people write them: functional and in-place rectifiers, a layer called in a loop, two outputs.

    python examples/own_network.py

Nothing is traced and nothing is rewritten; the module itself stays as it is. Prints the layers, then makes
one image for each of three objectives and writes them into the current directory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

import proxygrad as pg


class Own(nn.Module):
    """A convolution that is called until its answer stops growing, at most three times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.loop = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = functional.relu_(self.stem(x))
        for _ in range(3):
            before = x.detach().norm()
            x = functional.relu(x + self.loop(x), inplace=True)
            if x.detach().norm() < before:
                break
        features = x.mean(dim=(2, 3))
        return {"logits": self.head(features), "features": features}


def main() -> None:
    torch.manual_seed(0)
    network = pg.Network(Own(), input_shape=(3, 64, 64))
    print(network.layers)
    objectives = {"first_call": "loop:5", "second_call": "loop@2:5@10,20", "logit": "output:3"}
    for name, image in zip(
        objectives, pg.maximize(network, list(objectives.values()), steps=32), strict=True
    ):
        image.save(f"own_{name}.png")
        print(f"own_{name}.png: {image.start_activation:.3g} -> {image.activation:.3g}")


if __name__ == "__main__":
    main()
