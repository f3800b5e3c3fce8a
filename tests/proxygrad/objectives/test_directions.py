"""Directions and energy against plain indexing in float64."""

from __future__ import annotations

import math

import pytest
import torch

from proxygrad.objectives.directions import Direction, Energy
from tests.support.activation_arrays import MAP, READ, VECTOR


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
