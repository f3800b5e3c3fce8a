"""Content negotiation: the format of an image by the `Accept` header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

Format = Literal["png", "webp", "npy"]

#: The formats, the one that costs nothing first: of formats with equal weights the first is sent.
MEDIA_TYPES: dict[Format, str] = {"png": "image/png", "webp": "image/webp", "npy": "application/x-npy"}

#: A media range and its parameters. What is malformed is passed over, as an unknown type is.
_RANGE = re.compile(r"\s*([!#$%&'*+.^_`|~\w-]+)/([!#$%&'*+.^_`|~\w-]+)\s*(.*)", re.DOTALL)
_QUALITY = re.compile(r";\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*(?:;|$)", re.IGNORECASE)
_ANY_QUALITY = re.compile(r";\s*q\s*=", re.IGNORECASE)


def negotiated(accept: str | None, formats: Iterable[Format] = tuple(MEDIA_TYPES)) -> Format | None:
    """The best of `formats` for an `Accept` header; None when it takes none of them.

    Of several ranges that fit a type the most specific counts; of types liked equally, the first.
    """
    if accept is None or not accept.strip():
        return next(iter(formats))
    ranges = _ranges(accept)
    best: tuple[float, Format] | None = None
    for each in formats:
        quality = _quality(MEDIA_TYPES[each], ranges)
        if quality > 0 and (best is None or quality > best[0]):
            best = quality, each
    return None if best is None else best[1]


def _ranges(accept: str) -> list[tuple[str, str, float]]:
    ranges = []
    for text in accept.split(","):
        if (match := _RANGE.fullmatch(text)) is None:
            continue
        kind, subtype, parameters = match[1].lower(), match[2].lower(), match[3]
        quality = _QUALITY.search(parameters)
        if quality is None and _ANY_QUALITY.search(parameters):
            continue  # an invalid weight
        ranges.append((kind, subtype, float(quality[1]) if quality else 1.0))
    return ranges


def _quality(media_type: str, ranges: Sequence[tuple[str, str, float]]) -> float:
    kind, _, subtype = media_type.partition("/")
    for pattern in ((kind, subtype), (kind, "*"), ("*", "*")):
        qualities = [quality for *given, quality in ranges if tuple(given) == pattern]
        if qualities:
            return max(qualities)
    return 0.0
