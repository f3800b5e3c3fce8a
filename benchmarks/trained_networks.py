"""Trained networks to measure on: the bundled digits, and those that others trained, where they are.

The latter are in the folder that PROXYGRAD_SHARED names: SqueezeNet 1.0 for ImageNet, ResNet-20 for CIFAR-10.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from examples.resnet20 import resnet20 as untrained_resnet20
from proxygrad import Network, load
from proxygrad.models.torchvision_compat import import_torchvision

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def digits() -> Network:
    """The bundled network, for 1 x 32 x 32 px."""
    return load("digits")


def squeezenet(shared: Path) -> Network:
    """SqueezeNet 1.0, here for 112 px: half of its own size, a quarter of the time."""
    module = import_torchvision().models.squeezenet1_0()
    module.load_state_dict(load_file(shared / "models" / "squeezenet1_0.safetensors"))
    return Network(module.eval(), input_shape=(3, 112, 112), mean=MEAN, std=STD)


def resnet20(shared: Path) -> Network:
    """ResNet-20 for 32 px, with batch norm and rectifiers that are function calls."""
    module = untrained_resnet20()
    module.load_state_dict(load_file(shared / "models" / "cifar10_resnet20.safetensors"))
    return Network(module.eval(), input_shape=(3, 32, 32), mean=MEAN, std=STD)
