"""Networks whose batch norms can be folded, and some whose cannot."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

from tests.support.networks import Small

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
    "parametrized batch norm": (parametrized("bn"), ("bn2",)),
    "parametrized convolution": (parametrized("conv"), ("bn2",)),
    "hook on a batch norm": (hooked("bn"), ("bn2",)),
    "hook on a convolution": (hooked("conv"), ("bn2",)),
}
