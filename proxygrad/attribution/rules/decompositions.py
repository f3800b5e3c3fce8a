"""Decompositions: operations that run as several others, each of which has an exact rule.

A layer norm is a mean, a variance, a Rescale of the square root and a division; attention two matrix products
and a softmax. They are recorded so (`proxygrad.attribution.recording.tape`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor


def _normalized(
    x: Tensor, over: list[int], epsilon: float, centered: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """``(x - mean) / sqrt(variance + epsilon)``, the mean, and ``1 / sqrt``; by a division, see `divided`."""
    mean = x.mean(over, keepdim=True)
    moved = x - mean if centered else x
    size = (moved.square().mean(over, keepdim=True) + epsilon).sqrt()
    return moved / size, mean, 1 / size


def _last(x: Tensor, shape: Sequence[int]) -> list[int]:
    return list(range(x.ndim - len(shape), x.ndim))


def layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, epsilon: float
) -> Any:
    """``native_layer_norm``."""
    out, mean, scale = _normalized(x, _last(x, shape), epsilon)
    return _affine(out, weight, bias), mean, scale


def rms_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None, epsilon: float | None) -> Any:
    """``_fused_rms_norm``."""
    epsilon = torch.finfo(x.dtype).eps if epsilon is None else epsilon
    out, _, scale = _normalized(x, _last(x, shape), epsilon, centered=False)
    return _affine(out, weight, None), scale


def group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    samples: int,
    channels: int,
    positions: int,
    groups: int,
    epsilon: float,
) -> Any:
    """``native_group_norm``."""
    grouped = x.reshape(samples, groups, -1)
    out, mean, scale = _normalized(grouped, [2], epsilon)
    columns = (1, channels, *[1] * (x.ndim - 2))
    weight, bias = (each if each is None else each.view(columns) for each in (weight, bias))
    return _affine(out.reshape(x.shape), weight, bias), mean.flatten(1), scale.flatten(1)


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    epsilon: float,
) -> Any:
    """``native_batch_norm`` with statistics of its own input, as in an instance norm; the running ones stay.

    Of several rows they would tie each to the others.
    """
    if not training or len(x) > 1:
        return NotImplemented
    out, mean, scale = _normalized(x, [0, *range(2, x.ndim)], epsilon)
    columns = (1, x.shape[1], *[1] * (x.ndim - 2))
    weight, bias = (each if each is None else each.view(columns) for each in (weight, bias))
    return _affine(out, weight, bias), mean.flatten(), scale.flatten()


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """`torch.nn.functional.scaled_dot_product_attention`, ``softmax(q k^T scale + mask) v``."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = (each.repeat_interleave(groups, -3) for each in (key, value))
    scores = (query @ key.transpose(-2, -1)) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return torch.dropout(torch.ops.aten._safe_softmax(scores, -1), dropout_p, bool(dropout_p)) @ value


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> Any:
    """``_scaled_dot_product_flash_attention_for_cpu``, where it is called by another name."""
    out = attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)
    return out, query.new_zeros(query.shape[:-1])


