"""Animations: several stored PNGs of one size as a lossless WebP that repeats."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, UnidentifiedImageError

from workers.errors import StorageError

#: How long each image is shown, unless said otherwise, and at most.
FRAME_MS, LONGEST_FRAME_MS = 200, 10_000
#: Sides within which a frame is brought: smaller images by whole pixels, larger ones smoothed.
_SHOWN_PX, _LARGEST_PX = 128, 512


def animate(pngs: Sequence[bytes], frame_ms: int) -> bytes:
    """The images, one or more, in turn. Raises `StorageError` for what is no PNG."""
    try:
        frames = [_frame(png) for png in pngs]
        frames = [each.resize(frames[0].size) for each in frames]  # a format without frames of other sizes
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise StorageError(f"a stored picture is damaged: {error}") from error
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        format="WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=frame_ms,
        loop=0,
        lossless=True,
        quality=30,
        method=2,
    )
    return buffer.getvalue()


def _frame(png: bytes) -> Image.Image:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as stored:
        picture = stored.convert("RGB")
    side = max(picture.size)
    if side > _LARGEST_PX:
        picture.thumbnail((_LARGEST_PX, _LARGEST_PX), Image.Resampling.LANCZOS)
        return picture
    times = max(1, _SHOWN_PX // side)
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
