"""Gradient activations value by value, and gradients brought to one scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch

from proxygrad.optim.gradient_activations import gaf, normalize
from proxygrad.spec.settings import GafName


def test_gradient_activations_are_the_papers() -> None:
    """Liu et al. 2021, arXiv 2107.04228, with α = 0.1 and β = 20, value by value."""
    values = [-3.0, -0.01, 0.0, 1e-6, 0.05, 2.0]
    gradient = torch.tensor(values, dtype=torch.float64)
    formulas: dict[GafName, Callable[[float], float]] = {
        "none": lambda g: g,
        "atan": lambda g: 0.1 * math.atan(20 * g),
        "tanh": lambda g: 0.1 * math.tanh(20 * g),
        "log": lambda g: math.copysign(0.1 * math.log(1 + 20 * abs(g)), g),
    }
    assert set(formulas) == set(get_args(GafName))
    for name, formula in formulas.items():
        assert gaf(name)(gradient).tolist() == pytest.approx([formula(v) for v in values], rel=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_normalized_gradient_has_a_root_mean_square_of_1_in_each_row(scale: float) -> None:
    gradient = scale * torch.randn((3, 2, 5, 4), generator=torch.Generator().manual_seed(0))
    gradient[1] = 0
    lengths = normalize(gradient).double().square().mean(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(lengths, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 10.0), (3.0, 0.5)])
def test_alpha_and_beta_are_the_formulas(alpha: float, beta: float) -> None:
    gradient = torch.tensor([-2.0, 0.0, 1e-3, 7.0], dtype=torch.float64)
    values = gradient.tolist()
    assert gaf("atan", alpha, beta)(gradient).tolist() == pytest.approx(
        [alpha * math.atan(beta * v) for v in values]
    )
    assert gaf("tanh", alpha, beta)(gradient).tolist() == pytest.approx(
        [alpha * math.tanh(beta * v) for v in values]
    )
    assert gaf("log", alpha, beta)(gradient).tolist() == pytest.approx(
        [math.copysign(alpha * math.log(1 + beta * abs(v)), v) for v in values]
    )
