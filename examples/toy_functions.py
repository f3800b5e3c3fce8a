"""Why activation maximization fails, on three functions so small that their optimum is known.

    python examples/toy_functions.py

Prints what plain activation maximization and ProxyGrad reach, and writes `toy_functions.png`: for each
function the start, the image of either, in that order. docs/why-activation-maximization-fails.md explains it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import proxygrad as pg

SIZE_PX = 11
CENTER = SIZE_PX // 2
#: Row and column from which each of the four shifted copies takes its pixel.
DIRECTIONS = ((0, -1), (0, 1), (-1, 0), (1, 0))
#: Of the copies from the left, the right, above and below.
FIRST_WEIGHTS = (1.0, 1.0, -1.0, -1.0)
SECOND_WEIGHTS = (1.0, 1.0, 1.0, -1.0)


class ShiftMix(nn.Module):
    """ReLU (or Leaky ReLU), four copies of the map shifted by ``distance`` pixels, and a weighted sum of them
    (a 1x1 convolution). ``(B, 1, H, W)`` → the same; zeros come in at the border.
    """

    def __init__(self, weights: Sequence[float], distance: int, negative_slope: float = 0.0) -> None:
        super().__init__()
        self.distance, self.negative_slope = distance, negative_slope
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        padded = F.pad(F.leaky_relu(x, self.negative_slope), [self.distance] * 4)
        copies = [
            padded[:, :, top : top + height, left : left + width]
            for top, left in (
                (self.distance * (1 + row), self.distance * (1 + column)) for row, column in DIRECTIONS
            )
        ]
        return (torch.cat(copies, dim=1) * self.weights).sum(dim=1, keepdim=True)


def one_relu() -> nn.Module:
    """Each pixel through a ReLU."""
    return nn.Sequential(nn.ReLU())


def one_stage() -> nn.Module:
    """ReLU, shifts by one pixel, a mixture with weights of both signs."""
    return nn.Sequential(ShiftMix(FIRST_WEIGHTS, 1))


def two_stages(negative_slope: float = 0.0) -> nn.Sequential:
    """The same twice, with shifts by two pixels in the second; the second begins with the ReLU between."""
    return nn.Sequential(
        ShiftMix(FIRST_WEIGHTS, 1, negative_slope), ShiftMix(SECOND_WEIGHTS, 2, negative_slope)
    )


def network_of(module: nn.Module) -> pg.Network:
    """For images in [0, 1] of which the module sees values in [-1, 1]: mid-gray is 0."""
    return pg.Network(module, input_shape=(1, SIZE_PX, SIZE_PX), mean=0.5, std=0.5)


def start(center: float) -> Tensor:
    """All 0, with ``center`` in -1 to 1 at the center, as an image ``(1, 11, 11)`` in [0, 1]."""
    image = torch.full((1, SIZE_PX, SIZE_PX), 0.5)
    image[0, CENTER, CENTER] += center / 2
    return image


def main() -> None:
    """Maximize each function from each start."""
    images = []
    functions = {"one ReLU": one_relu(), "one stage": one_stage(), "two stages": two_stages()}
    print(f"{'function':<12} {'start':>6} {'plain':>7} {'ProxyGrad':>9}")
    for name, module in functions.items():
        network = network_of(module)
        layer = network.layers[-1].name
        objective = pg.Neuron(layer, 0) if name == "one stage" else pg.Channel(layer, 0)
        for center in (0.0, 1.0, -1.0):
            plain, proxy = (
                pg.maximize(
                    network,
                    objective,
                    slope=slope,
                    start=start(center),
                    preset="max",
                    gaf="none",
                    steps=48,
                    progress=False,
                )
                for slope in (0.0, 0.1)
            )
            print(f"{name:<12} {center:>6g} {plain.activation:>7.3f} {proxy.activation:>9.3f}")
            images += [start(center), plain.image, proxy.image]
    enlarged = [F.interpolate(image[None], scale_factor=6)[0] for image in images]
    pg.grid(enlarged, columns=9).save("toy_functions.png")


if __name__ == "__main__":
    main()
