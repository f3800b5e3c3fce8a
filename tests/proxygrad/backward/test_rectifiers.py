"""The rule for rectifiers against a slow restatement in float64, one element after another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from proxygrad.backward.rectifiers import proxy_relu, surrogate_relu
from proxygrad.errors import NetworkError


def slow_backward(x: Tensor, grad: Tensor, forward_slope: float, slope: float) -> Tensor:
    """dL/dx_i = dL/dy_i where x_i > 0, else max(slope, forward_slope) dL/dy_i; one element after another."""
    below = max(slope, forward_slope)
    pairs = zip(x.flatten().tolist(), grad.flatten().tolist(), strict=True)
    return torch.tensor([g if v > 0 else below * g for v, g in pairs], dtype=torch.float64).view_as(x)


@pytest.fixture
def x() -> Tensor:
    values = torch.randn((4, 3, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values[0, 0, 0] = 0.0  # the kink itself
    return values.requires_grad_()


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(("forward_slope", "slope"), [(0.0, 0.0), (0.0, 0.3), (0.1, 0.05), (0.1, 1.0)])
def test_the_value_is_the_networks_and_the_gradient_the_proxys(
    forward_slope: float, slope: float, inplace: bool, x: Tensor
) -> None:
    grad = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    hidden = x * 1
    y = surrogate_relu(hidden, forward_slope, slope, inplace)
    (found,) = torch.autograd.grad(y, x, grad)
    assert torch.equal(y.detach(), functional.leaky_relu(x.detach(), forward_slope))
    assert (y.data_ptr() == hidden.data_ptr()) is inplace
    torch.testing.assert_close(found, slow_backward(x.detach(), grad, forward_slope, slope), rtol=0, atol=0)


def test_a_folded_batch_belongs_to_the_lanes_in_order() -> None:
    """A network that folds time or windows into the batch: lane 0's rows come first."""
    x = -torch.ones((6, 2), dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(
        surrogate_relu(x, 0.0, torch.tensor([0.1, 0.2], dtype=torch.float64)).sum(), x
    )
    assert found[:, 0].tolist() == [0.1, 0.1, 0.1, 0.2, 0.2, 0.2]


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(NetworkError, match=r"shape \(3, 2\) cannot be divided among 2 lanes"):
        surrogate_relu(torch.zeros((3, 2)), 0.0, torch.tensor([0.1, 0.2]))


@pytest.mark.parametrize("inplace", [False, True])
def test_the_proxy_networks_slopes_of_lanes_are_those_of_each_lane_alone(inplace: bool, x: Tensor) -> None:
    slopes = torch.tensor([0.0, 0.02, 0.5, 1.0], dtype=torch.float64)
    hidden = x * 1
    y = proxy_relu(hidden, 0.01, slopes, inplace)
    (found,) = torch.autograd.grad(y.square().sum(), x)
    assert (y.data_ptr() == hidden.data_ptr()) is inplace
    for lane, slope in enumerate(slopes.tolist()):
        alone = functional.leaky_relu(x[lane], max(slope, 0.01))
        torch.testing.assert_close(y[lane], alone, rtol=0, atol=0)
        assert torch.equal(found[lane], torch.autograd.grad(alone.square().sum(), x)[0][lane])
