"""Diagnostics of chains, against definitions written slowly and against what theory says of AR(1)."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch import Tensor

from proxygrad.langevin.diagnostics import (
    autocorrelation_time,
    autocovariance,
    effective_sample_size,
    r_hat,
    rank_normalized,
    split_r_hat,
)


def autoregressive(coefficient: float, chains: int, draws: int, seed: int = 0) -> Tensor:
    """Stationary AR(1) of unit variance: ``x ← a x + √(1 - a²) N(0, 1)``."""
    noise = torch.randn(draws, chains, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    states = [noise[0]]
    for each in noise[1:]:
        states.append(coefficient * states[-1] + math.sqrt(1 - coefficient**2) * each)
    return torch.stack(states, dim=1)


def test_autocovariance_is_its_definition() -> None:
    draws = autoregressive(0.5, 2, 17)
    for chain, row in zip(autocovariance(draws), draws.tolist(), strict=True):
        mean = statistics.fmean(row)
        for lag in range(17):
            products = [(row[at] - mean) * (row[at + lag] - mean) for at in range(17 - lag)]
            assert float(chain[lag]) == pytest.approx(sum(products) / 17, abs=1e-12)


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.9])
def test_the_autocorrelation_time_of_ar1_is_known(coefficient: float) -> None:
    """``(1 + a) / (1 - a)``; over 8 chains of 4,000 draws the mean is within 10 %."""
    draws = autoregressive(coefficient, 8, 4000)
    times = [autocorrelation_time(row) for row in draws]
    found = statistics.fmean(time for time in times if time is not None)
    assert found == pytest.approx((1 + coefficient) / (1 - coefficient), rel=0.1)
    size = effective_sample_size(draws)
    assert size == pytest.approx(8 * 4000 * (1 - coefficient) / (1 + coefficient), rel=0.1)


def test_the_autocorrelation_time_is_geyers_sum_written_slowly() -> None:
    row = autoregressive(0.8, 1, 300)[0]
    covariance = autocovariance(row.unsqueeze(0))[0].tolist()
    total, lowest, lag = 0.0, math.inf, 0
    while lag + 1 < 300:
        pair = (covariance[lag] + covariance[lag + 1]) / covariance[0]
        if pair <= 0:
            break
        lowest = min(lowest, pair)
        total, lag = total + lowest, lag + 2
    assert autocorrelation_time(row) == pytest.approx(2 * total - 1)


def test_split_r_hat_is_its_definition() -> None:
    draws = autoregressive(0.3, 3, 40)
    halves = [half for row in draws.tolist() for half in (row[:20], row[20:])]
    within = statistics.fmean(statistics.variance(half) for half in halves)
    between = statistics.variance([statistics.fmean(half) for half in halves])
    assert split_r_hat(draws) == pytest.approx(math.sqrt((19 / 20 * within + between) / within))


def test_ranks_become_normal_quantiles_and_ties_share_theirs() -> None:
    found = rank_normalized(torch.tensor([[3.0, 1.0], [2.0, 2.0]]))
    normal = statistics.NormalDist()
    expected = [[normal.inv_cdf((rank - 3 / 8) / 4.25) for rank in row] for row in ((4, 1), (2.5, 2.5))]
    assert found.tolist() == [pytest.approx(row, abs=1e-6) for row in expected]


def test_r_hat_sees_chains_that_differ_in_place_and_in_spread() -> None:
    draws = autoregressive(0.0, 4, 500)
    agreed = r_hat(draws)
    assert agreed is not None
    assert agreed < 1.01
    for odd in (
        draws + torch.tensor([0.0, 0, 0, 3]).unsqueeze(1),
        draws * torch.tensor([[1.0], [1], [1], [9]]),
    ):
        told = r_hat(odd)
        assert told is not None
        assert told > 1.1


@pytest.mark.parametrize("draws", [torch.zeros(2, 100), torch.rand(2, 3)])
def test_what_cannot_be_told_is_none(draws: Tensor) -> None:
    assert autocorrelation_time(draws[0]) is None
    assert effective_sample_size(draws) is None
    assert r_hat(draws) is None


def test_chains_that_never_move_have_no_size() -> None:
    assert effective_sample_size(torch.tensor([[0.0], [1.0]]).expand(2, 100)) is None
