"""Pictures that are damaged, or made to cost much: one clear error, little time, little memory."""

from __future__ import annotations

import io
import random
import struct
import time
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from proxygrad.errors import BadPicture, PictureTooLarge
from proxygrad.pictures import MAX_SCANS, read_picture
from tests.proxygrad.test_pictures import chunk, header, npy, saved, webp

MOST = 10**6
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8))
EXIF = b"Exif\0\0MM\0*\0\0\0\x08"


def shape(data: bytes, channels: int = 3, max_pixels: int = MOST) -> tuple[int, ...]:
    return read_picture(data, channels, None, max_pixels=max_pixels).shape


def oriented(value: int) -> bytes:
    """EXIF whose only entry is the orientation."""
    return EXIF + b"\0\x01" + struct.pack(">HHIHH", 0x112, 3, 1, value, 0) + bytes(4)


WHOLE = {
    "PNG": saved(NOISE),
    "PNG of 16 bits": saved(
        Image.fromarray(np.random.default_rng(1).integers(0, 2**16, (20, 20), dtype=np.uint16))
    ),
    "PNG of a palette": saved(NOISE.quantize(16)),
    "JPEG": saved(NOISE, "JPEG"),
    "progressive JPEG": saved(NOISE, "JPEG", progressive=True),
    "CMYK JPEG": saved(NOISE.convert("CMYK"), "JPEG"),
    "WebP": saved(NOISE, "WEBP"),
    "lossless WebP": saved(NOISE, "WEBP", lossless=True),
    "extended WebP": saved(NOISE, "WEBP", exif=oriented(6)),
    "NPY": npy(np.random.default_rng(0).random((3, 40, 48)).astype(np.float32)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_cut_off_is_refused(name: str) -> None:
    data = WHOLE[name]
    shape(data)
    # A PNG and a JPEG are read without their last chunk or marker, once all their pixels are there.
    lengths = range(0, int(len(data) * 0.8), max(1, len(data) // 60))
    for length in lengths:
        with pytest.raises(BadPicture) as refused:
            shape(data[:length])
        assert f"{length} bytes" in str(refused.value) or length > 5


@pytest.mark.parametrize("name", WHOLE)
def test_whatever_is_damaged_is_read_or_refused(name: str) -> None:
    """Bytes changed, left out and repeated. Nothing else is raised, and nothing takes long."""
    whole, draw, refused = WHOLE[name], random.Random(name), []
    begun_s = time.process_time()
    for number in range(100):
        data = bytearray(whole)
        if number % 2:
            for _ in range(draw.randint(1, 8)):
                data[draw.randrange(min(len(data), 200 if number % 4 == 1 else len(data)))] = draw.randrange(
                    256
                )
        else:
            at = draw.randrange(len(data))
            data[at : at + draw.choice([0, 7])] = whole[draw.randrange(len(whole)) :][:200]
        try:
            shape(bytes(data))
        except BadPicture as error:
            refused.append(str(error))
    assert refused
    assert all(len(text) < 400 and text.isprintable() for text in refused)
    assert time.process_time() - begun_s < 10


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    ("exif", "turned"),
    [
        (b"Exif\0\0rubbish", False),
        (b"Exif\0\0", False),
        (oriented(0), False),
        (oriented(9), False),
        (oriented(6), True),
        (oriented(6)[:-9], False),
        (EXIF + b"\xff\xff", False),
        (EXIF[:-4] + b"\0\0\0\x06", False),
        (EXIF[:-4] + b"\xff\xff\xff\xff", False),
    ],
)
def test_exif_that_cannot_be_read_says_nothing(form: str, exif: bytes, turned: bool) -> None:
    assert shape(saved(NOISE, form, exif=exif)) == ((3, 48, 40) if turned else (3, 40, 48))


def pointing(entries: int, size: int) -> bytes:
    """TIFF with so many entries that all point to the same bytes."""
    begin = 8 + 2 + 12 * entries + 4
    listed = [struct.pack(">HHII", 0xC000 + number, 7, size, begin) for number in range(entries)]
    return b"".join([b"MM\0*\0\0\0\x08", struct.pack(">H", entries), *listed, bytes(4 + size)])


def with_exif(form: str, exif: bytes) -> bytes:
    if form != "JPEG":
        return saved(NOISE, form, exif=exif)
    whole = saved(NOISE, "JPEG")
    parts = [exif[at : at + 65_000] for at in range(0, len(exif), 65_000)]
    segments = [b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part for part in parts]
    return whole[:2] + b"".join(segments) + whole[20:]  # without JFIF, so that Pillow looks for the density


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_exif_is_not_copied_for_each_of_its_entries(form: str) -> None:
    """As Pillow did before 13: a file of 1 MB took 200 MB here, one of 8 MB with all entries 500 GB."""
    data = with_exif(form, pointing(200, 10**6))
    tracemalloc.start()
    try:
        assert shape(data) == (3, 40, 48)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(data)


def simple_webp(kind: bytes, content: bytes) -> bytes:
    chunk_ = kind + struct.pack("<I", len(content) + 80) + content + bytes(80)
    return b"RIFF" + struct.pack("<I", len(chunk_) + 4) + b"WEBP" + chunk_


def enlarged(jpeg: bytes, side: int) -> bytes:
    """The JPEG, whose header says that it is a square of that side."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", side, side) + jpeg[at + 4 :]


def twice_begun(side: int) -> bytes:
    """A PNG with a second header, which is larger."""
    small, large = (chunk(b"IHDR", struct.pack(">IIBBBBB", each, each, 8, 0, 0, 0, 0)) for each in (8, side))
    pixels = chunk(b"IDAT", zlib.compress(bytes(72)))
    return b"\x89PNG\r\n\x1a\n" + small + large + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        enlarged(saved(NOISE, "JPEG"), 60_000),
        twice_begun(8000),
        webp(16384, 16384),
        simple_webp(b"VP8 ", b"\x30\x01\0\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383)),
        simple_webp(b"VP8L", b"\x2f" + (16383 | 16383 << 14).to_bytes(4, "little")),
    ],
    ids=["JPEG", "PNG of two headers", "extended WebP", "lossy WebP", "lossless WebP"],
)
def test_room_is_made_for_no_picture_that_is_too_large(data: bytes) -> None:
    """60,000 × 60,000 gray pixels are 3.6 GB."""
    begun_s = time.process_time()
    with pytest.raises(PictureTooLarge, match=f"valid: at most {MOST} in all"):
        shape(data)
    assert time.process_time() - begun_s < 0.5


@pytest.mark.parametrize("past", [0, 1])
def test_the_limit_of_pixels_is_the_most_there_may_be(past: int) -> None:
    data = saved(NOISE, "WEBP", lossless=True)
    if past:
        with pytest.raises(PictureTooLarge):
            shape(data, max_pixels=40 * 48 - 1)
    else:
        assert shape(data, max_pixels=40 * 48) == (3, 40, 48)


def test_a_color_profile_that_grows_is_refused_or_left_out() -> None:
    profile = b"name\0\0" + zlib.compress(bytes(64 * 2**20))  # 64 KB
    whole = saved(NOISE)
    data = whole[:33] + chunk(b"iCCP", profile) + whole[33:]
    tracemalloc.start()
    try:
        with pytest.raises(BadPicture, match="cannot be decoded"):
            shape(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20


def test_scans_beyond_the_limit_are_refused_before_they_are_decoded() -> None:
    whole = saved(NOISE, "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    again = whole[last:-2]
    read = whole[:-2] + again * 3 + whole[-2:]
    assert shape(read) == (3, 40, 48)
    with pytest.raises(BadPicture, match=f"more than {MAX_SCANS} scans"):
        shape(whole[:-2] + again * MAX_SCANS + whole[-2:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, -8, 8), }", r"shape \(3, -8, 8\)"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8.0, 8), }", "shape"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, True, 8), }", "shape"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': 192, }", "shape 192"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", r"shape \(\)"),
        ("{'descr': '<f4', 'fortran_order': 0, 'shape': (3, 8, 8), }", "Fortran order"),
        ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3, 8, 8), }", "of \"\\[\\('a'"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (3, 8, 8), }", "of '|O'"),
        ("{'descr': '<f4', 'shape': (3, 8, 8), }", "no valid header"),
        ("['descr', 'fortran_order', 'shape']", "no valid header"),
        ("__import__('os').abort()", "no valid header"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 10**9, 8), }", "no valid header"),
        ("(" * 9000, "no valid header"),
        ("-" * 9000 + "1", "no valid header"),
        ("{'a': " * 1500, "no valid header"),
        ("9" * 9000, "no valid header"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, " + "9" * 4000 + ", 8), }", "shape"),
        ("\0" * 100, "no valid header"),
        (" " * 10_001, "no valid header"),
    ],
)
def test_headers_of_arrays_are_read_and_never_run(text: str, message: str) -> None:
    with pytest.raises(BadPicture, match=message) as refused:
        shape(header(text))
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("version", [0, 4, 255])
def test_an_unknown_version_of_npy_is_refused(version: int) -> None:
    data = npy(np.zeros((3, 8, 8), dtype=np.uint8))
    with pytest.raises(BadPicture, match="no valid header"):
        shape(data[:6] + bytes([version]) + data[7:])


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_each_version_of_npy_is_read(version: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.full((3, 8, 8), 7, dtype=np.uint8), version=version)
    assert shape(buffer.getvalue()) == (3, 8, 8)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1e-6, 1.0000001, 1e38])
def test_one_value_that_is_no_level_is_found(value: float) -> None:
    for place in (0, 100, -1):
        array = np.full((3, 8, 8), 0.5, dtype=np.float32)
        array.flat[place] = value
        with pytest.raises(BadPicture, match=r"not finite|valid: 0 to 1"):
            shape(npy(array))


def test_infinities_of_both_signs_are_found() -> None:
    array = np.zeros((3, 8, 8))
    array[0, 0, :2] = np.inf, -np.inf
    with pytest.raises(BadPicture, match="not finite"):
        shape(npy(array))


def test_an_array_has_the_size_that_was_asked_for() -> None:
    data: Any = npy(np.zeros((3, 16, 24), dtype=np.uint8))
    assert read_picture(data, 3, (8, 8), max_pixels=MOST).shape == (3, 16, 24)
    with pytest.raises(BadPicture, match=r"shape \(3, 16, 24\); valid: \(3, 8, 8\) or \(8, 8, 3\)"):
        read_picture(data, 3, (8, 8), exact=True, max_pixels=MOST)
    assert read_picture(data, 3, (16, 24), exact=True, max_pixels=MOST).shape == (3, 16, 24)


def test_only_arrays_have_other_numbers_of_channels() -> None:
    assert shape(npy(np.zeros((4, 8, 8), dtype=np.uint8)), channels=4) == (4, 8, 8)
    with pytest.raises(BadPicture, match="the model takes 4 channels, which only an NPY array has"):
        shape(WHOLE["PNG"], channels=4)
