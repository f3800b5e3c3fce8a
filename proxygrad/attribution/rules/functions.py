"""Functions of one number each that are written as several operations: rectifiers by their masks.

``where(x > 0, x, 0.1 * x)``, ``x * (x > 0)``, ``x.masked_fill(x < 0, 0)`` and ``x[x < 0] = 0`` are functions
of ``x`` like any other. Rescale is exact for them as it is (`proxygrad.attribution.rules.switches`); for
RevealCancel they are found here, by the mask that compares ``x``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from proxygrad.attribution.recording.steps import Operand, Step
from proxygrad.attribution.rules import elementwise, switches
from proxygrad.attribution.rules.table import is_elementwise

#: The last step that wrote all of an operand's memory before the step of an index; None where several did.
Writer = Callable[[Operand, int], Step | None]

_SWITCHES = {"where", "mul", "masked_fill", "index_put"}
_HANDING_ON = {"_to_copy", "logical_not", "bitwise_not"}
_SCALING = {"mul", "div", "neg", "add", "sub", "clone"}


class Function(NamedTuple):
    """What a step computes of ``operand`` alone, number by number."""

    operand: Operand
    at: Callable[[Tensor], Tensor]


def function_of(step: Step, writer: Writer) -> Function | None:
    """The function that ``step`` is; None where it is none."""
    if is_elementwise(step):
        (operand,) = step.varying
        return Function(operand, lambda at: elementwise.evaluated(step, operand, at))
    if step.name not in _SWITCHES or len(step.varying) < 2:
        return None
    roots = (_compared(each, step.index, writer) for each in step.varying)
    if (root := next((each for each in roots if each is not None), None)) is None:
        return None
    derived = {each: _derived(each, root, step.index, writer) for each in step.varying}
    functions = {each: function for each, function in derived.items() if function is not None}
    if len(functions) < len(derived):
        return None
    return Function(root, lambda at: step.run({each: function(at) for each, function in functions.items()}))


def _compared(mask: Operand, before: int, writer: Writer) -> Operand | None:
    """What a mask compares with a constant."""
    step = writer(mask, before)
    if step is None or len(step.varying) != 1:
        return None
    if step.name in switches.COMPARISONS:
        return step.varying[0]
    return _compared(step.varying[0], step.index, writer) if step.name in _HANDING_ON else None


def _derived(
    operand: Operand, root: Operand, before: int, writer: Writer
) -> Callable[[Tensor], Tensor] | None:
    """``operand`` as a function of ``root``."""
    if _same(operand, root):
        return lambda at: at
    step = writer(operand, before)
    if step is None or len(step.varying) != 1 or step.outs[0] is None:
        return None
    known = step.name in _HANDING_ON | _SCALING | switches.COMPARISONS or is_elementwise(step)
    if not known or step.outs[0].place.looks != operand.place.looks:
        return None
    (source,) = step.varying
    if (inner := _derived(source, root, step.index, writer)) is None:
        return None
    return lambda at: elementwise.evaluated(step, source, inner(at))


def _same(first: Operand, second: Operand) -> bool:
    a, b = first.place, second.place
    return a.memory is b.memory and a.version == b.version and a.looks == b.looks
