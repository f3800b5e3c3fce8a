"""Functions of one number each: Rescale, and RevealCancel where the parts of the difference are known.

Rescale (Shrikumar, Greenside and Kundaje, "Learning Important Features Through Propagating Activation
Differences", arXiv 1704.02685, section 3.5.2): ``m = (f(x) - f(x0)) / (x - x0)``, the derivative where there
is no difference. RevealCancel (section 3.5.3) has one multiplier for the positive part ``p`` of ``x - x0``
and one for the negative part ``n``, each the mean of what the part does first and second:
``f+ = ((f(x0 + p) - f(x0)) + (f(x0 + n + p) - f(x0 + n))) / 2``, ``m+ = f+ / p``.

The quotient of two differences is rounding where they are small beside the numbers themselves. There Rescale
takes the derivative: of functions with corners, whose lines are exact, at the reference, and only below
`ULPS` units in the last place; of smooth ones halfway between, where both differences are shares below the
root of epsilon. For square roots and their like the slope there has a closed form. The scale is that of each
number and not of the whole layer, so that no image of a batch changes the result of another.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from proxygrad.attribution.recording.steps import Operand, Step, bounded
from proxygrad.attribution.rules.midpoint import Multipliers, Sent, differentiated

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
#: Smooth functions that curve over a length of the size of ``x``; all others over one of about 1.
_SCALE_FREE = {"log", "log2", "log10", "pow", "float_power"}
#: No difference: fewer units in the last place than this, where a quotient would be good to a tenth.
ULPS = 8


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
    quotient = out.delta / torch.where(difference == 0, 1.0, difference)
    epsilon = torch.finfo(difference.dtype).eps
    size, size_y = (bounded(torch.maximum(a.abs(), b.abs())) for a, b in ((x, x0), (y, y0)))
    if (closed := _closed(step, x, x0, y, y0)) is not None:
        small = out.delta.abs() <= epsilon**0.5 * size_y
        return torch.where(small | (difference == 0), closed, quotient)
    if step.name in SMOOTH:
        share, at = epsilon**0.5, operand.middle
        length = size if step.name in _SCALE_FREE else torch.ones_like(size)
        same = (difference.abs() <= share * length) & (out.delta.abs() <= share * size_y)
    else:
        same, at = difference.abs() <= ULPS * epsilon * torch.maximum(size, size_y), x0
    if not bool(same.any()):
        return quotient
    tangent = derivative(step, operand, at).nan_to_num(0.0, posinf=0.0, neginf=0.0)  # log at 0 in both states
    return torch.where(same, tangent, quotient)


def _closed(step: Step, x: Tensor, x0: Tensor, y: Tensor, y0: Tensor) -> Tensor | None:
    """``(y - y0) / (x - x0)`` without a difference, for square roots and their like."""
    power = {"square": 2, "sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1}.get(step.name)
    if step.name == "pow" and not isinstance(step.arguments["self"], float | int):
        power = step.arguments["exponent"]
    match power:
        case 2:
            return x + x0
        case 0.5:
            return torch.where(y + y0 == 0, 0.0, 1 / (y + y0))
        case -0.5:
            return -((y * y0) ** 2) / (y + y0)
        case -1:
            return -y * y0
    return None


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
    function: Callable[[Tensor], Tensor], x0: Tensor, out: Operand, parts: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """RevealCancel: ``(m+, m-)`` for the parts of the difference from ``x0``, all in its shape.

    ``out``: what the function returned.
    """
    (positive, negative), y, y0 = parts, out.x, out.x0
    first, second = function(x0 + positive), function(x0 + negative)
    of_positive = ((first - y0) + (y - second)) / 2
    of_negative = ((second - y0) + (y - first)) / 2
    scale = torch.stack([x0.abs(), positive.abs(), negative.abs(), y.abs(), y0.abs()]).amax(0)
    return _quotient(of_positive, positive, scale), _quotient(of_negative, negative, scale)


def _quotient(moved: Tensor, part: Tensor, scale: Tensor) -> Tensor:
    """``moved / part``, and 0 where there is no part but for rounding.

    The authors' code adds 1e-7 to such parts (`pseudocount_near_zero`), whatever their scale, which comes to
    the same for numbers of their size.
    """
    none = part.abs() <= torch.finfo(part.dtype).eps * scale
    return torch.where(none, 0.0, moved / torch.where(none, 1.0, part))
