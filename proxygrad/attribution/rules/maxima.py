"""Maxima: pooling, maxima over dimensions, and the larger of two tensors.

Where the same value wins in both states, it has the difference. Where the winners differ, all of it goes to
the winner of the state whose maximum is larger: its own difference is at least that of the maxima, so that
the multiplier is between 0 and 1 and the sum is exact. (shap's rule for max pooling; captum's is the same for
a window of two states. The authors' code takes the gradient.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from proxygrad.attribution.recording.steps import Step
from proxygrad.attribution.rules.midpoint import Multipliers, Sent


def pooled(step: Step, multipliers: Multipliers) -> Sent:
    """``max_pool2d_with_indices`` and its kin: indices count the positions of a plane."""
    operand, (out, indices) = step.varying[0], step.outs[:2]
    given = multipliers[0]
    assert out is not None
    assert indices is not None
    assert given is not None
    spatial = 3 if "3d" in step.name else 2
    shape = operand.place.shape
    winners = torch.where(out.x >= out.x0, indices.x, indices.x0).flatten(-spatial)
    sent = _to_winners(operand.delta.flatten(-spatial), winners, out.delta.flatten(-spatial), given)
    return [(operand, sent.view(shape))]


def over_dimensions(step: Step, multipliers: Multipliers) -> Sent:
    """``amax``, ``max``, ``amin``, ``min`` over some dimensions or all; of masks ``any``, ``all``."""
    operand, out, given = step.varying[0], step.outs[0], multipliers[0]
    assert out is not None
    assert given is not None
    ndim = len(operand.place.shape)
    named: Any = step.arguments.get("dim")
    named = [named] if isinstance(named, int) else named
    over = sorted({each % ndim for each in (named or range(ndim))}) if ndim else []
    kept = [each for each in range(ndim) if each not in over]
    sign = -1 if "min" in step.name or step.name == "all" else 1
    states = (each if each.is_floating_point() else each.double() for each in (operand.x, operand.x0))
    rows = tuple(_rows(each, kept, over) for each in states)  # (kept, over)
    best, best0 = ((sign * each).max(dim=-1, keepdim=True) for each in rows)
    winners = torch.where(best.values >= best0.values, best.indices, best0.indices)
    delta = _rows(operand.delta, kept, over)
    sent = _to_winners(delta, winners, sign * (best.values - best0.values), given)
    inverse = sorted(range(ndim), key=[*kept, *over].__getitem__)
    sizes = [operand.place.shape[each] for each in (*kept, *over)]
    return [(operand, sent.view(sizes).permute(inverse) if ndim else sent.view(()))]


def of_two(step: Step, multipliers: Multipliers) -> Sent:
    """``maximum(a, b)``, ``minimum(a, b)`` of two tensors that vary."""
    a, b = step.operands
    out, given = step.outs[0], multipliers[0]
    assert out is not None
    assert given is not None
    sign = -1 if "min" in step.name else 1
    first = torch.where(sign * out.x >= sign * out.x0, sign * a.x >= sign * b.x, sign * a.x0 >= sign * b.x0)
    sent = []
    for operand, wins in ((a, first), (b, ~first)):
        own = operand.delta.expand(out.place.shape)
        slope = torch.where(own == 0, 1.0, out.delta / torch.where(own == 0, 1.0, own))
        sent.append((operand, torch.where(wins, given * slope, 0.0).sum_to_size(operand.place.shape)))
    return sent


def _rows(value: Tensor, kept: list[int], over: list[int]) -> Tensor:
    moved = value.permute([*kept, *over])
    return moved.reshape(*moved.shape[: len(kept)], -1)


def _to_winners(delta: Tensor, winners: Tensor, of_maximum: Tensor, given: Tensor) -> Tensor:
    """``given`` times the share of each winner, at its place in rows like ``delta``."""
    own = delta.gather(-1, winners)
    slope = torch.where(own == 0, 1.0, of_maximum / torch.where(own == 0, 1.0, own))
    return torch.zeros_like(delta).scatter_add(-1, winners, given.reshape(slope.shape) * slope)
