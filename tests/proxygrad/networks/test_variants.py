"""Working copies have the values of the network, of every family, and share its weights."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad import Network
from proxygrad.errors import UnknownLayer
from proxygrad.models.torchvision_compat import import_torchvision
from proxygrad.networks.layer_reader import TOO_COARSE
from proxygrad.networks.variants import ROUNDING, VariantSpec
from tests.support.foldable_networks import scrambled
from tests.support.networks import Overwriting, Small

#: Of each family: a small member, the side of the image in pixels, and how many batch norms can be folded.
FAMILIES = {
    "resnet18": (32, 20),
    "densenet121": (32, 59),  # the others follow a concatenation
    "vgg11_bn": (32, 8),
    "mobilenet_v2": (32, 52),
    "mobilenet_v3_small": (32, 34),
    "googlenet": (32, 57),
    "inception_v3": (75, 94),
    "shufflenet_v2_x0_5": (32, 56),
    "regnet_x_400mf": (32, 71),
    "efficientnet_b0": (32, 49),
    "mnasnet0_5": (32, 52),
    "squeezenet1_1": (32, 0),
    "vit": (32, 0),
}


def of_family(name: str, side: int) -> Network:
    torch.manual_seed(0)
    return Network(scrambled(built(name, side)), (3, side, side), name=name)


def built(name: str, side: int) -> nn.Module:
    models = import_torchvision().models
    small = {"patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
    given: dict[str, Any] = {"weights": None, "num_classes": 8}
    if name in ("googlenet", "inception_v3", "vgg11_bn"):
        given["init_weights"] = False  # which takes seconds, and says nothing here
    if name == "vit":
        vit: nn.Module = models.VisionTransformer(image_size=side, **small)
        return vit
    with torch.device("meta" if name == "vgg11_bn" else "cpu"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        module: nn.Module = models.get_model(name, **given)
    if name == "vgg11_bn":  # without its classifier of half a gigabyte
        module.features = nn.Sequential(*(filled(each) for each in module.features))  # type: ignore[union-attr]
        module.classifier = nn.Linear(25088, 8)
    return module


def filled(layer: nn.Module) -> nn.Module:
    """The layer, off the meta device, with weights."""
    layer = layer.to_empty(device="cpu")
    for each in layer.modules():
        if isinstance(each, nn.Conv2d | nn.BatchNorm2d):
            each.reset_parameters()
    return layer


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_torchvision(name: str) -> None:
    side, folded = FAMILIES[name]
    network = of_family(name, side)
    reader = network.prepared(["output"], "float32")
    assert len(reader.folded) == folded
    assert reader.module is not network.module

    layers = [layer.name for layer in network.layers]
    hidden = {layer for pair in network._variants.pairs for layer in pair.hidden}
    asked = [layer for layer in layers[:: max(1, len(layers) // 8)] if layer not in hidden]
    images = torch.rand((2, 3, side, side), generator=torch.Generator().manual_seed(5))
    expected = network.read(images, asked)
    for precision, most in (("float32", 1e-5), ("bfloat16", TOO_COARSE)):
        reader = network.prepared(asked, precision)  # type: ignore[arg-type]
        assert reader.dtype == precision
        found = reader(images)
        for layer, value in expected.items():
            apart = (found[layer] - value).square().mean().sqrt()
            scale = value.square().mean().sqrt().clamp(min=1e-6)  # ViT's head begins with zeros
            assert float(apart / scale) < most, (layer, precision, float(apart / scale))


def test_only_what_changes_takes_memory() -> None:
    """Folded weights and those laid out anew are new; all others are the network's own."""

    class Wide(Small):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2d(6, 6, 1)
            self.norm = nn.BatchNorm2d(6)

        def forward(self, x: Tensor) -> Tensor:
            x = functional.relu(self.conv2(self.relu(self.bn(self.conv(x)))))
            logits: Tensor = self.fc(self.norm(functional.relu(self.one(x))).mean(dim=(2, 3)))
            return logits

    network = Network(Wide(), (3, 16, 16))
    reader = network.prepared(["fc"], "float32")
    own = {name: value.data_ptr() for name, value in network.module.state_dict().items()}
    new = {name for name, value in reader.module.state_dict().items() if value.data_ptr() != own.get(name)}
    assert new == {"conv.weight", "conv.bias", "conv2.weight"}
    coarse = network.prepared(["fc"], "bfloat16").module.state_dict()
    assert {name for name, value in coarse.items() if value.dtype == torch.bfloat16} == {
        f"{layer}.{part}" for layer in ("conv", "conv2", "one", "fc") for part in ("weight", "bias")
    }
    assert {name for name, value in coarse.items() if value.data_ptr() == own[name]} == {
        name for name in own if name.startswith(("bn.", "norm."))
    }


