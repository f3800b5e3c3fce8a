"""Heat maps: red adds, blue takes away, as strongly as the scale says; 0 is white."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from proxygrad.attribution.heatmap import BLUE, RED, clipped_scale, heat_map, overlay, scale_of, summed

WHITE = (1.0, 1.0, 1.0)


def row(*values: float) -> Tensor:
    """One row of one channel."""
    return torch.tensor([[values]])


def color(image: Tensor, column: int) -> tuple[float, ...]:
    return tuple(image[:, 0, column].tolist())


def end(levels: tuple[int, int, int]) -> tuple[float, ...]:
    return tuple(level / 255 for level in levels)


def test_the_ends_are_red_and_blue_and_zero_is_white() -> None:
    image = heat_map(row(2.0, -2.0, 0.0))
    assert image.shape == (3, 1, 3)
    assert color(image, 0) == pytest.approx(end(RED))
    assert color(image, 1) == pytest.approx(end(BLUE))
    assert color(image, 2) == pytest.approx(WHITE)


def test_half_of_the_scale_is_half_of_the_way_on_both_sides() -> None:
    image = heat_map(row(1.0, -1.0, 2.0))
    for column, far in ((0, RED), (1, BLUE)):
        assert color(image, column) == pytest.approx(tuple((1 + each) / 2 for each in end(far)))


def test_the_opposite_contributions_have_the_other_color_equally_far() -> None:
    values = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    white = torch.ones(3, 1, 1)
    ends = {sign: white - torch.tensor(end(far)).view(3, 1, 1) for sign, far in ((1, RED), (-1, BLUE))}
    one, other = heat_map(values), heat_map(-values)
    strength = (summed(values) / scale_of(values)).abs()
    for image, sign in ((one, 1), (other, -1)):
        where = (summed(values) > 0).expand(3, -1, -1)
        expected = white - torch.where(where, ends[sign], ends[-sign]) * strength
        torch.testing.assert_close(image, expected)


def test_the_scale_is_the_largest_sum_over_channels() -> None:
    values = torch.tensor([[[3.0, 1.0]], [[-3.0, 1.0]]])
    assert scale_of(values) == 2.0
    image = heat_map(values)
    assert color(image, 0) == pytest.approx(WHITE), "its channels cancel"
    assert color(image, 1) == pytest.approx(end(RED))


@pytest.mark.parametrize("factor", [1e-30, 1e-3, 1.0, 1e30])
def test_the_map_has_no_unit(factor: float) -> None:
    values = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(heat_map(values * factor), heat_map(values))
    assert scale_of(values * factor) == pytest.approx(factor * scale_of(values), rel=1e-5)


def test_sums_that_half_precision_cannot_hold_are_drawn() -> None:
    image = heat_map(torch.full((3, 1, 1), 40_000.0, dtype=torch.float16))
    assert color(image, 0) == pytest.approx(end(RED))


def test_a_given_scale_compares_maps_and_what_is_beyond_is_full() -> None:
    image = heat_map(row(1.0, -9.0, 4.0), scale=2.0)
    assert color(image, 0) == pytest.approx(tuple((1 + each) / 2 for each in end(RED)))
    assert color(image, 1) == pytest.approx(end(BLUE))
    assert color(image, 2) == pytest.approx(end(RED))


@pytest.mark.parametrize("scale", [None, 0.0])
def test_without_contributions_all_is_white(scale: float | None) -> None:
    assert torch.equal(heat_map(torch.zeros(3, 4, 5), scale), torch.ones(3, 4, 5))


def test_an_overlay_has_gray_paper_that_the_image_darkens() -> None:
    picture = torch.tensor([[[0.0, 1.0, 1.0]], [[0.0, 1.0, 0.0]], [[0.0, 1.0, 0.5]]])
    image = overlay(torch.zeros(3, 1, 3), picture)
    gray = image[0, 0]
    assert torch.equal(image, gray.expand(3, 1, 3)), "it has no color"
    assert gray.tolist() == pytest.approx([0.55, 1.0, 0.55 + 0.45 / 2])
    full = overlay(row(1.0, -1.0, 0.0), picture)
    assert color(full, 0) == pytest.approx(end(RED))
    assert color(full, 1) == pytest.approx(end(BLUE))


def test_an_overlay_of_a_layer_has_blocks_of_one_color() -> None:
    values = torch.tensor([[[1.0, -1.0], [0.0, 0.5]]])
    image = overlay(values, torch.full((1, 6, 4), 0.5))
    assert image.shape == (3, 6, 4)
    small = overlay(values, torch.full((1, 2, 2), 0.5))
    assert torch.equal(image, small.repeat_interleave(3, dim=1).repeat_interleave(2, dim=2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_is_drawn_in_levels_of_0_to_1(dtype: torch.dtype) -> None:
    values = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()
    for image in (heat_map(values), overlay(values, torch.rand(3, 4, 4).to(dtype))):
        assert image.dtype == torch.float32
        assert not image.requires_grad
        assert float(image.min()) >= 0
        assert float(image.max()) <= 1


@pytest.mark.parametrize("factor", [1e-30, 1.0, 1e30])
def test_few_outliers_do_not_make_all_else_white(factor: float) -> None:
    values = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(2)) - 0.5
    values[:, 7, 7] = 4.0  # less than 2 % of the sum of magnitudes
    magnitudes = summed(values).abs()
    scale = clipped_scale(values * factor) / factor
    beyond = magnitudes[magnitudes > scale * (1 + 1e-5)].sum() / magnitudes.sum()
    assert 0.01 < float(beyond) <= 0.02
    assert scale < scale_of(values) / 5
    image = heat_map(values * factor, scale * factor)
    assert float(image[:, 7, 7].sum()) == pytest.approx(sum(end(RED)))


def test_the_clipped_scale_of_one_number_or_none_is_the_scale() -> None:
    for values in (torch.full((1, 3, 3), -2.0), torch.zeros(1, 3, 3), row(0.0, 5.0)):
        assert clipped_scale(values) == scale_of(values)


def test_it_is_captum_s() -> None:
    from captum.attr._utils.visualization import _cumulative_sum_threshold

    values = torch.randn(1, 30, 20, generator=torch.Generator().manual_seed(3))
    expected = _cumulative_sum_threshold(summed(values).abs().numpy(), 98)
    assert clipped_scale(values) == pytest.approx(float(expected), rel=1e-6)
