"""Pictures that somebody sends: what is read, and what is refused before it costs anything."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from proxygrad.errors import BadPicture, PictureTooLarge
from proxygrad.pictures import DecodedPicture, read_picture, read_references, stack

MOST = 64 * 64


def read(data: bytes, channels: int = 3, size: tuple[int, int] | None = (32, 32)) -> DecodedPicture:
    return read_picture(data, channels, size, max_pixels=MOST)


def values(picture: DecodedPicture) -> Any:
    return np.load(io.BytesIO(picture.npy), allow_pickle=False)


def saved(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=form, **options)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def announced(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says how large it would be."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


def webp(width: int, height: int, flags: int = 0) -> bytes:
    """The header of a WebP with a canvas of that size."""
    canvas = bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 100) + b"WEBPVP8X" + struct.pack("<I", 10) + canvas + bytes(80)


def header(text: str) -> bytes:
    """An NPY file that says what it would be, and nothing behind."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


GRAY = Image.new("L", (32, 32), 100)
RGB = Image.new("RGB", (32, 32), (200, 100, 50))


@pytest.mark.parametrize(
    ("picture", "options", "expected"),
    [
        (RGB, {}, (200, 100, 50)),
        (RGB, {"form": "WEBP", "lossless": True}, (200, 100, 50)),
        (GRAY, {}, (100, 100, 100)),
        (RGB.quantize(4), {}, (200, 100, 50)),
        (Image.new("1", (32, 32), 1), {}, (255, 255, 255)),
        (Image.new("RGBA", (32, 32), (0, 0, 0, 0)), {}, (255, 255, 255)),
        (Image.new("LA", (32, 32), (10, 255)), {}, (10, 10, 10)),
        (Image.new("CMYK", (32, 32), (0, 0, 0, 0)), {"form": "JPEG"}, (255, 255, 255)),
        (Image.new("I;16", (32, 32), 65535), {}, (255, 255, 255)),
    ],
)
def test_every_mode_becomes_the_model_s(
    picture: Image.Image, options: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    found = values(read(saved(picture, **options)))
    assert found.shape == (3, 32, 32)
    assert np.abs(found[:, 5, 5].astype(int) - expected).max() <= 1
    assert values(read(saved(picture, **options), channels=1)).shape == (1, 32, 32)


def test_a_picture_is_turned_as_its_exif_says() -> None:
    upright = Image.new("L", (32, 32))
    upright.paste(255, (0, 0, 32, 8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned = values(read(saved(upright, "PNG", exif=exif), channels=1))
    assert turned[0, 28, 16] == 255
    assert turned[0, 3, 16] == 0


@pytest.mark.parametrize(
    "data",
    [announced(60000, 60000), webp(16384, 16384), saved(Image.new("L", (65, 64))), announced(2**31 - 1, 1)],
)
def test_too_many_pixels_are_refused_by_the_header(data: bytes) -> None:
    with pytest.raises(PictureTooLarge):
        read(data)


def bomb_of_text() -> bytes:
    text = PngInfo()
    text.add_text("comment", "x" * 2**22, zip=True)
    return saved(RGB, pnginfo=text)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes"),
        (b"<svg/>", "valid: PNG, JPEG, WebP, NPY"),
        (saved(RGB, "GIF"), "valid: PNG, JPEG, WebP, NPY"),
        (saved(RGB)[:60], "cannot be decoded"),
        (saved(RGB, "JPEG")[:100], "cannot be decoded"),
        (saved(RGB, "WEBP")[:28], "WebP"),
        (saved(RGB, save_all=True, append_images=[GRAY.convert("RGB")]), "animated"),
        (saved(RGB, "WEBP", save_all=True, append_images=[GRAY.convert("RGB")]), "animated"),
        (webp(32, 32, flags=2), "animated"),
        (b"\xff\xd8" + b"\xff\xda" * 65, "more than 64 scans"),
        (npy(np.zeros((3, 32, 32), dtype=object)), "valid: uint8, float32, float64"),
        (npy(np.zeros((3, 32, 32), dtype=complex)), "valid: uint8, float32, float64"),
        (npy(np.zeros((3, 32, 32), dtype=">f4")), "valid: uint8, float32, float64"),
        (npy(np.asfortranarray(np.zeros((3, 32, 32), dtype=np.float32))), "Fortran order"),
        (npy(np.full((3, 32, 32), np.nan, dtype=np.float32)), "not finite"),
        (npy(np.full((3, 32, 32), np.inf)), "not finite"),
        (npy(np.full((3, 32, 32), 1.5)), "valid: 0 to 1"),
        (npy(np.zeros((3, 32, 32), dtype=np.float32))[:-4], "bytes of values"),
        (npy(np.zeros((3, 32, 32), dtype=np.float32)) + b"more", "bytes of values"),
        (npy(np.zeros((4, 32, 32), dtype=np.float32)), "valid: (3, height, width)"),
        (npy(np.zeros((3, 4, 4), dtype=np.float32)), "sides of 8 to 1024"),
        (b"\x93NUMPY\x01\x00\xff\xff{}", "no valid header"),
        (b"\x93NUMPY\x01\x00\x10\x00" + b"((((((((((((((((", "no valid header"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 99999999, 99999999)}"), "sides of 8"),
    ],
)
def test_what_is_no_picture_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BadPicture) as caught:
        read(data, size=None)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_text_bomb_is_refused() -> None:
    with pytest.raises(BadPicture, match="cannot be decoded"):
        read(bomb_of_text())


