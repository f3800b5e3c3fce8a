"""Attention layout: attention computed tokens-first, so that each projection is one matrix product.

`torch.nn.MultiheadAttention` with ``batch_first`` hands its input to the projections as a transposed view,
which torch multiplies token by token: on a CPU a batch of two takes 3 times as long as need be in float32,
and 50 times in bfloat16 (docs/speed.md).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def lay_out(module: nn.Module) -> None:
    """Make an attention module copy its input once, tokens first; its interface stays the same.

    Replaces its ``forward``. Anything but torch's own attention, with the batch first, is left alone.
    """
    if type(module) is not nn.MultiheadAttention or not module.batch_first or "forward" in vars(module):
        return
    module.batch_first = False
    run = module.forward

    def forward(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        if query.ndim != 3:  # one sequence, without a batch
            return run(query, key, value, *args, **kwargs)
        laid_out: dict[
            int, Tensor
        ] = {}  # self-attention takes one tensor three times, which makes it self-attention
        for each in (query, key, value):
            if id(each) not in laid_out:
                laid_out[id(each)] = each.transpose(0, 1).contiguous()
        attended, weights = run(laid_out[id(query)], laid_out[id(key)], laid_out[id(value)], *args, **kwargs)
        return attended.transpose(0, 1), weights

    module.forward = forward  # type: ignore[method-assign]