def vector_norm(
    x: Tensor,
    order: float = 2,
    dim: list[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Any:
    """``linalg_vector_norm`` of order 1, 2, or infinite."""
    over = list(range(x.ndim)) if dim is None else dim
    if dtype is not None or order not in (1, 2, math.inf):
        return NotImplemented
    if order == 2:
        return x.square().sum(over, keepdim=keepdim).sqrt()
    return x.abs().sum(over, keepdim=keepdim) if order == 1 else x.abs().amax(over, keepdim=keepdim)


def variance(
    x: Tensor,
    dim: Any = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
    unbiased: bool | None = None,
) -> Tensor:
    """``var``."""
    over = list(range(x.ndim)) if dim is None or isinstance(dim, bool) or dim == [] else dim
    count = math.prod(x.shape[each] for each in over)
    if dim is False or unbiased is False:
        correction = 0
    moved = x - x.mean(over, keepdim=True)
    return moved.square().sum(over, keepdim=keepdim) / max(
        0.0, count - (1 if correction is None else correction)
    )


def deviation(x: Tensor, dim: Any = None, **how: Any) -> Tensor:
    """``std``."""
    return variance(x, dim, **how).sqrt()


def variance_and_mean(x: Tensor, dim: Any = None, *, keepdim: bool = False, **how: Any) -> Any:
    """``var_mean``."""
    over = list(range(x.ndim)) if dim is None or isinstance(dim, bool) or dim == [] else dim
    return variance(x, dim, keepdim=keepdim, **how), x.mean(over, keepdim=keepdim)


def glu(x: Tensor, dim: int = -1) -> Tensor:
    """``a * sigmoid(b)`` of the two halves."""
    a, b = x.chunk(2, dim)
    return a * b.sigmoid()


def divided(x: Tensor, first: Tensor, second: Tensor, *, value: float = 1) -> Tensor:
    """``addcdiv``."""
    return x + value * first / second


def floored(x: Tensor, other: Any) -> Tensor:
    """``floor_divide``."""
    return torch.div(x, other, rounding_mode="floor")


def product(x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """``prod``, factor by factor."""
    if dtype is not None:
        return NotImplemented
    x, dim = (x.flatten(), 0) if dim is None else (x, dim)
    first, *rest = x.unbind(dim)
    for each in rest:
        first = first * each
    return first.unsqueeze(dim) if keepdim else first


def trilinear(
    first: Tensor,
    second: Tensor,
    third: Tensor,
    expand: Sequence[int],
    expand_second: Sequence[int],
    expand_third: Sequence[int],
    over: list[int],
    unroll_dim: int = 1,
) -> Tensor:
    """``_trilinear``, of which a bilinear layer is made."""
    spread = ((first, expand), (second, expand_second), (third, expand_third))
    factors = [reduce(torch.unsqueeze, dims, factor) for factor, dims in spread]
    return (factors[0] * factors[1] * factors[2]).sum(over)


def lstm_layer(  # noqa: PLR0913, PLR0917, as aten has them
    x: Tensor,
    of_input: Tensor,
    of_hidden: Tensor,
    bias: Tensor,
    bias_hidden: Tensor,
    hidden: Tensor,
    cell: Tensor,
    reverse: bool,
    batch_sizes: Sequence[int],
    mode: int,
    hidden_size: int,
    layers: int,
    has_biases: bool,
    bidirectional: bool,
    batch_first: bool,
    train: bool,
) -> Any:
    """``mkldnn_rnn_layer``, an LSTM of one layer and direction; time comes first."""
    if mode != 2 or batch_sizes:  # MIOpen's and cuDNN's number of the LSTM; packed sequences
        return NotImplemented
    hidden, cell = hidden.squeeze(0), cell.squeeze(0)  # (N, H)
    gates = x @ of_input.t()  # (T, N, 4 H)
    if has_biases:
        gates = gates + (bias + bias_hidden)
    steps = list(gates.unbind(0))
    outs = []
    for each in reversed(steps) if reverse else steps:
        i, f, g, o = (each + hidden @ of_hidden.t()).chunk(4, -1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        outs.append(hidden)
    output = torch.stack(outs[::-1] if reverse else outs)
    return output, hidden.unsqueeze(0), cell.unsqueeze(0), torch.empty(0)


#: By the names of aten.
DECOMPOSITIONS: dict[str, Callable[..., Any]] = {
    "native_layer_norm": layer_norm,
    "_fused_rms_norm": rms_norm,
    "native_group_norm": group_norm,
    "native_batch_norm": batch_norm,
    "_scaled_dot_product_flash_attention_for_cpu": flash_attention,
    "linalg_vector_norm": vector_norm,
    "var": variance,
    "std": deviation,
    "var_mean": variance_and_mean,
    "glu": glu,
    "addcdiv": divided,
    "floor_divide": floored,
    "prod": product,
    "_trilinear": trilinear,
    "mkldnn_rnn_layer": lstm_layer,
}
