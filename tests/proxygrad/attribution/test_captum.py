"""Rescale beside captum's DeepLift: equal where that is right, and what it returns where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from captum.attr import DeepLift
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.attribution.attribute import attribute
from proxygrad.attribution.result import Attribution

Spelling = Literal["modules", "in place", "reused", "functions"]


class Spelled(nn.Module):
    """One network, the same weights, whose rectifiers are called in one of four ways."""

    def __init__(self, spelling: Spelling) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3, stride=2)
        self.third, self.fourth = nn.Linear(6 * 4 * 4, 16), nn.Linear(16, 3)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            scale = 0.5 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)
        if spelling == "functions":
            self.activations: Callable[[int], Callable[[Tensor], Tensor]] = lambda _: functional.relu
        else:
            own = [nn.ReLU(inplace=spelling == "in place") for _ in range(3)]
            self.rectifiers = nn.ModuleList(own[:1] * 3 if spelling == "reused" else own)
            self.activations = self.rectifiers.__getitem__
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 1, 11, 11)`` → ``(N, 3)``"""
        x = self.activations(0)(self.first(x))
        x = self.activations(1)(self.second(x)).flatten(1)
        return self.fourth(self.activations(2)(self.third(x)))  # type: ignore[no-any-return]


def images() -> Tensor:
    return torch.randn((5, 1, 11, 11), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def ours(network: nn.Module, **how: object) -> Attribution:
    return attribute(network, images(), "output:1", rule="rescale", dtype=torch.float64, **how)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks:UserWarning")
def captums(network: nn.Module) -> tuple[Tensor, Tensor]:
    """Contributions, and what they miss of the difference for each input."""
    x = images().requires_grad_()
    found, delta = DeepLift(network).attribute(
        x, torch.zeros_like(x), target=1, return_convergence_delta=True
    )
    return found, delta


@pytest.mark.parametrize("spelling", ["modules", "in place"])
@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks:UserWarning")
def test_both_agree_where_each_rectifier_is_a_module_called_once(spelling: Spelling) -> None:
    network = Spelled(spelling)
    found, _ = captums(network)
    torch.testing.assert_close(ours(network).contributions, found.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spelling", ["reused", "functions"])
def test_ours_is_the_same_however_rectifiers_are_called(spelling: Spelling) -> None:
    found = ours(Spelled(spelling))
    torch.testing.assert_close(found.contributions, ours(Spelled("modules")).contributions)
    assert float(found.delta.absolute.abs().max()) < 1e-12


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks:UserWarning")
def test_captum_refuses_a_module_that_is_called_twice() -> None:
    with pytest.raises(RuntimeError, match="your module is being used more than once"):
        captums(Spelled("reused"))


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks:UserWarning")
def test_captum_returns_gradient_times_input_for_functions_without_a_word() -> None:
    network = Spelled("functions")
    found, delta = captums(network)
    plain = ours(network, method="gradient_times_input")
    torch.testing.assert_close(found.detach(), plain.contributions)
    difference = plain.value - plain.reference_value
    assert float((delta.abs() / difference.abs()).max()) > 0.1
