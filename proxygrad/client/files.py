"""Image files: read, the format by the file's suffix, and atomic writes."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Literal, get_args

from proxygrad.client.errors import InvalidArgument, SaveError

ImageFormat = Literal["png", "webp", "npy"]
AtlasFormat = Literal["png", "webp"]


def image_format(path: Path) -> ImageFormat:
    """The format by the suffix; PNG without one. Raises `SaveError` for any other suffix."""
    suffix = path.suffix.removeprefix(".").lower() or "png"
    for known in get_args(ImageFormat):
        if suffix == known:
            return known  # type: ignore[no-any-return]
    raise SaveError(f"cannot save to {str(path)!r}: the name must end in .png, .webp or .npy")


def atlas_format(path: Path) -> AtlasFormat:
    """The format of a contact sheet, which is no array. Raises `SaveError`."""
    form = image_format(path)
    if form == "npy":
        raise SaveError(f"cannot save to {str(path)!r}: a contact sheet is a .png or a .webp")
    return form


def read(image: bytes | str | Path, name: str = "image") -> bytes:
    """The bytes of an image, which may be given as the path of a file. Raises `InvalidArgument`, with the
    ``name`` of the argument."""
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{name}={str(image)!r} cannot be read: {error.strerror or error}") from error


def save(path: Path, content: bytes) -> Path:
    """Write a file atomically, creating the folders above it. Raises `SaveError`."""
    partial = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise SaveError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    return path
