"""Proxy activations beyond ReLU: the derivative of an activation's proxy is never below the slope ``s``.

For an activation ``f`` and a slope ``0 < s <= 1`` the *proxy activation* is ``f`` itself wherever ``f'`` is
at least ``s``, and a straight line of slope ``s``, joined to it, elsewhere: its derivative is ``max(f', s)``.
For ReLU that is the Leaky ReLU of Linse, Barth and Martinetz (arXiv 2410.16958). ReLU6 and Hardtanh get a
line on either saturated side; ELU, SELU, CELU and Softplus in their flat tail; in SiLU, Mish, GELU and
Hardswish the line also takes the place of the part that falls, where the true gradient leads a silent unit
further into silence. At ``s = 0`` the proxy is ``f``, falling parts included. The rivals of this principle
and how they were measured: ``docs/measurements/activations.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional

from proxygrad.errors import NetworkError

Slope = float | Tensor


def per_sample(slope: Tensor, x: Tensor) -> Tensor:
    """``(lanes,)`` → ``(batch, 1, …)``, to broadcast to ``x``; lanes are the slow index of a folded batch.

    Raises `NetworkError` when the batch cannot be divided among the lanes.
    """
    lanes, batch = slope.shape[0], x.shape[0] if x.ndim else 0
    if batch == 0 or batch % lanes:
        raise NetworkError(
            f"an activation's input of shape {tuple(x.shape)} cannot be divided among {lanes} lanes: "
            "its first dimension is not the batch; give all lanes the same slope"
        )
    spread = slope.to(x).repeat_interleave(batch // lanes)
    return spread.view(batch, *[1] * (x.ndim - 1))


@lru_cache(maxsize=1024)
def rounded(slope: float, dtype: torch.dtype) -> float:
    """A slope for all lanes as it is in a tensor of lanes' slopes: in bfloat16 the two would differ."""
    return float(torch.tensor(slope, dtype=dtype))


def finite_or(gradient: Tensor, own: Tensor | float) -> Tensor:
    """``gradient``, and where it is not finite ``own``, the gradient without a proxy."""
    return torch.where(gradient.isfinite(), gradient, own)


