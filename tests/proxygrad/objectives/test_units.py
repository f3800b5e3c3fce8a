"""Each objective of one unit against plain indexing in float64."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import get_args

import pytest
import torch

from proxygrad.errors import InvalidRequest, ObjectiveMismatch
from proxygrad.objectives.base import unit_count
from proxygrad.objectives.units import (
    UNIT_OBJECTIVES,
    Channel,
    Logit,
    Margin,
    Neuron,
    TopQuarter,
    UnitObjective,
)
from proxygrad.spec.models import OBJECTIVE_DESCRIPTIONS, OBJECTIVES, POSITIONED, ObjectiveKind
from tests.support.activation_arrays import MAP, READ, SHAPES, TOKENS


def test_a_channel_is_its_mean() -> None:
    expected = [sum(MAP[image, 1].flatten().tolist()) / 20 for image in range(2)]
    assert Channel("map", 1)(READ).tolist() == expected
    expected = [sum(TOKENS[image, :, 2].tolist()) / 4 for image in range(2)]
    assert Channel("tokens", 2)(READ).tolist() == expected


def test_a_neuron_is_one_value_and_the_center_unless_told() -> None:
    assert Neuron("map", 2, (0, 3))(READ).tolist() == [MAP[0, 2, 0, 3], MAP[1, 2, 0, 3]]
    assert Neuron("map", 2).at(SHAPES) == Neuron("map", 2, (2, 2))
    assert Neuron("tokens", 1, (3,))(READ).tolist() == [TOKENS[0, 3, 1], TOKENS[1, 3, 1]]
    assert Neuron("tokens", 1).at(SHAPES) == Neuron("tokens", 1, (0,))


def test_the_highest_quarter_is_of_all_positions_rounded_up() -> None:
    for image in range(2):
        highest = sorted(MAP[image, 1].flatten().tolist())[-5:]  # of 20
        assert TopQuarter("map", 1)(READ).tolist()[image] == pytest.approx(sum(highest) / 5)
        assert TopQuarter("tokens", 2)(READ).tolist()[image] == max(TOKENS[image, :, 2].tolist())  # of 4
    five = torch.tensor([1.0, 5.0, 2.0, 4.0, 3.0], dtype=torch.float64).view(1, 1, 1, 5)
    assert TopQuarter("x", 0)({"x": five}).tolist() == [4.5]


def test_vectors_have_neurons_and_logits() -> None:
    assert Neuron("vector", 1).at(SHAPES)(READ).tolist() == [2.0, 4.0]
    assert Logit("vector", 0)(READ).tolist() == [1.0, 3.0]
    assert Logit("output", 3).layers == ("output",)


def test_a_margin_is_above_the_best_of_the_others() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0], [4.0, -2.0, 4.0]], dtype=torch.float64)
    read = {"fc": logits}
    assert Margin("fc", 1)(read).tolist() == [5.0 - 3.0, -2.0 - 4.0]
    assert Margin("fc", 0)(read).tolist() == [1.0 - 5.0, 0.0]
    assert Margin("fc", 1, against=0)(read).tolist() == [5.0 - 1.0, -2.0 - 4.0]


def test_equal_rivals_share_the_gradient_of_a_margin() -> None:
    """None is preferred by its place in the layer."""
    logits = torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(Margin("fc", 0)({"fc": logits}).sum(), logits)
    assert gradient.tolist() == [[1.0, -0.5, -0.5]]


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Margin("one", 0), r"unit 0 at layer 'one' \(1 unit\(s\)\) needs another unit"),
        (Margin("vector", 1, against=1), r"unit 1 at layer 'vector' \(2 unit\(s\)\) needs another unit"),
        (Margin("vector", 1, against=2), "unit 2 is out of range: layer 'vector' has units 0 to 1"),
    ],
)
def test_a_margin_needs_another_unit(objective: Margin, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        objective.at({"one": (1,), "vector": (2,)})


@pytest.mark.parametrize(
    ("objective", "layer"),
    [
        *((each, layer) for each in (Channel, TopQuarter) for layer in ("map", "tokens")),
        *((Neuron, layer) for layer in ("map", "tokens", "vector")),
        (partial(Neuron, position=(3, 4)), "map"),
        (partial(Neuron, position=2), "tokens"),
        (Logit, "vector"),
        (Margin, "vector"),
        (partial(Margin, against=1), "vector"),
    ],
)
def test_per_unit_is_the_objective_of_each_unit(objective: Callable[..., UnitObjective], layer: str) -> None:
    """The rank of a unit compares it with what a request for each other unit would maximize."""
    found = objective(layer, 0).at(SHAPES).per_unit(READ)
    for unit in range(unit_count(SHAPES[layer])):
        own = replace(objective(layer, 0), unit=unit)
        expected = torch.zeros(2) if getattr(own, "against", None) == unit else own.at(SHAPES)(READ)
        torch.testing.assert_close(found[:, unit], expected.double(), rtol=1e-12, atol=0)


def test_a_token_may_be_given_as_its_number() -> None:
    assert Neuron("tokens", 1, 3).at(SHAPES) == Neuron("tokens", 1, (3,))
    assert Neuron("tokens", 1, 3)(READ).tolist() == Neuron("tokens", 1, (3,))(READ).tolist()


def test_every_objective_of_a_request_has_its_class() -> None:
    """Names, descriptions and classes are of the same objectives, each valid for some layer."""
    names = set(get_args(ObjectiveKind))
    assert set(UNIT_OBJECTIVES) == set(OBJECTIVE_DESCRIPTIONS) == names
    assert {name for each in OBJECTIVES.values() for name in each} == names
    assert {
        name for name, made in UNIT_OBJECTIVES.items() if "position" in signature(made).parameters
    } == POSITIONED


def test_a_layer_takes_what_its_kind_offers_and_no_more() -> None:
    """What a request may name for a kind of layer is what the classes accept for its shape."""
    shapes = {"feature_map": (3, 4, 5), "tokens": (4, 3), "vector": (3,), "logits": (3,)}
    for kind in ("feature_map", "tokens"):
        offered = set[str]()
        for name, made in UNIT_OBJECTIVES.items():
            with suppress(ObjectiveMismatch):
                made(layer=kind, unit=1).at(shapes)
                offered.add(name)
        assert offered == set(OBJECTIVES[kind])
    for kind, names in OBJECTIVES.items():
        for name in names:
            UNIT_OBJECTIVES[name](layer=kind, unit=1).at(shapes)
