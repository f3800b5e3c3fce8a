"""Pictures that somebody sends: decoded within limits, and brought to the size that a network sees.

PNG, JPEG, WebP and NPY. The number of pixels is read from the header and checked before anything is decoded.
A picture is turned as its EXIF says, put on white where it is transparent, made gray or RGB as the model
takes it, cropped to the middle at the aspect ratio of the target, and scaled by bilinear interpolation with
antialiasing: what torchvision's ``Resize`` and ``CenterCrop`` do to an image of Pillow. Metadata is dropped.
An NPY array is taken as it is, and may be a stack of several pictures. Needs Pillow; no torch, no numpy.
"""

from __future__ import annotations

import ast
import hashlib
import io
import math
import struct
import sys
import warnings
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from PIL import Image, ImageOps, UnidentifiedImageError

from proxygrad.errors import BadPicture, PictureTooLarge
from proxygrad.spec.attribution import MAX_REFERENCES, InputImage, ReferenceImages
from proxygrad.spec.settings import MAX_SIZE_PX, MIN_SIZE_PX

FORMATS = ("PNG", "JPEG", "WEBP")
#: Scans of a JPEG: each costs a pass over all pixels. Common encoders write ten to twelve.
MAX_SCANS = 64
#: NumPy's own readers take no longer header from strangers (`numpy.lib.format`, ``max_header_size``).
MAX_NPY_HEADER = 10_000

_NPY = b"\x93NUMPY"
_PNG = b"\x89PNG\r\n\x1a\n"
_ANIMATION = 0x02  # of the flags of a VP8X chunk (WebP container specification, "Extended File Format")
#: Types of elements, with their codes of `array`.
_TYPES = {"|u1": "B", "<f4": "f", "<f8": "d"}
#: What Pillow calls them.
_RAW = {"<f4": "F;32F", "<f8": "F;64F"}
#: The bytes of ``level / 255`` as little-endian float32: for each of the four, that of every level.
_AS_FLOATS = tuple(zip(*(struct.pack("<f", level / 255) for level in range(256)), strict=True))


@dataclass(frozen=True)
class DecodedPicture:
    """A picture as a network sees it, ``(C, H, W)``: uint8 levels, or float32 in [0, 1].

    ``decoded_px``: pixels that were decoded for it; 0 for an array.
    """

    values: bytes
    descr: str
    shape: tuple[int, int, int]
    decoded_px: int = field(default=0, compare=False)

    @property
    def npy(self) -> bytes:
        """As an NPY file."""
        return npy_file(self.shape, self.values, self.descr)

    @property
    def image(self) -> InputImage:
        """Its digest and shape."""
        channels, height_px, width_px = self.shape
        digest = hashlib.sha256(self.npy).hexdigest()
        return InputImage(sha256=digest, channels=channels, height_px=height_px, width_px=width_px)


def read_picture(
    data: bytes, channels: int, size: tuple[int, int] | None, *, exact: bool = False, max_pixels: int
) -> DecodedPicture:
    """The picture in ``data`` for a network of so many channels.

    ``size``: (height, width) in pixels; None: as large as it is. ``exact``: an array has to have that size;
    else it may have any. Raises `BadPicture`, and `PictureTooLarge` beyond ``max_pixels``.
    """
    if data.startswith(_NPY):
        return _arrays(data, channels, size if exact else None, stacks=False)[0]
    return _decoded(data, channels, size, max_pixels)


def read_references(
    data: bytes, picture: DecodedPicture, *, max_pixels: int, most: int
) -> list[DecodedPicture]:
    """The pictures in ``data``, in the size and with the channels of ``picture``: one, or those of an array
    ``(k, C, H, W)``. Raises `BadPicture`, also for more than ``most``, and `PictureTooLarge`.
    """
    channels, *size = picture.shape
    if most < 1:
        raise BadPicture(f"one picture too many; valid: {MAX_REFERENCES} in all")
    if not data.startswith(_NPY):
        return [_decoded(data, channels, (size[0], size[1]), max_pixels)]
    return _arrays(data, channels, (size[0], size[1]), stacks=True, most=most)


def stack(pictures: Sequence[DecodedPicture]) -> tuple[bytes, ReferenceImages]:
    """Pictures of one shape as one NPY file ``(k, C, H, W)``, and what a request says of it.

    Levels, or numbers in [0, 1] where any of them has such.
    """
    levels = all(each.descr == "|u1" for each in pictures)
    values = b"".join(each.values if levels else _floats(each) for each in pictures)
    npy = npy_file((len(pictures), *pictures[0].shape), values, "|u1" if levels else "<f4")
    return npy, ReferenceImages(sha256=hashlib.sha256(npy).hexdigest(), number=len(pictures))


