"""Parameterizations: the variables that are optimized in place of an image's pixels.

Steps are taken on parameters, and the parameters decide which images are near: pixels follow every
gradient, Fourier coefficients scaled by 1/f prefer the smooth, phases alone keep the spectrum of natural
images. A parameterization is two arrows, ``decode: params (B, *P) → images (B, C, H, W)``, differentiable
and in [0, 1], and ``encode`` back, for any height and width and any number of channels.

`Fourier` and `Maco` share one space, which lucid ("Feature Visualization", Olah et al., Distill 2017)
calls decorrelated: ``image = sigmoid(4 M z)``, with z of unit variance where an image is like a natural one.

- ``M`` is the square root of the covariance of ImageNet's colors as lucid publishes it (`COLOR_SQRT`), in
  units of [0, 1]. Channels that are no RGB, of gray images or of more than 3, have unknown correlations: each
  takes the standard deviation of the matrix' rows.
- The sigmoid's slope at 0 is 1/4, so ``4 M z`` makes z deviate from mid-gray by ``M z`` and saturate
  where that leaves [0, 1]. It is lucid's squashing, and keeps a gradient at every pixel and gradations in
  bright and dark parts. Measured in its place: a clamp reached 6 to 23 % more in as many steps, at harder
  contrasts; ``x / √(1 + x²)``, from 1 % more to 16 % less (SqueezeNet, nine units, activation under
  robustness transforms).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from proxygrad.errors import InvalidRequest
from proxygrad.images import noisy_gray
from proxygrad.spec.settings import START_NOISE, ParameterizationName

Shape = tuple[int, int, int]

#: Square root of the covariance of ImageNet's colors (RGB by three uncorrelated axes, the first being
#: brightness), values in [0, 1]: lucid's `color_correlation_svd_sqrt`, lucid/optvis/param/color.py.
COLOR_SQRT = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
#: Standard deviation of one color channel that follows from it (mean over the rows): for all but RGB.
GRAY_SD = sum(math.hypot(*row) for row in COLOR_SQRT) / 3

#: Deviation of `Fourier`'s start for noise 1, so that pixels are as noisy as those of `Pixels`: uniform noise
#: in ± 1 has 1/√3.
START_SD = 1 / math.sqrt(3) / GRAY_SD

#: Images given as a start are kept this far from 0 and 1, where the sigmoid ends: less than half of one of
#: 255 levels (0.00196), so an 8-bit image comes back level for level.
MARGIN = 1e-3


class Parameterization(Protocol):
    """Images ``(B, C, H, W)`` in [0, 1] as parameters ``(B, *P)``, for images of one shape on one device.

    One of one's own is any object with these four methods. Rows are lanes: nothing may pass between them.
    """

    def start(self, generator: torch.Generator, noise: float = START_NOISE) -> Tensor:
        """One lane's random start, ``P``, on the CPU: the same for a seed on any device.

        ``noise``: half-width of uniform noise around mid-gray, or what comes to the same; 0 is gray.
        """

    def encode(self, images: Tensor) -> Tensor:
        """Parameters of given images, as near to them as the parameterization can come."""

    def decode(self, params: Tensor) -> Tensor:
        """The images, in [0, 1]; differentiable."""

    def project(self, params: Tensor) -> Tensor:
        """The parameters moved back into the allowed set after a step; themselves where all are allowed."""


class Pixels:
    """Every pixel value for itself, ``P = (C, H, W)``; `encode` is exact and `project` clamps to [0, 1]."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def start(self, generator: torch.Generator, noise: float = START_NOISE) -> Tensor:
        """Mid-gray with uniform noise of ± ``noise``."""
        return noisy_gray(self.shape, generator, noise)

    def encode(self, images: Tensor) -> Tensor:
        """The images themselves."""
        return images.clone()

    def decode(self, params: Tensor) -> Tensor:
        """The parameters themselves."""
        return params

    def project(self, params: Tensor) -> Tensor:
        """Clamped to [0, 1]."""
        return params.clamp(0, 1)


