"""What `proxygrad.maximize` is asked, checked before anything runs.

Every refusal is an `InvalidRequest` that names the value and what is valid. Layers, units, positions and
sizes are checked by `proxygrad.networks.network` and `proxygrad.objectives`, numbers by
`proxygrad.spec.settings`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from proxygrad.errors import InvalidRequest
from proxygrad.objectives.base import Objective
from proxygrad.spec.settings import MAX_SEED, AscentSettings, ParameterizationName


def objectives_of(objectives: Objective | Sequence[Objective]) -> list[Objective]:
    """The objectives as a list of one or more."""
    asked: list[Any] = [objectives] if isinstance(objectives, Objective) else list(objectives)
    if not asked:
        raise InvalidRequest("no objectives: give one or more, for example Channel('features.7', 20)")
    for each in asked:
        if not isinstance(each, Objective):
            raise InvalidRequest(
                f"objective {each!r} is of type {type(each).__name__}, not a proxygrad objective"
            )
    return asked


def slopes_of(slope: float | Sequence[float] | None, objectives: int) -> list[float | None]:
    """One slope for each objective; None leaves it to the preset. An array or a tensor will do."""
    given: Any = slope
    if isinstance(given, str) or not hasattr(given, "__len__"):
        return [given] * objectives
    if len(given) != objectives:
        raise InvalidRequest(f"slope {list(given)} has {len(given)} numbers for {objectives} objective(s)")
    return [float(each) for each in given]


def check_images(images: int, diversity: float, seed: int) -> None:
    """One image or more; differing from each other needs two. Their seeds run from ``seed`` on."""
    count: Any = images
    if not hasattr(count, "__index__") or count < 1:
        raise InvalidRequest(f"images {count!r} must be a whole number, at least 1")
    if not (math.isfinite(diversity) and diversity >= 0):
        raise InvalidRequest(f"diversity {diversity} must be 0 or a positive number")
    if diversity > 0 and images == 1:
        raise InvalidRequest(f"diversity {diversity} with images 1: a single image has none to differ from")
    if seed + images - 1 > MAX_SEED:
        raise InvalidRequest(f"seed {seed} with images {images} goes beyond the largest seed, {MAX_SEED}")


def check_start(start: Any, input_shape: Sequence[int], settings: AscentSettings) -> None:
    """A finite image ``(C, H, W)`` in [0, 1] with the network's channels; the size is its own."""
    if not isinstance(start, Tensor):
        raise InvalidRequest(
            f"start is of type {type(start).__name__}; valid: a torch tensor of values from 0 to 1"
        )
    shape, channels = tuple(start.shape), input_shape[0]
    if start.ndim != 3 or shape[0] != channels:
        raise InvalidRequest(
            f"start has shape {shape}; valid: (channels, height, width) with {channels} channel(s)"
        )
    if not start.is_floating_point():
        raise InvalidRequest(f"start is of type {start.dtype}; valid: floating-point values from 0 to 1")
    if start.numel() == 0:
        raise InvalidRequest(
            f"start has shape {shape}, which holds no values; valid: an image of 1x1 px or more"
        )
    if (odd := _not_finite(start)) is not None:
        raise InvalidRequest(f"start has {odd}; valid: values from 0 to 1")
    low, high = float(start.min()), float(start.max())
    if low < 0 or high > 1:
        raise InvalidRequest(
            f"start has values from {low:g} to {high:g}; valid: 0 to 1, before normalization"
        )
    if settings.size_px is not None and shape[1:] != (settings.size_px, settings.size_px):
        raise InvalidRequest(
            f"size_px {settings.size_px} beside a start of {shape[1]}x{shape[2]} px: leave size_px out"
        )


def check_magnitude(
    magnitude: Any, shape: tuple[int, int, int], parameterization: ParameterizationName
) -> None:
    """Finite, 0 or more, and for parameterization "maco" of images of ``shape`` ``(C, H, W)``."""
    channels, height, width = shape
    if parameterization != "maco":
        raise InvalidRequest(f"magnitude applies to parameterization 'maco', not {parameterization!r}")
    if not isinstance(magnitude, Tensor):
        raise InvalidRequest(f"magnitude is of type {type(magnitude).__name__}; valid: a torch tensor")
    if not magnitude.is_floating_point():
        raise InvalidRequest(
            f"magnitude is of type {magnitude.dtype}; valid: floating-point values of 0 or more"
        )
    valid = (channels, height, width // 2 + 1)
    if magnitude.shape != valid:
        raise InvalidRequest(
            f"magnitude has shape {tuple(magnitude.shape)}; valid for images of {height}x{width} px: "
            f"{valid}, which is (channels, height, width // 2 + 1)"
        )
    values = magnitude.detach().float()  # (C, H, W // 2 + 1)
    if (odd := _not_finite(values)) is not None:
        raise InvalidRequest(f"magnitude has, in float32, {odd}; valid: 0 or more")
    if float(values.min()) < 0:
        raise InvalidRequest(f"magnitude has values down to {float(values.min()):g}; valid: 0 or more")
    varying = values.flatten(1)[:, 1:].amax(dim=1) > 0
    if not bool(varying.all()):
        raise InvalidRequest(
            f"magnitude is 0 in channel {int(varying.int().argmin())} at every frequency but 0: "
            "such an image is plain gray"
        )


def _not_finite(values: Tensor) -> str | None:
    """The first of ``values`` that is not finite, and where; None where all are."""
    odd = (~values.isfinite()).nonzero()
    if not len(odd):
        return None
    at = tuple(odd[0].tolist())
    return f"the value {float(values[at]):g} at {list(at)}"
