"""Rectifiers by another name, against the rule by hand in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from proxygrad.backward.surrogate import rectifier_name, surrogate
from tests.corpus.rectifiers import SPELLINGS

VALUES = torch.tensor([[-2.0, 0.5, 7.0], [3.0, -1.0, -0.25]], dtype=torch.float64)


def gradient(act: object, **how: object) -> tuple[Tensor, Tensor]:
    """What the activation returns for `VALUES`, and the gradient of its sum."""
    x = VALUES.clone().requires_grad_()
    with surrogate(**how):  # type: ignore[arg-type]
        y = act(x)  # type: ignore[operator]
    return y.detach(), torch.autograd.grad(y.sum(), x)[0]


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("guarded", [False, True])
def test_a_spelling_of_relu_follows_the_rule_of_relu(name: str, guarded: bool) -> None:
    act = SPELLINGS[name]
    y, found = gradient(act, slope=0.1, guarded=guarded)
    assert torch.equal(y, torch.relu(VALUES))
    torch.testing.assert_close(found, torch.where(VALUES > 0, 1.0, 0.1).double(), rtol=1e-6, atol=0)
    y, found = gradient(act, slope=0.1, proxy="network", guarded=guarded)
    torch.testing.assert_close(y, functional.leaky_relu(VALUES, 0.1))
    torch.testing.assert_close(found, torch.where(VALUES > 0, 1.0, 0.1).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", SPELLINGS)
def test_each_lane_has_its_own_slope(name: str) -> None:
    _, found = gradient(SPELLINGS[name], slope=torch.tensor([0.1, 0.3]))
    expected = torch.where(VALUES > 0, 1.0, torch.tensor([[0.1], [0.3]])).double()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", SPELLINGS)
def test_slope_0_is_autograd(name: str) -> None:
    _, found = gradient(SPELLINGS[name], slope=0.0)
    x = VALUES.clone().requires_grad_()
    assert torch.equal(found, torch.autograd.grad(SPELLINGS[name](x).sum(), x)[0])


def test_a_clamp_on_both_sides_has_a_line_on_either() -> None:
    y, found = gradient(lambda x: x.clamp(-1, 3.5), slope=0.2, proxy="network")
    assert y.tolist() == [[pytest.approx(-1.2), 0.5, pytest.approx(4.2)], [3.0, -1.0, -0.25]]
    assert found.tolist() == [[pytest.approx(0.2), 1.0, pytest.approx(0.2)], [1.0, pytest.approx(0.2), 1.0]]


def test_a_mask_of_other_values_is_no_rectifier() -> None:
    other = VALUES.flip(1)
    for act in (
        lambda x: x * (other > 0),
        lambda x: torch.where(x.flip(1) > 0, x, 0.0),
        lambda x: x.masked_fill(x.mean(1, keepdim=True) > 0, 0.0),
        lambda x: torch.maximum(x, -x),
    ):
        _, found = gradient(act, slope=0.5)
        x = VALUES.clone().requires_grad_()
        assert torch.equal(found, torch.autograd.grad(act(x).sum(), x)[0])


def test_what_was_written_to_since_holds_other_values() -> None:
    def copied(x: Tensor) -> Tensor:
        return x.clone().neg_() * (x > 0)

    _, found = gradient(copied, slope=0.5)
    assert torch.equal(found, -(VALUES > 0).double())
    _, found = gradient(lambda x: x - x.clamp(max=0).mul_(2), slope=0.5)
    assert torch.equal(found, torch.where(VALUES > 0, 0.0, -1.0).double()), "1 - 2 * 0.5, and 1 - 2"


def test_what_is_taken_for_a_rectifier_has_its_name() -> None:
    x = torch.rand(2, 3, requires_grad=True)
    named: dict[str, tuple[Any, Any]] = {
        "relu": (torch.clamp, (x, 0)),
        "relu6": (Tensor.clip, (x, 0, 6)),
        "clamp": (torch.clamp_max, (x, 1)),
        "threshold": (functional.threshold, (x, 1, 0)),
        "silu": (torch.ops.aten.silu.default, (x,)),
        "maximum": (torch.maximum, (x, torch.zeros(3))),
    }
    assert {name: rectifier_name(*call, {}) for name, call in named.items()} == {name: name for name in named}
    assert rectifier_name(torch.max, (x, 1), {}) is None
    assert rectifier_name(torch.mul, (x, x), {}) is None


@pytest.mark.parametrize("act", [torch.relu, functional.relu6, functional.silu, SPELLINGS["maximum"]])
def test_the_slope_makes_no_finite_gradient_infinite(act: object) -> None:
    """d sqrt(y) is infinite at y = 0, where the activation's own gradient, 0, has the last word."""
    x = torch.tensor([[-30.0, 4.0]], requires_grad=True)

    def through(**how: object) -> Tensor:
        with surrogate(0.1, **how):  # type: ignore[arg-type]
            y = act(x).clone()  # type: ignore[operator]
        y.register_hook(lambda grad: torch.tensor([[torch.inf, 1.0]]))
        return torch.autograd.grad(y.sum(), x)[0]

    assert through()[0, 0] == torch.inf
    found = through(guarded=True)
    assert not bool((found == torch.inf).any())
    assert found[0, 1] == through()[0, 1]


def test_the_proxy_makes_no_finite_value_infinite() -> None:
    x = torch.tensor([[-torch.inf, 4.0, -2.0]])
    for act in (torch.relu, functional.relu6, SPELLINGS["clamp"]):
        with surrogate(0.1, "network", guarded=True):
            y = act(x)
        assert bool(y.isfinite().all())
        assert y[0, 0] == 0
    with surrogate(0.1, "network"):
        assert torch.relu(x)[0, 0] == -torch.inf
