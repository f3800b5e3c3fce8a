"""A network is copied, listed and cut, and the original is as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from proxygrad.errors import NetworkError, SizeUnsupported, UnknownLayer
from proxygrad.networks.network import Network
from tests.support.networks import Small, small


def test_layers_are_listed_in_order_with_kind_shape_and_units() -> None:
    rows = [(layer.name, layer.kind, layer.type, layer.shape, layer.units) for layer in small().layers]
    assert rows == [
        ("conv", "feature_map", "Conv2d", (8, 16, 16), 8),
        ("bn", "feature_map", "BatchNorm2d", (8, 16, 16), 8),
        ("relu", "feature_map", "ReLU", (8, 16, 16), 8),
        ("conv2", "feature_map", "Conv2d", (6, 8, 8), 6),
        ("fc", "logits", "Linear", (4,), 4),
    ]


def test_an_output_that_no_module_made_is_a_layer_of_its_own() -> None:
    class Functional(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    network = Network(Functional(), (3, 16, 16))
    assert [(layer.name, layer.kind) for layer in network.layers][-2:] == [
        ("fc", "vector"),
        ("output", "logits"),
    ]
    images = torch.rand((1, 3, 16, 16))
    assert torch.equal(network.activations(images, "output"), 2 * network.activations(images, "fc"))


def test_activations_are_those_before_an_in_place_rectifier_behind_the_layer() -> None:
    module, images = Small().eval(), torch.rand((2, 3, 16, 16))
    found = Network(module, (3, 16, 16)).activations(images, "bn")
    expected = module.bn(module.conv(images))
    assert torch.equal(found, expected)
    assert bool((found < 0).any()), "no value below zero: the test would not see an in-place rectifier"


def test_the_forward_pass_ends_at_the_layer() -> None:
    class Bomb(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("ran beyond the target")

    network = small()
    network.module.fc = Bomb()
    assert network.activations(torch.rand((1, 3, 16, 16)), "conv2").shape == (1, 6, 8, 8)


def test_images_are_normalized_with_mean_and_std() -> None:
    module, images = Small().eval(), torch.rand((1, 3, 16, 16))
    network = Network(module, (3, 16, 16), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    normalized = (images - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)) / torch.tensor(
        [0.5, 0.6, 0.7]
    ).view(1, 3, 1, 1)
    torch.testing.assert_close(network.activations(images, "fc"), module(normalized))


def test_the_module_is_left_as_it_was() -> None:
    module = Small().train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    network = Network(module, (3, 16, 16))
    assert network.layers
    network.activations(torch.rand((1, 3, 16, 16)), "relu")
    with pytest.raises(SizeUnsupported):
        Network(nn.Sequential(nn.Conv2d(1, 1, 9)), (1, 16, 16)).layer_shape("0", (4, 4))
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not any(child._forward_hooks for child in module.modules())
    assert not any(child._forward_hooks for child in network.module.modules())


def test_the_digest_is_of_weights_origin_and_normalization() -> None:
    def digest(module: nn.Module, mean: tuple[float, ...] = (0.0, 0.0, 0.0), origin: str = "") -> str:
        return Network(module, (3, 16, 16), mean=mean, origin=origin).info.digest

    module = Small()
    first = digest(module)
    assert digest(module) == first
    assert digest(module, mean=(0.1, 0.0, 0.0)) != first
    assert digest(module, origin="other") != first
    with torch.no_grad():
        module.fc.weight[0, 0] += 1e-3
    assert digest(module) != first


def test_an_unknown_layer_names_near_ones() -> None:
    with pytest.raises(
        UnknownLayer, match=r"unknown layer of model 'small': 'convv'; near names: conv2?, conv"
    ):
        small().activations(torch.rand((1, 3, 16, 16)), "convv")


def test_a_size_the_network_cannot_take_names_it() -> None:
    network = Network(nn.Sequential(nn.Conv2d(3, 4, 11)), (3, 16, 16), name="wide")
    with pytest.raises(SizeUnsupported, match=r"model 'wide' cannot take an image of 8x8 px up to layer '0'"):
        network.layer_shape("0", (8, 8))


def broken_weights() -> nn.Module:
    module = Small()
    with torch.no_grad():
        module.conv2.bias[1] = float("nan")  # type: ignore[index]
    return module


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (0, 16, 16)}, r"input_shape \(0, 16, 16\) has 0 channels; images have 1 or more"),
        ({"mean": (0.5,)}, r"mean \[0.5\] has 1 values; the input has 3 channels"),
        ({"mean": (0.5, float("nan"), 0.5)}, r"mean \[0.5, nan, 0.5\] must be finite"),
        ({"std": (1.0, float("inf"), 1.0)}, r"std \[1.0, inf, 1.0\] must be finite"),
        ({"std": (1.0, 0.0, 1.0)}, r"std \[1.0, 0.0, 1.0\] must be positive"),
    ],
)
def test_bad_arguments_name_the_value(arguments: dict[str, tuple[float, ...]], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        Network(Small(), **{"input_shape": (3, 16, 16), **arguments})  # type: ignore[arg-type]


def test_weights_that_are_not_finite_are_named() -> None:
    with pytest.raises(NetworkError, match=r"'conv2.bias' holds values that are not finite"):
        Network(broken_weights(), (3, 16, 16))


def test_a_module_that_fails_on_its_own_size_says_so() -> None:
    with pytest.raises(NetworkError, match=r"model 'network' fails on an image of shape 1x16x16: .*channels"):
        _ = Network(Small(3), (1, 16, 16)).info


def test_the_same_network_in_float64() -> None:
    network = small()
    exact, images = network.in_float64(), torch.rand((2, 3, 16, 16), dtype=torch.float64)
    module = Small().eval().double()
    found = exact.read(images, ["conv2", "output"])
    assert found["output"].dtype == torch.float64
    torch.testing.assert_close(found["output"], module(images), rtol=1e-13, atol=1e-13)
    assert exact.layers == network.layers
    rough = network.activations(images.float(), "output")
    assert rough.dtype == torch.float32
    torch.testing.assert_close(found["output"].float(), rough, rtol=1e-5, atol=1e-6)
    assert all(each.dtype == torch.float32 for each in network.module.parameters())
