"""Update rules: how the gradient of each image becomes a step up.

Every rule first brings each lane's gradient to a root mean square of 1. Activations and their gradients
differ by many orders of magnitude between units, layers and networks; so one step size suits all of them,
and the gradient activations of Liu et al. meet the values for which they were made. `Normalized` steps along
it: a step of ``rate`` changes a parameter by ``rate`` in root mean square; `Whitened` does so after
whitening. `Sgd` and `Adam` are torch's, of that gradient. `rate` is the schedule, from the step size linearly
down to 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from proxygrad.optim.gradient_activations import GAFS, gaf, normalize, whiten
from proxygrad.spec.settings import GAF_ALPHA, GAF_BETA, GafName, UpdateName


def rate(step_size: float, step: int, steps: int) -> float:
    """Length of step ``step`` (from 0) of ``steps``: from ``step_size`` down to ``step_size / steps``."""
    return step_size * (1 - step / steps)


def normalized_ascent(images: Tensor, gradient: Tensor, rates: Tensor) -> Tensor:
    """One step up for each image, kept in [0, 1]; an image whose gradient is zero stays as it is.

    ``images``, ``gradient``: ``(B, C, H, W)``; ``rates``: ``(B,)``, each a root mean square change per value.
    """
    return (images + rates.view(-1, 1, 1, 1) * normalize(gradient)).clamp(0, 1)


@dataclass(frozen=True)
class StepContext:
    """Where each lane of a batch of B is in its ascent.

    ``rates``: ``(B,)``, the length of each lane's step. ``steps_done``: ``(B,)``, how many each has made
    before. ``generators``: one on the CPU for each lane, for a rule that draws noise. ``realism``: for
    `proxygrad.langevin.rules`, the gradient of a discriminator's log-probability, ``(B, *P)``.
    """

    rates: Tensor
    steps_done: Tensor
    generators: Sequence[torch.Generator] = ()
    realism: Tensor | None = None

    def rates_of(self, params: Tensor) -> Tensor:
        """The rates as ``(B, 1, …)``, to multiply the rows of ``params`` ``(B, *P)``."""
        return _rows(self.rates, params)

    def noise(self, params: Tensor) -> Tensor:
        """Standard normal noise like ``params`` ``(B, *P)``.

        Each row is drawn from its own lane's generator, so it depends neither on the device nor on the other
        lanes, and goes on from a checkpoint.
        """
        shape = params.shape[1:]
        rows = [torch.randn(shape, generator=each, dtype=torch.float32) for each in self.generators]
        return torch.stack(rows).to(params)


class UpdateRule(Protocol):
    """How a gradient becomes a step up; one rule serves all lanes of a batch.

    A rule of one's own is any object with these two members, for instance plain ascent::

        class Ascent:
            state_names = ()

            def step(self, params, gradient, state, context):
                return params + context.rates_of(params) * gradient

    Rows are lanes: nothing may pass between them, since lanes join and leave between steps.
    """

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the tensors ``(B, *P)`` that the rule keeps between steps; zero when a lane joins."""

    def step(
        self, params: Tensor, gradient: Tensor, state: dict[str, Tensor], context: StepContext
    ) -> Tensor:
        """The next parameters ``(B, *P)``, from these and their gradient.

        ``gradient`` points up, at any scale (`proxygrad.optim.gradient_activations.normalize`). The rule puts
        the next values of its tensors into ``state``.
        """


@dataclass(frozen=True)
class Normalized:
    """Along the gradient, by ``rate`` in root mean square. Without memory.

    The gradient activation bends the direction: it acts on the normalized gradient, which is then normalized
    again, so α has no effect and the step keeps its length. Penalties are in the gradient already, so
    that holds with them, too.
    """

    gaf: GafName = "none"
    gaf_alpha: float = GAF_ALPHA
    gaf_beta: float = GAF_BETA
    state_names: ClassVar[tuple[str, ...]] = ()

    def step(
        self, params: Tensor, gradient: Tensor, state: dict[str, Tensor], context: StepContext
    ) -> Tensor:
        """``params + rate · g``, g of root mean square 1, or 0 where there is no gradient."""
        direction = normalize(gradient)
        if self.gaf != "none":
            direction = normalize(gaf(self.gaf, self.gaf_alpha, self.gaf_beta)(direction))
        return params + context.rates_of(params) * direction


