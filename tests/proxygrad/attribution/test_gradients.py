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
    GradientMethod,
    gradient,
    gradient_attribution,
    guided_gradient,
    path_gradient,
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
    torch.testing.assert_close(guided_gradient(network.value, inputs()), expected)


def test_guided_backpropagation_leaves_nothing_behind() -> None:
    network = Small(functional.relu)
    before = gradient(network.value, inputs())
    guided_gradient(network.value, inputs())
    assert torch.equal(gradient(network.value, inputs()), before)


def test_integrated_gradients_take_the_midpoints_of_the_path() -> None:
    def squares(x: Tensor) -> Tensor:
        return (x**3).sum(dim=1)

    x, reference = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    expected = sum(3 * (reference + (x - reference) * each) ** 2 for each in (1 / 6, 3 / 6, 5 / 6)) / 3
    torch.testing.assert_close(path_gradient(squares, x, reference, points=3), expected)


def test_integrated_gradients_sum_to_the_difference_and_average_over_references() -> None:
    network = Small(torch.tanh)
    x = inputs()
    several = torch.randn((4, 3, 5), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = gradient_attribution("integrated_gradients", network.value, x, several, points=200)
    differences = torch.stack([network.value(x) - network.value(each) for each in several.unbind(dim=1)])
    torch.testing.assert_close(found.contributions.sum(dim=1), differences.mean(dim=0), rtol=1e-2, atol=1e-2)
    each = [path_gradient(network.value, x, reference, 200) for reference in several.unbind(dim=1)]
    torch.testing.assert_close(found.multipliers, torch.stack(each).mean(dim=0))


def test_gradient_times_input_and_saliency() -> None:
    network, x = Small(functional.relu), inputs()
    references = torch.full((4, 1, 5), 0.5, dtype=torch.float64)
    own = gradient(network.value, x)
    found = gradient_attribution("gradient_input", network.value, x, references)
    assert torch.equal(found.contributions, own * (x - 0.5))
    assert torch.equal(found.multipliers, own)
    assert torch.equal(
        gradient_attribution("saliency", network.value, x, references).contributions, own.abs()
    )


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
    method: GradientMethod, captum: Callable[[Small], Tensor] | None
) -> None:
    network = Modules()
    found = gradient_attribution(method, network.value, inputs(), torch.zeros(4, 1, 5, dtype=torch.float64))
    if captum is None:
        chosen = nn.Sequential(network, _Weighted())
        with pytest.warns(UserWarning, match="Setting backward hooks on ReLU"):
            theirs = CaptumGuidedBackprop(chosen).attribute(inputs().requires_grad_())
    else:
        theirs = captum(network)
    torch.testing.assert_close(found.contributions, theirs)


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
    network, references = Small(functional.relu), torch.zeros(4, 1, 5, dtype=torch.float64)
    with pytest.raises(InvalidRequest, match="unknown method 'smooth'; valid: saliency"):
        gradient_attribution("smooth", network.value, inputs(), references)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="points=0"):
        gradient_attribution("integrated_gradients", network.value, inputs(), references, points=0)
    with pytest.raises(InvalidRequest, match="does not depend on the inputs"):
        gradient(lambda x: torch.ones(len(x)), inputs())
