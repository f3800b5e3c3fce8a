"""Held values: notes on tensors that tell whether two of them hold the same numbers.

Copies hold what their original does: ``x.flatten(1)`` is a view of one layout of memory and a copy of
another, and each call makes a new one. A token stands for the values of a tensor at one moment, and
`note_values` hands it on to what only rearranges them. A tensor that was written to since has other values,
and a new token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from proxygrad.torch_function import function_name

#: The names of calls that return the same values in the same order, row by row; others; and negated ones.
IN_ORDER = (
    "view view_as reshape reshape_as flatten unflatten ravel squeeze unsqueeze contiguous clone detach alias "
    "to type type_as float double half bfloat16 _to_copy"
)
REARRANGED = "permute transpose t swapaxes swapdims movedim moveaxis"
NEGATED = "neg negative __neg__"

_REARRANGED, _NEGATED = set(REARRANGED.split()), set(NEGATED.split())
#: The attributes of a tensor: its token, and that of the values of which it is one side of a rectifier.
_HELD, _SIDE = "_proxygrad_held", "_proxygrad_side"


def held(x: Tensor) -> object:
    """The token of the values that ``x`` holds now, row by row; equal tokens of one shape, equal values."""
    token, version = getattr(x, _HELD, (None, -1))
    if token is None or version != x._version:
        token = object()
        setattr(x, _HELD, (token, x._version))
    return token


def same_values(first: Tensor, second: Tensor) -> bool:
    """Whether both hold the same numbers: the same memory, as of a tensor and its `detach`, or copies."""
    if first is second:
        return True
    layout = (first.data_ptr(), first.shape, first.stride())
    if layout == (second.data_ptr(), second.shape, second.stride()):
        return True
    noted = first.shape == second.shape and _can_hold(first) and _can_hold(second)
    return noted and held(first) == held(second)


def note_values(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> None:
    """Note on what a call returned that it holds the values of what it took, or these negated."""
    x = args[0] if args else None
    if not (isinstance(x, Tensor) and isinstance(result, Tensor) and x.dtype == result.dtype):
        return
    if result is x or not (_can_hold(x) and _can_hold(result)):
        return
    name, token = function_name(function), held(x)
    if name in _REARRANGED:
        token = (name, x.shape, args[1:], tuple(kwargs.items()), token)
    elif name in _NEGATED:
        token = _negated(token)
    setattr(result, _HELD, (token, result._version))


def note_side(y: Tensor, x: Tensor, zero: bool) -> None:
    """Note that ``y`` is ``x`` where a gate is open, and a constant elsewhere; ``zero``: that is 0."""
    if _can_hold(y) and _can_hold(x):
        setattr(y, _SIDE, (held(x), y._version, zero))


def side(y: Any, x: Any, negated: bool = False) -> bool | None:
    """Whether the constant is 0 where ``y`` is one side of ``x``, or of ``-x``; None where it is not."""
    if not (isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape and _can_hold(x)):
        return None
    token, version, zero = getattr(y, _SIDE, (None, -1, False))
    if token is None or version != y._version:
        return None
    of = _negated(held(x)) if negated else held(x)
    return bool(zero) if token == of else None


def _negated(token: object) -> object:
    if isinstance(token, tuple) and token[0] == "negated":
        return token[1]
    return ("negated", token)


def _can_hold(x: Tensor) -> bool:
    """Tensors of inference mode count no versions."""
    return not x.is_inference()
