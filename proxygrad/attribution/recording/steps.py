"""Steps: each operation with its numbers for the input and for the reference, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only

from proxygrad.attribution.recording.tape import Call, Place, Tape, operation_name
from proxygrad.errors import InvalidRequest, NetworkError

#: What an infinite difference counts as, such as that of a score that one of both states masks. Multipliers
#: are finite then, and their products with it exact to rounding.
ENDLESS = 1e18


@dataclass(frozen=True, eq=False)
class Operand:
    """A tensor that a step reads or writes, in both passes."""

    place: Place
    reference: Place

    @property
    def varies(self) -> bool:
        """Its numbers depend on the input."""
        return self.place.varies or self.reference.varies

    @property
    def x(self) -> Tensor:
        """Its numbers for the input."""
        return self.place.value

    @property
    def x0(self) -> Tensor:
        """Its numbers for the reference."""
        return self.reference.value

    @property
    def delta(self) -> Tensor:
        """Input minus reference, in floating point; `ENDLESS` where one is infinite, 0 where both are."""
        return bounded(_as_numbers(self.x) - _as_numbers(self.x0))

    @property
    def middle(self) -> Tensor:
        """Halfway between reference and input, in floating point."""
        x, x0 = _as_numbers(self.x), _as_numbers(self.x0)
        return torch.where(x == x0, x, (x + x0) / 2) if self.varies else x

    @property
    def has_multipliers(self) -> bool:
        """Floating-point numbers, or a mask."""
        return self.place.memory.dtype.is_floating_point or self.place.memory.dtype == torch.bool


class Step:
    """One operation of both passes. Rules see this.

    ``operands``: the tensors that it reads, in the order of its arguments. ``varying``: those that depend on
    the input. ``outs``: what it wrote.
    """

    def __init__(self, call: Call, reference: Call) -> None:
        self.call = call
        self.index, self.name, self.layer = call.index, call.name, call.layer
        flat, self._spec = tree_flatten((call.args, call.kwargs))
        other, _ = tree_flatten((reference.args, reference.kwargs))
        self._flat = [
            Operand(each, at) if isinstance(each, Place) else each
            for each, at in zip(flat, other, strict=True)
        ]
        self.operands = [each for each in self._flat if isinstance(each, Operand)]
        self.varying = [each for each in self.operands if each.varies]
        self.outs = [
            None if out is None or at is None else Operand(out, at)
            for out, at in zip(call.outs, reference.outs, strict=True)
        ]

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """What it was called with, by the names of aten's schema, defaults filled in; tensors as operands."""
        args, kwargs = self._unflattened()
        schema = self.call.func._schema.arguments
        found = {each.name: each.default_value for each in schema if each.has_default_value()}
        found |= {each.name: value for each, value in zip(schema, args, strict=False)}
        return found | dict(kwargs)

    def run(self, values: Mapping[Operand, Tensor] | Callable[[Operand], Tensor]) -> Any:
        """The operation again, never in place, on other numbers: ``values`` by operand, constants as they
        are."""
        if not callable(values):
            given = values

            def values(operand: Operand) -> Tensor:
                return given.get(operand, operand.x)

        args, kwargs = tree_map_only(Operand, values, self._unflattened())
        kwargs = {name: value for name, value in kwargs.items() if name != "out"}
        return _out_of_place(self.call.func)(*args, **kwargs)

    def _unflattened(self) -> Any:
        return torch.utils._pytree.tree_unflatten(self._flat, self._spec)


def bounded(difference: Tensor) -> Tensor:
    """``difference``, changed in place: infinite numbers become `ENDLESS`, and undefined ones 0."""
    most = min(ENDLESS, torch.finfo(difference.dtype).max)
    return difference.nan_to_num_(nan=0.0, posinf=most, neginf=-most)


def _as_numbers(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.to(torch.float64)  # masks: 0 and 1


@cache
def _out_of_place(func: Any) -> Any:
    """``aten.relu.default`` of ``aten.relu_.default``, ``aten.mul.Tensor`` of ``aten.mul.out``."""
    name = operation_name(func)
    if not any(each.alias_info is not None and each.alias_info.is_write for each in func._schema.arguments):
        return func
    if name == "copy":
        return _copied
    wanted = [(each.name, str(each.type)) for each in func._schema.arguments if not each.is_out]
    packet = getattr(torch.ops.aten, name, None)
    for overload in () if packet is None else (getattr(packet, each) for each in packet.overloads()):
        if [(each.name, str(each.type)) for each in overload._schema.arguments] == wanted:
            return overload
    raise NetworkError(f"operation {func} has no form that writes nothing, and so no multipliers")


def _copied(to: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    return source.to(to.dtype).expand_as(to)


def aligned(tape: Tape, reference: Tape) -> list[Step]:
    """The steps of two passes. Raises `InvalidRequest` where they took different ways."""
    for call, other in zip(tape.calls, reference.calls, strict=False):
        if _looks(call) != _looks(other):
            raise InvalidRequest(
                f"the network takes another path for the reference than for the input: call {call.index} is "
                f"{_described(call)} for the input, and {_described(other)} for the reference"
            )
    if len(tape.calls) != len(reference.calls):
        raise InvalidRequest(
            f"the network takes another path for the reference than for the input: {len(tape.calls)} calls "
            f"for the input, and {len(reference.calls)} for the reference"
        )
    return [Step(call, other) for call, other in zip(tape.calls, reference.calls, strict=True)]


def _looks(call: Call) -> tuple[Any, ...]:
    places = [*call.places, *(out for out in call.outs if out is not None)]
    return call.func, [(each.memory.number, each.version, each.looks) for each in places]


def _described(call: Call) -> str:
    shapes = ", ".join("x".join(map(str, each.shape)) for each in call.places)
    return f"{call.name} of {shapes or 'no tensors'} in layer {call.layer[-1] if call.layer else ''!r}"
