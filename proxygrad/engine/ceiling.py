"""Ceilings: the highest value that a layer can have, whatever the image, where a function caps it.

A unit at its ceiling is not stuck, though its gradient is as dead as that of a silent one: a sigmoid at 1, a
clamp at its maximum, minus a ReLU at 0. One pass of the network follows the ranges of values: a monotone
function maps the ends of its input's range to those of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from proxygrad.networks.network import Network
from proxygrad.torch_function import TorchFunctionInterceptor, function_name

#: Functions of one tensor, and numbers, that rise everywhere or fall everywhere.
MONOTONE = {
    *("add", "sub", "rsub", "mul", "div", "truediv", "neg", "exp", "sigmoid", "tanh", "atan", "erf"),
    *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "softplus", "hardsigmoid", "hardtanh"),
    *("clamp", "clip", "clamp_min", "clamp_max"),
}
#: Functions whose values stay in the range of their input's.
KEEPING = {
    *("mean", "amax", "amin", "flatten", "view", "view_as", "reshape", "unflatten", "squeeze"),
    *("unsqueeze", "permute", "transpose", "movedim", "getitem", "select", "contiguous", "clone"),
    *("detach", "float", "to", "type", "dropout", "max_pool1d", "max_pool2d", "adaptive_avg_pool1d"),
    *("adaptive_avg_pool2d", "adaptive_max_pool2d"),
}


class _Range(NamedTuple):
    lowest: float
    highest: float


ANY = _Range(-math.inf, math.inf)
#: What a function of one tensor takes besides: numbers, and options such as ``inplace``.
_PLAIN = (int, float, str, type(None))
RANGES = {
    "softmax": _Range(0.0, 1.0),
    **dict.fromkeys(("log_softmax", "log_sigmoid"), _Range(-math.inf, 0.0)),
}


class _Ranges(TorchFunctionInterceptor):
    """Context manager: knows the range of each tensor that a call of torch returns."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, _Range]] = {}  # tensors are held, so that ids stay unique

    def of(self, tensor: Tensor) -> _Range:
        return self._known.get(id(tensor), (tensor, ANY))[1]

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the call, and note the range of what it returns."""
        name = function_name(func).strip("_")
        found = self._range(name, func, args, kwargs)
        result = func(*args, **kwargs)
        if name == "setitem":
            self._known.pop(id(args[0]), None)
        if isinstance(result, Tensor):
            self._known.pop(id(result), None)  # of a tensor that is overwritten
            if found != ANY:
                self._known[id(result)] = (result, found)
        return result

    def _range(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> _Range:
        if name in RANGES:
            return RANGES[name]
        x, *others = args or (None,)
        if not isinstance(x, Tensor):
            return ANY
        if name in KEEPING:
            return self.of(x)
        if name in MONOTONE and all(isinstance(each, _PLAIN) for each in (*others, *kwargs.values())):
            ends = func(torch.tensor(self.of(x)), *others, **kwargs)
            if not bool(ends.isnan().any()):
                return _Range(float(ends.min()), float(ends.max()))
        return ANY


def ceiling(network: Network, layer: str, image: Tensor) -> float:
    """The highest value that ``layer`` can have, by the functions that make it; infinite where none caps it.

    ``image`` ``(C, H, W)`` in [0, 1]: for control flow.
    """
    ranges = _Ranges()
    with torch.no_grad(), ranges:
        value = network.read(image.to(network.device, torch.float32).unsqueeze(0), [layer])[layer]
    return ranges.of(value).highest
