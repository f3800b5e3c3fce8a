"""What networks do that few networks do: each is exact, or named, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.attribution.attribute import attribute
from proxygrad.errors import InvalidRequest, NetworkError
from tests.support.attributed_functions import attributed, numbers

GRAPH = numbers(6, 6, seed=3).relu()


def into_a_buffer(x: Tensor) -> Tensor:
    result = torch.empty_like(x)
    torch.mul(x, x.sin(), out=result)
    torch.add(result, x, alpha=2, out=result)
    return torch.tanh(result, out=torch.empty_like(x))


def grouped_queries(x: Tensor) -> Tensor:
    query, key, value = (each.view(-1, 3, 2, 1) for each in (x.sin(), x.cos(), x))
    return functional.scaled_dot_product_attention(query, key[:, :1], value[:, :1], enable_gqa=True)


def dropping_attention(x: Tensor) -> Tensor:
    tokens = x.view(-1, 1, 3, 2)
    return functional.scaled_dot_product_attention(tokens, tokens, tokens, dropout_p=0.5)


EXACT: dict[str, Callable[[Tensor], Any]] = {
    "out=": into_a_buffer,
    "floor division": lambda x: x // 0.3,
    "floor division in place": lambda x: x.clone().floor_divide_(0.3),
    "a sparse matrix": lambda x: (GRAPH.to_sparse() @ x.mT).mT.relu(),
    "a sparse matrix in rows": lambda x: (GRAPH.to_sparse_csr() @ x.mT).mT.relu(),
    "sparse and added": lambda x: torch.sparse.addmm(x.mT, GRAPH.to_sparse(), x.mT).mT.relu(),
    "instance norm that keeps statistics": lambda x: functional.instance_norm(
        x.view(-1, 2, 3), torch.zeros(2).to(x), torch.ones(2).to(x), use_input_stats=True
    ),
    "grouped queries": grouped_queries,
    "attention with dropout": dropping_attention,
}


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("rule", ["rescale", "revealcancel"])
def test_contributions_sum_to_the_difference(name: str, rule: str) -> None:
    found = attributed(EXACT[name], numbers(3, 6), numbers(3, 6, seed=1), rule=rule)
    assert found.unruled == ()
    assert bool(found.contributions.any())
    assert float(found.delta.absolute.abs().max()) < 1e-10


BY_GRADIENT: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "where to sample": (
        lambda x: functional.grid_sample(
            GRAPH.expand(len(x), 1, 6, 6), x.tanh().view(-1, 1, 3, 2), align_corners=False
        ),
        "grid_sampler_2d",
    ),
    "statistics of a batch": (
        lambda x: functional.batch_norm(x.view(-1, 2, 3), None, None, training=True),
        "native_batch_norm",
    ),
    "statistics that vary": (
        lambda x: functional.batch_norm(x, x.mean(0), x.square().mean(0)),
        "native_batch_norm",
    ),
    "weights of a bag": (
        lambda x: functional.embedding_bag(
            torch.arange(6).repeat(len(x), 1), GRAPH.to(x), per_sample_weights=x, mode="sum"
        ),
        "_embedding_bag_forward_only",
    ),
    "numbers in boxes": (
        lambda x: functional.embedding(torch.bucketize(x, torch.linspace(-1, 1, 5).to(x)), GRAPH.to(x)),
        "embedding",
    ),
}


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_what_has_no_rule_is_named(name: str) -> None:
    function, operation = BY_GRADIENT[name]
    x, x0 = numbers(3, 6), numbers(3, 6, seed=1)
    found = attributed(function, x, x0, strict=False)
    assert operation in {each.operation for each in found.unruled}
    assert found.delta.operations[0].operation == operation
    with pytest.raises(InvalidRequest, match=f"operation '{operation}'.*has no rule"):
        attributed(function, x, x0, strict=True)


class Counting(nn.Module):
    """A network that writes down how often it ran."""

    runs: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return x.sin() * self.runs


@pytest.mark.parametrize("method", ["deeplift", "integrated_gradients"])
def test_each_pass_finds_the_same_buffers(method: str) -> None:
    x = numbers(3, 6)
    network = Counting()
    found = attribute(network, x, "output:1", method=method, max_rows=1)
    assert torch.equal(found.value, x[:, 1].float().sin())
    assert float(found.delta.absolute.abs().max()) < 1e-3
    assert float(network.runs) == 0


def test_layouts_without_multipliers() -> None:
    x = numbers(3, 6)
    plain = attributed(torch.sin, x, 0)
    assert torch.equal(attributed(torch.sin, x.to_sparse(), 0).contributions, plain.contributions)
    with pytest.raises(
        NetworkError, match=r"'_to_sparse' returns torch.sparse_coo, which has no multipliers"
    ):
        attributed(lambda x: torch.sparse.mm(x.to_sparse(), GRAPH.to(x)), x, 0)


def test_a_rule_for_a_call_that_does_not_take_place() -> None:
    network = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    options: dict[str, Any] = {"rule": {"1@2": "rescale"}}
    with pytest.raises(InvalidRequest, match="rule for '1@2', which does not run"):
        attribute(network, numbers(1, 6), "output:1", **options)
    attribute(network, numbers(1, 6), "output:1", rule={"1@1": "rescale"})


def test_contributions_out_of_range_are_refused() -> None:
    x = torch.full((1, 6), 3e38)
    with pytest.raises(NetworkError, match="contributions of input 0 are not finite"):
        attributed(lambda x: x * 1e-38, x, -3e38, method="gradient_times_input")
    with pytest.raises(InvalidRequest, match=r"inputs of torch.int64.*valid: at="):
        attribute(nn.Linear(6, 4), torch.ones(1, 6, dtype=torch.long), "output:1")
