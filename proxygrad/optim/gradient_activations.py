"""Gradient normalization, and the gradient activation functions (GAF) of Liu et al. (2021, arXiv 2107.04228).

Both act on the gradient of the image before a step, element-wise but for the scale.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from proxygrad.spec.settings import GAF_ALPHA, GAF_BETA, GafName

#: Rounding of a float32 transform of 1024 x 1024 values is about 1e-6 of the strongest frequency.
WHITENING_FLOOR = 1e-5


def normalize(gradient: Tensor) -> Tensor:
    """Each image's gradient at a root mean square of 1; zero stays zero. ``(B, *P)`` → the same.

    Divided by the largest entry first: squares of gradients as small as 1e-30 would vanish in float32.
    """
    dims = tuple(range(1, gradient.ndim))
    largest = gradient.abs().amax(dim=dims, keepdim=True)  # (B, 1, …)
    scaled = gradient / torch.where(largest > 0, largest, 1)
    length = scaled.square().mean(dim=dims, keepdim=True).sqrt()
    return scaled / torch.where(length > 0, length, 1)


def whiten(gradient: Tensor) -> Tensor:
    """Each image's gradient with its Fourier transform divided by its magnitude, at a root mean square of 1.

    ``(B, …, H, W)`` → the same, each channel by itself. A frequency below `WHITENING_FLOOR` of its channel's
    strongest is rounding noise and stays 0, as does a channel without a gradient.
    """
    spectrum = torch.fft.rfft2(normalize(gradient))  # (B, …, H, W // 2 + 1)
    magnitude = spectrum.abs()
    present = magnitude > WHITENING_FLOOR * magnitude.amax(dim=(-2, -1), keepdim=True)
    phases = torch.where(present, spectrum / torch.where(present, magnitude, 1), 0)
    return normalize(torch.fft.irfft2(phases, s=gradient.shape[-2:]))


def _identity(gradient: Tensor, alpha: float, beta: float) -> Tensor:
    return gradient


def _atan(gradient: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * torch.atan(beta * gradient)


def _tanh(gradient: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * torch.tanh(beta * gradient)


def _log(gradient: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * gradient.sign() * torch.log1p(beta * gradient.abs())


GAFS: dict[GafName, Callable[[Tensor, float, float], Tensor]] = {
    "none": _identity,
    "atan": _atan,
    "tanh": _tanh,
    "log": _log,
}


def gaf(name: GafName, alpha: float = GAF_ALPHA, beta: float = GAF_BETA) -> Callable[[Tensor], Tensor]:
    """A gradient activation function: element-wise, odd, monotone, zero at zero (arXiv 2107.04228).

    ``atan``: ``α atan(βg)``; ``tanh``: ``α tanh(βg)``; ``log``: ``α sign(g) log(1 + β|g|)``; ``none``: g.
    ``alpha``, ``beta``: above 0. Small entries grow by ``αβ``; ``atan`` and ``tanh`` keep all below
    ``απ / 2`` and ``α``. A gradient of zero stays zero, so no dead unit is revived.
    """
    if name not in GAFS:
        raise ValueError(f"gradient activation {name!r}; there are {', '.join(map(repr, GAFS))}")
    function = GAFS[name]
    return lambda gradient: function(gradient, alpha, beta)