class Fourier:
    """Amplitudes of plane waves, each scaled by 1/f; ``P = (C, H, W)``, in decorrelated colors.

    The waves are those of the Hartley transform, ``cos + sin`` in place of ``exp(i·)``: an orthonormal
    basis of the same frequencies with as many real numbers as pixels, at odd sizes too, where a half
    spectrum of complex numbers has coefficients that no real image contains. Parameters of unit variance
    give z of unit variance. `encode` is exact up to `MARGIN`.
    """

    def __init__(self, shape: Shape, device: torch.device | str = "cpu") -> None:
        self.shape = shape
        frequency = frequencies(shape[1:])
        scale = amplitudes(frequency)
        self._scale = (scale / scale.square().mean().sqrt()).to(device, torch.float32)  # (H, W)

    def start(self, generator: torch.Generator, noise: float = START_NOISE) -> Tensor:
        """Normal noise with a 1/f spectrum, the pixels' deviation from gray being that of `Pixels`."""
        return noise * START_SD * torch.randn(self.shape, generator=generator, dtype=torch.float32)

    def encode(self, images: Tensor) -> Tensor:
        """The images' own coefficients, after moving pixels within `MARGIN` of 0 or 1 to that margin."""
        return _hartley(_from_image(images)) / self._scale

    def decode(self, params: Tensor) -> Tensor:
        """``sigmoid(4 M · Hartley(params / f))``."""
        return _to_image(_hartley(params * self._scale))

    def project(self, params: Tensor) -> Tensor:
        """The parameters themselves: all are allowed."""
        return params


