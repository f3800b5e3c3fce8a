"""The stored PNG in other forms, each read back by somebody else."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from service.images.conversion import Conversions, Form, convert
from tests.service.conftest import picture
from workers.errors import StorageError


def opened(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as found:
        found.load()
        return found


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_webp_has_the_same_pixels(mode: str) -> None:
    png = picture(mode, (57, 33))
    webp = opened(convert(png, Form("webp")))
    assert webp.format == "WEBP"
    assert webp.tobytes() == opened(png).convert("RGB").tobytes()


@pytest.mark.engine
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_an_array_has_the_values_that_the_engine_reads(mode: str) -> None:
    numpy = pytest.importorskip("numpy")
    images = pytest.importorskip("proxygrad.images")
    png = picture(mode, (57, 33))
    array = numpy.load(io.BytesIO(convert(png, Form("npy"))), allow_pickle=False)
    assert (array.dtype, array.shape) == (numpy.dtype("<f4"), (len(mode), 33, 57))
    assert (array == images.decode_png(png).numpy()).all()


def test_every_level_is_a_255th_in_float32() -> None:
    levels = Image.frombytes("L", (256, 1), bytes(range(256)))
    buffer = io.BytesIO()
    levels.save(buffer, format="PNG")
    npy = convert(buffer.getvalue(), Form("npy"))
    assert npy[:8] == b"\x93NUMPY\x01\x00"
    header_bytes = 10 + int.from_bytes(npy[8:10], "little")
    assert header_bytes % 64 == 0
    assert b"'shape': (1, 1, 256)" in npy[:header_bytes]
    values = memoryview(npy[header_bytes:]).cast("f")
    assert len(values) == 256
    assert [round(value * 255) for value in values] == list(range(256))
    assert (values[0], values[255]) == (0.0, 1.0)


@pytest.mark.parametrize(("kind", "format"), [("png", "PNG"), ("webp", "WEBP")])
def test_a_smaller_one_keeps_its_proportions_and_none_grows(kind: str, format: str) -> None:
    png = picture("RGB", (200, 100))
    smaller = opened(convert(png, Form(kind, 64)))  # type: ignore[arg-type]
    assert (smaller.format, smaller.size) == (format, (64, 32))
    assert opened(convert(png, Form(kind, 512))).size == (200, 100)  # type: ignore[arg-type]
    assert convert(png, Form("png", 512)) == png


@pytest.mark.parametrize("damaged", [b"", b"no picture", picture()[:60]])
def test_a_damaged_picture_is_a_problem_of_the_store(damaged: bytes) -> None:
    with pytest.raises(StorageError, match="damaged"):
        convert(damaged, Form("webp"))


def test_what_was_made_is_kept_within_bounds() -> None:
    png = picture("RGB", (64, 64))
    size = len(convert(png, Form("npy")))
    conversions = Conversions(2 * size)
    first = conversions.convert("a", png, Form("npy"))
    assert conversions.convert("a", png, Form("npy")) is first
    conversions.convert("b", png, Form("npy"))
    conversions.convert("c", png, Form("npy"))
    assert conversions.convert("c", b"not looked at", Form("npy")) == first
    assert conversions.convert("a", png, Form("npy")) is not first  # it was used longest ago


def test_many_threads_may_ask_at_once() -> None:
    png, conversions = picture("RGB", (64, 64)), Conversions(50_000)
    forms = [Form("webp", width) for width in range(32, 64)] * 4
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda form: conversions.convert("a", png, form), forms))
    assert [opened(data).width for data in made] == [form.width_px for form in forms]


def test_the_stored_png_is_not_converted() -> None:
    png = picture("RGB", (64, 64))
    assert asyncio.run(Conversions()("a", png, Form())) is png
    assert opened(asyncio.run(Conversions()("a", png, Form("png", 32)))).width == 32
