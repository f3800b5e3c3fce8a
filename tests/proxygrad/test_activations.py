"""Activations beyond ReLU: the backward rule restated slowly in float64, and the proxy activation itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.activations import Activation, joint
from proxygrad.errors import NetworkError
from proxygrad.surrogate import surrogate

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017, arXiv 1706.02515


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def gelu_slope(x: float) -> float:
    density = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return (1 + math.erf(x / math.sqrt(2))) / 2 + x * density


def gelu_tanh_slope(x: float) -> float:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    outer = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return (1 + math.tanh(inner)) / 2 + x * (1 - math.tanh(inner) ** 2) * outer / 2


def mish_slope(x: float) -> float:
    bent = math.tanh(math.log1p(math.exp(x)))
    return bent + x * (1 - bent**2) * sigmoid(x)


def hardswish_slope(x: float) -> float:
    return 0.0 if x <= -3 else 1.0 if x >= 3 else x / 3 + 0.5


class Case(NamedTuple):
    """A way to call an activation, in place where it says so, and its derivative by hand."""

    call: Callable[[Tensor], Tensor]
    slope: Callable[[float], float]
    inplace: bool = False


def elu_slope(alpha: float) -> Callable[[float], float]:
    return lambda x: 1.0 if x > 0 else alpha * math.exp(x)


def selu_slope(x: float) -> float:
    return SELU_SCALE if x > 0 else SELU_SCALE * SELU_ALPHA * math.exp(x)


def celu_slope(alpha: float) -> Callable[[float], float]:
    return lambda x: 1.0 if x > 0 else math.exp(x / alpha)


def leaky_slope(below: float) -> Callable[[float], float]:
    return lambda x: 1.0 if x > 0 else below


def inside(low: float, high: float) -> Callable[[float], float]:
    return lambda x: float(low < x < high)


def silu_slope(x: float) -> float:
    return sigmoid(x) * (1 + x * (1 - sigmoid(x)))


WEIGHT = torch.tensor([0.25], dtype=torch.float64)
NEGATIVE = torch.tensor([-0.3], dtype=torch.float64)
CASES: dict[str, Case] = {
    "nn.ReLU6": Case(nn.ReLU6(), inside(0, 6)),
    "nn.ReLU6 in place": Case(nn.ReLU6(inplace=True), inside(0, 6), True),
    "functional.relu6": Case(functional.relu6, inside(0, 6)),
    "functional.relu6 in place": Case(lambda x: functional.relu6(x, inplace=True), inside(0, 6), True),
    "nn.Hardtanh": Case(nn.Hardtanh(-1.5, 2.0), inside(-1.5, 2)),
    "functional.hardtanh positional": Case(
        lambda x: functional.hardtanh(x, -2.0, 0.5, True), inside(-2, 0.5), True
    ),
    "functional.hardtanh_": Case(lambda x: functional.hardtanh_(x, -1.0, 1.0), inside(-1, 1), True),
    "nn.Hardswish": Case(nn.Hardswish(), hardswish_slope),
    "nn.Hardswish in place": Case(nn.Hardswish(inplace=True), hardswish_slope, True),
    "nn.ELU": Case(nn.ELU(), elu_slope(1.0)),
    "nn.ELU of 0.2": Case(nn.ELU(0.2), elu_slope(0.2)),
    "nn.ELU in place": Case(nn.ELU(inplace=True), elu_slope(1.0), True),
    "functional.elu_": Case(lambda x: functional.elu_(x, 0.7), elu_slope(0.7), True),
    "nn.SELU": Case(nn.SELU(), selu_slope),
    "nn.SELU in place": Case(nn.SELU(inplace=True), selu_slope, True),
    "torch.selu": Case(torch.selu, selu_slope),
    "torch.selu_": Case(torch.selu_, selu_slope, True),
    "nn.CELU": Case(nn.CELU(4.0), celu_slope(4.0)),
    "nn.CELU in place": Case(nn.CELU(0.5, inplace=True), celu_slope(0.5), True),
    "torch.celu": Case(lambda x: torch.celu(x, alpha=2.0), celu_slope(2.0)),
    "torch.celu_": Case(lambda x: torch.celu_(x, 2.0), celu_slope(2.0), True),
    "nn.SiLU": Case(nn.SiLU(), silu_slope),
    "nn.SiLU in place": Case(nn.SiLU(inplace=True), silu_slope, True),
    "nn.Mish": Case(nn.Mish(), mish_slope),
    "nn.Mish in place": Case(nn.Mish(inplace=True), mish_slope, True),
    "nn.GELU": Case(nn.GELU(), gelu_slope),
    "nn.GELU of tanh": Case(nn.GELU("tanh"), gelu_tanh_slope),
    "functional.gelu": Case(functional.gelu, gelu_slope),
    "nn.Softplus": Case(nn.Softplus(), sigmoid),
    "nn.Softplus of 3": Case(nn.Softplus(3.0, 50.0), lambda x: sigmoid(3 * x)),
    "nn.PReLU": Case(nn.PReLU(init=0.25).double(), leaky_slope(0.25)),
    "functional.prelu": Case(lambda x: functional.prelu(x, WEIGHT), leaky_slope(0.25)),
    "Tensor.prelu": Case(lambda x: x.prelu(WEIGHT), leaky_slope(0.25)),
    "a PReLU that folds": Case(lambda x: torch.prelu(x, NEGATIVE), leaky_slope(-0.3)),
    "a Leaky ReLU that folds": Case(nn.LeakyReLU(-0.3), leaky_slope(-0.3)),
    "nn.RReLU": Case(nn.RReLU(0.1, 0.3).eval(), leaky_slope(0.2)),
    "nn.RReLU in place": Case(nn.RReLU(0.1, 0.3, inplace=True).eval(), leaky_slope(0.2), True),
    "torch.rrelu": Case(lambda x: torch.rrelu(x, 0.1, 0.3), leaky_slope(0.2)),
    "functional.rrelu_": Case(lambda x: functional.rrelu_(x, 0.1, 0.3), leaky_slope(0.2), True),
}
NAMES = pytest.mark.parametrize("name", CASES)


@pytest.fixture
def x() -> Tensor:
    """Far into both tails, and the kinks themselves."""
    generator = torch.Generator().manual_seed(0)
    values = 3 * torch.randn((4, 3, 20), dtype=torch.float64, generator=generator)
    values[0, 0, :6] = torch.tensor([0.0, 3.0, -3.0, 6.0, -20.0, 20.0])
    return values.requires_grad_()


def run(name: str, x: Tensor) -> Tensor:
    """The activation of a copy: in place where the case says so."""
    return CASES[name].call(x.clone())


def gradient(name: str, x: Tensor, grad: Tensor) -> Tensor:
    return torch.autograd.grad(run(name, x), x, grad)[0]


def some_grad(x: Tensor) -> Tensor:
    return torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))


def by_hand(name: str, x: Tensor, slope: float) -> Tensor:
    """max(f'(x), slope), one element after another."""
    values = [max(CASES[name].slope(v), slope) for v in x.detach().flatten().tolist()]
    return torch.tensor(values, dtype=torch.float64).view_as(x)


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


@pytest.mark.parametrize("proxy", ["surrogate", "network"])
def test_a_prelu_with_a_slope_for_each_channel(proxy: str) -> None:
    weight = torch.tensor([0.5, 0.01, -0.2], dtype=torch.float64)
    x = -torch.ones((2, 3, 2, 2), dtype=torch.float64, requires_grad=True)
    with surrogate(torch.tensor([0.1, 0.0], dtype=torch.float64), proxy):  # type: ignore[arg-type]
        (found,) = torch.autograd.grad(functional.prelu(x, weight).sum(), x)
    assert found[:, :, 0, 0].tolist() == [[0.5, 0.1, 0.1], [0.5, 0.01, -0.2]]


def test_the_weight_of_a_prelu_is_trained_as_ever(x: Tensor) -> None:
    layer = nn.PReLU(3).double()
    (plain,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    with surrogate(0.5):
        value = layer(x).square().sum()
    found = torch.autograd.grad(value, [layer.weight, x])
    assert torch.equal(found[0], plain)


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
        at, value = joint(Activation(functional.elu), slope)
        assert at == pytest.approx(math.log(slope), abs=1e-12)
        assert value == pytest.approx(slope - 1, abs=1e-12)
        at, _ = joint(Activation(functional.softplus, (("beta", 2.0), ("threshold", 99.0))), slope)
        assert at == pytest.approx(math.log(slope / (1 - slope)) / 2, abs=1e-12)
        at, _ = joint(Activation(functional.hardswish), slope)
        assert at == pytest.approx(3 * slope - 1.5, abs=1e-12)
    assert joint(Activation(functional.silu), 0.0) == (-math.inf, 0.0)


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    with (
        surrogate(torch.tensor([0.1, 0.2])),
        pytest.raises(NetworkError, match=r"shape \(3, 2\) cannot be divided among 2 lanes"),
    ):
        functional.silu(torch.zeros((3, 2)))


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
