"""Update rules: how a gradient becomes a step.

Normalised ascent with a linearly decaying step: the gradient says where to, the schedule says how far.
Each image's gradient is scaled to a root mean square of 1, so that a step of ``rate`` changes a pixel by
``rate`` in root mean square whatever the unit, layer or network; the rate falls linearly to 0 over the
lane's own steps.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rate(step_size: float, step: int, steps: int) -> float:
    """Length of step ``step`` (from 0) of ``steps``: from ``step_size`` down to ``step_size / steps``."""
    return step_size * (1 - step / steps)


def normalize(gradient: Tensor) -> Tensor:
    """Each image's gradient at a root mean square of 1; zero stays zero. ``(B, C, H, W)`` → the same.

    Divided by the largest entry first: squares of gradients as small as 1e-30 would vanish in float32.
    """
    largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
    scaled = gradient / torch.where(largest > 0, largest, 1)
    length = scaled.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return scaled / torch.where(length > 0, length, 1)


def normalized_ascent(images: Tensor, gradient: Tensor, rates: Tensor) -> Tensor:
    """One step up for each image, kept in [0, 1]; an image whose gradient is zero stays as it is.

    ``images``, ``gradient``: ``(B, C, H, W)``; ``rates``: ``(B,)``, each a root mean square change per value.
    """
    return (images + rates.view(-1, 1, 1, 1) * normalize(gradient)).clamp(0, 1)
