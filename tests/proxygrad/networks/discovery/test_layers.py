"""What is listed, with which kind, and where its units are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from proxygrad import maximize
from proxygrad.errors import NetworkError, UnknownLayer
from proxygrad.networks.network import Network
from tests.support.networks import Small, Unrolled, small


class ChannelsLast(nn.Module):
    """Convolution, then a permutation to ``(B, H, W, C)``, layers of that form, and back."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 2, stride=2)
        self.to_last = Permutation(0, 2, 3, 1)
        self.norm = nn.LayerNorm(5)
        self.mlp = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 5), nn.Identity())
        self.to_first = Permutation(0, 3, 1, 2)
        self.out = nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y: Tensor = self.out(x + self.to_first(self.mlp(self.norm(self.to_last(x)))))
        return y


class Permutation(nn.Module):
    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


class Tokens(nn.Module):
    """Patches of 4 px as tokens through torch's own encoder layer; ``batch_first`` as the user likes it."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 6, 4, stride=4)
        self.order = Permutation(0, 2, 1) if batch_first else Permutation(2, 0, 1)
        self.block = nn.TransformerEncoderLayer(6, 2, 10, batch_first=batch_first)
        self.over_time = nn.Conv1d(6, 3, 1)
        self.dim = 1 if batch_first else 0

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.order(self.patches(x).flatten(2))  # (B, T, 6) or (T, B, 6)
        tokens = self.block(tokens)
        series: Tensor = self.over_time(tokens.permute(0, 2, 1) if self.dim else tokens.permute(1, 2, 0))
        return series.mean(dim=2)


def test_units_of_channels_last_maps_are_found() -> None:
    network = Network(ChannelsLast(), (3, 8, 6))
    assert [(layer.name, layer.kind, layer.shape, layer.units) for layer in network.layers] == [
        ("conv", "feature_map", (5, 4, 3), 5),
        ("to_last", "feature_map", (5, 4, 3), 5),
        ("norm", "feature_map", (5, 4, 3), 5),
        ("mlp.0", "feature_map", (7, 4, 3), 7),
        ("mlp.1", "feature_map", (7, 4, 3), 7),
        ("mlp.2", "feature_map", (5, 4, 3), 5),
        ("mlp.3", "feature_map", (5, 4, 3), 5),
        ("mlp", "feature_map", (5, 4, 3), 5),
        ("to_first", "feature_map", (5, 4, 3), 5),
        ("out", "feature_map", (2, 4, 3), 2),
    ]
    found = network.read(torch.rand((2, 3, 8, 6)), ["conv", "to_last", "mlp", "to_first"])
    assert torch.equal(found["to_last"], found["conv"])
    assert torch.equal(found["to_first"], found["mlp"])


@pytest.mark.parametrize("batch_first", [True, False])
def test_tokens_come_with_the_batch_first_and_units_last(batch_first: bool) -> None:
    module, x = Tokens(batch_first).eval(), torch.rand((3, 3, 16, 16))
    network = Network(module, (3, 16, 16))
    rows = {layer.name: (layer.kind, layer.shape, layer.units) for layer in network.layers}
    assert rows == {
        "patches": ("feature_map", (6, 4, 4), 6),
        "order": ("tokens", (16, 6), 6),
        "block.self_attn": ("tokens", (16, 6), 6),
        "block.dropout1": ("tokens", (16, 6), 6),
        "block.norm1": ("tokens", (16, 6), 6),
        "block.linear1": ("tokens", (16, 10), 10),
        "block.dropout": ("tokens", (16, 10), 10),
        "block.linear2": ("tokens", (16, 6), 6),
        "block.dropout2": ("tokens", (16, 6), 6),
        "block.norm2": ("tokens", (16, 6), 6),
        "block": ("tokens", (16, 6), 6),
        "over_time": ("tokens", (16, 3), 3),
        "output": ("logits", (3,), 3),
    }
    found = network.read(x, ["patches", "order", "over_time", "output"])
    assert torch.equal(found["order"], found["patches"].flatten(2).transpose(1, 2))
    torch.testing.assert_close(found["over_time"].mean(dim=1), found["output"])


def test_layers_of_a_transformer_are_read_without_gradients_too() -> None:
    """torch then takes a fused path past the modules, unless hooks are on them."""
    network, x = Network(Tokens(batch_first=True), (3, 16, 16)), torch.rand((2, 3, 16, 16))
    with torch.no_grad():
        without = network.read(x, ["block.linear1", "block"])
    found = network.read(x.requires_grad_(), ["block.linear1", "block"])
    torch.testing.assert_close(without["block.linear1"], found["block.linear1"])
    torch.testing.assert_close(without["block"], found["block"])


def test_outputs_in_containers_are_listed_by_their_first_tensor() -> None:
    class Packed(Small):
        def forward(self, x: Tensor) -> Any:
            logits = super().forward(x)
            return {"loss": None, "out": (logits, logits + 1)}

    network = Network(Packed(), (3, 16, 16))
    assert network.layers == small().layers
    assert network.layer("output").name == "fc"


def test_a_network_without_classifier_has_feature_maps_alone() -> None:
    network = Network(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True)), (1, 8, 8))
    assert [(layer.name, layer.kind) for layer in network.layers] == [
        ("0", "feature_map"),
        ("1", "feature_map"),
    ]
    assert network.layer("output").name == "1", "in place: the same tensor, written over"


@pytest.mark.parametrize("channels", [1, 3, 4, 13])
def test_any_number_of_channels_but_two_goes_in(channels: int) -> None:
    network = small(channels)
    found = network.activations(torch.rand((2, channels, 16, 16)), "conv2")
    assert found.shape == (2, 6, 8, 8)


def test_what_cannot_be_asked_about_is_kept_with_its_reason() -> None:
    class Odd(Unrolled):
        def __init__(self) -> None:
            super().__init__(steps=1)
            self.constant, self.volume, self.folded = nn.Conv2d(3, 3, 1), nn.Conv3d(1, 1, 1), Folding()

        def forward(self, x: Tensor) -> Tensor:
            self.volume(x.unsqueeze(1))
            self.folded(x)
            constant: Tensor = self.constant(torch.ones_like(x)).mean(dim=(2, 3))
            return super().forward(x) + constant

    network = Network(Odd(), (3, 16, 16))
    assert network.unlisted == {
        "spare": "does not run when the network does",
        "noise": "returns no floating-point tensor",
        "constant": "does not depend on the image",
        "volume": "returns shape (1, 1, 3, 16, 16) for one image: neither a map, nor tokens, nor a vector",
        "folded": "returns shape (3, 256) for one image: no dimension is the batch",
    }
    assert [layer.name for layer in network.layers] == ["step", "relu", "output"]
    for name, reason in network.unlisted.items():
        with pytest.raises(NetworkError) as caught:
            network.layer(name)
        assert str(caught.value) == f"layer {name!r} {reason}"


class Folding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1).flatten(1)


def test_names_of_layers_are_made_plain() -> None:
    network = Network(Unrolled(steps=2), (3, 16, 16))
    assert [network.layer(name).name for name in ("step", "step@1", "step@2", "output")] == [
        "step",
        "step",
        "step@2",
        "output",
    ]
    with pytest.raises(
        UnknownLayer, match=r"unknown layer of model 'network': 'step@3'; near names: step@2, step"
    ):
        network.layer("step@3")


def test_a_forward_pass_without_gradients_has_nothing_to_ask_about() -> None:
    class Frozen(Small):
        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = super().forward(x)
            return logits

    with pytest.raises(NetworkError, match="'network' has no layers: layer 'conv' does not depend on"):
        Network(Frozen(), (3, 16, 16))


def test_sparse_tensors_have_no_units() -> None:
    class Sparse(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).to_sparse()

    network = Network(Sparse(), (3, 16, 16))
    with pytest.raises(
        NetworkError, match=r"layer 'output' returns a tensor of layout torch\.sparse_coo, not a"
    ):
        maximize(network, "output:1", steps=2)
    assert maximize(network, "fc:1", steps=2).activation


def test_a_layer_that_ignores_how_many_images_there_are_is_read_one_by_one() -> None:
    class Ignoring(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x[:1])

    network = Network(Ignoring(), (3, 16, 16))
    assert network.activations(torch.rand((1, 3, 16, 16)), "fc").shape == (1, 4)
    images = torch.rand((2, 3, 16, 16))
    each = [network.activations(image, "fc") for image in images.split(1)]
    assert torch.equal(network.activations(images, "fc"), torch.cat(each))


class Depth(nn.Sequential):
    """Convolutions, and their one channel without its dimension: ``(B, H, W)``."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x).squeeze(1)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("size", [(16, 24), (16, 16)])
