"""The rule for ReLU and Leaky ReLU: where the input is not positive, the gradient takes the proxy's slope.

`surrogate_relu` keeps the value and replaces the gradient; `proxy_relu` is the rectifier of the proxy network
itself. Linse, Barth and Martinetz, "Rethinking Activation Maximization", arXiv 2410.16958. For other
activations the same principle is in `proxygrad.backward.activations`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from proxygrad.backward.activations import Slope, finite_or, per_sample, rounded


def surrogate_relu(
    x: Tensor, forward_slope: float, slope: Slope, inplace: bool = False, guarded: bool = False
) -> Tensor:
    """Leaky ReLU with one slope forward and another backward.

    ``y = x if x > 0 else forward_slope * x``, ``dx = dy if x > 0 else max(slope, forward_slope) * dy``.
    The proxy's slope is never below the network's own: 0 is plain activation maximization everywhere.

    ``x``: any shape, the batch first. ``forward_slope``: not negative. ``slope``: a number, or ``(lanes,)``
    with one slope per lane, the batch then being a multiple of the lanes. With ``inplace`` the result is
    written over ``x``. ``guarded``: where ``dx`` would be infinite at an ``x`` that is not positive, it is 0.
    Raises `NetworkError` when the batch cannot be divided among the lanes.
    """
    floored = _floored(slope, forward_slope, x)
    runs = _runs(slope, forward_slope, x) if isinstance(slope, Tensor) and not guarded else ()
    rectified: Tensor = _SurrogateReLU.apply(x, forward_slope, floored, inplace, guarded, runs)  # type: ignore[no-untyped-call]
    return rectified


def _runs(slope: Tensor, forward_slope: float, x: Tensor) -> tuple[tuple[slice, float], ...]:
    """Rows of ``x`` that follow each other and have one slope, on the CPU: each run is one fused call, which
    takes half of the time of a mask for all and rounds as a number for all does."""
    if slope.device.type != "cpu":
        return ()
    rows, runs = x.shape[0] // slope.shape[0], list[tuple[slice, float]]()
    for lane, each in enumerate(slope.clamp(min=forward_slope).tolist()):
        begin = lane * rows
        if runs and runs[-1][1] == each:
            begin = runs.pop()[0].start
        runs.append((slice(begin, (lane + 1) * rows), each))
    return tuple(runs)


def _by_runs(grad: Tensor, y: Tensor, runs: tuple[tuple[slice, float], ...]) -> Tensor:
    found = torch.empty_like(grad)
    for rows, slope in runs:
        given, out = (grad[rows], y[rows]), found[rows]
        if slope == 0:  # ReLU's own
            torch.ops.aten.threshold_backward.grad_input(*given, 0, grad_input=out)
        else:
            torch.ops.aten.leaky_relu_backward.grad_input(*given, slope, False, grad_input=out)
    return found


def _floored(slope: Slope, forward_slope: float, x: Tensor) -> Slope:
    """The larger of the two slopes; ``(lanes,)`` made ready to be multiplied with ``x``."""
    if isinstance(slope, Tensor):
        return per_sample(slope, x).clamp(min=forward_slope)
    return max(slope, forward_slope)


class _SurrogateReLU(torch.autograd.Function):
    """Saves its output only, as ReLU does: for slopes >= 0, ``y > 0`` exactly where ``x > 0``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        forward_slope: float,
        slope: Slope,
        inplace: bool,
        guarded: bool,
        runs: tuple[tuple[slice, float], ...],
    ) -> Tensor:
        if inplace:
            ctx.mark_dirty(x)
            y = torch.relu_(x) if forward_slope == 0 else functional.leaky_relu_(x, forward_slope)
        else:
            y = torch.relu(x) if forward_slope == 0 else functional.leaky_relu(x, forward_slope)
        ctx.save_for_backward(y)
        ctx.slope, ctx.guarded, ctx.runs = slope, guarded, runs
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (grad,) = grads
        (y,) = ctx.saved_tensors
        slope: Slope = ctx.slope
        if ctx.guarded:
            found = torch.where(y > 0, grad, finite_or(grad * slope, 0.0))
        elif ctx.runs and not torch.is_grad_enabled():
            found = _by_runs(grad, y, ctx.runs)
        elif isinstance(slope, Tensor):
            found = torch.where(y > 0, grad, grad * slope)
        else:
            found = torch.ops.aten.leaky_relu_backward(grad, y, slope, False)
        return found, None, None, None, None, None


def proxy_relu(
    x: Tensor, forward_slope: float, slope: Slope, inplace: bool = False, guarded: bool = False
) -> Tensor:
    """The proxy network's rectifier: Leaky ReLU of slope ``max(slope, forward_slope)``; else as
    `surrogate_relu`. ``guarded``: an ``x`` of minus infinity gives what the network's own rectifier gives.
    """
    floored = _floored(slope, forward_slope, x)
    if not isinstance(floored, Tensor):
        floored = rounded(floored, x.dtype)
    if guarded:
        own = torch.where(x > 0, x, forward_slope * x if forward_slope else 0.0)
        raised = torch.where((x > 0) | ~x.isfinite(), own, floored * x)
        return x.copy_(raised) if inplace else raised
    if not isinstance(floored, Tensor):
        return functional.leaky_relu(x, floored, inplace)
    gate = torch.where(x > 0, torch.ones_like(floored), floored)
    return x.mul_(gate) if inplace else x * gate
