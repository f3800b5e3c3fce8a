"""Each objective against plain indexing, and its completion for a shape."""

from __future__ import annotations

import pytest
import torch

from proxygrad.errors import PositionOutOfRange
from proxygrad.objectives import Channel, Logit, Neuron, from_spec
from proxygrad.spec import Spec

MAP = torch.arange(2 * 3 * 4 * 5, dtype=torch.float64).view(2, 3, 4, 5)
VECTOR = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def test_a_channel_is_its_mean() -> None:
    expected = [sum(MAP[image, 1].flatten().tolist()) / 20 for image in range(2)]
    assert Channel("l", 1)(MAP).tolist() == expected


def test_a_neuron_is_one_value_and_the_centre_unless_told() -> None:
    assert Neuron("l", 2, (0, 3))(MAP).tolist() == [MAP[0, 2, 0, 3], MAP[1, 2, 0, 3]]
    assert Neuron("l", 2).at((3, 4, 5)) == Neuron("l", 2, (2, 2))
    assert Neuron("l", 2)(MAP).tolist() == Neuron("l", 2, (2, 2))(MAP).tolist()


def test_vectors_have_neurons_and_logits() -> None:
    assert Neuron("l", 1).at((2,))(VECTOR).tolist() == [2.0, 4.0]
    assert Logit(0)(VECTOR).tolist() == [1.0, 3.0]


def test_a_position_outside_the_map_names_the_range() -> None:
    with pytest.raises(PositionOutOfRange, match=r"position \[4, 0\] .* rows 0 to 3 and columns 0 to 4"):
        Neuron("l", 0, (4, 0)).at((3, 4, 5))


def test_from_spec() -> None:
    spec = Spec(model="m", layer="l", unit=3, objective="neuron", position=(1, 2))
    assert from_spec(spec) == Neuron("l", 3, (1, 2))
    assert from_spec(spec.model_copy(update={"objective": "channel"})) == Channel("l", 3)
    assert from_spec(spec.model_copy(update={"objective": "logit"})) == Logit(3, "l")
