"""Activations beyond ReLU: the backward rule restated slowly in float64, and autograd itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.backward.surrogate import surrogate
from proxygrad.errors import NetworkError
from tests.support.activation_cases import (
    CASES,
    by_hand,
    far_and_kinks,
    gradient,
    run,
    silu_slope,
    some_grad,
)

NAMES = pytest.mark.parametrize("name", CASES)


@pytest.fixture
def x() -> Tensor:
    return far_and_kinks()


@NAMES
@pytest.mark.parametrize("slope", [0.02, 0.1, 0.3, 1.0])
def test_backward_is_the_floored_derivative_and_forward_is_the_activation(
    name: str, slope: float, x: Tensor
) -> None:
    plain, grad = run(name, x).detach(), some_grad(x)
    with surrogate(slope):
        y = run(name, x)
        found = gradient(name, x, grad)
    assert torch.equal(y.detach(), plain)
    torch.testing.assert_close(found, grad * by_hand(name, x, slope), rtol=1e-9, atol=1e-9)


@NAMES
def test_what_is_steep_enough_keeps_autograds_gradient_to_the_bit(name: str, x: Tensor) -> None:
    grad = some_grad(x)
    plain = gradient(name, x, grad)
    with surrogate(0.1):
        found = gradient(name, x, grad)
    steep = by_hand(name, x, -9.0) > 0.1 + 1e-12
    assert 0 < int(steep.sum()) < x.numel() or min(by_hand(name, x, -9.0).flatten()) > 0.1
    assert torch.equal(found[steep], plain[steep])


@NAMES
@pytest.mark.parametrize("proxy", ["surrogate", "network"])
def test_slope_zero_is_autograd_to_the_bit_also_for_one_lane_of_several(
    name: str, proxy: str, x: Tensor
) -> None:
    grad = some_grad(x)
    plain = gradient(name, x, grad)
    with surrogate(0.0, proxy):  # type: ignore[arg-type]
        assert torch.equal(gradient(name, x, grad), plain)
    with surrogate(torch.tensor([0.0, 0.3, 0.0, 0.1], dtype=torch.float64), proxy):  # type: ignore[arg-type]
        lanes = gradient(name, x, grad)
    assert torch.equal(lanes[0], plain[0])
    assert torch.equal(lanes[2], plain[2])


@pytest.mark.parametrize("slope", [0.25, 0.1, 0.01])
def test_the_own_slope_of_a_prelu_or_a_lower_one_is_autograd_to_the_bit(slope: float, x: Tensor) -> None:
    grad = some_grad(x)
    with surrogate(slope):
        found = gradient("nn.PReLU", x, grad)
    assert torch.equal(found, gradient("nn.PReLU", x, grad))


@NAMES
@pytest.mark.parametrize("proxy", ["surrogate", "network"])
def test_slopes_of_lanes_are_those_of_each_lane_alone(name: str, proxy: str, x: Tensor) -> None:
    slopes = [0.02, 0.5, 1.0, 0.1]
    grad = some_grad(x)
    with surrogate(torch.tensor(slopes, dtype=torch.float64), proxy):  # type: ignore[arg-type]
        values, together = run(name, x), gradient(name, x, grad)
    for lane, slope in enumerate(slopes):
        with surrogate(slope, proxy):  # type: ignore[arg-type]
            one = slice(lane, lane + 1)
            value, (alone,) = run(name, x), torch.autograd.grad(run(name, x), x, grad)
        torch.testing.assert_close(values[one], value[one], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(together[one], alone[one], rtol=1e-12, atol=1e-12)


@NAMES
def test_an_output_that_is_used_twice_gets_both_gradients(name: str, x: Tensor) -> None:
    with surrogate(0.1):
        y = run(name, x)
        (found,) = torch.autograd.grad((y * y + 3 * y).sum(), x)
    y = y.detach()
    torch.testing.assert_close(found, (2 * y + 3) * by_hand(name, x, 0.1), rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize(
    "gate", [nn.Sigmoid(), nn.Hardsigmoid(), nn.Tanh(), nn.Softmax(dim=1), nn.GLU(dim=0)]
)
@pytest.mark.parametrize("proxy", ["surrogate", "network"])
def test_gates_are_left_as_they_are(gate: nn.Module, proxy: str, x: Tensor) -> None:
    (plain,) = torch.autograd.grad(gate(x).square().sum(), x)
    with surrogate(1.0, proxy):  # type: ignore[arg-type]
        y = gate(x)
    assert torch.equal(y, gate(x))
    assert torch.equal(torch.autograd.grad(y.square().sum(), x)[0], plain)


def test_a_rrelu_in_training_is_left_as_it_is(x: Tensor) -> None:
    torch.manual_seed(0)
    plain = functional.rrelu(x, training=True)
    torch.manual_seed(0)
    with surrogate(1.0, "network"):
        assert torch.equal(functional.rrelu(x, training=True), plain)


def test_the_weight_of_a_prelu_is_trained_as_ever(x: Tensor) -> None:
    layer = nn.PReLU(3).double()
    (plain,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    with surrogate(0.5):
        value = layer(x).square().sum()
    found = torch.autograd.grad(value, [layer.weight, x])
    assert torch.equal(found[0], plain)


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    with (
        surrogate(torch.tensor([0.1, 0.2])),
        pytest.raises(NetworkError, match=r"shape \(3, 2\) cannot be divided among 2 lanes"),
    ):
        functional.silu(torch.zeros((3, 2), requires_grad=True))


def test_a_silent_unit_on_the_falling_side_is_pushed_down_by_its_true_gradient_and_up_by_the_proxys() -> None:
    """SiLU at 8x - 6, x = 0.5: the true slope is 8 * silu'(-2) < 0, the proxy's 8 * 0.05."""
    x = torch.tensor([[0.5]], dtype=torch.float64, requires_grad=True)
    (plain,) = torch.autograd.grad(functional.silu(8 * x - 6), x)
    with surrogate(0.05):
        (proxy,) = torch.autograd.grad(functional.silu(8 * x - 6), x)
    assert plain.item() == pytest.approx(8 * silu_slope(-2.0), rel=1e-12)
    assert plain.item() < 0
    assert proxy.item() == pytest.approx(0.4, rel=1e-12)


@pytest.mark.parametrize("name", ["nn.ReLU6", "nn.ReLU6 in place", "nn.Hardtanh", "functional.hardtanh_"])
def test_relu6_and_hardtanh_keep_their_output_and_nothing_else(name: str, x: Tensor) -> None:
    kept = list[Tensor]()

    def keep(each: Tensor) -> Tensor:
        kept.append(each)
        return each

    hidden = x * 1
    with surrogate(0.1), torch.autograd.graph.saved_tensors_hooks(keep, lambda each: each):
        y = CASES[name].call(hidden)
    assert [each.data_ptr() for each in kept] == [y.data_ptr()]


@pytest.mark.parametrize("name", ["nn.SiLU", "nn.GELU", "nn.Mish", "nn.Hardswish", "nn.Softplus"])
def test_smooth_activations_keep_what_autograd_keeps(name: str, x: Tensor) -> None:
    """Their input; also when gradients are taken twice, which needs it twice."""
    kept = list[Tensor]()

    def keep(each: Tensor) -> Tensor:
        kept.append(each)
        return each

    grad = some_grad(x)
    with surrogate(0.1), torch.autograd.graph.saved_tensors_hooks(keep, lambda each: each):
        y = CASES[name].call(x)
    assert {each.data_ptr() for each in kept} <= {x.data_ptr(), y.data_ptr()}
    first, second = (torch.autograd.grad(y, x, grad, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
