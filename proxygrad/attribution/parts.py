"""Positive and negative parts of differences, which RevealCancel tells apart.

A linear layer splits what it contributes by the sign of weight times input difference (arXiv 1704.02685,
section 3.5.1): the difference of its output is the sum of a positive and a negative part, and so on through
batch norm, scaling, sums and views. Behind anything else a difference is one part, by its own sign, and
RevealCancel is Rescale.

A function behind such a layer then has two multipliers for its input, one for each part. They wait at the
step that made the parts (`Parts.send`) until the pass backward is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from proxygrad.attribution.recording.adjoints import Adjoints, gathered, spread
from proxygrad.attribution.recording.steps import Operand, Step
from proxygrad.attribution.recording.tape import Place
from proxygrad.attribution.rules.midpoint import convolution_transposed, differentiated

Pair = tuple[Tensor, Tensor]
#: Differences, each with its multipliers: what these stand for is the sum of the products.
Products = list[tuple[Tensor, Tensor]]
Kind = Literal["convolution", "dense", ""]

#: Operations with weights that split by sign: the operands that hold input and weights, in either order.
_LINEAR: dict[str, tuple[str, str]] = {
    "convolution": ("input", "weight"),
    "mm": ("self", "mat2"),
    "addmm": ("mat1", "mat2"),
    "bmm": ("self", "mat2"),
    "baddbmm": ("batch1", "batch2"),
    "mv": ("self", "vec"),
    "addmv": ("mat", "vec"),
}
#: Operations that scale each number, or add such, and so keep its parts apart.
_SCALING_TEXT = (
    "native_batch_norm _native_batch_norm_legit_no_training cudnn_batch_norm mul div add sub rsub neg clone "
    "_to_copy copy"
)
_SCALING = frozenset(_SCALING_TEXT.split())


@dataclass(frozen=True)
class _Linear:
    """``input`` times ``weight``, whose names in aten are those."""

    input: Operand
    weight: Operand


class Parts:
    """The parts of what the steps of one tape wrote, from index ``since`` on, and what waits for them."""

    def __init__(self, steps: list[Step], since: int, adjoints: Adjoints) -> None:
        self._since = since
        self._steps = steps
        self._adjoints = adjoints
        self._known: dict[int, Pair] = {}
        self._waiting: dict[int, Pair] = {}

    def kind(self, operand: Operand, before: int) -> Kind:
        """The nearest linear layer behind which ``operand`` of step ``before`` lies."""
        step = self._maker(operand, before)
        if step is None:
            return ""
        if _linear(step) is not None:
            return "convolution" if step.name == "convolution" else "dense"
        kinds = {self.kind(each, step.index) for each in step.varying}
        return kinds.pop() if len(kinds) == 1 else ""

    def of(self, operand: Operand, before: int) -> Pair:
        """Positive and negative part of ``operand``'s difference, each in its shape."""
        step = self._maker(operand, before)
        if step is None:
            delta = operand.delta
            return delta.clamp(min=0), delta.clamp(max=0)
        out = step.outs[0]
        assert out is not None
        positive, negative = (_moved(each, out, operand) for each in self._of_step(step))
        return positive, negative

    def send(self, operand: Operand, before: int, pair: Pair) -> None:
        """Multipliers for the parts of ``operand``: they wait at the step that made them."""
        step = self._maker(operand, before)
        if step is None:
            self._adjoints.add(operand.place, _by_sign(operand.delta, pair))
            return
        out = step.outs[0]
        assert out is not None
        moved = tuple(_moved(each, operand, out) for each in pair)
        before_it = self._waiting.get(step.index)
        self._waiting[step.index] = (
            (moved[0], moved[1]) if before_it is None else (before_it[0] + moved[0], before_it[1] + moved[1])
        )

    def take(self, step: Step) -> Pair | None:
        """The multipliers that wait for the parts of what ``step`` wrote."""
        return self._waiting.pop(step.index, None)

    def hand_on(self, step: Step, pair: Pair) -> tuple[Products, Products]:
        """Send multipliers for the parts of what ``step`` wrote on to what it read.

        Returns differences with their multipliers, of what it wrote and of what it read.
        """
        before = list(zip(self._of_step(step), pair, strict=True))
        self._known.pop(step.index, None)
        if (linear := _linear(step)) is not None:
            sent = _transposed(step, linear, pair)
            self._adjoints.add(linear.input.place, sent)
            return before, [(linear.input.delta, sent)]
        after: Products = []
        for operand, slope in _slopes(step):
            rising = slope > 0
            turned = (torch.where(rising, *pair) * slope, torch.where(rising, *pair[::-1]) * slope)
            inner = self.of(operand, step.index)
            after += zip(inner, turned, strict=True)
            self.send(operand, step.index, turned)
        return before, after

    def writer(self, operand: Operand, before: int) -> Step | None:
        """The last step before that of index ``before`` to write to ``operand``'s memory, if it wrote all."""
        index, written_to = _last_write(operand, before)
        if written_to is None or index < self._since or written_to.version != operand.place.version:
            return None
        step = self._steps[index]
        out = step.outs[0]
        written = out is not None and out.place.memory is operand.place.memory and out.place.whole
        return step if written else None

    def is_there(self, operand: Operand, before: int) -> bool:
        """Whether the step of index ``before`` still finds what ``operand`` held."""
        _, place = _last_write(operand, before)
        return place is None or place.version == operand.place.version

    def _maker(self, operand: Operand, before: int) -> Step | None:
        """The writer of ``operand``, where what it wrote has parts."""
        step = self.writer(operand, before)
        return step if step is not None and (_linear(step) is not None or _scales(step)) else None

    def _of_step(self, step: Step) -> Pair:
        if step.index not in self._known:
            linear = _linear(step)
            self._known[step.index] = _split(step, linear) if linear is not None else self._scaled(step)
        return self._known[step.index]

    def _scaled(self, step: Step) -> Pair:
        positive: Any = 0.0
        negative: Any = 0.0
        for operand, slope in _slopes(step):
            up, down = self.of(operand, step.index)
            positive = positive + torch.where(slope > 0, up, down) * slope
            negative = negative + torch.where(slope > 0, down, up) * slope
        return positive, negative


