"""Gradient methods, each beside its formula written out, and beside captum's where that is right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captum.attr import GuidedBackprop as CaptumGuidedBackprop
from captum.attr import IntegratedGradients, Saliency
from torch import Tensor, nn
from torch.nn import functional

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
    found, _ = guided_backprop(network.value, inputs(), zeros(), 0)
    torch.testing.assert_close(found, expected)


def test_guided_backpropagation_leaves_nothing_behind() -> None:
    network = Small(functional.relu)
    before = gradient(network.value, inputs())
    guided_backprop(network.value, inputs(), zeros(), 0)
    assert torch.equal(gradient(network.value, inputs()), before)


def test_integrated_gradients_take_the_midpoints_of_the_path() -> None:
    def squares(x: Tensor) -> Tensor:
        return (x**3).sum(dim=1)

    x, reference = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    expected = sum(3 * (reference + (x - reference) * each) ** 2 for each in (1 / 6, 3 / 6, 5 / 6)) / 3
    found, multipliers = integrated_gradients(squares, x, reference, 3)
    torch.testing.assert_close(multipliers, expected)
    torch.testing.assert_close(found, expected * (x - reference))


def test_integrated_gradients_sum_to_the_difference() -> None:
    network, x = Small(torch.tanh), inputs()
    reference = torch.randn((4, 5), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found, _ = integrated_gradients(network.value, x, reference, 200)
    difference = network.value(x) - network.value(reference)
    torch.testing.assert_close(found.sum(dim=1), difference, rtol=1e-2, atol=1e-2)


def test_gradient_times_input_and_saliency() -> None:
    network, x = Small(functional.relu), inputs()
    own = gradient(network.value, x)
    found, multipliers = gradient_times_input(network.value, x, torch.full_like(x, 0.5), 0)
    assert torch.equal(found, own * (x - 0.5))
    assert torch.equal(multipliers, own)
    assert torch.equal(saliency(network.value, x, zeros(), 0)[0], own.abs())


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
    found, _ = METHODS[method](network.value, inputs(), zeros(), 50)
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
        integrated_gradients(Small(functional.relu).value, inputs(), zeros(), 0)
    with pytest.raises(InvalidRequest, match="does not depend on the inputs"):
        gradient(lambda x: torch.ones(len(x)), inputs())
