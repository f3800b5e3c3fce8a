"""Networks whose copy could still run its owner's module."""

from __future__ import annotations

import contextvars
import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.corpus.case import Act, Case, Net

Change = Callable[[Net], None]


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


def by_class(run: Callable[[Any, Tensor], Tensor], **attributes: Callable[[Net], Any]) -> Change:
    """The network becomes of a class that has these attributes, which know the network itself, and ``run`` in
    place of the second convolution."""

    def features(self: Net, x: Tensor) -> Tensor:
        return self.act(run(self, self.act(self.bn(self.conv(x)))))

    def change(net: Net) -> None:
        made = {name: make(net) for name, make in attributes.items()}
        net.__class__ = type("Own", (Net,), {"features": features, **made})

    return change


def with_tail(make: Callable[[Net], Any]) -> Change:
    return by_class(lambda self, x: self.tail(x), tail=make)


def called(net: Net) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        found: Tensor = net.conv2(x)
        return found

    return run


class Slotted:
    __slots__ = ("run",)

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        self.run = run


def in_slots(net: Net) -> None:
    vars(net)["slotted"] = Slotted(called(net))
    by_class(lambda self, x: self.slotted.run(x))(net)


def in_a_cached_function(net: Net) -> None:
    vars(net)["find"] = functools.lru_cache(lambda name: getattr(net, name))
    by_class(lambda self, x: self.find("conv2")(x))(net)


def in_a_context_variable(net: Net) -> None:
    current = contextvars.ContextVar("current", default=net)
    net.features = lambda x: net.act(current.get().conv2(net.act(net.bn(net.conv(x)))))  # type: ignore[method-assign]


def scaled_by(make: Callable[[nn.Module], Any], scale: Callable[[Any, nn.Module], float]) -> Change:
    """A table by module, in which a miss shows."""

    def change(net: Net) -> None:
        vars(net)["table"] = make(net.conv2)
        by_class(lambda self, x: self.conv2(x) * scale(self.table, self.conv2))(net)

    return change


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
    "by a property": Case(changed(with_tail(lambda net: property(lambda self: net.conv2)))),
    "by a cached property": Case(
        changed(with_tail(lambda net: functools.cached_property(lambda self: net.conv2)))
    ),
    "by a static method": Case(changed(with_tail(lambda net: staticmethod(called(net))))),
    "by a class method": Case(changed(with_tail(lambda net: classmethod(lambda kind, x: net.conv2(x))))),
    "in slots": Case(changed(in_slots)),
    "in a cached function": Case(changed(in_a_cached_function)),
    "in a context variable": Case(changed(in_a_context_variable)),
    "in a table by id": Case(
        changed(scaled_by(lambda own: {id(own): 3.0}, lambda table, own: table.get(id(own), 1.0)))
    ),
    "in a set of ids": Case(
        changed(scaled_by(lambda own: {id(own)}, lambda ids, own: 1.0 + (id(own) in ids)))
    ),
    "by its id": Case(changed(scaled_by(id, lambda number, own: 1.0 + (number == id(own))))),
    "in a table by weak module": Case(
        changed(
            scaled_by(
                lambda own: weakref.WeakKeyDictionary({own: 3.0}), lambda table, own: table.get(own, 1.0)
            )
        )
    ),
    "of a class in a function": Case(of_a_class_in_a_function),
    "in a plain list": Case(InAPlainList),
    "train returns None": Case(ReturnsNone),
    "train without mode": Case(WithoutMode),
}
