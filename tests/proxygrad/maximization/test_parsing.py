"""Strings, functions and objectives: what each means, and what is said of one that means nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from proxygrad.errors import InvalidRequest, PositionOutOfRange, UnitOutOfRange, UnknownLayer
from proxygrad.maximization.ascent import maximize
from proxygrad.maximization.labels import label
from proxygrad.maximization.parsing import as_objective, as_objectives
from proxygrad.networks.network import Network
from proxygrad.objectives.base import Activations, Objective
from proxygrad.objectives.directions import Energy
from proxygrad.objectives.units import Channel, Logit, Neuron
from tests.support.networks import Small, Unrolled, small

CLASSES = ("tench", "zebra", "crane", "crane")


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(Small(), (3, 16, 16), name="small", classes=CLASSES)


class Tokens(nn.Module):
    """Patches as tokens, ``(B, 16, 8)``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.mix(self.patches(x).flatten(2).transpose(1, 2))
        logits: Tensor = self.head(tokens.mean(dim=1))
        return logits


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("conv2:3", Channel("conv2", 3)),
        ("conv2: 3 ", Channel("conv2", 3)),
        ("conv2:3@2,5", Neuron("conv2", 3, (2, 5))),
        ("conv2:3@ 2, 5", Neuron("conv2", 3, (2, 5))),
        ("conv2@1:3", Channel("conv2@1", 3)),
        ("fc:2", Logit(layer="fc", unit=2)),
        ("output:2", Logit(layer="output", unit=2)),
        ("zebra", Logit(layer="output", unit=1)),
        ("Zebra", Logit(layer="output", unit=1)),
        ("fc:zebra", Logit(layer="fc", unit=1)),
    ],
)
def test_a_string_means_an_objective(network: Network, text: str, meant: Objective) -> None:
    assert as_objective(text, network) == meant


def test_the_kind_of_layer_decides() -> None:
    tokens = Network(Tokens(), (3, 16, 16))
    assert as_objective("mix:3", tokens) == Channel("mix", 3)
    assert as_objective("mix:3@7", tokens) == Neuron("mix", 3, (7,))
    assert as_objective("step@2:1", Network(Unrolled(3), (3, 8, 8))) == Channel("step@2", 1)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("conv_2:3", UnknownLayer, r"unknown layer of model 'small': 'conv_2'; near names: conv"),
        ("conv2:6", UnitOutOfRange, r"unit 6 is out of range: layer 'conv2' has units 0 to 5"),
        ("conv2:-1", UnitOutOfRange, r"unit -1 is out of range"),
        ("conv2:3@9,0", PositionOutOfRange, r"rows 0 to 7"),
        ("conv2:3@1", PositionOutOfRange, r"rows 0 to 7 and columns"),
        ("conv2", InvalidRequest, r"'conv2' names a layer but no unit; valid: 'conv2:0' to 'conv2:5'"),
        ("conv2:", InvalidRequest, r"unit '' is no whole number; layer 'conv2' has units 0 to 5"),
        ("conv2:zebra", InvalidRequest, r"unit 'zebra' is no whole number; layer 'conv2'"),
        ("conv2:1.5", InvalidRequest, r"unit '1.5' is no whole number"),
        ("conv2:3@", InvalidRequest, r"position ''; valid: 'row,column' in a feature map"),
        ("conv2:3@a,b", InvalidRequest, r"position 'a,b'; valid"),
        ("zebar", InvalidRequest, r"'zebar' names no unit; valid: 'layer:unit', .* near names: zebra"),
        ("", InvalidRequest, r"objective '' names no unit; valid: 'layer:unit'"),
        (
            "crane",
            InvalidRequest,
            r"class 'crane' is the name of several logits; valid: 'output:2' and 'output:3'",
        ),
    ],
)
def test_a_string_that_means_nothing_names_what_is_valid(
    network: Network, text: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        maximize(network, text, steps=1)


def test_a_class_may_be_named_in_place_of_its_logit(network: Network) -> None:
    named: Any = "zebra"
    assert as_objective(Logit(layer="fc", unit=named), network) == Logit(layer="fc", unit=1)
    total = Logit(layer="fc", unit=named) - 0.5 * Channel("conv2", 1)
    assert as_objective(total, network) == Logit(layer="fc", unit=1) - 0.5 * Channel("conv2", 1)
    with pytest.raises(InvalidRequest, match="unit 'zebar' is no class of model 'small'; near names: zebra"):
        maximize(network, Logit(layer="fc", unit="zebar"), steps=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="its class names are not known"):
        maximize(small(), Logit(layer="fc", unit=named), steps=1)


@pytest.mark.parametrize("given", ["conv2:1", "conv2:1@3,3", "fc:2"])
def test_a_string_draws_what_its_objective_draws(network: Network, given: str) -> None:
    one, other = (maximize(network, each, steps=3) for each in (given, as_objective(given, network)))
    assert torch.equal(one.image, other.image)
    assert label(one.objective) == given


def test_a_function_of_activations_is_the_objective_it_computes(network: Network) -> None:
    own = maximize(network, lambda activations: activations["conv2"][:, 1].mean((1, 2)), steps=4)
    named = maximize(network, Channel("conv2", 1), steps=4)
    torch.testing.assert_close(own.image, named.image, rtol=0, atol=1e-4)
    assert own.activation == pytest.approx(named.activation, rel=1e-4)


def test_a_function_may_read_several_layers_and_return_a_scalar(network: Network) -> None:
    def both(activations: Activations) -> Tensor:
        return activations["conv2"][0, 1].mean() - 0.1 * activations["conv"].square().mean()

    found = maximize(network, both, steps=4)
    assert set(found.objective.layers) == {"conv2", "conv"}
    assert found.activation > found.start_activation
    assert label(found.objective) == "both"


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda activations: activations["conv3"].mean(), UnknownLayer, "near names: conv, conv2"),
        (
            lambda activations: activations["conv2"],
            InvalidRequest,
            r"returns shape \(1, 6, 8, 8\) for 1 image",
        ),
        (lambda activations: 3.0, InvalidRequest, "reads no layer; valid: a function of activations"),
        (
            lambda activations: float(activations["conv2"].mean()),
            InvalidRequest,
            "returns a float for 1 image",
        ),
        (lambda activations: activations["conv2"][:, 99].mean(), InvalidRequest, "IndexError: index 99"),
        (lambda: 3.0, InvalidRequest, "TypeError: .* positional argument"),
    ],
)
def test_a_function_that_is_no_objective_is_refused(
    network: Network, function: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        maximize(network, function, steps=1)


@pytest.mark.parametrize("given", [3, None, 1.5, [3], [Channel("conv2", 1), None]])
def test_what_is_neither_is_refused(network: Network, given: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"is of type .*; valid: a string 'layer:unit', a function"):
        maximize(network, given, steps=1)


def test_a_list_may_mix_all_of_them(network: Network) -> None:
    assert as_objectives(["conv2:1", Energy("conv2")], network) == [Channel("conv2", 1), Energy("conv2")]
    with pytest.raises(InvalidRequest, match="no objectives: give one or more; valid: 'layer:unit'"):
        as_objectives([], network)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (Channel("conv2", 1), "conv2:1"),
        (Neuron("conv2", 1, (3, 4)), "conv2:1@3,4"),
        (Channel("conv2", 1) - 0.5 * Channel("conv2", 2), "conv2:1 - 0.5 conv2:2"),
        (-Channel("conv2", 1), "-conv2:1"),
        (Energy("conv2"), "energy of conv2"),
    ],
)
def test_labels_are_short(objective: Objective, expected: str) -> None:
    assert label(objective) == expected
