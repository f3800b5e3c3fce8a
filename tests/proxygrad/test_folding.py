"""Batch norms are folded where that changes nothing, and nowhere else."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

from proxygrad import Network
from proxygrad.folding import Fold, folded_parameters
from proxygrad.surrogate import surrogate
from tests.proxygrad.networks import Small

SHAPE = (3, 12, 12)
M = TypeVar("M", bound=nn.Module)


def scrambled(module: M) -> M:
    """With statistics, scales and shifts as training leaves them: no mean is 0 and no variance 1."""
    torch.manual_seed(1)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            assert each.running_mean is not None
            assert each.running_var is not None
            each.running_mean.uniform_(-0.5, 0.5)
            each.running_var.uniform_(0.3, 2.0)
            if each.affine:
                nn.init.uniform_(each.weight, 0.5, 1.5)
                nn.init.uniform_(each.bias, -0.5, 0.5)
    return module


class Net(nn.Module):
    """Two convolutions, two batch norms and a head, for subclasses to connect."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 4)

    def head(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(functional.relu(x).mean(dim=(2, 3)))
        return logits


class Plain(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn(self.conv(x)), inplace=True)
        return self.head(self.bn2(self.conv2(x)))


class NormTwice(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn(self.conv(x)))
        return self.head(self.bn(self.conv2(x)))


class ConvTwice(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn(self.conv(x)))
        return self.head(self.bn2(self.conv2(self.conv2(x))))


class AlsoAdded(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.head(self.bn(y) + y)


class AlsoReturned(Net):
    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return self.head(self.bn(y)), y


class AlsoListed(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.head(torch.stack([self.bn(y), y]).sum(0))


class ChangedBetween(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y += 1.0
        return self.head(self.bn(y))


class TwoNorms(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.head(self.bn(y) * self.bn2(y))


class Training(Net):
    def forward(self, x: Tensor) -> Tensor:
        self.bn.train()
        return self.head(self.bn(self.conv(x)))


class _Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x / 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] / 2


class UsedUnseen(Net):
    """Calls of `torch.autograd.Function` are not seen by a watch on torch's functions."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        halved: Tensor = _Halved.apply(y)  # type: ignore[no-untyped-call]
        return self.head(self.bn(y) + halved)


class WeightUsedElsewhere(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x)) + functional.conv2d(x, self.conv.weight, padding=1)
        return self.head(self.bn2(self.conv2(x)))


class Tied(Net):
    """Two modules with one weight: only one of them is folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv3.weight = self.conv2.weight

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.conv3(functional.relu(self.bn(self.conv(x)))))
        return self.head(self.bn2(self.conv2(x)))


class Tokens(nn.Module):
    """A linear layer of tokens, whose units are last, and a batch norm over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(36, 5)
        self.bn = nn.BatchNorm1d(12)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.embed(x.reshape(-1, 12, 36)))
        return out.relu()


class Vectors(nn.Module):
    def __init__(self, affine: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(432, 16, bias=False)
        self.bn = nn.BatchNorm1d(16, affine=affine)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.bn(self.embed(x.flatten(1))).relu())
        return logits


class Lines(nn.Module):
    """Convolutions in one dimension and in three, grouped, strided, dilated."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(36, 12, 3, stride=2, groups=3, bias=False)
        self.bn = nn.BatchNorm1d(12)
        self.conv3 = nn.Conv3d(1, 4, (1, 3, 1), dilation=(1, 2, 1))
        self.bn3 = nn.BatchNorm3d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x.flatten(1, 2))).relu()
        x = self.bn3(self.conv3(x[:, None, :, :, None]))
        return x.relu().mean(dim=(2, 3, 4))


class Preactivated(nn.Module):
    """Built of blocks that end between a convolution and its batch norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Identity())
        self.block2 = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block2(self.block(x))
        return out


def parametrized(of: str) -> Net:
    net = Plain()
    if of == "bn":
        parametrize.register_parametrization(net.bn, "weight", nn.Softplus())
    else:
        parametrizations.weight_norm(net.conv)
    return net


def hooked(of: str) -> Net:
    net = Plain()
    net.get_submodule(of).register_forward_hook(lambda module, inputs, output: output * 2)
    return net


CASES: dict[str, tuple[nn.Module, tuple[str, ...]]] = {
    "plain": (Plain(), ("bn", "bn2")),
    "small": (Small(), ("bn",)),
    "batch norm used twice": (NormTwice(), ()),
    "convolution used twice": (ConvTwice(), ("bn",)),
    "also added": (AlsoAdded(), ()),
    "also returned": (AlsoReturned(), ()),
    "also in a list": (AlsoListed(), ()),
    "changed in between": (ChangedBetween(), ()),
    "two batch norms": (TwoNorms(), ()),
    "used unseen": (UsedUnseen(), ()),
    "weight used elsewhere": (WeightUsedElsewhere(), ()),
    "tied weights": (Tied(), ("bn", "bn2")),
    "tokens": (Tokens(), ()),
    "vectors": (Vectors(), ("bn",)),
    "no scale": (Vectors(affine=False), ("bn",)),
    "one and three dimensions": (Lines(), ("bn", "bn3")),
    "blocks that end in between": (Preactivated(), ("block2.0",)),
    "parametrised batch norm": (parametrized("bn"), ("bn2",)),
    "parametrised convolution": (parametrized("conv"), ("bn2",)),
    "hook on a batch norm": (hooked("bn"), ("bn2",)),
    "hook on a convolution": (hooked("conv"), ("bn2",)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_layer_has_the_value_it_has_in_the_network(case: str) -> None:
    module, folded = CASES[case]
    network = Network(scrambled(module), SHAPE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    assert network.prepared(["output"], "float32").folded == folded
    images = torch.rand((3, *SHAPE), generator=torch.Generator().manual_seed(2))
    for layer in network.units():
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


@pytest.mark.parametrize(
    ("module", "after"), [(Choosy(), ()), (Recurrent(), ("bn", "bn2")), (Mixed(), ("bn", "bn2"))]
)
def test_control_flow_that_was_not_seen_before(module: Net, after: tuple[str, ...]) -> None:
    network = Network(scrambled(module), SHAPE)
    reader = network.prepared(["fc"], "float32")
    assert reader.folded == ("bn", "bn2")
    dim = torch.rand((2, *SHAPE), generator=torch.Generator().manual_seed(3))
    for images in (dim, 0.95 + dim / 20, dim):
        torch.testing.assert_close(
            reader(images)["fc"], network.activations(images, "fc"), rtol=1e-4, atol=1e-5
        )
    assert reader.folded == after


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