def test_copies_share_what_they_have_in_common() -> None:
    network = Network(Small(), (3, 16, 16))
    one, other = (network.prepared([layer], "float32").module for layer in ("fc", "conv"))
    assert one is not other
    assert one is network.prepared(["conv2"], "float32").module
    assert one.get_parameter("conv2.weight") is other.get_parameter("conv2.weight")
    assert other.get_parameter("conv.bias") is network.module.get_parameter("conv.bias")


def test_a_copy_that_was_for_comparison_only_is_gone() -> None:
    network = Network(Small(), (3, 16, 16))
    network.prepared(["fc"], "bfloat16")
    gc.collect()
    assert {spec.bfloat16 for spec in network._variants._variants} == {True}


class Viewing(nn.Module):
    """Relies on the memory layout: ``view`` fails on feature maps that are laid out channels-last."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(512, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x)).relu()
        logits: Tensor = self.fc(x.view(len(x), -1))
        return logits


class OneByOne(Small):
    """Takes one image."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) != 1:
            raise ValueError(f"{len(x)} images")
        return super().forward(x)


class Strict(Small):
    """Looks at its batch norm while it runs."""

    def forward(self, x: Tensor) -> Tensor:
        if type(self.bn) is not nn.BatchNorm2d or self.bn.weight.numel() != 8:
            raise TypeError(f"{self.bn} is no batch norm of mine")
        return super().forward(x)


@pytest.mark.parametrize(
    ("module", "folded", "channels_last"),
    [
        (Viewing(), ["bn"], False),
        (OneByOne(), ["bn"], True),
        (Strict(), ["bn"], True),
        (Overwriting(), [], True),
    ],
    ids=["viewing", "one by one", "strict", "overwriting"],
)
def test_a_network_that_takes_not_everything(
    module: nn.Module, folded: list[str], channels_last: bool
) -> None:
    side = 8 if isinstance(module, Viewing) else 16
    network = Network(scrambled(module), (3, side, side))
    images = torch.rand((1, 3, side, side))
    for layer in (layer.name for layer in network.layers):
        found = network.prepared([layer], "float32")(images)[layer]
        torch.testing.assert_close(found, network.activations(images, layer), rtol=1e-4, atol=1e-5)
    copy = network._variants.fastest([])
    assert [pair.norm for pair in copy.spec.pairs] == folded
    assert copy.spec.channels_last == channels_last


def test_a_wrong_fold_is_seen() -> None:
    network = Network(scrambled(Small()), (3, 16, 16))
    (pair,) = network._variants.pairs
    copy = network._variants.variant(VariantSpec((pair,), True))
    assert network._variants.deviation(copy).largest < 1e-5
    copy.module.get_parameter("conv.bias").data[3] += 0.01
    network._variants._deviations.clear()
    assert network._variants.deviation(copy).largest > ROUNDING


def test_readers_are_made_once_and_for_layers_that_exist() -> None:
    network = Network(Small(), (3, 16, 16), name="small")
    assert network.prepared(["fc"]) is network.prepared(["fc"])
    with pytest.raises(UnknownLayer, match="unknown layer of model 'small': 'conf'; near names: conv"):
        network.prepared(["conf"])


def test_a_reader_works_in_inference_mode() -> None:
    network = Network(Small(), (3, 16, 16))
    images = torch.rand((1, 3, 16, 16))
    with torch.inference_mode():
        found = network.prepared(["fc"])(images)["fc"]
    torch.testing.assert_close(found, network.activations(images, "fc"))
    grown = images.clone().requires_grad_()
    assert network.prepared(["fc"])(grown)["fc"].requires_grad