def _floats(picture: DecodedPicture) -> bytes:
    if picture.descr != "|u1":
        return picture.values
    found = bytearray(4 * len(picture.values))
    for place, table in enumerate(_AS_FLOATS):
        found[place::4] = picture.values.translate(bytes(table))
    return bytes(found)


def _decoded(data: bytes, channels: int, size: tuple[int, int] | None, max_pixels: int) -> DecodedPicture:
    if channels not in (1, 3):
        raise BadPicture(f"the model takes {channels} channels, which only an NPY array has")
    _check_header(data, max_pixels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's limit is one of ours, and lower ones count
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                _check_opened(opened, max_pixels)
                return _pixels(opened, channels, size)
    except BadPicture:
        raise
    except UnidentifiedImageError as error:
        raise BadPicture(
            f"the {len(data)} bytes of the picture are of no known format, or damaged; valid: PNG, JPEG, "
            "WebP, NPY"
        ) from error
    except Exception as error:  # Pillow raises whatever its decoders meet
        said = str(error).partition("\n")[0][:200]
        raise BadPicture(f"the picture of {len(data)} bytes cannot be decoded: {said}") from error


def npy_file(shape: tuple[int, ...], values: bytes, descr: str) -> bytes:
    """NumPy's format, version 1.0 (`numpy.lib.format`): magic, length of the header, header, values."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"".join([_NPY, b"\x01\x00", len(header).to_bytes(2, "little"), header, values])


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise PictureTooLarge(width, height, max_pixels)


def _check_header(data: bytes, max_pixels: int) -> None:
    """What Pillow would only notice after it has made room, or time."""
    if data.startswith(_PNG) and data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        _check_pixels(width, height, max_pixels)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_webp(data, max_pixels)
    elif data.startswith(b"\xff\xd8"):
        _check_jpeg(data, max_pixels)


def _check_jpeg(data: bytes, max_pixels: int) -> None:
    """Up to the header of its frame (ITU-T T.81, B.1.1.3 and B.2.2); what else is wrong Pillow says."""
    if data.count(b"\xff\xda") > MAX_SCANS:
        raise BadPicture(f"the JPEG has more than {MAX_SCANS} scans")
    at = 2
    while data[at : at + 1] == b"\xff" and at + 9 <= len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return _check_pixels(width, height, max_pixels)
        at += 2 + length
    return None


def _check_webp(data: bytes, max_pixels: int) -> None:
    """Its decoder allocates the canvas when it is opened (RFC 9649, sections 2.5 to 2.7)."""
    kind = data[12:16]
    if len(data) < 30:
        raise BadPicture("the WebP is cut off in its header")
    if kind == b"VP8X":
        if data[20] & _ANIMATION:
            raise BadPicture("the WebP is animated; valid: a single picture")
        sides = [1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27)]
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        sides = [1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)]
    elif kind == b"VP8 ":
        sides = [int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28)]
    else:
        raise BadPicture(f"the WebP begins with the chunk {kind!r}; valid: VP8, VP8L, VP8X")
    _check_pixels(sides[0], sides[1], max_pixels)


def _check_opened(opened: Image.Image, max_pixels: int) -> None:
    _check_pixels(opened.width, opened.height, max_pixels)
    if opened.format != "MPO" and getattr(opened, "is_animated", False):
        raise BadPicture(f"the {opened.format} is animated; valid: a single picture")


def _pixels(opened: Image.Image, channels: int, size: tuple[int, int] | None) -> DecodedPicture:
    picture = _opaque(_upright(opened))
    picture = picture.convert("L" if channels == 1 else "RGB")
    height, width = size or (picture.height, picture.width)
    if (picture.height, picture.width) != (height, width):
        scale = max(height / picture.height, width / picture.width)
        across, down = width / scale, height / scale
        left, top = (picture.width - across) / 2, (picture.height - down) / 2
        box = (
            max(0.0, left),
            max(0.0, top),
            min(float(picture.width), left + across),
            min(float(picture.height), top + down),
        )
        picture = picture.resize((width, height), Image.Resampling.BILINEAR, box=box)
    planes = b"".join(band.tobytes() for band in picture.split())
    shape = (channels, height, width)
    return DecodedPicture(planes, "|u1", shape, opened.width * opened.height)


def _upright(opened: Image.Image) -> Image.Image:
    """Turned as its EXIF says. EXIF that cannot be read says nothing, as in Pillow's own reader of JPEG."""
    opened.load()
    try:
        return ImageOps.exif_transpose(opened)
    except (SyntaxError, ValueError, struct.error):
        return opened


def _opaque(picture: Image.Image) -> Image.Image:
    """On white where it is transparent; 16 bits brought to 8."""
    if picture.mode.startswith("I"):
        return picture.convert("F").point(lambda level: level * (1 / 257) + 0.5).convert("L")
    if picture.has_transparency_data:
        own = picture.convert("RGBA")
        white = Image.new("RGBA", own.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, own).convert("RGB")
    return picture


def _arrays(
    data: bytes, channels: int, size: tuple[int, int] | None, *, stacks: bool, most: int = 1
) -> list[DecodedPicture]:
    """The picture of an NPY file, or with ``stacks`` those of one with a dimension more."""
    header, begin = _npy_header(data)
    descr, given = str(header["descr"]), header["shape"]
    if descr not in _TYPES:
        raise BadPicture(f"the NPY array is of {descr[:60]!r}; valid: uint8, float32, float64")
    if header["fortran_order"] is not False:
        raise BadPicture("the NPY array is in Fortran order; valid: C order (numpy.ascontiguousarray)")
    number = 1
    if stacks and isinstance(given, tuple) and len(given) == 4 and type(given[0]) is int:
        number, given = given[0], given[1:]
        if not 1 <= number <= most:
            raise BadPicture(f"the NPY array has {str(number)[:20]} pictures; valid: 1 to {most}")
    shape, last = _shape(given, channels, size, header["shape"])
    room, needed = len(data) - begin, number * math.prod(shape) * array(_TYPES[descr]).itemsize
    if room != needed:
        raise BadPicture(
            f"the NPY array of shape {header['shape']} has {room} bytes of values; valid: {needed}"
        )
    each = needed // number
    parts = [data[begin + at * each : begin + (at + 1) * each] for at in range(number)]
    if descr != "|u1":
        parts, descr = [_checked_floats(part, descr) for part in parts], "<f4"
    return [DecodedPicture(_planes(part, descr, channels) if last else part, descr, shape) for part in parts]


def _planes(values: bytes, descr: str, channels: int) -> bytes:
    """(H, W, C) → (C, H, W)."""
    if descr == "|u1":
        return b"".join(values[channel::channels] for channel in range(channels))
    floats = array("f", values)  # whatever the order of their bytes
    return b"".join(floats[channel::channels].tobytes() for channel in range(channels))


def _checked_floats(values: bytes, descr: str) -> bytes:
    """Little-endian float32 of numbers in [0, 1].

    Pillow looks at them, as Python would make an object of each: 15 ms for 3 × 1024 × 1024 in place of 183
    (docs/measurements/gateway.md). What is not finite has 7f or ff as the highest byte of its float32.
    """
    floats = Image.frombytes(
        "F", (len(values) // (4 if descr == "<f4" else 8), 1), values, "raw", _RAW[descr]
    )
    if descr != "<f4":
        converted = array("f", floats.tobytes())
        if sys.byteorder == "big":
            converted.byteswap()
        values = converted.tobytes()
    highest = values[3::4]
    if b"\x7f" in highest or b"\xff" in highest:
        raise BadPicture(
            "the NPY array has values that are not finite, or beyond 1e38; valid: 0 to 1, or uint8"
        )
    lowest, largest = cast(tuple[float, float], floats.getextrema())
    if lowest < 0 or largest > 1:
        raise BadPicture(f"the NPY array has values from {lowest:g} to {largest:g}; valid: 0 to 1, or uint8")
    return values


def _npy_header(data: bytes) -> tuple[dict[str, object], int]:
    """The header, and where the values begin."""
    try:
        length_bytes = {1: 2, 2: 4, 3: 4}[data[6]]
        begin = 8 + length_bytes
        length = int.from_bytes(data[8:begin], "little")
        text = data[begin : begin + length]
        if length > MAX_NPY_HEADER or len(text) < length:
            raise ValueError(f"{length} bytes")
        header = ast.literal_eval(text.decode("latin-1").strip())
        return {name: header[name] for name in ("descr", "fortran_order", "shape")}, begin + length
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        SyntaxError,
        MemoryError,
        RecursionError,
    ) as error:
        raise BadPicture("the NPY file has no valid header") from error


def _shape(
    given: object, channels: int, size: tuple[int, int] | None, whole: object
) -> tuple[tuple[int, int, int], bool]:
    """The shape ``(C, H, W)``, and whether the channels are last. ``whole``: with the number of a stack."""
    height, width = size or ("height", "width")
    valid = f"({channels}, {height}, {width}) or ({height}, {width}, {channels})"
    if isinstance(given, tuple) and all(type(side) is int for side in given):
        sides = (1, *given) if len(given) == 2 and channels == 1 else given
        if len(sides) == 3:
            for shape, last in ((sides, False), ((sides[2], *sides[:2]), True)):
                fits = all(MIN_SIZE_PX <= side <= MAX_SIZE_PX for side in shape[1:])
                if shape[0] == channels and fits and size in (None, shape[1:]):
                    return (shape[0], shape[1], shape[2]), last
    bounds = "" if size else f", sides of {MIN_SIZE_PX} to {MAX_SIZE_PX}"
    raise BadPicture(f"the NPY array has shape {str(whole)[:60]}; valid: {valid}{bounds}")