def test_a_map_without_channels_has_one_unit(size: tuple[int, int]) -> None:
    module = Depth(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))
    network, images = Network(module, (3, *size)), torch.rand((2, 3, *size))
    layer = network.layer("output")
    assert (layer.kind, layer.shape, layer.units) == ("feature_map", (1, *size), 1)
    torch.testing.assert_close(network.activations(images, "output"), module(images).unsqueeze(1))


class CalledOutput(nn.Module):
    """A child called `output` in the middle; the head is the network's output, or its first three logits."""

    def __init__(self, logits: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.output, self.fc, self.logits = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), logits

    def forward(self, x: Tensor) -> Any:
        y = self.fc(self.output(x).mean((2, 3)))
        return y if self.logits == 5 else y[:, : self.logits]


@pytest.mark.parametrize(("logits", "end"), [(5, "fc"), (3, "output")])
def test_the_output_is_the_networks_own_whatever_a_child_is_called(logits: int, end: str) -> None:
    network, images = Network(CalledOutput(logits), (3, 8, 8)), torch.rand((2, 3, 8, 8))
    assert network.layer("output").name == end
    assert network.layer("output@1").kind == "feature_map"
    assert network.activations(images, "output").shape == (2, logits)
    torch.testing.assert_close(network.activations(images, "output"), network.module(images))
    torch.testing.assert_close(network.activations(images, "output@1"), network.module.output(images))  # type: ignore[operator]
    prepared = network.prepared(["output", "output@1"])(images)
    assert [tuple(value.shape) for value in prepared.values()] == [(2, logits), (2, 4, 6, 6)]


def test_a_child_called_output_that_returns_the_output_is_it() -> None:
    network = Network(Ending(), (3, 8, 8))
    assert [layer.name for layer in network.layers] == ["conv", "output"]
    assert network.layer("output").kind == "logits"


class Ending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.output = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        return self.output(self.conv(x).mean((2, 3)))


def test_a_second_name_of_a_module_says_which_calls_there_are() -> None:
    act = nn.ReLU()
    network = Network(nn.Sequential(nn.Conv2d(3, 4, 3), act, nn.Conv2d(4, 4, 3), act), (3, 8, 8))
    expected = "layer '3' is module '1' under another name; its calls: '1', '1@2'"
    with pytest.raises(NetworkError, match=expected):
        network.layer("3")
    with pytest.raises(NetworkError, match=expected):
        network.activations(torch.rand((1, 3, 8, 8)), "3")
