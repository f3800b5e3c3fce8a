"""The method: rectifiers whose backward slope differs from the forward one.

Within `surrogate(slope)` every ReLU and Leaky ReLU that runs in this thread returns exactly what it
always returns, and passes back ``grad * slope`` instead of ``grad * forward_slope`` where its input was
not positive. Units behind inactive rectifiers, whose true gradient is zero, so get a direction to
follow (Linse, Barth and Martinetz, "Rethinking Activation Maximization", arXiv 2410.16958; their proxy
network, here in one forward pass with the gates of the original network).

The calls are caught where Python calls them (`torch.overrides.TorchFunctionMode`), so modules,
functions and methods, in place or not, reused or nested, are all covered and nothing of the network is
changed. TorchScript code calls no Python and is not covered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from proxygrad.errors import NetworkError

Slope = float | Tensor


def rectify(x: Tensor, forward_slope: float, slope: Slope, inplace: bool = False) -> Tensor:
    """Leaky ReLU with one slope forward and another backward.

    ``y = x if x > 0 else forward_slope * x``, ``dx = dy if x > 0 else max(slope, forward_slope) * dy``.
    The proxy's slope is never below the network's own: 0 is plain activation maximization everywhere.

    ``x``: any shape, the batch first. ``slope``: a number, or ``(lanes,)`` with one slope per lane, the
    batch then being a multiple of the lanes. With ``inplace`` the result is written over ``x``.
    Raises `NetworkError` when the batch cannot be divided among the lanes.
    """
    if isinstance(slope, Tensor):
        slope = _per_sample(slope, x).clamp(min=forward_slope)
    else:
        slope = max(slope, forward_slope)
    rectified: Tensor = _Rectify.apply(x, forward_slope, slope, inplace)  # type: ignore[no-untyped-call]
    return rectified


def _per_sample(slope: Tensor, x: Tensor) -> Tensor:
    """``(lanes,)`` → ``(batch, 1, …)``, to broadcast to ``x``; lanes are the slow index of a folded batch."""
    lanes, batch = slope.shape[0], x.shape[0] if x.ndim else 0
    if batch == 0 or batch % lanes:
        raise NetworkError(
            f"a rectifier's input of shape {tuple(x.shape)} cannot be divided among {lanes} lanes: "
            "its first dimension is not the batch; give all lanes the same slope"
        )
    spread = slope.to(x).repeat_interleave(batch // lanes)
    return spread.view(batch, *[1] * (x.ndim - 1))


class _Rectify(torch.autograd.Function):
    """Saves its output only, as ReLU does: for slopes >= 0, ``y > 0`` exactly where ``x > 0``."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, forward_slope: float, slope: Slope, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(x)
            y = torch.relu_(x) if forward_slope == 0 else functional.leaky_relu_(x, forward_slope)
        else:
            y = torch.relu(x) if forward_slope == 0 else functional.leaky_relu(x, forward_slope)
        ctx.save_for_backward(y)
        ctx.slope = slope  # type: ignore[attr-defined]
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = grads
        (y,) = ctx.saved_tensors
        slope: Slope = ctx.slope
        if isinstance(slope, Tensor):
            return torch.where(y > 0, grad, grad * slope), None, None, None
        return torch.ops.aten.leaky_relu_backward(grad, y, slope, False), None, None, None


def _relu(slope: Slope, input: Tensor, inplace: bool = False) -> Tensor:
    return rectify(input, 0.0, slope, inplace)


def _relu_(slope: Slope, input: Tensor) -> Tensor:
    return rectify(input, 0.0, slope, inplace=True)


def _leaky_relu(slope: Slope, input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return rectify(input, negative_slope, slope, inplace)


def _leaky_relu_(slope: Slope, input: Tensor, negative_slope: float = 0.01) -> Tensor:
    return rectify(input, negative_slope, slope, inplace=True)


_PROXIES: dict[Callable[..., Any], Callable[..., Tensor]] = {
    functional.relu: _relu,
    torch.relu: _relu,
    Tensor.relu: _relu,
    torch.relu_: _relu_,
    Tensor.relu_: _relu_,
    functional.leaky_relu: _leaky_relu,
    functional.leaky_relu_: _leaky_relu_,
}


class surrogate(TorchFunctionMode):
    """Context manager: rectifiers of this thread use ``slope`` in the backward pass.

    ``slope``: a number in [0, 1] for the whole batch, or a tensor ``(lanes,)`` with one for each lane.
    Gradients of values computed inside are the proxy's, also when taken after the block has ended.

    >>> x = torch.tensor([[-1.0, 2.0]], requires_grad=True)
    >>> with surrogate(0.05):
    ...     y = torch.relu(x)
    >>> torch.autograd.grad(y.sum(), x)
    (tensor([[0.0500, 1.0000]]),)
    """

    def __init__(self, slope: Slope) -> None:
        super().__init__()
        self.slope = slope

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        proxy = _PROXIES.get(func)
        if proxy is None:
            return func(*args, **(kwargs or {}))
        return proxy(self.slope, *args, **(kwargs or {}))
