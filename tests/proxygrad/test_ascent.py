"""Steps have the length that was asked for, whatever the scale of the gradient."""

from __future__ import annotations

import pytest
import torch

from proxygrad import ascent


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e30])
def test_a_step_has_the_length_asked_for_at_any_scale(scale: float) -> None:
    gradient = torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(0)) * scale
    images = torch.full((2, 3, 8, 8), 0.5)
    moved = ascent.normalized_ascent(images, gradient, torch.tensor([0.01, 0.02])) - images
    lengths = moved.double().square().mean(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(lengths, torch.tensor([0.01, 0.02], dtype=torch.float64), rtol=1e-4, atol=0)
    assert torch.equal(moved.sign(), gradient.sign())


def test_an_image_without_gradient_stays_and_its_neighbour_moves() -> None:
    gradient = torch.zeros((2, 1, 4, 4))
    gradient[1] = 1.0
    images = torch.full((2, 1, 4, 4), 0.5)
    after = ascent.normalized_ascent(images, gradient, torch.tensor([0.1, 0.1]))
    assert torch.equal(after[0], images[0])
    torch.testing.assert_close(after[1], torch.full((1, 4, 4), 0.6))


def test_values_stay_between_0_and_1() -> None:
    images = torch.tensor([0.05, 0.95]).view(1, 1, 1, 2)
    after = ascent.normalized_ascent(images, torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2), torch.tensor([0.5]))
    assert after.flatten().tolist() == [0.0, 1.0]


def test_the_rate_falls_linearly_to_the_last_step() -> None:
    rates = [ascent.rate(0.8, step, 4) for step in range(4)]
    assert rates == pytest.approx([0.8, 0.6, 0.4, 0.2])
