"""Regularizers: what an image should have less of, and a blur.

Penalties are means over all values, so they mean the same at any size. `penalize` takes their gradient from
one of the activation, once that has a root mean square of 1: weights then mean the same for every unit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

#: A Gaussian ends this many standard deviations from its center; 0.3 % of it lies further out.
REACH = 3.0


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbors, down plus across: ``(B, C, H, W)`` → ``(B,)``.

    The anisotropic form; lucid's and TensorFlow's `total_variation` is its sum over all values.
    """
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().sum(dim=(1, 2, 3))
    across = (images[..., :, 1:] - images[..., :, :-1]).abs().sum(dim=(1, 2, 3))
    return (down + across) / images[0].numel()


def l2(images: Tensor) -> Tensor:
    """Mean squared distance from mid-gray: ``(B, C, H, W)`` → ``(B,)``."""
    return (images - 0.5).square().mean(dim=(1, 2, 3))


def penalize(gradient: Tensor, images: Tensor, tv: Tensor, l2_weight: Tensor) -> Tensor:
    """``gradient - tv · ∇total_variation - l2_weight · ∇l2``, each ∇ times the number of values.

    ``gradient``: of the activation by ``images``, both ``(B, C, H, W)``, of root mean square 1; ``tv``,
    ``l2_weight``: ``(B,)``. Both act on every pixel at once where the activation's gradient is sparse, so
    little is enough: docs/method.md has what each weight costs.
    """
    if not bool(((tv != 0) | (l2_weight != 0)).any()):
        return gradient
    with torch.enable_grad():
        free = images.detach().requires_grad_()
        penalty = (tv * total_variation(free) + l2_weight * l2(free)).sum() * images[0].numel()
        (slope,) = torch.autograd.grad(penalty, free)
    return gradient - slope


def blur(images: Tensor, sigma_px: Tensor) -> Tensor:
    """Each image ``(B, C, H, W)`` under a Gaussian of its own width ``(B,)`` in pixels; 0 changes nothing.

    Separable; pixels beyond the border are those at the border.
    """
    reach = math.ceil(REACH * float(sigma_px.max()))
    if reach == 0:
        return images
    kernels = _gaussians(sigma_px.to(images), reach)  # (B, 2 · reach + 1)
    batch, channels, height, width = images.shape
    kernels = kernels.repeat_interleave(channels, dim=0).unsqueeze(1)  # (B · C, 1, 2 · reach + 1)
    planes = images.reshape(1, batch * channels, height, width)
    for kernel, padding in (
        (kernels.unsqueeze(-1), (0, 0, reach, reach)),
        (kernels.unsqueeze(-2), (reach, reach, 0, 0)),
    ):
        padded = functional.pad(planes, padding, mode="replicate")
        planes = functional.conv2d(padded, kernel, groups=batch * channels)
    return planes.view(batch, channels, height, width)


def _gaussians(sigma_px: Tensor, reach: int) -> Tensor:
    """One kernel a row, ``(B, 2 · reach + 1)``, each ending at its own `REACH`; width 0 is a single 1."""
    distance = torch.arange(-reach, reach + 1, device=sigma_px.device).to(sigma_px)
    sigma = sigma_px.unsqueeze(1)
    weight = torch.exp(-0.5 * (distance / sigma.clamp(min=1e-6)).square())
    weight = weight * (distance.abs() <= torch.ceil(REACH * sigma))
    return weight / weight.sum(dim=1, keepdim=True)
