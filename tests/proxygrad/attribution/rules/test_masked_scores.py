"""Scores of minus infinity, which attention masks with, where input and reference mask other positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.attribution.attribute import attribute
from tests.support.attributed_functions import attributed, numbers


def masked(x: Tensor) -> Tensor:
    """``(N, 1, L)``: the positions of ``(N, L, C)`` that do not count."""
    return (x[..., 0] > 0.3).unsqueeze(1)


def scores(x: Tensor) -> Tensor:
    return x @ x.mT


def by_hand(x: Tensor) -> Tensor:
    masked_scores = scores(x).masked_fill(masked(x), -math.inf)
    weights = (masked_scores - masked_scores.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True) @ x


SPELLINGS: dict[str, Callable[[Tensor], Any]] = {
    "masked_fill": lambda x: scores(x).masked_fill(masked(x), -math.inf).softmax(-1) @ x,
    "where": lambda x: torch.where(masked(x), -math.inf, scores(x)).softmax(-1) @ x,
    "added": lambda x: (scores(x) + (~masked(x)).to(x.dtype).log()).softmax(-1) @ x,
    "the least number": lambda x: scores(x).masked_fill(masked(x), torch.finfo(x.dtype).min).softmax(-1) @ x,
    "logarithm, cut": lambda x: scores(x).masked_fill(masked(x), -math.inf).log_softmax(-1).clamp(min=-9) @ x,
    "log-sum-exp": lambda x: scores(x).masked_fill(masked(x), -math.inf).logsumexp(-1),
    "by hand": by_hand,
    "torch's": lambda x: functional.scaled_dot_product_attention(x, x, x, attn_mask=~masked(x)),
    "torch's, no position left": lambda x: functional.scaled_dot_product_attention(
        x, x, x, attn_mask=~masked(x) & (x[..., :1] > 0)
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contributions_sum_to_the_difference(spelling: str, dtype: torch.dtype) -> None:
    x, x0 = numbers(2, 6, 4, seed=1), numbers(2, 6, 4, seed=2)
    assert bool((masked(x) != masked(x0)).any())
    found = attributed(SPELLINGS[spelling], x.to(dtype), x0.to(dtype), dtype=dtype)
    assert found.unruled == ()
    assert bool(found.contributions.isfinite().all())
    scale = max(1.0, float(found.contributions.abs().sum((1, 2)).max()))
    assert float(found.delta.absolute.abs().max()) < (1e-11 if dtype == torch.float64 else 1e-5) * scale


class Reader(nn.Module):
    """Tokens, of which 0 fills up, through a layer of attention."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(9, 8, padding_idx=0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.fc = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        encoded = self.encoder(self.embed(tokens), src_key_padding_mask=tokens == 0)
        result: Tensor = self.fc(encoded.mean(1))
        return result


TOKENS = torch.tensor([[3, 1, 4, 1, 5, 0, 0]])


def test_tokens_with_the_same_padding_are_exact() -> None:
    reference = TOKENS.where(TOKENS == 0, torch.tensor(7))
    found = attribute(
        Reader(), TOKENS, "output:1", at="embed", reference=reference, strict=True, dtype=torch.float64
    )
    assert float(found.delta.relative.max()) < 1e-12
    assert not found.contributions[:, 5:].any()


@pytest.mark.parametrize("reference", [0, 7])
def test_a_mask_read_off_the_tokens_goes_around_their_embedding(reference: int) -> None:
    found = attribute(Reader(), TOKENS, "output:1", at="embed", reference=reference, strict=True)
    assert bool(found.contributions.isfinite().all())
    assert found.delta.operations[0].operation == "eq"
    assert found.delta.operations[0].missed == pytest.approx(float(found.delta.absolute.abs()), rel=1e-4)
