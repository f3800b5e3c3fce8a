"""Penalties against slow restatements; a blur of each lane's own width."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from proxygrad.optim.regularizers import REACH, blur, l2, penalize, total_variation


def images(batch: int = 2, size: tuple[int, int] = (7, 9)) -> Tensor:
    return torch.rand((batch, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_total_variation_is_the_mean_difference_of_neighbors() -> None:
    batch = images()
    _, channels, height, width = batch.shape
    for image, value in zip(batch, total_variation(batch), strict=True):
        total = 0.0
        for channel in range(channels):
            for row in range(height):
                for column in range(width):
                    here = float(image[channel, row, column])
                    if row + 1 < height:
                        total += abs(float(image[channel, row + 1, column]) - here)
                    if column + 1 < width:
                        total += abs(float(image[channel, row, column + 1]) - here)
        assert float(value) == pytest.approx(total / (channels * height * width), rel=1e-12)


def test_total_variation_of_a_checkerboard_and_of_gray() -> None:
    board = (torch.arange(16).view(4, 4) + torch.arange(4).view(4, 1)) % 2
    pair = torch.stack([board.double(), torch.full((4, 4), 0.3, dtype=torch.float64)]).unsqueeze(1)
    assert total_variation(pair).tolist() == [24 / 16, 0.0]


def test_l2_is_the_mean_squared_distance_from_gray() -> None:
    batch = images()
    expected = [sum((float(v) - 0.5) ** 2 for v in image.flatten()) / image.numel() for image in batch]
    assert l2(batch).tolist() == pytest.approx(expected, rel=1e-12)
    assert float(l2(torch.full((1, 3, 4, 4), 0.5))) == 0


def test_penalize_takes_each_lanes_own_weights() -> None:
    batch = images(3)
    gradient = torch.randn(batch.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tv, weight = torch.tensor([0.0, 0.5, 0.0]), torch.tensor([0.0, 0.0, 0.25])
    bent = penalize(gradient, batch, tv.double(), weight.double())
    assert torch.equal(bent[0], gradient[0])
    free = batch.clone().requires_grad_()
    (rough,) = torch.autograd.grad(total_variation(free).sum(), free)
    torch.testing.assert_close(bent[1], gradient[1] - 0.5 * rough[1] * batch[0].numel())
    torch.testing.assert_close(bent[2], gradient[2] - 0.25 * 2 * (batch[2] - 0.5))


def test_penalize_without_weights_is_the_gradient_itself() -> None:
    batch, zero = images(), torch.zeros(2)
    assert penalize(batch, batch, zero, zero) is batch


def test_penalize_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        bent = penalize(torch.zeros_like(images()), images(), torch.zeros(2), torch.ones(2))
    assert bool(bent.any())


def test_blur_is_a_gaussian_of_each_lanes_width() -> None:
    impulse = torch.zeros((3, 1, 21, 25), dtype=torch.float64)
    impulse[:, :, 10, 12] = 1
    sigmas = [0.0, 0.8, 2.0]
    blurred = blur(impulse, torch.tensor(sigmas))
    assert torch.equal(blurred[0], impulse[0])
    for sigma, image in zip(sigmas[1:], blurred[1:], strict=True):
        reach = math.ceil(REACH * sigma)
        weights = {d: math.exp(-0.5 * (d / sigma) ** 2) for d in range(-reach, reach + 1)}
        total = sum(weights.values())
        for row in range(21):
            for column in range(25):
                expected = weights.get(row - 10, 0.0) * weights.get(column - 12, 0.0) / total**2
                assert float(image[0, row, column]) == pytest.approx(expected, abs=1e-7)


def test_blur_of_a_lane_does_not_depend_on_the_others() -> None:
    batch = images(3, (12, 10))
    together = blur(batch, torch.tensor([0.7, 3.0, 0.0]))
    alone = blur(batch[:1], torch.tensor([0.7]))
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-12)
    assert torch.equal(together[2], batch[2])


def test_blur_keeps_a_constant_and_takes_any_width() -> None:
    flat = torch.full((2, 3, 5, 6), 0.4, dtype=torch.float64)
    torch.testing.assert_close(blur(flat, torch.tensor([1.5, 9.0])), flat)
    assert torch.equal(blur(flat, torch.zeros(2)), flat)
