"""Rectifiers by another name: clamps, maxima, thresholds, and values that their own comparison lets through.

Each of these calls returns its input where a *gate* is open, and elsewhere something that does not depend on
the image: ``clamp(x, 0, 6)``, ``maximum(x, zeros)``, ``threshold(x, 0, 0)``, ``where(x > 0, x, 0.0)``,
``x * (x > 0)``, ``x.masked_fill(x < 0, 0)``, ``x[x < 0] = 0``. Where the gate is shut, the proxy has the
slope.

What is left of a value without one side of it is a rectifier, too: ``x - x * (x < 0)``, ``x + relu(-x)``.

To find the four with a mask, the result of a comparison is given a note of what was compared (`note`). A
mask that was made of other values is none of these: it weighs or switches, as in attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverloadPacket
from torch.nn import functional

from proxygrad.backward.activations import Slope, finite_or, per_sample, rounded
from proxygrad.backward.held_values import (
    IN_ORDER,
    NEGATED,
    REARRANGED,
    note_side,
    note_values,
    same_values,
    side,
)
from proxygrad.torch_function import function_name

#: The attribute under which a mask keeps the values that it compares.
_COMPARED = "_proxygrad_compared"


@dataclass(frozen=True, eq=False)
class Gate:
    """A call that returns ``x`` where ``is_open`` and a constant elsewhere.

    ``joint``: where the proxy's line begins; None where that is the constant itself, as of a clamp.
    ``inplace``: the call writes over ``x``. ``name``: ``relu`` and ``relu6`` where it is one of these, else
    the call's. ``zero``: it returns 0 where it is shut.
    """

    x: Tensor
    is_open: Callable[[], Tensor]
    joint: float | Tensor | None
    name: str
    inplace: bool
    zero: bool = False

    def proxied(self, call: Callable[[], Any], slope: Slope, forward: bool, guarded: bool) -> Any:
        """The result of ``call``, with ``dx = dy`` where the gate is open and ``slope * dy`` elsewhere.

        ``forward``: with the value of the proxy, too. ``guarded``: see `proxygrad.backward.surrogate`.
        """
        is_open = self.is_open()
        each = per_sample(slope, self.x) if isinstance(slope, Tensor) else rounded(slope, self.x.dtype)
        line = _line(self, is_open, each) if forward else None
        y: Tensor = _Gated.apply(self.x, call, is_open, (each, line, guarded), self.inplace)  # type: ignore[no-untyped-call]
        if not self.inplace:
            note_side(y, self.x, self.zero)
        return y


def _line(gate: Gate, is_open: Tensor, slope: Slope) -> Callable[[Tensor], Tensor]:
    """From what the call returned to what the proxy returns: a line from the joint on, where it is shut."""
    before = gate.x.detach().clone() if gate.inplace else gate.x.detach()

    def raised(y: Tensor) -> Tensor:
        moved: Tensor = y + slope * (before - (y if gate.joint is None else gate.joint))
        shut = torch.where(moved.isfinite(), moved, y)
        return torch.where(is_open, before, shut)

    return raised


class _Gated(torch.autograd.Function):
    """Any of the calls: its value, and the gradient of its gate."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, call: Callable[[], Any], is_open: Tensor, how: tuple[Any, ...], inplace: bool
    ) -> Tensor:
        slope, line, guarded = how
        y: Tensor = call()
        if inplace:
            y = x
            ctx.mark_dirty(x)
        if line is not None:
            y = x.copy_(line(x)) if inplace else line(y)
        ctx.save_for_backward(is_open)
        ctx.slope, ctx.guarded = slope, guarded
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ((is_open,), (grad,)) = ctx.saved_tensors, grads
        shut = grad * ctx.slope
        if ctx.guarded:
            shut = finite_or(shut, 0.0)
        return torch.where(is_open, grad, shut), None, None, None, None


