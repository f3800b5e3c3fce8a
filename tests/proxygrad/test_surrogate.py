"""The backward rule against slow restatements in float64, and against autograd itself."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.errors import NetworkError
from proxygrad.surrogate import rectify, surrogate


def slow_backward(x: Tensor, grad: Tensor, forward_slope: float, slope: float) -> Tensor:
    """dL/dx_i = dL/dy_i where x_i > 0, else max(slope, forward_slope) dL/dy_i; one element after another."""
    below = max(slope, forward_slope)
    pairs = zip(x.flatten().tolist(), grad.flatten().tolist(), strict=True)
    return torch.tensor([g if v > 0 else below * g for v, g in pairs], dtype=torch.float64).view_as(x)


RECTIFIERS: dict[str, tuple[float, Callable[[Tensor], Tensor]]] = {
    "nn.ReLU": (0.0, nn.ReLU()),
    "nn.ReLU in place": (0.0, lambda x: nn.ReLU(inplace=True)(x.clone())),
    "functional.relu": (0.0, functional.relu),
    "functional.relu in place": (0.0, lambda x: functional.relu(x.clone(), inplace=True)),
    "functional.relu_": (0.0, lambda x: functional.relu_(x.clone())),
    "torch.relu": (0.0, torch.relu),
    "torch.relu_": (0.0, lambda x: torch.relu_(x.clone())),
    "Tensor.relu": (0.0, lambda x: x.relu()),
    "Tensor.relu_": (0.0, lambda x: x.clone().relu_()),
    "nn.LeakyReLU": (0.1, nn.LeakyReLU(0.1)),
    "nn.LeakyReLU in place": (0.1, lambda x: nn.LeakyReLU(0.1, inplace=True)(x.clone())),
    "functional.leaky_relu": (0.01, functional.leaky_relu),
    "functional.leaky_relu_": (0.3, lambda x: functional.leaky_relu_(x.clone(), 0.3)),
}


@pytest.fixture
def x() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn((4, 3, 5), dtype=torch.float64, generator=generator)
    values[0, 0, 0] = 0.0  # the kink itself
    values[0, 0, 1] = -0.0
    return values.requires_grad_()


@pytest.mark.parametrize("slope", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("name", RECTIFIERS)
def test_backward_is_the_rule_and_forward_is_the_rectifier(name: str, slope: float, x: Tensor) -> None:
    forward_slope, rectifier = RECTIFIERS[name]
    grad = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with surrogate(slope):
        y = rectifier(x)
    (found,) = torch.autograd.grad(y, x, grad)
    assert torch.equal(y.detach(), rectifier(x).detach())
    torch.testing.assert_close(found, slow_backward(x.detach(), grad, forward_slope, slope), rtol=0, atol=0)


@pytest.mark.parametrize("name", RECTIFIERS)
def test_the_forward_slope_gives_autograd_exactly(name: str, x: Tensor) -> None:
    forward_slope, rectifier = RECTIFIERS[name]
    with surrogate(forward_slope):
        (found,) = torch.autograd.grad(rectifier(x).square().sum(), x)
    (expected,) = torch.autograd.grad(rectifier(x).square().sum(), x)
    assert torch.equal(found, expected)


def test_slopes_of_lanes_are_those_of_each_lane_alone(x: Tensor) -> None:
    slopes = torch.tensor([0.0, 0.02, 0.5, 1.0], dtype=torch.float64)
    grad = torch.ones_like(x)
    with surrogate(slopes):
        (together,) = torch.autograd.grad(torch.relu(x), x, grad)
    for lane, slope in enumerate(slopes.tolist()):
        assert torch.equal(together[lane], slow_backward(x[lane].detach(), grad[lane], 0.0, slope))


def test_a_folded_batch_belongs_to_the_lanes_in_order() -> None:
    """A network that folds time or windows into the batch: lane 0's rows come first."""
    x = -torch.ones((6, 2), dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(rectify(x, 0.0, torch.tensor([0.1, 0.2], dtype=torch.float64)).sum(), x)
    assert found[:, 0].tolist() == [0.1, 0.1, 0.1, 0.2, 0.2, 0.2]


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(NetworkError, match=r"shape \(3, 2\) cannot be divided among 2 lanes"):
        rectify(torch.zeros((3, 2)), 0.0, torch.tensor([0.1, 0.2]))


class Reused(nn.Module):
    """One rectifier used twice, a functional one, and one in a nested module."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.first, self.second, self.third = (nn.Linear(6, 6).double() for _ in range(3))
        self.inner = nn.Sequential(nn.Linear(6, 6).double(), nn.LeakyReLU(0.2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        x = self.act(self.second(x))
        inner: Tensor = self.inner(functional.relu(self.third(x)))
        return inner


def test_a_whole_network_against_its_jacobian_by_hand() -> None:
    torch.manual_seed(0)
    network, slope = Reused(), 0.05
    x = torch.randn((1, 6), dtype=torch.float64, requires_grad=True)
    with surrogate(slope):
        y = network(x)
    (found,) = torch.autograd.grad(y[0, 0], x)

    jacobian, value = torch.eye(6, dtype=torch.float64), x.detach()[0]
    for layer, own in (
        (network.first, 0.0),
        (network.second, 0.0),
        (network.third, 0.0),
        (network.inner[0], 0.2),
    ):
        assert isinstance(layer, nn.Linear)
        value = layer.weight.detach() @ value + layer.bias.detach()
        gate = torch.where(value > 0, torch.ones_like(value), torch.full_like(value, max(slope, own)))
        jacobian = torch.diag(gate) @ layer.weight.detach() @ jacobian
        value = torch.where(value > 0, value, own * value)
    torch.testing.assert_close(found[0], jacobian[0], rtol=1e-12, atol=1e-14)


def test_nothing_remains_after_the_block_nor_after_an_exception() -> None:
    network, x = Reused(), torch.randn((1, 6), dtype=torch.float64, requires_grad=True)
    before = {name: list(vars(module)) for name, module in network.named_modules()}
    (expected,) = torch.autograd.grad(network(x).sum(), x)
    with pytest.raises(ZeroDivisionError), surrogate(1.0):
        network(x)
        raise ZeroDivisionError
    (found,) = torch.autograd.grad(network(x).sum(), x)
    assert torch.equal(found, expected)
    assert {name: list(vars(module)) for name, module in network.named_modules()} == before


def test_other_threads_do_not_notice() -> None:
    x, found = torch.tensor([-1.0, 1.0], requires_grad=True), list[Tensor]()

    def elsewhere() -> None:
        found.extend(torch.autograd.grad(torch.relu(x).sum(), x))

    with surrogate(1.0):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert found[0].tolist() == [0.0, 1.0]
