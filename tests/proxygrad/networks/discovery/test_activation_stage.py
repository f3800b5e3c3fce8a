"""Which layers rectifiers made, which they take, and which neither."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.models import Catalog
from proxygrad.models.torchvision_compat import import_torchvision
from proxygrad.networks.network import Network
from proxygrad.spec import Stage
from tests.support.networks import Overwriting, Unrolled, small

PRE, POST = "pre_activation", "post_activation"
NEITHER = (None, None)
Place = tuple[Stage | None, str | None]


def places(network: Network) -> dict[str, Place]:
    return {layer.name: (layer.stage, layer.activation) for layer in network.layers}


def of_torchvision(name: str, side_px: int = 32) -> dict[str, Place]:
    return places(Network(import_torchvision().models.get_model(name, weights=None), (3, side_px, side_px)))


def test_a_functional_and_an_in_place_rectifier_are_both_seen() -> None:
    assert places(small()) == {
        "conv": NEITHER,  # a norm stands between it and the rectifier
        "bn": (PRE, "relu"),
        "relu": (POST, "relu"),
        "conv2": (PRE, "relu"),  # taken by a function call, which is no layer
        "fc": NEITHER,
    }


def test_values_that_are_changed_in_place_later_were_what_they_were() -> None:
    found = places(Network(Overwriting(), (3, 16, 16)))
    assert found == {"conv": (PRE, "relu"), "relu": (POST, "relu"), "head": NEITHER, "output": NEITHER}


def test_each_call_of_a_reused_rectifier_is_a_layer_of_its_own() -> None:
    found = places(Network(Unrolled(steps=2), (3, 16, 16)))
    assert found["relu"] == found["relu@2"] == (POST, "relu")
    assert found["step"] == found["step@2"] == (PRE, "relu")
    assert found["output"] == (POST, "relu"), "the mean over all positions"


def test_the_bundled_network() -> None:
    found = places(Catalog.from_file().load("digits"))
    assert found["layer3.bn1"] == (PRE, "relu")
    assert found["layer3.bn2"] == NEITHER, "the shortcut is added before the rectifier"
    assert found["layer3"] == found["layer3.relu2"] == (POST, "relu")
    assert found["layer1.shortcut"] == (POST, "relu"), "an identity: what the stem's rectifier made"
    assert found["conv1"] == found["layer2.shortcut"] == found["fc"] == NEITHER


def test_a_residual_network_of_torchvision() -> None:
    found = of_torchvision("resnet18")
    for name in ("relu", "maxpool", "layer1.0.relu", "layer1.0.relu@2", "layer1.0", "layer4", "avgpool"):
        assert found[name] == (POST, "relu"), name
    assert found["layer1.0.bn1"] == (PRE, "relu")
    for name in ("conv1", "layer1.0.bn2", "layer2.0.downsample", "fc"):
        assert found[name] == NEITHER, name


def test_joined_values_are_rectified_when_all_of_them_are() -> None:
    found = of_torchvision("squeezenet1_0")
    assert found["features.3"] == (POST, "relu"), "two rectified halves"
    assert found["features.3.expand3x3"] == (PRE, "relu")
    assert found["classifier.1"] == (PRE, "relu")
    assert found["classifier"] == found["output"] == (POST, "relu"), "its logits are rectified"


def test_a_vision_transformer_has_its_rectifiers_in_the_mlp() -> None:
    build = import_torchvision().models.VisionTransformer
    vit = build(image_size=32, patch_size=16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=12)
    found = places(Network(vit, (3, 32, 32)))
    block = "encoder.layers.encoder_layer_0"
    assert found[f"{block}.mlp.0"] == (PRE, "gelu")
    assert found[f"{block}.mlp.1"] == found[f"{block}.mlp.2"] == (POST, "gelu")
    others = {place for name, place in found.items() if name not in {f"{block}.mlp.{n}" for n in range(3)}}
    assert others == {NEITHER}


class Functional(nn.Module):
    """Everything that is done with values here is a call, and no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 4, 3, padding=1) for _ in range(3))
        self.head = nn.Linear(8, 4)
        self.same, self.end = nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        one = functional.relu_(self.a(x))
        two = self.b(x).flatten(2).unflatten(2, x.shape[2:]).relu()
        three = self.c(x)
        joined = self.same(torch.cat([one, functional.silu(three)], dim=1))
        joined[:, :4] += two
        values = functional.leaky_relu(self.head(joined.mean(dim=(2, 3))), 0.1)
        end: Tensor = self.end(values[:, 1:])
        return end


def test_calls_methods_and_rearranging_are_followed() -> None:
    found = places(Network(Functional(), (3, 8, 8)))
    assert found == {
        "a": (PRE, "relu"),
        "b": (PRE, "relu"),
        "c": (PRE, "silu"),
        "same": NEITHER,  # one half by relu, one by silu
        "head": (PRE, "leaky_relu"),
        "end": (POST, "leaky_relu"),
    }


def test_an_addition_in_place_ends_what_a_rectifier_made() -> None:
    class Adding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu, self.sum = nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            y = self.relu(self.conv(x))
            y += x
            z: Tensor = self.sum(y)
            return z

    assert places(Network(Adding(), (3, 8, 8)))["sum"] == NEITHER
    assert places(Network(Adding(), (3, 8, 8)))["relu"] == (POST, "relu")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.ReLU6(), "relu6"),
        (nn.PReLU(), "prelu"),
        (nn.ELU(inplace=True), "elu"),
        (nn.SELU(), "selu"),
        (nn.Hardswish(), "hardswish"),
        (nn.Mish(), "mish"),
        (nn.Softplus(), "softplus"),
        (nn.LeakyReLU(inplace=True), "leaky_relu"),
    ],
)
def test_rectifiers_are_named_as_torch_names_them(module: nn.Module, name: str) -> None:
    found = places(Network(nn.Sequential(nn.Conv2d(3, 4, 3), module), (3, 8, 8)))
    assert found == {"0": (PRE, name), "1": (POST, name)}


def test_a_sigmoid_is_no_rectifier() -> None:
    found = places(Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid()), (3, 8, 8)))
    assert found == {"0": NEITHER, "1": NEITHER}
