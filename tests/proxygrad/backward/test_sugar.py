"""SUGAR: values are ReLU's, gradients the derivative of the surrogate, against formulas in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.backward.sugar import DerivativeName, derivative, sugar
from proxygrad.backward.surrogate import surrogate
from proxygrad.errors import NetworkError

#: The surrogates themselves, arXiv 2505.22074; their derivatives come from autograd.
FUNCTIONS: dict[DerivativeName, Callable[[Tensor], Tensor]] = {
    "bsilu": lambda x: (x + 1.67) * torch.sigmoid(x) - 1.67 / 2,
    "nelu": lambda x: torch.where(x > 0, x, -0.05 / (1 + x * x)),
    "silu": functional.silu,
    "gelu": functional.gelu,
    "elu": functional.elu,
}
CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU(),
    "module in place": lambda x: nn.ReLU(inplace=True)(x.clone()),
    "functional": functional.relu,
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.clone().relu_(),
    "torch": lambda x: torch.relu_(x.clone()),
    "aten": torch.ops.aten.relu.default,
}


@pytest.fixture
def x() -> Tensor:
    values = 3 * torch.randn((4, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values[0, :3] = torch.tensor([0.0, -60.0, 60.0])
    return values.requires_grad_()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", get_args(DerivativeName))
def test_forward_is_relu_and_backward_the_derivative(name: DerivativeName, call: str, x: Tensor) -> None:
    with sugar(name):
        y = CALLS[call](x)
    assert torch.equal(y, torch.relu(x))
    grad = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad(y, x, grad)
    (expected,) = torch.autograd.grad(FUNCTIONS[name](x), x, grad)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_derivatives_are_the_formulas_value_by_value() -> None:
    def sigma(v: float) -> float:
        return 1 / (1 + math.exp(-v))

    points = [-4.0, -1.0, -0.01, 0.5, 3.0]
    x = torch.tensor(points, dtype=torch.float64)
    found = derivative("bsilu", 2.0)(x).tolist()
    assert found == pytest.approx([sigma(v) + (v + 2.0) * sigma(v) * (1 - sigma(v)) for v in points])
    assert derivative("nelu", 0.2)(x).tolist() == pytest.approx(
        [1.0 if v > 0 else 2 * 0.2 * v / (1 + v * v) ** 2 for v in points]
    )


def test_second_derivatives_are_those_of_the_first(x: Tensor) -> None:
    def relu(x: Tensor) -> Tensor:
        with sugar("bsilu"):
            return torch.relu(x)

    (first,) = torch.autograd.grad(relu(x).sum(), x, create_graph=True)
    (found,) = torch.autograd.grad(first.sum(), x)
    (own,) = torch.autograd.grad(FUNCTIONS["bsilu"](x).sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(own.sum(), x)
    torch.testing.assert_close(found, expected)


def test_other_activations_and_constants_stay_and_the_innermost_block_applies(x: Tensor) -> None:
    with sugar("bsilu"):
        leaky, of_constant = functional.leaky_relu(x, 0.1), torch.relu(x.detach())
        with surrogate(0.25):
            inner = torch.relu(x)
    assert of_constant.grad_fn is None
    for y, slope in ((leaky, 0.1), (inner, 0.25)):
        (found,) = torch.autograd.grad(y.sum(), x)
        assert torch.equal(found, torch.where(x > 0, torch.ones_like(x), slope))


@pytest.mark.parametrize(("name", "alpha"), [("relu", None), ("gelu", 1.0), ("bsilu", math.nan)])
def test_what_cannot_be_is_named(name: DerivativeName, alpha: float | None) -> None:
    with pytest.raises(NetworkError, match="bsilu"):
        sugar(name, alpha)
