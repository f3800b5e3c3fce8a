"""Division, softmax, log-softmax and log-sum-exp: products with Rescale of the function inside.

``a / b`` is ``a`` times ``1 / b``. Softmax is ``exp(x - L)`` with ``L = log(sum(exp(x)))``, Rescale for each
function and numbers that stay in range whatever the size of ``x``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from proxygrad.attribution.recording.steps import Operand, Step, bounded
from proxygrad.attribution.rules.midpoint import Multipliers, Sent, midpoint


def divided(step: Step, multipliers: Multipliers) -> Sent:
    """``a / b``: ``a`` times ``1 / b`` as in `scaled`; ``m_a`` is 1 by the mean of ``b`` and ``b0``."""
    a, b = step.arguments["self"], step.arguments["other"]
    given = multipliers[0]
    assert given is not None
    if not isinstance(b, Operand) or not b.varies:
        return midpoint(step, multipliers)
    share = torch.where(b.x * b.x0 > 0, b.x / (b.x + b.x0), 0.5)
    between = share * a.x0 + (1 - share) * a.x
    sent = [(b, (-given * between / (b.x * b.x0)).sum_to_size(b.place.shape))]
    if a.varies:
        sent.append((a, (given * (share / b.x + (1 - share) / b.x0)).sum_to_size(a.place.shape)))
    return sent


def scaled(step: Step, multipliers: Multipliers, scale: Operand) -> Sent:
    """``a r`` where ``r``, ``scale``, is one by something: ``m_a = w r + (1 - w) r0``,
    ``m_r = w a0 + (1 - w) a``.

    That is exact for each ``w``, and with ½ the product rule. Here ``w`` is ``r0 / (r + r0)``, and ``m_a``
    the harmonic mean of ``r`` and ``r0``. So a norm that one of both states has next to none of, as a layer
    norm of a constant, gives no multipliers as large as its reciprocal. Where the signs of ``r`` and ``r0``
    differ, ½.
    """
    a = next(each for each in step.operands if each is not scale)
    given, r, r0 = multipliers[0], scale.x, scale.x0
    assert given is not None
    share = torch.where(r * r0 > 0, r0 / (r + r0), 0.5)
    yield scale, (given * (share * a.x0 + (1 - share) * a.x)).sum_to_size(scale.place.shape)
    yield a, (given * (share * r + (1 - share) * r0)).sum_to_size(a.place.shape)


def scale_of(step: Step, writer: Callable[[Operand, int], Step | None]) -> Operand | None:
    """The factor of a product of two that is one by something: what its ``writer`` returned."""
    if step.name != "mul" or len(step.varying) != 2:
        return None
    for each in step.varying:
        made_by = writer(each, step.index)
        while made_by is not None and made_by.name in ("mul", "_to_copy") and len(made_by.varying) == 1:
            made_by = writer(made_by.varying[0], made_by.index)
        if made_by is not None and made_by.name in ("rsqrt", "reciprocal"):
            return each
    return None


def softmax(step: Step, multipliers: Multipliers) -> Sent:
    """``_softmax`` over one dimension; ``_safe_softmax``, which is 0 where all of a row is masked."""
    operand, given, dim = _parts(step, multipliers)
    x, x0, total, total0 = *_both(operand), *(each.logsumexp(dim, keepdim=True) for each in _both(operand))
    u, u0 = (torch.where(each.isinf(), each, each - of) for each, of in ((x, total), (x0, total0)))
    inner = given * _exp_slope(u, u0)
    outer = inner.sum(dim, keepdim=True) * _log_sum_exp_slopes(x, x0, total, total0, dim)
    return [(operand, inner - torch.where(total.isinf() | total0.isinf(), 0.0, outer))]


def log_softmax(step: Step, multipliers: Multipliers) -> Sent:
    """``_log_softmax`` over one dimension."""
    operand, given, dim = _parts(step, multipliers)
    x, x0, total, total0 = *_both(operand), *(each.logsumexp(dim, keepdim=True) for each in _both(operand))
    return [(operand, given - given.sum(dim, keepdim=True) * _log_sum_exp_slopes(x, x0, total, total0, dim))]


def log_sum_exp(step: Step, multipliers: Multipliers) -> Sent:
    """``logsumexp`` over one dimension or several."""
    operand, given, dim = _parts(step, multipliers)
    x, x0, total, total0 = *_both(operand), *(each.logsumexp(dim, keepdim=True) for each in _both(operand))
    return [(operand, given.reshape(total.shape) * _log_sum_exp_slopes(x, x0, total, total0, dim))]


def _parts(step: Step, multipliers: Multipliers) -> tuple[Operand, Tensor, Any]:
    assert multipliers[0] is not None
    return step.varying[0], multipliers[0], step.arguments["dim"]


def _both(operand: Operand) -> tuple[Tensor, Tensor]:
    return operand.x, operand.x0


def _exp_slope(x: Tensor, x0: Tensor, shift: Tensor | float = 0.0) -> Tensor:
    """``(exp(x) - exp(x0)) / (x - x0)``, both ``exp(-shift)`` times; 0 where both are minus infinity."""
    difference = bounded(x - x0)
    close = difference.abs() < 1
    half = torch.where(close, difference / 2, 1.0)
    bulge = torch.where(half == 0, 1.0, half.sinh() / torch.where(half == 0, 1.0, half))
    middle = torch.where(x == x0, x, (x + x0) / 2)
    plain = ((x - shift).exp() - (x0 - shift).exp()) / torch.where(close, 1.0, difference)
    return torch.where(close, (middle - shift).exp() * bulge, plain)


def _log_sum_exp_slopes(x: Tensor, x0: Tensor, total: Tensor, total0: Tensor, dim: Any) -> Tensor:
    """Of each ``x`` in ``log(sum(exp(x)))``: Rescale of the logarithm times Rescale of the exponential."""
    shift = torch.maximum(total, total0)
    shift = torch.where(shift.isinf(), 0.0, shift)
    each = _exp_slope(x, x0, shift)
    sums, sums0 = (total - shift).exp(), (total0 - shift).exp()
    moved = (each * bounded(x - x0)).sum(dim, keepdim=True)
    small = moved.abs() <= torch.finfo(x.dtype).eps ** (1 / 3) * shift.new_ones(())
    quotient = bounded(total - total0) / torch.where(small, 1.0, moved)
    return each * torch.where(small, 2 / (sums + sums0), quotient)
