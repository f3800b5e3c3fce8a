"""A method's name says all of it, and what it makes is what it says."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from proxygrad.backward.sugar import sugar
from proxygrad.backward.surrogate import surrogate
from proxygrad.errors import InvalidRequest
from proxygrad.training.gaf import GAF
from proxygrad.training.methods import Method


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("relu", "relu"),
        ("relu@adam*2", "relu@adam*2"),
        ("leaky_relu", "leaky_relu:0.01"),
        ("proxygrad", "proxygrad:0.05"),
        ("proxygrad:0.3-0", "proxygrad:0.3-0"),
        ("proxygrad:0.20", "proxygrad:0.2"),
        ("sugar", "sugar:bsilu"),
        ("sugar:nelu*0.25", "sugar:nelu*0.25"),
        ("gaf", "gaf:atan"),
        ("gaf:log@adam", "gaf:log@adam"),
    ],
)
def test_names_are_read_and_written(text: str, name: str) -> None:
    assert Method.parse(text).name == name
    assert Method.parse(name) == Method.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "elu",
        "relu:1",
        "proxygrad:1.5",
        "proxygrad:0-0-0",
        "leaky_relu:0-1",
        "sugar:relu",
        "gaf:none",
        "relu@lbfgs",
    ],
)
def test_other_names_are_refused_with_what_is_valid(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"there are|valid|none of|no parameter"):
        Method.parse(text)


def gradient(block: AbstractContextManager[object]) -> float:
    x = torch.tensor(-1.0, requires_grad=True)
    with block:
        y = torch.relu(x)
    return torch.autograd.grad(y, x)[0].item()


def test_blocks_are_those_of_the_method_and_a_slope_goes_linearly() -> None:
    schedule = Method.parse("proxygrad:0.4-0")
    assert [gradient(schedule.block(done)) for done in (0.0, 0.5, 1.0)] == pytest.approx([0.4, 0.2, 0.0])
    assert gradient(Method.parse("proxygrad:0.4").block(0.5)) == gradient(surrogate(0.4))
    assert gradient(Method.parse("sugar:gelu").block(0.5)) == gradient(sugar("gelu"))
    assert gradient(Method.parse("leaky_relu").block(0.5)) == 0


def test_optimizers_and_rectifiers_are_those_of_the_method() -> None:
    network = nn.Linear(2, 2)
    plain = Method.parse("relu*2").make_optimizer(network, 0.05)
    assert type(plain) is SGD
    assert (plain.param_groups[0]["lr"], plain.param_groups[0]["momentum"]) == (0.1, 0.9)
    bent = Method.parse("gaf:tanh@adam").make_optimizer(network, 0.05)
    assert isinstance(bent, GAF)
    assert isinstance(bent.optimizer, Adam)
    assert bent.param_groups[0]["gaf"] == "tanh"
    leaky = Method.parse("leaky_relu:0.2").rectifier()
    assert isinstance(leaky, nn.LeakyReLU)
    assert leaky.negative_slope == 0.2
    assert isinstance(Method.parse("proxygrad").rectifier(), nn.ReLU)
