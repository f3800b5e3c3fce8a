"""Pictures on the disk: the form by the file's name, and a file that is there as a whole or not at all."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Literal, get_args

from service.client.errors import CannotSave

ImageFormat = Literal["png", "webp", "npy"]
AtlasFormat = Literal["png", "webp"]


def format_of(path: Path) -> ImageFormat:
    """By the suffix; without one PNG. Raises `CannotSave` for another one."""
    suffix = path.suffix.removeprefix(".").lower() or "png"
    for known in get_args(ImageFormat):
        if suffix == known:
            return known  # type: ignore[no-any-return]
    raise CannotSave(f"cannot save to {str(path)!r}: the name must end in .png, .webp or .npy")


def sheet_format_of(path: Path) -> AtlasFormat:
    """Of a contact sheet, of which there is no array. Raises `CannotSave`."""
    form = format_of(path)
    if form == "npy":
        raise CannotSave(f"cannot save to {str(path)!r}: a contact sheet is a .png or a .webp")
    return form


def save(path: Path, content: bytes) -> Path:
    """Write a file, as a whole or not at all, with the folders above it. Raises `CannotSave`."""
    partial = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise CannotSave(f"cannot write the picture to {str(path)!r}: {error.strerror or error}") from error
    return path
