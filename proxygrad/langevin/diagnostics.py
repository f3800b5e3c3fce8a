"""Diagnostics of Markov chains by one number of each state: how much they tell, and whether they agree.

- The integrated autocorrelation time of a chain, ``1 + 2 Σ ρ(t)``, cut by Geyer's initial monotone sequence
  (Geyer 1992, "Practical Markov chain Monte Carlo", Statistical Science 7, section 3.3): sums of two
  neighboring autocovariances are positive and decrease; the first that is not ends the sum.
- The effective sample size of several chains (Vehtari, Gelman, Simpson, Carpenter, Bürkner 2021,
  arXiv 1903.08008, section 3.2, equations 10 to 13), of chains that are split in halves.
- R-hat (ibid., section 4): split, on ranks made normal, the larger of that of the draws and of their folded
  distances from the median, so that it sees chains that differ in spread too.

Draws are ``(chains, draws)``. What cannot be told, of constant or too few draws, is None.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Fewer tell nothing of an autocorrelation; halves of a chain need as many.
FEWEST = 4


def autocovariance(draws: Tensor) -> Tensor:
    """Of each row at every lag, over the number of draws: ``(chains, draws)`` → the same, float64."""
    centered = draws.double() - draws.double().mean(dim=1, keepdim=True)
    count = centered.shape[1]
    spectrum = torch.fft.rfft(centered, n=2 * count)
    found: Tensor = torch.fft.irfft(spectrum.abs().square(), n=2 * count)[:, :count] / count
    return found


def autocorrelation_time(draws: Tensor) -> float | None:
    """Integrated autocorrelation time of one chain ``(draws,)``, in draws; 1 where they are independent."""
    if len(draws) < FEWEST or _constant(draws):
        return None
    covariance = autocovariance(draws.unsqueeze(0))[0]
    return _geyer(covariance / covariance[0])


def effective_sample_size(draws: Tensor) -> float | None:
    """Of all chains ``(chains, draws)`` together: how many independent draws tell as much of the mean."""
    if draws.shape[1] < 2 * FEWEST or _constant(draws):
        return None
    halves = _split(draws.double())
    chains, count = halves.shape
    covariance = autocovariance(halves)
    within = float(covariance[:, 0].mean()) * count / (count - 1)
    between = float(halves.mean(dim=1).var())  # of the means; B / n in the paper
    total = within * (count - 1) / count + between
    if within == 0:  # each half is constant and they differ: they have not moved
        return None
    correlation = 1 - (within - covariance.mean(dim=0) * count / (count - 1)) / total
    correlation[0] = 1
    return chains * count / _geyer(correlation)


def r_hat(draws: Tensor) -> float | None:
    """Rank-normalized split R-hat of ``(chains, draws)``: 1 where the chains agree."""
    if draws.shape[1] < 2 * FEWEST or _constant(draws):
        return None
    values = draws.double()
    found = [split_r_hat(rank_normalized(each)) for each in (values, (values - values.median()).abs())]
    told = [each for each in found if each is not None]
    return max(told) if told else None


def split_r_hat(draws: Tensor) -> float | None:
    """Split R-hat of the draws as they are (Vehtari et al. 2021, equations 1 to 4)."""
    halves = _split(draws.double())
    count = halves.shape[1]
    within, between = float(halves.var(dim=1).mean()), float(halves.mean(dim=1).var())
    return None if within == 0 else float((((count - 1) / count * within + between) / within) ** 0.5)


def rank_normalized(draws: Tensor) -> Tensor:
    """The normal quantile of each draw's rank among all, ties sharing theirs: z of equation 14."""
    flat = draws.flatten()
    _, inverse, counts = flat.unique(return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    ranks = (ends - (counts.double() - 1) / 2)[inverse]  # the mean rank of equal draws, from 1
    normal: Tensor = torch.special.ndtri((ranks - 3 / 8) / (len(flat) + 1 / 4))
    return normal.view_as(draws)


def _split(draws: Tensor) -> Tensor:
    """Each chain as two of its halves; the middle one of an odd number is left out."""
    half = draws.shape[1] // 2
    return torch.cat([draws[:, :half], draws[:, -half:]])


def _constant(draws: Tensor) -> bool:
    return bool((draws == draws.flatten()[0]).all())


def _geyer(correlation: Tensor) -> float:
    """``-1 + 2 Σ P(t)`` over the initial monotone sequence of ``P(t) = ρ(2t) + ρ(2t + 1)``; at least
    ``1 / log10`` of the draws, as Vehtari et al. bound it for antithetic chains."""
    count = len(correlation)
    pairs = correlation[: count // 2 * 2].view(-1, 2).sum(dim=1)
    ends = (pairs <= 0).nonzero()
    positive = pairs[: int(ends[0])] if len(ends) else pairs
    monotone = positive.cummin(dim=0).values if len(positive) else positive
    found = -1 + 2 * float(monotone.sum())
    return max(found, 1 / float(torch.tensor(float(count)).log10()))
