"""Images: where ascent starts, and the PNG that is delivered.

An image is a tensor ``(C, H, W)`` with values in [0, 1] and C = 1 (gray) or 3 (RGB).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from proxygrad.errors import NetworkError
from proxygrad.spec.settings import START_NOISE

#: The last chunk of every PNG: no bytes, its name, its checksum (PNG specification, section 11.2.5).
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def start_image(shape: tuple[int, int, int], seed: int) -> Tensor:
    """Mid-gray with uniform noise of ± `START_NOISE`, ``(C, H, W)``: the same for a seed on any device."""
    return noisy_gray(shape, torch.Generator().manual_seed(seed), START_NOISE)


def noisy_gray(shape: tuple[int, int, int], generator: torch.Generator, noise: float) -> Tensor:
    """Mid-gray with uniform noise of ± ``noise`` from ``generator``, which is on the CPU; ``(C, H, W)``."""
    return 0.5 + noise * (2 * torch.rand(shape, generator=generator) - 1)


def encode_png(image: Tensor) -> bytes:
    """``(C, H, W)`` in [0, 1] → a PNG of 8 bits a channel, gray for C = 1 and RGB for C = 3.

    Raises `NetworkError` for any other number of channels: they would have to be shown as something else.
    """
    if image.shape[0] not in (1, 3):
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


def annotate_png(png: bytes, text: dict[str, str]) -> bytes:
    """The same picture with ``text`` in it: one iTXt chunk for each keyword. Pixels do not change."""
    info = PngInfo()
    for keyword, value in text.items():
        info.add_itxt(keyword, value)
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        picture.save(buffer, format="PNG", pnginfo=info, optimize=True)
    return buffer.getvalue()


def read_text(png: bytes) -> dict[str, str]:
    """The text chunks of a PNG, by keyword."""
    with Image.open(io.BytesIO(png)) as picture:
        return {str(key): str(value) for key, value in getattr(picture, "text", {}).items()}


def read_whole(png: bytes) -> dict[str, str]:
    """The text of a PNG all of which is there: its checksums fit, and its pixels decode.

    Raises `ValueError` for anything else, such as a file that is cut off or full of zeros.
    """
    try:
        if not png.endswith(_PNG_END):  # Pillow does not read it to its end
            raise OSError("its end is missing")
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            picture.verify()
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            picture.load()
            return {str(key): str(value) for key, value in getattr(picture, "text", {}).items()}
    except (OSError, EOFError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise ValueError(f"these {len(png)} bytes are no PNG, or a damaged one: {error}") from error


def tile(images: Sequence[Tensor], columns: int | None = None, gap_px: int = 2) -> Image.Image:
    """Images ``(C, H, W)`` of one size side by side, ``columns`` in a row (default all), as a picture."""
    columns = columns or len(images)
    height, width = images[0].shape[1:]
    rows = -(-len(images) // columns)
    size = (columns * (width + gap_px) - gap_px, rows * (height + gap_px) - gap_px)
    sheet = Image.new("RGB", size, (255, 255, 255))
    for number, image in enumerate(images):
        with Image.open(io.BytesIO(encode_png(image))) as picture:
            at = (number % columns * (width + gap_px), number // columns * (height + gap_px))
            sheet.paste(picture.convert("RGB"), at)
    return sheet
