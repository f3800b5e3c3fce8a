"""The bundled network: handwritten digits, small enough to travel with the code.

A residual network (He et al. 2016, arXiv 1512.03385) with batch norm and ReLU, one block a stage, widths
16/32/64 (those of its CIFAR networks), 78 010 parameters. ``digits.md`` beside this file says what it was
trained on, how, and what it can do; ``proxygrad train-digits`` trains it again.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("digits.safetensors")
#: Tells its images from those that chains of it make; see the model card.
DISCRIMINATOR = Path(__file__).with_name("digits-discriminator.safetensors")
INPUT_SHAPE = (1, 32, 32)
#: Of all training pixels in [0, 1], ink = 1: 0.305 and 0.324 on the training split.
MEAN = (0.305,)
STD = (0.324,)
CLASSES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


class Stage(nn.Module):
    """A residual block, rectified. ``(B, inputs, H, W)`` → ``(B, outputs, H/stride, W/stride)``."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The rectified sum of branch and shortcut."""
        branch = self.relu1(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        output: Tensor = self.relu2(branch + self.shortcut(x))
        return output


class DigitsNet(nn.Module):
    """Normalized images ``(B, 1, 32, 32)`` → ten logits ``(B, 10)``.

    ``smooth`` averages 4×4 pixels twice (the triangle with which the 8×8 originals were enlarged) and 3×3
    once: the network answers only to what its data can hold, and strided layers leave no grid in its
    gradients. Each logit is that of a sigmoid, "is it this digit?": all are negative for what is none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.smooth = nn.Sequential(  # 32 → 33 → 32: kernels of even size move the image by half a pixel
            nn.AvgPool2d(4, stride=1, padding=2, count_include_pad=False),
            nn.AvgPool2d(4, stride=1, padding=1, count_include_pad=False),
            nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
        )
        self.conv1 = nn.Conv2d(1, 16, 5, stride=2, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = Stage(16, 16, stride=1)
        self.layer2 = Stage(16, 32, stride=2)
        self.layer3 = Stage(32, 64, stride=2)
        self.fc = nn.Linear(64, 10)

    def features(self, x: Tensor) -> Tensor:
        """The output of ``layer3``: ``(B, 1, 32, 32)`` → ``(B, 64, 4, 4)``."""
        x = self.smooth(x)
        x = self.relu(self.bn1(self.conv1(x)))  # (B, 16, 16, 16)
        x = self.layer2(self.layer1(x))  # (B, 32, 8, 8)
        output: Tensor = self.layer3(x)  # (B, 64, 4, 4)
        return output

    def classify(self, features: Tensor) -> Tensor:
        """Logits from the output of ``layer3``: ``(B, 64, H, W)`` → ``(B, 10)``."""
        logits: Tensor = self.fc(features.mean(dim=(2, 3)))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Normalized images → logits."""
        return self.classify(self.features(x))


def digits(weights: bool = False) -> DigitsNet:
    """The network, in evaluation mode: with the bundled ``weights``, or untrained.

    Raises `proxygrad.errors.WeightsError` when the bundled file is missing or damaged.
    """
    network = DigitsNet()
    if weights:
        from proxygrad.models.weights import load_into, read_state_dict

        load_into(network, read_state_dict(WEIGHTS), f"weights file {WEIGHTS}")
    return network.eval()


def normalize(images: Tensor) -> Tensor:
    """Pixels in [0, 1] as the network takes them: ``(x - MEAN) / STD``."""
    return (images - torch.tensor(MEAN).view(1, -1, 1, 1)) / torch.tensor(STD).view(1, -1, 1, 1)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
