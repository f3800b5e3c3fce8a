"""Images: where ascent starts, and the PNG that is delivered. What a PNG says of itself: `proxygrad.png`.

An image is a tensor ``(C, H, W)`` with values in [0, 1] and C = 1 (gray) or 3 (RGB).
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from proxygrad.errors import InvalidRequest, NetworkError
from proxygrad.spec.settings import START_NOISE

#: Gray and RGB.
PNG_CHANNELS = (1, 3)


def start_image(shape: tuple[int, int, int], seed: int) -> Tensor:
    """Mid-gray with uniform noise of ± `START_NOISE`, ``(C, H, W)``: the same for a seed on any device."""
    return noisy_gray(shape, torch.Generator().manual_seed(seed), START_NOISE)


def noisy_gray(shape: tuple[int, int, int], generator: torch.Generator, noise: float) -> Tensor:
    """Mid-gray with uniform noise of ± ``noise`` from ``generator``, which is on the CPU; ``(C, H, W)``."""
    return 0.5 + noise * (2 * torch.rand(shape, generator=generator, dtype=torch.float32) - 1)


def encode_png(image: Tensor) -> bytes:
    """``(C, H, W)`` in [0, 1] → a PNG of 8 bits a channel, gray for C = 1 and RGB for C = 3.

    Raises `NetworkError` for any other number of channels: they would have to be shown as something else.
    """
    if image.shape[0] not in PNG_CHANNELS:
        raise NetworkError(
            f"an image of {image.shape[0]} channels has no PNG, which holds 1 (gray) or 3 (RGB); "
            "`proxygrad.maximize` returns it as a tensor"
        )
    levels = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)  # (C, H, W)
    pixels = levels[0].numpy() if levels.shape[0] == 1 else levels.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def decode_png(png: bytes) -> Tensor:
    """A PNG → ``(C, H, W)`` float32 in [0, 1]."""
    with Image.open(io.BytesIO(png)) as picture:
        pixels = torch.from_numpy(np.array(picture))  # (H, W) or (H, W, C), uint8
    planes = pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)
    return planes.to(torch.float32) / 255


class HasImage(Protocol):
    """Anything with an ``image`` ``(C, H, W)`` in [0, 1], such as a `proxygrad.Visualization`."""

    @property
    def image(self) -> Tensor:
        """``(C, H, W)``."""


def grid(images: Iterable[Tensor | HasImage], columns: int | None = None, gap_px: int = 2) -> Image.Image:
    """Images ``(C, H, W)`` of one size, or visualizations, side by side as one picture.

    ``columns``: images in a row; default all of up to five, else about twice as many columns as rows. The
    picture is a `PIL.Image.Image`: a notebook shows it, and ``grid(images).save("all.png")`` writes it.
    Raises `InvalidRequest` without images, or where they differ in size.
    """
    tensors = [each if isinstance(each, Tensor) else each.image for each in images]
    if not tensors or len({each.shape[1:] for each in tensors}) > 1:
        sizes = " and ".join(sorted({f"{each.shape[1]}x{each.shape[2]} px" for each in tensors}))
        raise InvalidRequest(f"a grid of {sizes or 'no images'}; valid: one or more images of one size")
    if columns is not None and columns < 1:
        raise InvalidRequest(f"columns {columns} must be at least 1")
    columns = columns or (len(tensors) if len(tensors) <= 5 else math.ceil(math.sqrt(2 * len(tensors))))
    height, width = tensors[0].shape[1:]
    rows = -(-len(tensors) // columns)
    size = (columns * (width + gap_px) - gap_px, rows * (height + gap_px) - gap_px)
    sheet = Image.new("RGB", size, (255, 255, 255))
    for number, image in enumerate(tensors):
        with Image.open(io.BytesIO(encode_png(image))) as picture:
            at = (number % columns * (width + gap_px), number // columns * (height + gap_px))
            sheet.paste(picture.convert("RGB"), at)
    return sheet


def save_animation(images: Iterable[Tensor], path: str | Path, frame_ms: int = 200, scale: int = 1) -> None:
    """Write images ``(C, H, W)`` of one size as a lossless animated WebP that repeats.

    ``frame_ms``: how long each is shown. ``scale``: each pixel becomes a square of so many pixels.
    """
    frames = []
    for image in images:
        with Image.open(io.BytesIO(encode_png(image))) as picture:
            size = (picture.width * scale, picture.height * scale)
            frames.append(picture.convert("RGB").resize(size, Image.Resampling.NEAREST))
    if not frames or frame_ms < 1 or scale < 1:
        raise InvalidRequest(
            f"an animation of {len(frames)} images, frame_ms {frame_ms}, scale {scale}; valid: 1 or "
            "more of each"
        )
    options = {"lossless": True, "duration": frame_ms, "loop": 0}
    frames[0].save(Path(path), format="WEBP", save_all=True, append_images=frames[1:], **options)