@pytest.mark.parametrize("make", [lambda a: a, lambda a: a.transpose(1, 2, 0).copy()], ids=["CHW", "HWC"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_arrays_are_taken_as_they_are(make: Callable[[Any], Any], dtype: Any) -> None:
    levels = np.random.default_rng(1).integers(0, 256, (3, 16, 24))
    array = levels.astype(dtype) if dtype == np.uint8 else (levels / 255).astype(dtype)
    found = read(npy(make(array)), size=None)
    assert found.shape == (3, 16, 24)
    np.testing.assert_allclose(values(found), array, rtol=1e-6)


def test_the_same_pixels_have_the_same_digest() -> None:
    png = read(saved(RGB))
    assert png.image == read(saved(RGB, "WEBP", lossless=True)).image
    assert png.image != read(saved(GRAY)).image
    assert (png.image.channels, png.image.height_px, png.image.width_px) == (3, 32, 32)


def references(data: bytes, most: int = 9, picture: bytes | None = None) -> list[DecodedPicture]:
    own = read_picture(picture or npy(np.zeros((3, 16, 24), dtype=np.uint8)), 3, None, max_pixels=MOST)
    return read_references(data, own, max_pixels=MOST, most=most)


@pytest.mark.parametrize("make", [lambda a: a, lambda a: a.transpose(0, 2, 3, 1).copy()], ids=["CHW", "HWC"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_an_array_may_be_a_stack_of_references(make: Callable[[Any], Any], dtype: Any) -> None:
    levels = np.random.default_rng(2).integers(0, 256, (4, 3, 16, 24))
    array = levels.astype(dtype) if dtype == np.uint8 else (levels / 255).astype(dtype)
    found = references(npy(make(array)))
    assert [each.shape for each in found] == [(3, 16, 24)] * 4
    for each, expected in zip(found, array, strict=True):
        np.testing.assert_allclose(values(each), expected, rtol=1e-6)
    data, said = stack(found)
    np.testing.assert_allclose(np.load(io.BytesIO(data)), array, rtol=1e-6)
    assert (said.number, said.sha256) == (4, hashlib.sha256(data).hexdigest())


def test_pictures_and_arrays_are_stacked_as_numbers() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(3, axis=0)
    numbers = np.random.default_rng(3).random((3, 16, 16), dtype=np.float32)
    found = [read(npy(each), size=None) for each in (levels, numbers)]
    stacked = np.load(io.BytesIO(stack(found)[0]))
    assert stacked.dtype == np.float32
    np.testing.assert_array_equal(stacked[0], levels / np.float32(255))
    np.testing.assert_array_equal(stacked[1], numbers)


def test_a_reference_is_brought_to_the_picture_s_size() -> None:
    (found,) = references(saved(Image.new("RGB", (50, 50), (9, 8, 7))))
    assert found.shape == (3, 16, 24)
    assert values(found)[:, 0, 0].tolist() == [9, 8, 7]
    assert found.decoded_px == 2500
    with pytest.raises(BadPicture, match=r"shape \(16, 24\); valid: \(3, 16, 24\)"):
        references(npy(np.zeros((16, 24))))
    with pytest.raises(PictureTooLarge, match="65 × 64"):
        references(saved(Image.new("L", (65, 64))))


def test_a_stack_is_of_as_many_as_there_may_be() -> None:
    assert len(references(npy(np.zeros((9, 3, 16, 24), dtype=np.uint8)))) == 9
    for number in (0, 10):
        with pytest.raises(BadPicture, match=f"has {number} pictures; valid: 1 to 9"):
            references(npy(np.zeros((number, 3, 16, 24), dtype=np.uint8)))
    huge = header("{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 3, 16, 24)}")
    with pytest.raises(BadPicture, match="has -3 pictures"):
        references(huge)
    with pytest.raises(BadPicture, match=r"shape \(4, 3, 16, 24\)"):  # the picture itself is one
        read(npy(np.zeros((4, 3, 16, 24), dtype=np.uint8)))