def recognize_gate(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Gate | None:
    """The gate of a call, where it has one; None for every other call."""
    if (parse := _PARSERS.get(function)) is None:
        return None
    try:
        gate = parse(function_name(function), *args, **kwargs)
    except TypeError:  # another form of the call, such as the maximum over a dimension
        return None
    return gate if gate is not None and gate.x.is_floating_point() else None


def note(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
    """Note on what a call of `NOTED` returned what the calls behind it need to know."""
    if function in _MASKING:
        _note_comparison(function, args, result)
    if function in _HANDING_ON:
        note_values(function, args, kwargs, result)


def _note_comparison(function: Callable[..., Any], args: tuple[Any, ...], result: Any) -> None:
    """Note on a mask what it compares: on what a comparison, a combination or a cast of masks returned."""
    if function in COMPARISONS:
        sources = [each for each in args if isinstance(each, Tensor) and each.is_floating_point()]
    else:
        masks = [each for each in args if isinstance(each, Tensor) and hasattr(each, _COMPARED)]
        sources = [] if not masks else getattr(masks[0], _COMPARED)
        for other in masks[1:]:
            sources = [each for each in sources if _compares(other, each)]
    if sources and isinstance(result, Tensor):
        setattr(result, _COMPARED, sources)


def _compares(mask: Tensor, x: Tensor) -> bool:
    """Whether ``mask`` compares ``x`` itself, one place for each."""
    sources = getattr(mask, _COMPARED, ())
    return mask.shape == x.shape and any(same_values(each, x) for each in sources)


def _is_constant(value: Any) -> bool:
    """A number, or a tensor that does not depend on the image."""
    return not isinstance(value, Tensor) or not value.requires_grad


def _fits(value: Any, x: Tensor) -> bool:
    """Whether the result of ``x`` and ``value`` has the shape of ``x``."""
    return not isinstance(value, Tensor) or torch.broadcast_shapes(value.shape, x.shape) == x.shape


def _clamp(name: str, input: Tensor, min: Any = None, max: Any = None) -> Gate | None:  # noqa: A002
    """``clamp(x, low, high)``, either of which may be left out, or be a tensor."""
    low, high = -math.inf if min is None else min, math.inf if max is None else max
    if not all(_is_constant(each) and _fits(each, input) for each in (low, high)):
        return None
    plain = {(0.0, math.inf): "relu", (0.0, 6.0): "relu6"}
    numbers = not isinstance(low, Tensor) and not isinstance(high, Tensor)
    shown = plain.get((low, high), "clamp") if numbers else "clamp"
    zero = numbers and (low, high) in ((0.0, math.inf), (-math.inf, 0.0))
    return Gate(input, lambda: (input > low) & (input < high), None, shown, name.endswith("_"), zero)


def _clamp_min(name: str, input: Tensor, min: Any) -> Gate | None:  # noqa: A002
    return _clamp(name, input, min)


def _clamp_max(name: str, input: Tensor, max: Any) -> Gate | None:  # noqa: A002
    return _clamp(name, input, None, max)


def _maximum(name: str, input: Tensor, other: Any = None, **_: Any) -> Gate | None:
    """Of a tensor that depends on the image, and one that does not. `torch.max` has other forms, too."""
    if not isinstance(other, Tensor):
        return None
    x, constant = (input, other) if input.requires_grad else (other, input)
    if not x.requires_grad or constant.requires_grad or not _fits(constant, x):
        return None
    lower = name in ("maximum", "max", "fmax")
    return Gate(x, (lambda: x > constant) if lower else (lambda: x < constant), None, name, False)


def _threshold(
    name: str, input: Tensor, threshold: float, value: float, inplace: bool = False
) -> Gate | None:
    shown = "relu" if threshold == value == 0 else "threshold"
    inplace = inplace or name.endswith("_")
    return Gate(input, lambda: input > threshold, threshold, shown, inplace, shown == "relu")


def _where(name: str, condition: Tensor, input: Any = None, other: Any = None) -> Gate | None:
    for x, constant, shut in ((input, other, False), (other, input, True)):
        if isinstance(x, Tensor) and x.requires_grad and _is_constant(constant) and _compares(condition, x):
            if not _fits(constant, x):
                return None
            zero = not isinstance(constant, Tensor) and constant == 0
            is_open = (lambda: ~condition) if shut else (lambda: condition)
            return Gate(x, is_open, 0.0, "relu" if zero else "where", False, zero)
    return None


def _where_of_tensor(name: str, input: Tensor, condition: Tensor, other: Any = None) -> Gate | None:
    """The method's order of arguments."""
    return _where(name, condition, input, other)


def _mul(name: str, input: Any, other: Any) -> Gate | None:
    inplace = name.endswith("_") and name not in ("__mul__", "__rmul__")
    for x, mask in ((input, other),) if inplace else ((input, other), (other, input)):
        if isinstance(x, Tensor) and x.requires_grad and isinstance(mask, Tensor) and _compares(mask, x):
            return Gate(x, partial(torch.ne, mask, 0), 0.0, "relu", inplace, zero=True)
    return None


def _masked_fill(name: str, input: Tensor, mask: Tensor, value: Any) -> Gate | None:
    if not (input.requires_grad and _is_constant(value) and _compares(mask, input)):
        return None
    zero = _is_zero(value)
    return Gate(input, lambda: ~mask, 0.0, "relu" if zero else "masked_fill", name.endswith("_"), zero)


def _setitem(name: str, input: Tensor, index: Any, value: Any) -> Gate | None:
    if not (isinstance(index, Tensor) and index.dtype == torch.bool and _is_zero(value)):
        return None
    return Gate(input, lambda: ~index, 0.0, "relu", True) if _compares(index, input) else None


def _add(name: str, input: Any, other: Any) -> Gate | None:
    """``x`` without the side of it that a gate lets through: ``x - gate(x)``, ``x + gate(-x)``."""
    inplace = name in ("add_", "sub_", "subtract_", "__iadd__", "__isub__")
    less = "sub" in name
    left = torch.sub if less else torch.add
    for x, y in ((input, other),) if inplace or less else ((input, other), (other, input)):
        if side(y, x, negated=not less):
            is_open = partial(_differs_from_0, left, x, y)
            return Gate(x, is_open, 0.0, "relu", inplace, zero=True)
    return None


def _differs_from_0(function: Callable[..., Tensor], *args: Tensor) -> Tensor:
    return function(*args) != 0


def _is_zero(value: Any) -> bool:
    return not isinstance(value, Tensor) and value == 0


def _named(names: Iterable[str]) -> set[Callable[..., Any]]:
    """The functions and methods of torch that have these names, and aten's overloads."""
    found = set[Callable[..., Any]]()
    for name in names:
        homes = (torch, Tensor, functional, torch.ops.aten)
        for each in (getattr(home, name, None) for home in homes):
            if each is not None:
                found.add(each)
                if isinstance(each, OpOverloadPacket):
                    found.update(getattr(each, overload) for overload in each.overloads())
    return found


_Parser = Callable[..., Gate | None]
_NAMES: tuple[tuple[_Parser, str], ...] = (
    (_clamp, "clamp clamp_ clip clip_"),
    (_clamp_min, "clamp_min clamp_min_"),
    (_clamp_max, "clamp_max clamp_max_"),
    (_maximum, "maximum minimum max min fmax fmin"),
    (_threshold, "threshold threshold_"),
    (_where, "where"),
    (_mul, "mul mul_ multiply multiply_ __mul__ __rmul__ __imul__"),
    (_masked_fill, "masked_fill masked_fill_"),
    (_setitem, "__setitem__"),
    (_add, "add add_ __add__ __radd__ __iadd__ sub sub_ subtract subtract_ __sub__ __isub__"),
)
_PARSERS: dict[Callable[..., Any], _Parser] = {
    function: parse for parse, names in _NAMES for function in _named(names.split())
}
_PARSERS[Tensor.where] = _where_of_tensor
_COMPARING = "gt ge lt le greater greater_equal less less_equal __gt__ __ge__ __lt__ __le__"
_OF_MASKS = "logical_not logical_and bitwise_not bitwise_and __and__ __rand__ __invert__"
_CASTS = "to type type_as int long bool short float double half bfloat16 _to_copy detach contiguous"
COMPARISONS = _named(_COMPARING.split())
_MASKING = COMPARISONS | _named(f"{_OF_MASKS} {_CASTS}".split())
_HANDING_ON = _named(f"{IN_ORDER} {REARRANGED} {NEGATED}".split())
#: The calls of which `note` takes note: comparisons, what is made of their masks, and copies.
NOTED = _MASKING | _HANDING_ON
