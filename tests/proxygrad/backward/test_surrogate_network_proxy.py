"""The proxy activation itself, `surrogate(proxy="network")`, and both readings side by side."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from proxygrad.backward.activations import Activation, tangent_point
from proxygrad.backward.surrogate import surrogate
from tests.support.activation_cases import CASES, by_hand, far_and_kinks, gradient, run, some_grad

NAMES = pytest.mark.parametrize("name", CASES)


@pytest.fixture
def x() -> Tensor:
    return far_and_kinks()


@NAMES
@pytest.mark.parametrize("slope", [0.02, 0.3, 1.0])
def test_the_proxy_activation_is_the_integral_of_the_floored_derivative(name: str, slope: float) -> None:
    """By the trapezoidal rule from the right, where proxy and activation agree, in steps of 1/200."""
    grid = torch.linspace(2.0, -8.0, 2_001, dtype=torch.float64)
    if "hardtanh" in name.lower():
        grid = grid - 1.6  # 0.4: inside all of these
    slopes = by_hand(name, grid, slope)
    steps = grid.diff()
    integral = torch.cat(
        [torch.zeros(1, dtype=torch.float64), (steps * (slopes[1:] + slopes[:-1]) / 2).cumsum(0)]
    )
    with surrogate(slope, proxy="network"):
        proxy = run(name, grid)
    start = run(name, grid[:1])
    if slope < 1:  # a slope of 1 reaches into the positive side
        torch.testing.assert_close(proxy[:1], start, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(proxy, proxy[0] + integral, rtol=0, atol=5e-3)


@NAMES
def test_the_gradient_of_the_proxy_activation_passes_finite_differences(name: str, x: Tensor) -> None:
    points = (x.detach().flatten()[6:46] + 0.0123).requires_grad_()  # off the kinks
    with surrogate(0.1, proxy="network"):
        assert torch.autograd.gradcheck(lambda x: run(name, x), (points,), eps=1e-7, atol=1e-5)


@NAMES
@pytest.mark.parametrize("proxy", ["surrogate", "network"])
def test_both_readings_have_the_same_derivative(name: str, proxy: str, x: Tensor) -> None:
    """Of one activation: readings differ in what the next layer sees."""
    grad = some_grad(x)
    with surrogate(0.1, proxy):  # type: ignore[arg-type]
        found = gradient(name, x, grad)
    torch.testing.assert_close(found, grad * by_hand(name, x, 0.1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.inplace])
@pytest.mark.parametrize("proxy", ["surrogate", "network"])
@pytest.mark.parametrize("lanes", [False, True])
def test_in_place_forms_write_over_their_input(name: str, proxy: str, lanes: bool, x: Tensor) -> None:
    slope = torch.full((4,), 0.1, dtype=torch.float64) if lanes else 0.1
    hidden = x * 1
    with surrogate(slope, proxy):  # type: ignore[arg-type]
        y = CASES[name].call(hidden)
    assert y.data_ptr() == hidden.data_ptr()
    assert torch.equal(y, hidden)


@pytest.mark.parametrize("proxy", ["surrogate", "network"])
def test_a_prelu_with_a_slope_for_each_channel(proxy: str) -> None:
    weight = torch.tensor([0.5, 0.01, -0.2], dtype=torch.float64)
    x = -torch.ones((2, 3, 2, 2), dtype=torch.float64, requires_grad=True)
    with surrogate(torch.tensor([0.1, 0.0], dtype=torch.float64), proxy):  # type: ignore[arg-type]
        (found,) = torch.autograd.grad(functional.prelu(x, weight).sum(), x)
    assert found[:, :, 0, 0].tolist() == [[0.5, 0.1, 0.1], [0.5, 0.01, -0.2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("proxy", ["surrogate", "network"])
@pytest.mark.parametrize("name", [name for name in CASES if "prelu" not in name.lower()])  # float64 weights
def test_number_formats_are_kept(name: str, proxy: str, dtype: torch.dtype) -> None:
    x = torch.linspace(-8, 8, 32, dtype=dtype).view(2, 16).requires_grad_()
    slopes = torch.tensor([0.0, 0.1])
    with surrogate(slopes, proxy):  # type: ignore[arg-type]
        y = run(name, x)
    (found,) = torch.autograd.grad(y.sum(), x)
    assert (y.dtype, found.dtype) == (dtype, dtype)
    expected = by_hand(name, x[1].double(), 0.1)
    torch.testing.assert_close(found[1].double(), expected, rtol=0.02, atol=0.02)


def test_the_line_begins_where_the_slope_is_reached() -> None:
    """By hand: e^x = s for ELU, sigmoid(2x) = s for Softplus of 2, x / 3 + 1/2 = s for Hardswish."""
    for slope in (0.01, 0.1, 0.6):
        at, value = tangent_point(Activation(functional.elu), slope)
        assert at == pytest.approx(math.log(slope), abs=1e-12)
        assert value == pytest.approx(slope - 1, abs=1e-12)
        at, _ = tangent_point(Activation(functional.softplus, (("beta", 2.0), ("threshold", 99.0))), slope)
        assert at == pytest.approx(math.log(slope / (1 - slope)) / 2, abs=1e-12)
        at, _ = tangent_point(Activation(functional.hardswish), slope)
        assert at == pytest.approx(3 * slope - 1.5, abs=1e-12)
    assert tangent_point(Activation(functional.silu), 0.0) == (-math.inf, 0.0)
