"""Several answers to one question: images of the same unit that differ from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from proxygrad.optim.update_rules import normalize


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
