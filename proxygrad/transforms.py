"""Random transforms: each step sees the image a little moved, so that only robust patterns grow.

Jitter, scale, rotation, padding and cropping are one affine map per lane, drawn from the lane's own generator
on the CPU and applied to all lanes in one `grid_sample`; noise is added after it. The tensor keeps its size,
whatever is drawn, and a lane's draws depend on its own generator only.

Where the map looks outside the image it finds the image mirrored at its border, so no edge appears there.
Mid-gray, lucid's choice, was measured beside it: 3 % lower on average, 0.3 % higher at best (SqueezeNet, nine
units, activation under the "standard" set).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from proxygrad.errors import InvalidRequest
from proxygrad.spec.robustness import Robustness


class Transform(Protocol):
    """A random transform of one's own: what a step sees in place of the image.

    ``transform(image, generator)``: ``(1, C, H, W)`` in [0, 1] → a view of the same shape, differentiable. It
    draws from ``generator`` alone, which is on the CPU, so that a seed always gives the same views; a step
    that is evaluated again, because memory ran out, sees the same one. For instance
    ``lambda image, generator: image.roll(int(torch.randint(-4, 5, (), generator=generator)), dims=-1)``.
    """

    def __call__(self, image: Tensor, generator: torch.Generator, /) -> Tensor:
        """``(1, C, H, W)`` → ``(1, C, H, W)``."""


@dataclass(frozen=True)
class Draw:
    """One lane's view for one step. ``None`` means untouched.

    ``theta``: ``(2, 3)``, from positions in the view to positions in the image, both from -1 to 1 as
    `torch.nn.functional.affine_grid` has them; ``noise``: ``(C, H, W)``, added; ``own``: a `Transform` with
    its generator, ``(1, C, H, W)`` → the same shape.
    """

    theta: Tensor | None
    noise: Tensor | None
    own: Callable[[Tensor], Tensor] | None = None


def draw(
    robustness: Robustness | None, size: tuple[int, int], channels: int, generator: torch.Generator
) -> Draw:
    """Draw one lane's view of an image of ``size`` (height, width); on the CPU, from ``generator`` alone."""
    if robustness is None:
        return Draw(None, None)
    theta = _theta(robustness, size, generator) if robustness.moves else None
    noise = None
    if robustness.noise > 0:
        normal = torch.randn((channels, *size), generator=generator, dtype=torch.float32)
        noise = robustness.noise * normal
    return Draw(theta, noise)


def draw_own(transform: Transform, generator: torch.Generator) -> Draw:
    """Draw one lane's view by a transform of one's own, which gets a generator that ``generator`` seeds."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return Draw(None, None, lambda image: transform(image, torch.Generator().manual_seed(seed)))


def _theta(robustness: Robustness, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A crop, in the padded image, scaled and rotated about the image's center, and then shifted."""
    half_px = torch.tensor([size[1], size[0]], dtype=torch.float64) / 2  # x, y
    zoom, turn, side, *rest = torch.rand(7, generator=generator, dtype=torch.float64)
    shift, center = 2 * torch.stack(rest).view(2, 2) - 1  # each (2,), in ± 1
    low, high = robustness.scale
    angle = float(torch.deg2rad(robustness.rotate_deg * (2 * turn - 1)))
    part = robustness.crop + (1 - robustness.crop) * side
    jitter_px = min(robustness.jitter_px, robustness.jitter_part * min(size))

    rotation = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64
    )  # in pixels, not in halves of unequal sides
    view = (1 + robustness.pad_px / half_px) / (low + (high - low) * zoom)  # (2,), of the image's sides
    matrix = rotation * half_px / half_px.unsqueeze(1) * view  # (2, 2)
    offset = matrix @ ((1 - part) * center) + jitter_px * shift / half_px
    return torch.cat([part * matrix, offset.unsqueeze(1)], dim=1).float()


def apply(images: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Each image as its draw sees it, ``(B, C, H, W)`` → the same size; differentiable.

    An image without movement and noise comes out exactly as it went in, whatever the others do.
    """
    moved = [index for index, each in enumerate(draws) if each.theta is not None]
    if moved:
        images = _sample(images, moved, [each.theta for each in draws if each.theta is not None])
    if any(each.noise is not None for each in draws):
        images = images + torch.stack([_noise(each, images) for each in draws])
    if any(each.own is not None for each in draws):
        rows = zip(draws, images.split(1), strict=True)
        images = torch.cat([row if each.own is None else _own(each.own, row) for each, row in rows])
    return images


def _own(transform: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    view: Any = transform(image)
    if not isinstance(view, Tensor) or view.shape != image.shape:
        got = f"shape {tuple(view.shape)}" if isinstance(view, Tensor) else f"a {type(view).__name__}"
        raise InvalidRequest(f"transform returned {got} for an image; valid: shape {tuple(image.shape)}")
    return view


def _sample(images: Tensor, moved: list[int], thetas: list[Tensor]) -> Tensor:
    theta = torch.stack(thetas).to(images)  # (moved, 2, 3)
    chosen = images if len(moved) == images.shape[0] else images[moved]
    grid = functional.affine_grid(theta, list(chosen.shape), align_corners=False)  # (moved, H, W, 2)
    seen = functional.grid_sample(chosen, grid, padding_mode="reflection", align_corners=False)
    if chosen is images:
        return seen
    return images.index_copy(0, torch.tensor(moved, device=images.device), seen)


def _noise(each: Draw, images: Tensor) -> Tensor:
    return torch.zeros_like(images[0]) if each.noise is None else each.noise.to(images)
