"""Attention that is laid out anew returns what torch's does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from proxygrad.networks.attention_layout import lay_out


def attention(**given: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    return nn.MultiheadAttention(16, 4, batch_first=True, **given).eval().requires_grad_(False)


@pytest.mark.parametrize("keys", ["same", "other"])
@pytest.mark.parametrize("need_weights", [True, False])
def test_values_weights_and_gradients_are_the_same(keys: str, need_weights: bool) -> None:
    exact = attention()
    fast = copy.deepcopy(exact)
    lay_out(fast)
    found = []
    for module in (exact, fast):
        torch.manual_seed(1)
        query = torch.rand((3, 7, 16), requires_grad=True)
        key = query if keys == "same" else torch.rand((3, 5, 16), requires_grad=True)
        mask = torch.zeros((7, key.shape[1]), dtype=torch.bool).triu(1)
        value, weights = module(query, key, key, need_weights=need_weights, attn_mask=mask)
        gradients = torch.autograd.grad(value[:, :, 3].sum(), [query, key])
        found.append((value, weights, *gradients))
    for expected, other in zip(*found, strict=True):
        torch.testing.assert_close(other, expected)


def test_a_sequence_without_a_batch() -> None:
    exact = attention()
    fast = copy.deepcopy(exact)
    lay_out(fast)
    tokens = torch.rand((7, 16))
    torch.testing.assert_close(fast(tokens, tokens, tokens), exact(tokens, tokens, tokens))


def test_the_projections_see_one_matrix() -> None:
    """What the laying out is for: torch multiplies a transposed view token by token."""
    seen: list[bool] = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is nn.functional.multi_head_attention_forward:
                seen.append(args[0].is_contiguous())
            return func(*args, **(kwargs or {}))

    fast = attention()
    tokens = torch.rand((3, 7, 16))
    for _ in range(2):
        with Watch():
            fast(tokens.requires_grad_(), tokens, tokens)
        lay_out(fast)
    assert seen == [False, True]


@pytest.mark.parametrize(
    "module", [nn.MultiheadAttention(16, 4), nn.Linear(3, 3)], ids=["tokens first", "linear"]
)
def test_nothing_else_is_touched(module: nn.Module) -> None:
    before = dict(vars(module))
    lay_out(module)
    assert vars(module) == before


def test_laying_out_twice_is_laying_out_once() -> None:
    fast = attention()
    lay_out(fast)
    forward = fast.forward
    lay_out(fast)
    assert fast.forward is forward
