"""What the slope does not reach is named, by the module that calls it; what it reaches is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.networks.network import Network
from tests.corpus.case import Act, Net
from tests.corpus.rectifiers import SPELLINGS, UNREACHED


def unreached(act: Act) -> dict[str, str]:
    return Network(Net(act), (3, 12, 12)).unreached


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("function of its own gradient", "OwnGradient"),
        ("TorchScript", "relu"),
        ("half of x and |x|", "add"),
        ("without a minimum", "sub"),
        ("product with a sign", "mul"),
        ("product with a step", "mul"),
        ("maximum with nothing of it", "max"),
        ("maximum with what is left of it", "maximum"),
        ("maximum with a parameter", "maximum"),
        ("between two constants with a history", "max, min"),
        ("largest of a stack", "amax"),
        ("first of a sorted stack", "topk"),
        ("smooth maximum", "logsumexp"),
        ("maxout", "amax"),
        ("einsum with a mask", "einsum"),
        ("addcmul", "addcmul"),
        ("lerp", "lerp"),
        ("diagonal", "matmul"),
        ("put at places", "index_put"),
        ("added at places", "index_add"),
        ("foreach clamp", "_foreach_clamp_min"),
        ("foreach maximum", "_foreach_maximum"),
    ],
)
def test_what_is_missed_is_named(name: str, called: str, caplog: pytest.LogCaptureFixture) -> None:
    assert unreached(UNREACHED[name]) == {"": called}
    assert caplog.messages == [f"network: the slope does not reach {called} in its forward"]


def test_it_is_named_by_the_module_that_calls_it(caplog: pytest.LogCaptureFixture) -> None:
    class Activation(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return UNREACHED["function of its own gradient"](x)

    network = Network(nn.Sequential(nn.Conv2d(3, 4, 3), Activation(), nn.Conv2d(4, 4, 3)), (3, 8, 8))
    assert network.unreached == {"1": "OwnGradient"}
    assert caplog.messages == ["network: the slope does not reach OwnGradient in layer '1'"]


def test_a_share_of_the_input_keeps_its_own_slope() -> None:
    assert unreached(lambda x: torch.maximum(x, 0.01 * x)) == {"": "maximum"}
    assert unreached(lambda x: torch.where(x > 0, x, 0.01 * x)) == {"": "where"}


@pytest.mark.parametrize("name", SPELLINGS)
def test_what_is_reached_is_not_named(name: str) -> None:
    assert unreached(SPELLINGS[name]) == {}


@pytest.mark.parametrize(
    "act",
    [
        functional.gelu,
        functional.normalize,
        lambda x: torch.maximum(x, -x),
        lambda x: torch.maximum(x, -1 * x),
        lambda x: torch.maximum(x, 2 * x - 1),
        lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * torch.ones((6, 1, 1), dtype=torch.complex64)),
        lambda x: torch.maximum(x, x.roll(1, 1)),
        lambda x: torch.stack([x, x.roll(1, 1)]).amax(0),
        lambda x: functional.max_pool2d(torch.cat([x, torch.zeros_like(x)], 1), 2)[:, :6],
        lambda x: torch.zeros_like(x).index_add(1, torch.arange(6), x),
        lambda x: torch.einsum("bchw,bchw->bchw", x, x.sigmoid()),
        lambda x: x * torch.sigmoid(x),
        lambda x: x * torch.ones_like(x),
        lambda x: x + x.abs().mean(),
        lambda x: x + torch.relu(x),
        lambda x: x - torch.relu(x - 1),
        lambda x: torch.relu(x) - torch.relu(-x),
        lambda x: x.masked_fill(torch.ones(x.shape[2:], dtype=torch.bool).triu(), 0.0),
        lambda x: x / x.detach().amax(dim=1, keepdim=True).clamp(min=1.0),
        lambda x: x * 2 if bool((x > 0).any()) else x,
    ],
)
def test_neither_is_what_is_no_rectifier(act: Act) -> None:
    assert unreached(act) == {}