def _last_write(operand: Operand, before: int) -> tuple[int, Place | None]:
    writes = [each for each in operand.place.memory.writes if each[0] < before]
    return writes[-1] if writes else (-1, None)


def _linear(step: Step) -> _Linear | None:
    """Input and weights of a linear layer; None for any other step."""
    if step.name not in _LINEAR or len(step.varying) != 1:
        return None
    first, second = (step.arguments[name] for name in _LINEAR[step.name])
    sparse = not (isinstance(first, Operand) and isinstance(second, Operand))
    if sparse or step.arguments.get("alpha", 1) != 1:
        return None
    if first.varies:
        return _Linear(first, second)
    return _Linear(second, first) if second.varies else None


def _scales(step: Step) -> bool:
    """Scales each number, with one slope each, or adds such."""
    out = step.outs[0]
    if step.name not in _SCALING or out is None:
        return False
    if step.name in ("mul", "div") and (
        len(step.varying) != 1
        or step.arguments.get("rounding_mode")
        or step.varying[0] not in step.operands[:1]
    ):
        return step.name == "mul" and len(step.varying) == 1 and _same_shape(step)
    return _same_shape(step)


def _same_shape(step: Step) -> bool:
    out = step.outs[0]
    return all(
        out is not None and each.place.shape == out.place.shape and each.place.memory.dtype.is_floating_point
        for each in step.varying
    )


def _slopes(step: Step) -> Iterator[tuple[Operand, Tensor]]:
    """By operand, how much each number of the output changes with its own."""
    out = step.outs[0]
    assert out is not None
    ones = [out.x.new_ones(()).expand(out.place.shape), *[None] * (len(step.outs) - 1)]
    yield from differentiated(step, ones, lambda operand: operand.middle)


def _split(step: Step, linear: _Linear) -> Pair:
    """What weights times input differences sum up to, by the sign of each product."""
    delta, weight = linear.input.delta, linear.weight.x
    run = _runner(step, linear)
    up, down = delta.clamp(min=0), delta.clamp(max=0)
    more, less = weight.clamp(min=0), weight.clamp(max=0)
    return run(up, more) + run(down, less), run(up, less) + run(down, more)


def _transposed(step: Step, linear: _Linear, pair: Pair) -> Tensor:
    """Multipliers of the input: by the sign of its difference; both halves where there is none."""
    weight = linear.weight.x
    more, less = weight.clamp(min=0), weight.clamp(max=0)

    def back(of_more: Tensor, of_less: Tensor) -> Tensor:
        return _back(step, linear, of_more, more) + _back(step, linear, of_less, less)

    return _by_sign(linear.input.delta, (back(*pair), back(*pair[::-1])))


def _back(step: Step, linear: _Linear, given: Tensor, weight: Tensor) -> Tensor:
    """The layer with these weights, transposed."""
    if step.name == "convolution":
        return convolution_transposed(step, given, weight)
    if step.arguments[_LINEAR[step.name][0]] is linear.input:
        return given @ weight.mT if weight.ndim > 1 else given.unsqueeze(-1) * weight
    return weight.mT @ given


def _runner(step: Step, linear: _Linear) -> Callable[[Tensor, Tensor], Tensor]:
    """The layer without its bias, as a function of input and weights."""

    def run(x: Tensor, weight: Tensor) -> Tensor:
        if step.name == "convolution":
            names = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
            result: Tensor = torch.ops.aten.convolution(
                x, weight, None, *(step.arguments[name] for name in names)
            )
            return result
        first = step.arguments[_LINEAR[step.name][0]]
        return x @ weight if first is linear.input else weight @ x

    return run


def _by_sign(delta: Tensor, pair: Pair) -> Tensor:
    found = torch.where(delta > 0, *pair)
    return torch.where(delta == 0, (pair[0] + pair[1]) / 2, found)


def _moved(value: Tensor, at: Operand, to: Operand) -> Tensor:
    """Numbers in the shape of one view of a memory, in that of another; what only one has is 0."""
    if at.place.looks == to.place.looks:
        return value
    row = value.new_zeros(at.place.memory.numel)
    spread(row, at.place, value)
    return gathered(row, to.place)
