"""Every way to call an activation beyond ReLU, with its derivative by hand; for the tests of this folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

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


def far_and_kinks() -> Tensor:
    """``(4, 3, 20)`` in float64, with a gradient: far into both tails, and the kinks themselves."""
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
