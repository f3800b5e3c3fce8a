"""Pictures of a folder as one tensor, to train on."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from proxygrad.errors import InvalidRequest

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
#: Of Pillow, by the number of a network's channels.
_MODES = {1: "L", 3: "RGB"}
#: Modes of more than 8 bits, which Pillow would cut off at 255.
_DEEP = ("I", "F")


def read_pictures(folder: Path, input_shape: tuple[int, int, int], *, resize: bool = False) -> Tensor:
    """Every picture in ``folder`` and below, by name, as ``(N, C, H, W)`` uint8; gray or RGB as C says.

    ``resize``: one of another size is scaled until it covers H × W and cropped in the center; without, it is
    refused. Turned as its Exif orientation says.

    Raises `InvalidRequest` naming the folder or the file: no folder, no pictures, one that cannot be read, of
    another size or of more than 8 bits, or a network that is neither of gray nor of RGB images.
    """
    if input_shape[0] not in _MODES:
        raise InvalidRequest(f"pictures have 1 channel (gray) or 3 (RGB); the network takes {input_shape[0]}")
    if not folder.is_dir():
        raise InvalidRequest(f"{folder} is {'no folder' if folder.exists() else 'not there'}")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise InvalidRequest(f"folder {folder} holds no pictures ({', '.join(SUFFIXES)})")
    return torch.stack([_read(path, input_shape, resize) for path in files])


def _read(path: Path, input_shape: tuple[int, int, int], resize: bool) -> Tensor:
    channels, height, width = input_shape
    try:
        with warnings.catch_warnings(action="error"), Image.open(path) as opened:
            picture = _opened(opened, path, (width, height), resize)
            pixels = torch.from_numpy(np.array(picture.convert(_MODES[channels])))  # (H, W) or (H, W, C)
    except (OSError, SyntaxError, ValueError, Warning, Image.DecompressionBombError) as error:
        raise InvalidRequest(f"picture {path} cannot be read: {error}") from error
    return pixels.unsqueeze(0) if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def _opened(opened: Image.Image, path: Path, size: tuple[int, int], resize: bool) -> Image.Image:
    if opened.mode.startswith(_DEEP):
        raise InvalidRequest(f"picture {path} has more than 8 bits a channel (mode {opened.mode})")
    picture = ImageOps.exif_transpose(opened)
    if picture.size == size:
        return picture
    if resize:
        return ImageOps.fit(picture.convert("RGB"), size, Image.Resampling.BICUBIC)
    found, needed = ("{}x{}".format(*each) for each in (picture.size, size))
    raise InvalidRequest(
        f"picture {path} has {found} px, the network takes {needed}; --resize scales and crops pictures"
    )
