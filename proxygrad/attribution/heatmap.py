"""Contributions as pictures: a heat map of diverging colors around 0, and the same over the gray image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

#: Ends of the scale in RGB, by ColorBrewer's diverging RdBu: blue takes away, red adds; 0 is white.
BLUE, WHITE, RED = (5, 48, 97), (255, 255, 255), (178, 24, 43)
#: Share of the sum of all magnitudes that lies beyond `clipped_scale`: captum's default for pictures
#: (``outlier_perc`` of `captum.attr.visualization.visualize_image_attr`).
OUTLIERS = 0.02
#: How much of the gray image an overlay shows, and how light it is there.
_PAPER, _CONTRAST = 0.55, 0.45


def summed(contributions: Tensor) -> Tensor:
    """``(C, H, W)`` → ``(H, W)``: what each position adds, over all channels."""
    return contributions.sum(dim=0)


def scale_of(contributions: Tensor) -> float:
    """The largest magnitude of `summed`: the end of the scale."""
    return float(summed(contributions.detach().float()).abs().max())


def clipped_scale(contributions: Tensor) -> float:
    """The magnitude up to which lies all of `summed` but a share of `OUTLIERS`; the end of a readable scale.

    In a photograph a few pixels have contributions many times those of all others, beside which these would
    be white.
    """
    magnitudes = summed(contributions.detach().double()).abs().flatten().sort().values
    sums = magnitudes.cumsum(0)
    within = int((sums < (1 - OUTLIERS) * sums[-1]).sum())
    return float(magnitudes[within])


def heat_map(contributions: Tensor, scale: float | None = None) -> Tensor:
    """``(C, H, W)`` → an RGB image ``(3, H, W)`` in [0, 1], symmetric around 0.

    ``scale``: the magnitude that has full color; default `scale_of`. Without contributions all is white.
    """
    at = _relative(contributions, scale)
    return _mixed(torch.tensor(WHITE, dtype=torch.float32).view(3, 1, 1) / 255, at)


def overlay(contributions: Tensor, image: Tensor, scale: float | None = None) -> Tensor:
    """The heat map over ``image`` ``(C, H, W)`` in [0, 1], which is gray and light below it: ``(3, H, W)``.

    Contributions of another size, as those of a layer, are enlarged without smoothing.
    """
    at = _relative(contributions, scale)
    if at.shape != image.shape[1:]:
        at = functional.interpolate(at[None, None], size=image.shape[1:], mode="nearest-exact")[0, 0]
    gray = image.detach().cpu().float().mean(dim=0, keepdim=True)
    return _mixed(_PAPER + _CONTRAST * gray.expand(3, -1, -1), at)


def _relative(contributions: Tensor, scale: float | None) -> Tensor:
    """``(H, W)`` in [-1, 1]."""
    values = summed(contributions.detach().cpu().float())
    end = scale_of(contributions) if scale is None else scale
    return (values / end).clamp(-1, 1) if end > 0 else torch.zeros_like(values)


def _mixed(paper: Tensor, at: Tensor) -> Tensor:
    """From ``paper`` towards red or blue."""
    red, blue = (torch.tensor(end, dtype=torch.float32).view(3, 1, 1) / 255 for end in (RED, BLUE))
    ink = torch.where(at > 0, red, blue)
    return paper + (ink - paper) * at.abs()
