"""Levels and refusals of pictures, as a caller meets them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from proxygrad.errors import BadPicture
from proxygrad.pictures import DecodedPicture, npy_file, read_picture


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (128, 0), (129, 1), (40_000, 156), (65_535, 255)])
def test_sixteen_bits_are_rounded_to_eight(level: int, expected: int) -> None:
    buffer = io.BytesIO()
    Image.new("I;16", (32, 32), level).save(buffer, "PNG")
    pixels = read_picture(buffer.getvalue(), 1, (32, 32), max_pixels=1024)
    assert set(pixels.npy[-1024:]) == {expected}


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WAVE" + bytes(40)])
def test_bytes_of_no_known_format_are_named_as_such(data: bytes) -> None:
    with pytest.raises(
        BadPicture, match=rf"^the {len(data)} bytes .* no known format, or damaged; valid: PNG"
    ):
        read_picture(data, 1, (32, 32), max_pixels=1024)


def pixels(picture: Image.Image, channels: int = 1, size: tuple[int, int] | None = None) -> DecodedPicture:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return read_picture(buffer.getvalue(), channels, size, max_pixels=10**6)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 64), (64, 128), (37, 37), (32, 32), (20, 20)])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_torchvision_resizes_and_crops_is_the_same(width: int, height: int, channels: int) -> None:
    """To one level, where its crop falls on whole pixels; its filter looks further at the edges."""
    from proxygrad.models import torchvision_compat

    torchvision_compat.import_torchvision()
    from torchvision import transforms

    levels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(levels)
    picture = picture.convert("L") if channels == 1 else picture
    theirs = transforms.CenterCrop(32)(transforms.Resize(32)(picture))
    expected = np.asarray(theirs).reshape(32, 32, channels).transpose(2, 0, 1).astype(int)
    found = np.load(io.BytesIO(pixels(picture, channels, (32, 32)).npy)).astype(int)
    inner = np.s_[:, 2:-2, 2:-2] if width != height else np.s_[:, :, :]
    assert np.abs(found[inner] - expected[inner]).max() <= 1


def test_the_same_levels_are_the_same_picture_in_whatever_container() -> None:
    levels = np.random.default_rng(5).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    expected = pixels(Image.fromarray(levels), 3)
    for array in (levels, np.ascontiguousarray(levels.transpose(2, 0, 1))):
        buffer = io.BytesIO()
        np.save(buffer, array)
        assert read_picture(buffer.getvalue(), 3, None, max_pixels=10**6) == expected
    np.testing.assert_array_equal(np.load(io.BytesIO(expected.npy)), levels.transpose(2, 0, 1))
    assert pixels(Image.fromarray(levels).convert("RGBA"), 3).image == expected.image


def test_half_of_a_color_over_white_is_between_them() -> None:
    veil = Image.new("RGBA", (8, 8), (200, 100, 0, 128))
    found = np.load(io.BytesIO(pixels(veil, 3).npy))[:, 0, 0]
    np.testing.assert_allclose(found, [227, 177, 127], atol=1)


@pytest.mark.parametrize("target", [(8, 512), (512, 8), (8, 8)])
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3)])
def test_thin_pictures_and_targets_fit_too(size: tuple[int, int], target: tuple[int, int]) -> None:
    found = pixels(Image.new("L", size, 9), 1, target)
    assert found.shape == (1, *target)
    assert set(found.npy[-target[0] * target[1] :]) == {9}


def test_the_file_is_numpys_own() -> None:
    array = np.arange(3 * 8 * 9, dtype=np.uint8).reshape(3, 8, 9)
    buffer = io.BytesIO()
    np.save(buffer, array)
    assert npy_file((3, 8, 9), array.tobytes(), "|u1") == buffer.getvalue()
