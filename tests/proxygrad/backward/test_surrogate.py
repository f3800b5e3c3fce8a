"""The backward rule against slow restatements in float64, and against autograd itself."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.backward.surrogate import surrogate
from proxygrad.errors import NetworkError
from tests.proxygrad.backward.test_rectifiers import slow_backward

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


@pytest.mark.parametrize("name", RECTIFIERS)
@pytest.mark.parametrize("slope", [0.0, 0.05, 0.3])
def test_the_proxy_network_holds_leaky_rectifiers(name: str, slope: float, x: Tensor) -> None:
    """Value and gradient are those of `torch.nn.functional.leaky_relu` at the higher of the two slopes."""
    forward_slope, rectifier = RECTIFIERS[name]
    expected = functional.leaky_relu(x, max(slope, forward_slope))
    with surrogate(slope, proxy="network"):
        y = rectifier(x)
    assert torch.equal(y, expected)
    found, of_leaky = (torch.autograd.grad(each.square().sum(), x)[0] for each in (y, expected))
    assert torch.equal(found, of_leaky)


def test_the_proxy_network_is_an_explicit_copy_with_other_slopes() -> None:
    """Reused, nested and functional rectifiers, each replaced by hand by a Leaky ReLU."""
    torch.manual_seed(0)
    network, slope = Reused(), 0.05
    x = torch.randn((5, 6), dtype=torch.float64, requires_grad=True)
    hidden = functional.leaky_relu(network.first(x), slope)
    hidden = functional.leaky_relu(network.second(hidden), slope)
    hidden = functional.leaky_relu(network.third(hidden), slope)
    explicit = functional.leaky_relu(network.inner[0](hidden), 0.2)
    with surrogate(slope, proxy="network"):
        y = network(x)
    assert torch.equal(y, explicit)
    assert not torch.equal(y, network(x))
    found, expected = (torch.autograd.grad(each[:, 0].sum(), x)[0] for each in (y, explicit))
    assert torch.equal(found, expected)


def test_the_two_readings_differ_in_their_gates() -> None:
    """relu(relu(x) - relu(y) + .1) at (-1, 1), slope .2: the proxy's -.2 - 1 + .1 is as silent as 0 - 1 + .1;

    at (-2, .05) the network's .05 is open, the proxy's -.4 - .05 + .1 is not.
    """

    def unit(x: Tensor) -> Tensor:
        hidden = functional.relu(x)
        return functional.relu(hidden[:, 0] - hidden[:, 1] + 0.1)

    x = torch.tensor([[-1.0, 1.0], [-2.0, 0.05]], dtype=torch.float64, requires_grad=True)
    rows = {}
    for proxy in ("surrogate", "network"):
        with surrogate(0.2, proxy):
            rows[proxy] = torch.autograd.grad(unit(x).sum(), x)[0]
    by_hand = {"surrogate": [[0.04, -0.2], [0.2, -1.0]], "network": [[0.04, -0.2], [0.04, -0.2]]}
    for proxy, row in by_hand.items():
        torch.testing.assert_close(rows[proxy], torch.tensor(row, dtype=torch.float64), rtol=1e-12, atol=0)


def test_an_output_that_is_used_twice_gets_both_gradients(x: Tensor) -> None:
    with surrogate(0.1):
        y = torch.relu(x)
        (found,) = torch.autograd.grad((y * y + 3 * y).sum(), x)
    expected = slow_backward(x.detach(), 2 * y.detach() + 3, 0.0, 0.1)
    torch.testing.assert_close(found, expected, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("slope", [0.05, torch.tensor([0.05, 0.1])])
@pytest.mark.parametrize("inplace", [False, True])
def test_a_rectifier_keeps_its_output_and_nothing_else(slope: float | Tensor, inplace: bool) -> None:
    kept = list[Tensor]()
    x = torch.randn((2, 3), requires_grad=True) * 1

    def keep(each: Tensor) -> Tensor:
        kept.append(each)
        return each

    with surrogate(slope), torch.autograd.graph.saved_tensors_hooks(keep, lambda each: each):
        y = functional.relu(x, inplace=inplace)
    assert [each.data_ptr() for each in kept] == [y.data_ptr()]


def test_of_nested_blocks_the_innermost_applies() -> None:
    x = torch.tensor([-1.0, 1.0], requires_grad=True)
    for inner in (0.0, 0.1, 0.5):
        for proxy in ("surrogate", "network"):
            with surrogate(0.3, "network"), surrogate(inner, proxy):
                y = torch.relu(x)
            assert torch.autograd.grad(y.sum(), x)[0].tolist() == pytest.approx([inner, 1.0])


@pytest.mark.parametrize("slope", [-0.1, 1.5, float("nan")])
def test_slopes_without_a_meaning_are_refused(slope: float) -> None:
    with pytest.raises(NetworkError, match=rf"slope {slope} is outside 0 to 1"):
        surrogate(slope)


@pytest.mark.parametrize("slope", [-0.1, 1.5, float("nan")])
def test_of_lanes_each_slope_is_looked_at(slope: float) -> None:
    with pytest.raises(NetworkError, match=r"slope tensor\(.*\) is outside 0 to 1"):
        surrogate(torch.tensor([0.1, slope]))


def test_an_unknown_reading_is_refused() -> None:
    with pytest.raises(NetworkError, match="proxy 'copy' is none of surrogate, network"):
        surrogate(0.1, "copy")  # type: ignore[arg-type]