@dataclass(frozen=True)
class Activation:
    """An element-wise function with its parameters, as the network calls it.

    ``inplace``: it writes over its input. ``limits``: of ReLU6 and Hardtanh, the identity between them.
    """

    function: Callable[..., Tensor]
    parameters: tuple[tuple[str, Any], ...] = ()
    inplace: bool = False
    limits: tuple[float, float] | None = None

    def __call__(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """``f(x)``, of the same shape, ``x`` unharmed; ``weight``: of a PReLU."""
        return self.run(x.clone() if self.inplace else x, weight)

    def run(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """``f(x)``, written over ``x`` where that is the network's way."""
        learned = () if weight is None else (weight,)
        return self.function(x, *learned, **dict(self.parameters))


def proxy_backward(
    x: Tensor, activation: Activation, slope: Slope, weight: Tensor | None = None, guarded: bool = False
) -> Tensor:
    """``f(x)``, with ``dx = max(f'(x), slope) dy`` for ``slope > 0`` and autograd's own ``dx`` for 0.

    ``x``: any shape, the batch first. ``slope``: a number, or ``(lanes,)``. ``weight``: of a PReLU; what it
    gets is autograd's. Where ``f'`` is at least ``slope``, so is ``dx``, to the bit. ``guarded``: where
    ``slope dy`` is infinite, ``dx`` is autograd's. Gradients of ReLU6 and Hardtanh can be differentiated
    again, others not. Raises `NetworkError` for those, and when the batch cannot be divided among the lanes.
    """
    each = per_sample(slope, x) if isinstance(slope, Tensor) else rounded(slope, x.dtype)
    inputs = (x, activation, each, guarded, *(() if activation.limits else (weight,)))
    bent: Tensor = (_Clamp if activation.limits else _Bend).apply(*inputs)  # type: ignore[no-untyped-call]
    return bent


class _Clamp(torch.autograd.Function):
    """ReLU6 and Hardtanh, whose derivative can be read off their output: they keep that alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Activation, slope: Slope, guarded: bool) -> Tensor:
        y = activation.run(x)
        if activation.inplace:
            ctx.mark_dirty(x)
        ctx.save_for_backward(y)
        ctx.limits, ctx.slope, ctx.guarded = activation.limits, slope, guarded
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (y,), (low, high) = ctx.saved_tensors, ctx.limits
        inside = (y > low).logical_and_(y < high)
        least = grads[0] * ctx.slope
        if ctx.guarded:
            least = finite_or(least, 0.0)
        return torch.where(inside, grads[0], least), None, None, None


class _Bend(torch.autograd.Function):
    """Keeps autograd's own graph of the activation: it saves what autograd saves and returns its gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, activation: Activation, slope: Slope, guarded: bool, weight: Tensor | None
    ) -> Tensor:
        with torch.enable_grad():
            inputs = [each.detach().requires_grad_() for each in (x, weight) if each is not None]
            y = activation(*inputs)
        ctx.inputs, ctx.output = inputs, get_gradient_edge(y)
        ctx.slope, ctx.guarded = slope, guarded
        if activation.inplace:
            ctx.mark_dirty(x)
            return x.copy_(y.detach())
        return y.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # the derivative would miss that of the activation's own
            raise NetworkError(
                "the gradient of a smooth activation inside of surrogate() cannot be differentiated again; "
                "valid: create_graph=False, rectifiers, or slope 0"
            )
        (grad,) = grads
        own, *of_weight = torch.autograd.grad(ctx.output, ctx.inputs, grad, retain_graph=True)
        ones = grad.new_ones(()).expand_as(grad)
        (derivative,) = torch.autograd.grad(ctx.output, ctx.inputs[:1], ones, retain_graph=True)
        below = derivative < ctx.slope
        if isinstance(ctx.slope, Tensor):
            below &= ctx.slope > 0  # a lane of slope 0 keeps the falling part of its activation
        least = torch.mul(grad, ctx.slope, out=derivative)  # in its memory: it is needed no more
        if ctx.guarded:
            least = finite_or(least, own)
        return torch.where(below, least, own), None, None, None, *(of_weight or [None])


def proxy_forward(x: Tensor, activation: Activation, slope: Slope, guarded: bool = False) -> Tensor:
    """The proxy activation itself, ``f(x)`` continued by lines of slope ``slope``; autograd does the rest.

    For the activations of `recognize`. ``x``, ``slope``: as in `proxy_backward`; slopes of lanes are read to
    the host. ``guarded``: where ``x`` is infinite, the value is ``f(x)``.
    """
    before = x.clone() if activation.inplace else x
    raised = _line(before, activation, slope)
    if guarded:
        raised = torch.where(before.isfinite(), raised, activation(before))
    return x.copy_(raised) if activation.inplace else raised


def _line(x: Tensor, activation: Activation, slope: Slope) -> Tensor:
    if activation.limits:  # a line on either side
        each = per_sample(slope, x) if isinstance(slope, Tensor) else rounded(slope, x.dtype)
        inner = activation(x)
        return inner + each * (x - inner)
    if isinstance(slope, Tensor):
        joints = torch.tensor([tangent_point(activation, s) for s in slope.tolist()], dtype=torch.float64)
        at, value = (per_sample(column, x) for column in joints.unbind(dim=1))
        return _tangent(x, activation, at, value, per_sample(slope, x))
    joint, level = (rounded(each, x.dtype) for each in tangent_point(activation, slope))
    return _tangent(x, activation, joint, level, rounded(slope, x.dtype))


def _tangent(x: Tensor, activation: Activation, at: Slope, value: Slope, slope: Slope) -> Tensor:
    return torch.where(x > at, activation(x), value + slope * (x - at))


@lru_cache(maxsize=1024)
def tangent_point(activation: Activation, slope: float) -> tuple[float, float]:
    """Where the line of slope ``slope`` begins: the largest ``x`` with ``f'(x) < slope``, and ``f`` there.

    Found by bisection in float64: the ``x`` with ``f'(x) < slope <= 1`` are a half-line for every activation
    of `recognize` but those with ``limits``. ``(-inf, 0)``, no line: slope 0, or there is no such ``x``.
    """
    none = (float("-inf"), 0.0)
    low, high = -1.0, 1.0
    while slope > 0 and _derivative(activation, low) >= slope and low > -1e30:
        low *= 2
    while _derivative(activation, high) < slope and high < 1e30:
        high *= 2
    if slope <= 0 or _derivative(activation, low) >= slope:
        return none
    for _ in range(200):  # halves until no number lies between; 200 > 64 + log2 of the widest start
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _derivative(activation, middle) < slope else (low, middle)
    return low, activation(torch.tensor(low, dtype=torch.float64)).item()


def _derivative(activation: Activation, x: float) -> float:
    with torch.enable_grad():
        point = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        (derivative,) = torch.autograd.grad(activation(point), point)
    return float(derivative)


_NAMES: dict[Callable[..., Any], tuple[str, ...]] = {  # of the arguments, in order
    functional.relu6: ("input", "inplace"),
    functional.hardtanh: ("input", "min_val", "max_val", "inplace"),
    functional.hardtanh_: ("input", "min_val", "max_val"),
    functional.hardswish: ("input", "inplace"),
    functional.elu: ("input", "alpha", "inplace"),
    functional.elu_: ("input", "alpha"),
    functional.selu: ("input", "inplace"),
    torch.selu: ("input",),
    torch.selu_: ("input",),
    functional.celu: ("input", "alpha", "inplace"),
    torch.celu: ("input", "alpha"),
    torch.celu_: ("input", "alpha"),
    functional.silu: ("input", "inplace"),
    functional.mish: ("input", "inplace"),
    functional.gelu: ("input", "approximate"),
    functional.softplus: ("input", "beta", "threshold"),
}
_ALWAYS_INPLACE = (functional.hardtanh_, functional.elu_, torch.selu_, torch.celu_)
_HARDTANH = (functional.hardtanh, functional.hardtanh_)


def recognize(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, Activation] | None:
    """Input and activation of a call of ReLU6, Hardtanh, Hardswish, ELU, SELU, CELU, SiLU, Mish, GELU or
    Softplus; None for every other function.
    """
    names = _NAMES.get(function)
    if names is None:
        return None
    given = dict(zip(names, args, strict=False)) | kwargs
    x = cast(Tensor, given.pop("input"))
    inplace = bool(given.get("inplace", function in _ALWAYS_INPLACE))
    limits = (0.0, 6.0) if function is functional.relu6 else None
    if function in _HARDTANH:
        limits = given.get("min_val", -1.0), given.get("max_val", 1.0)
    return x, Activation(function, tuple(given.items()), inplace, limits)
