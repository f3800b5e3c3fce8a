"""Which rule an operation has, by its name in aten and by what of it varies."""

from __future__ import annotations

import torch

from proxygrad.attribution.recording.steps import Operand, Step
from proxygrad.attribution.rules import elementwise, maxima, midpoint, quotients, switches
from proxygrad.attribution.rules.midpoint import Multipliers, Rule, Sent

_BY_NAME: dict[str, Rule] = {
    **dict.fromkeys(midpoint.NAMES, midpoint.midpoint),
    **dict.fromkeys(("div", "divide", "true_divide"), quotients.divided),
    **dict.fromkeys(("_softmax", "_safe_softmax"), quotients.softmax),
    "_log_softmax": quotients.log_softmax,
    "logsumexp": quotients.log_sum_exp,
    **dict.fromkeys(switches.COMPARISONS, switches.compared),
    "where": switches.chosen,
    "masked_fill": switches.filled,
    **dict.fromkeys(("index_put", "_unsafe_index_put", "_index_put_impl"), switches.put),
    **dict.fromkeys(
        (f"{kind}_{name}" for kind in ("bitwise", "logical") for name in ("and", "or", "xor", "not")),
        switches.combined,
    ),
    **dict.fromkeys(
        (
            "max_pool2d_with_indices",
            "max_pool3d_with_indices",
            "adaptive_max_pool2d",
            "adaptive_max_pool3d",
            "fractional_max_pool2d",
            "fractional_max_pool3d",
        ),
        maxima.pooled,
    ),
    **dict.fromkeys(("amax", "amin", "max", "min", "any", "all"), maxima.over_dimensions),
}
#: Operations that are functions of one number each where one operand varies, and two of them maxima.
_OF_TWO = {"maximum", "minimum", "fmax", "fmin", "max", "min"}


def _nothing(step: Step, multipliers: Multipliers) -> Sent:
    return []


def rule_of(step: Step, tokens: bool = False) -> Rule | None:
    """The rule, or None for an operation that has none.

    ``tokens``: the network's input is of whole numbers, which have no multipliers. What is read off them
    alone, such as an embedding or a mask, begins there.
    """
    name, varying = step.name, step.varying
    if tokens and not any(each.has_multipliers for each in varying):
        return _nothing
    if _chooses_by_what_varies(step) or _curves(step):
        return None
    if name in _OF_TWO and len(varying) == 2:
        return maxima.of_two
    rounds = name in ("div", "divide") and bool(step.arguments.get("rounding_mode"))
    if is_elementwise(step) or (rounds and len(varying) == 1):
        return elementwise.rescale
    return None if rounds else _by_name(step)


def _by_name(step: Step) -> Rule | None:
    to_numbers = all(out is None or out.place.memory.dtype.is_floating_point for out in step.outs)
    if step.name == "_to_copy" and not to_numbers:
        return switches.compared
    return _BY_NAME.get(step.name)


def _chooses_by_what_varies(step: Step) -> bool:
    """Whole numbers, as of an index, have no multipliers; nor have masks that pick or write several."""
    if step.name in ("index_put", "_unsafe_index_put", "_index_put_impl"):
        return not switches.can_put(step)
    picks = step.name in ("index", "_unsafe_index", "masked_select", "masked_scatter")
    masks = any(each.place.memory.dtype == torch.bool for each in step.varying)
    return (picks and masks) or not all(each.has_multipliers for each in step.varying)


def _curves(step: Step) -> bool:
    """Of degree two at most it is in other operands than those that vary: where to sample, statistics."""
    fixed: tuple[str, ...] = {"grid_sampler_2d": ("grid",), "grid_sampler_3d": ("grid",)}.get(step.name, ())
    if "batch_norm" in step.name:
        fixed = "running_mean", "running_var"
        if step.arguments.get("training"):
            return True
    return any(isinstance(each := step.arguments[name], Operand) and each.varies for name in fixed)


def is_elementwise(step: Step) -> bool:
    """A function of one number each, one operand of which varies."""
    known = step.name in elementwise.SMOOTH or step.name in elementwise.CORNERED
    return known and len(step.varying) == 1
