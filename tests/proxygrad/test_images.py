"""The start image and the PNG."""

from __future__ import annotations

import pytest
import torch

from proxygrad.errors import NetworkError
from proxygrad.images import decode_png, encode_png, start_image
from proxygrad.spec.settings import START_NOISE


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_gives_back_every_level(channels: int) -> None:
    levels = torch.arange(256, dtype=torch.float32).view(1, 16, 16).repeat(channels, 1, 1)
    levels[-1] = levels[-1].flip(0)
    assert torch.equal(decode_png(encode_png(levels / 255)), levels / 255)


def test_values_are_rounded_and_clamped() -> None:
    image = torch.tensor([[[-1.0, 0.5019, 0.5, 2.0]]])
    assert (decode_png(encode_png(image)) * 255).flatten().tolist() == [0, 128, 128, 255]


def test_the_start_is_gray_with_noise_and_follows_the_seed() -> None:
    image = start_image((3, 32, 32), seed=5)
    assert torch.equal(image, start_image((3, 32, 32), seed=5))
    assert not torch.equal(image, start_image((3, 32, 32), seed=6))
    assert float(image.mean()) == pytest.approx(0.5, abs=0.005)
    assert START_NOISE * 0.9 < float((image - 0.5).abs().max()) <= START_NOISE


@pytest.mark.parametrize("channels", [2, 4])
def test_other_numbers_of_channels_have_no_png(channels: int) -> None:
    with pytest.raises(
        NetworkError, match=rf"an image of {channels} channels has no PNG, which holds 1 .gray. or 3"
    ):
        encode_png(torch.zeros((channels, 4, 4)))
