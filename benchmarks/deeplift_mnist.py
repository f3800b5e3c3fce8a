"""The DeepLIFT authors' network for MNIST, and their experiment: erase what makes an 8 an 8 and no 3.

Network, data and published figures are those of ``truth/deeplift`` in the shared folder (Shrikumar, Greenside
and Kundaje, arXiv 1704.02685, section 4.1; the authors' notebook). Used by tests and by ``make reproduce``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from proxygrad.attribution.attribute import attribute
from proxygrad.training.datasets import read_mnist

#: So many pixels are erased at most: the sorted score differences have their threshold at this index.
ERASED = 157
#: A network's columns: the method of `attribute`, and whether its map counts where the pixel is above 0 only.
COLUMNS: dict[str, tuple[dict[str, Any], bool]] = {
    "|gradient| × (x > 0)": ({"method": "saliency"}, True),
    "guided backprop × (x > 0)": ({"method": "guided_backprop"}, True),
    "gradient × input": ({"method": "gradient_times_input"}, False),
    "integrated gradients, 5": ({"method": "integrated_gradients", "points": 5}, False),
    "integrated gradients, 10": ({"method": "integrated_gradients", "points": 10}, False),
    "Rescale": ({"rule": "rescale"}, False),
    "RevealCancel": ({"rule": "revealcancel"}, False),
}
#: The published medians of the fall of ``logit_8 − logit_t``, by target digit t, in the order of `COLUMNS`.
MEDIANS = {
    3: (4819, 6493, 7964, 7959, 7988, 7960, 10092),
    6: (4687, 6937, 7155, 7153, 7155, 7137, 8625),
}
#: The published test images that fell most, in order. (Rescale and the other two are not in the notebook.)
FELL_MOST = {
    ("RevealCancel", 3): (5846, 9917, 8157, 8547, 9574, 8437, 5797, 8872, 8466, 9516),
    ("RevealCancel", 6): (2470, 5857, 2213, 1118, 2451, 4246, 5864, 5846, 9516, 3829),
    ("integrated gradients, 10", 3): (5846, 8157, 6654, 5797, 8015, 9917, 6435, 6212, 8440, 8249),
    ("integrated gradients, 10", 6): (5857, 5846, 9516, 2470, 1118, 9609, 4246, 2451, 8985, 5864),
    ("gradient × input", 3): (5846, 8157, 5797, 6654, 9917, 8015, 6435, 9516, 6212, 8440),
    ("gradient × input", 6): (5857, 5846, 2470, 9516, 1118, 9609, 4246, 2451, 8985, 8965),
    ("guided backprop × (x > 0)", 3): (5846, 5797, 5650, 8437, 8157, 2774, 9516, 6654, 3807, 7450),
    ("guided backprop × (x > 0)", 6): (2470, 5846, 9609, 9516, 4246, 1118, 8300, 1074, 8009, 2895),
}


class Digits(NamedTuple):
    """The test images ``(N, 1, 28, 28)`` with pixels 0 … 255, their labels ``(N,)`` and numbers ``(N,)``."""

    images: Tensor
    labels: Tensor
    numbers: Tensor

    def of(self, digit: int) -> Digits:
        """Those of one digit."""
        return self.at(self.labels == digit)

    def at(self, which: Tensor) -> Digits:
        """Those of a mask or of indices."""
        return Digits(self.images[which], self.labels[which], self.numbers[which])


def mnist_network(shared: Path) -> nn.Sequential:
    """The authors' network: ``(N, 1, 28, 28)`` → logits ``(N, 10)``.

    Keras keeps kernels as (height, width, in, out) and flattens (row, column, channel); torch has (out, in,
    height, width) and (channel, row, column).
    """
    kept = load_file(shared / "truth" / "deeplift" / "mnist_allconv.safetensors")
    network = nn.Sequential(
        *(nn.Conv2d(1, 32, 4, stride=2), nn.ReLU(), nn.Conv2d(32, 64, 4, stride=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    dense = kept["dense_1.kernel"].view(5, 5, 64, 128).permute(3, 2, 0, 1).reshape(128, 1600)
    weights = {
        "0.weight": kept["conv2d_1.kernel"].permute(3, 2, 0, 1),
        "0.bias": kept["conv2d_1.bias"],
        "2.weight": kept["conv2d_2.kernel"].permute(3, 2, 0, 1),
        "2.bias": kept["conv2d_2.bias"],
        "5.weight": dense,
        "5.bias": kept["dense_1.bias"],
        "7.weight": kept["dense_2.kernel"].T,
        "7.bias": kept["dense_2.bias"],
    }
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def mnist_test_set(shared: Path) -> Digits:
    """The 10,000 test images."""
    pixels, labels = read_mnist(shared / "data" / "mnist")
    return Digits(pixels.float(), labels, torch.arange(len(pixels)))


def scores(network: nn.Module, images: Tensor, digit: int, column: str) -> Tensor:
    """What each pixel adds to the logit of ``digit`` according to a column, ``(N, 1, 28, 28)``."""
    how, where_positive = COLUMNS[column]
    found = attribute(network, images, f"output:{digit}", reference="zeros", **how).contributions
    return found * (images > 0) if where_positive else found


def kept(images: Tensor, difference: Tensor) -> Tensor:
    """The images without the pixels that speak for the one digit and against the other.

    ``difference``: of the scores of both digits, of the images' shape. The threshold is its entry of index
    `ERASED`, sorted downwards, or 0 where that is negative; pixels above it are set to 0.
    """
    sorted_down = difference.flatten(1).sort(dim=1, descending=True).values
    threshold = sorted_down[:, ERASED].clamp(min=0).view(-1, 1, 1, 1)
    return torch.where(difference <= threshold, images, 0.0)


def falls(network: nn.Module, images: Tensor, digit: int, target: int, difference: Tensor) -> Tensor:
    """How much ``logit_digit − logit_target`` falls for each image, ``(N,)``."""
    with torch.no_grad():
        before, after = network(images), network(kept(images, difference))
    return (before - after)[:, digit] - (before - after)[:, target]  # type: ignore[no-any-return]


def fell_most(fall: Tensor, numbers: Tensor, count: int = 10) -> tuple[int, ...]:
    """The numbers of the images that fell most, in order."""
    return tuple(numbers[fall.argsort(descending=True)[:count]].tolist())
