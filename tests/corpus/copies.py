"""Networks whose copy could still run its owner's module."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.corpus.case import Act, Case, Net


def changed(change: Callable[[Net], object]) -> Callable[[Act], nn.Module]:
    def build(act: Act) -> nn.Module:
        net = Net(act)
        change(net)
        return net

    return build


def in_a_closure(net: Net) -> None:
    own = net.bn.forward
    net.bn.forward = lambda x: own(x) + 0  # type: ignore[assignment]


def as_a_default(net: Net) -> None:
    def forward(x: Tensor, own: Any = net.bn.forward) -> Any:
        return own(x)

    net.bn.forward = forward  # type: ignore[assignment]


def in_two_closures(net: Net) -> None:
    own = net.bn.forward

    def inner(x: Tensor) -> Tensor:
        return own(x) + 0

    net.bn.forward = functools.partial(lambda scale, x: scale * inner(x), 1.0)  # type: ignore[method-assign]


def in_a_list(net: Net) -> None:
    steps: list[Callable[[Tensor], Tensor]] = [net.conv2, net.act]
    net.features = lambda x: functools.reduce(  # type: ignore[method-assign]
        lambda value, step: step(value), steps, net.act(net.bn(net.conv(x)))
    )


def by_a_hook(net: Net) -> None:
    bn = net.bn
    net.conv2.register_forward_pre_hook(lambda module, inputs: (inputs[0] + bn.weight.mean(),))


def by_a_weak_reference(net: Net) -> None:
    bn = weakref.ref(net.bn)
    net.conv2.register_forward_pre_hook(lambda module, inputs: (bn()(inputs[0]),))  # type: ignore[misc]


def by_a_method_of_its_own(net: Net) -> None:
    def scaled(self: Net, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output * self.bn.eps * 1e5

    net.fc.register_forward_hook(scaled.__get__(net))


def of_a_class_in_a_function(act: Act) -> nn.Module:
    backbone = Net(act)
    backbone.eval()

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Any:
            return self.scale * backbone(x)

    return Head()


class InAPlainList(nn.Module):
    """Children that torch does not know of."""

    def __init__(self, act: Act) -> None:
        super().__init__()
        self.steps = [Net(act)]
        self.scale = nn.Parameter(torch.tensor(2.0))

    def train(self, mode: bool = True) -> InAPlainList:
        for step in self.steps:
            step.train(mode)
        return super().train(mode)

    def forward(self, x: Tensor) -> Any:
        for step in self.steps:
            x = step(x)
        return self.scale * x


class ReturnsNone(Net):
    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)
        self.bn.eval()


class WithoutMode(Net):
    """An override that knows of no evaluation."""

    def train(self) -> WithoutMode:  # type: ignore[override]
        super().train(True)
        return self

    def eval(self) -> WithoutMode:
        super().train(False)
        return self


COPIES: dict[str, Case] = {
    "in a closure": Case(changed(in_a_closure)),
    "as a default": Case(changed(as_a_default)),
    "in two closures": Case(changed(in_two_closures)),
    "in a list": Case(changed(in_a_list)),
    "by a hook": Case(changed(by_a_hook)),
    "by a weak reference": Case(changed(by_a_weak_reference)),
    "by a method of its own": Case(changed(by_a_method_of_its_own)),
    "of a class in a function": Case(of_a_class_in_a_function),
    "in a plain list": Case(InAPlainList),
    "train returns None": Case(ReturnsNone),
    "train without mode": Case(WithoutMode),
}
