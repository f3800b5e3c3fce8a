"""Functions of one number each: Rescale, and RevealCancel where the parts of the difference are known.

Rescale (Shrikumar, Greenside and Kundaje, "Learning Important Features Through Propagating Activation
Differences", arXiv 1704.02685, section 3.5.2): ``m = (f(x) - f(x0)) / (x - x0)``, the derivative where there
is no difference. RevealCancel (section 3.5.3) has one multiplier for the positive part ``p`` of ``x - x0``
and one for the negative part ``n``, each the mean of what the part does first and second:
``f+ = ((f(x0 + p) - f(x0)) + (f(x0 + n + p) - f(x0 + n))) / 2``, ``m+ = f+ / p``.

The quotient of two differences is rounding where they are small beside the numbers themselves. There Rescale
takes the derivative: of functions made of straight lines, which are exact, at the reference and below `ULPS`
units in the last place; of smooth ones halfway, below ``epsilon ** (1/3)``, where the error of either is the
same. The scale is that of each number, and not of the whole layer, so that no image of a batch changes
another's result.
"""

from __future__ import annotations

import torch
from torch import Tensor

from proxygrad.attribution.rules.midpoint import Multipliers, Sent, differentiated
from proxygrad.attribution.steps import Operand, Step

#: Functions made of straight lines or jumps, and others with a corner.
_CORNERED_TEXT = (
    "relu leaky_relu _prelu_kernel hardtanh relu6 hardsigmoid hardswish threshold clamp clamp_min clamp_max "
    "rrelu_with_noise rrelu_with_noise_functional hardshrink softshrink abs sign sgn floor ceil round trunc "
    "frac maximum minimum fmax fmin fmod remainder heaviside nan_to_num relu_ clip"
)
CORNERED = frozenset(_CORNERED_TEXT.split())
#: Functions that are smooth, or smooth enough: ELU and its kin have a derivative everywhere.
_SMOOTH_TEXT = (
    "elu selu celu silu mish gelu softplus sigmoid tanh exp exp2 expm1 log log2 log10 log1p sqrt rsqrt "
    "reciprocal pow square sin cos tan sinh cosh asin acos atan asinh acosh atanh erf erfc erfinv logit "
    "lgamma digamma sinc xlogy atan2 float_power special_erfcx special_log_ndtr special_ndtr i0 "
    "log_sigmoid_forward"
)
SMOOTH = frozenset(_SMOOTH_TEXT.split())
#: No difference: fewer units in the last place than this, where a quotient would be good to a tenth.
ULPS = 8
#: Positive and negative parts below it are no parts (Shrikumar et al.'s code, `pseudocount_near_zero`).
PSEUDO_COUNT = 1e-7


def rescale(step: Step, multipliers: Multipliers) -> Sent:
    """``(f(x) - f(x0)) / (x - x0)``; step has one operand that varies."""
    operand, given = step.varying[0], multipliers[0]
    assert given is not None
    return [(operand, (given * slopes(step, operand)).sum_to_size(operand.place.shape))]


def slopes(step: Step, operand: Operand) -> Tensor:
    """The slope of the line through reference and input, in the shape of the output."""
    out = step.outs[0]
    assert out is not None
    x, x0, y, y0 = operand.x, operand.x0, out.x, out.x0
    difference = operand.delta
    smooth = step.name in SMOOTH
    epsilon = torch.finfo(difference.dtype).eps
    share = epsilon ** (1 / 3) if smooth else ULPS * epsilon
    scale = torch.maximum(torch.maximum(x.abs(), x0.abs()), torch.maximum(y.abs(), y0.abs()))
    same = difference.abs() <= share * scale
    quotient = out.delta / torch.where(difference == 0, 1.0, difference)
    if not bool(same.any()):
        return quotient
    return torch.where(same, derivative(step, operand, operand.middle if smooth else x0), quotient)


def derivative(step: Step, operand: Operand, at: Tensor) -> Tensor:
    """``f'`` in the shape of the output."""
    shape = step.outs[0].place.shape if step.outs[0] is not None else operand.place.shape
    ones = at.new_ones(()).expand(shape)
    spread = at.expand(shape) if at.shape != shape else at
    found = list(differentiated(step, [ones], lambda _: spread))
    return found[0][1] if found else torch.zeros_like(spread)


def evaluated(step: Step, operand: Operand, at: Tensor) -> Tensor:
    """``f`` at other numbers than those of the passes."""
    value = step.run({operand: at})
    result: Tensor = value[0] if isinstance(value, tuple) else value
    return result


def reveal(
    step: Step, positive: Tensor, negative: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """RevealCancel: ``(f+, f-)`` and ``(m+, m-)`` of the parts of the difference, all in its shape."""
    operand, out = step.varying[0], step.outs[0]
    assert out is not None
    x0, y, y0 = operand.x0, out.x, out.x0
    first, second = evaluated(step, operand, x0 + positive), evaluated(step, operand, x0 + negative)
    of_positive = ((first - y0) + (y - second)) / 2
    of_negative = ((second - y0) + (y - first)) / 2
    slopes = of_positive / _away_from_0(positive), of_negative / _away_from_0(negative)
    return (of_positive, of_negative), slopes


def _away_from_0(part: Tensor) -> Tensor:
    near = part.abs() < PSEUDO_COUNT
    return torch.where(near, part + torch.where(part < 0, -PSEUDO_COUNT, PSEUDO_COUNT), part)
