"""Robustness: the random transforms that each step applies to its image, as a setting.

`proxygrad.transforms` draws and applies them. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from proxygrad.errors import InvalidRequest

RobustnessName = Literal["none", "standard"]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass(frozen=True)
class Robustness:
    """The random transforms between the image and what a step sees; each lane draws its own.

    ``jitter_px``: shift in each direction, uniform in ±, and at most ``jitter_part`` of the shorter side.
    ``scale``: magnification, uniform between the two. ``rotate_deg``: uniform in ±. ``pad_px``: the view
    reaches this far beyond the image on each side, where the image is mirrored. ``crop``: the view is a part
    of the image, its side uniform between this fraction and 1, anywhere inside. ``noise``: standard deviation
    of normal noise on each value; values may then leave [0, 1] a little.

    Raises `InvalidRequest` for numbers out of their limits.
    """

    jitter_px: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    rotate_deg: float = 0.0
    pad_px: float = 0.0
    crop: float = 1.0
    noise: float = 0.0
    jitter_part: float = 1.0

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name in ("jitter_px", "rotate_deg", "pad_px", "noise"):
            self._check(name, lambda value: value >= 0, "0 or a positive number")
        self._check("crop", lambda value: 0 < value <= 1, "above 0 and at most 1")
        self._check("jitter_part", lambda value: 0 <= value <= 1, "from 0 to 1")
        scale: Any = self.scale
        pair = isinstance(scale, tuple | list) and len(scale) == 2 and all(map(_is_number, scale))
        if not pair or not 0 < scale[0] <= scale[1]:
            raise InvalidRequest(f"robustness: scale {scale!r} must be two positive numbers, the lower first")
        object.__setattr__(self, "scale", tuple(scale))  # a list has no hash

    def _check(self, name: str, right: Callable[[float], bool], valid: str) -> None:
        value = getattr(self, name)
        if not (_is_number(value) and right(value)):
            raise InvalidRequest(f"robustness: {name} {value!r} must be {valid}")

    @property
    def moves(self) -> bool:
        """Whether any of it but the noise does anything."""
        moved = self.jitter_px * self.jitter_part > 0 or self.rotate_deg > 0 or self.pad_px > 0
        return moved or self.crop < 1 or self.scale != (1, 1)


#: "standard" is lucid's list (lucid/optvis/transform.py, `standard_transforms`): jitter by 8 and again by
#: 4 px, together ± 6; scale .9 to 1.1; rotation by ± 10°. Its padding by 12 px is left out: with the size
#: fixed it would shrink the image, and reflection takes its place. An eighth of the side, because 6 px would
#: be a fifth of a 28 px digit.
ROBUSTNESS: dict[RobustnessName, Robustness | None] = {
    "none": None,
    "standard": Robustness(jitter_px=6, scale=(0.9, 1.1), rotate_deg=10, jitter_part=1 / 8),
}


def resolved(setting: RobustnessName | Robustness) -> Robustness | None:
    """The transforms that a setting stands for; None where every step sees the image itself."""
    own = setting if isinstance(setting, Robustness) else ROBUSTNESS[setting]
    return own if own is not None and (own.moves or own.noise > 0) else None
