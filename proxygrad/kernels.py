"""Kernels that round an image alike, alone and in a batch.

A kernel sums in an order that depends on its shapes, so an image may come out in other bits alone than among
others. Most of that is torch's choice between kernels: a convolution of one small image runs in another
library than that of two, and a product with one row differs from one with four. Within `same_kernels` those
are run as if there were more images, the others being zero. That is most of what tells batch sizes apart on
the CPU; the rest is found by trying (`proxygrad.engine.batch_sizes`). In bfloat16 only the products need it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from proxygrad.torch_function import TorchFunctionInterceptor

#: Rows of a matrix product: fewer are filled up with zeros, so that all batches of a step have one shape.
ROWS = 16

_CONVOLUTIONS: dict[Callable[..., Any], int] = {  # dimensions of what they move over
    functional.conv1d: 1,
    functional.conv2d: 2,
    functional.conv3d: 3,
}


class same_kernels(TorchFunctionInterceptor):
    """Context manager: convolutions and linear layers of this thread take the kernels of larger batches.

    On the CPU; convolutions in float32 alone, since in bfloat16 torch has but one library for them. Values
    are the same but for rounding. ``convolutions``, ``filled``, ``products``: how many convolutions there
    were, how many of them needed a second image, and how many linear layers were filled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = self.filled = self.products = 0

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call, with zeros added to its batch where it has too few images."""
        if func is functional.linear:
            missing = _missing_rows(*args[:1])
            self.products += missing > 0
        elif func in _CONVOLUTIONS:
            missing = _missing_images(_CONVOLUTIONS[func], *args, **kwargs)
            self.convolutions += 1
            self.filled += missing
        else:
            return func(*args, **kwargs)
        if not missing:
            return func(*args, **kwargs)
        x = args[0]
        others = torch.zeros_like(x[:1])  # in its memory layout, which the choice depends on, too
        filled = torch.cat([x, *[others] * missing])
        return func(filled, *args[1:], **kwargs)[: len(x)]


def kernels_of(device: torch.device) -> str:
    """What the rounding of a step on ``device`` depends on: `proxygrad.spec.Result.kernels`."""
    if device.type == "cpu":
        threads = torch.get_num_threads()
        where = f"{torch.backends.cpu.get_cpu_capability()}, {threads} thread{'s' if threads > 1 else ''}"
    else:
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"torch {torch.__version__.partition('+')[0]}, {where}"


def _missing_rows(x: Any = None) -> int:
    if not isinstance(x, Tensor) or x.ndim != 2 or x.device.type != "cpu":
        return 0
    return max(0, ROWS - len(x))


def _missing_images(
    sides: int,
    x: Any = None,
    weight: Any = None,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    **given: Any,
) -> int:
    """1 for one image that torch would convolve elsewhere than two; else 0."""
    tensors = isinstance(x, Tensor) and isinstance(weight, Tensor)
    if given or not tensors or len(x) != 1 or x.ndim != sides + 2 or not _chosen_by_size(x):
        return 0
    if isinstance(padding, str):
        padding = 0  # which has no part in the choice
    places = tuple(
        (each,) * sides if isinstance(each, int) else tuple(each) for each in (stride, padding, dilation)
    )
    threads = torch.get_num_threads()
    return int(_differs(tuple(x.shape), tuple(weight.shape), places, groups, threads))


def _chosen_by_size(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


@lru_cache(maxsize=4096)
def _differs(
    x: tuple[int, ...],
    weight: tuple[int, ...],
    places: tuple[tuple[int, ...], ...],
    groups: int,
    threads: int,
) -> bool:
    """Whether torch convolves an image ``(1, C, …)`` with another backend than two of them.

    ``places``: stride, padding, dilation. ``threads``: those of torch, which the choice depends on.
    """
    select: Any = getattr(torch._C, "_select_conv_backend", None)
    if select is None:
        return False
    kernel = torch.empty(weight)
    one, two = (
        select(torch.empty(images, *x[1:]), kernel, None, *places, False, [0] * len(places[0]), groups)
        for images in (1, 2)
    )
    return bool(one != two)
