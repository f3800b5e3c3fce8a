"""Gradient methods and references by way of `attribute`."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from proxygrad.attribution.attribute import Settings, attribute, begin
from proxygrad.attribution.gradients import METHODS
from proxygrad.errors import InvalidRequest


def reader() -> nn.Sequential:
    """``(N, 4, 12)`` → ``(N, 2)``"""
    network = nn.Sequential(nn.Conv1d(4, 6, 5), nn.Softplus(), nn.Flatten(), nn.Linear(48, 2))
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    return network


def sequences(count: int) -> torch.Tensor:
    drawn = torch.randint(4, (count, 12), generator=torch.Generator().manual_seed(1))
    return nn.functional.one_hot(drawn, 4).mT.float()


@pytest.mark.parametrize("method", ["deeplift", *METHODS])
def test_several_references_give_the_mean_over_them(method: str) -> None:
    network, x = reader(), sequences(2)
    several = torch.rand((2, 3, 4, 12), generator=torch.Generator().manual_seed(2))
    found = attribute(network, x, "output:1", method=method, reference=several, points=8)
    each = [
        attribute(network, x, "output:1", method=method, reference=reference, points=8).contributions
        for reference in several.unbind(1)
    ]
    torch.testing.assert_close(found.contributions, torch.stack(each).mean(0), rtol=1e-4, atol=1e-6)
    assert found.method == method


@pytest.mark.parametrize(
    ("method", "steps", "turns"), [("deeplift", 3, 2), ("saliency", 3, 2), ("integrated_gradients", 15, 8)]
)
def test_slices_sum_up_to_the_same_and_count_their_rows(method: str, steps: int, turns: int) -> None:
    network, x = reader(), sequences(1)
    how: dict[str, Any] = {"reference": ["zeros", 0.5, "mean"], "method": method, "points": 5}
    whole = attribute(network, x, "output:1", **how)
    found, taken = begin(network, x, "output:1", Settings(**how, max_rows=2, each=False)), [0]
    assert found.steps == steps
    while found.step < found.steps:
        found.advance()
        taken.append(found.step)
    sliced = found.result()
    assert taken == [*range(0, steps, 2), steps]
    assert len(taken) == turns + 1
    for name in ("contributions", "multipliers", "value", "reference_value"):
        torch.testing.assert_close(getattr(sliced, name), getattr(whole, name), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sliced.delta.absolute, whole.delta.absolute, rtol=1e-3, atol=1e-5)
    assert (whole.each_multipliers.shape[1], sliced.each_multipliers.shape[1]) == (3, 0)


@pytest.mark.parametrize("method", ["deeplift", "saliency"])
def test_nothing_has_a_share_of_no_difference(method: str) -> None:
    """Whether or not anything is missed: the absolute delta says that."""
    x = sequences(2)
    found = attribute(reader(), x, "output:1", method=method, reference=torch.stack([x[0], x[0]]))
    assert found.delta.relative.isnan().tolist() == [True, False]
    assert bool(found.delta.absolute[0] == 0) is (method == "deeplift")
    assert "nan" not in repr(found)
    alone = attribute(reader(), x[:1], "output:1", method=method, reference=x[0])
    assert "relative nan" in repr(alone)
    assert all(math.isnan(each.share) for each in alone.delta.operations)


def test_points_make_integrated_gradients_exact() -> None:
    network, x = reader(), sequences(2)
    few, many = (
        attribute(network, x, "output:1", method="integrated_gradients", reference="mean", points=points)
        for points in (1, 64)
    )
    assert float(many.delta.relative.max()) < 1e-4 < float(few.delta.relative.max())


def test_contributions_against_shuffles_are_the_same_for_a_sequence_alone() -> None:
    network, x = reader(), sequences(3)
    how = {"reference": "dinucleotide_shuffled", "references": 4, "seed": 5}
    together = attribute(network, x, "output:1", **how)  # type: ignore[arg-type]
    alone = attribute(network, x[2:], "output:1", **how)  # type: ignore[arg-type]
    torch.testing.assert_close(together.contributions[2:], alone.contributions)
    assert together.references.shape == (3, 4, 4, 12)
    standing = (together.hypothetical(x) * x).sum(1)
    torch.testing.assert_close(standing, together.contributions.sum(1))
    assert float(together.delta.relative.max()) < 1e-4


def test_one_reference_cannot_be_several() -> None:
    with pytest.raises(InvalidRequest, match="references=5 does not fit"):
        attribute(reader(), sequences(1), "output:0", references=5)
