"""Langevin dynamics: how a chain moves, as update rules of the engine.

`Sgld` is the unadjusted Langevin algorithm on exact gradients (Welling and Teh 2011, ICML, with the whole
"data set" in each step; in the notation of Jiang et al. 2018, arXiv 1812.04604)::

    x ← x + (ε/2) ∇U(x) + √(ε T) N(0, 1),    U = β f(x) + λ log D(x) - κ/2 |x - ½|²

whose stationary density tends to ``exp(U / T)`` as ε → 0. The bias that is left is of order ε: of a normal
target of variance s² in one coordinate the chain's variance is ``s² / (1 - ε / (4 s²))`` at T = 1, exactly.
With a slope above 0, ∇f is that of the proxy network, no gradient of any density, and the target is not
known.

`AuthorsLangevin` is what the paper's authors ran; see there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from proxygrad.optim.update_rules import StepContext, UpdateRule
from proxygrad.parameterizations import Parameterization, Pixels, Shape
from proxygrad.spec.langevin import LangevinSettings

#: A step that leads further than this beyond [0, 1] is longer than the whole range: the chain diverges.
FURTHEST = 1.0
#: And without bounds, this far from gray: a normal distribution that wide is no image.
FURTHEST_UNBOUNDED = 1e6
#: Of the noise of `AuthorsLangevin`; it falls as 1 / (1 + t²).
AUTHORS_NOISE = 0.1
#: Decay of its momentum, and of its running mean squares.
AUTHORS_DECAY = 0.9
#: What it adds to a mean square.
AUTHORS_EPSILON = 1e-8


@dataclass(frozen=True)
class Sgld:
    """``x ← x + (ε/2) ∇U + √(ε T) N(0, 1)``, with the noise from each chain's own generator. No memory."""

    settings: LangevinSettings
    state_names: ClassVar[tuple[str, ...]] = ()

    def step(
        self, params: Tensor, gradient: Tensor, state: dict[str, Tensor], context: StepContext
    ) -> Tensor:
        """The next states ``(B, C, H, W)``; ``gradient`` is ∇f, that of log D is in ``context``."""
        settings = self.settings
        drift = settings.beta * gradient - (settings.pull or 0.0) * (params - 0.5)
        if context.realism is not None:
            drift = drift + (settings.discriminator_weight or 0.0) * context.realism
        steps = context.steps_done.tolist()
        sizes = [settings.step_size_at(step) for step in steps]
        spreads = [
            (size * settings.temperature_at(step)) ** 0.5 for size, step in zip(sizes, steps, strict=True)
        ]
        return params + _rows(sizes, params) / 2 * drift + _rows(spreads, params) * context.noise(params)


@dataclass(frozen=True)
class AuthorsLangevin:
    """The preconditioned dynamics of the authors' code (BIDMach, `viz/Synthesis.scala`)::

        r ← .9 r + .1 g²  for the gradients of activation and log D, each value for itself
        d = (1 - w) g_f / √(r_f + 1e-8) + w g_D / √(r_D + 1e-8) + N(0, (σ / (1 + t²))²) - κ (x - ½)
        v ← .9 v + .1 d;    x ← x + step_size · v

    σ = .1. The noise has nothing to do with the step, and vanishes: it samples no density that is known.
    """

    settings: LangevinSettings
    state_names: ClassVar[tuple[str, ...]] = ("square", "square_realism", "velocity")

    def step(
        self, params: Tensor, gradient: Tensor, state: dict[str, Tensor], context: StepContext
    ) -> Tensor:
        """The next states ``(B, C, H, W)``; ``gradient`` is ∇f, that of log D is in ``context``."""
        settings = self.settings
        weight = settings.discriminator_weight or 0.0
        direction = (1 - weight) * _preconditioned(gradient, state, "square")
        if context.realism is not None:
            direction = direction + weight * _preconditioned(context.realism, state, "square_realism")
        spreads = [AUTHORS_NOISE / (1 + step**2) for step in context.steps_done.tolist()]
        direction = direction + _rows(spreads, params) * context.noise(params)
        direction = direction - (settings.pull or 0.0) * (params - 0.5)
        state["velocity"] = AUTHORS_DECAY * state["velocity"] + (1 - AUTHORS_DECAY) * direction
        sizes = [settings.step_size_at(step) for step in context.steps_done.tolist()]
        return params + _rows(sizes, params) * state["velocity"]


def _preconditioned(gradient: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """Over its running root mean square, value by value."""
    state[name] = AUTHORS_DECAY * state[name] + (1 - AUTHORS_DECAY) * gradient.square()
    return gradient / (state[name] + AUTHORS_EPSILON).sqrt()


class ReflectedPixels(Pixels):
    """Pixels that come back from 0 and 1 by as much as they went beyond: `Sgld` within the box."""

    def project(self, params: Tensor) -> Tensor:
        """Folded into [0, 1]."""
        folded = params.remainder(2.0)
        return torch.where(folded > 1, 2 - folded, folded)


class UnboundedPixels(Pixels):
    """Pixels without bounds."""

    def project(self, params: Tensor) -> Tensor:
        """Themselves."""
        return params


def langevin_rule(settings: LangevinSettings) -> UpdateRule:
    """The rule of completed settings."""
    return Sgld(settings) if settings.variant == "sgld" else AuthorsLangevin(settings)


def langevin_pixels(settings: LangevinSettings, shape: Shape) -> Parameterization:
    """What keeps the pixels in their range."""
    if settings.variant == "authors":
        return Pixels(shape)  # which clips
    return ReflectedPixels(shape) if settings.bounds == "reflect" else UnboundedPixels(shape)


def divergence(settings: LangevinSettings, proposal: Tensor) -> str | None:
    """What is wrong with the next state of one chain ``(C, H, W)``, before it is kept within bounds."""
    furthest = float((proposal - 0.5).abs().max())
    unbounded = settings.variant == "sgld" and settings.bounds == "none"
    if furthest <= (FURTHEST_UNBOUNDED if unbounded else 0.5 + FURTHEST):
        return None
    cure = "beta, discriminator_weight or step_size" if settings.variant == "sgld" else "step_size"
    return f"a pixel goes {furthest:.3g} from gray, of a range of ± 0.5; valid: a smaller {cure} of langevin"


def _rows(values: list[float], params: Tensor) -> Tensor:
    return torch.tensor(values, dtype=params.dtype, device=params.device).view(-1, *[1] * (params.ndim - 1))
