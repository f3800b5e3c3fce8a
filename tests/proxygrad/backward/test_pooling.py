"""Spread max pooling against a slow restatement in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.backward.surrogate import surrogate
from proxygrad.engine.engine import Engine
from proxygrad.errors import NetworkError
from proxygrad.images import decode_png
from proxygrad.maximization.ascent import maximize
from proxygrad.networks.network import Network
from proxygrad.objectives.units import Channel
from proxygrad.spec import Spec

WINDOWS: dict[str, dict[str, Any]] = {
    "touching": {"kernel_size": 2},
    "overlapping": {"kernel_size": 3, "stride": 2},
    "padded": {"kernel_size": 3, "stride": 2, "padding": 1},
    "ceiled": {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    "oblong": {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
}
EACH = pytest.mark.parametrize("name", WINDOWS)


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def slow(x: Tensor, grad: Tensor, share: float, windows: dict[str, Any]) -> Tensor:
    """Window by window: ``1 - share`` of its gradient to the largest, ``share`` to all in equal parts."""
    kernel = pair(windows["kernel_size"])
    stride, padding = pair(windows.get("stride", kernel)), pair(windows.get("padding", 0))
    found = torch.zeros_like(x)
    for b, c, i, j in (
        (b, c, i, j) for b, c, i, j in torch.cartesian_prod(*map(torch.arange, grad.shape)).tolist()
    ):
        top, left = i * stride[0] - padding[0], j * stride[1] - padding[1]
        rows = slice(max(top, 0), min(top + kernel[0], x.shape[2]))
        columns = slice(max(left, 0), min(left + kernel[1], x.shape[3]))
        window, into = x[b, c, rows, columns], found[b, c, rows, columns]
        into += share * grad[b, c, i, j] / window.numel()
        into += (1 - share) * grad[b, c, i, j] * (window == window.max())
    return found


@pytest.fixture
def x() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn((2, 3, 7, 8), dtype=torch.float64, generator=generator).requires_grad_()


def pooled(x: Tensor, name: str) -> tuple[Tensor, Tensor]:
    y = functional.max_pool2d(x, **WINDOWS[name])
    grad = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return y, grad


@EACH
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_goes_to_the_whole_window_and_the_value_stays(name: str, share: float, x: Tensor) -> None:
    plain, grad = pooled(x, name)
    with surrogate(0.0, spread_max_pool=share):
        y = functional.max_pool2d(x, **WINDOWS[name])
    (found,) = torch.autograd.grad(y, x, grad)
    assert torch.equal(y, plain)
    torch.testing.assert_close(found, slow(x.detach(), grad, share, WINDOWS[name]), rtol=1e-12, atol=1e-12)


@EACH
def test_in_the_proxy_network_the_value_is_mixed_too(name: str, x: Tensor) -> None:
    plain, grad = pooled(x, name)
    with surrogate(0.0, "network", spread_max_pool=0.25):
        y = functional.max_pool2d(x, **WINDOWS[name])
    (found,) = torch.autograd.grad(y, x, grad)
    torch.testing.assert_close(found, slow(x.detach(), grad, 0.25, WINDOWS[name]), rtol=1e-12, atol=1e-12)
    assert bool((y <= plain).all())
    assert not torch.equal(y, plain)


def test_modules_and_torchs_own_function_are_reached(x: Tensor) -> None:
    (expected,) = torch.autograd.grad(functional.avg_pool2d(x, 2).sum(), x)
    with surrogate(0.1, spread_max_pool=1.0):
        values = [
            nn.MaxPool2d(2)(x),
            torch.max_pool2d(x, 2),
            torch.max_pool2d(x, [2, 2], [2, 2], [0, 0], [1, 1]),
        ]
    for y in values:
        assert torch.equal(torch.autograd.grad(y.sum(), x)[0], expected)


@EACH
def test_without_a_share_max_pooling_is_untouched(name: str, x: Tensor) -> None:
    plain, grad = pooled(x, name)
    (expected,) = torch.autograd.grad(plain, x, grad)
    with surrogate(0.3):
        y = functional.max_pool2d(x, **WINDOWS[name])
    assert torch.equal(torch.autograd.grad(y, x, grad)[0], expected)


def test_windows_with_holes_and_indices_are_refused_only_where_a_share_is_asked(x: Tensor) -> None:
    with surrogate(0.1):
        nn.MaxPool2d(2, dilation=2)(x)
        nn.MaxPool2d(2, return_indices=True)(x)
    with surrogate(0.1, spread_max_pool=0.5):
        with pytest.raises(NetworkError, match="dilation=2, return_indices=False cannot be spread"):
            nn.MaxPool2d(2, dilation=2)(x)
        with pytest.raises(NetworkError, match="return_indices=True cannot be spread"):
            nn.MaxPool2d(2, return_indices=True)(x)


def test_a_share_outside_0_to_1_is_refused() -> None:
    with pytest.raises(NetworkError, match=r"spread_max_pool 1\.5 is outside 0 to 1"):
        surrogate(0.1, spread_max_pool=1.5)


def test_a_pattern_in_the_shadow_of_another_gets_a_gradient() -> None:
    """One window of two values, the larger already at its best: plain pooling never asks the smaller."""
    x = torch.tensor([[[[1.0, 0.2]]]], requires_grad=True)
    with surrogate(0.0, spread_max_pool=0.5):
        y = functional.max_pool2d(x, (1, 2))
    assert torch.autograd.grad(y.sum(), x)[0].flatten().tolist() == [0.75, 0.25]


class Pooled(nn.Module):
    """The mean of the largest values of four windows; the true gradient reaches four pixels alone."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(4)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.pool(x)
        return pooled


def risen(image: Tensor) -> int:
    return int((image > 0.6).sum())


def test_maximize_takes_the_share() -> None:
    network = Network(Pooled(), (1, 8, 8))
    asked: dict[str, Any] = {"preset": "max", "steps": 8, "slope": 0.05}
    counts = [
        risen(maximize(network, Channel("pool", 0), spread_max_pool=share, **asked).image)
        for share in (0.0, 1.0)
    ]
    assert counts == [4, 64]


def test_lanes_of_other_shares_are_not_stepped_together() -> None:
    network = Network(Pooled(), (1, 8, 8))
    question = Spec(model="network", layer="pool", unit=0, preset="max", steps=8)
    with Engine() as engine:
        tickets = [
            engine.submit(network, question.model_copy(update={"spread_max_pool": share}))
            for share in (0.0, 1.0, 0.5, 0.0)
        ]
        images = [decode_png(ticket.result(60).png) for ticket in tickets]
    assert [risen(images[index]) for index in (0, 1, 3)] == [4, 64, 4]
    assert torch.equal(images[0], images[3])
    assert not torch.equal(images[0], images[2])
