"""DeepLIFT of one slice of rows: two passes, side by side, and one backward with a rule for each operation.

Input and reference run one after the other, and not as one batch, so that nothing need be known of where a
network keeps its batch: tokens first, windows folded in, one image at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from proxygrad.attribution.choice import RuleName
from proxygrad.attribution.multipliers import Account, How, backward
from proxygrad.attribution.recording.steps import Operand, aligned
from proxygrad.attribution.recording.tape import Recorder, SlowPaths, Tape, watch_modules
from proxygrad.attribution.rules.decompositions import DECOMPOSITIONS, attention
from proxygrad.attribution.target import Target
from proxygrad.errors import InvalidRequest, NetworkError
from proxygrad.networks.capture import first_tensor


class Found(NamedTuple):
    """Of rows: multipliers and differences ``(R, *S)``, values ``(R,)`` of input and reference."""

    multipliers: Tensor
    difference: Tensor
    value: Tensor
    reference_value: Tensor
    account: Account


def deeplift(
    target: Target,
    inputs: Tensor,
    references: Tensor,
    rules: Mapping[str, RuleName],
    at: str | None,
    strict: bool,
) -> Found:
    """Multipliers of the network's input ``(R, *S)``, or of the layer ``at``."""
    # of the same strides, whatever the caller's are
    tape, other = (_recorded(target, each.contiguous(), at, rules) for each in (inputs, references))
    steps = aligned(tape, other)
    for each in (tape, other):
        each.calls.clear()  # so that numbers are freed as the steps go by
    output = _both(tape.output, other.output)
    how = How(rules, strict, tokens=not inputs.is_floating_point())
    adjoints, account = backward(steps, output, tape.inner_from, how)
    begin = _both(tape.inner or tape.input, other.inner or other.input)
    found = adjoints.read(begin.place)
    multipliers = torch.zeros_like(begin.x) if found is None else found
    difference = begin.delta
    if at is not None:
        rows = len(inputs)
        multipliers, difference = (target.arranged(at, each, rows) for each in (multipliers, difference))
    return Found(multipliers, difference, output.x, output.x0, account)


def _both(place: Any, reference: Any) -> Operand:
    return Operand(place, reference)


def _recorded(target: Target, inputs: Tensor, at: str | None, rules: Mapping[str, RuleName]) -> Tape:
    recorder = Recorder(DECOMPOSITIONS)
    tape = recorder.tape

    def returned(layer: str, output: Any) -> None:
        if at is None or layer != at.removesuffix("@1"):
            return
        value = first_tensor(output)
        if value is None:
            raise NetworkError(f"layer {at!r} returns no floating-point tensor")
        tape.inner, tape.inner_from = recorder.place(value), len(tape.calls)

    inputs = inputs.detach().clone(memory_format=torch.contiguous_format)
    with torch.no_grad(), SlowPaths(attention), watch_modules(recorder, target.modules, returned):
        tape.input = recorder.follow(inputs)
        with recorder:
            output = target(inputs)
        tape.output = recorder.place(output)
    if not tape.output.varies:
        raise NetworkError("the objective does not depend on the input")
    for call in rules:
        if "@" in call and call not in recorder.ran:
            raise InvalidRequest(f"rule for {call!r}, which does not run before the objective is there")
    if at is not None and tape.inner is None:
        raise InvalidRequest(f"layer {at!r} does not run before the objective is there")
    return tape
