"""Gradient methods, each beside its formula written out, and beside captum's where that is right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captum.attr import GuidedBackprop as CaptumGuidedBackprop
from captum.attr import IntegratedGradients, Saliency
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.attribution.attribute import attribute
from proxygrad.attribution.gradients import (
    METHODS,
    gradient,
    gradient_times_input,
    guided_backprop,
    integrated_gradients,
    saliency,
)
from proxygrad.errors import InvalidRequest

Activation = Callable[[Tensor], Tensor]
#: Where on the path: of no meaning to methods that take no path.
ENDS = torch.ones(4)


class Small(nn.Module):
    """Two dense layers, whose activation is called in a way of one's own."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 6)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.double()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 5)`` → ``(N, 6)``"""
        return self.activation(self.second(self.activation(self.first(x))))

    def value(self, x: Tensor) -> Tensor:
        """``(N, 5)`` → ``(N,)``, with weights of both signs on what the last activation returns."""
        outputs: Tensor = self(x)
        return 1.5 * outputs[:, 0] - outputs[:, 1] + outputs[:, 2]


class Modules(Small):
    """The same with modules of their own, as captum needs."""

    def __init__(self) -> None:
        super().__init__(torch.relu)
        self.after_first, self.after_second = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.after_first(self.first(x))
        outputs: Tensor = self.after_second(self.second(hidden))
        return outputs


def inputs() -> Tensor:
    return torch.randn((4, 5), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def zeros() -> Tensor:
    return torch.zeros_like(inputs())


def by_hand(network: Small, x: Tensor) -> Tensor:
    """Guided backpropagation, backwards through the layers by its rule."""
    first = network.first(x)
    second = network.second(first.clamp(min=0))
    g = torch.zeros_like(second)
    g[:, 0], g[:, 1], g[:, 2] = 1.5, -1.0, 1.0
    g = torch.where((second > 0) & (g > 0), g, 0.0) @ network.second.weight
    g = torch.where((first > 0) & (g > 0), g, 0.0) @ network.first.weight
    return g.detach()


def in_place(x: Tensor) -> Tensor:
    functional.relu_(x)
    return x


def mean_on_path(network: Small, x: Tensor, reference: Tensor, points: int) -> Tensor:
    at = [(i + 0.5) / points for i in range(points)]
    each = [integrated_gradients(network.value, x, reference, torch.full((len(x),), t))[0] for t in at]
    return torch.stack(each).mean(0)


ACTIVATIONS: dict[str, Activation] = {
    "module, reused": nn.ReLU(),
    "module in place, reused": nn.ReLU(inplace=True),
    "function": functional.relu,
    "method": Tensor.relu,
    "function in place, its result not taken": in_place,
    "clamp": lambda x: x.clamp(min=0),
    "mask": lambda x: x * (x > 0),
    "aten": torch.ops.aten.relu.default,
}


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_guided_backpropagation_however_relu_is_called(activation: Activation) -> None:
    network = Small(activation)
    expected = by_hand(network, inputs())
    assert expected.abs().max() > 0.1
    assert not torch.allclose(expected, gradient(network.value, inputs()))
    found, _ = guided_backprop(network.value, inputs(), zeros(), ENDS)
    torch.testing.assert_close(found, expected)


def test_guided_backpropagation_leaves_nothing_behind() -> None:
    network = Small(functional.relu)
    before = gradient(network.value, inputs())
    guided_backprop(network.value, inputs(), zeros(), ENDS)
    assert torch.equal(gradient(network.value, inputs()), before)


def test_integrated_gradients_take_the_midpoints_of_the_path() -> None:
    class Cubes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x**3).sum(dim=1, keepdim=True)

    x, reference = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    expected = sum(3 * (reference + (x - reference) * each) ** 2 for each in (1 / 6, 3 / 6, 5 / 6)) / 3
    found = attribute(
        Cubes(), x, "output:0", reference=reference, method="integrated_gradients", points=3, max_rows=2
    )
    torch.testing.assert_close(found.multipliers, expected)
    torch.testing.assert_close(found.contributions, expected * (x - reference))
    torch.testing.assert_close(found.each_multipliers[:, 0], expected)


def test_integrated_gradients_sum_to_the_difference() -> None:
    network, x = Small(torch.tanh), inputs()
    reference = torch.randn((4, 5), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = mean_on_path(network, x, reference, 200)
    difference = network.value(x) - network.value(reference)
    torch.testing.assert_close(found.sum(dim=1), difference, rtol=1e-2, atol=1e-2)


def test_gradient_times_input_and_saliency() -> None:
    network, x = Small(functional.relu), inputs()
    own = gradient(network.value, x)
    found, multipliers = gradient_times_input(network.value, x, torch.full_like(x, 0.5), ENDS)
    assert torch.equal(found, own * (x - 0.5))
    assert torch.equal(multipliers, own)
    assert torch.equal(saliency(network.value, x, zeros(), ENDS)[0], own.abs())


def test_a_network_that_writes_over_its_input_does_not_write_over_ours() -> None:
    linear = nn.Linear(5, 1).double()
    x = inputs()
    found = gradient(lambda each: linear(functional.relu_(each))[:, 0], x)
    assert torch.equal(x, inputs())
    torch.testing.assert_close(found, linear.weight.detach() * (x > 0))


@pytest.mark.parametrize(
    ("method", "captum"),
    [
        ("saliency", lambda network: Saliency(network.value).attribute(inputs().requires_grad_())),
        (
            "integrated_gradients",
            lambda network: IntegratedGradients(network.value).attribute(
                inputs(), n_steps=50, method="riemann_middle"
            ),
        ),
        ("guided_backprop", None),
    ],
)
def test_captum_agrees_where_every_relu_is_a_module_of_its_own(
    method: str, captum: Callable[[Small], Tensor] | None
) -> None:
    network = Modules()
    if method == "integrated_gradients":
        found = mean_on_path(network, inputs(), zeros(), 50)
    else:
        found, _ = METHODS[method](network.value, inputs(), zeros(), ENDS)
    if captum is None:
        chosen = nn.Sequential(network, _Weighted())
        with pytest.warns(UserWarning, match="Setting backward hooks on ReLU"):
            theirs = CaptumGuidedBackprop(chosen).attribute(inputs().requires_grad_())
    else:
        theirs = captum(network)
    torch.testing.assert_close(found, theirs)


def test_captum_s_guided_backpropagation_is_the_plain_gradient_where_relu_is_a_function() -> None:
    """Without a word; ours is the rule's, see above."""
    network = Small(functional.relu)
    with pytest.warns(UserWarning, match="Setting backward hooks on ReLU"):
        theirs = CaptumGuidedBackprop(nn.Sequential(network, _Weighted())).attribute(
            inputs().requires_grad_()
        )
    torch.testing.assert_close(theirs, gradient(network.value, inputs()))
    assert not torch.allclose(theirs, by_hand(network, inputs()))


class _Weighted(nn.Module):
    def forward(self, outputs: Tensor) -> Tensor:
        return 1.5 * outputs[:, 0] - outputs[:, 1] + outputs[:, 2]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="points=0"):
        attribute(nn.Linear(5, 1), inputs(), "output:0", method="integrated_gradients", points=0)
    with pytest.raises(InvalidRequest, match="does not depend on the inputs"):
        gradient(lambda x: torch.ones(len(x)), inputs())
