"""The exact optimum of a toy function, against all images of a smaller one; and what ascent makes of it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import proxygrad as pg
from benchmarks.two_stages import coefficients, optimum
from examples.toy_functions import FIRST_WEIGHTS, ShiftMix, network_of, one_relu, one_stage, start, two_stages

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("seed", [0, 1])
def test_dynamic_programming_finds_the_best_of_all_small_images(seed: int) -> None:
    gains = np.random.default_rng(seed).uniform(0, 3, (4, 4)).astype(np.float32)
    images = torch.tensor(list(product((0.0, 1.0), repeat=16))).view(-1, 1, 4, 4)
    values = (F.relu(ShiftMix(FIRST_WEIGHTS, 1)(images)) * torch.from_numpy(gains)).mean((1, 2, 3))
    best, image = optimum(gains)
    assert best == pytest.approx(float(values.max()), rel=1e-6)
    index = int("".join(map(str, image.reshape(-1))), 2)
    assert float(values[index]) == pytest.approx(best, rel=1e-6)


def test_the_coefficients_are_those_of_the_second_stage() -> None:
    """The derivative of the mean by what the second stage's ReLUs return."""
    between = torch.rand(1, 1, 11, 11, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (two_stages()[1](between).mean() * 121).backward()
    assert between.grad is not None
    torch.testing.assert_close(between.grad[0, 0], torch.from_numpy(coefficients()))
    with pytest.raises(ValueError, match="gain -1 is negative"):
        optimum(-np.ones((3, 3), np.float32))


@pytest.mark.parametrize("center", [0.0, 1.0, -1.0])
@pytest.mark.parametrize(("module", "best"), [(one_relu(), 1.0), (one_stage(), 2.0)])
def test_plain_ascent_stops_and_proxygrad_reaches_the_best(
    module: torch.nn.Module, best: float, center: float
) -> None:
    network = network_of(module)
    layer = network.layers[-1].name
    objective = pg.Channel(layer, 0) if best == 1 else pg.Neuron(layer, 0)
    plain, proxy = (
        pg.maximize(network, objective, slope=slope, start=start(center), preset="max", steps=48).activation
        for slope in (0.0, 0.1)
    )
    assert plain < 0.01
    assert proxy == pytest.approx(best, rel=0.01)