@dataclass(frozen=True)
class Whitened(Normalized):
    """`Normalized` along the whitened gradient, for pixels.

    Whitening gives all spatial frequencies the same magnitude, so that none of them outweighs the others. It
    is the rule of the ProxyGrad authors' earlier public code (Linse 2023). The gradient activation comes
    after it.
    """

    def step(
        self, params: Tensor, gradient: Tensor, state: dict[str, Tensor], context: StepContext
    ) -> Tensor:
        """``params + rate · whiten(g)``, of root mean square 1 under any gradient activation."""
        return super().step(params, whiten(gradient), state, context)


@dataclass(frozen=True)
class Sgd:
    """Gradient ascent with momentum, as `torch.optim.SGD` of the normalized gradient (dampening 0).

    The gradient activation acts after the momentum, on what is added; the stored momentum stays as it is
    (Liu et al., algorithm for SGD), so α is a factor of the rate. ``momentum`` 0.9 is theirs and the usual
    one.
    """

    gaf: GafName = "none"
    gaf_alpha: float = GAF_ALPHA
    gaf_beta: float = GAF_BETA
    momentum: float = 0.9
    state_names: ClassVar[tuple[str, ...]] = ("momentum",)

    def step(
        self, params: Tensor, gradient: Tensor, state: dict[str, Tensor], context: StepContext
    ) -> Tensor:
        """``m ← momentum · m + g; params + rate · gaf(m)``."""
        state["momentum"] = self.momentum * state["momentum"] + normalize(gradient)
        bent = gaf(self.gaf, self.gaf_alpha, self.gaf_beta)(state["momentum"])
        return params + context.rates_of(params) * bent


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) of the normalized gradient, as `torch.optim.Adam`.

    The gradient activation acts on the gradient before both averages (Liu et al., algorithm for Adam); the
    quotient of the two cancels α, but for ``epsilon``. ``beta1``, ``beta2`` and ``epsilon`` are the paper's.
    """

    gaf: GafName = "none"
    gaf_alpha: float = GAF_ALPHA
    gaf_beta: float = GAF_BETA
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    state_names: ClassVar[tuple[str, ...]] = ("mean", "square")

    def step(
        self, params: Tensor, gradient: Tensor, state: dict[str, Tensor], context: StepContext
    ) -> Tensor:
        """``params + rate · m̂ / (√v̂ + ε)``, both averages corrected for their start at 0."""
        bent = gaf(self.gaf, self.gaf_alpha, self.gaf_beta)(normalize(gradient))
        state["mean"] = torch.lerp(bent, state["mean"], self.beta1)
        state["square"] = torch.lerp(bent.square(), state["square"], self.beta2)
        count = (context.steps_done + 1).to(params.dtype)
        mean = state["mean"] / _rows(1 - self.beta1**count, params)
        square = state["square"] / _rows(1 - self.beta2**count, params)
        return params + context.rates_of(params) * mean / (square.sqrt() + self.epsilon)


_RULES: dict[UpdateName, type[Normalized | Sgd | Adam]] = {
    "normalized": Normalized,
    "sgd": Sgd,
    "adam": Adam,
    "whitened": Whitened,
}
UPDATES: tuple[UpdateName, ...] = tuple(_RULES)


def update_rule(
    name: UpdateName, gaf: GafName = "none", gaf_alpha: float = GAF_ALPHA, gaf_beta: float = GAF_BETA
) -> UpdateRule:
    """The rule of that name with that gradient activation; raises `ValueError` for an unknown one."""
    if name not in _RULES:
        raise ValueError(f"update {name!r}; there are {', '.join(map(repr, _RULES))}")
    if gaf not in GAFS:
        raise ValueError(f"gradient activation {gaf!r}; there are {', '.join(map(repr, GAFS))}")
    return _RULES[name](gaf, gaf_alpha, gaf_beta)


def new_state(rule: UpdateRule, params: Tensor) -> dict[str, Tensor]:
    """The state of lanes that join with ``params`` ``(B, *P)``: zeros."""
    return {name: torch.zeros_like(params) for name in rule.state_names}


def _rows(values: Tensor, params: Tensor) -> Tensor:
    """``(B,)`` → ``(B, 1, …)``, to multiply rows of ``params``."""
    return values.to(params).view(-1, *[1] * (params.ndim - 1))
