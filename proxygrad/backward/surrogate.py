"""The method, as a context manager: activations whose backward slope differs from the forward one.

Within `surrogate(slope)` every ReLU and Leaky ReLU that runs in this thread returns exactly what it
always returns, and passes back ``grad * slope`` instead of ``grad * forward_slope`` where its input was
not positive. Units behind inactive rectifiers, whose true gradient is zero, so get a direction to
follow (Linse, Barth and Martinetz, "Rethinking Activation Maximization", arXiv 2410.16958; their proxy
network, here in one forward pass with the gates of the original network). Other activations follow one
principle, "the derivative is never below the slope": `proxygrad.backward.activations`.

`surrogate(slope, proxy="network")` is the other reading: the activations return what those of the proxy
network would, and autograd does the rest, so that gates are the proxy's own. The value of a unit then takes
a second forward pass, outside the block.

Calls are intercepted where Python makes them (`proxygrad.torch_function`), so modules, functions and methods,
in place or not, reused or nested, are all covered, and the network is not changed; so are clamps, maxima and
masks that do the same (`proxygrad.backward.gates`), and aten's own calls, of which an exported network is
made. TorchScript code calls no Python and is not covered, nor is a `torch.autograd.Function`, which has a
gradient of its own. The formula for rectifiers: `proxygrad.backward.rectifiers`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn import functional

from proxygrad.backward.activations import (
    Activation,
    Slope,
    per_sample,
    proxy_backward,
    proxy_forward,
    recognize,
)
from proxygrad.backward.aten import as_called
from proxygrad.backward.gates import NOTED, note, recognize_gate
from proxygrad.backward.held_values import note_side
from proxygrad.backward.pooling import MAX_POOLING, spread_max_pool2d, windows_of
from proxygrad.backward.rectifiers import proxy_relu, surrogate_relu
from proxygrad.errors import NetworkError
from proxygrad.spec.settings import Proxy
from proxygrad.torch_function import BackwardInterceptor, without_interception


def _leaky(how: surrogate, x: Tensor, forward_slope: float, inplace: bool) -> Tensor:
    if forward_slope < 0:  # like |x|: the sign of the output does not tell that of the input
        parameters = (("negative_slope", forward_slope), ("inplace", inplace))
        return _other(how, x, Activation(functional.leaky_relu, parameters, inplace))
    rule = proxy_relu if how.proxy == "network" else surrogate_relu
    y = rule(x, forward_slope, how.slope, inplace, how.guarded)
    if forward_slope == 0 and not inplace:
        note_side(y, x, zero=True)
    return y


def _relu(how: surrogate, input: Tensor, inplace: bool = False) -> Tensor:
    return _leaky(how, input, 0.0, inplace)


def _relu_(how: surrogate, input: Tensor) -> Tensor:
    return _leaky(how, input, 0.0, inplace=True)


def _leaky_relu(how: surrogate, input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return _leaky(how, input, negative_slope, inplace)


def _leaky_relu_(how: surrogate, input: Tensor, negative_slope: float = 0.01) -> Tensor:
    return _leaky(how, input, negative_slope, inplace=True)


def _rrelu(
    how: surrogate,
    input: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """In evaluation a Leaky ReLU; in training its slopes are drawn at random, and stay as they are."""
    if training:
        return functional.rrelu(input, lower, upper, training, inplace)
    return _leaky(how, input, (lower + upper) / 2, inplace)


def _rrelu_(
    how: surrogate, input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False
) -> Tensor:
    return _rrelu(how, input, lower, upper, training, inplace=True)


def _prelu(how: surrogate, input: Tensor, weight: Tensor) -> Tensor:
    if how.proxy == "surrogate":
        return proxy_backward(input, Activation(torch.prelu), how.slope, weight, how.guarded)
    own = weight.view(-1, *[1] * (input.ndim - 2)) if weight.numel() > 1 else weight  # (units, 1, …) or (1,)
    slope = per_sample(how.slope, input) if isinstance(how.slope, Tensor) else input.new_tensor(how.slope)
    raised = torch.where(slope > 0, torch.maximum(own, slope), own)
    return torch.where(input > 0, input, raised * input)


def _other(how: surrogate, x: Tensor, activation: Activation) -> Tensor:
    if how.proxy == "network":
        return proxy_forward(x, activation, how.slope, how.guarded)
    return proxy_backward(x, activation, how.slope, guarded=how.guarded)


def _max_pool(
    how: surrogate, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    if how.spread_max_pool == 0:
        return func(*args, **kwargs)  # type: ignore[no-any-return]
    windows = windows_of(func, args, kwargs)
    x = windows.pop("input")
    return spread_max_pool2d(x, windows, how.spread_max_pool, forward=how.proxy == "network")


_RECTIFIERS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    functional.relu: _relu,
    torch.relu: _relu,
    Tensor.relu: _relu,
    torch.relu_: _relu_,
    Tensor.relu_: _relu_,
    functional.leaky_relu: _leaky_relu,
    functional.leaky_relu_: _leaky_relu_,
    functional.rrelu: _rrelu,
    torch.rrelu: _rrelu,
    functional.rrelu_: _rrelu_,
    torch.prelu: _prelu,
    Tensor.prelu: _prelu,
}


def rectifier_name(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """``relu``, ``gelu``, …: of a call whose gradient `surrogate` changes; None for any other.

    torch's module ReLU6 calls hardtanh, from 0 to 6.
    """
    function, args, kwargs = as_called(function, args, kwargs)
    if (gate := recognize_gate(function, args, kwargs)) is not None:
        return gate.name
    if (call := recognize(function, args, kwargs)) is not None and call[1].limits == (0.0, 6.0):
        return "relu6"
    return function.__name__.rstrip("_") if call or function in _RECTIFIERS else None


def _is_share(value: Slope) -> bool:
    """Whether every number is in [0, 1]; those on a GPU are trusted, for reading them would be a wait."""
    if isinstance(value, Tensor):
        return value.device.type != "cpu" or bool(((value >= 0) & (value <= 1)).all())
    return 0 <= value <= 1


class surrogate(BackwardInterceptor):
    """Context manager: the activations of this thread use ``slope`` in the backward pass.

    ``slope``: a number in [0, 1] for the whole batch, or a tensor ``(lanes,)`` with one for each lane; 0
    changes nothing. ``proxy``: "surrogate" changes gradients only; with "network" activations return those of
    the proxy network, and gradients are autograd's. ``spread_max_pool``: the share in [0, 1] of the gradient
    of 2-d max pooling that goes to the whole window (`proxygrad.backward.pooling`); 0 leaves max pooling as
    it is. ``guarded``: where the proxy's gradient or value would be infinite, as that of ``sqrt(relu(x))``,
    the network's own stands; costs a little time.

    Gradients of values computed inside are the proxy's, also when taken after the block has ended. Of nested
    blocks the innermost applies. Raises `NetworkError` for numbers outside [0, 1]: a negative slope would
    turn the gradient of silent units round, one above 1 would prefer silent units to active ones.

    >>> x = torch.tensor([[-1.0, 2.0]], requires_grad=True)
    >>> with surrogate(0.05):
    ...     y = torch.relu(x)
    >>> torch.autograd.grad(y.sum(), x)
    (tensor([[0.0500, 1.0000]]),)
    """

    def __init__(
        self,
        slope: Slope,
        proxy: Proxy = "surrogate",
        *,
        spread_max_pool: float = 0.0,
        guarded: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("slope", slope), ("spread_max_pool", spread_max_pool)):
            if not _is_share(value):
                raise NetworkError(f"{name} {value} is outside 0 to 1")
        if proxy not in get_args(Proxy):
            raise NetworkError(f"proxy {proxy!r} is none of {', '.join(get_args(Proxy))}")
        self.slope = slope
        self.proxy = proxy
        self.spread_max_pool = spread_max_pool
        self.guarded = guarded

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call itself, or the proxy's where ``func`` is an activation or max pooling."""
        proxied = self._proxied(*as_called(func, args, kwargs))
        if proxied is None:
            result = func(*args, **kwargs)
            if func in NOTED:
                note(func, args, kwargs, result)
            return result
        with without_interception():  # of nested blocks the innermost applies
            return proxied()

    def _proxied(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[], Tensor] | None:
        """What to call instead of ``func``; None where it is nothing of ours."""
        if func in MAX_POOLING:
            return partial(_max_pool, self, func, args, kwargs)
        if (call := recognize(func, args, kwargs)) is not None:
            x, proxied = call[0], partial(_other, self, *call)
        elif (rectifier := _RECTIFIERS.get(func)) is not None:
            x = args[0] if args else kwargs["input"]
            proxied = partial(rectifier, self, *args, **kwargs)
        elif (gate := recognize_gate(func, args, kwargs)) is not None:
            x, own = gate.x, partial(func, *args, **kwargs)
            proxied = partial(gate.proxied, own, self.slope, self.proxy == "network", self.guarded)
        else:
            return None
        if self.proxy == "surrogate" and not x.requires_grad:  # a constant, such as a clamped parameter
            return None
        plain = not isinstance(self.slope, Tensor) and self.slope == 0  # autograd itself, to the bit
        return partial(func, *args, **kwargs) if plain else proxied
