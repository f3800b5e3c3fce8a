"""Image files: read, also from arrays, the format by the file's suffix, and atomic writes."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from proxygrad.client.errors import InvalidArgument, SaveError

ImageFormat = Literal["png", "webp", "npy"]
AtlasFormat = Literal["png", "webp"]

_ORDER = "<" if sys.byteorder == "little" else ">"
#: The element types of an NPY file by those of a buffer.
_DESCRS = {"B": "|u1", "f": f"{_ORDER}f4", "d": f"{_ORDER}f8"}


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


class Array(Protocol):
    """An array of NumPy, or a tensor: (channels, rows, columns), uint8, or float32 or float64 in [0, 1]."""

    @property
    def ndim(self) -> int: ...  # noqa: D102
    def __array__(self) -> Any: ...


#: What a picture may be given as: the bytes of a PNG, JPEG, WebP or NPY file, the path of one, or an array.
Picture = bytes | str | Path | Array


def read(image: Picture, name: str = "image") -> bytes:
    """The bytes of a picture's file. Raises `InvalidArgument`, with the ``name`` of the argument."""
    if isinstance(image, bytes):
        return image
    if hasattr(image, "__array__"):
        return _npy(image, name)
    if not isinstance(image, str | Path):
        kind = type(image).__name__
        raise InvalidArgument(f"{name} is of type {kind}; valid: the bytes or path of a file, or an array")
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{name}={str(image)!r} cannot be read: {error.strerror or error}") from error


def _npy(array: Any, name: str) -> bytes:
    """As an NPY file (`numpy.lib.format`, version 1.0), by Python's buffer protocol."""
    try:
        view = memoryview(array.numpy() if hasattr(array, "numpy") else array)
    except (TypeError, ValueError, RuntimeError) as error:  # of a tensor on a device, or with a gradient
        raise InvalidArgument(f"{name} cannot be sent: {error}") from error
    if view.format not in _DESCRS:
        raise InvalidArgument(f"{name} is of {array.dtype}; valid: uint8, float32, float64")
    header = (
        f"{{'descr': '{_DESCRS[view.format]}', 'fortran_order': False, 'shape': {view.shape}, }}".encode()
    )
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + view.tobytes()


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
