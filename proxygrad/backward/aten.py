"""Calls of aten's operators, as ``torch.ops.aten.relu.default(x)``, in the words of torch's own functions.

Exported and traced networks are made of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket
from torch.nn import functional

from proxygrad.torch_function import function_name

#: By name in aten: the function of torch with the same arguments in the same order.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "relu": torch.relu,
    "relu_": torch.relu_,
    "leaky_relu": functional.leaky_relu,
    "leaky_relu_": functional.leaky_relu_,
    "prelu": torch.prelu,
    "relu6": functional.relu6,
    "hardtanh": functional.hardtanh,
    "hardtanh_": functional.hardtanh_,
    "hardswish": functional.hardswish,
    "elu": functional.elu,
    "elu_": functional.elu_,
    "selu": torch.selu,
    "selu_": torch.selu_,
    "celu": torch.celu,
    "celu_": torch.celu_,
    "silu": functional.silu,
    "mish": functional.mish,
    "gelu": functional.gelu,
    "softplus": functional.softplus,
    "max_pool2d": torch.max_pool2d,
}
#: Those of which torch has the form in place by an argument alone.
_IN_PLACE = {name: _FUNCTIONS[name.rstrip("_")] for name in ("relu6_", "hardswish_", "silu_", "mish_")}


def as_called(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """The call that torch has for a call of aten's activations and max pooling; any other call as it is."""
    if not isinstance(function, OpOverload | OpOverloadPacket):
        return function, args, kwargs
    name = function_name(function)
    if name in _IN_PLACE:
        return _IN_PLACE[name], args, {**kwargs, "inplace": True}
    scaled = name.startswith("elu") and len(args) > 2  # by the scales of SELU, which torch's elu has not
    known = None if scaled else _FUNCTIONS.get(name)
    return (function if known is None else known), args, kwargs
