"""A network of your own: CIFAR-10's ResNet-20, whose rectifiers are function calls and not modules.

The 20-layer network for 32 px images of He, Zhang, Ren and Sun, "Deep Residual Learning for Image
Recognition" (arXiv 1512.03385, section 4.2), with their parameter-free shortcuts (option A). To serve it,
put this folder on ``PYTHONPATH`` and name it in ``models.toml``::

    [models.resnet20]
    builder = "resnet20:resnet20"
    weights = "cifar10_resnet20.safetensors"
    input_shape = [3, 32, 32]
    mean = [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut that subsamples and pads the new channels with zeros."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.new_channels = channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))  # (B, channels, H / stride, W / stride)
        y = self.bn2(self.conv2(y))
        return functional.relu(y + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """``(B, channels_in, H, W)`` → ``(B, channels, H / stride, W / stride)``."""
        before = self.new_channels // 2
        subsampled = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(subsampled, (0, 0, 0, 0, before, self.new_channels - before))


class ResNet20(nn.Module):
    """Three stages of three blocks at 16, 32 and 64 channels: ``(B, 3, 32, 32)`` → ``(B, 10)`` logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, stride=1)
        self.layer2 = _stage(16, 32, stride=2)
        self.layer3 = _stage(32, 64, stride=2)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))  # (B, 16, 32, 32)
        x = self.layer3(self.layer2(self.layer1(x)))  # (B, 64, 8, 8)
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def _stage(channels_in: int, channels: int, stride: int) -> nn.Sequential:
    first = Block(channels_in, channels, stride)
    return nn.Sequential(first, *(Block(channels, channels, 1) for _ in range(2)))


def resnet20() -> nn.Module:
    """The network with random weights."""
    return ResNet20()
