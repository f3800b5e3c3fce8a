"""Slope "auto": the true gradient, and a slope only where that is zero or has faded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import proxygrad as pg
from proxygrad.engine.lane import Lane
from proxygrad.objectives.units import Neuron
from proxygrad.spec.settings import AUTO_SLOPE, AscentSettings
from tests.support.networks import Dead, small


def climb(network: pg.Network, unit: str) -> tuple[pg.Visualization, pg.Visualization]:
    """By plain ascent, and with slope "auto"."""
    settings: dict[str, Any] = {"preset": "max", "starts": 1, "steps": 24, "progress": False}
    return pg.maximize(network, unit, slope=0.0, **settings), pg.maximize(
        network, unit, slope="auto", **settings
    )


def listening(notes: list[tuple[float, float]]) -> list[float]:
    """The slope of each evaluation, of which the notes have activation and largest gradient entry."""
    lane = Lane(AscentSettings(slope="auto", robustness="none").completed(), Neuron("conv", 0), falls=True)
    slopes = []
    for activation, steepest in notes:
        slopes.append(lane.slope)
        lane.note(activation, steepest, torch.zeros(1, 2, 2))
    return slopes


@pytest.mark.parametrize(
    ("notes", "steep"),
    [
        ([(-1, 1.0), (0, 1.0), (1, 1.0)], []),
        ([(0, 0.0), (0, 0.5), (0.1, 0.5), (0.2, 1.0)], [1, 2]),
        ([(1, 1.0), (2, 0.0), (2, 0.1), (1.5, 1.0), (2.1, 1.0), (2.2, 1.0)], [2, 3, 4]),
        ([(-0.1, 1.0), (-0.01, 0.009), (0.0, 0.5), (0.1, 1.0), (0.2, 1.0)], [2, 3]),
        ([(0.1, 1.0), (0.2, 0.009), (0.2, 0.009)], []),
    ],
    ids=["alive", "silent at first", "silent on the way", "faded below 0", "faded above 0"],
)
def test_it_is_there_from_where_the_gradient_is_gone_until_the_activation_has_risen(
    notes: list[tuple[float, float]], steep: list[int]
) -> None:
    slopes = listening(notes)
    assert slopes == [AUTO_SLOPE if number in steep else 0.0 for number in range(len(notes))]


def test_a_unit_that_moves_goes_the_way_of_plain_ascent_to_the_bit() -> None:
    network = small()
    plain, auto = climb(network, "conv2:4")
    assert plain.activation > plain.start_activation
    assert auto.curve == plain.curve
    assert torch.equal(auto.image, plain.image)


def test_a_unit_that_has_no_gradient_comes_alive() -> None:
    network = pg.Network(Dead(), (1, 8, 8))
    plain, auto = climb(network, "relu:0")
    assert (plain.stuck, plain.activation) == (True, 0.0)
    assert not auto.stuck
    assert auto.activation > 0


def test_a_unit_on_the_falling_side_of_a_gelu_comes_alive() -> None:
    linear = nn.Linear(64, 1)
    nn.init.constant_(linear.weight, 1 / 8)
    nn.init.constant_(linear.bias, -6.0)  # -2 on a gray image: left of the minimum, where GELU falls
    network = pg.Network(nn.Sequential(nn.Flatten(), linear, nn.GELU()), (1, 8, 8))
    plain, auto = climb(network, "2:0")
    assert plain.stuck
    assert not auto.stuck
    assert auto.activation == pytest.approx(float(torch.nn.functional.gelu(torch.tensor(2.0))), rel=1e-3)
