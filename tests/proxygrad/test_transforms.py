"""Each lane sees its own movement, in a tensor of the same size, and nothing of its neighbors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from proxygrad.spec.robustness import ROBUSTNESS, Robustness
from proxygrad.transforms import Draw, apply, draw

FULL = Robustness(jitter_px=4, scale=(0.8, 1.2), rotate_deg=20, pad_px=2, crop=0.6, noise=0.1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_images(batch: int, size: tuple[int, int] = (24, 31)) -> Tensor:
    return torch.rand((batch, 3, *size), generator=generator(9))


@pytest.mark.parametrize("robustness", [None, ROBUSTNESS["none"], Robustness()])
def test_nothing_asked_for_changes_nothing(robustness: Robustness | None) -> None:
    images = noise_images(2)
    draws = [draw(robustness, (24, 31), 3, generator()) for _ in range(2)]
    assert torch.equal(apply(images, draws), images)


def test_an_unmoved_lane_is_exact_beside_a_moved_one() -> None:
    images = noise_images(3)
    draws = [draw(each, (24, 31), 3, generator()) for each in (None, FULL, Robustness())]
    seen = apply(images, draws)
    assert torch.equal(seen[[0, 2]], images[[0, 2]])
    assert not torch.equal(seen[1], images[1])


@pytest.mark.parametrize("size", [(24, 31), (33, 16), (8, 8)])
def test_the_size_is_kept_and_values_are_finite(size: tuple[int, int]) -> None:
    images = noise_images(4, size)
    seen = apply(images, [draw(FULL, size, 3, generator(seed)) for seed in range(4)])
    assert seen.shape == images.shape
    assert bool(torch.isfinite(seen).all())


def test_without_noise_values_stay_in_range() -> None:
    seen = apply(noise_images(8), [draw(ROBUSTNESS["standard"], (24, 31), 3, generator(n)) for n in range(8)])
    assert 0 <= float(seen.min()) <= float(seen.max()) <= 1


def test_a_lane_is_the_same_alone_and_among_strangers() -> None:
    images = noise_images(5)
    strangers = [FULL, ROBUSTNESS["standard"], None, Robustness(noise=1.0)]
    draws = [draw(each, (24, 31), 3, generator(seed)) for seed, each in enumerate(strangers)]
    own = draw(FULL, (24, 31), 3, generator(7))
    among = apply(images, [*draws[:2], own, *draws[2:]])[2]
    alone = apply(images[2:3], [draw(FULL, (24, 31), 3, generator(7))])[0]
    assert torch.equal(among, alone)


def test_draws_follow_the_generator_and_move_on() -> None:
    first, again = generator(1), generator(1)
    draws = [draw(FULL, (24, 31), 3, first) for _ in range(2)]
    repeated = [draw(FULL, (24, 31), 3, again) for _ in range(2)]
    for ours, theirs in zip(draws, repeated, strict=True):
        assert ours.theta is not None
        assert theirs.theta is not None
        assert torch.equal(ours.theta, theirs.theta)
    assert not torch.equal(draws[0].theta, draws[1].theta)  # type: ignore[arg-type]


def thetas(robustness: Robustness, size: tuple[int, int], count: int = 400) -> Tensor:
    """``(count, 2, 3)``, one after the other from one generator."""
    own = generator(2)
    drawn = [draw(robustness, size, 3, own).theta for _ in range(count)]
    return torch.stack([theta for theta in drawn if theta is not None]).double()


def test_jitter_is_uniform_within_its_pixels_and_its_part_of_the_side() -> None:
    own = Robustness(jitter_px=6, jitter_part=1 / 8)
    for size, most in (((64, 128), 6.0), ((28, 32), 28 / 8)):
        shifts = thetas(own, size)[:, :, 2] * torch.tensor([size[1], size[0]]) / 2
        assert most * 0.95 < float(shifts.abs().max()) <= most + 1e-4
        assert float(shifts.mean()) == pytest.approx(0, abs=most / 10)
        assert float(shifts.std()) == pytest.approx(most / math.sqrt(3), rel=0.1)


def test_scale_magnifies_between_its_bounds() -> None:
    theta = thetas(Robustness(scale=(0.5, 2.0)), (10, 20))
    zoom = 1 / theta[:, 0, 0]
    assert 0.5 <= float(zoom.min()) < 0.55
    assert 1.9 < float(zoom.max()) <= 2.0
    assert torch.equal(theta[:, 0, 0], theta[:, 1, 1])
    assert not bool(theta[:, [0, 1], [1, 0]].any())


def test_rotation_keeps_shapes_in_pixels() -> None:
    theta = thetas(Robustness(rotate_deg=30), (10, 20))
    pixels = torch.diag(torch.tensor([10.0, 5.0])).double()  # half sides: x, y
    turned = pixels @ theta[:, :, :2] @ torch.linalg.inv(pixels)
    eye = torch.eye(2, dtype=torch.float64).expand_as(turned)
    torch.testing.assert_close(turned @ turned.mT, eye, rtol=0, atol=1e-6)
    degrees = torch.rad2deg(torch.atan2(turned[:, 1, 0], turned[:, 0, 0]))
    assert -30 <= float(degrees.min()) < -28
    assert 28 < float(degrees.max()) <= 30


def test_a_crop_is_a_part_of_the_image() -> None:
    theta = thetas(Robustness(crop=0.25), (40, 24))
    reach = theta[:, [0, 1], [0, 1]] + theta[:, :, 2].abs()  # how far from the center the view gets
    assert float(reach.max()) <= 1 + 1e-6
    side = theta[:, 0, 0]
    assert 0.25 <= float(side.min()) < 0.3
    assert 0.95 < float(side.max()) <= 1


def test_padding_shows_the_image_mirrored_at_its_border() -> None:
    image = noise_images(1, (8, 12))
    # A view of 12 x 18 pixels in a tensor of 8 x 12: 1.5 pixels of the image a pixel, 2 and 3 px beyond.
    theta = draw(Robustness(pad_px=2), (8, 12), 3, generator()).theta
    assert theta is not None
    torch.testing.assert_close(theta.diag(), torch.tensor([1 + 4 / 12, 1 + 4 / 8]))
    shifted = torch.tensor([[1.0, 0.0, 2 * 3 / 12], [0.0, 1.0, 0.0]])  # three pixels to the right
    seen = apply(image, [Draw(shifted, None)])
    torch.testing.assert_close(seen[..., :9], image[..., 3:], rtol=0, atol=1e-5)
    torch.testing.assert_close(seen[..., 9:], image[..., 9:].flip(-1), rtol=0, atol=1e-5)


def test_noise_has_the_deviation_asked_for() -> None:
    images = torch.full((1, 3, 64, 64), 0.5)
    seen = apply(images, [draw(Robustness(noise=0.2), (64, 64), 3, generator())])
    assert float((seen - images).std()) == pytest.approx(0.2, rel=0.03)


def test_gradients_flow_to_each_lane_alone() -> None:
    images = noise_images(3).requires_grad_()
    seen = apply(images, [draw(FULL, (24, 31), 3, generator(seed)) for seed in range(3)])
    (gradient,) = torch.autograd.grad(seen[1].sum(), images)
    assert bool(gradient[1].any())
    assert not bool(gradient[[0, 2]].any())


def test_the_standard_set_moves() -> None:
    standard = ROBUSTNESS["standard"]
    assert standard is not None
    assert standard.moves
    assert not Robustness(noise=0.5).moves
