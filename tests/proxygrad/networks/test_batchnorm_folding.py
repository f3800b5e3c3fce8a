"""Batch norms are folded where that changes nothing, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad import Network
from proxygrad.backward.surrogate import surrogate
from proxygrad.networks.batchnorm_folding import Fold, FoldMismatch, folded_parameters
from tests.support.foldable_networks import (
    CASES,
    SHAPE,
    ConvTwice,
    Net,
    Plain,
    Preactivated,
    Training,
    scrambled,
)


@pytest.mark.parametrize("case", CASES)
def test_every_layer_has_the_value_it_has_in_the_network(case: str) -> None:
    module, folded = CASES[case]
    network = Network(scrambled(module), SHAPE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    assert network.prepared(["output"], "float32").folded == folded
    images = torch.rand((3, *SHAPE), generator=torch.Generator().manual_seed(2))
    for layer in network.layers:
        expected = network.activations(images, layer.name)
        found = network.prepared([layer.name], "float32")(images)[layer.name]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_the_network_slopes_included() -> None:
    network = Network(scrambled(Plain()), SHAPE)
    reader = network.prepared(["fc"], "float32")
    images = torch.rand((2, *SHAPE), generator=torch.Generator().manual_seed(2)).requires_grad_()
    with surrogate(0.1):
        values = [network.activations(images, "fc"), reader(images)["fc"]]
    expected, found = [torch.autograd.grad(value[:, 1].sum(), images)[0] for value in values]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_a_convolution_asked_about_is_not_folded_and_the_others_are() -> None:
    network = Network(scrambled(Plain()), SHAPE)
    images = torch.rand((1, *SHAPE))
    reader = network.prepared(["conv", "fc"], "float32")
    assert reader.folded == ("bn2",)
    before = functional.conv2d(images, network.module.conv.weight, network.module.conv.bias, padding=1)  # type: ignore[arg-type, union-attr]
    torch.testing.assert_close(reader(images)["conv"], before)
    assert network.prepared(["conv@1"], "float32").folded == ("bn2",)
    assert network.prepared(["conv2@1", "conv"], "float32").folded == ()
    assert network.prepared(["bn"], "float32").folded == ("bn", "bn2")


def test_a_block_around_a_convolution_is_that_convolution() -> None:
    network = Network(scrambled(Preactivated()), SHAPE)
    assert network.prepared(["block"], "float32").folded == ()
    assert network.prepared(["block.1"], "float32").folded == ()
    assert network.prepared(["block2.0"], "float32").folded == ("block2.0",)


def test_later_calls_keep_their_names() -> None:
    network = Network(scrambled(ConvTwice()), SHAPE)
    images = torch.rand((1, *SHAPE))
    reader = network.prepared(["conv2", "conv2@2"], "float32")
    assert reader.folded == ("bn",)
    expected = network.read(images, ["conv2", "conv2@2"])
    torch.testing.assert_close(reader(images), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(expected["conv2"], expected["conv2@2"], rtol=0.1)


class Choosy(Net):
    """Bright images skip the batch norm: what is seen of random ones is not all there is."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if float(x.detach().mean()) < 0.9:
            y = self.bn(y)
        try:
            return self.head(self.bn2(self.conv2(y)))
        except Exception:
            return self.head(y)


class Recurrent(Net):
    """A loop that ends by the values: once for random images, twice for bright ones."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        for _ in range(2 if float(x.detach().mean()) > 0.9 else 1):
            y = self.bn2(self.conv2(y)).relu()
        return self.head(y)


class Mixed(Net):
    """Bright images give the batch norm something else."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        y = self.conv2(y) if float(x.detach().mean()) < 0.9 else y
        return self.head(self.bn2(y))


@pytest.mark.parametrize("module", [Choosy(), Recurrent(), Mixed()])
def test_control_flow_that_was_not_seen_before_is_for_the_image_that_has_it_alone(module: Net) -> None:
    network = Network(scrambled(module), SHAPE)
    reader = network.prepared(["fc"], "float32")
    assert reader.folded == ("bn", "bn2")
    dim = torch.rand((2, *SHAPE), generator=torch.Generator().manual_seed(3))
    for images in (dim[:1], 0.95 + dim[:1] / 20, dim[1:]):
        torch.testing.assert_close(
            reader(images)["fc"], network.activations(images, "fc"), rtol=1e-4, atol=1e-5
        )
    assert reader.folded == ("bn", "bn2")
    if isinstance(module, Choosy):
        with pytest.raises(FoldMismatch):
            reader(0.95 + dim / 20)


def test_a_batch_norm_that_trains_is_refused_or_left_alone() -> None:
    network = Network(scrambled(Training()), SHAPE)
    assert network.prepared(["fc"], "float32").folded == ()


def test_the_network_is_left_as_it_was() -> None:
    module = scrambled(Plain())
    network = Network(module, SHAPE)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    digest = network.info.digest
    images = torch.rand((1, *SHAPE)).requires_grad_()
    reader = network.prepared(["fc"], "float32")
    torch.autograd.grad(reader(images)["fc"].sum(), images)
    for each in (module, network.module):
        assert all(torch.equal(value, before[key]) for key, value in each.state_dict().items())
        assert not any("forward" in vars(child) or child._forward_hooks for child in each.modules())
    assert network._digest() == digest
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in reader.module.modules())
    assert not any(parameter.requires_grad for parameter in reader.module.parameters())


def test_folded_parameters_restated_in_float64() -> None:
    linear, norm = nn.Conv2d(3, 8, 3).eval(), scrambled(nn.BatchNorm2d(8)).eval()
    x = torch.rand((2, 3, 7, 7), dtype=torch.float64)
    weight, bias = folded_parameters(linear, norm)
    found = functional.conv2d(x, weight.double(), bias.double())
    torch.testing.assert_close(found, norm.double()(linear.double()(x)), rtol=1e-5, atol=1e-6)


def test_a_pass_that_ends_early_holds_no_tensor() -> None:
    conv, norm = nn.Conv2d(3, 8, 3).eval(), nn.BatchNorm2d(8).eval()
    fold = Fold(conv, norm)
    conv(torch.rand((1, 3, 5, 5)))
    assert fold.due
    fold.reset()
    assert not fold.due
