"""Objectives add and scale, and are checked against the shapes of their layers."""

from __future__ import annotations

import pytest
import torch

from proxygrad.errors import InvalidRequest, ObjectiveMismatch, PositionOutOfRange, UnitOutOfRange
from proxygrad.objectives.base import Objective
from proxygrad.objectives.units import Channel, Logit, Margin, Neuron
from tests.support.activation_arrays import READ, SHAPES, TOKENS, VECTOR


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Neuron("map", 0, (4, 0)), r"position \[4, 0\] .* rows 0 to 3 and columns 0 to 4"),
        (Neuron("map", 0, (0, 5)), r"columns 0 to 4"),
        (Neuron("map", 0, (1,)), r"position \[1\] .* rows 0 to 3"),
        (Neuron("tokens", 0, (4,)), r"position \[4\] .* tokens 0 to 3"),
    ],
)
def test_a_position_outside_the_layer_names_the_range(objective: Neuron, message: str) -> None:
    with pytest.raises(PositionOutOfRange, match=message):
        objective.at(SHAPES)


def test_objectives_add_subtract_and_scale() -> None:
    both = Channel("map", 1) - 0.5 * Logit("vector", 0) + Neuron("tokens", 1)
    assert both.layers == ("map", "vector", "tokens")
    expected = Channel("map", 1)(READ) - 0.5 * VECTOR[:, 0] + TOKENS[:, 0, 1]
    assert torch.equal(both.at(SHAPES)(READ), expected)
    assert torch.equal((-Logit("vector", 1))(READ), -VECTOR[:, 1])
    assert torch.equal((Margin("vector", 1) - Logit("vector", 1))(READ), -VECTOR[:, 0])


def test_objectives_sum_and_divide() -> None:
    both = sum([Channel("map", 1), Channel("map", 2)]) / 4
    assert isinstance(both, Objective)
    assert torch.equal(both(READ), (Channel("map", 1)(READ) + Channel("map", 2)(READ)) / 4)
    with pytest.raises(TypeError):
        Channel("map", 1) + 3


@pytest.mark.parametrize(
    ("objective", "error", "message"),
    [
        (Channel("vector", 0), ObjectiveMismatch, r"'channel' .* \(a vector\); valid: neuron, logit, margin"),
        (Logit("tokens", 0), ObjectiveMismatch, r"'logit' .* \(a tokens\); valid: channel, neuron"),
        (Neuron("map", 3), UnitOutOfRange, "unit 3 is out of range: layer 'map' has units 0 to 2"),
        (Neuron("tokens", "x"), InvalidRequest, "unit 'x' at layer 'tokens' is no whole number"),  # type: ignore[arg-type]
    ],
)
def test_a_layer_of_another_shape_is_refused(
    objective: Objective, error: type[InvalidRequest], message: str
) -> None:
    with pytest.raises(error, match=message):
        objective.at(SHAPES)


def test_a_sum_has_no_single_unit() -> None:
    """So results tell neither rank nor silence of it."""
    both = Channel("map", 1) + Channel("map", 2)
    assert (both.unit, both.position, both.per_unit(READ)) == (None, None, None)
