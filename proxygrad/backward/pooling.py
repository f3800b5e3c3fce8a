"""Max pooling whose gradient is spread over its window.

Max pooling hands the gradient of each window to the largest of its values alone. With a share ``t`` the
proxy of max pooling is ``(1 - t) max + t mean``, the mixed pooling of Lee, Gallagher and Tu (2016, arXiv
1509.08985), so that a part ``t`` of the gradient goes to all values of the window in equal parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

from proxygrad.errors import NetworkError

#: The calls that are two-dimensional max pooling. The last is refused: its indices are max pooling's alone.
MAX_POOLING: tuple[Callable[..., Any], ...] = (
    functional.max_pool2d,
    torch.max_pool2d,
    functional.max_pool2d_with_indices,
)


def spread_max_pool2d(x: Tensor, windows: dict[str, Any], share: float, forward: bool = False) -> Tensor:
    """Max pooling with ``dx = (1 - share)`` of max pooling's own ``+ share`` of that of the window's mean.

    ``x``: ``(B, C, H, W)``. ``windows``: the other arguments of `torch.nn.functional.max_pool2d` (see
    `windows_of`). The mean is over the values of the window inside the image: padding takes no share. With
    ``forward`` the value too is the proxy's; else it is max pooling's. Raises `NetworkError` for dilated
    windows, of which torch has no mean, and where indices are returned.
    """
    if windows["dilation"] not in (1, (1, 1), [1, 1]) or windows["return_indices"]:
        raise NetworkError(
            f"max pooling with dilation={windows['dilation']}, return_indices={windows['return_indices']} "
            "cannot be spread; set spread_max_pool to 0 for this network"
        )
    size, padding, ceil = windows["kernel_size"], windows["padding"], windows["ceil_mode"]
    stride = windows["stride"] or size  # None, or an empty list: the windows touch

    def largest(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, size, stride, padding, ceil_mode=ceil)

    def proxy(x: Tensor) -> Tensor:
        mean = functional.avg_pool2d(x, size, stride, padding, ceil, count_include_pad=False)
        return (1 - share) * largest(x) + share * mean

    if forward:
        return proxy(x)
    spread: Tensor = _Spread.apply(x, largest, proxy)  # type: ignore[no-untyped-call]
    return spread


def windows_of(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of one of `MAX_POOLING`, by name (``input`` too), defaults filled in."""
    names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    defaults: dict[str, Any] = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}
    indices = function is functional.max_pool2d_with_indices
    given = dict(zip(names, args, strict=False)) | kwargs
    return defaults | given | {"return_indices": indices}


class _Spread(torch.autograd.Function):
    """The value of one function with the gradient of another."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, function: Callable[[Tensor], Tensor], proxy: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.proxy = proxy  # type: ignore[attr-defined]
        return function(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (spread,) = torch.autograd.grad(ctx.proxy(x), x, grads[0])
        return spread, None, None
