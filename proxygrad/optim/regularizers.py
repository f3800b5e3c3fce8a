"""Regularizers: penalties on an image, a penalty on images that are alike, and a blur.

Penalties are means over all values, so they mean the same at any size. `penalize` and `push_apart` take their
gradient from one of the activation once that has a root mean square of 1: weights then mean the same for
every unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from proxygrad.optim.gradient_activations import normalize

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
    little is enough: docs/measurements/images.md has what each weight costs.
    """
    if not bool(((tv != 0) | (l2_weight != 0)).any()):
        return gradient
    images = images.detach()
    tv, l2_weight = (each.view(-1, 1, 1, 1) for each in (tv, l2_weight))
    slope = 2 * l2_weight * (images - 0.5)
    for dim in (-2, -1):
        side = images.shape[dim]
        rise = tv * images.diff(dim=dim).sign()  # of two neighbors, by the one that comes later
        slope.narrow(dim, 1, side - 1).add_(rise)
        slope.narrow(dim, 0, side - 1).sub_(rise)
    return gradient - slope


def similarity(activation: Tensor) -> Tensor:
    """How alike images are in what a layer says of them: the mean cosine of the Gram matrices of all pairs.

    ``(n, units, …)`` with n > 1 → a scalar from -1 to 1. The Gram matrix, ``units x units`` summed over
    positions, forgets where things are: images count as alike when they hold the same textures. As lucid's
    ``diversity`` (Olah et al., Feature Visualization, Distill 2017; optvis/objectives.py).
    """
    flat = activation.flatten(2) if activation.ndim > 2 else activation.unsqueeze(2)  # (n, units, positions)
    gram = (flat @ flat.transpose(1, 2)).flatten(1)  # (n, units * units)
    unit = gram / gram.norm(dim=1, keepdim=True).clamp(min=1e-12)
    count = unit.shape[0]
    alike: Tensor = ((unit @ unit.T).sum() - unit.square().sum()) / (count * (count - 1))
    return alike


def push_apart(
    gradient: Tensor, images: Tensor, read: Mapping[str, Tensor], rows: Sequence[int], weight: float
) -> Tensor:
    """``gradient`` ``(B, C, H, W)`` with the images of ``rows`` also led away from each other.

    Both parts are brought to a root mean square of 1 first, so that ``weight`` means the same for every unit.
    The images are compared at the first layer that the objective reads.
    """
    activation = next(iter(read.values()))
    (alike,) = torch.autograd.grad(similarity(activation[list(rows)]), images, retain_graph=True)
    pushed = normalize(gradient) - weight * normalize(alike)
    chosen = torch.zeros(len(gradient), 1, 1, 1, dtype=torch.bool, device=gradient.device)
    chosen[list(rows)] = True
    return torch.where(chosen, pushed, gradient)


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
