"""Checks of the arguments of `proxygrad.maximize`, before anything runs.

Every refusal is an `InvalidRequest` that names the value and what is valid. Layers, units, positions and
sizes are checked by `proxygrad.networks.network` and `proxygrad.objectives.units`, numbers by
`proxygrad.spec.settings`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from torch import Tensor

from proxygrad.errors import InvalidRequest, near
from proxygrad.spec.settings import MAX_SEED, AscentSettings, ParameterizationName

#: What other libraries call our settings.
SYNONYMS = {
    "alpha": "slope",
    "epochs": "steps",
    "image_size": "size_px",
    "iterations": "steps",
    "learning_rate": "step_size",
    "lr": "step_size",
    "negative_slope": "slope",
    "num_steps": "steps",
    "n_steps": "steps",
    "optimizer": "update",
    "param_f": "parameterization",
    "seeds": "seed",
    "thresholds": "steps",
    "transforms": "robustness",
    "tv": "total_variation",
    "verbose": "progress",
}


def settings_of(given: dict[str, Any], keywords: Sequence[str]) -> AscentSettings:
    """The completed settings. Raises `InvalidRequest` for unknown keywords, with near names among
    ``keywords`` and the settings, and for values out of their limits.
    """
    valid = sorted({*AscentSettings.model_fields, *keywords})
    for name in given:
        if name not in AscentSettings.model_fields:
            raise InvalidRequest(_unknown_keyword(name, valid))
    try:
        return AscentSettings.model_validate(given).completed()
    except ValidationError as error:
        raise InvalidRequest("; ".join(map(_described, error.errors()))) from error


def _unknown_keyword(name: str, valid: Sequence[str]) -> str:
    close = [SYNONYMS[name]] if name in SYNONYMS else near(name, valid, 3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"valid: {', '.join(valid)}"
    return f"unknown keyword {name!r}; {hint}"


def _described(flaw: ErrorDetails) -> str:
    message = flaw["msg"].removeprefix("Value error, ")
    place = ".".join(map(str, flaw["loc"]))
    return f"{place} {flaw['input']!r}: {message}" if place else message


def slopes_of(slope: Any, objectives: int) -> list[Any]:
    """One slope for each objective; None leaves it to the preset. An array or a tensor will do."""
    given = slope
    if isinstance(given, str) or not hasattr(given, "__len__"):
        return [given] * objectives
    if len(given) != objectives:
        raise InvalidRequest(f"slope {list(given)} has {len(given)} numbers for {objectives} objective(s)")
    return [each if isinstance(each, str) else float(each) for each in given]


def single_start(given: Mapping[str, Any], beside: str) -> int:
    """1; raises `InvalidRequest` where several starts are asked for beside what leaves none to choose."""
    starts = given.get("starts", 1)
    if starts != 1:
        raise InvalidRequest(
            f"starts {starts!r} beside {beside}: only one start is possible; valid: starts 1"
        )
    return 1


def seeds_of(seed: int | Sequence[int], images: int, starts: int = 1) -> list[int]:
    """The first seed of each image of an objective: those given, or ``seed``, ``seed`` + ``starts``, …"""
    count: Any = images
    if not hasattr(count, "__index__") or count < 1:
        raise InvalidRequest(f"images {count!r} must be a whole number, at least 1")
    given: Any = seed
    if not hasattr(given, "__len__") or isinstance(given, str):
        seeds = [_seed(given)]
        if seeds[0] + images * starts - 1 > MAX_SEED:
            several = f" of {starts} starts" if starts > 1 else ""
            raise InvalidRequest(
                f"seed {seed} with images {images}{several} goes beyond the largest seed, {MAX_SEED}"
            )
        return [seeds[0] + number * starts for number in range(images)]
    seeds = [_seed(each) for each in given]
    if not seeds:
        raise InvalidRequest("seed [] has no numbers; give one or more")
    if images not in (1, len(seeds)):
        raise InvalidRequest(f"images {images} beside {len(seeds)} seeds: leave images out")
    return seeds


def _seed(given: Any) -> int:
    if not hasattr(given, "__index__") or not 0 <= int(given) <= MAX_SEED:
        raise InvalidRequest(f"seed {given!r}; valid: a whole number from 0 to {MAX_SEED}, or a list of them")
    return int(given)


def check_diversity(diversity: float, images: int) -> None:
    """0, or positive where there are two images or more to differ from each other."""
    if not (math.isfinite(diversity) and diversity >= 0):
        raise InvalidRequest(f"diversity {diversity} must be 0 or a positive number")
    if diversity > 0 and images == 1:
        raise InvalidRequest(f"diversity {diversity} with images 1: a single image has none to differ from")


def starts_of(start: Any, objectives: int) -> list[Tensor | None]:
    """One start for each objective: the one image given for all, or those of a list or ``(N, C, H, W)``."""
    if start is None:
        return [None] * objectives
    if isinstance(start, Tensor | np.ndarray) and start.ndim != 4:
        return [_as_tensor(start)] * objectives
    if not isinstance(start, Tensor | np.ndarray | list | tuple):
        raise InvalidRequest(
            f"start is of type {type(start).__name__}; valid: a torch tensor or an array (C, H, W) of values "
            "from 0 to 1, or a list with one for each objective"
        )
    if len(start) != objectives:
        raise InvalidRequest(f"start has {len(start)} images for {objectives} objective(s)")
    return [_as_tensor(each) for each in start]


def _as_tensor(image: Any) -> Tensor:
    if isinstance(image, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(image))
    return image.detach().clone() if isinstance(image, Tensor) and image.is_inference() else image


def check_start(start: Any, input_shape: Sequence[int], settings: AscentSettings) -> None:
    """A finite image ``(C, H, W)`` in [0, 1] with the network's channels; the size is its own."""
    if not isinstance(start, Tensor):
        raise InvalidRequest(
            f"start is of type {type(start).__name__}; valid: a tensor or an array of values from 0 to 1"
        )
    shape, channels = tuple(start.shape), input_shape[0]
    if start.ndim != 3 or shape[0] != channels:
        last = start.ndim == 3 and shape[2] == channels
        hint = "; the channels come first: start.permute(2, 0, 1)" if last else ""
        raise InvalidRequest(
            f"start has shape {shape}; valid: (channels, height, width) with {channels} channel(s){hint}"
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
