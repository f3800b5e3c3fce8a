"""One network of each family of torchvision's catalog, small, with random weights; ``make zoo`` has all."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from proxygrad import Channel, Logit, Network, Neuron, maximize
from proxygrad.models.torchvision_compat import import_torchvision
from proxygrad.networks.batching import Batching

models = import_torchvision().models


def small_convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig

    return models.ConvNeXt([CNBlockConfig(8, 12, 1), CNBlockConfig(12, None, 1)])  # type: ignore[no-any-return]


def small_vit() -> nn.Module:
    return models.VisionTransformer(  # type: ignore[no-any-return]
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24
    )


def small_swin() -> nn.Module:
    return models.SwinTransformer([4, 4], 16, [2, 1], [2, 2], [4, 4])  # type: ignore[no-any-return]


def small_maxvit() -> nn.Module:
    return models.MaxVit(  # type: ignore[no-any-return]
        input_size=(32, 32),
        stem_channels=8,
        partition_size=2,
        block_channels=[8, 12],
        block_layers=[1, 1],
        head_dim=4,
        stochastic_depth_prob=0.0,
    )


def named(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: models.get_model(name, weights=None, **options)


#: Builder and image size: the smallest member of each family at about the smallest size that it takes.
FAMILIES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "alexnet": (named("alexnet"), 64),
    "vgg": (named("vgg11_bn", init_weights=False), 32),
    "resnet": (named("resnet18"), 32),
    "resnext": (named("resnext50_32x4d"), 32),
    "squeezenet": (named("squeezenet1_1"), 32),
    "densenet": (named("densenet121"), 32),
    "inception_v3": (named("inception_v3", init_weights=False), 75),
    "googlenet": (named("googlenet", init_weights=False), 32),
    "shufflenet": (named("shufflenet_v2_x0_5"), 32),
    "mobilenet_v2": (named("mobilenet_v2"), 32),
    "mobilenet_v3": (named("mobilenet_v3_small"), 32),
    "mnasnet": (named("mnasnet0_5"), 32),
    "regnet_x": (named("regnet_x_400mf"), 32),
    "regnet_y": (named("regnet_y_400mf"), 32),
    "efficientnet": (named("efficientnet_b0"), 32),
    "convnext": (small_convnext, 32),
    "vit": (small_vit, 32),
    "swin": (small_swin, 32),
    "maxvit": (small_maxvit, 32),
}


def network_of(family: str) -> Network:
    torch.manual_seed(0)
    build, size_px = FAMILIES[family]
    return Network(build(), (3, size_px, size_px), mean=0.0, std=1.0, name=family)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_unit_of_the_middle_and_a_logit_can_be_maximized(family: str) -> None:
    network = network_of(family)
    maps = [layer for layer in network.layers if math.prod(layer.grid) > 1]
    assert len(maps) >= 10
    assert network.layer("output").kind == "logits"
    assert (network.batching, network.unreached) == (Batching(), {}), "nothing odd about it"
    asked = [Channel(maps[len(maps) // 2].name, 1), Logit("output", 2)]
    for outcome in maximize(network, asked, steps=3):
        assert len(outcome.curve) == 4
        assert all(map(math.isfinite, (*outcome.curve, outcome.activation)))
        assert not torch.equal(outcome.image, torch.full_like(outcome.image, 0.5))
        assert outcome.activation > outcome.start_activation or outcome.stuck


def test_every_part_of_a_vision_transformer_has_units() -> None:
    """Token and channel units of a block, the class token, neurons of its MLP, and what attention returns."""
    network = network_of("vit")
    block = "encoder.layers.encoder_layer_1"
    rows = {layer.name: (layer.kind, layer.shape, layer.units) for layer in network.layers}
    assert rows[block] == ("tokens", (17, 16), 16), "16 patches and the class token"
    assert rows[f"{block}.mlp.0"] == ("tokens", (17, 24), 24)
    assert rows[f"{block}.self_attention"] == ("tokens", (17, 16), 16)
    asked = [
        Channel(block, 3),
        Neuron(block, 3, (5,)),
        Neuron(block, 3),
        Neuron(f"{block}.mlp.0", 23, (1,)),
        Channel(f"{block}.mlp.1", 0),
        Channel(f"{block}.self_attention", 2),
    ]
    outcomes = maximize(network, asked, steps=3)
    assert all(outcome.activation > outcome.start_activation for outcome in outcomes)
    assert outcomes[2].objective == Neuron(block, 3, (0,)), "the class token where no position is given"


@pytest.mark.parametrize(
    ("family", "layer", "original"),
    [
        ("swin", "features.1.0", "(B, H, W, C)"),
        ("swin", "features.1.1.mlp.1", "(B, H, W, C)"),
        ("convnext", "features.1.0.block.3", "(B, H, W, C)"),
        ("convnext", "features.1.0", "(B, C, H, W)"),
    ],
)
def test_maps_have_their_units_first_whatever_the_module_returns(
    family: str, layer: str, original: str
) -> None:
    """Compared with the module's own return value, at an image that is wider than high."""
    network, x = network_of(family), torch.rand((2, 3, 32, 64))
    seen: dict[str, Tensor] = {}
    handle = network.module.get_submodule(layer).register_forward_hook(
        lambda _, __, output: seen.update({layer: output})
    )
    network.module(x)
    handle.remove()
    expected = seen[layer].permute(0, 3, 1, 2) if original == "(B, H, W, C)" else seen[layer]
    found = network.activations(x, layer)
    assert torch.equal(found, expected)
    assert found.shape[3] == 2 * found.shape[2]
    assert found.shape[1] == network.layer(layer).units


def test_windows_of_a_maxvit_are_positions_and_not_units() -> None:
    """``(B, windows, window positions, C)``: no map, yet its last dimension is where its units are."""
    layer = network_of("maxvit").layer("blocks.0.layers.0.layers.window_attention.attn_layer.0")
    assert (layer.type, layer.units) == ("LayerNorm", 8)
    assert layer.shape == (8, 16, 4), "64 positions of the map in 16 windows of 4"
