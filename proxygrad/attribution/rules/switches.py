"""Switches: comparisons, masks and what they choose between.

A mask is a number, 0 or 1, like any other. ``where(c, a, b)`` is ``c a + (1 - c) b``, a product, and ``c``
gets a multiplier, which Rescale hands on to what was compared. So ``where(x > 0, x, 0)``, ``x * (x > 0)`` and
``x.masked_fill(x < 0, 0)`` come out as ReLU does, without being recognized.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from proxygrad.attribution.recording.steps import Operand, Step, bounded
from proxygrad.attribution.rules.midpoint import Multipliers, Sent, midpoint

_COMPARISONS_TEXT = "gt ge lt le eq ne greater greater_equal less less_equal isclose"
COMPARISONS = frozenset(_COMPARISONS_TEXT.split())


def compared(step: Step, multipliers: Multipliers) -> Sent:
    """``a > b`` and its kin: Rescale of the jump, as a function of ``a - b``; for casts to a mask too."""
    out, given = step.outs[0], multipliers[0]
    assert out is not None
    assert given is not None
    signed = list(zip(step.operands, (1, -1), strict=False))
    sides = [sign * each.delta for each, sign in signed if each.varies]
    between: Any = sum(sides)
    slope = given * out.delta.to(given.dtype) / torch.where(between == 0, torch.inf, between)
    return [
        (each, sign * slope.sum_to_size(each.place.shape))
        for each, sign in signed
        if each.varies and each.has_multipliers
    ]


def chosen(step: Step, multipliers: Multipliers) -> Sent:
    """``where(c, a, b)``."""
    arguments = step.arguments
    condition = arguments["condition"]
    return _switched(condition, arguments["self"], arguments["other"], multipliers)


def filled(step: Step, multipliers: Multipliers) -> Sent:
    """``x.masked_fill(c, value)``: ``where(c, value, x)``."""
    arguments = step.arguments
    return _switched(arguments["mask"], arguments["value"], arguments["self"], multipliers)


def put(step: Step, multipliers: Multipliers) -> Sent:
    """``x[c] = value`` with one value for all; with indices that do not vary it is linear."""
    arguments = step.arguments
    if not _indices_vary(step):
        return midpoint(step, multipliers)
    return _switched(arguments["indices"][0], arguments["values"], arguments["self"], multipliers)


def can_put(step: Step) -> bool:
    """Whether `put` is exact: not where a mask that varies is one of several, or chooses between values."""
    arguments = step.arguments
    alone = len(arguments["indices"]) == 1 and arguments["values"].place.memory.numel == 1
    return not _indices_vary(step) or (alone and not arguments["accumulate"])


def _indices_vary(step: Step) -> bool:
    return any(isinstance(each, Operand) and each.varies for each in step.arguments["indices"])


def combined(step: Step, multipliers: Multipliers) -> Sent:
    """And, or, exclusive or, and not, of masks: polynomials of 0 and 1."""
    given = multipliers[0]
    assert given is not None
    if step.name.endswith("not"):
        return [(step.varying[0], -given)]
    a, b = step.operands
    sent = []
    for own, other in ((a, b), (b, a)):
        if own.varies and own.has_multipliers:
            slope = {"and": other.middle, "_or": 1 - other.middle}.get(step.name[-3:], 1 - 2 * other.middle)
            sent.append((own, (given * slope).sum_to_size(own.place.shape)))
    return sent


def _switched(condition: Any, yes: Any, no: Any, multipliers: Multipliers) -> Sent:
    given = multipliers[0]
    assert given is not None
    mask, mask0 = (_spread(each, given) for each in (condition.x, condition.x0))
    sent: list[tuple[Operand, Tensor]] = []
    part = (mask.to(given.dtype) + mask0.to(given.dtype)) / 2
    for operand, share in ((yes, part), (no, 1 - part)):
        if isinstance(operand, Operand) and operand.varies:
            sent.append((operand, (given * share).sum_to_size(operand.place.shape)))
    if condition.varies:
        apart = torch.as_tensor(_middle(yes) - _middle(no), dtype=given.dtype, device=given.device)
        gap = torch.where(mask == mask0, 0.0, bounded(apart.clone()))
        of_mask = (given * gap).expand(given.shape)
        shape: Sequence[int] = condition.place.shape
        while of_mask.ndim > len(shape) and condition.x.ndim and shape == given.shape[: len(shape)]:
            of_mask = of_mask.sum(-1)
        sent.append((condition, of_mask.sum_to_size(shape)))
    return sent


def _spread(mask: Tensor, like: Tensor) -> Tensor:
    """A mask of the leading dimensions, as of ``x[mask]``, or one that broadcasts."""
    leading = mask.ndim < like.ndim and mask.shape == like.shape[: mask.ndim]
    return mask.reshape(*mask.shape, *[1] * (like.ndim - mask.ndim)) if leading else mask


def _middle(value: Any) -> Any:
    return value.middle if isinstance(value, Operand) else value
