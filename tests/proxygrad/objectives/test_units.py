"""Each objective against plain indexing in float64, its completion for a shape, and their arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from proxygrad.errors import PositionOutOfRange
from proxygrad.objectives.units import Channel, Direction, Energy, Logit, Neuron, from_spec, margin
from proxygrad.spec import Spec

MAP = torch.arange(2 * 3 * 4 * 5, dtype=torch.float64).view(2, 3, 4, 5)
TOKENS = torch.arange(2 * 4 * 3, dtype=torch.float64).view(2, 4, 3) - 7
VECTOR = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
READ = {"map": MAP, "tokens": TOKENS, "vector": VECTOR}
SHAPES = {name: tuple(value.shape[1:]) for name, value in READ.items()}


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


def test_vectors_have_neurons_and_logits() -> None:
    assert Neuron("vector", 1).at(SHAPES)(READ).tolist() == [2.0, 4.0]
    assert Logit(0, "vector")(READ).tolist() == [1.0, 3.0]
    assert Logit(3).layers == ("output",)


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


@pytest.mark.parametrize("layer", ["map", "tokens", "vector"])
def test_a_direction_is_the_length_along_it(layer: str) -> None:
    values = READ[layer].movedim(1, -1) if layer == "map" else READ[layer]
    units = values.shape[-1]
    vector = [float(unit + 1) for unit in range(units)]
    norm = sum(each**2 for each in vector) ** 0.5
    rows = values.reshape(2, -1, units).tolist()
    expected = [
        sum(sum(v * a for v, a in zip(vector, place, strict=True)) / norm for place in image) / len(image)
        for image in rows
    ]
    assert Direction(layer, tuple(vector))(READ).tolist() == pytest.approx(expected)
    doubled = Direction(layer, tuple(2 * each for each in vector))
    assert doubled(READ).tolist() == pytest.approx(expected)


def test_cosine_prefers_what_points_the_same_way() -> None:
    read = {"l": torch.tensor([[3.0, 0.0], [3.0, 9.0]], dtype=torch.float64)}
    assert Direction("l", (1.0, 0.0))(read).tolist() == [3.0, 3.0]
    cosine = 3 / 90**0.5
    assert Direction("l", (1.0, 0.0), "cosine")(read).tolist() == pytest.approx([3.0, 3.0 * cosine**2])


def test_a_direction_at_one_place() -> None:
    assert Direction("map", (0.0, 0.0, 2.0), position=(1, 2))(READ).tolist() == [
        MAP[0, 2, 1, 2],
        MAP[1, 2, 1, 2],
    ]


def test_energy_is_the_mean_square() -> None:
    expected = [sum(v * v for v in MAP[image].flatten().tolist()) / 60 for image in range(2)]
    assert Energy("map")(READ).tolist() == pytest.approx(expected)


def test_objectives_add_subtract_and_scale() -> None:
    both = Channel("map", 1) - 0.5 * Logit(0, "vector") + Neuron("tokens", 1)
    assert both.layers == ("map", "vector", "tokens")
    expected = Channel("map", 1)(READ) - 0.5 * VECTOR[:, 0] + TOKENS[:, 0, 1]
    assert torch.equal(both.at(SHAPES)(READ), expected)
    assert torch.equal((-Logit(1, "vector"))(READ), -VECTOR[:, 1])
    assert torch.equal(margin(1, 0, "vector")(READ), VECTOR[:, 1] - VECTOR[:, 0])


def test_from_spec() -> None:
    spec = Spec(model="m", layer="l", unit=3, objective="neuron", position=(1, 2))
    assert from_spec(spec) == Neuron("l", 3, (1, 2))
    assert from_spec(spec.model_copy(update={"objective": "channel"})) == Channel("l", 3)
    assert from_spec(spec.model_copy(update={"objective": "logit"})) == Logit(3, "l")


def test_a_direction_first_read_without_gradients_has_gradients_later() -> None:
    """Its unit vector is kept between steps, also from a block that makes tensors autograd cannot save."""
    wanted = Direction("vector", (0.25, -0.75))
    with torch.inference_mode():
        before = wanted(READ).tolist()
    values = VECTOR.clone().requires_grad_()
    found = wanted({"vector": values})
    assert found.tolist() == before
    (gradient,) = torch.autograd.grad(found.sum(), values)
    length = math.hypot(0.25, 0.75)
    assert gradient[0].tolist() == pytest.approx([0.25 / length, -0.75 / length])
