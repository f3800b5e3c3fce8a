"""Converts stored PNGs: to lossless WebP, to an array of floats, or to another size.

Pillow does the work. Results are cached, so that a page of thumbnails that is opened again costs nothing.
"""

from __future__ import annotations

import asyncio
import io
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from anyio import to_thread
from PIL import Image, UnidentifiedImageError, features
from PIL import __version__ as pillow_version

from service.images.animation import animate
from service.web.negotiation import Format
from workers.cache import LRUCache
from workers.errors import StorageError

#: Size of the cache in bytes: fifty arrays of 3 x 224 x 224 floats, or thousands of thumbnails.
CACHE_BYTES = 32 * 2**20
#: Images that are converted at once: others wait without a thread, which calls to Redis need.
CONVERTED_AT_ONCE = 4
#: The encoder is part of an entity tag: another version may write other bytes for the same pixels.
ENCODER = f"pillow-{pillow_version}+webp-{features.version('webp')}"

#: How hard the encoders try.
EFFORT: dict[Format, dict[str, Any]] = {
    "png": {"optimize": True},
    "webp": {"lossless": True, "quality": 75, "method": 4},
}
#: Of repeated pixels, less effort makes hardly more bytes: 512 × 512 px of 256 × 256 random ones took 57 ms
#: and take 26 ms as PNG, 57 and 37 ms as WebP.
SCALED_EFFORT: dict[Format, dict[str, Any]] = {
    "png": {},
    "webp": {"lossless": True, "quality": 30, "method": 2},
}

#: 8-bit levels as parts of 1, by level.
_PARTS = [level / 255 for level in range(256)]


@dataclass(frozen=True)
class Form:
    """A format of an image; ``width_px`` None: as wide as it is stored; ``scale``: times as large."""

    format: Format = "png"
    width_px: int | None = None
    scale: int = 1

    @property
    def original(self) -> bool:
        """Whether it is the format of the stored bytes."""
        return self.format == "png" and self.width_px is None and self.scale == 1


def convert(png: bytes, form: Form) -> bytes:
    """The image in that format. A width beyond its own leaves it as large as it is.

    A scale repeats each pixel (nearest neighbor), so that the values stay what they are.
    NPY is float32 ``(channels, rows, columns)`` in 0 to 1: the levels of the PNG divided by 255.
    Raises `StorageError` for what is no PNG.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as stored:
            stored.load()
            shown: Image.Image = stored
            if form.width_px is not None and form.width_px < stored.width:
                height_px = max(1, round(stored.height * form.width_px / stored.width))
                shown = stored.resize((form.width_px, height_px), Image.Resampling.LANCZOS)
            elif form.scale > 1:
                size_px = (stored.width * form.scale, stored.height * form.scale)
                shown = stored.resize(size_px, Image.Resampling.NEAREST)
            elif form.format == "png":
                return png
            return _npy(shown) if form.format == "npy" else _encoded(shown, form)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise StorageError(f"a stored picture is damaged: {error}") from error


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height in pixels. Raises `StorageError` for what is no PNG."""
    if len(png) < 24 or png[12:16] != b"IHDR":
        raise StorageError("a stored picture is damaged: it has no header")
    width_px, height_px = struct.unpack(">II", png[16:24])
    return width_px, height_px


def _encoded(picture: Image.Image, form: Form) -> bytes:
    buffer = io.BytesIO()
    effort: dict[str, Any] = EFFORT[form.format] if form.scale == 1 else SCALED_EFFORT[form.format]
    picture.save(buffer, format=form.format, **effort)
    return buffer.getvalue()


def _npy(picture: Image.Image) -> bytes:
    """NumPy's format, version 1.0 (numpy.lib.format): magic, length of the header, header, values."""
    bands = picture.split()
    order = "<" if sys.byteorder == "little" else ">"
    shape = (len(bands), picture.height, picture.width)
    header = f"{{'descr': '{order}f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    planes = (band.point(_PARTS, "F").tobytes() for band in bands)
    return b"".join([b"\x93NUMPY\x01\x00", len(header).to_bytes(2, "little"), header, *planes])


class Conversions:
    """`convert` with a cache of `CACHE_BYTES`, in a few threads. Safe to share between event loops."""

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self._cache: LRUCache[tuple[str, Form | None], bytes] = LRUCache(cache_bytes, len)
        self._slots = asyncio.Semaphore(CONVERTED_AT_ONCE)

    async def __call__(self, digest: str, png: bytes, form: Form) -> bytes:
        """The image in that format; ``digest`` is the SHA-256 of ``png``. Raises `StorageError`."""
        if form.original:
            return png
        async with self._slots:
            return await to_thread.run_sync(self.convert, digest, png, form)

    async def animation(self, tag: str, pngs: Sequence[bytes], frame_ms: int) -> bytes:
        """The images in turn; ``tag`` names the result. Raises `StorageError`."""
        async with self._slots:
            made = self._cache.get((tag, None))
            if made is None:
                made = await to_thread.run_sync(animate, pngs, frame_ms)
                self._cache.put((tag, None), made)
            return made

    def convert(self, digest: str, png: bytes, form: Form) -> bytes:
        """The same, in this thread."""
        converted = self._cache.get((digest, form))
        if converted is None:
            converted = convert(png, form)
            self._cache.put((digest, form), converted)
        return converted