class Maco:
    """Phases of the Fourier transform, ``P = (C, H, W // 2 + 1)`` in radians, under a fixed magnitude.

    Magnitude-constrained optimization (Fel et al. 2023, arXiv 2306.06805): the image may rearrange the
    spectrum of natural images and add nothing to it, so high-frequency noise cannot arise.

    ``magnitude``: ``(C, H, W // 2 + 1)``, for instance of `spectrum`; only its shape over frequencies
    matters, its scale is set to unit variance. Default 1/f. Its mean is 0: phases of frequency 0 do not act.
    In the columns that are their own mirror image two coefficients share a wave, and get their mean.
    `encode` keeps a given image's phases and so its outlines, not its contrasts.
    """

    def __init__(
        self, shape: Shape, device: torch.device | str = "cpu", magnitude: Tensor | None = None
    ) -> None:
        self.shape = shape
        channels, height, width = shape
        half = width // 2 + 1
        if magnitude is None:
            magnitude = amplitudes(frequencies((height, width)))[:, :half].expand(channels, height, half)
        if magnitude.shape != (channels, height, half):
            raise ValueError(f"magnitude of shape {tuple(magnitude.shape)}, not {(channels, height, half)}")
        magnitude = magnitude.double().clone()
        magnitude[:, 0, 0] = 0
        for column in self._own_columns:
            own = magnitude[..., column]  # (C, H)
            magnitude[..., column] = (own + own.flip(-1).roll(1, -1)) / 2
        power = _twice_counted(width) * magnitude.square()  # (C, H, W // 2 + 1)
        variance = power.sum(dim=(1, 2), keepdim=True) / (height * width)
        self.magnitude = (magnitude / variance.sqrt()).to(device, torch.float32)

    def start(self, generator: torch.Generator, noise: float = START_NOISE) -> Tensor:
        """Uniform phases in ± π: noise that looks alike everywhere, at full contrast, whatever ``noise``."""
        channels, height, width = self.shape
        shape = (channels, height, width // 2 + 1)
        return math.pi * (2 * torch.rand(shape, generator=generator, dtype=torch.float32) - 1)

    def encode(self, images: Tensor) -> Tensor:
        """The images' own phases."""
        transformed: Tensor = torch.fft.rfft2(_from_image(images))
        return transformed.angle()

    def decode(self, params: Tensor) -> Tensor:
        """``sigmoid(4 M · F⁻¹(magnitude · exp(i phase)))``."""
        spectrum = torch.polar(self.magnitude.to(params.dtype).expand_as(params), self._odd(params))
        planes: Tensor = torch.fft.irfft2(spectrum, s=self.shape[1:], norm="ortho")
        return _to_image(planes)

    def project(self, params: Tensor) -> Tensor:
        """The parameters themselves: phases have no bounds."""
        return params

    @property
    def _own_columns(self) -> tuple[int, ...]:
        """The columns of the half spectrum that are their own mirror image."""
        return (0,) if self.shape[2] % 2 else (0, -1)

    def _odd(self, phase: Tensor) -> Tensor:
        """Phases that a real image can have: odd in `_own_columns`.

        Without it the inverse transform would drop what is not odd, and magnitude with it.
        """
        odd = phase.clone()
        for column in self._own_columns:
            own = phase[..., column]  # (B, C, H)
            odd[..., column] = (own - own.flip(-1).roll(1, -1)) / 2
        return odd


def parameterization(
    name: ParameterizationName, shape: Shape, device: torch.device | str = "cpu"
) -> Parameterization:
    """The parameterization of that name for images of ``shape`` ``(C, H, W)``, from a cache."""
    return _made(name, tuple(shape), torch.device(device))


@lru_cache(maxsize=64)
def _made(name: ParameterizationName, shape: Shape, device: torch.device) -> Parameterization:
    if name == "pixels":
        return Pixels(shape)
    if name == "fourier":
        return Fourier(shape, device)
    if name == "maco":
        return Maco(shape, device)
    raise ValueError(f"parameterization {name!r}; there are 'pixels', 'fourier' and 'maco'")


def frequencies(size: tuple[int, int]) -> Tensor:
    """Length of each coefficient's frequency in a 2-D transform, ``(H, W)`` float64, in cycles a pixel."""
    height, width = size
    rows = torch.fft.fftfreq(height, dtype=torch.float64).unsqueeze(1)
    columns = torch.fft.fftfreq(width, dtype=torch.float64).unsqueeze(0)
    return torch.sqrt(rows.square() + columns.square())


def amplitudes(frequency: Tensor) -> Tensor:
    """1/f, as in natural images; frequency 0 counts as the lowest other one (as lucid has it)."""
    return 1 / frequency.clamp(min=1 / max(frequency.shape))


def spectrum(images: Tensor) -> Tensor:
    """Mean magnitude of natural images ``(N, C, H, W)`` in [0, 1] → ``(C, H, W // 2 + 1)``, for `Maco`.

    Raises `InvalidRequest` for images of other shapes or values.
    """
    if images.ndim != 4 or images.numel() == 0 or not images.is_floating_point():
        raise InvalidRequest(
            f"images of shape {tuple(images.shape)} and type {images.dtype}; valid: floating-point images, "
            "(number, channels, height, width)"
        )
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise InvalidRequest(
            f"images have values from {float(images.min()):g} to {float(images.max()):g}; valid: 0 to 1"
        )
    transformed: Tensor = torch.fft.rfft2(_from_image(images))
    return transformed.abs().mean(dim=0)


def _hartley(planes: Tensor) -> Tensor:
    """The orthonormal Hartley transform over the last two dimensions; it is its own inverse."""
    transformed: Tensor = torch.fft.fft2(planes, norm="ortho")
    return transformed.real - transformed.imag


def _twice_counted(width: int) -> Tensor:
    """How often each column of a half spectrum counts in the whole one, ``(W // 2 + 1,)``."""
    counts = torch.full((width // 2 + 1,), 2.0, dtype=torch.float64)
    counts[0] = 1
    if width % 2 == 0:
        counts[-1] = 1
    return counts


def _colors(channels: int, like: Tensor) -> Tensor:
    """``M``: ``(C, C)``, from decorrelated colors to those of images."""
    if channels == 3:
        return torch.tensor(COLOR_SQRT, dtype=like.dtype, device=like.device)
    return GRAY_SD * torch.eye(channels, dtype=like.dtype, device=like.device)


def _to_image(planes: Tensor) -> Tensor:
    """z ``(B, C, H, W)`` → images ``(B, C, H, W)`` in [0, 1]."""
    mixed = torch.einsum("ij,bjhw->bihw", _colors(planes.shape[1], planes), planes)
    return torch.sigmoid(4 * mixed)


def _from_image(images: Tensor) -> Tensor:
    """The inverse of `_to_image` for images kept `MARGIN` away from 0 and 1."""
    logits = torch.logit(images, eps=MARGIN) / 4
    inverse = torch.linalg.inv(_colors(images.shape[1], images))
    return torch.einsum("ij,bjhw->bihw", inverse, logits)
