"""Activation stage: which layers are pre-activation, and which post-activation.

One rule. A *rectifier* is a call of a function whose gradient `proxygrad.backward.surrogate` changes: relu,
gelu, silu and so on. A layer is **post-activation** when what it returns is what a rectifier returned, and
**pre-activation** when a rectifier takes what it returns; each also where the values in between were only
selected, rearranged, joined or pooled: flattened, permuted, concatenated, averaged. Arithmetic with other
values (weights, a norm, an addition) ends that: in ``relu(norm(conv(x)) + x)`` the norm and the convolution
are neither. What is joined is post-activation when all of it is, by the same rectifier. A layer that is both
is post-activation.

The calls are intercepted in a forward pass (`proxygrad.torch_function`): functions, methods and modules
alike, in place or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from proxygrad.backward.surrogate import rectifier_name
from proxygrad.networks.capture import tensors_in
from proxygrad.spec import Stage
from proxygrad.torch_function import TorchFunctionInterceptor, function_name

#: By what they are called in torch, of its functions and of the methods of tensors.
_POOLING = {
    f"{kind}_pool{dimensions}d{ending}"
    for kind in ("avg", "adaptive_avg", "max", "adaptive_max")
    for dimensions in (1, 2, 3)
    for ending in ("", "_with_indices")
}
_ARRANGING = _POOLING | {
    *("view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze"),
    *("expand", "expand_as", "repeat", "tile", "permute", "transpose", "t", "swapaxes", "swapdims"),
    *("movedim", "moveaxis", "contiguous", "clone", "detach", "to", "float", "alias"),
    *("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"),
    *(
        "chunk",
        "split",
        "tensor_split",
        "unbind",
        "narrow",
        "select",
        "index_select",
        "roll",
        "flip",
        "unfold",
    ),
    *("__getitem__", "__get__"),  # the latter of attributes: x.T, x.data
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout"),
    *("feature_alpha_dropout", "channel_shuffle", "pixel_shuffle", "pixel_unshuffle"),
    *("pad", "constant_pad_nd", "mean", "amax", "max"),
}


@dataclass(eq=False)
class Value:
    """A tensor as it was at one moment. It is held, so that its id stays unique.

    ``sources``: what it was only selected, rearranged, joined or pooled from. ``made_by``, ``taken_by``: the
    rectifier's name, "" while there is none. ``function``: the function of torch that made it.
    """

    tensor: Tensor
    sources: tuple[Value, ...] = ()
    made_by: str = ""
    taken_by: str = ""
    function: str = ""

    @property
    def place(self) -> tuple[Stage | None, str | None]:
        """The stage of a layer that returned this, and the rectifier's name; None, None for neither."""
        if self.made_by:
            return "post_activation", self.made_by
        return ("pre_activation", self.taken_by) if self.taken_by else (None, None)


class ActivationTracer(TorchFunctionInterceptor):
    """Context manager that follows which values rectifiers return and take."""

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[int, Value] = {}
        self._held: list[Value] = []

    def value(self, tensor: Tensor) -> Value:
        """The record of ``tensor`` as it is now; a new one where it is not followed yet."""
        return self._values.get(id(tensor)) or self._new(Value(tensor))

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the call, and follow the tensors that it took and returned."""
        result = func(*args, **kwargs)
        changed = list(tensors_in(args[:1] if func is Tensor.__setitem__ else result))
        if changed:
            floating = (each for each in tensors_in((args, kwargs)) if each.is_floating_point())  # no indices
            taken = list(floating)
            name = rectifier_name(func, args, kwargs) if taken else None
            self._follow(func, name, [self.value(each) for each in taken], changed)
        return result

    def _follow(
        self, func: Callable[..., Any], name: str | None, taken: list[Value], made: list[Tensor]
    ) -> None:
        """``func`` took ``taken``, as they were before the call, and returned ``made``."""
        if name is not None:
            _mark(taken[0], name)
            self._new(Value(made[0], made_by=name, function=name))
            return
        called = function_name(func)
        arranged = called in _ARRANGING
        for tensor in made:
            if not arranged:
                self._new(Value(tensor, function=called))
            elif self._values.get(id(tensor)) not in taken:  # else it is handed through
                maker, function = _of_all(taken, "made_by"), _of_all(taken, "function")
                self._new(Value(tensor, tuple(taken), made_by=maker, function=function))

    def _new(self, value: Value) -> Value:
        self._values[id(value.tensor)] = value
        self._held.append(value)
        return value


def _of_all(values: list[Value], name: str) -> str:
    """The attribute that all of them have in common; else empty."""
    found = {getattr(each, name) for each in values}
    return min(found) if len(found) == 1 else ""


def _mark(value: Value, name: str) -> None:
    """A rectifier takes ``value``, and so all that this was rearranged from."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if not each.taken_by:
            each.taken_by = name
            waiting.extend(each.sources)
