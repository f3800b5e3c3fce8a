"""Handwritten digits for the stages of LDAM: a network to look into, and another, trained apart, as judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad import Network, load
from proxygrad.training.datasets import read_mnist
from proxygrad.training.digits import load_split

CLASSES = 10


@dataclass(frozen=True)
class Handwriting:
    """Images ``(N, 1, H, W)`` in [0, 1] with labels ``(N,)``, others that the network has not seen, and both
    networks. ``judge``: pixels to logits; it shares neither layers nor seed with ``network``."""

    name: str
    network: Network
    judge: Judge
    images: Tensor
    labels: Tensor
    others: Tensor
    other_labels: Tensor


class Judge(nn.Module):
    """Three strided convolutions and a dense layer; ``(B, 1, H, W)`` in [0, 1] → ``(B, 10)``."""

    def __init__(self, side_px: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for outputs in (16, 32, 64):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
            inputs, side_px = outputs, (side_px + 1) // 2
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(inputs * side_px**2, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images))
        return logits

    @torch.no_grad()
    def confidence(self, images: Tensor, labels: Tensor) -> Tensor:
        """The softmax of each image's own class: ``(B,)``."""
        probabilities: Tensor = self(images).softmax(dim=1)
        return probabilities[torch.arange(len(images)), labels]

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What the last layer sees: ``(B, F)``."""
        return torch.cat([self.body(part) for part in images.split(500)])


def classifier() -> nn.Sequential:
    """Two convolutions 5×5 with pooling, two dense layers: ``(B, 1, 28, 28)`` in [0, 1] → ``(B, 10)``."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, CLASSES)),
    )


def digits() -> Handwriting:
    """The bundled network. Its judge learns from the same images, since there are no others."""
    split = load_split()
    judge = Judge(32)
    fit(judge, split.images, split.labels, seed=7, epochs=8, noise=0.1)
    return Handwriting(
        "digits",
        load("digits"),
        judge,
        split.images,
        split.labels,
        split.held_out_images,
        split.held_out_labels,
    )


def mnist(shared: Path) -> Handwriting:
    """The 10,000 test images, one half for the network and the other for its judge."""
    pixels, labels = read_mnist(shared / "data" / "mnist")
    images = pixels.float() / 255
    network, judge = classifier(), Judge(28)
    fit(network, images[::2], labels[::2], seed=1, epochs=3)
    fit(judge, images[1::2], labels[1::2], seed=2, epochs=4, noise=0.3)
    own = Network(network, (1, 28, 28), 0, 1, name="mnist", classes="0123456789")
    return Handwriting("MNIST", own, judge, images[::2], labels[::2], images[1::2], labels[1::2])


def fit(
    module: nn.Module, images: Tensor, labels: Tensor, *, seed: int, epochs: int, noise: float = 0
) -> None:
    """Train by Adam on cross-entropy; each image with noise of a deviation between 0 and ``noise``."""
    generator = torch.Generator().manual_seed(seed)
    reset(module, seed)
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    module.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels), generator=generator).split(64):
            batch = images[chosen]
            deviation = noise * torch.rand(len(batch), 1, 1, 1, generator=generator)
            batch = (batch + deviation * torch.randn(batch.shape, generator=generator)).clamp(0, 1)
            optimizer.zero_grad()
            torch.autograd.backward(functional.cross_entropy(module(batch), labels[chosen]))
            optimizer.step()
    module.eval()


def reset(module: nn.Module, seed: int) -> None:
    """New weights from ``seed``, without touching torch's global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for each in module.modules():
            if isinstance(each, nn.Conv2d | nn.Linear):
                each.reset_parameters()


@torch.no_grad()
def accuracy(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the images whose largest logit is their label's."""
    return float((module(images).argmax(dim=1) == labels).float().mean())


def nearest(images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to, and number of, the nearest row of ``others`` ``(M, F)`` for each row ``(N, F)``."""
    found = torch.cdist(images, others).min(dim=1)
    return found.values, found.indices


def distance_to_real(data: Handwriting, images: Tensor, labels: Tensor) -> float:
    """How far images are from the nearest real image of their class, in units of how far other real ones are.

    Both as the mean Euclidean distance between features of the judge. 1: as close as real images are.
    """
    found, reference = [], []
    for label in range(CLASSES):
        real = data.judge.features(data.images[data.labels == label])
        found.append(nearest(data.judge.features(images[labels == label]), real)[0])
        reference.append(nearest(data.judge.features(data.others[data.other_labels == label]), real)[0])
    return float(torch.cat(found).mean() / torch.cat(reference).mean())
