"""Summation to delta on the families of torchvision and timm, with random weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from proxygrad import Network
from proxygrad.attribution.attribute import attribute
from proxygrad.models.torchvision_compat import import_torchvision
from tests.corpus.families import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs

#: Side in pixels by model of torchvision.
TORCHVISION = {
    "alexnet": 96,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "efficientnet_v2_s": 64,
    "googlenet": 64,
    "inception_v3": 128,
    "maxvit_t": 224,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_y_400mf": 64,
    "resnet18": 64,
    "resnet50": 64,
    "resnext50_32x4d": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_0": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11_bn": 64,
    "vit_b_16": 224,
    "wide_resnet50_2": 64,
}


def check(module: nn.Module, side_px: int) -> None:
    torch.manual_seed(1)
    images = torch.rand(3, 3, side_px, side_px)
    _initialize(module)
    network = Network(module, (3, side_px, side_px), mean=0.45, std=0.25)
    output = network.layer("output").name
    for dtype, most in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        found = attribute(network, images[:1], f"{output}:3", reference=0.5, dtype=dtype, strict=True)
        difference = (found.value - found.reference_value).abs()
        rounded = torch.maximum(difference, found.value.abs())  # the objective itself is rounded
        assert float((found.delta.absolute.abs() / rounded).max()) <= most, found
        assert float(difference / found.value.abs()) > 1e-3, "it is no rounding"


def _initialize(module: nn.Module) -> None:
    """As they come, but for heads of zeros, and networks whose signals die away to less than rounding.

    These get He's initialization (arXiv 1502.01852), under which signals keep their size.
    """
    torch.manual_seed(2)
    dies_away = type(module).__name__ in ("GoogLeNet", "ShuffleNetV2")
    for each in module.modules():
        if isinstance(each, nn.Conv2d | nn.Linear) and (dies_away or not bool(each.weight.any())):
            nn.init.kaiming_normal_(each.weight, nonlinearity="relu")


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import_torchvision()
        models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
        torch.manual_seed(0)
        made: nn.Module = getattr(models, name)(weights=None)
        return made

    return build


@pytest.mark.parametrize("family", FAMILIES)
def test_small_networks_of_each_family(family: str) -> None:
    check(FAMILIES[family]().eval(), 32)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet18"])
def test_small_networks_of_torchvision(name: str) -> None:
    check(_torchvision(name)(), TORCHVISION[name])


@pytest.mark.soak
@pytest.mark.parametrize("name", TORCHVISION)
def test_networks_of_torchvision(name: str) -> None:
    check(_torchvision(name)(), TORCHVISION[name])
