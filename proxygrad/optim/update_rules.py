"""Update rules: how a gradient becomes a step up.

``step(params (B, *P), gradient, rates (B,), state, step (B,)) → params``: each row is a lane, and nothing
passes between rows. `rate` is the schedule, from the step size asked for linearly down to 0.

Every rule first brings each lane's gradient to a root mean square of 1. Activations and their gradients
differ by many orders of magnitude between units, layers and networks; so one step size suits all of them,
and the gradient activations of Liu et al. meet the values they bend. `Normalized` steps along it: a
step of ``rate`` changes a parameter by ``rate`` in root mean square. `Sgd` and `Adam` are torch's, of
that gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from proxygrad.spec.settings import GafName, UpdateName

#: α and β of every gradient activation, as in Liu et al.'s runs (arXiv 2107.04228): (0.1, 20).
GAF_ALPHA, GAF_BETA = 0.1, 20.0


def rate(step_size: float, step: int, steps: int) -> float:
    """Length of step ``step`` (from 0) of ``steps``: from ``step_size`` down to ``step_size / steps``."""
    return step_size * (1 - step / steps)


def normalize(gradient: Tensor) -> Tensor:
    """Each image's gradient at a root mean square of 1; zero stays zero. ``(B, *P)`` → the same.

    Divided by the largest entry first: squares of gradients as small as 1e-30 would vanish in float32.
    """
    dims = tuple(range(1, gradient.ndim))
    largest = gradient.abs().amax(dim=dims, keepdim=True)  # (B, 1, …)
    scaled = gradient / torch.where(largest > 0, largest, 1)
    length = scaled.square().mean(dim=dims, keepdim=True).sqrt()
    return scaled / torch.where(length > 0, length, 1)


def normalized_ascent(images: Tensor, gradient: Tensor, rates: Tensor) -> Tensor:
    """One step up for each image, kept in [0, 1]; an image whose gradient is zero stays as it is.

    ``images``, ``gradient``: ``(B, C, H, W)``; ``rates``: ``(B,)``, each a root mean square change per value.
    """
    return (images + rates.view(-1, 1, 1, 1) * normalize(gradient)).clamp(0, 1)


def _unbent(gradient: Tensor) -> Tensor:
    return gradient


def _atan(gradient: Tensor) -> Tensor:
    return GAF_ALPHA * torch.atan(GAF_BETA * gradient)


def _tanh(gradient: Tensor) -> Tensor:
    return GAF_ALPHA * torch.tanh(GAF_BETA * gradient)


def _log(gradient: Tensor) -> Tensor:
    return GAF_ALPHA * gradient.sign() * torch.log1p(GAF_BETA * gradient.abs())


_GAFS: dict[GafName, Callable[[Tensor], Tensor]] = {
    "none": _unbent,
    "atan": _atan,
    "tanh": _tanh,
    "log": _log,
}


def gaf(name: GafName) -> Callable[[Tensor], Tensor]:
    """A gradient activation function: element-wise, odd, monotone, zero at zero (arXiv 2107.04228).

    ``atan``: ``α atan(βg)``; ``tanh``: ``α tanh(βg)``; ``log``: ``α sign(g) log(1 + β|g|)``; ``none``: g.
    Small entries grow against large ones; a gradient of zero stays zero, so no dead unit is revived.
    """
    if name not in _GAFS:
        raise ValueError(f"gradient activation {name!r}; there are {', '.join(map(repr, _GAFS))}")
    return _GAFS[name]


class UpdateRule(Protocol):
    """One rule for all lanes of a group.

    ``state_names`` are the tensors ``(B, *P)`` that the rule keeps between steps, zero when a lane joins;
    `step` puts their next values into ``state``. Rows may join and leave between steps.
    """

    state_names: ClassVar[tuple[str, ...]]

    def step(
        self, params: Tensor, gradient: Tensor, rates: Tensor, state: dict[str, Tensor], step: Tensor
    ) -> Tensor:
        """The next parameters; ``rates`` ``(B,)``, ``step`` ``(B,)`` the steps each lane has done before."""


@dataclass(frozen=True)
class Normalized:
    """Along the gradient, by ``rate`` in root mean square. Without memory.

    The gradient activation bends the direction: it acts on the normalized gradient, which is then normalized
    again, so α has no effect and the step keeps its length.
    """

    gaf: GafName = "none"
    state_names: ClassVar[tuple[str, ...]] = ()

    def step(
        self, params: Tensor, gradient: Tensor, rates: Tensor, state: dict[str, Tensor], step: Tensor
    ) -> Tensor:
        """``params + rate · g``, g of root mean square 1, or 0 where there is no gradient."""
        direction = normalize(gradient)
        if self.gaf != "none":
            direction = normalize(gaf(self.gaf)(direction))
        return params + _rows(rates, params) * direction


@dataclass(frozen=True)
class Sgd:
    """Gradient ascent with momentum, as `torch.optim.SGD` of the normalized gradient (dampening 0).

    The gradient activation acts after the momentum, on what is added; the stored momentum stays as it is
    (Liu et al., algorithm for SGD). ``momentum`` 0.9 is theirs and the usual one.
    """

    gaf: GafName = "none"
    momentum: float = 0.9
    state_names: ClassVar[tuple[str, ...]] = ("momentum",)

    def step(
        self, params: Tensor, gradient: Tensor, rates: Tensor, state: dict[str, Tensor], step: Tensor
    ) -> Tensor:
        """``m ← momentum · m + g; params + rate · gaf(m)``."""
        state["momentum"] = self.momentum * state["momentum"] + normalize(gradient)
        return params + _rows(rates, params) * gaf(self.gaf)(state["momentum"])


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) of the normalized gradient, as `torch.optim.Adam`.

    The gradient activation acts on the gradient before both averages (Liu et al., algorithm for Adam).
    ``beta1``, ``beta2`` and ``epsilon`` are the paper's.
    """

    gaf: GafName = "none"
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    state_names: ClassVar[tuple[str, ...]] = ("mean", "square")

    def step(
        self, params: Tensor, gradient: Tensor, rates: Tensor, state: dict[str, Tensor], step: Tensor
    ) -> Tensor:
        """``params + rate · m̂ / (√v̂ + ε)``, both averages corrected for their start at 0."""
        bent = gaf(self.gaf)(normalize(gradient))
        state["mean"] = torch.lerp(bent, state["mean"], self.beta1)
        state["square"] = torch.lerp(bent.square(), state["square"], self.beta2)
        count = (step + 1).to(params.dtype)
        mean = state["mean"] / _rows(1 - self.beta1**count, params)
        square = state["square"] / _rows(1 - self.beta2**count, params)
        return params + _rows(rates, params) * mean / (square.sqrt() + self.epsilon)


_RULES: dict[UpdateName, type[Normalized | Sgd | Adam]] = {
    "normalized": Normalized,
    "sgd": Sgd,
    "adam": Adam,
}
UPDATES: tuple[UpdateName, ...] = tuple(_RULES)


def update_rule(name: UpdateName, gaf: GafName = "none") -> UpdateRule:
    """The rule of that name with that gradient activation."""
    if name not in _RULES:
        raise ValueError(f"update {name!r}; there are {', '.join(map(repr, _RULES))}")
    if gaf not in _GAFS:
        raise ValueError(f"gradient activation {gaf!r}; there are {', '.join(map(repr, _GAFS))}")
    return _RULES[name](gaf=gaf)


def new_state(rule: UpdateRule, params: Tensor) -> dict[str, Tensor]:
    """The state of lanes that join with ``params`` ``(B, *P)``: zeros."""
    return {name: torch.zeros_like(params) for name in rule.state_names}


def _rows(values: Tensor, params: Tensor) -> Tensor:
    """``(B,)`` → ``(B, 1, …)``, to multiply rows of ``params``."""
    return values.to(params).view(-1, *[1] * (params.ndim - 1))
