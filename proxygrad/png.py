"""What a PNG says of itself, as text chunks. Needs no torch."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image
from PIL.PngImagePlugin import PngInfo

#: The last chunk of every PNG: no bytes, its name, its checksum (PNG specification, section 11.2.5).
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


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
