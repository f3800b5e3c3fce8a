"""Levels and refusals of pictures, as a caller meets them."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from proxygrad.errors import BadPicture
from proxygrad.pictures import read_picture


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
